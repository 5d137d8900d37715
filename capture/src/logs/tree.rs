//! Which log files there are: `/var/log/pods/NAMESPACE_NAME_UID/CONTAINER/N.log` (Kubernetes, "Logging Architecture";
//! `pkg/kubelet/kuberuntime/helpers.go`, `BuildContainerLogsDirectory`).

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Dir;

use crate::host_root::HostRoot;

/// Where the kubelet keeps them.
pub const PODS: &str = "/var/log/pods";

/// A container of a pod, as the folders name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Container.
    pub name: String,
}

/// A log file that is there.
#[derive(Debug, Clone)]
pub struct LogFile {
    /// Whose.
    pub container: Arc<Container>,
    /// How often the container had been restarted.
    pub restart: u32,
    /// Path on the host.
    pub path: PathBuf,
    /// Device and inode: a rotated file has them still, under another name.
    pub id: (u64, u64),
}

/// The log files that are there, in the order of their names. What vanishes meanwhile, or can't be looked at, is left out;
/// rotated files (`0.log.20261122-104639`, `.gz`) are none.
///
/// # Errors
/// If the folder of all pods can't be read.
pub fn log_files(root: &HostRoot) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for pod in names(root, Path::new(PODS))? {
        let mut parts = pod.splitn(3, '_');
        let (Some(namespace), Some(name), Some(uid)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let folder = Path::new(PODS).join(&pod);
        for container in names(root, &folder).unwrap_or_default() {
            let folder = folder.join(&container);
            let container = Arc::new(Container {
                namespace: namespace.to_string(),
                pod: name.to_string(),
                uid: uid.to_string(),
                name: container,
            });
            let mut runs: Vec<(u32, String)> = names(root, &folder)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|name| Some((name.strip_suffix(".log")?.parse().ok()?, name)))
                .collect();
            runs.sort_unstable();
            for (restart, name) in runs {
                let path = folder.join(name);
                let Ok(metadata) = root.handle(&path).and_then(|file| file.metadata()) else { continue };
                if metadata.is_file() {
                    let id = (metadata.dev(), metadata.ino());
                    files.push(LogFile { container: container.clone(), restart, path, id });
                }
            }
        }
    }
    Ok(files)
}

/// Names in a folder, sorted; those that are no text name nothing of Kubernetes.
fn names(root: &HostRoot, folder: &Path) -> io::Result<Vec<String>> {
    let file: File = root.file(folder)?;
    let mut names = Vec::new();
    for entry in Dir::new(file)? {
        let name = entry?.file_name().to_str().map(str::to_string);
        names.extend(name.ok().filter(|name| name != "." && name != ".."));
    }
    names.sort_unstable();
    Ok(names)
}
