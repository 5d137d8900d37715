//! The completeness ledger as the report shows it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kfr_bundle::events::{
    MISSING_BULK, MISSING_COMPAT, MISSING_DISCARDED, MISSING_FAULT, MISSING_LIMIT, MISSING_MESSAGE_INDEX,
    MISSING_NO_BUFFER, MISSING_NOT_THIS_CALL, MISSING_PRESSURE, MISSING_SEGMENTS,
};
use kfr_protocols::{REGISTRY, Side};

use super::logs::Logs;
use crate::Analysis;
use crate::replay::Input;
use crate::report::document::{
    EncryptedShare, Figure, Ledger, LedgerEntry, LostRange, ProtocolShare, Severity, Totals,
};

/// Lost stretches that the report lists.
const MAX_LOSSES: usize = 200;

/// Entries under way.
pub struct Entries(Vec<LedgerEntry>);

impl Entries {
    /// Adds one, if there is anything to count.
    #[allow(clippy::too_many_arguments)]
    pub fn add(
        &mut self,
        id: &str,
        area: &str,
        what: &str,
        count: u64,
        unit: &str,
        effect: &str,
        weakens: &[Figure],
        severity: Severity,
    ) {
        if count > 0 {
            self.0.push(LedgerEntry {
                id: format!("l-{id}"),
                area: area.to_string(),
                what: what.to_string(),
                count: Some(count),
                unit: unit.to_string(),
                effect: effect.to_string(),
                weakens: weakens.to_vec(),
                severity,
            });
        }
    }
}

