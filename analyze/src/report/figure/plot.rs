//! Plots over time: one or more lanes on one shared time axis.

use super::backend::{Classed, Ink, TENTHS};
use super::{Svg, Writer};
use crate::report::text;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use std::ops::Range;

const WIDTH: i32 = 960;
/// Room for the labels of the y axis.
const LEFT: i32 = 66;
const RIGHT: i32 = 30;
/// Room for a lane's title.
const ABOVE: i32 = 24;
/// Room for the time axis.
const BELOW: i32 = 24;

/// What a lane's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Nanos,
    Bytes,
    Permille,
    Plain,
}

impl Unit {
    fn label(self, value: f64) -> String {
        if value == 0.0 {
            return "0".to_owned();
        }
        match self {
            Self::PerSecond => format!("{}/s", trim(&text::significant(value))),
            Self::Nanos => trim(&text::duration(value as u64)),
            Self::Bytes => trim(&text::bytes(value as u64)),
            Self::Permille => format!("{}%", trim(&text::significant(value / 10.0))),
            Self::Plain => trim(&text::significant(value)),
        }
    }

    /// The end of the axis: a round number not below `most`.
    fn top(self, most: f64) -> f64 {
        let (mut unit, factor) = match self {
            Self::Bytes => (1.0, 1024.0),
            Self::PerSecond | Self::Plain => (0.001, 10.0),
            Self::Nanos | Self::Permille => (1.0, 10.0),
        };
        let steps: &[f64] = if self == Self::Bytes {
            &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]
        } else {
            &[1.0, 2.0, 4.0, 6.0, 8.0]
        };
        for _ in 0..40 {
            if let Some(step) = steps.iter().find(|step| **step * unit >= most) {
                return step * unit;
            }
            unit *= factor;
        }
        most
    }
}

/// `2.00 ms` as `2 ms`: labels of round numbers.
fn trim(label: &str) -> String {
    let (number, unit) = label.split_once(' ').map_or((label, ""), |(n, u)| (n, u));
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    if unit.is_empty() { number.to_owned() } else { format!("{number} {unit}") }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Line,
    /// Filled down to the axis.
    Area,
}

/// A named series. Points without a value, and steps wider than `gap_ns`, are gaps.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) ink: Ink,
    pub(crate) shape: Shape,
    pub(crate) points: Vec<(u64, Option<f64>)>,
    pub(crate) gap_ns: u64,
}

impl Series {
    pub(crate) fn line(name: &str, ink: u8, gap_ns: u64, points: Vec<(u64, Option<f64>)>) -> Self {
        Self { name: name.to_owned(), ink: Ink::Series(ink), shape: Shape::Line, points, gap_ns }
    }

    pub(crate) fn area(name: &str, ink: u8, gap_ns: u64, points: Vec<(u64, Option<f64>)>) -> Self {
        Self { shape: Shape::Area, ..Self::line(name, ink, gap_ns, points) }
    }

    fn runs(&self, axis: Axis) -> Vec<Vec<(f64, f64)>> {
        let mut runs: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut before: Option<u64> = None;
        for (at, value) in &self.points {
            let Some(value) = value.filter(|v| v.is_finite()) else {
                before = None;
                continue;
            };
            let point = (axis.offset(*at), value);
            match (before, runs.last_mut()) {
                (Some(b), Some(run)) if at.saturating_sub(b) <= self.gap_ns.saturating_mul(3) / 2 => run.push(point),
                _ => runs.push(vec![point]),
            }
            before = Some(*at);
        }
        runs
    }
}

/// A plot among others.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) height: i32,
    pub(crate) series: Vec<Series>,
    /// Least end of the axis, such as 1000 permille.
    pub(crate) at_least: f64,
}

impl Lane {
    pub(crate) fn new(title: &str, unit: Unit, series: Vec<Series>) -> Self {
        Self { title: title.to_owned(), unit, height: 72, series, at_least: 0.0 }
    }
}

/// An axis from 0 with ticks of our own choice: those of plotters come from logarithms, which differ between machines.
struct Scale {
    end: f64,
    ticks: Vec<f64>,
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (value / self.end * f64::from(to - from)) as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        0.0..self.end
    }
}

/// Something at a moment, or over a stretch, that all lanes show.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: Option<u64>,
    pub(crate) label: String,
    pub(crate) title: String,
    pub(crate) class: &'static str,
}

/// The shared time axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
}

impl Axis {
    fn offset(self, at: u64) -> f64 {
        at.saturating_sub(self.start_ns).min(self.length()) as f64
    }

