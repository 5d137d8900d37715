//! What may be written to: decided before any work is done.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::exit::Failure;

/// Refuses a file whose writing would destroy something else, or which can't be written for a reason that shows already.
/// Output is written beside its target and renamed, which would replace a device or a link, not write to it.
///
/// # Errors
/// Wrong usage, in one sentence with the file's name.
pub fn file(path: &Path, inputs: &[PathBuf]) -> Result<(), Failure> {
    let refuse = |path: &Path, why: &str| Err(Failure::usage(anyhow!("{} {why}", path.display())));
    let mut partial = OsString::from(path);
    partial.push(".partial");
    for path in [path, Path::new(&partial)] {
        let Ok(found) = fs::symlink_metadata(path) else { continue };
        if found.is_symlink() {
            return refuse(path, "is a symbolic link; name the file that is to be written");
        }
        if found.is_dir() {
            return refuse(path, "is a folder; name a file");
        }
        if !found.is_file() {
            return refuse(path, "is no regular file; name one, or use - for standard output");
        }
        if inputs.iter().any(|input| fs::metadata(input).is_ok_and(|input| same(&input, &found))) {
            return refuse(path, "is one of the bundles to read; choose another name");
        }
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => {
            refuse(path, &format!("can't be written: {} is no folder; choose another place", folder.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            refuse(path, &format!("can't be written: there is no folder {}; make it first", folder.display()))
        }
        // Writing will tell.
        _ => Ok(()),
    }
}

/// Refuses a folder for a report that is none, or in which a report's file must not be replaced.
///
/// # Errors
/// As [`file`].
pub fn folder(path: &Path, inputs: &[PathBuf]) -> Result<(), Failure> {
    if path.as_os_str() == "-" {
        return Err(Failure::usage(anyhow!("-o is a folder; for a report on standard output use --single -")));
    }
    for path in [path, &path.join("svg")] {
        if fs::metadata(path).is_ok_and(|found| !found.is_dir()) {
            let name = path.display();
            return Err(Failure::usage(anyhow!("{name} is no folder; choose another one, or use --single FILE")));
        }
    }
    if !path.exists() {
        return Ok(());
    }
    ["report.html", "report.json", "summary.md"].iter().try_for_each(|name| file(&path.join(name), inputs))
}

#[cfg(unix)]
fn same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn same(_: &Metadata, _: &Metadata) -> bool {
    false
}
