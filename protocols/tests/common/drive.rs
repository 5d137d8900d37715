//! Turns any bytes into a conversation for a decoder, and checks what holds whatever it is. Shared by the fuzz targets and
//! by a test that mutates recordings.
//!
//! An input is: one byte that chooses the protocol, one of flags, then steps. A step is one byte (bit 7: the far end sends;
//! bits 6 and 5: what; bits 4 to 0: length, 31: two bytes of length follow), then its bytes.
#![allow(dead_code, missing_docs)]

use kfr_protocols::{Decoder, End, Hole, HoleKind, Options, Output, REGISTRY, Setup, Side, Stream, protocol_named};

pub const MID_STREAM: u8 = 1;
pub const DATAGRAMS: u8 = 2;
pub const LITERALS: u8 = 4;
pub const NEAR_IS_CLIENT: u8 = 8;
pub const MARKS: u8 = 16;
/// Which of [`PORTS`], in the upper three bits.
const PORTS_SHIFT: u8 = 5;

const PORTS: [[Option<u16>; 2]; 8] = [
    [None, None],
    [Some(40_000), Some(53)],
    [Some(5353), Some(5353)],
    [Some(40_000), Some(80)],
    [Some(40_000), Some(443)],
    [Some(6000), Some(6000)],
    [Some(40_000), Some(5355)],
    [Some(53), Some(40_000)],
];

const BYTES: u8 = 0;
/// Bytes and a cut right behind them; one more byte in front tells its length, in units of 16.
const CUT_BYTES: u8 = 1;
const CUT: u8 = 2;
const GAP: u8 = 3;
const FAR: u8 = 0x80;
const LONG: u8 = 31;

/// Decodes `input`. `name`: the protocol that is told to the decoder, or left for it to find out; without it any of the
/// registry.
pub fn drive(name: Option<&str>, input: &[u8]) {
    let [choice, flags, steps @ ..] = input else { return };
    let hint = match name {
        Some(name) => protocol_named(name).map(|(number, _)| number).filter(|_| choice & 1 == 0),
        None => Some(u16::from(*choice) % (REGISTRY.len() as u16 + 1)).filter(|n| usize::from(*n) < REGISTRY.len()),
    };
    let mut datagrams = flags & DATAGRAMS != 0;
    if let Some(protocol) = hint.and_then(|number| REGISTRY.get(usize::from(number))) {
        datagrams = datagrams && protocol.datagrams || !protocol.streams;
    }
    let mut decoder = Decoder::new(Setup {
        options: Options { literals: flags & LITERALS != 0 },
        mid_stream: flags & MID_STREAM != 0,
        datagrams,
        near_is_client: (flags & NEAR_IS_CLIENT != 0).then_some(true),
        ports: PORTS[usize::from(flags >> PORTS_SHIFT)],
        hint,
    });
    let wanted = flags & MARKS != 0;
    let mut out = Output { marks: wanted.then(Vec::new), names: wanted.then(Vec::new), ..Output::default() };
    let mut sent = [0_u64; 2];
    let mut rest = steps;
    while let Some(step) = next(&mut rest) {
        if step.bytes.is_empty() && step.hole.is_none() {
            decoder.rest();
            continue;
        }
        let offset = sent[usize::from(step.far)];
        let fill = |stream: &mut Stream| {
            stream.push(step.bytes);
            if let Some(hole) = step.hole {
                stream.push_hole(hole);
            }
        };
        decoder.push(if step.far { End::Far } else { End::Near }, offset, fill, &mut out);
        sent[usize::from(step.far)] += step.bytes.len() as u64 + step.hole.map_or(0, |hole| hole.length);
    }
    decoder.finish(&mut out);
    check(&out, sent, decoder.near_is_client() != Some(false));
}

