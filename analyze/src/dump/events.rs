//! `kfr dump --events` and `--at`: what the bundle holds, row by row.

use std::io::{self, Write};

use kfr_bundle::events::{
    DIRECTION_SENT, OFFSET_COUNTED, OFFSET_DATAGRAM, OFFSET_TCP, ProcessEvent, SocketEvent, StateEvent, TcpEvent,
};
use kfr_bundle::logs::LogFact;
use kfr_bundle::rows::row_numbers;
use kfr_bundle::{Address, BlockEntry, BlockKind, DataBlock, DataRow, Row, decode_maps, decode_rows};
use serde_json::{Value, json};

use crate::clocks::Clock;
use crate::replay::{Facts, Input};
use kfr_bundle::secrets::mask_arguments;

/// An address that names no event of these bundles.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not of the form `ORIGIN.BLOCK:ROW`.
    #[error("{0} is no address; expected ORIGIN.BLOCK:ROW, as in the evidence of a request")]
    Malformed(String),
    /// Nothing there.
    #[error("no event at {0} in these bundles")]
    NotFound(Address),
    /// Two bundles have blocks of that origin and number.
    #[error("{0} is in more than one of these bundles")]
    Ambiguous(Address),
    /// Writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes each event of all bundles, in the order of the file. Payload is left out unless `literals`.
