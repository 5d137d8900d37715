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
    #[error("the report could not be serialised")]
    Json(#[from] serde_json::Error),
    /// A template failed.
    #[error("the report's page could not be rendered")]
    Template(#[from] askama::Error),
    /// A file could not be written.
    #[error("{path} can't be written")]
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
    // Series hold no text and are most of a document: they take a way around.
    let mut bare = doc.clone();
    let mut series: Vec<_> = goldens(&mut bare).map(|golden| std::mem::take(&mut golden.series)).collect();
    let mut value = serde_json::to_value(bare)?;
    walk(&mut value);
    let mut doc: Document = serde_json::from_value(value)?;
    for (golden, series) in goldens(&mut doc).zip(&mut series) {
        golden.series = std::mem::take(series);
    }
    Ok(doc)
}

/// The golden metrics whose series are many.
fn goldens(doc: &mut Document) -> impl Iterator<Item = &mut document::Golden> {
    let services = doc.services.iter_mut().flat_map(|service| {
        std::iter::once(&mut service.inbound).chain(service.endpoints.iter_mut().map(|endpoint| &mut endpoint.golden))
    });
    services.chain(doc.edges.iter_mut().map(|edge| &mut edge.golden))
}
