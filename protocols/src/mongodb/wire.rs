//! Message headers (<https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>).

use super::bson;
use crate::cursor::Cursor;
use crate::frames::{Framing, Head};
use crate::pairing::Looks;
use crate::{Side, unpack};

/// Length, request id, id answered, operation: four little-endian numbers.
pub(super) const HEADER_BYTES: usize = 16;

/// The largest message: servers say 48,000,000 (`maxMessageSizeBytes`), and send a little more.
const MAX_MESSAGE_BYTES: u32 = 64 << 20;

pub(super) const OP_REPLY: u32 = 1;
pub(super) const OP_UPDATE: u32 = 2001;
pub(super) const OP_INSERT: u32 = 2002;
pub(super) const OP_QUERY: u32 = 2004;
pub(super) const OP_GET_MORE: u32 = 2005;
pub(super) const OP_DELETE: u32 = 2006;
pub(super) const OP_KILL_CURSORS: u32 = 2007;
pub(super) const OP_COMMAND: u32 = 2010;
pub(super) const OP_COMMANDREPLY: u32 = 2011;
pub(super) const OP_COMPRESSED: u32 = 2012;
pub(super) const OP_MSG: u32 = 2013;

/// What a message's header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub length: u32,
    pub id: i32,
    /// Of an answer: the id of what it answers.
    pub answers: i32,
    pub op: u32,
}

impl Header {
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let [length, id, answers, op] = [cursor.le32()?, cursor.le32()?, cursor.le32()?, cursor.le32()?];
        Some(Self { length, id: id as i32, answers: answers as i32, op })
    }

    /// Whether a message of this side can have it: its length and operation, and that it answers something or nothing.
    fn is_of(&self, side: Side) -> bool {
        let direction = if side == Side::Client { matches!(self.answers, 0 | -1) } else { self.answers != 0 };
        (HEADER_BYTES as u32..=MAX_MESSAGE_BYTES).contains(&self.length) && is_sent_by(side, self.op) && direction
    }

    /// Bytes behind it.
    fn room(&self) -> u64 {
        u64::from(self.length).saturating_sub(HEADER_BYTES as u64)
    }
}

/// The header of a message of `side`, if what is here of its body does not speak against it.
pub(super) fn head_of(side: Side, bytes: &[u8]) -> Option<Header> {
    let body = bytes.get(HEADER_BYTES..)?;
    Header::read(bytes).filter(|header| header.is_of(side) && fits(header.op, body, header.room()) != Some(false))
}

fn is_sent_by(side: Side, op: u32) -> bool {
    match op {
        OP_MSG | OP_COMPRESSED => true,
        OP_REPLY | OP_COMMANDREPLY => side == Side::Server,
        OP_UPDATE | OP_INSERT | OP_QUERY..=OP_KILL_CURSORS | OP_COMMAND => side == Side::Client,
        _ => false,
    }
}

/// What `OP_COMPRESSED` packs: the operation and its body, of which at most `limit` bytes are unpacked.
pub(super) fn unpacked(body: &[u8], limit: usize) -> Option<(u32, Vec<u8>)> {
    let mut cursor = Cursor::new(body);
    let op = cursor.le32()?;
    let _length = cursor.le32()?;
    let packed = match cursor.u8()? {
        0 => cursor.take_some(limit).to_vec(),
        1 => unpack::snappy(cursor.rest(), limit),
        2 => unpack::zlib(cursor.rest(), limit),
        3 => unpack::zstd(cursor.rest(), limit),
        _ => return None,
    };
    Some((op, packed))
}

/// Bytes of a message before what `OP_COMPRESSED` packs, header included.
pub(super) const COMPRESSED_HEAD_BYTES: usize = HEADER_BYTES + 9;

pub(super) struct Messages;

impl Framing for Messages {
    fn head(&self, side: Side, bytes: &[u8]) -> Head {
        match Header::read(bytes) {
            None => Head::Short,
            Some(Header { length, op, .. })
                if (HEADER_BYTES as u32..=MAX_MESSAGE_BYTES).contains(&length) && is_sent_by(side, op) =>
            {
                Head::Length(u64::from(length))
            }
            Some(_) => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        let Some(header) = Header::read(bytes) else { return if cut { Looks::No } else { Looks::Open } };
        if !header.is_of(side) {
            return Looks::No;
        }
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let room = header.room();
        // Enough for the first field's name, unless the message is shorter.
        let enough = body.len() as u64 >= room.min(48);
        match fits(header.op, body, room) {
            Some(true) if enough || cut => Looks::Yes,
            Some(true) | None if !enough && !cut => Looks::Open,
            _ => Looks::No,
        }
    }
}

/// Whether a message's body fits its operation; `None` where too little is here.
fn fits(op: u32, body: &[u8], room: u64) -> Option<bool> {
    let mut cursor = Cursor::new(body);
    let left = |cursor: &Cursor<'_>| room.saturating_sub(cursor.at() as u64);
    let namespace = |cursor: &mut Cursor<'_>| {
        let name = cursor.c_string()?;
        Some(name.len() < 256 && name.contains(&b'.') && name.iter().all(|byte| *byte > b' '))
    };
    Some(match op {
        OP_MSG => {
            // Of the first 16 flags, those that nobody knows must not be set.
            let flags = cursor.le32()?;
            let known = flags & 0xfffc == 0;
            match cursor.u8()? {
                0 => known && bson::begins(cursor.rest(), left(&cursor)),
                1 => {
                    let size = u64::from(cursor.le32()?);
                    known && size > 4 && size <= left(&cursor) + 4
                }
                _ => false,
            }
        }
        OP_COMPRESSED => {
            let original = cursor.le32()?;
            let length = cursor.le32()?;
            let compressor = cursor.u8()?;
            original != OP_COMPRESSED
                && (is_sent_by(Side::Client, original) || is_sent_by(Side::Server, original))
                && (1..=MAX_MESSAGE_BYTES).contains(&length)
                && compressor <= 3
        }
        OP_REPLY => {
            let flags = cursor.le32()?;
            cursor.take(12)?;
            let count = cursor.le32()?;
            let documents = cursor.rest();
            flags < 16 && if count == 0 { left(&cursor) == 0 } else { bson::begins(documents, left(&cursor)) }
        }
        OP_QUERY => {
            let flags = cursor.le32()?;
            let named = namespace(&mut cursor)?;
            cursor.take(8)?;
            flags < 256 && named && bson::begins(cursor.rest(), left(&cursor))
        }
        OP_GET_MORE => {
            let zero = cursor.le32()?;
            zero == 0 && namespace(&mut cursor)? && left(&cursor) == 12
        }
        OP_INSERT => {
            let flags = cursor.le32()?;
            flags < 2 && namespace(&mut cursor)? && bson::begins(cursor.rest(), left(&cursor))
        }
        OP_UPDATE | OP_DELETE => {
            let zero = cursor.le32()?;
            let named = namespace(&mut cursor)?;
            let flags = cursor.le32()?;
            zero == 0 && named && flags < 4 && bson::begins(cursor.rest(), left(&cursor))
        }
        OP_KILL_CURSORS => {
            let zero = cursor.le32()?;
            let count = u64::from(cursor.le32()?);
            zero == 0 && left(&cursor) == count * 8
        }
        OP_COMMAND => {
            let database = cursor.c_string()?;
            let name = cursor.c_string()?;
            !database.is_empty()
                && name.iter().all(u8::is_ascii_alphanumeric)
                && bson::begins(cursor.rest(), left(&cursor))
        }
        OP_COMMANDREPLY => bson::begins(cursor.rest(), left(&cursor)),
        _ => false,
    })
}
