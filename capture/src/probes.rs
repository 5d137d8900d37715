//! The probes: which there are, loading and attaching them, their counters.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow, bail};
use kfr_bundle::events::SocketEvent;
use kfr_bundle::facts::ProbeFact;
use libbpf_rs::{Iter, Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, btf};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::filters::{Filters, Follower};
use crate::options::{MAX_PAYLOAD_LIMIT, Options, SocketHook, WHOLE_REQUESTS_FROM};

const SOCK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sock.bpf.o"));
const SYSCALL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/syscall.bpf.o"));
const PROCESS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/process.bpf.o"));

/// Compiled probes by name; for the test that compares event layouts.
pub const OBJECTS: &[(&str, &[u8])] = &[("sock", SOCK), ("syscall", SYSCALL), ("process", PROCESS)];

/// When a program is attached, relative to the walk over sockets that are already open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before it: whatever starts from here on is seen.
    Before,
    /// It is the walk.
    Walk,
    /// After it: data of sockets whose other end is known by now.
    After,
}

/// One program of a compiled object.
struct Probe {
    /// Name as users see it.
    name: &'static str,
    /// Function in the object.
    program: &'static str,
    /// Kernel tracepoint (without `btf_trace_`), or iterator.
    tracepoint: &'static str,
    stage: Stage,
    /// A capture makes no sense without it.
    required: bool,
    /// What the report lacks without it.
    costs: &'static str,
}

const fn probe(
    name: &'static str,
    program: &'static str,
    tracepoint: &'static str,
    stage: Stage,
    required: bool,
    costs: &'static str,
) -> Probe {
    Probe { name, program, tracepoint, stage, required, costs }
}

const SOCK_DATA: &[Probe] = &[
    probe("socket/send", "on_send", "sock_send_length", Stage::After, true, "every request"),
    probe("socket/receive", "on_receive", "sock_recv_length", Stage::After, true, "every request"),
];

const SYSCALL_DATA: &[Probe] = &[probe("socket/syscall", "on_exit", "sys_exit", Stage::After, true, "every request")];

const LIFECYCLE: &[Probe] = &[
    probe(
        "connection/state",
        "on_state",
        "inet_sock_set_state",
        Stage::Before,
        false,
        "connect latency, failed connects, who opened a connection, lost tails",
    ),
    probe("connection/retransmit", "on_retransmit", "tcp_retransmit_skb", Stage::Before, false, "retransmissions"),
    probe(
        "connection/reset-received",
        "on_receive_reset",
        "tcp_receive_reset",
        Stage::Before,
        false,
        "resets received",
    ),
    probe("connection/reset-sent", "on_send_reset", "tcp_send_reset", Stage::Before, false, "resets sent"),
    probe(
        "connection/walk",
        "walk_files",
        "",
        Stage::Walk,
        false,
        "idle sockets older than the capture, and which side of an old connection listens",
    ),
];

const PROCESSES: &[Probe] = &[
    probe("process/exec", "on_exec", "sched_process_exec", Stage::Before, false, "programs started during the capture"),
    probe("process/fork", "on_fork", "sched_process_fork", Stage::Before, false, "processes shorter than a second"),
    probe("process/exit", "on_exit", "sched_process_exit", Stage::Before, false, "when and how processes ended"),
];

/// `struct config` of `bpf/emit.h`.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
pub struct Config {
    pub ring_bytes: u64,
    pub bulk_refill_ns: u64,
    pub own_process: u32,
    pub bulk_limit: u32,
    pub filter_process: u32,
    pub filter_cgroup: u32,
    pub filter_port: u32,
    pub ask_mask: u32,
}

/// `struct control` of `bpf/emit.h`.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
pub struct Control {
    pub boot_offset_ns: u64,
    pub payload_limit: u32,
    pub walk_number: u32,
}

/// `struct hook_state` of `bpf/socket/state.h`, syscall hook only.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HookState {
    pub last_id: u64,
    pub uring_calls: u64,
}

