//! Writing the report's files.

use super::{
    Document, ReportError, cleaned, figure,
    page::render_html,
    summary::render_summary,
    view::{Context, standalone_timeline},
};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// `report.json`: the document as it stands, on one line, with a line end.
///
/// # Errors
/// [`ReportError::Json`], which no content can cause.
pub fn render_json(doc: &Document) -> Result<String, ReportError> {
    let mut json = serde_json::to_string(doc)?;
    json.push('\n');
    Ok(json)
}

/// Standalone figures by file name: the dependency graph, the timeline, and golden metrics of the worst services.
///
/// # Errors
/// [`ReportError::Json`], which no content can cause.
pub fn render_svgs(doc: &Document) -> Result<Vec<(String, String)>, ReportError> {
    let doc = cleaned(doc)?;
    let mut files = Vec::new();
    let context = Context::for_figures(&doc);
    let focus = figure::focus(&doc, |id| context.health(id), |_| None);
    if focus.graph.node_count() > 0 {
        files.push(("graph.svg".to_owned(), figure::draw_graph("graph", &doc, &focus, false).standalone()));
    }
    for (name, svg) in standalone_timeline(&context) {
        files.push((format!("{name}.svg"), svg.standalone()));
    }
    Ok(files)
}

/// Writes `report.html`, `report.json`, `summary.md` and `svg/` into a folder, which is made if it isn't there. Files
/// are readable by their owner only. Returns what was written, in that order.
///
/// # Errors
/// [`ReportError::File`] with the path that could not be written.
pub fn write_all(doc: &Document, dir: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let svg = dir.join("svg");
    for folder in [dir, svg.as_path()] {
        make_folder(folder)?;
    }
    let mut written = Vec::new();
    let mut put = |path: PathBuf, content: &str| {
        put_file(&path, content)?;
        written.push(path);
        Ok::<(), ReportError>(())
    };
    put(dir.join("report.html"), &render_html(doc)?)?;
    put(dir.join("report.json"), &render_json(doc)?)?;
    put(dir.join("summary.md"), &render_summary(doc)?)?;
    for (name, content) in render_svgs(doc)? {
        put(svg.join(name), &content)?;
    }
    Ok(written)
}

/// Writes the single HTML file, readable by its owner only.
///
/// # Errors
/// [`ReportError::File`] if it can't be written.
pub fn write_single(doc: &Document, file: &Path) -> Result<(), ReportError> {
    put_file(file, &render_html(doc)?)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ReportError {
    let path = path.display().to_string();
    move |source| ReportError::File { path, source }
}

fn make_folder(path: &Path) -> Result<(), ReportError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(failed(path))
}

/// Writes beside the target and renames, so that nobody reads half a report and an old file's wider mode doesn't stay.
fn put_file(path: &Path, content: &str) -> Result<(), ReportError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let write = || {
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&partial)?;
        file.write_all(content.as_bytes())?;
        drop(file);
        fs::rename(&partial, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&partial);
        failed(path)(error)
    })
}
