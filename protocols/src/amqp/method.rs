//! The methods of AMQP 0-9-1 and RabbitMQ's additions, and their arguments.

use crate::{ByteClass, Side, exchange::Marker};

/// What a method is to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A request that is answered; by nothing if this bit of its bits is set.
    Ask(Option<u8>),
    /// A request without an answer.
    Tell,
    /// A message.
    Publish,
    /// The answer to the method of its class with this number.
    Answer(u16),
    /// A positive or negative acknowledgement.
    Acknowledge,
    /// Something else that is no request.
    Other,
}

/// Who sends a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Server,
    Both,
}

/// A method: one row of the reference's index.
#[derive(Debug)]
pub(super) struct Method {
    pub class: u16,
    pub number: u16,
    pub name: &'static str,
    from: From,
    pub role: Role,
    /// Its arguments, a letter each: `o` octet, `b` up to eight bits, `h` 16 bits, `l` 32 bits, `L` 64 bits, `s` short
    /// string, `S` long string, `X` long string with credentials, `t` table.
    layout: &'static [u8],
}

/// Class and number in one.
pub(super) type Id = u32;

pub(super) const fn id(class: u16, number: u16) -> Id {
    (class as u32) << 16 | number as u32
}

impl Method {
    pub fn id(&self) -> Id {
        id(self.class, self.number)
    }

    pub fn sent_by(&self, side: Side) -> bool {
        match self.from {
            From::Both => true,
            From::Client => side == Side::Client,
            From::Server => side == Side::Server,
        }
    }
}

pub(super) const CONNECTION_START: Id = id(10, 10);
pub(super) const CONNECTION_CLOSE: Id = id(10, 50);
pub(super) const CHANNEL_OPEN: Id = id(20, 10);
pub(super) const CHANNEL_CLOSE: Id = id(20, 40);
pub(super) const CHANNEL_CLOSE_OK: Id = id(20, 41);
pub(super) const CONFIRM_SELECT: Id = id(85, 10);
pub(super) const QUEUE_DECLARE: Id = id(50, 10);
pub(super) const QUEUE_PURGE_OK: Id = id(50, 31);
pub(super) const QUEUE_DELETE_OK: Id = id(50, 41);
pub(super) const RETURN: Id = id(60, 50);
pub(super) const GET_OK: Id = id(60, 71);
pub(super) const GET_EMPTY: Id = id(60, 72);
pub(super) const NACK: Id = id(60, 120);
pub(super) const PUBLISH: Id = id(60, 40);

const fn method(class: u16, number: u16, name: &'static str, from: From, role: Role, layout: &'static [u8]) -> Method {
    Method { class, number, name, from, role, layout }
}

const ASK: Role = Role::Ask(None);

