//! Regression tests of decoders: the requests of a capture against those that were blessed before.
//!
//! A golden file holds one request line each, as `kfr dump --requests` prints them. `id` and `evidence` are ignored: they
//! name places in a bundle, and an importer may change those without a request being read otherwise.

mod compare;
mod find;
mod run;

pub use compare::{Comparison, Difference, Tally, compare};
pub use find::{Case, Found, find};
pub use run::{CheckOptions, Checked, Importer, Outcome, check};
