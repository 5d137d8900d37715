//! Rows of one type as a map of named columns.
//!
//! The block's content is one MessagePack map: `rows` with their number, then a `bin` for each column. 16-, 32- and
//! 64-bit integers are varints of zigzag differences from the row before; bytes and byte arrays stand as they are. A
//! column that is zero in every row is left out; a reader takes a missing column as zero and skips an unknown one.
//! Only the first column is always written.

use crate::error::DecodeError;
use crate::events::{KIND_PROCESS, KIND_SOCKET, KIND_STATE, KIND_TCP, ProcessEvent, SocketEvent, StateEvent, TcpEvent};
use crate::msgpack::{ColumnMap, Cursor};
use crate::packing::{Cell, for_each_varint, put_varint, unzigzag, zigzag};
use zerocopy::FromZeros;

mod sealed {
    use crate::error::DecodeError;
    use crate::msgpack::ColumnMap;

    /// What the macro writes; not for other crates.
    pub trait Columns: Sized {
        /// A row with every column missing.
        fn empty() -> Self;
        /// Writes every column.
        fn encode(rows: &[Self], map: &mut Map<'_, '_>);
        /// Reads one column; false if this type has none of that name.
        fn decode(name: &str, bytes: &[u8], rows: &mut [Self]) -> Result<bool, DecodeError>;
    }

    /// Hides the map writer, which is private, from the trait's signature.
    pub struct Map<'a, 'b>(pub(crate) &'a mut ColumnMap<'b>);
}

pub(crate) use sealed::{Columns, Map};

/// A row type: [`SocketEvent`], [`StateEvent`], [`TcpEvent`], [`ProcessEvent`], [`Anchor`] and
/// [`crate::index::IndexRow`]. The list of columns of each stands in `bundle/src/rows.rs`, by one macro.
pub trait Row: Columns + Copy {
    /// Names of all columns, in the order in which they are written.
    const COLUMNS: &'static [&'static str];
}

/// Lists the columns of a row type: the name on disk, then the field.
macro_rules! row {
    ($row:ty, $empty:expr, { $($name:literal => $($field:tt).+),* $(,)? }) => {
        impl $crate::rows::Row for $row {
            const COLUMNS: &'static [&'static str] = &[$($name),*];
        }

        impl $crate::rows::Columns for $row {
            fn empty() -> Self {
                $empty
            }

            fn encode(rows: &[Self], map: &mut $crate::rows::Map<'_, '_>) {
                $(map.0.column($name, |out| $crate::packing::Cell::encode(rows.iter().map(|row| row.$($field).+), out));)*
            }

            fn decode(name: &str, bytes: &[u8], rows: &mut [Self]) -> Result<bool, $crate::error::DecodeError> {
                match name {
                    $($name => $crate::packing::Cell::decode(
                        bytes,
                        rows.len(),
                        rows.iter_mut().map(|row| &mut row.$($field).+),
                    )
                    .map(|()| true)
                    .ok_or($crate::error::DecodeError::Column { column: $name }),)*
                    _ => Ok(false),
                }
            }
        }
    };
}
pub(crate) use row;

/// A zeroed event of one kind.
macro_rules! event {
    ($event:ty, $kind:expr) => {{
        let mut event = <$event>::new_zeroed();
        event.header.kind = $kind;
        event
    }};
}

row!(SocketEvent, event!(SocketEvent, KIND_SOCKET), {
    "time_ns" => header.time_ns,
    "sequence" => header.sequence,
    "cpu" => header.cpu,
    "thread" => header.thread,
    "process" => header.process,
    "socket" => socket,
    "netns" => netns,
    "cgroup" => cgroup,
    "peer" => peer,
    "inode" => inode,
    "opened_ns" => opened_ns,
    "local_address" => local_address,
    "remote_address" => remote_address,
    "local_port" => local_port,
    "remote_port" => remote_port,
    "family" => family,
    "socket_type" => socket_type,
    "protocol" => protocol,
    "role" => role,
    "state" => state,
    "sent_sequence" => sent_sequence,
    "received_sequence" => received_sequence,
    "first_sent_sequence" => first_sent_sequence,
    "first_received_sequence" => first_received_sequence,
    "offset_kind" => offset_kind,
    "seen_by" => seen_by,
    "path_length" => path_length,
    "comm" => comm,
    "path" => path,
});

