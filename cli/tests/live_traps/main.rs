//! Every trap of the kernel side on live traffic, with both socket hooks: what the bundle holds is compared with what the
//! test itself moved. Needs root and a kernel with BTF; `KFR_LIVE=off` skips, `KFR_LIVE=required` fails where it can't
//! run.
#![cfg(all(target_os = "linux", feature = "capture"))]

mod connections;
mod exits;
mod filters;
mod kernel_paths;
mod live;
mod logs;
mod messages;
mod pods;
mod pressure;
mod processes;
mod sockets;
mod streams;
mod syscalls;
mod uring;