/// `struct counters` of `bpf/emit.h`, summed over CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counters {
    /// Events numbered.
    pub events: u64,
    /// Of these, refused by a full ring.
    pub lost: u64,
    /// Events whose payload was cut because the ring was under pressure.
    pub shrunk: u64,
    /// Sockets for which the kernel had no memory for state.
    pub refused_state: u64,
    /// Bytes in the ring when a probe last asked.
    pub waiting: u64,
    /// Times that a probe wanted to know.
    pub asked: u64,
}

/// Maps of `bpf/emit.h`.
const PROCESSES_FILTER: &str = "traced";
const CGROUPS_FILTER: &str = "traced_cgroups";

/// Bytes moved one way on a connection, without an answer, after which only lengths are kept, in multiples of the
/// payload limit; counted anew every [`BULK_REFILL_NS`].
const BULK_LIMIT_MESSAGES: u32 = 16;
const BULK_REFILL_NS: u64 = 100_000_000;

/// Loaded and attached probes. Dropping it detaches them; so does the end of the process, however it ends.
pub struct Probes {
    socket: Object,
    process: Option<Object>,
    links: Vec<Link>,
    walk: Option<Link>,
    hook: SocketHook,
    facts: Vec<ProbeFact>,
    control: Control,
    filters: Filters,
}

impl Probes {
    /// Loads what this kernel takes of the probes, with the filters and limits of `options`; nothing is attached yet.
    ///
    /// # Errors
    /// If a required probe is refused: not root, no BTF, a kernel without the tracepoints.
    pub fn load(options: &Options) -> Result<Self> {
        // libbpf would explain a refusal on standard error, over pages; authors of probes want that, users one line.
        if std::env::var_os("KFR_BPF_LOG").is_none() {
            libbpf_rs::set_print(None);
        }
        let kernel = btf::Btf::from_vmlinux()
            .map_err(|error| anyhow!("this kernel shows no BTF (/sys/kernel/btf/vmlinux): {error}"))?;
        let has = |tracepoint: &str| tracepoint.is_empty() || has_tracepoint(&kernel, tracepoint);
        let hook = match options.socket_hook {
            SocketHook::Auto if SOCK_DATA.iter().all(|probe| has(probe.tracepoint)) => SocketHook::Sock,
            SocketHook::Auto => SocketHook::Syscall,
            chosen => chosen,
        };
        let data = if hook == SocketHook::Sock { SOCK_DATA } else { SYSCALL_DATA };
        if let Some(missing) = data.iter().find(|probe| !has(probe.tracepoint)) {
            bail!("this kernel has no tracepoint {}; use --socket-hook auto", missing.tracepoint);
        }
        let image = if hook == SocketHook::Sock { SOCK } else { SYSCALL };
        let filters = Filters::find(options)?;
        let config = config(options, &filters);
        let mut facts = Vec::new();
        let probes: Vec<&Probe> = data.iter().chain(LIFECYCLE).collect();
        let socket = load_object(image, &probes, &has, &config, options, None, &mut facts)?;
        let probes: Vec<&Probe> = PROCESSES.iter().collect();
        // By port alone nobody knows which processes matter until they touch a socket; those are looked up in /proc.
        let by_port_alone = config.filter_port == 1 && config.filter_process == 0 && config.filter_cgroup == 0;
        let process = if by_port_alone {
            None
        } else {
            load_object(PROCESS, &probes, &has, &config, options, Some(&socket), &mut facts).ok()
        };
        let control = Control { payload_limit: options.payload_limit, ..Control::default() };
        let probes = Self { socket, process, links: Vec::new(), walk: None, hook, facts, control, filters };
        probes.fill_filters(options)?;
        probes.write_control()?;
        Ok(probes)
    }

