//! Blocks of named maps: a MessagePack array with one map a row, for what is neither hot nor huge.

use crate::error::DecodeError;
use crate::msgpack::{Cursor, MAX_DEPTH};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Appends `value` as a map with named fields, whatever serde attributes it has; nested structs too.
///
/// # Errors
/// Those of serde: a type that MessagePack can't hold, or an error of the type's own `Serialize`.
pub fn to_named_map<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), rmp_serde::encode::Error> {
    value.serialize(&mut rmp_serde::Serializer::new(out).with_struct_map())
}

/// Collects the rows of a block of maps.
#[derive(Debug, Default, Clone)]
pub struct MapWriter {
    body: Vec<u8>,
    rows: u32,
}

impl MapWriter {
    /// An empty block.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one row. `value` must serialize as a struct or map.
    ///
    /// # Errors
    /// Those of serde; the row is then not part of the block.
    pub fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), rmp_serde::encode::Error> {
        let before = self.body.len();
        let result = to_named_map(value, &mut self.body);
        match result {
            Ok(()) => self.rows += 1,
            Err(_) => self.body.truncate(before),
        }
        result
    }

    /// Number of rows.
    pub fn len(&self) -> u32 {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes before compression.
    pub fn raw_bytes(&self) -> usize {
        self.body.len() + 5
    }

    /// The raw content of the block: an array of maps.
    pub fn encode(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.raw_bytes());
        raw.push(0xdd);
        raw.extend_from_slice(&self.rows.to_be_bytes());
        raw.extend_from_slice(&self.body);
        raw
    }

    /// Forgets every row.
    pub fn clear(&mut self) {
        self.body.clear();
        self.rows = 0;
    }
}

/// Rows of a block of maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maps<T> {
    /// Each row's number, to be added to the block's `first_row`, and the row. Rows that are malformed, or not what
    /// `T` is, are left out.
    pub rows: Vec<(u32, T)>,
    /// Rows that were left out.
    pub malformed: u64,
}

/// Reads a block of maps. A row that is no `T` is dropped and counted; the others are not affected. Unknown fields are
/// for serde to ignore, which it does by default.
///
/// # Errors
/// [`DecodeError`] if the content is no array of MessagePack values, or nested deeper than 32.
pub fn decode_maps<T: DeserializeOwned>(raw: &[u8]) -> Result<Maps<T>, DecodeError> {
    let mut cursor = Cursor::new(raw);
    let count = cursor.array()?;
    if count > u64::from(crate::MAX_ROWS) || count > raw.len() as u64 {
        return Err(DecodeError::TooManyRows { rows: count });
    }
    let mut maps = Maps { rows: Vec::new(), malformed: 0 };
    for number in 0..count as u32 {
        // Walking over the value first bounds its nesting and finds the next one whatever `T` makes of this one.
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(cursor.skip()?);
        deserializer.set_max_depth(2 * MAX_DEPTH);
        match <T as serde::Deserialize>::deserialize(&mut deserializer) {
            Ok(row) => maps.rows.push((number, row)),
            Err(_) => maps.malformed += 1,
        }
    }
    if cursor.is_at_end() { Ok(maps) } else { Err(DecodeError::MessagePack { at: cursor.at() }) }
}