/// Builds it.
pub fn build(inputs: &[Input], analysis: &Analysis, logs: &Logs) -> Ledger {
    let found = &analysis.ledger;
    let nodes = &analysis.world.facts.nodes;
    let recorded = |name: &str| nodes.iter().filter_map(|node| node.ledger.counters.get(name)).sum::<u64>();
    let told = nodes.iter().any(|node| node.ledger.counters.contains_key("events_lost"));
    let missing_numbers: u64 = analysis.lost.iter().flatten().map(|range| range.events).sum();
    let mut entries = Entries(Vec::new());
    use Figure::{Bytes, Latency, Network, Requests, Sql, Time, Topology};
    let all = [Requests, Latency, Bytes, Topology, Sql, Network];
    entries.add(
        "lost",
        "kernel",
        "Events lost because the kernel buffer was full",
        recorded("events_lost"),
        "events",
        "Requests in those moments are missing or look unanswered",
        &all,
        Severity::Critical,
    );
    entries.add(
        "missing",
        "bundle",
        "Events with a number that no block holds",
        missing_numbers,
        "events",
        "Requests in those moments are missing or look unanswered",
        &all,
        Severity::Critical,
    );
    entries.add(
        "unwritten",
        "disk",
        "Rows recorded but not written",
        recorded("rows_not_written"),
        "rows",
        "The end of the recording is missing",
        &all,
        Severity::Critical,
    );
    entries.add(
        "recursion",
        "kernel",
        "Probe runs that the kernel skipped",
        recorded("recursion_misses"),
        "events",
        "Single calls are missing",
        &[Requests, Bytes],
        Severity::Warning,
    );
    entries.add(
        "stateless",
        "kernel",
        "Sockets for which the kernel had no memory",
        recorded("sockets_without_state"),
        "events",
        "Their bytes are missing",
        &[Requests, Bytes],
        Severity::Critical,
    );
    entries.add(
        "capture-cut",
        "import",
        "Packet captures that end in the middle, or can't be read to their end",
        recorded("file_truncated") + recorded("file_damaged"),
        "files",
        "What came later is missing",
        &all,
        Severity::Warning,
    );
    let unread = [
        "packets_truncated",
        "packets_unreadable",
        "packets_unknown_link",
        "packets_too_deep",
        "fragments_incomplete",
        "flows_evicted",
    ];
    entries.add(
        "packets-unread",
        "import",
        "Packets of the capture that could not be read or put together",
        unread.into_iter().map(&recorded).sum(),
        "packets",
        "Their bytes are missing from connections",
        &[Requests, Bytes],
        Severity::Warning,
    );
    entries.add(
        "overlaps",
        "import",
        "Bytes that came twice and differently; the first copy counts",
        recorded("overlaps_conflicting"),
        "bytes",
        "What the receiver took is not known",
        &[Requests],
        Severity::Warning,
    );
    entries.add(
        "blocks",
        "bundle",
        "Blocks that can't be read",
        found.bad_blocks,
        "blocks",
        "Everything in them is missing",
        &all,
        Severity::Critical,
    );
    let damage =
        |pick: fn(&kfr_bundle::Damage) -> u64| inputs.iter().map(|input| pick(input.reader.damage())).sum::<u64>();
    entries.add(
        "damage",
        "bundle",
        "Damaged parts of the file",
        damage(|damage| damage.lost_bytes),
        "bytes",
        "Everything in them is missing",
        &all,
        Severity::Critical,
    );
    entries.add(
        "missing-blocks",
        "bundle",
        "Blocks that are not in the file",
        damage(kfr_bundle::Damage::missing_block_count),
        "blocks",
        "Everything in them is missing",
        &all,
        Severity::Critical,
    );
    entries.add(
        "unknown-kinds",
        "bundle",
        "Blocks of a kind that this version doesn't know",
        damage(|damage| damage.unknown_kinds),
        "blocks",
        "A newer version shows more",
        &[],
        Severity::Info,
    );
    entries.add(
        "cut-off",
        "bundle",
        "Recordings that were cut off",
        damage(|damage| u64::from(damage.no_footer)),
        "bundles",
        "Up to a second before the end may be missing",
        &[Requests, Time],
        Severity::Warning,
    );
    entries.add(
        "malformed",
        "bundle",
        "Rows or blocks that can't be decoded",
        nodes.iter().map(|node| node.malformed).sum(),
        "rows",
        "Names of processes or sockets may be missing",
        &[Topology],
        Severity::Warning,
    );
    for (reason, loss) in &found.missing {
        let (id, what, effect, severity) = describe(*reason);
        entries.add(&format!("payload-{id}"), "payload", what, loss.bytes, "bytes", effect, &[Requests, Sql], severity);
    }
    entries.add(
        "unseen",
        "network",
        "Bytes that no event shows",
        found.unseen_bytes,
        "bytes",
        "Moved by splice, zero-copy receive or sockmap, or lost: what they carried is unknown",
        &[Requests, Bytes],
        Severity::Warning,
    );
    entries.add(
        "uring",
        "capture",
        "io_uring calls, with a hook that doesn't see what they move",
        recorded("uring_calls"),
        "calls",
        "Bytes that they moved on sockets are missing, on TCP with a gap; the sock hook of newer kernels counts them",
        &[Requests, Bytes],
        Severity::Warning,
    );
    entries.add(
        "skipped",
        "decoder",
        "Bytes passed over to find the start of a message",
        found.skipped_bytes,
        "bytes",
        "Requests in them are not counted",
        &[Requests],
        Severity::Info,
    );
    entries.add(
        "outcome",
        "decoder",
        "Requests whose outcome was not seen",
        found.unknown_outcomes,
        "requests",
        "What tells how they went was cut or lost: shares of errors are without them, and they may hide errors",
        &[Requests, Sql],
        Severity::Warning,
    );
    entries.add(
        "nameless",
        "decoder",
        "Requests without a name (their bytes were cut)",
        found.nameless_requests,
        "requests",
        "They are counted, but under no endpoint or statement of their own",
        &[Requests, Sql],
        Severity::Warning,
    );
    entries.add(
        "unknown",
        "decoder",
        "Bytes of connections in no known protocol",
        found.unknown_bytes,
        "bytes",
        "Their requests are not counted",
        &[Requests, Latency],
        Severity::Info,
    );
    entries.add(
        "encrypted",
        "decoder",
        "Bytes of encrypted connections",
        found.encrypted_bytes,
        "bytes",
        "Their requests can't be read",
        &[Requests, Latency],
        Severity::Warning,
    );
    entries.add(
        "mid-stream",
        "capture",
        "Connections that were open before the capture",
        found.mid_stream_connections,
        "connections",
        "What they carried before is not counted; statements prepared before have no text",
        &[Sql],
        Severity::Info,
    );
    entries.add(
        "order",
        "capture",
        "Calls of several threads on one socket whose order is a guess",
        found.order_uncertain,
        "calls",
        "Requests around them may be cut wrongly",
        &[Requests],
        Severity::Warning,
    );
    entries.add(
        "strangers",
        "capture",
        "Events of sockets whose identity was not recorded",
        found.events_without_socket,
        "events",
        "They belong to no connection",
        &[Requests, Topology],
        Severity::Warning,
    );
    for fact in nodes.iter().flat_map(|node| &node.manifest.probes).filter(|fact| !fact.attached) {
        entries.add(
            &format!("probe-{}", fact.name.replace('/', "-")),
            "capture",
            &format!("Probe {} did not run: {}", fact.name, fact.reason),
            1,
            "probes",
            &format!("Not recorded: {}", fact.costs),
            &[Network, Topology],
            Severity::Warning,
        );
    }
    let end_ns = analysis.world.window.map_or(0, |(_, end_ns)| end_ns);
    kubernetes(analysis, end_ns, &mut entries);
    logs.entries(&analysis.world, &mut entries);
    entries.0.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.id.cmp(&b.id)));
    entries.0.dedup_by(|a, b| a.id == b.id);
    let cut = found.missing.values().map(|loss| loss.bytes).sum();
    Ledger {
        totals: Totals {
            events: found.events,
            // Events count a byte at each recorded end; its connection carried it once.
            bytes: analysis.totals.iter().flat_map(|totals| totals.bytes).sum(),
            payload_kept_bytes: found.kept_bytes,
            payload_cut_bytes: cut,
            unseen_bytes: found.unseen_bytes,
            connections: analysis.totals.iter().filter(|totals| totals.first_ns > 0).count() as u64,
            connections_mid_stream: found.mid_stream_connections,
            requests: analysis.requests,
            lost_events: told.then(|| recorded("events_lost").max(missing_numbers)),
        },
        entries: entries.0,
        losses: losses(inputs, analysis),
        protocols: protocols(analysis),
        encrypted: encrypted(analysis),
    }
}

