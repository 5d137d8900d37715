//! Walks over a message by its layout: what it says, and the class of each byte.

use std::ops::Range;

use super::layout::{ERRORS, Field, Kind, NAMES, RECORDS, Role, Roles};
use super::records;
use crate::cursor::{be16, be32};
use crate::exchange::Marker;
use crate::text::{MAX_TEXT_BYTES, bounded};
use crate::{ByteClass, Output, Side};

/// What a message says.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The first topic, by name or by id, and how many more there are.
    pub topic: Option<Topic>,
    pub more_topics: u64,
    pub group: Option<Box<str>>,
    pub transaction: Option<Box<str>>,
    pub key: Option<Box<str>>,
    /// How many error codes were read.
    pub errors_read: u64,
    /// The first that is not 0.
    pub error: Option<i16>,
    /// The text that came with it.
    pub message: Option<Box<str>>,
    /// Records, and whether all were counted.
    pub records: u64,
    pub all_counted: bool,
    pub acks: Option<i16>,
    /// Names of topics by their ids.
    pub pairs: Vec<([u8; 16], Box<str>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topic {
    Name(Box<str>),
    Id([u8; 16]),
}

/// How a walk ended before the layout did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The bytes that are here end; these roles may be in what is missing.
    Cut(Roles),
    /// No message of this layout looks like this.
    Bad,
}

/// Topics whose names and ids one message tells, at most.
const MAX_PAIRS: usize = 4096;

/// Topics of a message that are compared with the others in it; more than these are counted as they come.
const MAX_COMPARED: usize = 32;

/// A message at a place in it.
pub(crate) struct Walk<'a, 'b> {
    /// Its first bytes.
    bytes: &'a [u8],
    /// Its whole length.
    total: u64,
    at: u64,
    version: i16,
    flexible: bool,
    marker: Marker<'b>,
    /// Where the message begins on its stream, and where what there is of it ends.
    range: Range<u64>,
    pub found: Found,
    /// Values that no client sends speak against it.
    strict: bool,
    /// Names of topics and their ids stand side by side and are worth remembering.
    learn: bool,
    last_topic: Option<Box<str>>,
    topics: Vec<Topic>,
    uncounted: bool,
}

const CUT: Stop = Stop::Cut(0);

impl<'a, 'b> Walk<'a, 'b> {
    /// A message whose layout begins behind `skip` bytes of framing.
    pub fn new(bytes: &'a [u8], range: Range<u64>, skip: u64, out: &'b mut Output, side: Side) -> Self {
        // What it announces, which may be more than there is.
        let total = be32(bytes, 0).map_or(0, |length| u64::try_from(length).unwrap_or(0)) + 4;
        let mut marker = out.marker(side, range.start);
        marker.to(range.end.min(range.start + skip), ByteClass::Structure);
        Self {
            bytes,
            total,
            at: skip.min(total),
            version: 0,
            flexible: false,
            marker,
            range,
            found: Found::default(),
            strict: false,
            learn: false,
            last_topic: None,
            topics: Vec::new(),
            uncounted: false,
        }
    }

    pub fn learning(mut self, learn: bool) -> Self {
        self.learn = learn;
        self
    }

    /// Values that no client sends (acknowledgements other than all, one, none; topics that can't be) end the walk.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// The version that the layout is read in; `flexible`: with compact lengths and tagged fields.
    pub fn set_version(&mut self, version: i16, flexible: bool) {
        self.version = version;
        self.flexible = flexible;
    }

    /// Bytes that are left of the message.
    pub fn left(&self) -> u64 {
        self.total.saturating_sub(self.at)
    }

    /// Passes over the next `length` bytes.
    pub fn pass(&mut self, length: u64, class: ByteClass) -> Result<(), Stop> {
        if length > self.left() {
            return Err(Stop::Bad);
        }
        self.at += length;
        self.marker.to(self.range.end.min(self.range.start.saturating_add(self.at)), class);
        Ok(())
    }

