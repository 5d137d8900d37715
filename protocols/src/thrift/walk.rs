//! Walks through a message's struct to its end, without recursion, and tells what came of the call.

use super::head::{Encoding, Kind, Message, Not};
use crate::cursor::Cursor;
use crate::pairing::hole_flag;
use crate::{ByteClass, Flags, Output, Side, Stream, text};

/// Structs and containers that may stand inside one another; libraries refuse 64 and more.
const MAX_DEPTH: usize = 64;

/// Bytes of an exception's message that are kept.
const MAX_TEXT_BYTES: usize = 1024;

/// A value's type, of both encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    /// A number of bytes that is always the same.
    Fixed(u8),
    Varint,
    Bytes,
    Struct,
    List,
    Map,
}

#[derive(Debug, Clone, Copy)]
enum Level {
    /// Ids in the compact encoding count from the one before.
    Struct { last: i16 },
    /// What comes next, what after that, and how many are left in all.
    Elements { next: Type, then: Type, left: u64 },
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Walk {
    pub start: u64,
    pub message: Message,
    levels: Vec<Level>,
    /// A value whose header is to be read.
    pending: Option<Type>,
    /// The field of the outermost struct that is read.
    field: Option<i16>,
    /// The first field of a reply: 0 is a result, others are exceptions.
    pub first: Option<i16>,
    /// Message and type of an exception.
    pub text: Option<Box<str>>,
    pub code: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Done,
    Wait,
    /// The framing is in a hole (the flag says which), or broken.
    Lost(Flags),
}

impl Walk {
    /// Reads a message's head. `None` where it has to be waited for.
    pub fn begin(side: Side, stream: &mut Stream, out: &mut Output) -> Option<Result<Self, Flags>> {
        let start = stream.position();
        let message = match Message::read(side, stream.bytes()) {
            Ok(message) => message,
            Err(Not::Enough) if stream.hole().is_none() => return None,
            Err(Not::Enough) => {
                return Some(Err(stream.hole().map_or(Flags::default(), |hole| hole_flag(hole.kind))));
            }
            Err(Not::Fits) => return Some(Err(Flags::default())),
        };
        out.mark(side, start..start + message.length as u64, ByteClass::Structure);
        stream.advance(message.length);
        let levels = vec![Level::Struct { last: 0 }];
        Some(Ok(Self { start, message, levels, pending: None, field: None, first: None, text: None, code: None }))
    }

    /// Reads on as far as bytes are here.
    pub fn read(&mut self, stream: &mut Stream) -> Step {
        loop {
            if self.levels.is_empty() {
                return Step::Done;
            }
            match self.one(stream) {
                Ok(()) => {}
                Err(Not::Enough) => match stream.hole() {
                    Some(hole) => return Step::Lost(hole_flag(hole.kind)),
                    None => return Step::Wait,
                },
                Err(Not::Fits) => return Step::Lost(Flags::default()),
            }
        }
    }

    /// One field's or value's header.
    fn one(&mut self, stream: &mut Stream) -> Result<(), Not> {
        if let Some(kind) = self.pending {
            self.value(kind, stream)?;
            self.pending = None;
            return Ok(());
        }
        match self.levels.last_mut() {
            None => Ok(()),
            Some(Level::Elements { left: 0, .. }) => {
                self.levels.pop();
                Ok(())
            }
            Some(Level::Elements { next, then, left }) => {
                *left -= 1;
                self.pending = Some(*next);
                std::mem::swap(next, then);
                Ok(())
            }
            Some(Level::Struct { .. }) => self.field(stream),
        }
    }

    fn field(&mut self, stream: &mut Stream) -> Result<(), Not> {
        let outermost = self.levels.len() == 1;
        let compact = self.message.encoding == Encoding::Compact;
        let Some(Level::Struct { last }) = self.levels.last_mut() else { return Ok(()) };
        let mut cursor = Cursor::new(stream.bytes());
        let first = cursor.u8().ok_or(Not::Enough)?;
        if first == 0 || compact && first & 15 == 0 {
            stream.advance(1);
            self.levels.pop();
            return Ok(());
        }
        let (kind, id) = if compact {
            let id = match first >> 4 {
                0 => {
                    let number = varint(&mut cursor)? as u32;
                    ((number >> 1) as i32 ^ -((number & 1) as i32)) as i16
                }
                delta => last.wrapping_add(i16::from(delta)),
            };
            // A field of type bool is its value.
            (if first & 15 < 3 { Type::Fixed(0) } else { compact_type(first & 15)? }, id)
        } else {
            (binary_type(first)?, cursor.be16().ok_or(Not::Enough)? as i16)
        };
        *last = id;
        if outermost {
            self.field = Some(id);
            self.first = self.first.or(Some(id));
        }
        stream.advance(cursor.at());
        self.pending = Some(kind);
        Ok(())
    }

