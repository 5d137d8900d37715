//! Who: sockets, processes, services.

mod processes;
mod services;
mod sockets;

pub use processes::{Process, Processes};
pub use services::{Service, ServiceKind, Services};
pub use sockets::{Closed, Endpoint, FailedConnect, Socket, SocketId, Sockets, Transport};
