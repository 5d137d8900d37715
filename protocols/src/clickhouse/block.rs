//! Blocks of data: walked to their end, column by column, by the types that they name
//! (<https://clickhouse.com/docs/native-protocol/columns>, <https://clickhouse.com/docs/native-protocol/compression>).

use super::revision;
use crate::cursor::Cursor;
use crate::pairing::hole_flag;
use crate::{Flags, Stream};

/// Rows and columns beyond these are no block.
const MAX_ROWS: u64 = 1 << 32;
const MAX_COLUMNS: u64 = 1 << 16;

/// Longest type name that is read.
const MAX_TYPE_BYTES: u64 = 4096;

/// Types inside types that may wait to be walked.
const MAX_TASKS: usize = 256;

/// What a server packs at a time, unpacked: a frame of that size may be followed by another one.
const PACKED_BYTES: u32 = 1 << 20;

/// Checksum, method, size packed (with these nine bytes), size unpacked.
const FRAME_HEAD_BYTES: usize = 25;

#[derive(Debug)]
enum Task {
    /// A frame of packed data; behind a full one, there may be none.
    Frame {
        must: bool,
    },
    /// Fields about the block: overflow, bucket.
    Info,
    Counts,
    /// So many columns with so many rows.
    Columns {
        left: u64,
        rows: u64,
    },
    /// Values of this type.
    Values {
        kind: Box<str>,
        rows: u64,
    },
    Strings(u64),
    /// The last offset of an array says how many values follow.
    Elements {
        kinds: Vec<Box<str>>,
    },
    /// Dictionary and indexes of `LowCardinality`.
    Keys {
        kind: Box<str>,
    },
    Indexes {
        width: u64,
    },
}

/// A block on its way.
#[derive(Debug)]
pub(super) struct Block {
    tasks: Vec<Task>,
    revision: u64,
}

/// What reading on brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Done,
    Wait,
    /// Its end can't be told: framing in a hole (the flag says which), or a type that is not walked.
    Lost(Flags),
}

enum Stop {
    Short,
    Unread,
}

type Read<T> = Result<T, Stop>;

fn need<T>(value: Option<T>) -> Read<T> {
    value.ok_or(Stop::Short)
}

impl Block {
    pub fn new(packed: bool, revision: u64) -> Self {
        let tasks = if packed {
            vec![Task::Frame { must: true }]
        } else if revision >= revision::BLOCK_INFO {
            vec![Task::Counts, Task::Info]
        } else {
            vec![Task::Counts]
        };
        Self { tasks, revision }
    }

    /// Reads on as far as bytes are here.
    pub fn read(&mut self, stream: &mut Stream) -> Step {
        while let Some(task) = self.tasks.pop() {
            let mut cursor = Cursor::new(stream.bytes());
            match self.one(&task, &mut cursor) {
                Ok(ahead) => stream.skip((cursor.at() as u64).saturating_add(ahead)),
                Err(Stop::Short) => {
                    self.tasks.push(task);
                    return match stream.hole() {
                        Some(hole) => Step::Lost(hole_flag(hole.kind)),
                        None if stream.bytes().len() > (MAX_TYPE_BYTES as usize) * 4 => Step::Lost(Flags::default()),
                        None => Step::Wait,
                    };
                }
                Err(Stop::Unread) => return Step::Lost(Flags::default()),
            }
        }
        Step::Done
    }

    fn push(&mut self, task: Task) -> Read<()> {
        if self.tasks.len() >= MAX_TASKS {
            return Err(Stop::Unread);
        }
        self.tasks.push(task);
        Ok(())
    }

