//! `kfr info` and `kfr verify`.

use std::collections::BTreeMap;
use std::io::Write;

use kfr_bundle::facts::{LedgerFact, Manifest};
use kfr_bundle::verify::KindCount;
use kfr_bundle::{BlockKind, Condition, Damage, OpenError, Reader, decode_maps};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::args::{InfoOptions, VerifyOptions};
use crate::exit::{Done, Failure};
use crate::terminal::{json_output, shown, text_output};

fn open(path: &std::path::Path) -> Result<Reader, Failure> {
    Reader::open(path).map_err(|error: OpenError| {
        Failure::unreadable(anyhow::Error::from(error).context(format!("{} can't be read", path.display())))
    })
}

/// The last row of a kind that can be read.
fn last_row<T: DeserializeOwned + Default>(reader: &Reader, kind: BlockKind) -> Option<T> {
    let mut raw = Vec::new();
    let mut last = None;
    for entry in reader.blocks_of(kind) {
        raw.clear();
        if reader.read_block(entry, &mut raw).is_ok()
            && let Ok(maps) = decode_maps::<T>(&raw)
        {
            last = maps.rows.into_iter().next_back().map(|(_, row)| row).or(last);
        }
    }
    last
}

pub fn info(options: &InfoOptions) -> Result<Done, Failure> {
    let reader = open(&options.bundle)?;
    let header = reader.header();
    let mut kinds: BTreeMap<BlockKind, KindCount> = BTreeMap::new();
    let (mut first, mut last) = (u64::MAX, 0);
    for entry in reader.blocks() {
        let count = kinds.entry(entry.kind).or_default();
        count.blocks += 1;
        count.rows += u64::from(entry.rows);
        count.file_bytes += entry.end() - entry.offset;
        count.raw_bytes += u64::from(entry.raw_len);
        if entry.kind == BlockKind::DATA {
            first = first.min(entry.min_time_ns);
            last = last.max(entry.max_time_ns);
        }
    }
    let manifest = last_row::<Manifest>(&reader, BlockKind::MANIFEST);
    let ledger = last_row::<LedgerFact>(&reader, BlockKind::LEDGER).map(|fact| fact.counters);
    let damage = reader.damage();
    let condition = Condition::of(&reader, damage);
    let parts = if reader.is_merged() { parts(&options.bundle)? } else { Vec::new() };
    let printed = if options.json {
        let value = json!({
            "bundle": header.bundle_id.to_string(),
            "format": header.format.to_string(),
            "node": header.node,
            "redaction": header.redaction,
            "encryption": header.encryption,
            "created_ns": header.created_realtime_ns,
            "file_bytes": reader.file_bytes(),
            "first_event_ns": (last > 0).then_some(first),
            "last_event_ns": (last > 0).then_some(last),
            "blocks": kinds.iter().map(|(kind, count)| json!({
                "kind": kind.to_string(), "blocks": count.blocks, "rows": count.rows,
                "file_bytes": count.file_bytes, "raw_bytes": count.raw_bytes,
            })).collect::<Vec<_>>(),
            "manifest": manifest,
            // What the recorder counted of its own losses until its last second; null where no such block is left.
            "ledger": ledger,
            "condition": word(condition),
            // Of a merged file: the bundles in it.
            "parts": parts.iter().map(|part| json!({
                "bundle": part.header().bundle_id.to_string(),
                "node": part.header().node,
                "created_ns": part.header().created_realtime_ns,
                "blocks": part.blocks().len(),
                "condition": word(Condition::of(part, part.damage())),
            })).collect::<Vec<_>>(),
            "damage": {
                "lost_bytes": damage.lost_bytes, "bad_blocks": damage.blocks_bad,
                "missing_blocks": damage.missing_block_count(), "unknown_kinds": damage.unknown_kinds,
                "no_footer": damage.no_footer,
            },
        });
        let mut out = json_output();
        writeln!(out, "{value:#}").and_then(|()| out.flush())
    } else {
        let mut out = text_output();
        print_info(&reader, &parts, &kinds, manifest.as_ref(), ledger.as_ref(), (first, last), &mut out)
            .and_then(|()| out.flush())
    };
    printed.map_err(Failure::unwritable)?;
    let lost = ledger.is_some_and(|ledger| losses(&ledger) > 0);
    Ok(if lost { Done::WithLosses } else { done(condition) })
}

/// The bundles in a merged file.
fn parts(path: &std::path::Path) -> Result<Vec<Reader>, Failure> {
    open(path)?.parts().map_err(|error: OpenError| {
        Failure::unreadable(anyhow::Error::from(error).context(format!("{} can't be read", path.display())))
    })
}

/// A condition as scripts read it.
fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Whole => "whole",
        Condition::Repaired(_) => "repaired",
        Condition::CutOff => "cut_off",
        Condition::Damaged => "damaged",
    }
}

/// Events that the recorder saw and could not keep.
fn losses(ledger: &BTreeMap<String, u64>) -> u64 {
    ["events_lost", "rows_not_written"]
        .iter()
        .filter_map(|name| ledger.get(*name))
        .fold(0, |sum, n| sum.saturating_add(*n))
}

fn done(condition: Condition) -> Done {
    if condition == Condition::Whole { Done::Whole } else { Done::WithLosses }
}

