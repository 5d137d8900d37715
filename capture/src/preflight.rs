//! What can be recorded here.

use kfr_bundle::facts::ProbeFact;
use serde::Serialize;

use crate::host_root::host_root;
use crate::logs::{ABSENT, LogFiles, PODS};
use crate::options::{Destination, Options, SocketHook};
use crate::probes::Probes;

/// The answer of `kfr preflight`.
#[derive(Debug, Serialize)]
pub struct Preflight {
    /// A useful capture is possible.
    pub possible: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Kernel release.
    pub kernel: String,
    /// The hook that a capture would use, `sock` or `syscall`.
    pub socket_hook: Option<&'static str>,
    /// Each probe, whether it works here, and what the report lacks without it.
    pub probes: Vec<ProbeFact>,
    /// What limits a capture here without making it useless.
    pub notes: Vec<String>,
}

/// Loads and attaches every probe for a moment and says what worked. Nothing is recorded.
pub fn preflight() -> Preflight {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string();
    let mut options = Options::new(Destination::Stdout);
    // A page is enough: nothing is read.
    options.buffer_bytes = 64 << 10;
    options.socket_hook = SocketHook::Auto;
    let mut notes = Vec::new();
    let attempt = Probes::load(&options).and_then(|mut probes| {
        probes.attach(0)?;
        Ok((probes.hook_name(), probes.facts().to_vec()))
    });
    if let Ok(mode) = std::fs::read_to_string("/sys/kernel/security/lockdown")
        && let Some(current) = mode.split(['[', ']']).nth(1).filter(|current| *current != "none")
    {
        notes.push(format!("kernel lockdown is in {current} mode"));
    }
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        notes.push(
            "cgroup v1 or hybrid: filters by cgroup follow its processes, since the kernel's cgroup id may be the root's"
                .to_string(),
        );
    }
    match LogFiles::find(&host_root()) {
        Ok(_) => {}
        Err(reason) if reason == ABSENT => notes.push(format!("no container logs: there is no {PODS}")),
        Err(reason) => notes.push(format!("no container logs: {PODS} is {reason}")),
    }
    match attempt {
        Ok((hook, probes)) => {
            Preflight { possible: true, reason: None, kernel, socket_hook: Some(hook), probes, notes }
        }
        Err(error) => Preflight {
            possible: false,
            reason: Some(format!("{error:#}")),
            kernel,
            socket_hook: None,
            probes: Vec::new(),
            notes,
        },
    }
}