///
/// # Errors
/// If `out` fails.
pub fn event_lines(inputs: &[Input], facts: &Facts, literals: bool, out: &mut dyn Write) -> io::Result<()> {
    let fallback = Clock::default();
    for (number, input) in inputs.iter().enumerate() {
        let clock = facts.nodes.get(number).map_or(&fallback, |node| &node.clock);
        for entry in input.reader.blocks() {
            for value in block_values(input, entry, clock, literals, None) {
                serde_json::to_writer(&mut *out, &value)?;
                out.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}

/// What stands for the bytes of an event that was asked for by its address.
const MASKED: &str = "masked; --literals shows it";

/// Writes the event at an address. Payload is masked as a whole unless `literals`: one event's bytes don't tell which of
/// them are values.
///
/// # Errors
/// If there is none, or `out` fails.
pub fn event_at(
    inputs: &[Input],
    facts: &Facts,
    literals: bool,
    address: &str,
    out: &mut dyn Write,
) -> Result<(), AddressError> {
    let wanted: Address = address.parse().map_err(|_| AddressError::Malformed(address.to_string()))?;
    let fallback = Clock::default();
    let mut found = Vec::new();
    for (number, input) in inputs.iter().enumerate() {
        let clock = facts.nodes.get(number).map_or(&fallback, |node| &node.clock);
        for entry in input.reader.blocks() {
            let here = entry.address.row(wanted.row);
            if here.origin == wanted.origin && here.block == wanted.block {
                found.extend(block_values(input, entry, clock, literals, Some(wanted.row)));
            }
        }
    }
    for value in &mut found {
        if value["kept"].as_u64().is_some_and(|kept| kept > 0) && value.get("payload").is_none() {
            value["payload"] = json!(MASKED);
        }
    }
    match found.as_slice() {
        [] => Err(AddressError::NotFound(wanted)),
        [value] => {
            serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
            Ok(out.write_all(b"\n")?)
        }
        _ => Err(AddressError::Ambiguous(wanted)),
    }
}

/// Events of a block, or the one with the given row number.
fn block_values(input: &Input, entry: &BlockEntry, clock: &Clock, literals: bool, row: Option<u32>) -> Vec<Value> {
    let Some(raw) = input.raw(entry) else { return Vec::new() };
    let wanted = |number: u32| row.is_none_or(|row| row == number);
    match entry.kind {
        BlockKind::DATA => {
            let Ok(block) = DataBlock::decode(raw, entry.first_row) else { return Vec::new() };
            let rows = block.rows().filter(|row| wanted(row.row_number));
            rows.map(|row| data_value(&row, entry, clock, literals)).collect()
        }
        BlockKind::SOCKETS => rows::<SocketEvent>(&raw, entry, wanted, |row, at| socket_value(row, at, clock)),
        BlockKind::STATES => rows::<StateEvent>(&raw, entry, wanted, |row, at| state_value(row, at, clock)),
        BlockKind::TCP => rows::<TcpEvent>(&raw, entry, wanted, |row, at| tcp_value(row, at, clock)),
        BlockKind::PROCESS_EVENTS => {
            rows::<ProcessEvent>(&raw, entry, wanted, |row, at| process_value(row, at, clock, literals))
        }
        BlockKind::LOGS => {
            let Ok(maps) = decode_maps::<LogFact>(&raw) else { return Vec::new() };
            let numbered = maps.rows.into_iter().map(|(number, row)| (entry.first_row.saturating_add(number), row));
            let rows = numbered.filter(|(number, _)| wanted(*number));
            rows.map(|(number, row)| log_value(&row, entry.address.row(number))).collect()
        }
        _ => Vec::new(),
    }
}

fn rows<R: Row>(
    raw: &[u8],
    entry: &BlockEntry,
    wanted: impl Fn(u32) -> bool,
    value: impl Fn(&R, Address) -> Value,
) -> Vec<Value> {
    let (Ok(rows), Ok(numbers)) = (decode_rows::<R>(raw), row_numbers(raw, entry.first_row)) else { return Vec::new() };
    let both = rows.iter().zip(numbers).filter(|(_, number)| wanted(*number));
    both.map(|(row, number)| value(row, entry.address.row(number))).collect()
}

/// Why payload is missing, in words (`MISSING_` constants).
pub fn missing_name(missing: u8) -> Option<&'static str> {
    const NAMES: [&str; 12] = [
        "",
        "limit",
        "bulk",
        "pressure",
        "other_end_keeps",
        "no_buffer",
        "not_this_call",
        "compat",
        "fault",
        "segments",
        "message_index",
        "discarded",
    ];
    match missing {
        0 => None,
        other => Some(NAMES.get(usize::from(other)).copied().unwrap_or("unknown")),
    }
}

fn data_value(row: &DataRow<'_>, entry: &BlockEntry, clock: &Clock, literals: bool) -> Value {
    let mut value = json!({
        "address": entry.address.row(row.row_number).to_string(),
        "kind": if row.peer.is_some() { "datagram" } else { "data" },
        "time_ns": clock.wall_ns(row.time_ns),
        "event_ns": row.time_ns,
        "cpu": row.cpu,
        "process": row.process,
        "thread": row.thread,
        "socket": row.socket,
        "direction": if row.direction == DIRECTION_SENT { "sent" } else { "received" },
        "offset_kind": match row.offset_kind {
            OFFSET_TCP => "tcp_seq",
            OFFSET_COUNTED => "counted",
            OFFSET_DATAGRAM => "datagram",
            _ => "unknown",
        },
        "offset": row.offset,
        "length": row.length,
        "kept": row.payload.len(),
        "missing": missing_name(row.missing),
        "age_ns": row.age_ns,
    });
    if let Some(peer) = row.peer
        && peer.family != 0
    {
        value["peer"] = json!(address(peer.family, &peer.address));
        value["peer_port"] = json!(peer.port);
    }
    if literals {
        value["payload"] = json!(row.payload.escape_ascii().to_string());
    }
    value
}

fn address(family: u16, bytes: &[u8; 16]) -> Option<String> {
    match family {
        2 => Some(std::net::Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).to_string()),
        10 => Some(std::net::Ipv6Addr::from(*bytes).to_string()),
        _ => None,
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn socket_value(row: &SocketEvent, at: Address, clock: &Clock) -> Value {
    let path = row.path.get(..usize::from(row.path_length)).unwrap_or_default();
    json!({
        "address": at.to_string(),
        "kind": "socket",
        "time_ns": clock.wall_ns(row.header.time_ns),
        "event_ns": row.header.time_ns,
        "process": row.header.process,
        "thread": row.header.thread,
        "comm": text(&row.comm),
        "socket": row.socket,
        "netns": row.netns,
        "cgroup": row.cgroup,
        "peer_socket": (row.peer != 0).then_some(row.peer),
        "inode": row.inode,
        "opened_ns": (row.opened_ns > 0).then(|| clock.wall_ns(row.opened_ns)),
        "family": row.family,
        "type": row.socket_type,
        "protocol": row.protocol,
        "local": address(row.family, &row.local_address),
        "local_port": row.local_port,
        "remote": address(row.family, &row.remote_address),
        "remote_port": row.remote_port,
        "path": (!path.is_empty()).then(|| path.escape_ascii().to_string()),
        "role": row.role,
        "state": row.state,
        "offset_kind": row.offset_kind,
        "seen_by": if row.seen_by == 0 { "data" } else { "walk" },
    })
}

fn state_value(row: &StateEvent, at: Address, clock: &Clock) -> Value {
    json!({
        "address": at.to_string(),
        "kind": "state",
        "time_ns": clock.wall_ns(row.header.time_ns),
        "event_ns": row.header.time_ns,
        "process": (row.header.process != 0).then_some(row.header.process),
        "socket": row.socket,
        "netns": row.netns,
        "cgroup": row.cgroup,
        "local": address(row.family, &row.local_address),
        "local_port": row.local_port,
        "remote": address(row.family, &row.remote_address),
        "remote_port": row.remote_port,
        "asked": address(row.asked_family, &row.asked_address),
        "asked_port": (row.asked_family != 0).then_some(row.asked_port),
        "old_state": row.old_state,
        "new_state": row.new_state,
        "sent_sequence": row.sent_sequence,
        "received_sequence": row.received_sequence,
        "rtt_us": (row.rtt_us > 0).then_some(row.rtt_us),
        "retransmits": row.retransmits,
        "bytes_acknowledged": row.bytes_acknowledged,
        "bytes_received": row.bytes_received,
        "error": row.error,
    })
}

fn tcp_value(row: &TcpEvent, at: Address, clock: &Clock) -> Value {
    json!({
        "address": at.to_string(),
        "kind": match row.what { 1 => "retransmit", 2 => "reset_sent", 3 => "reset_received", _ => "tcp" },
        "time_ns": clock.wall_ns(row.header.time_ns),
        "event_ns": row.header.time_ns,
        "socket": (row.socket != 0).then_some(row.socket),
        "local": address(row.family, &row.local_address),
        "local_port": row.local_port,
        "remote": address(row.family, &row.remote_address),
        "remote_port": row.remote_port,
        "state": row.state,
    })
}

/// Secrets were masked when it was recorded.
fn log_value(row: &LogFact, at: Address) -> Value {
    json!({
        "address": at.to_string(),
        "kind": "log",
        "time_ns": row.wall_ns,
        "event_ns": row.time_ns,
        "namespace": row.namespace,
        "pod": row.pod,
        "uid": row.uid,
        "container": row.container,
        "restart": row.restart,
        "stream": row.stream,
        "text": row.text,
        "cut": row.cut,
    })
}

fn process_value(row: &ProcessEvent, at: Address, clock: &Clock, literals: bool) -> Value {
    let used = row.arguments.get(..usize::from(row.arguments_length)).unwrap_or_default();
    let arguments: Vec<String> = used
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect();
    json!({
        "address": at.to_string(),
        "kind": match row.what { 1 => "exec", 2 => "fork", 3 => "exit", _ => "process" },
        "time_ns": clock.wall_ns(row.header.time_ns),
        "event_ns": row.header.time_ns,
        "process": row.header.process,
        "parent": row.parent,
        "namespace_process": row.namespace_process,
        "comm": text(&row.comm),
        "cgroup": row.cgroup,
        "start_ns": row.start_ns,
        "exit_status": row.exit_status,
        "arguments": if literals { arguments } else { mask_arguments(&arguments) },
    })
}