    fn push(&mut self, level: Level) -> Result<(), Not> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(Not::Fits);
        }
        self.levels.push(level);
        Ok(())
    }

    fn value(&mut self, kind: Type, stream: &mut Stream) -> Result<(), Not> {
        let compact = self.message.encoding == Encoding::Compact;
        let exception = self.message.kind == Kind::Exception && self.levels.len() == 1;
        let mut cursor = Cursor::new(stream.bytes());
        match kind {
            Type::Fixed(length) => {
                if exception && self.field == Some(2) && length == 4 {
                    self.code = Some(cursor.be32().ok_or(Not::Enough)? as i32);
                }
                stream.skip(u64::from(length));
            }
            Type::Varint => {
                let number = varint(&mut cursor)?;
                if exception && self.field == Some(2) {
                    let number = number as u32;
                    self.code = Some((number >> 1) as i32 ^ -((number & 1) as i32));
                }
                stream.advance(cursor.at());
            }
            Type::Bytes => {
                let length = count(&mut cursor, compact)?;
                if exception && self.field == Some(1) {
                    let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(MAX_TEXT_BYTES);
                    let ahead = cursor.at();
                    let seen = cursor.take_some(wanted);
                    if seen.len() < wanted && stream.hole().is_none() && !stream.is_closed() {
                        return Err(Not::Enough);
                    }
                    self.text = Some(text::bounded(seen, MAX_TEXT_BYTES, (seen.len() as u64) < length));
                    stream.skip(ahead as u64 + length);
                } else {
                    stream.skip(cursor.at() as u64 + length);
                }
            }
            Type::Struct => self.push(Level::Struct { last: 0 })?,
            Type::List => {
                let (kind, count) = if compact {
                    let first = cursor.u8().ok_or(Not::Enough)?;
                    let count = match first >> 4 {
                        15 => count(&mut cursor, true)?,
                        short => u64::from(short),
                    };
                    (compact_type(first & 15), count)
                } else {
                    let kind = binary_type(cursor.u8().ok_or(Not::Enough)?);
                    (kind, count(&mut cursor, false)?)
                };
                let kind = match count {
                    0 => kind.unwrap_or(Type::Varint),
                    _ => kind?,
                };
                self.elements(kind, kind, count, cursor.at(), stream)?;
            }
            Type::Map => {
                let (kinds, count) = if compact {
                    let count = count(&mut cursor, true)?;
                    let kinds = if count > 0 { cursor.u8().ok_or(Not::Enough)? } else { 0x33 };
                    ((compact_type(kinds >> 4), compact_type(kinds & 15)), count)
                } else {
                    let key = binary_type(cursor.u8().ok_or(Not::Enough)?);
                    let value = binary_type(cursor.u8().ok_or(Not::Enough)?);
                    ((key, value), count(&mut cursor, false)?)
                };
                let (key, value) = match (kinds, count) {
                    ((key, value), 0) => (key.unwrap_or(Type::Varint), value.unwrap_or(Type::Varint)),
                    ((key, value), _) => (key?, value?),
                };
                self.elements(key, value, count.saturating_mul(2), cursor.at(), stream)?;
            }
        }
        Ok(())
    }

    /// Goes on with `count` elements behind a header of `length` bytes: at once where all have a fixed length.
    fn elements(&mut self, next: Type, then: Type, count: u64, length: usize, stream: &mut Stream) -> Result<(), Not> {
        if let (Type::Fixed(a), Type::Fixed(b)) = (next, then) {
            let all = if next == then { count * u64::from(a) } else { count / 2 * (u64::from(a) + u64::from(b)) };
            stream.skip(length as u64 + all);
            return Ok(());
        }
        self.push(Level::Elements { next, then, left: count })?;
        stream.advance(length);
        Ok(())
    }
}

fn varint(cursor: &mut Cursor<'_>) -> Result<u64, Not> {
    cursor.varint().ok_or(if cursor.rest().len() < 10 { Not::Enough } else { Not::Fits })
}

/// A length or count, which is a signed number of 32 bits.
fn count(cursor: &mut Cursor<'_>, compact: bool) -> Result<u64, Not> {
    let count = if compact { varint(cursor)? } else { u64::from(cursor.be32().ok_or(Not::Enough)?) };
    if count > i32::MAX as u64 { Err(Not::Fits) } else { Ok(count) }
}

fn binary_type(number: u8) -> Result<Type, Not> {
    Ok(match number {
        2 | 3 => Type::Fixed(1),
        4 | 10 => Type::Fixed(8),
        6 => Type::Fixed(2),
        8 => Type::Fixed(4),
        11 => Type::Bytes,
        12 => Type::Struct,
        13 => Type::Map,
        14 | 15 => Type::List,
        16 => Type::Fixed(16),
        _ => return Err(Not::Fits),
    })
}

fn compact_type(number: u8) -> Result<Type, Not> {
    Ok(match number {
        1..=3 => Type::Fixed(1),
        4..=6 => Type::Varint,
        7 => Type::Fixed(8),
        8 => Type::Bytes,
        9 | 10 => Type::List,
        11 => Type::Map,
        12 => Type::Struct,
        13 => Type::Fixed(16),
        _ => return Err(Not::Fits),
    })
}