    /// The bytes at the cursor that are here.
    fn here(&self) -> &'a [u8] {
        usize::try_from(self.at).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }

    /// Why fewer than `count` bytes are here.
    fn short(&self, count: u64) -> Stop {
        if count > self.left() { Stop::Bad } else { CUT }
    }

    fn int16(&mut self) -> Result<i16, Stop> {
        let value = be16(self.here(), 0).ok_or(self.short(2))?;
        self.pass(2, ByteClass::Structure)?;
        Ok(value)
    }

    fn int32(&mut self) -> Result<i32, Stop> {
        let value = be32(self.here(), 0).ok_or(self.short(4))?;
        self.pass(4, ByteClass::Structure)?;
        Ok(value)
    }

    /// An unsigned number of at most 32 bits, seven in each byte.
    fn varint(&mut self) -> Result<u32, Stop> {
        let mut value = 0u64;
        for (index, byte) in self.here().iter().take(5).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.pass(index as u64 + 1, ByteClass::Structure)?;
                return u32::try_from(value).map_err(|_| Stop::Bad);
            }
        }
        if self.here().len() >= 5 { Err(Stop::Bad) } else { Err(self.short(self.here().len() as u64 + 1)) }
    }

    /// A length or count; `None` is null.
    fn length(&mut self, short: bool) -> Result<Option<u64>, Stop> {
        if self.flexible {
            return Ok(u64::from(self.varint()?).checked_sub(1));
        }
        let length = if short { i32::from(self.int16()?) } else { self.int32()? };
        match length {
            -1 => Ok(None),
            length => u64::try_from(length).map(Some).map_err(|_| Stop::Bad),
        }
    }

    /// A string of the old kind, whatever the version: the client's id.
    pub fn old_string(&mut self) -> Result<Option<&'a [u8]>, Stop> {
        let length = match self.int16()? {
            -1 => return Ok(None),
            length => u64::try_from(length).map_err(|_| Stop::Bad)?,
        };
        let here = self.here();
        let text = usize::try_from(length).ok().and_then(|length| here.get(..length)).unwrap_or(here);
        self.pass(length, ByteClass::Identifier)?;
        Ok(Some(text))
    }

    pub fn tagged_fields(&mut self) -> Result<(), Stop> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.pass(u64::from(size), ByteClass::Value)?;
        }
        Ok(())
    }

    /// Walks over `fields` and the tagged fields behind them. Recursion ends with the layout, which is ours.
    pub fn structure(&mut self, fields: &[Field]) -> Result<(), Stop> {
        let mut rest = fields;
        while let Some((field, behind)) = rest.split_first() {
            rest = behind;
            if !field.is_in(self.version) {
                continue;
            }
            if let Err(stop) = self.field(field) {
                return Err(add(stop, || self.roles(behind)));
            }
        }
        self.tagged_fields()
    }

    /// What may be in fields that were not reached.
    fn roles(&self, fields: &[Field]) -> Roles {
        roles_of(fields, self.version)
    }

    fn field(&mut self, field: &Field) -> Result<(), Stop> {
        match &field.kind {
            Kind::Fixed(width) => self.fixed(field, u64::from(*width)),
            Kind::Text => {
                let length = self.length(true).map_err(|stop| add(stop, || field.roles))?;
                self.text(field.role, length)
            }
            Kind::Bytes => {
                let length = self.length(false).map_err(|stop| add(stop, || field.roles))?;
                self.blob(field.role, length)
            }
            Kind::List(inner) => {
                let count = self.length(false).map_err(|stop| add(stop, || field.roles))?.unwrap_or(0);
                if let (Kind::Fixed(width), Role::Plain) = (&inner.kind, inner.role) {
                    return self.pass(count.saturating_mul(u64::from(*width)), ByteClass::Structure);
                }
                self.elements(count, inner.roles, |walk| walk.field(inner))
            }
            Kind::Array(inner) => {
                let count = self.length(false).map_err(|stop| add(stop, || field.roles))?.unwrap_or(0);
                self.elements(count, self.roles(inner), |walk| walk.structure(inner))
            }
            Kind::Struct(inner) => self.structure(inner),
            Kind::Optional(inner) => {
                let present = *self.here().first().ok_or(self.short(1)).map_err(|stop| add(stop, || field.roles))?;
                self.pass(1, ByteClass::Structure)?;
                if present == 1 { self.structure(inner) } else { Ok(()) }
            }
            Kind::Rest => Err(CUT),
        }
    }

    fn elements(
        &mut self,
        count: u64,
        roles: Roles,
        mut element: impl FnMut(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        for index in 0..count {
            let before = self.at;
            if let Err(stop) = element(self) {
                return Err(add(stop, || if index + 1 < count { roles } else { 0 }));
            }
            if self.at == before {
                // Nothing that is real repeats nothing.
                return Err(Stop::Bad);
            }
        }
        Ok(())
    }

    fn fixed(&mut self, field: &Field, width: u64) -> Result<(), Stop> {
        match field.role {
            Role::Error => {
                let code = self.int16().map_err(|stop| add(stop, || ERRORS))?;
                self.found.errors_read += 1;
                if code != 0 && self.found.error.is_none() {
                    self.found.error = Some(code);
                    self.found.message = None;
                }
            }
            Role::Acks => {
                let acks = self.int16()?;
                if self.strict && !(-1..=1).contains(&acks) {
                    return Err(Stop::Bad);
                }
                self.found.acks = Some(acks);
            }
            Role::TopicId => {
                let id =
                    self.here().first_chunk::<16>().ok_or(self.short(width)).map_err(|stop| add(stop, || NAMES))?;
                self.pass(width, ByteClass::Identifier)?;
                if *id != [0; 16] {
                    if let Some(name) = self.last_topic.take() {
                        if self.found.pairs.len() < MAX_PAIRS {
                            self.found.pairs.push((*id, name));
                        }
                    } else {
                        self.topic(Topic::Id(*id));
                    }
                }
            }
            _ => self.pass(width, ByteClass::Structure)?,
        }
        Ok(())
    }

    /// A topic is listed once for each partition by some clients.
    fn topic(&mut self, topic: Topic) {
        if self.topics.contains(&topic) {
            return;
        }
        if self.found.topic.is_none() {
            self.found.topic = Some(topic.clone());
        } else {
            self.found.more_topics += 1;
        }
        if self.topics.len() < MAX_COMPARED {
            self.topics.push(topic);
        }
    }

    fn text(&mut self, role: Role, length: Option<u64>) -> Result<(), Stop> {
        let Some(length) = length else { return Ok(()) };
        let class = match role {
            Role::Value | Role::Message => ByteClass::Value,
            Role::Secret => ByteClass::Secret,
            _ => ByteClass::Identifier,
        };
        let here = self.here();
        let whole = usize::try_from(length).ok().and_then(|length| here.get(..length));
        self.pass(length, class)?;
        let text = || bounded(whole.unwrap_or(here), MAX_TEXT_BYTES, whole.is_none());
        let found = &mut self.found;
        match role {
            Role::Topic => {
                let name = text();
                // `Topic.validate`: letters, digits, `.`, `_` and `-`.
                let odd = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-' | '…');
                if self.strict && name.contains(odd) {
                    return Err(Stop::Bad);
                }
                if self.learn {
                    self.last_topic = Some(name.clone());
                }
                if !name.is_empty() {
                    self.topic(Topic::Name(name));
                }
            }
            Role::Group => drop(found.group.get_or_insert_with(text)),
            Role::Transaction => drop(found.transaction.get_or_insert_with(text)),
            Role::Key => drop(found.key.get_or_insert_with(text)),
            Role::Message if found.error.is_some() && length > 0 => drop(found.message.get_or_insert_with(text)),
            _ => {}
        }
        Ok(())
    }

    fn blob(&mut self, role: Role, length: Option<u64>) -> Result<(), Stop> {
        let Some(length) = length else { return Ok(()) };
        let here = self.here();
        let class = if role == Role::Secret { ByteClass::Secret } else { ByteClass::Value };
        self.pass(length, class)?;
        if role == Role::Records && !self.uncounted {
            match records::count(here, length) {
                Some(count) => self.found.records = self.found.records.saturating_add(count),
                None => self.uncounted = true,
            }
        }
        Ok(())
    }

    /// What is left of the message carries `class`. Gives what was found, `missed` being the roles that were not reached.
    pub fn end(mut self, missed: Roles, class: ByteClass) -> Found {
        self.marker.to(self.range.end, class);
        self.found.all_counted = missed & RECORDS == 0 && !self.uncounted;
        self.found
    }
}

/// What may be in fields of this version.
pub(crate) fn roles_of(fields: &[Field], version: i16) -> Roles {
    fields.iter().filter(|field| field.is_in(version)).fold(0, |roles, field| roles | field.roles)
}

fn add(stop: Stop, roles: impl FnOnce() -> Roles) -> Stop {
    match stop {
        Stop::Cut(missed) => Stop::Cut(missed | roles()),
        Stop::Bad => Stop::Bad,
    }
}
