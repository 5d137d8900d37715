//! What replay finds: requests, connections, metrics, the completeness ledger.

mod histogram;
mod ledger;
mod metrics;
mod path;
mod request;

pub use histogram::Histogram;
pub use ledger::{Ledger, Loss};
pub use metrics::{EdgeKey, EndpointCounts, EndpointKey, Golden, Metrics, Point, SLOW_NS, Step};
pub use path::{mask_path, template_segment};
pub use request::{Evidence, Exemplar, Request};