    /// Does one task: moves the cursor over what it read, and returns how many bytes behind that are passed over.
    fn one(&mut self, task: &Task, cursor: &mut Cursor<'_>) -> Read<u64> {
        match task {
            Task::Frame { must } => {
                let start = *cursor;
                if cursor.rest().get(16).is_some_and(|method| !matches!(method, 0x02 | 0x82 | 0x90)) {
                    return if *must { Err(Stop::Unread) } else { Ok(0) };
                }
                let head = need(cursor.take(FRAME_HEAD_BYTES))?;
                let mut sizes = Cursor::new(head.get(17..).unwrap_or_default());
                let (packed, unpacked) = (need(sizes.le32())?, need(sizes.le32())?);
                if packed < 9 {
                    *cursor = start;
                    return if *must { Err(Stop::Unread) } else { Ok(0) };
                }
                if unpacked == PACKED_BYTES {
                    self.push(Task::Frame { must: false })?;
                }
                Ok(u64::from(packed) - 9)
            }
            Task::Info => {
                match need(cursor.varint())? {
                    0 => return Ok(0),
                    1 => need(cursor.take(1))?,
                    2 => need(cursor.take(4))?,
                    _ => return Err(Stop::Unread),
                };
                self.push(Task::Info)?;
                Ok(0)
            }
            Task::Counts => {
                let (columns, rows) = (need(cursor.varint())?, need(cursor.varint())?);
                if columns > MAX_COLUMNS || rows > MAX_ROWS {
                    return Err(Stop::Unread);
                }
                self.push(Task::Columns { left: columns, rows })?;
                Ok(0)
            }
            Task::Columns { left: 0, .. } => Ok(0),
            Task::Columns { left, rows } => {
                let name = need(cursor.varint())?;
                if name > MAX_TYPE_BYTES {
                    return Err(Stop::Unread);
                }
                need(cursor.take(name as usize))?;
                let length = need(cursor.varint())?;
                if length > MAX_TYPE_BYTES {
                    return Err(Stop::Unread);
                }
                let kind = need(cursor.take(length as usize))?;
                let kind = std::str::from_utf8(kind).map_err(|_| Stop::Unread)?;
                if self.revision >= revision::CUSTOM_SERIALIZATION && need(cursor.u8())? != 0 {
                    return Err(Stop::Unread);
                }
                self.push(Task::Columns { left: left - 1, rows: *rows })?;
                if *rows == 0 {
                    return Ok(0);
                }
                self.push(Task::Values { kind: kind.into(), rows: *rows })?;
                // Each of these begins with its version, all before the first value.
                Ok(8 * kind.matches("LowCardinality(").count() as u64)
            }
            Task::Values { kind, rows } => self.values(kind.trim(), *rows),
            Task::Strings(left) => {
                let mut left = *left;
                let mut ahead = 0;
                // As many as are here, at once.
                while left > 0 {
                    let Some(length) = cursor.varint() else {
                        if cursor.at() == 0 {
                            return Err(Stop::Short);
                        }
                        break;
                    };
                    left -= 1;
                    if usize::try_from(length).ok().and_then(|length| cursor.take(length)).is_none() {
                        ahead = length;
                        break;
                    }
                }
                if left > 0 {
                    self.push(Task::Strings(left))?;
                }
                Ok(ahead)
            }
            Task::Elements { kinds } => {
                let rows = need(cursor.le64())?;
                if rows > MAX_ROWS {
                    return Err(Stop::Unread);
                }
                for kind in kinds.iter().rev().filter(|_| rows > 0) {
                    self.push(Task::Values { kind: kind.clone(), rows })?;
                }
                Ok(0)
            }
            Task::Keys { kind } => {
                let flags = need(cursor.le64())?;
                let keys = need(cursor.le64())?;
                let width = 1u64 << (flags & 3);
                // One dictionary for several blocks is not used on connections.
                const GLOBAL: u64 = 1 << 8;
                if flags & GLOBAL != 0 || keys > MAX_ROWS {
                    return Err(Stop::Unread);
                }
                self.push(Task::Indexes { width })?;
                if keys > 0 {
                    self.push(Task::Values { kind: kind.clone(), rows: keys })?;
                }
                Ok(0)
            }
            Task::Indexes { width } => {
                let rows = need(cursor.le64())?;
                if rows > MAX_ROWS { Err(Stop::Unread) } else { Ok(rows.saturating_mul(*width)) }
            }
        }
    }

