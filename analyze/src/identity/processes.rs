//! Processes of all bundles: who a pid was.

use std::collections::BTreeMap;

use kfr_bundle::events::{PROCESS_EXEC, PROCESS_FORK, ProcessEvent, SocketEvent};
use kfr_bundle::facts::{ContainerFact, ProcessFact};
use rustc_hash::FxHashMap;

/// What is known of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Pid in the host's namespace.
    pub pid: u32,
    /// Parent.
    pub parent: u32,
    /// Command name.
    pub comm: String,
    /// Executable's path; empty where unknown.
    pub executable: String,
    /// Command line; empty where unknown.
    pub arguments: Vec<String>,
    /// Container id; empty if none.
    pub container: String,
    /// UID of its pod, as its cgroup's path has it; empty if none.
    pub pod: String,
    /// systemd unit; empty if none.
    pub unit: String,
    /// Whether `/proc` showed it: it ended before that otherwise.
    pub looked_up: bool,
    /// Id of the cgroup (v2) that an event of its own named last.
    pub cgroup: u64,
}

/// Processes by (bundle, pid). A pid that is reused within a capture keeps its latest program: requests of a capture
/// are attributed by the sockets' own events, and their processes outlive them.
#[derive(Debug, Default)]
pub struct Processes {
    all: FxHashMap<(u32, u32), Process>,
    /// Owners of sockets: cgroup and command name as an event had them last.
    owners: FxHashMap<(u32, u32), (u64, [u8; 16])>,
}

impl Processes {
    /// Adds what `/proc` showed.
    pub fn add_fact(&mut self, bundle: u32, fact: ProcessFact) {
        let process = self.all.entry((bundle, fact.process)).or_default();
        // A snapshot at the end, of a process that is about to exit, knows less.
        let keep = |new: String, old: &mut String| {
            if !new.is_empty() {
                *old = new;
            }
        };
        process.pid = fact.process;
        process.parent = fact.parent;
        keep(fact.comm, &mut process.comm);
        keep(fact.executable, &mut process.executable);
        process.looked_up = true;
        keep(fact.container, &mut process.container);
        keep(fact.pod, &mut process.pod);
        keep(fact.unit, &mut process.unit);
        if !fact.arguments.is_empty() {
            process.arguments = fact.arguments;
        }
    }

    /// Adds an exec or fork.
    pub fn add_event(&mut self, bundle: u32, event: &ProcessEvent) {
        let pid = event.header.process;
        // A child begins where its parent is, and a runtime moves it before it runs the container's program.
        if event.what != PROCESS_FORK
            && let Some(process) = self.all.get_mut(&(bundle, pid))
        {
            process.cgroup = event.cgroup;
        }
        if event.what != PROCESS_EXEC && event.what != PROCESS_FORK {
            return;
        }
        let comm = event.comm.split(|byte| *byte == 0).next().map(|name| String::from_utf8_lossy(name).into_owned());
        let parent = self.all.get(&(bundle, event.parent)).cloned();
        let process = self.all.entry((bundle, pid)).or_insert_with(|| {
            // Until it runs another program, a child is what its parent is.
            let inherited = parent.unwrap_or_default();
            Process { pid, parent: event.parent, looked_up: false, cgroup: event.cgroup, ..inherited }
        });
        process.comm = comm.unwrap_or_default();
        if event.what == PROCESS_EXEC {
            let used = event.arguments.get(..usize::from(event.arguments_length)).unwrap_or_default();
            let arguments = used.split(|byte| *byte == 0).filter(|argument| !argument.is_empty());
            process.arguments = arguments.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect();
        }
    }

    /// Notes the owner of a socket: all that is known of it where it was gone before anybody looked.
    pub fn add_owner(&mut self, bundle: u32, event: &SocketEvent) {
        if event.header.process != 0 {
            self.owners.insert((bundle, event.header.process), (event.cgroup, event.comm));
        }
    }

    /// Once all is added: says whose their cgroups were, of processes that `/proc` didn't show, or only before a runtime had
    /// moved them.
    pub fn finish(&mut self, rows: &[(u32, ContainerFact)]) {
        for ((bundle, pid), (cgroup, comm)) in std::mem::take(&mut self.owners) {
            let process = self.all.entry((bundle, pid)).or_insert_with(|| {
                let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
                Process { pid, comm: String::from_utf8_lossy(name).into_owned(), ..Process::default() }
            });
            if process.cgroup == 0 {
                process.cgroup = cgroup;
            }
        }
        let with_id = rows.iter().filter(|(_, row)| row.cgroup != 0);
        let by_cgroup: FxHashMap<_, _> = with_id.map(|(bundle, row)| ((*bundle, row.cgroup), row)).collect();
        for ((bundle, _), process) in &mut self.all {
            let is_known = process.looked_up && !(process.container.is_empty() && process.pod.is_empty());
            if !is_known && let Some(row) = by_cgroup.get(&(*bundle, process.cgroup)) {
                (process.container, process.pod) = (row.container.clone(), row.pod.clone());
            }
        }
    }

    /// A process, if it is known.
    pub fn get(&self, bundle: u32, pid: u32) -> Option<&Process> {
        self.all.get(&(bundle, pid))
    }