    fn length(self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns).clamp(1, i64::MAX as u64)
    }

    /// Pixels from the left edge of the figure.
    fn place(self, at: u64) -> i32 {
        let inner = u128::from((WIDTH - LEFT - RIGHT).unsigned_abs());
        let x = u128::from(at.saturating_sub(self.start_ns).min(self.length())) * inner / u128::from(self.length());
        LEFT + i32::try_from(x).unwrap_or(0)
    }

    /// Round moments, at most nine.
    fn ticks(self) -> (Vec<f64>, u64) {
        const STEPS_MS: [u64; 23] = [
            1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000,
            600_000, 1_800_000, 3_600_000, 21_600_000, 86_400_000,
        ];
        let fits = |step: &u64| self.length() / (step * 1_000_000) <= 8;
        let step = STEPS_MS.into_iter().find(fits).map_or(self.length() / 8, |ms| ms * 1_000_000).max(1);
        let first = self.start_ns.div_ceil(step).saturating_mul(step);
        let moments = (0..10).map(|i| first.saturating_add(step * i)).take_while(|at| *at <= self.end_ns);
        (moments.map(|at| self.offset(at)).collect(), step)
    }
}

/// An axis over the window, or over the data where the window is unknown.
pub(crate) fn time_axis(
    window: (Option<u64>, Option<u64>),
    data: impl Iterator<Item = u64>,
    step_ns: u64,
) -> Option<Axis> {
    let (mut low, mut high) = (u64::MAX, 0);
    for at in data {
        low = low.min(at);
        high = high.max(at.saturating_add(step_ns));
    }
    let axis = Axis { start_ns: window.0.unwrap_or(low), end_ns: window.1.unwrap_or(high) };
    (axis.end_ns > axis.start_ns).then_some(axis)
}

/// Draws the lanes below each other.
pub(crate) fn plot(id: &str, title: &str, desc: &str, axis: Axis, lanes: &[Lane], marks: &[Mark]) -> Svg {
    let marks_height = if marks.iter().any(|m| !m.label.is_empty()) { 20 } else { 0 };
    let lanes_height: i32 = lanes.iter().map(|lane| lane.height + ABOVE).sum();
    let height = marks_height + lanes_height + BELOW;
    let mut w = Writer::figure(id, "plot", WIDTH, height, title, desc);
    stretches(&mut w, axis, marks, marks_height, height - BELOW);
    let mut y = marks_height;
    for (i, lane) in lanes.iter().enumerate() {
        heading(&mut w, lane, y + 16);
        let last = i + 1 == lanes.len();
        let mut part = Writer::default();
        // plotters fails only where its backend does, and this one does not.
        let _ = draw_lane(&mut part, axis, lane, y + ABOVE, height, last);
        w.append(part);
        y += lane.height + ABOVE;
    }
    moments(&mut w, axis, marks, height - BELOW);
    w.finish()
}

/// The lane's name, and what its lines are.
fn heading(w: &mut Writer, lane: &Lane, y: i32) {
    w.text("lane", LEFT, y, "start", &lane.title);
    if lane.series.len() < 2 {
        return;
    }
    // Widths of text are not known here: a figure of 6.6 units a character keeps the keys apart in any system font.
    let width = |name: &str| 26 + i32::try_from(name.chars().count()).unwrap_or(0) * 66 / 10;
    let mut x = WIDTH - RIGHT - lane.series.iter().map(|s| width(&s.name)).sum::<i32>();
    for series in &lane.series {
        let class = match (series.ink, series.shape) {
            (Ink::Series(9), Shape::Line) => "sbad".to_owned(),
            (Ink::Series(9), Shape::Area) => "fbad".to_owned(),
            (Ink::Series(n), Shape::Line) => format!("s{n}"),
            (Ink::Series(n), Shape::Area) => format!("f{n}"),
            _ => "axis".to_owned(),
        };
        match series.shape {
            Shape::Line => w.path(&class, &format!("M{x} {}h12", y - 4)),
            Shape::Area => w.path(&class, &format!("M{x} {}h12v8h-12z", y - 8)),
        }
        w.text("key", x + 16, y, "start", &series.name);
        x += width(&series.name);
    }
}