    /// The hook in use, `sock` or `syscall`.
    pub fn hook_name(&self) -> &'static str {
        if self.hook == SocketHook::Sock { "sock" } else { "syscall" }
    }

    /// Each probe and whether it works.
    pub fn facts(&self) -> &[ProbeFact] {
        &self.facts
    }

    /// Attaches everything; in between, lists the sockets that are already open (each once), so that both ends of an
    /// old connection are known before its first bytes are seen. Returns their identities.
    ///
    /// # Errors
    /// If a required probe can't be attached.
    pub fn attach(&mut self, boot_offset_ns: u64) -> Result<Vec<SocketEvent>> {
        self.control.boot_offset_ns = boot_offset_ns;
        self.write_control()?;
        self.attach_stage(Stage::Before)?;
        self.attach_stage(Stage::Walk)?;
        let sockets = self.walk()?;
        self.attach_stage(Stage::After)?;
        Ok(sockets)
    }

    fn attach_stage(&mut self, stage: Stage) -> Result<()> {
        let data = if self.hook == SocketHook::Sock { SOCK_DATA } else { SYSCALL_DATA };
        let socket = data.iter().chain(LIFECYCLE).map(|probe| (probe, Some(&self.socket)));
        let process = PROCESSES.iter().map(|probe| (probe, self.process.as_ref()));
        let mut links = Vec::new();
        for (probe, object) in socket.chain(process).filter(|(probe, _)| probe.stage == stage) {
            let Some(fact) = self.facts.iter_mut().find(|fact| fact.name == probe.name) else { continue };
            let Some(object) = object.filter(|_| fact.reason.is_empty()) else { continue };
            let program = object.progs_mut().find(|program| program.name() == probe.program);
            let link = program.context("the compiled probe is missing").and_then(|program| Ok(program.attach()?));
            match link {
                Ok(link) => {
                    fact.attached = true;
                    links.push(link);
                }
                Err(error) if probe.required => {
                    return Err(error).with_context(|| format!("attaching probe {}", probe.name));
                }
                Err(error) => fact.reason = format!("{error:#}"),
            }
        }
        if stage == Stage::Walk {
            self.walk = links.pop();
        } else {
            self.links.append(&mut links);
        }
        Ok(())
    }

    /// Identities of all sockets that tasks hold open now, each once. Empty where the walk is refused.
    ///
    /// # Errors
    /// If the kernel breaks the walk off.
    pub fn walk(&mut self) -> Result<Vec<SocketEvent>> {
        self.control.walk_number += 1;
        self.write_control()?;
        let Some(link) = &self.walk else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        Iter::new(link).and_then(|mut iter| Ok(iter.read_to_end(&mut bytes)?)).context("walking over open sockets")?;
        let size = size_of::<SocketEvent>();
        Ok(bytes.chunks_exact(size).filter_map(|chunk| SocketEvent::read_from_bytes(chunk).ok()).collect())
    }

    /// Changes how many bytes of a call are kept.
    ///
    /// # Errors
    /// If the kernel refuses the update.
    pub fn set_payload_limit(&mut self, bytes: u32) -> Result<()> {
        self.control.payload_limit = bytes;
        self.write_control()
    }

    /// How many bytes of a call are kept now.
    pub fn payload_limit(&self) -> u32 {
        self.control.payload_limit
    }

    /// Corrects the difference between the boot clock and TCP's clock, which grows while the machine is suspended.
    ///
    /// # Errors
    /// If the kernel refuses the update.
    pub fn set_boot_offset(&mut self, boot_offset_ns: u64) -> Result<()> {
        if self.control.boot_offset_ns == boot_offset_ns {
            return Ok(());
        }
        self.control.boot_offset_ns = boot_offset_ns;
        self.write_control()
    }

    fn write_control(&self) -> Result<()> {
        let map = find_map(&self.socket, ".bss").context("the compiled probe has no control variable")?;
        map.update(&0u32.to_ne_bytes(), self.control.as_bytes(), MapFlags::ANY).context("setting a probe's variables")
    }

    /// The ring that all probes write to.
    ///
    /// # Errors
    /// If the descriptor can't be duplicated.
    pub fn ring(&self) -> Result<MapHandle> {
        let map = find_map(&self.socket, "ring").context("the compiled probe has no ring")?;
        Ok(MapHandle::try_from(&map)?)
    }

    /// Counters of all CPUs together.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn counters(&self) -> Result<Counters> {
        let map = find_map(&self.socket, "counters").context("the compiled probe has no counters")?;
        let mut sum = Counters::default();
        for value in map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default() {
            let Ok((cpu, _)) = Counters::read_from_prefix(&value) else { continue };
            sum.events += cpu.events;
            sum.lost += cpu.lost;
            sum.shrunk += cpu.shrunk;
            sum.refused_state += cpu.refused_state;
        }
        Ok(sum)
    }

    /// `io_uring_enter` calls that submitted something; counted with the syscall hook, which doesn't see what they move.
    pub fn uring_calls(&self) -> u64 {
        let state = find_map(&self.socket, "hook_state").and_then(|map| {
            let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).ok().flatten()?;
            Some(HookState::read_from_prefix(&value).ok()?.0.uring_calls)
        });
        state.unwrap_or(0)
    }

    /// Times that the kernel skipped one of our programs because it was already running on that CPU.
    pub fn recursion_misses(&self) -> u64 {
        let objects = [Some(&self.socket), self.process.as_ref()];
        let ids: BTreeSet<u32> = objects
            .into_iter()
            .flatten()
            .flat_map(|object| object.progs())
            .filter_map(|program| libbpf_rs::Program::id_from_fd(program.as_fd()).ok())
            .collect();
        let programs = libbpf_rs::query::ProgInfoIter::default();
        programs.filter(|program| ids.contains(&program.id)).map(|program| program.recursion_misses).sum()
    }

    fn fill_filters(&self, options: &Options) -> Result<()> {
        let put = |name: &str, key: &[u8]| -> Result<()> {
            let map = find_map(&self.socket, name).with_context(|| format!("the compiled probe has no map {name}"))?;
            map.update(key, &[1], MapFlags::ANY).with_context(|| format!("filling the filter {name}"))
        };
        for process in &self.filters.processes {
            put(PROCESSES_FILTER, &process.to_ne_bytes())?;
        }
        for cgroup in &self.filters.cgroups {
            put(CGROUPS_FILTER, &cgroup.to_ne_bytes())?;
        }
        for port in &options.ports {
            put("traced_ports", &port.to_ne_bytes())?;
        }
        Ok(())
    }

    /// What adds to the filters while more appears of what was asked for; once. `None` where nothing can appear.
    ///
    /// # Errors
    /// If the descriptor of a filter can't be duplicated.
    pub fn follower(&mut self) -> Result<Option<Follower>> {
        let Some(selection) = self.filters.selection.take() else { return Ok(None) };
        let name = if self.filters.by_process { PROCESSES_FILTER } else { CGROUPS_FILTER };
        let map = find_map(&self.socket, name).with_context(|| format!("the compiled probe has no map {name}"))?;
        Ok(Some(Follower::new(selection, self.filters.by_process, MapHandle::try_from(&map)?)))
    }

    /// Detaches every probe; what is in the ring stays readable.
    pub fn detach(&mut self) {
        self.links.clear();
    }
}