    /// Passes over values, or says what they are made of.
    fn values(&mut self, kind: &str, rows: u64) -> Read<u64> {
        let (name, inner) = match kind.split_once('(') {
            Some((name, inner)) => (name, inner.strip_suffix(')').ok_or(Stop::Unread)?),
            None => (kind, ""),
        };
        let array = |block: &mut Self, kinds: Vec<Box<str>>| {
            block.push(Task::Elements { kinds })?;
            Ok(rows.saturating_sub(1) * 8)
        };
        match name {
            "String" if self.revision < revision::STRINGS_WITH_SIZES => {
                self.push(Task::Strings(rows))?;
                Ok(0)
            }
            "Nullable" => {
                self.push(Task::Values { kind: inner.into(), rows })?;
                Ok(rows)
            }
            "Array" => array(self, vec![inner.into()]),
            "Map" => array(self, parts(inner)),
            "Nested" => array(self, parts(inner)),
            "Tuple" => {
                for part in parts(inner).into_iter().rev() {
                    self.push(Task::Values { kind: part, rows })?;
                }
                Ok(0)
            }
            "LowCardinality" => {
                // NULL is a key of its own.
                let bare = inner.strip_prefix("Nullable(").and_then(|bare| bare.strip_suffix(')')).unwrap_or(inner);
                self.push(Task::Keys { kind: bare.into() })?;
                Ok(0)
            }
            "SimpleAggregateFunction" => {
                let kind = parts(inner).pop().ok_or(Stop::Unread)?;
                self.push(Task::Values { kind, rows })?;
                Ok(0)
            }
            _ => {
                let width = width(name, inner).ok_or(Stop::Unread)?;
                Ok(rows.saturating_mul(width))
            }
        }
    }
}

/// Bytes of a value of a type that always has as many.
fn width(name: &str, inner: &str) -> Option<u64> {
    Some(match name {
        "Int8" | "UInt8" | "Bool" | "Enum8" | "Nothing" => 1,
        "Int16" | "UInt16" | "Enum16" | "Date" | "BFloat16" => 2,
        "Int32" | "UInt32" | "Float32" | "Date32" | "DateTime" | "IPv4" | "Decimal32" | "Time" => 4,
        "Int64" | "UInt64" | "Float64" | "DateTime64" | "Decimal64" | "Time64" => 8,
        "Int128" | "UInt128" | "UUID" | "IPv6" | "Decimal128" | "Point" => 16,
        "Int256" | "UInt256" | "Decimal256" => 32,
        "FixedString" => inner.parse().ok().filter(|width| *width < 1 << 24)?,
        "Decimal" => match inner.split(',').next()?.trim().parse::<u32>().ok()? {
            0..=9 => 4,
            10..=18 => 8,
            19..=38 => 16,
            _ => 32,
        },
        name if name.starts_with("Interval") => 8,
        _ => return None,
    })
}

/// The types in a list of types, without the names that fields have.
fn parts(list: &str) -> Vec<Box<str>> {
    let mut found = Vec::new();
    let (mut depth, mut quote, mut start) = (0i32, None, 0);
    for (at, c) in list.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '`') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, ',') if depth == 0 => {
                found.push(part(list.get(start..at).unwrap_or_default()));
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(part(list.get(start..).unwrap_or_default()));
    found
}

fn part(text: &str) -> Box<str> {
    let text = text.trim();
    // `name Type(...)`: a space before the first parenthesis.
    let head = text.split('(').next().unwrap_or(text);
    let bare = head.rfind(' ').and_then(|space| text.get(space + 1..)).unwrap_or(text);
    bare.into()
}
