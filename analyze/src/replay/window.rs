//! Blocks through the shards: a window of blocks is decoded in parallel, its rows are routed by connection, and the
//! shards take theirs in parallel, each in the order of the file.

use std::sync::Mutex;

use kfr_bundle::{BlockEntry, BlockKind, DataBlock};
use rayon::prelude::*;

use crate::identity::Sockets;
use crate::join::Connections;
use crate::model::Metrics;
use crate::replay::connection::Event;
use crate::replay::facts::NodeFacts;
use crate::replay::input::Input;
use crate::replay::losses::{Run, runs_of};
use crate::replay::shard::{Context, Shard, ShardOutput};
use crate::replay::times::Talk;
use crate::replay::{SHARDS, SortedLines};

/// What a decoded block takes in memory at most, for each byte of its raw size: columns are wider in memory, and rows
/// are listed by shard.
const MEMORY_PER_RAW_BYTE: u64 = 6;
/// Blocks of a window at most, for each thread and in all: enough work for every thread, few enough that their memory is
/// used again (and partly still cached) instead of being fetched from the kernel, and a bound on how long lines wait for
/// sorting.
const WINDOW_PER_THREAD: usize = 8;
const MAX_WINDOW: usize = 64;
/// Bytes of lines that a byte of a block is taken to come to before any were seen: a pipeline of small commands.
const FIRST_LINES_PER_RAW_BYTE: u64 = 20;
/// What a decoded flow points to where its socket is unknown.
const NOBODY: u32 = u32::MAX;
/// The owner's number where another socket has the same bytes.
const COPY: u32 = u32::MAX - 1;

struct Decoded {
    block: DataBlock,
    bundle: u32,
    entry: BlockEntry,
    /// By flow: connection, and whether the socket is its observer.
    owners: Vec<(u32, bool)>,
    /// The same by row, in its order, where an unconnected socket's peer decides.
    peers: Vec<(u32, (u32, bool))>,
    /// Whom an unconnected socket sent a row to, in their order, where those who ask it have no name: such a socket's
    /// rows are one connection.
    talks: Vec<(u32, Talk)>,
    /// By shard: numbers of its rows.
    rows: Vec<Vec<u32>>,
    runs: Vec<Run>,
    strangers: u64,
}

/// Replays all data blocks. `budget` is the memory for decoded blocks, bytes.
///
/// # Errors
/// If lines can't be spilled.
pub fn run(
    inputs: &[Input],
    nodes: &mut [NodeFacts],
    sockets: &Sockets,
    connections: &Connections,
    context: &dyn Context,
    lines: &mut SortedLines,
    budget: u64,
) -> std::io::Result<Vec<ShardOutput>> {
    let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::default()).collect();
    let mut edges = Metrics::default();
    let mut strangers = 0;
    let mut bad_blocks = 0;
    let entries = entries_in_order(inputs, nodes);
    let mut rest = entries.as_slice();
    // Bytes of lines that a byte of a block came to at most so far: they wait until their window is over.
    let mut lines_per_raw_byte = FIRST_LINES_PER_RAW_BYTE;
    let mut known = false;
    // Memory of blocks that are done: to give it back and get it anew costs more than to fill it.
    let mut spare = Mutex::new(Vec::new());
    while !rest.is_empty() {
        let (window, after) = rest.split_at(window_length(rest, budget, lines_per_raw_byte));
        rest = after;
        let decoded: Vec<Option<Decoded>> = window
            .par_iter()
            .with_max_len(1)
            .map(|(bundle, entry)| {
                let memory = spare.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default();
                decode(inputs.get(*bundle as usize)?, *bundle, entry, memory, sockets, connections)
            })
            .collect();
        for one in &decoded {
            match one {
                Some(decoded) => {
                    strangers += decoded.strangers;
                    if let Some(node) = nodes.get_mut(decoded.bundle as usize) {
                        decoded.runs.iter().for_each(|run| node.seen.add(*run));
                    }
                }
                None => bad_blocks += 1,
            }
        }
        // One by one: connections of one moment are neighbours, and rayon would give half of the shards to each thread.
        shards.par_iter_mut().enumerate().with_max_len(1).for_each(|(number, shard)| {
            for decoded in decoded.iter().flatten() {
                replay_rows(decoded, number, shard, context);
            }
        });
        if let Ok(spare) = spare.get_mut() {
            spare.extend(decoded.into_iter().flatten().map(|decoded| decoded.block.into_raw()));
            spare.truncate(window.len());
        }
        shards.iter_mut().for_each(|shard| edges.merge_edges(shard.take_edges()));
        let before = lines.pushed_bytes();
        for shard in &mut shards {
            for (key, line) in shard.take_lines() {
                lines.push(key, line)?;
            }
        }
        let raw_bytes: u64 = window.iter().map(|(_, entry)| u64::from(entry.raw_len)).sum();
        let observed = (lines.pushed_bytes() - before).div_ceil(raw_bytes.max(1));
        lines_per_raw_byte =
            if std::mem::replace(&mut known, true) { lines_per_raw_byte.max(observed) } else { observed };
    }
    let mut outputs: Vec<ShardOutput> = shards.into_par_iter().map(|shard| shard.finish(context)).collect();
    for output in &mut outputs {
        for (key, line) in std::mem::take(&mut output.produce.lines) {
            lines.push(key, line)?;
        }
    }
    if let Some(first) = outputs.first_mut() {
        first.produce.metrics.merge(edges);
        first.ledger.events_without_socket += strangers;
        first.ledger.bad_blocks += bad_blocks;
    }
    Ok(outputs)
}