row!(StateEvent, event!(StateEvent, KIND_STATE), {
    "time_ns" => header.time_ns,
    "sequence" => header.sequence,
    "cpu" => header.cpu,
    "thread" => header.thread,
    "process" => header.process,
    "socket" => socket,
    "netns" => netns,
    "cgroup" => cgroup,
    "bytes_acknowledged" => bytes_acknowledged,
    "bytes_received" => bytes_received,
    "local_address" => local_address,
    "remote_address" => remote_address,
    "asked_address" => asked_address,
    "local_port" => local_port,
    "remote_port" => remote_port,
    "asked_port" => asked_port,
    "asked_family" => asked_family,
    "family" => family,
    "old_state" => old_state,
    "new_state" => new_state,
    "sent_sequence" => sent_sequence,
    "received_sequence" => received_sequence,
    "rtt_us" => rtt_us,
    "rtt_min_us" => rtt_min_us,
    "retransmits" => retransmits,
    "error" => error,
});

row!(TcpEvent, event!(TcpEvent, KIND_TCP), {
    "time_ns" => header.time_ns,
    "sequence" => header.sequence,
    "cpu" => header.cpu,
    "socket" => socket,
    "netns" => netns,
    "local_address" => local_address,
    "remote_address" => remote_address,
    "local_port" => local_port,
    "remote_port" => remote_port,
    "family" => family,
    "what" => what,
    "state" => state,
});

row!(ProcessEvent, event!(ProcessEvent, KIND_PROCESS), {
    "time_ns" => header.time_ns,
    "sequence" => header.sequence,
    "cpu" => header.cpu,
    "thread" => header.thread,
    "process" => header.process,
    "cgroup" => cgroup,
    "start_ns" => start_ns,
    "parent" => parent,
    "namespace_process" => namespace_process,
    "exit_status" => exit_status,
    "what" => what,
    "arguments_length" => arguments_length,
    "comm" => comm,
    "arguments" => arguments,
});

/// One moment on several clocks, taken once a second: how event times become wall-clock times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Anchor {
    /// `CLOCK_BOOTTIME`, ns.
    pub boottime_ns: u64,
    /// `CLOCK_REALTIME`, ns since 1970.
    pub realtime_ns: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub monotonic_ns: u64,
    /// Longest time that reading all clocks can have taken, ns: the anchor's own error.
    pub uncertainty_ns: u64,
}

row!(Anchor, Anchor::default(), {
    "boottime_ns" => boottime_ns,
    "realtime_ns" => realtime_ns,
    "monotonic_ns" => monotonic_ns,
    "uncertainty_ns" => uncertainty_ns,
});

/// Rows as the raw content of a block. At most [`crate::MAX_ROWS`] rows fit one block; the writer refuses more.
pub fn encode_rows<R: Row>(rows: &[R]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut map = ColumnMap::new(&mut out);
    map.uint("rows", rows.len() as u64);
    R::encode(rows, &mut Map(&mut map));
    map.finish();
    out
}

/// Like [`encode_rows`] for a block cut from another: `numbers[i]` is the row number that `rows[i]` had there, and
/// keeps in its address. Numbers missing at the end follow on from the last one.
pub fn encode_numbered_rows<R: Row>(rows: &[R], numbers: &[u32], first_row: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut map = ColumnMap::new(&mut out);
    map.uint("rows", rows.len() as u64);
    R::encode(rows, &mut Map(&mut map));
    map.column("row", |out| encode_row_numbers(numbers, rows.len(), first_row, out));
    map.finish();
    out
}

/// Reads back what [`encode_rows`] wrote, in this or any other version.
///
/// # Errors
/// [`DecodeError`] if the content is malformed; then none of the block's rows can be used.
pub fn decode_rows<R: Row>(raw: &[u8]) -> Result<Vec<R>, DecodeError> {
    decode_rows_within(raw, u64::from(crate::MAX_ROWS))
}