fn config(options: &Options, filters: &Filters) -> Config {
    Config {
        ring_bytes: u64::from(options.buffer_bytes),
        bulk_refill_ns: BULK_REFILL_NS,
        own_process: std::process::id(),
        bulk_limit: options.payload_limit.saturating_mul(BULK_LIMIT_MESSAGES).max(65536),
        filter_process: u32::from(filters.by_process),
        filter_cgroup: u32::from(filters.by_cgroup),
        filter_port: u32::from(!options.ports.is_empty()),
        ask_mask: ask_mask(options),
    }
}

/// Seven, so that probes ask at every eighth event, if eight of the largest events on every CPU fit into a quarter of the
/// ring; else 0.
fn ask_mask(options: &Options) -> u32 {
    const EVERY: u32 = 8;
    let cpus = libbpf_rs::num_possible_cpus().unwrap_or(usize::MAX) as u64;
    // From the default on, requests are kept to the probes' own bound.
    let kept = if options.payload_limit >= WHOLE_REQUESTS_FROM { MAX_PAYLOAD_LIMIT } else { options.payload_limit };
    let largest = u64::from(kept.next_power_of_two()) + 128;
    let fits = cpus.saturating_mul(largest * u64::from(EVERY)) <= u64::from(options.buffer_bytes / 4);
    if fits { EVERY - 1 } else { 0 }
}

