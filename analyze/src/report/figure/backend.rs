//! A drawing backend for plotters that writes classes instead of colours.
//!
//! The SVG backend that comes with plotters writes colours and opacity into each element, so one file can't serve dark
//! and light. Here a colour's red part is an [`Ink`], which becomes a class; neighbours of one ink become one element.
//! The backend counts in tenths of a unit, since plotters places everything on whole numbers.

use super::Writer;
use plotters::prelude::{DrawingBackend, RGBColor};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind,
    text_anchor::{HPos, VPos},
};
use std::{convert::Infallible, fmt::Write};

/// Backend units in one unit of the figure.
pub(super) const TENTHS: i32 = 10;

/// What something is drawn for; its class says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    Grid,
    Axis,
    Label,
    /// A series by its place in the palette, from 1; 9 is for errors.
    Series(u8),
}

impl Ink {
    pub(super) fn color(self) -> RGBColor {
        RGBColor(
            match self {
                Self::Grid => 1,
                Self::Axis => 2,
                Self::Label => 3,
                Self::Series(n) => 10 + n,
            },
            0,
            0,
        )
    }

    fn class(color: BackendColor, fill: bool) -> String {
        match (color.rgb.0, fill) {
            (1, _) => "grid".to_owned(),
            (2, _) => "axis".to_owned(),
            (19, true) => "fbad".to_owned(),
            (19, false) => "sbad".to_owned(),
            (n, true) => format!("f{}", n.saturating_sub(10)),
            (n, false) => format!("s{}", n.saturating_sub(10)),
        }
    }
}

/// The backend; it draws into a [`Writer`].
pub(super) struct Classed<'a> {
    writer: &'a mut Writer,
    size: (u32, u32),
    class: String,
    path: String,
}

impl<'a> Classed<'a> {
    /// Of this size, in units of the figure.
    pub(super) fn new(writer: &'a mut Writer, width: i32, height: i32) -> Self {
        let tenths = |v: i32| u32::try_from(v * TENTHS).unwrap_or(0);
        Self { writer, size: (tenths(width), tenths(height)), class: String::new(), path: String::new() }
    }

    fn add(&mut self, class: String, draw: impl FnOnce(&mut String)) {
        if class != self.class {
            self.flush();
            self.class = class;
        }
        draw(&mut self.path);
    }

    fn flush(&mut self) {
        if !self.path.is_empty() {
            self.writer.path(&self.class, &self.path);
            self.path.clear();
        }
    }
}

impl Drop for Classed<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

fn tenths(value: i32) -> String {
    let (sign, size) = (if value < 0 { "-" } else { "" }, value.unsigned_abs());
    if size.is_multiple_of(10) { format!("{sign}{}", size / 10) } else { format!("{sign}{}.{}", size / 10, size % 10) }
}

fn trace(d: &mut String, points: impl IntoIterator<Item = BackendCoord>, closed: bool) {
    let mut before = None;
    let mut drawn = 0;
    for point in points {
        if before == Some(point) {
            continue;
        }
        let _ = write!(d, "{}{} {}", if drawn == 0 { "M" } else { "L" }, tenths(point.0), tenths(point.1));
        before = Some(point);
        drawn += 1;
    }
    if closed {
        d.push('z');
    } else if drawn == 1 {
        d.push_str("h.1"); // a single point: round line ends make it visible
    }
}

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

impl DrawingBackend for Classed<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        self.flush();
        Ok(())
    }

    fn draw_pixel(&mut self, _: BackendCoord, _: BackendColor) -> Drawn {
        Ok(())
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn {
        if style.color().alpha > 0.0 {
            self.add(Ink::class(style.color(), false), |d| trace(d, [from, to], false));
        }
        Ok(())
    }

    fn draw_rect<S: BackendStyle>(&mut self, a: BackendCoord, b: BackendCoord, style: &S, fill: bool) -> Drawn {
        if style.color().alpha > 0.0 && a.0 != b.0 && a.1 != b.1 {
            self.add(Ink::class(style.color(), fill), |d| trace(d, [a, (b.0, a.1), b, (a.0, b.1)], true));
        }
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        if style.color().alpha > 0.0 {
            self.add(Ink::class(style.color(), false), |d| trace(d, path, false));
        }
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(&mut self, _: BackendCoord, _: u32, _: &S, _: bool) -> Drawn {
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, vert: I, style: &S) -> Drawn {
        if style.color().alpha > 0.0 {
            self.add(Ink::class(style.color(), true), |d| trace(d, vert, true));
        }
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, pos: BackendCoord) -> Drawn {
        self.flush();
        let size = style.size() as i32;
        let anchor = match style.anchor().h_pos {
            HPos::Left => "start",
            HPos::Center => "middle",
            HPos::Right => "end",
        };
        let down = match style.anchor().v_pos {
            VPos::Top => size * 8 / 10,
            VPos::Center => size * 35 / 100,
            VPos::Bottom => 0,
        };
        let (x, y) = (tenths(pos.0), tenths(pos.1 + down));
        self.writer.leaf("text", &[("class", "tick"), ("x", &x), ("y", &y), ("text-anchor", anchor)], text);
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let size = style.size() as u32;
        Ok((text.chars().count() as u32 * size * 6 / 10, size))
    }
}