/// By class and number. Source: <https://www.rabbitmq.com/amqp-0-9-1-reference>, and RabbitMQ's extensions
/// (`confirm`, `exchange.bind`, `basic.nack`, `connection.blocked`, `connection.update-secret`).
#[rustfmt::skip]
static METHODS: &[Method] = &[
    method(10, 10, "connection.start", From::Server, Role::Other, b"ootSS"),
    method(10, 11, "connection.start-ok", From::Client, Role::Answer(10), b"tsXs"),
    method(10, 20, "connection.secure", From::Server, Role::Other, b"X"),
    method(10, 21, "connection.secure-ok", From::Client, Role::Answer(20), b"X"),
    method(10, 30, "connection.tune", From::Server, Role::Other, b"hlh"),
    method(10, 31, "connection.tune-ok", From::Client, Role::Answer(30), b"hlh"),
    method(10, 40, "connection.open", From::Client, ASK, b"ssb"),
    method(10, 41, "connection.open-ok", From::Server, Role::Answer(40), b"s"),
    method(10, 50, "connection.close", From::Both, ASK, b"hshh"),
    method(10, 51, "connection.close-ok", From::Both, Role::Answer(50), b""),
    method(10, 60, "connection.blocked", From::Server, Role::Other, b"s"),
    method(10, 61, "connection.unblocked", From::Server, Role::Other, b""),
    method(10, 70, "connection.update-secret", From::Client, ASK, b"Xs"),
    method(10, 71, "connection.update-secret-ok", From::Server, Role::Answer(70), b""),
    method(20, 10, "channel.open", From::Client, ASK, b"s"),
    method(20, 11, "channel.open-ok", From::Server, Role::Answer(10), b"S"),
    method(20, 20, "channel.flow", From::Both, ASK, b"b"),
    method(20, 21, "channel.flow-ok", From::Both, Role::Answer(20), b"b"),
    method(20, 40, "channel.close", From::Both, ASK, b"hshh"),
    method(20, 41, "channel.close-ok", From::Both, Role::Answer(40), b""),
    method(40, 10, "exchange.declare", From::Client, Role::Ask(Some(4)), b"hssbt"),
    method(40, 11, "exchange.declare-ok", From::Server, Role::Answer(10), b""),
    method(40, 20, "exchange.delete", From::Client, Role::Ask(Some(1)), b"hsb"),
    method(40, 21, "exchange.delete-ok", From::Server, Role::Answer(20), b""),
    method(40, 30, "exchange.bind", From::Client, Role::Ask(Some(0)), b"hsssbt"),
    method(40, 31, "exchange.bind-ok", From::Server, Role::Answer(30), b""),
    method(40, 40, "exchange.unbind", From::Client, Role::Ask(Some(0)), b"hsssbt"),
    method(40, 51, "exchange.unbind-ok", From::Server, Role::Answer(40), b""),
    method(50, 10, "queue.declare", From::Client, Role::Ask(Some(4)), b"hsbt"),
    method(50, 11, "queue.declare-ok", From::Server, Role::Answer(10), b"sll"),
    method(50, 20, "queue.bind", From::Client, Role::Ask(Some(0)), b"hsssbt"),
    method(50, 21, "queue.bind-ok", From::Server, Role::Answer(20), b""),
    method(50, 30, "queue.purge", From::Client, Role::Ask(Some(0)), b"hsb"),
    method(50, 31, "queue.purge-ok", From::Server, Role::Answer(30), b"l"),
    method(50, 40, "queue.delete", From::Client, Role::Ask(Some(2)), b"hsb"),
    method(50, 41, "queue.delete-ok", From::Server, Role::Answer(40), b"l"),
    method(50, 50, "queue.unbind", From::Client, ASK, b"hssst"),
    method(50, 51, "queue.unbind-ok", From::Server, Role::Answer(50), b""),
    method(60, 10, "basic.qos", From::Client, ASK, b"lhb"),
    method(60, 11, "basic.qos-ok", From::Server, Role::Answer(10), b""),
    method(60, 20, "basic.consume", From::Client, Role::Ask(Some(3)), b"hssbt"),
    method(60, 21, "basic.consume-ok", From::Server, Role::Answer(20), b"s"),
    method(60, 30, "basic.cancel", From::Both, Role::Ask(Some(0)), b"sb"),
    method(60, 31, "basic.cancel-ok", From::Both, Role::Answer(30), b"s"),
    method(60, 40, "basic.publish", From::Client, Role::Publish, b"hssb"),
    method(60, 50, "basic.return", From::Server, Role::Other, b"hsss"),
    method(60, 60, "basic.deliver", From::Server, Role::Other, b"sLbss"),
    method(60, 70, "basic.get", From::Client, ASK, b"hsb"),
    method(60, 71, "basic.get-ok", From::Server, Role::Answer(70), b"Lbssl"),
    method(60, 72, "basic.get-empty", From::Server, Role::Answer(70), b"s"),
    method(60, 80, "basic.ack", From::Both, Role::Acknowledge, b"Lb"),
    method(60, 90, "basic.reject", From::Client, Role::Tell, b"Lb"),
    method(60, 100, "basic.recover-async", From::Client, Role::Tell, b"b"),
    method(60, 110, "basic.recover", From::Client, ASK, b"b"),
    method(60, 111, "basic.recover-ok", From::Server, Role::Answer(110), b""),
    method(60, 120, "basic.nack", From::Both, Role::Acknowledge, b"Lb"),
    method(85, 10, "confirm.select", From::Client, Role::Ask(Some(0)), b"b"),
    method(85, 11, "confirm.select-ok", From::Server, Role::Answer(10), b""),
    method(90, 10, "tx.select", From::Client, ASK, b""),
    method(90, 11, "tx.select-ok", From::Server, Role::Answer(10), b""),
    method(90, 20, "tx.commit", From::Client, ASK, b""),
    method(90, 21, "tx.commit-ok", From::Server, Role::Answer(20), b""),
    method(90, 30, "tx.rollback", From::Client, ASK, b""),
    method(90, 31, "tx.rollback-ok", From::Server, Role::Answer(30), b""),
];

