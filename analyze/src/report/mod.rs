//! From the model to what people read: `report.json`, `report.html`, `summary.md` and SVGs.
//!
//! [`document`] is the report as data and the only input of the renderers, so whatever they show is in `report.json`.
//! Every string in it may come from a stranger's traffic. One place, [`cleaned`], makes all of them harmless to look at
//! before anything is rendered; templates escape them again for HTML, and the figures' writer for SVG.

mod build;
pub mod document;
mod figure;
mod health;
mod page;
mod summary;
pub mod text;
mod view;
mod write;

pub use build::build;
pub use document::Document;
pub use figure::Svg;
pub use health::{ERRORS_CRITICAL, ERRORS_WARNING, Health};
pub use page::render_html;
pub use summary::render_summary;
pub use write::{render_json, render_svgs, write_all, write_single};

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The document could not be turned into JSON or back.
    #[error("the report could not be serialised: {0}")]
    Json(#[from] serde_json::Error),
    /// A template failed.
    #[error("the report's page could not be rendered: {0}")]
    Template(#[from] askama::Error),
    /// A file could not be written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// The document with every string, also in fields yet to come, passed through [`text::clean`].
fn cleaned(doc: &Document) -> Result<Document, ReportError> {
    fn walk(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => *text = text::clean(text),
            serde_json::Value::Array(items) => items.iter_mut().for_each(walk),
            serde_json::Value::Object(fields) => fields.values_mut().for_each(walk),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(doc)?;
    walk(&mut value);
    Ok(serde_json::from_value(value)?)
}
