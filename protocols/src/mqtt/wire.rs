//! Framing, and what MQTT looks like.

use super::packet::{
    AUTH, CONNACK, CONNECT, DISCONNECT, Fixed, Got, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL,
    Reader, SUBACK, SUBSCRIBE, UNSUBACK, UNSUBSCRIBE, connect, filters, is_topic,
};
use crate::frames::{Framing, Head};
use crate::pairing::Looks;
use crate::{Detected, Prefix, Side};

/// Bytes of a packet that are kept: of each, all that is asked for.
pub(super) const MAX_KEPT_BYTES: usize = 4096;

pub(super) struct Wire;

/// Whether a side sends packets of this kind with these flags (5.0 section 2.1.3). Of a PUBLISH every combination is
/// sent, the invalid ones too; 3.1 sets DUP where later versions have 0.
fn is_sent(side: Side, fixed: Fixed) -> bool {
    let own = match fixed.kind {
        CONNECT | SUBSCRIBE | UNSUBSCRIBE | PINGREQ => side == Side::Client,
        CONNACK | SUBACK | UNSUBACK | PINGRESP => side == Side::Server,
        0 => false,
        _ => true,
    };
    own && match fixed.kind {
        PUBLISH => true,
        PUBREL | SUBSCRIBE | UNSUBSCRIBE => fixed.flags & 0b0111 == 0b0010,
        _ => fixed.flags == 0,
    }
}

/// Whether a packet of this kind can be that long.
fn can_be_long(fixed: Fixed) -> bool {
    match fixed.kind {
        PINGREQ | PINGRESP => fixed.rest == 0,
        CONNECT => fixed.rest >= 10,
        PUBLISH | CONNACK | PUBACK | PUBREC | PUBREL | PUBCOMP | UNSUBACK => fixed.rest >= 2,
        SUBACK => fixed.rest >= 3,
        SUBSCRIBE | UNSUBSCRIBE => fixed.rest >= 5,
        _ => true,
    }
}

impl Framing for Wire {
    fn head(&self, side: Side, bytes: &[u8]) -> Head {
        match Fixed::of(bytes) {
            Got::Value(fixed) if is_sent(side, fixed) && can_be_long(fixed) => {
                Head::Length((fixed.head + fixed.rest) as u64)
            }
            Got::Short => Head::Short,
            _ => Head::Bad,
        }
    }

    fn looks(&self, side: Side, bytes: &[u8], cut: bool) -> Looks {
        let open = if cut { Looks::No } else { Looks::Open };
        let fixed = match Fixed::of(bytes) {
            Got::Value(fixed) if is_sent(side, fixed) && can_be_long(fixed) => fixed,
            Got::Short if bytes.first().is_none_or(|first| first >> 4 != 0) => return open,
            _ => return Looks::No,
        };
        let body = bytes.get(fixed.head..).unwrap_or_default();
        let whole = body.get(..fixed.rest);
        let mut reader = Reader::new(whole.unwrap_or(body));
        match fixed.kind {
            CONNECT => match connect(&mut reader) {
                Some(_) => Looks::Yes,
                None if body.len() < 12 && whole.is_none() => open,
                None => Looks::No,
            },
            PUBLISH if fixed.qos() == 3 => Looks::No,
            PUBLISH => match reader.string() {
                Some(topic) => {
                    let identified = fixed.qos() == 0 || reader.short() != Some(0);
                    (is_topic(topic, false) && identified && reader.at <= fixed.rest).into()
                }
                None if whole.is_some() => Looks::No,
                None if Reader::new(body).short().is_some_and(|length| usize::from(length) + 2 > fixed.rest) => {
                    Looks::No
                }
                None => open,
            },
            // These are short.
            _ => match whole {
                None => open,
                Some(whole) => looks_whole(fixed, whole).into(),
            },
        }
    }
}