/// The method with this class and number.
pub(super) fn by_id(wanted: Id) -> Option<&'static Method> {
    let at = METHODS.binary_search_by_key(&wanted, Method::id).ok()?;
    METHODS.get(at)
}

/// The method that a payload begins with.
pub(super) fn of(payload: &[u8]) -> Option<&'static Method> {
    by_id(u32::from_be_bytes(*payload.first_chunk()?))
}

/// One argument, by offsets in the bytes of all of them.
struct Field {
    kind: u8,
    /// Where its value begins, behind its length if it has one.
    start: usize,
    /// Where it ends, by its length: perhaps behind the bytes that are there.
    end: usize,
}

/// The arguments up to the first of which not even the length is there.
fn fields<'a>(layout: &'a [u8], bytes: &'a [u8]) -> impl Iterator<Item = Field> + 'a {
    let mut at = 0;
    layout.iter().map_while(move |kind| {
        let rest = bytes.get(at..)?;
        let (head, length) = match kind {
            b's' => (1, usize::from(*rest.first()?)),
            b'S' | b'X' | b't' => (4, usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?),
            b'h' => (0, 2),
            b'l' => (0, 4),
            b'L' => (0, 8),
            _ => (0, 1),
        };
        let start = at + head;
        at = start.saturating_add(length);
        Some(Field { kind: *kind, start, end: at })
    })
}

/// The arguments that matter here, as far as they were seen.
#[derive(Debug, Default)]
pub(super) struct Arguments<'a> {
    /// Short strings, in order.
    pub strings: [Option<&'a [u8]>; 4],
    pub bits: Option<u8>,
    /// 16-bit numbers, in order.
    pub shorts: [Option<u16>; 3],
    /// The first 32-bit number.
    pub long: Option<u32>,
    /// The 64-bit number: a delivery tag.
    pub tag: Option<u64>,
}

/// Reads a method's arguments.
pub(super) fn arguments<'a>(method: &'static Method, bytes: &'a [u8]) -> Arguments<'a> {
    let mut found = Arguments::default();
    let (mut strings, mut shorts) = (found.strings.iter_mut(), found.shorts.iter_mut());
    for field in fields(method.layout, bytes) {
        let Some(value) = bytes.get(field.start..field.end) else { break };
        match field.kind {
            b's' => {
                if let Some(slot) = strings.next() {
                    *slot = Some(value);
                }
            }
            b'h' => {
                if let Some(slot) = shorts.next() {
                    *slot = value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
                }
            }
            b'b' => found.bits = value.first().copied(),
            b'l' if found.long.is_none() => found.long = value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)),
            b'L' => found.tag = value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
            _ => {}
        }
    }
    found
}

/// Classifies a method's arguments, which begin at `start` and end before `limit`.
pub(super) fn mark(method: &'static Method, bytes: &[u8], start: u64, limit: u64, marker: &mut Marker<'_>) {
    for field in fields(method.layout, bytes) {
        let class = match field.kind {
            b's' => ByteClass::Identifier,
            b'S' | b't' => ByteClass::Value,
            b'X' => ByteClass::Secret,
            _ => ByteClass::Structure,
        };
        marker.to((start + field.start as u64).min(limit), ByteClass::Structure);
        marker.to(start.saturating_add(field.end as u64).min(limit), class);
    }
    // What was cut, or is more than this version of the method has.
    marker.to(limit, if method.layout.contains(&b'X') { ByteClass::Secret } else { ByteClass::Value });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_in_order() {
        assert!(METHODS.windows(2).all(|pair| pair[0].id() < pair[1].id()));
        assert_eq!(by_id(PUBLISH).unwrap().name, "basic.publish");
    }

    #[test]
    fn arguments_are_read_as_far_as_they_go() {
        let declare = by_id(QUEUE_DECLARE).unwrap();
        let whole = arguments(declare, b"\0\0\x01q\x12\0\0\0\0");
        assert_eq!((whole.strings[0], whole.bits), (Some(&b"q"[..]), Some(0x12)));
        let cut = arguments(declare, b"\0\0\x09queu");
        assert_eq!((cut.strings[0], cut.bits), (None, None));
    }
}
