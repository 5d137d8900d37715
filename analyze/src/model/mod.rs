//! What replay finds: requests, connections, metrics, the completeness ledger.

mod histogram;
mod ledger;
mod metrics;
mod request;

pub use histogram::Histogram;
pub use ledger::{Ledger, Loss};
pub use metrics::{EdgeKey, EndpointKey, Golden, Metrics, Point, SLOW_NS};
pub use request::{Evidence, Exemplar, Request};