/// [`decode_rows`] with a limit other than [`crate::MAX_ROWS`].
pub(crate) fn decode_rows_within<R: Row>(raw: &[u8], limit: u64) -> Result<Vec<R>, DecodeError> {
    let mut rows = vec![R::empty(); count_rows(raw, limit)?];
    each_column(raw, |name, value| match value {
        Value::Bin(bytes) => R::decode(name, bytes, &mut rows).map(|_known| ()),
        Value::Uint(_) => Ok(()),
    })?;
    Ok(rows)
}

/// Row numbers of a block's rows, which are part of their addresses: they count on from `first_row`, unless the block
/// was cut from another and has a column `row`.
///
/// # Errors
/// [`DecodeError`] if the content is malformed.
pub fn row_numbers(raw: &[u8], first_row: u32) -> Result<Vec<u32>, DecodeError> {
    let rows = count_rows(raw, u64::from(crate::MAX_ROWS))?;
    let mut numbers = None;
    each_column(raw, |name, value| {
        if let ("row", Value::Bin(bytes)) = (name, value) {
            numbers = Some(decode_row_numbers(bytes, rows, first_row)?);
        }
        Ok(())
    })?;
    Ok(numbers.unwrap_or_else(|| (0..rows as u32).map(|row| first_row.wrapping_add(row)).collect()))
}

/// Column `row`: zigzag difference from the previous number plus one (the first: from `first_row`). Left out where
/// all differences are zero.
pub(crate) fn encode_row_numbers(numbers: &[u32], rows: usize, first_row: u32, out: &mut Vec<u8>) -> bool {
    let mut expected = first_row;
    let mut any = false;
    for row in 0..rows {
        let number = numbers.get(row).copied().unwrap_or(expected);
        any |= number != expected;
        put_varint(out, zigzag(u64::from(number).wrapping_sub(u64::from(expected))));
        expected = number.wrapping_add(1);
    }
    any
}

/// Undoes [`encode_row_numbers`].
pub(crate) fn decode_row_numbers(bytes: &[u8], rows: usize, first_row: u32) -> Result<Vec<u32>, DecodeError> {
    let mut numbers = Vec::with_capacity(rows);
    let mut expected = first_row;
    for_each_varint(bytes, rows, |value| {
        let number = u32::try_from(u64::from(expected).wrapping_add(unzigzag(value)));
        expected = number.unwrap_or_default().wrapping_add(1);
        numbers.extend(number);
        number.is_ok()
    })
    .ok_or(DecodeError::Column { column: "row" })?;
    Ok(numbers)
}

/// A value of the map of columns.
pub(crate) enum Value<'a> {
    Uint(u64),
    Bin(&'a [u8]),
}

/// Gives each named integer and column to `each`; passes over values of other types.
pub(crate) fn each_column<'a>(
    raw: &'a [u8],
    mut each: impl FnMut(&'a str, Value<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut cursor = Cursor::new(raw);
    for _ in 0..cursor.map()? {
        let name = cursor.text()?;
        let value = cursor.skip()?;
        let mut inner = Cursor::new(value);
        match value.first() {
            Some(0x00..=0x7f | 0xcc..=0xcf) => each(name, Value::Uint(inner.uint()?))?,
            Some(0xc4..=0xc6) => each(name, Value::Bin(inner.bin()?))?,
            _ => {}
        }
    }
    if cursor.is_at_end() { Ok(()) } else { Err(cursor.error()) }
}

/// The number of rows that a block states, checked against `limit` and against the block's size: the first column takes at
/// least a byte a row.
pub(crate) fn count_rows(raw: &[u8], limit: u64) -> Result<usize, DecodeError> {
    let mut rows = 0;
    each_column(raw, |name, value| {
        if let ("rows", Value::Uint(count)) = (name, value) {
            rows = count;
        }
        Ok(())
    })?;
    let checked = usize::try_from(rows).ok().filter(|_| rows <= limit && rows <= raw.len() as u64);
    checked.ok_or(DecodeError::TooManyRows { rows })
}

/// Appends one column of cells.
pub(crate) fn put_cells<C: Cell>(map: &mut ColumnMap<'_>, name: &str, cells: impl Iterator<Item = C>) {
    map.column(name, |out| C::encode(cells, out));
}
