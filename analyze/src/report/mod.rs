//! From the model to what people read: `report.json`, `report.html`, `summary.md` and SVGs.
//!
//! [`document`] is the report as data and the only input of the renderers, so whatever they show is in `report.json`.

pub mod document;

pub use document::Document;
