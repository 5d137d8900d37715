//! Heat maps: one row a core, one column a stretch of time.

use super::plot::Axis;
use super::{Svg, Writer};
use crate::report::text;
use std::fmt::Write;

const WIDTH: i32 = 960;
const LEFT: i32 = 66;
const RIGHT: i32 = 30;
/// More columns than this can't be told apart.
const COLUMNS: usize = 180;
/// More rows than this share their place with a neighbour: the busier core of each group is shown.
const ROWS: usize = 64;
/// Steps of shade, from idle to full.
const SHADES: u16 = 8;

/// Draws `rows[core][sample]`, in permille; a sample without a value stays empty.
pub(crate) fn heat_map(id: &str, title: &str, desc: &str, axis: Axis, rows: &[Vec<Option<u16>>]) -> Svg {
    let group = rows.len().div_ceil(ROWS).max(1);
    let grouped: Vec<Vec<Option<u16>>> =
        rows.chunks(group).map(|cores| cores.iter().fold(Vec::new(), busier)).collect();
    let samples = grouped.iter().map(Vec::len).max().unwrap_or(0);
    let columns = samples.clamp(1, COLUMNS);
    let row_height = if grouped.len() > 24 { 7 } else { 14 };
    let bottom = i32::try_from(grouped.len()).unwrap_or(0) * row_height + 4;
    let mut w = Writer::figure(id, "plot heat", WIDTH, bottom + 44, title, desc);
    let inner = u64::from((WIDTH - LEFT - RIGHT).unsigned_abs());
    let at = |column: usize| LEFT as u64 + column as u64 * inner / columns as u64;
    for (i, row) in grouped.iter().enumerate() {
        let y = i32::try_from(i).unwrap_or(0) * row_height + 2;
        if row_height > 10 || i.is_multiple_of(4) {
            w.text("tick", LEFT - 8, y + row_height - 3, "end", &format!("core {}", i * group));
        }
        // One path a shade instead of one rectangle a cell keeps large machines within the element budget.
        let mut shades = vec![String::new(); usize::from(SHADES) + 1];
        for column in 0..columns {
            let (from, to) =
                (column * samples / columns, ((column + 1) * samples / columns).max(column * samples / columns + 1));
            let Some(value) = row.get(from..to.min(row.len())).and_then(|part| part.iter().flatten().max()) else {
                continue;
            };
            let shade = (value.min(&1000) * SHADES).div_ceil(1000);
            if let Some(d) = shades.get_mut(usize::from(shade)) {
                let (x, x2) = (at(column), at(column + 1));
                let _ = write!(d, "M{x} {y}H{x2}v{}H{x}z", row_height - 1);
            }
        }
        for (shade, d) in shades.iter().enumerate().filter(|(_, d)| !d.is_empty()) {
            w.path(&format!("h{shade}"), d);
        }
    }
    for (x, at_ns, anchor) in [(LEFT, axis.start_ns, "start"), (WIDTH - RIGHT, axis.end_ns, "end")] {
        w.text("tick", x, bottom + 14, anchor, &text::clock(at_ns));
    }
    legend(&mut w, bottom + 24);
    w.finish()
}

fn legend(w: &mut Writer, y: i32) {
    let first = LEFT + 34;
    w.text("tick", LEFT, y + 11, "start", "idle");
    for shade in 0..=i32::from(SHADES) {
        w.path(&format!("h{shade}"), &format!("M{} {y}h17v13h-17z", first + shade * 18));
    }
    w.text("tick", first + (i32::from(SHADES) + 1) * 18 + 6, y + 11, "start", "100% busy (empty: no sample)");
}

fn busier(mut row: Vec<Option<u16>>, core: &Vec<Option<u16>>) -> Vec<Option<u16>> {
    row.resize(row.len().max(core.len()), None);
    for (cell, value) in row.iter_mut().zip(core) {
        *cell = (*cell).max(*value);
    }
    row
}