struct Step<'a> {
    far: bool,
    bytes: &'a [u8],
    hole: Option<Hole>,
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<Step<'a>> {
    let mut byte = || {
        let (first, behind) = rest.split_first()?;
        *rest = behind;
        Some(*first)
    };
    let head = byte()?;
    let what = head >> 5 & 3;
    let length = match head & LONG {
        LONG => usize::from(u16::from_le_bytes([byte()?, byte()?])),
        short => usize::from(short),
    };
    let mut hole = match what {
        CUT if length > 0 => Some(Hole { length: length as u64, kind: HoleKind::Cut }),
        GAP if length > 0 => Some(Hole { length: length as u64, kind: HoleKind::Gap }),
        CUT_BYTES => Some(Hole { length: u64::from(byte()?) * 16 + 1, kind: HoleKind::Cut }),
        _ => None,
    };
    let mut bytes = &[][..];
    if what == BYTES || what == CUT_BYTES {
        let (taken, behind) = rest.split_at(length.min(rest.len()));
        bytes = taken;
        *rest = behind;
        if bytes.is_empty() {
            hole = None;
        }
    }
    Some(Step { far: head & FAR != 0, bytes, hole })
}

/// What holds for any input.
fn check(out: &Output, sent: [u64; 2], near_is_client: bool) {
    let [client, server] = if near_is_client { sent } else { [sent[1], sent[0]] };
    let total = client + server;
    assert!(out.exchanges.len() as u64 <= total + 16, "{} exchanges of {total} bytes", out.exchanges.len());
    assert!(out.skipped_bytes.iter().sum::<u64>() <= total, "{:?} skipped of {total}", out.skipped_bytes);
    for exchange in &out.exchanges {
        // A request may announce a body that is never sent.
        assert!(exchange.request.start <= exchange.request.end && exchange.request.start <= client, "{exchange:?}");
        if let Some(response) = &exchange.response {
            assert!(response.start <= response.end && response.end <= server, "{exchange:?} {server}");
        }
        assert!(exchange.op.len() <= 8192 && exchange.protocol.is_some(), "{exchange:?}");
    }
    // They may reach beyond what was sent: an announced body is classified before it comes.
    for side in [Side::Client, Side::Server] {
        let mut marks: Vec<_> = out.marks.iter().flatten().filter(|mark| mark.side == side).map(|m| &m.range).collect();
        marks.sort_by_key(|range| (range.start, range.end));
        let mut at = 0;
        for range in marks {
            assert!(range.start >= at && range.start <= range.end, "{side:?}: {range:?} begins before {at}");
            at = range.end;
        }
    }
    assert!(out.names.as_ref().is_none_or(|names| names.len() as u64 <= total));
}

/// Writes an input: a conversation's sends (true: the near end), each one step.
pub fn encode<'a>(
    flags: u8,
    ports: (u16, u16),
    sends: impl Iterator<Item = (bool, Result<&'a [u8], Hole>)>,
) -> Vec<u8> {
    let ports = PORTS.iter().position(|known| *known == [Some(ports.0), Some(ports.1)] || known[1] == Some(ports.1));
    let mut input = vec![0, flags | (ports.unwrap_or(0) as u8) << PORTS_SHIFT];
    for (near, piece) in sends {
        let far = if near { 0 } else { FAR };
        match piece {
            Ok(bytes) => {
                for part in bytes.chunks(usize::from(u16::MAX)) {
                    push_head(&mut input, far | BYTES << 5, part.len());
                    input.extend_from_slice(part);
                }
            }
            Err(hole) => {
                let what = if hole.kind == HoleKind::Cut { CUT } else { GAP };
                push_head(&mut input, far | what << 5, hole.length.min(u64::from(u16::MAX)) as usize);
            }
        }
    }
    input
}

fn push_head(input: &mut Vec<u8>, head: u8, length: usize) {
    if length < usize::from(LONG) {
        input.push(head | length as u8);
    } else {
        input.push(head | LONG);
        input.extend_from_slice(&(length as u16).to_le_bytes());
    }
}
