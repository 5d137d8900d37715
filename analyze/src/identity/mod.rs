//! Who: sockets, processes, services.

mod known_by;
mod kube;
mod outside;
mod processes;
mod services;
mod sockets;
mod translations;

pub use known_by::KnownBy;
pub use kube::{Kube, Life, Objects, Who, add_unlisted, blind_times, read};
pub use outside::{Answer, Asker, Names};
pub use processes::{Process, Processes};
pub use services::{End, Service, ServiceKind, Services};
pub use sockets::{Closed, Endpoint, FailedConnect, Socket, SocketId, Sockets, Transport, peer_ip};
pub use translations::Translations;