/// Data blocks of all bundles: those of one bundle in its own order, of several as they ended, so that what two nodes did at
/// one time is replayed at one time.
fn entries_in_order(inputs: &[Input], nodes: &[NodeFacts]) -> Vec<(u32, BlockEntry)> {
    let mut entries = Vec::new();
    for (bundle, (input, node)) in inputs.iter().zip(nodes).enumerate() {
        let mut latest_ns = 0;
        for entry in input.reader.blocks_of(BlockKind::DATA) {
            latest_ns = node.clock.wall_ns(entry.max_time_ns).max(latest_ns);
            entries.push((latest_ns, (bundle as u32, *entry)));
        }
    }
    entries.sort_by_key(|(ended_ns, (bundle, _))| (*ended_ns, *bundle));
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn window_length(entries: &[(u32, BlockEntry)], budget: u64, lines_per_raw_byte: u64) -> usize {
    let mut room = budget;
    let most = MAX_WINDOW.min(WINDOW_PER_THREAD * rayon::current_num_threads());
    let fitting = entries.iter().take(most).take_while(|(_, entry)| {
        let needed = u64::from(entry.raw_len).saturating_mul(MEMORY_PER_RAW_BYTE + lines_per_raw_byte);
        let fits = needed <= room;
        room = room.saturating_sub(needed);
        fits
    });
    // One block at least, however small the budget.
    fitting.count().max(1)
}

fn decode(
    input: &Input,
    bundle: u32,
    entry: &BlockEntry,
    memory: Vec<u8>,
    sockets: &Sockets,
    connections: &Connections,
) -> Option<Decoded> {
    let block = DataBlock::decode(input.raw_into(entry, memory)?, entry.first_row).ok()?;
    let owners: Vec<(u32, bool)> = block
        .flows
        .iter()
        .map(|flow| {
            let Some(socket) = sockets.find((bundle, flow.socket)) else { return (NOBODY, false) };
            let nobody = if connections.is_copy(socket) { COPY } else { NOBODY };
            owner_of(connections, socket).unwrap_or((nobody, false))
        })
        .collect();
    let (mut peers, mut talks) = (Vec::new(), Vec::new());
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); SHARDS];
    let mut strangers = 0;
    for (row, flow) in block.flow.iter().enumerate() {
        let id = block.flow_of(row).map(|flow| (bundle, flow.socket));
        let talk = block.peer(row).and_then(|peer| sockets.find_peer(id?, peer));
        let mut talk = talk.and_then(|socket| owner_of(connections, socket));
        if let Some((connection, _)) = talk
            && id.is_some_and(|id| sockets.is_asked_by_nobody(id))
        {
            let elsewhere = connections.all.get(connection as usize).is_some_and(|one| one.peer.is_some());
            talks.push((row as u32, Talk { connection, elsewhere }));
            talk = None;
        }
        peers.extend(talk.map(|owner| (row as u32, owner)));
        match talk.as_ref().or(owners.get(*flow as usize)) {
            // What was captured again behind a translation of addresses counts once.
            Some((COPY, _)) => {}
            Some((connection, _)) if *connection != NOBODY => {
                if let Some(list) = rows.get_mut(*connection as usize % SHARDS) {
                    list.push(row as u32);
                }
            }
            _ => strangers += 1,
        }
    }
    let runs = runs_of(&block);
    Some(Decoded { block, bundle, entry: *entry, owners, peers, talks, rows, runs, strangers })
}

/// The connection that a socket belongs to, and whether it is its observer.
fn owner_of(connections: &Connections, socket: u32) -> Option<(u32, bool)> {
    let connection = connections.of(socket)?;
    let observes = connections.all.get(connection as usize).is_some_and(|one| one.observer == socket);
    Some((connection, observes))
}

fn replay_rows(decoded: &Decoded, shard_number: usize, shard: &mut Shard, context: &dyn Context) {
    for number in decoded.rows.get(shard_number).into_iter().flatten() {
        let Some(row) = decoded.block.row(*number as usize) else { continue };
        let talk = row.peer.and_then(|_| decoded.peers.binary_search_by_key(number, |(row, _)| *row).ok());
        let owner = match talk.and_then(|at| decoded.peers.get(at)) {
            Some((_, owner)) => Some(*owner),
            None => decoded.owners.get(row.flow as usize).copied(),
        };
        let Some((connection, observers)) = owner else { continue };
        let event = Event {
            observers,
            direction: row.direction,
            offset_kind: row.offset_kind,
            offset: row.offset,
            length: row.length,
            missing: row.missing,
            time_ns: row.time_ns,
            age_ns: row.age_ns,
            address: decoded.entry.address.row(row.row_number),
            talk: decoded
                .talks
                .binary_search_by_key(number, |(row, _)| *row)
                .ok()
                .and_then(|at| decoded.talks.get(at))
                .map(|(_, talk)| *talk),
            payload: row.payload,
        };
        shard.event(context, connection, &event);
    }
}