    /// The topmost ancestor that runs the same program: a server's master for its workers.
    pub fn group(&self, bundle: u32, pid: u32) -> u32 {
        let mut current = pid;
        // Deeper chains of one program than this are no process group.
        for _ in 0..16 {
            let Some(process) = self.get(bundle, current) else { return current };
            match self.get(bundle, process.parent) {
                Some(parent) if parent.pid != 0 && parent.comm == process.comm && parent.pid != current => {
                    current = parent.pid
                }
                _ => return current,
            }
        }
        current
    }

    /// A name for the program: the script for an interpreter, else the command name.
    pub fn program(&self, bundle: u32, pid: u32) -> Option<String> {
        let process = self.get(bundle, pid)?;
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_string();
        let executable = base(&process.executable);
        let interpreted = ["python", "node", "ruby", "perl", "php", "java", "bash", "sh", "dash"]
            .iter()
            .any(|name| executable.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') == *name);
        if interpreted {
            let mut arguments = process.arguments.iter().skip(1);
            while let Some(argument) = arguments.next() {
                if argument == "-jar" || argument == "-m" {
                    return arguments.next().map(|name| base(name));
                }
                if argument == "-c" {
                    break;
                }
                if !argument.starts_with('-') {
                    return Some(base(argument));
                }
            }
        }
        let name = if process.comm.is_empty() { executable } else { process.comm.clone() };
        (!name.is_empty()).then_some(name)
    }

    /// Every known process, in order.
    pub fn sorted(&self) -> BTreeMap<(u32, u32), &Process> {
        self.all.iter().map(|(key, process)| (*key, process)).collect()
    }
}

#[cfg(test)]
mod tests {
    use kfr_bundle::events::EventHeader;
    use zerocopy::FromZeros;

    use super::*;

    fn fact(process: u32, parent: u32, comm: &str, executable: &str, arguments: &[&str]) -> ProcessFact {
        ProcessFact {
            process,
            parent,
            comm: comm.into(),
            executable: executable.into(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            ..ProcessFact::default()
        }
    }

    #[test]
    fn workers_belong_to_their_master_and_scripts_have_names() {
        let mut processes = Processes::default();
        processes.add_fact(0, fact(1, 0, "init", "/sbin/init", &["init"]));
        processes.add_fact(0, fact(10, 1, "nginx", "/usr/sbin/nginx", &["nginx: master"]));
        processes.add_fact(0, fact(11, 10, "nginx", "/usr/sbin/nginx", &["nginx: worker"]));
        processes.add_fact(
            0,
            fact(20, 1, "python3", "/usr/bin/python3.11", &["python3", "-u", "/srv/shop/app.py", "--port"]),
        );
        assert_eq!(processes.group(0, 11), 10);
        assert_eq!(processes.program(0, 11).as_deref(), Some("nginx"));
        assert_eq!(processes.program(0, 20).as_deref(), Some("app.py"));
        assert_eq!(processes.program(0, 99), None);
    }

    #[test]
    fn a_process_that_proc_never_showed_is_in_the_container_of_its_cgroup() {
        let event = |pid: u32, parent: u32, what, cgroup| ProcessEvent {
            header: EventHeader { process: pid, ..FromZeros::new_zeroed() },
            parent,
            what,
            cgroup,
            ..FromZeros::new_zeroed()
        };
        let mut processes = Processes::default();
        processes.add_fact(0, ProcessFact { container: "outer".into(), ..fact(10, 1, "sh", "/bin/sh", &["sh"]) });
        // A runtime forks it in its own cgroup, moves it and has it run the container's program.
        processes.add_event(0, &event(20, 1, PROCESS_FORK, 5));
        processes.add_event(0, &event(20, 1, PROCESS_EXEC, 7));
        processes.add_event(0, &event(21, 20, PROCESS_FORK, 7));
        processes.add_fact(0, fact(22, 1, "runc", "/bin/runc", &["runc"]));
        processes.add_event(0, &event(22, 1, PROCESS_EXEC, 7));
        // Where cgroups have no ids (v1) a child is where its parent is.
        let socket = |pid: u32, cgroup| SocketEvent {
            header: EventHeader { process: pid, ..FromZeros::new_zeroed() },
            cgroup,
            ..FromZeros::new_zeroed()
        };
        processes.add_owner(0, &socket(11, 1));
        processes.add_event(0, &event(11, 10, PROCESS_FORK, 1));
        // Nothing but a socket tells of it.
        processes.add_owner(0, &socket(23, 7));
        let row = |cgroup, pod: &str| {
            (0, ContainerFact { cgroup, container: "c".into(), pod: pod.into(), ..Default::default() })
        };
        processes.finish(&[row(7, "p"), row(0, "nobody's"), row(5, "runtime's")]);
        let of = |pid| processes.get(0, pid).map(|process| (process.container.as_str(), process.pod.as_str()));
        assert_eq!([of(20), of(21), of(22), of(23)], [Some(("c", "p")); 4]);
        assert_eq!([of(10), of(11)], [Some(("outer", "")), Some(("outer", ""))]);
    }
}
