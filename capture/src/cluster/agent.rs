//! What runs in a node's pod: it waits to be told to begin, records into a folder, and keeps the bundle until it is fetched.
//!
//! The client talks to it by commands that it runs in the pod, each a process of its own, so that any of them can fail and
//! be tried again: `begin` and `end` leave a file in the folder, `send` writes the bundle to its standard output. Recording
//! needs nobody: it goes on while the API server is gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

const POLL: Duration = Duration::from_millis(100);
/// How long `send` waits for a recording that is about to end; after that it sends what there is.
const FINISH_TIMEOUT: Duration = Duration::from_secs(20);
/// Most of what the recorder said that is passed on, bytes.
const MAX_SAID_BYTES: usize = 2048;

/// The first line of what `send` writes, before the bundle's bytes: JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sending {
    /// Where the bytes that follow begin in the file.
    pub from: u64,
    /// Size of the file; 0 if there is none.
    pub total: u64,
    /// The recorder's exit code; `None` while it still records, or if a signal ended it.
    pub exit: Option<i32>,
    /// What the recorder said last.
    pub said: String,
}

fn bundle(folder: &Path) -> PathBuf {
    folder.join("node.kfr")
}

/// Waits for `begin`, at most for `wait`; records with `kfr capture ARGUMENTS`; keeps the bundle for `hold`, or until the
/// pod is deleted.
///
/// # Errors
/// If nothing can be recorded here, or the folder can't be used.
pub fn run(folder: &Path, wait: Duration, hold: Duration, arguments: &[String]) -> Result<()> {
    if let Some(reason) = crate::preflight().reason {
        return Err(anyhow!("no capture is possible here: {reason}"));
    }
    if !until(wait, || folder.join("begin").exists()) {
        return Ok(());
    }
    let said = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join("said"));
    let said = said.with_context(|| format!("{} can't be written", folder.display()))?;
    let kfr = std::env::current_exe().context("the name of this program")?;
    let mut recorder = Command::new(kfr)
        .arg("capture")
        .args(arguments)
        .args(["--kube", "off", "--output"])
        .arg(bundle(folder))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .context("the recorder can't be started")?;
    let mut told = false;
    let status = loop {
        if let Some(status) = recorder.try_wait().context("waiting for the recorder")? {
            break status;
        }
        if !told && folder.join("end").exists() {
            told = true;
            end_early(&recorder);
        }
        std::thread::sleep(POLL);
    };
    leave(folder, "done", &serde_json::to_string(&status.code())?)?;
    until(hold, || folder.join("fetched").exists());
    Ok(())
}

/// SIGTERM: the recorder makes its bundle whole.
fn end_early(recorder: &Child) {
    if let Ok(process) = libc::pid_t::try_from(recorder.id()) {
        // SAFETY: only sends a signal; the child was not waited for yet, so the number is still its own.
        unsafe { libc::kill(process, libc::SIGTERM) };
    }
}

fn until(limit: Duration, reached: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if reached() {
            return true;
        }
        if began.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// Leaves a file in the folder, whole or not at all.
///
/// # Errors
/// If the folder can't be written.
pub fn leave(folder: &Path, name: &str, content: &str) -> Result<()> {
    let unfinished = folder.join(format!(".{name}"));
    fs::write(&unfinished, content)
        .and_then(|()| fs::rename(&unfinished, folder.join(name)))
        .with_context(|| format!("{} can't be written", folder.display()))
}

/// Writes a line of JSON ([`Sending`]) and the bundle's bytes from an offset on. Waits for the recorder to end, but not for
/// long: of one that still records, or died, what there is is sent.
///
/// # Errors
/// If the file can't be read, or nobody reads any more.
pub fn send(folder: &Path, from: u64, out: &mut dyn Write) -> Result<()> {
    until(FINISH_TIMEOUT, || folder.join("done").exists());
    let exit = fs::read_to_string(folder.join("done")).ok();
    let exit = exit.and_then(|text| serde_json::from_str::<Option<i32>>(&text).ok()).flatten();
    let whole = bundle(folder);
    let partial = folder.join("node.kfr.partial");
    let file = [whole, partial].iter().find_map(|path| File::open(path).ok());
    let total = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
    let sending = Sending { from: from.min(total), total, exit, said: said(folder) };
    writeln!(out, "{}", serde_json::to_string(&sending)?)?;
    if let Some(mut file) = file {
        file.seek(SeekFrom::Start(sending.from))?;
        io::copy(&mut file.take(total - sending.from), out)?;
    }
    out.flush()?;
    Ok(())
}

fn said(folder: &Path) -> String {
    let all = fs::read(folder.join("said")).unwrap_or_default();
    let last = all.get(all.len().saturating_sub(MAX_SAID_BYTES)..).unwrap_or_default();
    String::from_utf8_lossy(last).trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(folder: &Path, from: u64) -> (Sending, Vec<u8>) {
        let mut out = Vec::new();
        send(folder, from, &mut out).unwrap();
        let end = out.iter().position(|byte| *byte == b'\n').unwrap();
        (serde_json::from_slice(&out[..end]).unwrap(), out[end + 1..].to_vec())
    }

    #[test]
    fn what_is_left_of_a_file_is_sent_from_any_place() {
        let folder = tempfile::tempdir().unwrap();
        leave(folder.path(), "done", "137").unwrap();
        assert_eq!(sent(folder.path(), 0), (Sending { exit: Some(137), ..Sending::default() }, Vec::new()));
        fs::write(folder.path().join("node.kfr.partial"), b"0123456789").unwrap();
        fs::write(folder.path().join("said"), "one\ntwo\n").unwrap();
        let (sending, bytes) = sent(folder.path(), 7);
        assert_eq!(sending, Sending { from: 7, total: 10, exit: Some(137), said: "one; two".to_string() });
        assert_eq!(bytes, b"789");
        assert_eq!(sent(folder.path(), 99).1, b"");
        fs::write(folder.path().join("node.kfr"), b"whole").unwrap();
        assert_eq!(sent(folder.path(), 0).1, b"whole");
    }
}