fn draw_lane(
    w: &mut Writer,
    axis: Axis,
    lane: &Lane,
    y: i32,
    height: i32,
    last: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let most = lane.series.iter().flat_map(|s| s.points.iter().filter_map(|p| p.1)).fold(lane.at_least, f64::max);
    let top = lane.unit.top(if most.is_finite() && most > 0.0 { most } else { 1.0 });
    let root = Classed::new(w, WIDTH, height).into_drawing_area();
    let below = if last { BELOW } else { 0 };
    let size = ((WIDTH * TENTHS) as u32, ((lane.height + below) * TENTHS) as u32);
    let area = root.shrink((0, y * TENTHS), size);
    let (ticks, tick_ns) = axis.ticks();
    let length = axis.length() as f64;
    let names = ticks.len();
    let mut chart = ChartBuilder::on(&area)
        .margin_right(RIGHT * TENTHS)
        .set_label_area_size(LabelAreaPosition::Left, LEFT * TENTHS)
        .set_label_area_size(LabelAreaPosition::Bottom, below * TENTHS)
        .build_cartesian_2d(Scale { end: length, ticks }, Scale { end: top, ticks: vec![0.0, top / 2.0, top] })?;
    let start = axis.start_ns;
    let name_time = move |offset: &f64| {
        let at = start.saturating_add(*offset as u64);
        if tick_ns < 1_000_000_000 { text::clock_ms(at) } else { text::clock(at) }
    };
    let unit = lane.unit;
    let name_value = move |value: &f64| unit.label(*value);
    let label = ("sans-serif", 11 * TENTHS).into_font().color(&Ink::Label.color());
    chart
        .configure_mesh()
        .x_labels(if last { names } else { 0 })
        .y_labels(3)
        .set_all_tick_mark_size(4 * TENTHS)
        .axis_style(Ink::Axis.color())
        .bold_line_style(Ink::Grid.color())
        .light_line_style(TRANSPARENT)
        .label_style(label)
        .x_label_formatter(&name_time)
        .y_label_formatter(&name_value)
        .draw()?;
    for series in &lane.series {
        let color = series.ink.color();
        for run in series.runs(axis) {
            match series.shape {
                Shape::Area => {
                    chart.draw_series(AreaSeries::new(run, 0.0, color.filled()).border_style(TRANSPARENT))?;
                }
                Shape::Line => {
                    chart.draw_series(LineSeries::new(run, color))?;
                }
            }
        }
    }
    Ok(())
}

/// Shaded stretches, behind everything.
fn stretches(w: &mut Writer, axis: Axis, marks: &[Mark], from: i32, to: i32) {
    for mark in marks {
        let Some(end) = mark.to_ns else { continue };
        let (x, x2) = (axis.place(mark.from_ns), axis.place(end));
        w.open("path", &[("class", mark.class), ("d", &format!("M{x} {from}H{}V{to}H{x}z", x2.max(x + 2)))]);
        w.leaf("title", &[], &mark.title);
        w.close("path");
    }
}

/// Moments, in front of everything.
fn moments(w: &mut Writer, axis: Axis, marks: &[Mark], to: i32) {
    let mut taken = -18;
    let mut in_order: Vec<&Mark> = marks.iter().filter(|m| m.to_ns.is_none()).collect();
    in_order.sort_by_key(|mark| mark.from_ns);
    for mark in in_order {
        let x = axis.place(mark.from_ns);
        w.open("g", &[("class", mark.class)]);
        w.leaf("title", &[], &mark.title);
        // Flags stand side by side where their moments are too close for that.
        let flag = x.max(taken + 18);
        w.path("mark", &format!("M{flag} 16L{x} 22V{to}"));
        w.path("flag", &format!("M{} 2h16v14h-16z", flag - 8));
        w.text("flag-t", flag, 13, "middle", &mark.label);
        taken = flag;
        w.close("g");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_axes_are_round() {
        assert_eq!(Unit::Nanos.top(840_000_000.0), 1_000_000_000.0);
        assert_eq!(Unit::Bytes.top(3_000_000.0), 4.0 * 1024.0 * 1024.0);
        assert_eq!(Unit::Permille.top(1000.0), 1000.0);
        assert_eq!(Unit::Nanos.label(2_000_000.0), "2 ms");
        assert_eq!(Unit::PerSecond.label(1200.0), "1,200/s");
    }

    #[test]
    fn a_missing_step_is_a_gap() {
        let axis = Axis { start_ns: 0, end_ns: 100 };
        let series = Series::line(
            "x",
            1,
            10,
            vec![(0, Some(1.0)), (10, Some(1.0)), (40, Some(1.0)), (50, None), (60, Some(2.0))],
        );
        assert_eq!(series.runs(axis).len(), 3);
    }
}