fn describe(reason: u8) -> (&'static str, &'static str, &'static str, Severity) {
    match reason {
        MISSING_LIMIT => (
            "limit",
            "Payload beyond the limit of a call",
            "Bodies and rows are not kept, they are counted by their lengths; where names or outcomes were cut too, \
             entries of their own say so",
            Severity::Info,
        ),
        MISSING_BULK => ("bulk", "Payload of bulk transfers", "One-way streams keep lengths only", Severity::Info),
        MISSING_PRESSURE => (
            "pressure",
            "Payload cut because the kernel buffer was filling up",
            "Requests in it are counted by their answers, without a name",
            Severity::Warning,
        ),
        MISSING_NO_BUFFER => (
            "no-buffer",
            "Bytes sent by sendfile or splice",
            "Their length is exact, their content unknown",
            Severity::Info,
        ),
        MISSING_NOT_THIS_CALL => (
            "not-this-call",
            "Bytes moved by io_uring or a kernel thread",
            "Their length is exact, their content unknown",
            Severity::Warning,
        ),
        MISSING_COMPAT => (
            "compat",
            "Bytes moved by 32-bit programs",
            "Their length is exact, their content unknown",
            Severity::Warning,
        ),
        MISSING_FAULT => (
            "fault",
            "Bytes whose memory was not readable",
            "Their length is exact, their content unknown",
            Severity::Warning,
        ),
        MISSING_SEGMENTS => (
            "segments",
            "Bytes in more buffers than a probe walks",
            "Their length is exact, their content partly unknown",
            Severity::Info,
        ),
        MISSING_MESSAGE_INDEX => (
            "message-index",
            "Datagrams whose place in a batch is uncertain",
            "Their length is exact, their content unknown",
            Severity::Info,
        ),
        MISSING_DISCARDED => (
            "discarded",
            "Bytes that a program discarded unread",
            "Their length is exact, their content unknown",
            Severity::Info,
        ),
        _ => (
            "other",
            "Payload missing for a reason that this version doesn't know",
            "Its length is exact",
            Severity::Warning,
        ),
    }
}

fn losses(inputs: &[Input], analysis: &Analysis) -> Vec<LostRange> {
    let mut losses = Vec::new();
    for ((lost, node), input) in analysis.lost.iter().zip(&analysis.world.facts.nodes).zip(inputs) {
        for range in lost.iter().take(MAX_LOSSES) {
            losses.push(LostRange {
                node: input.reader.header().node.clone(),
                what: format!("events of CPU {}", range.cpu),
                count: range.events,
                start_ns: Some(node.clock.wall_ns(range.from_ns)),
                end_ns: Some(node.clock.wall_ns(range.to_ns)),
            });
        }
    }
    losses
}