fn has_tracepoint(kernel: &btf::Btf<'_>, tracepoint: &str) -> bool {
    kernel.type_by_name::<btf::types::Typedef<'_>>(&format!("btf_trace_{tracepoint}")).is_some()
}

fn find_map<'obj>(object: &'obj Object, suffix: &str) -> Option<libbpf_rs::Map<'obj>> {
    object.maps().find(|map| {
        map.name().to_str().is_some_and(|name| name == suffix || name.ends_with(suffix) && suffix.starts_with('.'))
    })
}

/// Loads one object with every probe that the kernel has; if it is refused, once more with the required ones only.
#[allow(clippy::too_many_arguments)]
fn load_object(
    image: &[u8],
    probes: &[&Probe],
    has: &dyn Fn(&str) -> bool,
    config: &Config,
    options: &Options,
    share: Option<&Object>,
    facts: &mut Vec<ProbeFact>,
) -> Result<Object> {
    let fact = |probe: &Probe, reason: String| ProbeFact {
        name: probe.name.to_string(),
        attached: false,
        reason,
        costs: probe.costs.to_string(),
    };
    let attempt = |wanted: &dyn Fn(&Probe) -> bool| -> Result<Object> {
        let mut open = ObjectBuilder::default().open_memory(image).context("reading a compiled probe")?;
        for mut program in open.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            let known = probes.iter().find(|probe| probe.program == name);
            program.set_autoload(known.is_some_and(|probe| wanted(probe)));
        }
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name.ends_with(".rodata") {
                map.set_initial_value(config.as_bytes())?;
            } else if let Some(shared) =
                share.and_then(|object| find_map(object, &name)).filter(|_| !name.contains('.'))
            {
                map.reuse_fd(shared.as_fd())?;
            } else if name == "ring" {
                map.set_max_entries(options.buffer_bytes)?;
            } else if name == "scratch" {
                map.set_max_entries(u32::try_from(libbpf_rs::num_possible_cpus()?)?)?;
            }
        }
        Ok(open.load()?)
    };
    let available = |probe: &Probe| has(probe.tracepoint);
    let whole = attempt(&available);
    let (object, refused) = match whole {
        Ok(object) => (object, None),
        Err(error) => {
            let reduced = attempt(&|probe| probe.required && has(probe.tracepoint));
            let object = reduced.map_err(|_| refusal(&error))?;
            (object, Some(format!("refused by the kernel: {error:#}")))
        }
    };
    for probe in probes {
        let reason = if !has(probe.tracepoint) {
            format!("this kernel has no tracepoint {}", probe.tracepoint)
        } else {
            refused.clone().filter(|_| !probe.required).unwrap_or_default()
        };
        facts.push(fact(probe, reason));
    }
    Ok(object)
}

/// The kernel's refusal in the user's terms.
fn refusal(error: &anyhow::Error) -> anyhow::Error {
    let code = error.chain().find_map(|cause| cause.downcast_ref::<libbpf_rs::Error>()).map(|error| error.kind());
    let text = format!("{error:#}");
    match code {
        // EACCES is the verifier's word, which libbpf's kinds of error don't tell from EPERM.
        Some(libbpf_rs::ErrorKind::PermissionDenied) if !text.contains("(os error 13)") => {
            anyhow!(
                "the kernel does not let this user load BPF programs; run kfr as root (or with CAP_BPF and CAP_PERFMON)"
            )
        }
        _ => anyhow!("the kernel refused the probes: {text} (with KFR_BPF_LOG=1 its own words follow)"),
    }
}
