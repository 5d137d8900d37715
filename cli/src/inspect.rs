//! `kfr info` and `kfr verify`.

use std::collections::BTreeMap;
use std::io::Write;

use kfr_bundle::facts::Manifest;
use kfr_bundle::verify::KindCount;
use kfr_bundle::{BlockKind, Damage, OpenError, Reader, decode_maps};
use serde_json::json;

use crate::args::{InfoOptions, VerifyOptions};
use crate::exit::{Done, Failure};

fn open(path: &std::path::Path) -> Result<Reader, Failure> {
    Reader::open(path).map_err(|error: OpenError| {
        Failure::unreadable(anyhow::Error::from(error).context(format!("{} can't be read", path.display())))
    })
}

fn last_manifest(reader: &Reader) -> Option<Manifest> {
    let mut raw = Vec::new();
    let mut last = None;
    for entry in reader.blocks_of(BlockKind::MANIFEST) {
        raw.clear();
        if reader.read_block(entry, &mut raw).is_ok()
            && let Ok(maps) = decode_maps::<Manifest>(&raw)
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
    let manifest = last_manifest(&reader);
    let damage = reader.damage();
    let mut out = std::io::stdout().lock();
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
            "damage": {
                "lost_bytes": damage.lost_bytes, "bad_blocks": damage.blocks_bad,
                "missing_blocks": damage.missing_block_count(), "unknown_kinds": damage.unknown_kinds,
                "no_footer": damage.no_footer,
            },
        });
        writeln!(out, "{value:#}")
    } else {
        print_info(&reader, &kinds, manifest.as_ref(), (first, last), &mut out)
    };
    printed.map_err(Failure::unreadable)?;
    Ok(done(damage))
}

fn done(damage: &Damage) -> Done {
    if damage.is_loss() { Done::WithLosses } else { Done::Whole }
}

fn print_info(
    reader: &Reader,
    kinds: &BTreeMap<BlockKind, KindCount>,
    manifest: Option<&Manifest>,
    (first, last): (u64, u64),
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let header = reader.header();
    writeln!(out, "bundle     {}  (format {})", header.bundle_id, header.format)?;
    writeln!(out, "node       {}", header.node)?;
    writeln!(out, "size       {} bytes", reader.file_bytes())?;
    if last > 0 {
        writeln!(out, "traffic    {:.3} s", (last - first) as f64 / 1e9)?;
    }
    writeln!(out, "payload    {}", if header.redaction == 0 { "raw" } else { "redacted" })?;
    if let Some(manifest) = manifest {
        writeln!(out, "recorded   by {} {} on kernel {}", manifest.tool, manifest.version, manifest.kernel)?;
        writeln!(out, "hook       {}", manifest.socket_hook)?;
        if !manifest.filters.is_empty() {
            writeln!(out, "filters    {}", manifest.filters.join(" "))?;
        }
        for probe in manifest.probes.iter().filter(|probe| !probe.attached) {
            writeln!(out, "missing    {}: {} (costs {})", probe.name, probe.reason, probe.costs)?;
        }
        writeln!(out, "ended by   {}", if manifest.end.is_empty() { "being cut off" } else { &manifest.end })?;
    }
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
    if damage.no_footer {
        writeln!(out, "\nno footer: the recording was cut off, or the end of the file is missing")?;
    }
    if damage.is_loss() {
        writeln!(
            out,
            "\ndamaged: {} bytes unreadable in {} places, {} blocks bad, {} blocks missing",
            damage.lost_bytes,
            damage.regions.len(),
            damage.blocks_bad,
            damage.missing_block_count()
        )?;
        for region in damage.regions.iter().take(20) {
            writeln!(out, "  at byte {}: {} bytes, {:?}", region.offset, region.bytes, region.kind)?;
        }
    }
    Ok(())
}

pub fn verify(options: &VerifyOptions) -> Result<Done, Failure> {
    let report = kfr_bundle::verify(&options.bundle).map_err(|error| {
        Failure::unreadable(anyhow::Error::from(error).context(format!("{} can't be read", options.bundle.display())))
    })?;
    let mut out = std::io::stdout().lock();
    let blocks: u64 = report.kinds.values().map(|count| count.blocks).sum();
    let rows: u64 = report.kinds.values().map(|count| count.rows).sum();
    let verdict = if report.is_whole() { "whole" } else { "damaged" };
    writeln!(
        out,
        "{}: {verdict}, {blocks} blocks, {rows} rows, digest {:08x}",
        options.bundle.display(),
        report.digest
    )
    .and_then(|()| print_damage(&report.damage, &mut out))
    .map_err(Failure::unreadable)?;
    Ok(if report.is_whole() { Done::Whole } else { Done::WithLosses })
}