fn protocols(analysis: &Analysis) -> Vec<ProtocolShare> {
    let mut shares: BTreeMap<(bool, &str), ProtocolShare> = BTreeMap::new();
    for totals in analysis.totals.iter().filter(|totals| totals.first_ns > 0) {
        let known = totals.protocol.and_then(|protocol| REGISTRY.get(usize::from(protocol)));
        let name = if totals.tls.is_some() { "tls" } else { known.map_or("unknown", |protocol| protocol.name) };
        let share = shares.entry((known.is_none(), name)).or_default();
        share.protocol = name.to_string();
        share.connections += 1;
        share.bytes += totals.bytes.iter().sum::<u64>();
        share.encrypted = totals.tls.is_some();
        share.requests = known.map(|_| share.requests.unwrap_or_default() + totals.requests);
    }
    let mut shares: Vec<ProtocolShare> = shares.into_values().collect();
    // Stable: of as many bytes the one that comes first by name.
    shares.sort_by_key(|share| Reverse(share.bytes));
    shares
}

fn encrypted(analysis: &Analysis) -> Vec<EncryptedShare> {
    type Key = (Option<String>, Option<String>, Option<String>, Option<String>);
    let mut shares: BTreeMap<Key, EncryptedShare> = BTreeMap::new();
    for totals in &analysis.totals {
        let Some(tls) = &totals.tls else { continue };
        let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_string);
        let alpn = (!tls.alpn.is_empty()).then(|| tls.alpn.join(", "));
        let alert = tls.alerts.first().map(|(side, alert)| match side {
            Side::Client => format!("{alert} (client)"),
            Side::Server => format!("{alert} (server)"),
        });
        let key = (owned(&tls.server_name), owned(&tls.version), alpn, alert);
        let share = shares.entry(key).or_default();
        share.connections += 1;
        share.bytes += totals.bytes.iter().sum::<u64>();
    }
    let mut shares: Vec<EncryptedShare> = shares
        .into_iter()
        .map(|((server_name, version, alpn, alert), share)| EncryptedShare {
            server_name,
            version,
            alpn,
            alert,
            ..share
        })
        .collect();
    shares.sort_by_key(|share| Reverse(share.bytes));
    shares
}

/// What was not seen of Kubernetes, and what can't be right.
fn kubernetes(analysis: &Analysis, end_ns: u64, entries: &mut Entries) {
    use crate::report::document::Figure::{Time, Topology};
    let facts = &analysis.world.facts;
    // What is wrong with the API is wrong with all kinds at once.
    let mut groups: BTreeMap<(u32, u64, Option<u64>, &str), Vec<&str>> = BTreeMap::new();
    for blind in facts.kube.blind() {
        let kind = if blind.kind.is_empty() { "all kinds" } else { &blind.kind };
        groups.entry((blind.bundle, blind.from_ns, blind.to_ns, &blind.reason)).or_default().push(kind);
    }
    for ((bundle, from_ns, to_ns, reason), mut kinds) in groups {
        kinds.sort_unstable();
        let seconds = to_ns.unwrap_or(end_ns.max(from_ns)).saturating_sub(from_ns).div_ceil(1_000_000_000);
        let until = if to_ns.is_some() { "" } else { ", to the end" };
        let first = kinds.first().copied().unwrap_or_default();
        let kind = match kinds.len() {
            0..=3 => kinds.join(", "),
            count => format!("{first} and {} more kinds", count - 1),
        };
        entries.add(
            &format!("kube-{bundle}-{}-{from_ns}", first.to_lowercase().replace(' ', "-")),
            "capture",
            &format!("Kubernetes: changes of {kind} were not seen{until}: {reason}"),
            seconds.max(1),
            "seconds",
            "Names and changes may be older than the requests, or missing",
            &[Topology],
            Severity::Warning,
        );
    }
    let shared = facts.kube.shared_addresses();
    if let Some(first) = shared.first() {
        entries.add(
            "kube-addresses",
            "capture",
            &format!("Kubernetes: addresses that two pods had at one time, such as {first}"),
            shared.len() as u64,
            "addresses",
            "What they answer is taken for the younger pod's",
            &[Topology],
            Severity::Warning,
        );
    }
    if let Some(ahead_ns) = facts.cluster.ahead_ns {
        entries.add(
            "kube-clock",
            "capture",
            "Kubernetes: objects younger than the recording: the API server's clock is ahead of the recorder's",
            ahead_ns.div_ceil(1_000_000_000),
            "seconds",
            "Changes and who had an address are misplaced in time",
            &[Topology, Time],
            Severity::Warning,
        );
    }
}