/// A bundle's condition, the same words in every command.
pub fn verdict(condition: Condition) -> String {
    match condition {
        Condition::Whole => "whole".to_string(),
        Condition::Repaired(1) => "whole, 1 place repaired".to_string(),
        Condition::Repaired(places) => format!("whole, {places} places repaired"),
        Condition::CutOff => {
            "cut off, nothing damaged: the recorder ended before it finished the file; what it had not written yet is missing".to_string()
        }
        Condition::Damaged => "damaged".to_string(),
    }
}

fn print_info(
    reader: &Reader,
    parts: &[Reader],
    kinds: &BTreeMap<BlockKind, KindCount>,
    manifest: Option<&Manifest>,
    ledger: Option<&BTreeMap<String, u64>>,
    (first, last): (u64, u64),
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let header = reader.header();
    writeln!(out, "bundle     {}  (format {})", header.bundle_id, header.format)?;
    for part in parts {
        let (node, condition) = (shown(&part.header().node), verdict(Condition::of(part, part.damage())));
        let node = if node.is_empty() { "no node".into() } else { node };
        writeln!(out, "merged     {}  {node}, {} blocks, {condition}", part.header().bundle_id, part.blocks().len())?;
    }
    if !header.node.is_empty() {
        writeln!(out, "node       {}", shown(&header.node))?;
    }
    writeln!(out, "size       {} bytes", reader.file_bytes())?;
    if last > 0 {
        writeln!(out, "traffic    {:.3} s", last.saturating_sub(first) as f64 / 1e9)?;
    }
    writeln!(out, "payload    {}", if header.redaction == 0 { "raw" } else { "redacted" })?;
    if let Some(manifest) = manifest {
        let (tool, version) = (shown(&manifest.tool), shown(&manifest.version));
        if manifest.source.is_empty() {
            writeln!(out, "recorded   by {tool} {version} on kernel {}", shown(&manifest.kernel))?;
        } else {
            writeln!(out, "imported   by {tool} {version} from {}", shown(&manifest.source))?;
        }
        writeln!(out, "hook       {}", shown(&manifest.socket_hook))?;
        if !manifest.interfaces.is_empty() {
            writeln!(out, "interfaces {}", shown(&manifest.interfaces.join(" ")))?;
        }
        if !manifest.filters.is_empty() {
            writeln!(out, "filters    {}", shown(&manifest.filters.join(" ")))?;
        }
        for probe in manifest.probes.iter().filter(|probe| !probe.attached) {
            let (name, reason, costs) = (shown(&probe.name), shown(&probe.reason), shown(&probe.costs));
            writeln!(out, "missing    {name}: {reason} (costs {costs})")?;
        }
        let end = if manifest.end.is_empty() { "being cut off" } else { &manifest.end };
        writeln!(out, "ended by   {}", shown(end))?;
    }
    if let Some(ledger) = ledger {
        let events = ledger.get("events").copied().unwrap_or_default();
        writeln!(out, "lost       {} of {events} events", losses(ledger))?;
        if manifest.is_some_and(|manifest| !manifest.source.is_empty()) {
            let counted = ledger.iter().filter(|(name, value)| **value > 0 && !matches!(name.as_str(), "events"));
            let counted: Vec<String> = counted.map(|(name, value)| format!("{} {value}", shown(name))).collect();
            writeln!(out, "counted    {}", counted.join(", "))?;
        }
    }
    writeln!(out, "condition  {}", verdict(Condition::of(reader, reader.damage())))?;
    writeln!(out, "\n{:<16} {:>8} {:>12} {:>14} {:>14}", "kind", "blocks", "rows", "bytes", "raw bytes")?;
    for (kind, count) in kinds {
        writeln!(
            out,
            "{:<16} {:>8} {:>12} {:>14} {:>14}",
            kind.to_string(),
            count.blocks,
            count.rows,
            count.file_bytes,
            count.raw_bytes
        )?;
    }
    print_damage(reader.damage(), out)
}

fn print_damage(damage: &Damage, out: &mut dyn Write) -> std::io::Result<()> {
    if damage.is_loss() {
        writeln!(
            out,
            "\ndamaged: {} bytes unreadable in {} places, {} blocks bad, {} blocks missing",
            damage.lost_bytes,
            damage.regions.len(),
            damage.blocks_bad,
            damage.missing_block_count()
        )?;
    }
    for region in damage.regions.iter().take(20) {
        writeln!(out, "  at byte {}: {} bytes, {:?}", region.offset, region.bytes, region.kind)?;
    }
    Ok(())
}

pub fn verify(options: &VerifyOptions) -> Result<Done, Failure> {
    let name = options.bundle.display();
    let report = kfr_bundle::verify(&options.bundle)
        .map_err(|error| Failure::unreadable(anyhow::Error::from(error).context(format!("{name} can't be read"))))?;
    let blocks: u64 = report.kinds.values().map(|count| count.blocks).sum();
    let rows: u64 = report.kinds.values().map(|count| count.rows).sum();
    let name = shown(&name.to_string());
    let mut out = text_output();
    writeln!(out, "{name}: {}", verdict(report.condition))
        .and_then(|()| writeln!(out, "{blocks} blocks, {rows} rows, digest {:08x}", report.digest))
        .and_then(|()| print_damage(&report.damage, &mut out))
        .and_then(|()| out.flush())
        .map_err(Failure::unwritable)?;
    Ok(done(report.condition))
}