/// Whether the rest of a packet is right for its kind.
fn looks_whole(fixed: Fixed, whole: &[u8]) -> bool {
    let mut reader = Reader::new(whole);
    match fixed.kind {
        PINGREQ | PINGRESP => true,
        CONNACK => {
            let (session, code) = (reader.byte(), reader.byte());
            let properties = whole.len() == 2 || reader.properties().is_some() && reader.is_at_end();
            let code = code.is_some_and(|code| if whole.len() == 2 { code <= 5 } else { code == 0 || code >= 0x80 });
            session.is_some_and(|session| session <= 1) && code && properties
        }
        PUBACK | PUBREC | PUBREL | PUBCOMP => {
            let identified = reader.short().is_some_and(|id| id != 0);
            let reason = whole.len() == 2 || matches!(reader.byte(), Some(0 | 0x10 | 0x80..=0xa2));
            identified && reason && (whole.len() <= 3 || reader.properties().is_some() && reader.is_at_end())
        }
        SUBSCRIBE | UNSUBSCRIBE => {
            let identified = reader.short().is_some_and(|id| id != 0);
            let mut later = reader;
            let fits = |reader: Reader<'_>| {
                let found = filters(reader, fixed.kind == SUBSCRIBE);
                found.whole && found.first.is_some_and(|filter| is_topic(filter, true))
            };
            identified && (fits(reader) || later.properties().is_some() && fits(later))
        }
        SUBACK | UNSUBACK => {
            let identified = reader.short().is_some_and(|id| id != 0);
            let mut later = reader;
            let codes = |reader: Reader<'_>| {
                let codes = whole.get(reader.at..).unwrap_or_default();
                codes.iter().all(|code| matches!(code, 0..=2 | 0x11 | 0x80..=0xa2))
            };
            identified && (codes(reader) || later.properties().is_some() && codes(later))
        }
        DISCONNECT => {
            let reason = reader.byte();
            let properties = whole.len() <= 1 || reader.properties().is_some() && reader.is_at_end();
            properties && matches!(reason, None | Some(0 | 4 | 0x80..=0xa2))
        }
        AUTH => matches!(reader.byte(), None | Some(0 | 0x18 | 0x19)),
        _ => false,
    }
}

pub(super) fn detect(prefix: &Prefix<'_>) -> Detected {
    match Wire.looks(Side::Client, prefix.client, false) {
        Looks::Yes if prefix.client.first() == Some(&0x10) => return Detected::Certain,
        Looks::Open if !prefix.mid_stream && prefix.client.first().is_none_or(|first| *first == 0x10) => {
            // A server says nothing first, unless the CONNECT was lost.
            let server = talk(Side::Server, prefix.server);
            return match (server.verdict, prefix.client.is_empty()) {
                (Looks::No, _) => Detected::No,
                (Looks::Yes, true) if prefix.server.first() == Some(&0x20) => Detected::Likely,
                _ => Detected::Maybe,
            };
        }
        _ if !prefix.mid_stream => return Detected::No,
        _ => {}
    }
    let (client, server) = (talk(Side::Client, prefix.client), talk(Side::Server, prefix.server));
    match (client.verdict, server.verdict) {
        (Looks::No, _) | (_, Looks::No) => Detected::No,
        (Looks::Yes, Looks::Yes) => {
            let answered = client.asked.iter().any(|asked| server.answered.contains(asked));
            if answered { Detected::Certain } else { Detected::Likely }
        }
        // One side alone: only what is long enough.
        (Looks::Yes, Looks::Open) if prefix.server.is_empty() && client.telling => Detected::Likely,
        (Looks::Open, Looks::Yes) if prefix.client.is_empty() && server.telling => Detected::Likely,
        _ => Detected::Maybe,
    }
}

/// What the first packets of a side say.
struct Talk {
    /// `Yes`: at least one was seen.
    verdict: Looks,
    /// Kind of the answer and packet identifier of what was asked.
    asked: Vec<(u8, u16)>,
    answered: Vec<(u8, u16)>,
    /// One of them is more than a few bytes that anybody may send.
    telling: bool,
}

/// Packets that are looked at.
const MAX_PACKETS: usize = 16;

fn talk(side: Side, mut bytes: &[u8]) -> Talk {
    let mut talk = Talk { verdict: Looks::Open, asked: Vec::new(), answered: Vec::new(), telling: false };
    for _ in 0..MAX_PACKETS {
        match Wire.looks(side, bytes, false) {
            Looks::No => {
                talk.verdict = Looks::No;
                return talk;
            }
            Looks::Open => return talk,
            Looks::Yes => talk.verdict = Looks::Yes,
        }
        let Got::Value(fixed) = Fixed::of(bytes) else { return talk };
        let body = bytes.get(fixed.head..).unwrap_or_default();
        let mut reader = Reader::new(body);
        let topic = if fixed.kind == PUBLISH { reader.string() } else { None };
        let id = reader.short().unwrap_or_default();
        match fixed.kind {
            PUBLISH if fixed.qos() == 1 => talk.asked.push((PUBACK, id)),
            PUBLISH if fixed.qos() == 2 => talk.asked.push((PUBREC, id)),
            SUBSCRIBE => talk.asked.push((SUBACK, id)),
            UNSUBSCRIBE => talk.asked.push((UNSUBACK, id)),
            PUBACK | PUBREC | SUBACK | UNSUBACK => talk.answered.push((fixed.kind, id)),
            _ => {}
        }
        talk.telling |= match fixed.kind {
            SUBSCRIBE | UNSUBSCRIBE => true,
            PUBLISH => topic.is_some_and(|topic| topic.len() > 2 && topic.iter().all(u8::is_ascii_graphic)),
            _ => false,
        };
        let Some(rest) = body.get(fixed.rest..) else { return talk };
        bytes = rest;
    }
    talk
}
