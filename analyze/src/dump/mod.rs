//! JSON lines: requests, connections, statements, events. The keys are those that scripts rely on.

mod connections;
mod events;
mod logs;
mod requests;
mod statements;

pub use connections::{ConnectionRecord, connection_lines, connection_record};
pub use events::{AddressError, event_at, event_lines};
pub use logs::log_lines;
pub use requests::{PeerRecord, called_service, connection_id, flag_names, peer_records, request_line};
pub use statements::{fingerprint, parent_fingerprint, statement_flags, statement_lines};
