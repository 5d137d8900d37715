//! Records kernel events and host state into a bundle (Linux only).
//!
//! The probes in `bpf/` write events into a ring; [`capture`] drains it on a timer, sorts events into columns and hands
//! them to a thread that compresses and writes. Nothing is interpreted here: that is replay's part.

pub mod cgroup;
mod clock;
pub mod cluster;
mod conntrack;
mod containers;
mod drain;
mod filters;
mod host;
mod host_root;
pub mod kube;
pub mod logs;
mod lookup;
mod options;
mod preflight;
mod probes;
mod processes;
mod recorder;
mod selection;
mod store;

pub use filters::NoSuchTarget;
pub use host_root::host_root;
pub use options::{Destination, MAX_PAYLOAD_LIMIT, MIN_MAX_SIZE, Options, SocketHook, WHOLE_REQUESTS_FROM};
pub use preflight::{Preflight, preflight};
#[doc(hidden)]
pub use probes::{Config, Control, HookState};
pub use probes::{Counters, OBJECTS};
pub use recorder::{End, Outcome, capture, minimum_memory};
