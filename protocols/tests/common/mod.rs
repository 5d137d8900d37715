//! A small reader of packet captures for tests: enough TCP to put streams together in the order of the packets, and UDP
//! whose datagrams came in one piece.
#![allow(missing_docs, dead_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use kfr_protocols::{
    Decoder, End, Exchange, Flags, Hole, HoleKind, Output, Parser, Protocol, REGISTRY, Setup, Start, Stream, Streams,
    protocol_named,
};
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

/// One piece of one direction, in the order in which the connection's pieces were captured.
#[derive(Debug, Clone)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// Missing, their number known from what came later.
    Lost(u64),
    /// Cut by the payload limit.
    Cut(u64),
}

#[derive(Debug, Default, Clone)]
pub struct Connection {
    /// (from the client, piece)
    pub pieces: Vec<(bool, Piece)>,
    pub mid_stream: bool,
    pub ports: (u16, u16),
    /// Each piece is one datagram.
    pub datagrams: bool,
}

#[derive(Default)]
struct Side {
    next: Option<u32>,
    /// What the other side has acknowledged: bytes before it that are missing were lost by the capture only.
    acknowledged: Option<u32>,
    /// Sequence numbers count from the first one seen, so that the order of the map is theirs.
    waiting: BTreeMap<u32, Vec<u8>>,
}

#[derive(Default)]
struct Tcp {
    connection: Connection,
    client: Option<(IpAddr, u16)>,
    syn: bool,
    /// Sequence number of the client's SYN: a copy of it opens nothing.
    first: Option<u32>,
    sides: [Side; 2],
}

/// The packets of a file as (link type, bytes).
fn packets(path: &Path) -> Vec<(i32, Vec<u8>)> {
    let file = std::fs::File::open(path).unwrap();
    let mut reader = create_reader(1 << 20, file).unwrap();
    let (mut found, mut links) = (Vec::new(), Vec::new());
    loop {
        match reader.next() {
            Ok((size, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links.push(header.network.0),
                    PcapBlockOwned::Legacy(packet) => found.push((links[0], packet.data.to_vec())),
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => links.push(interface.linktype.0),
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        let data = &packet.data[..(packet.caplen as usize).min(packet.data.len())];
                        found.push((links.get(packet.if_id as usize).copied().unwrap_or(1), data.to_vec()));
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(size);
            }
            Err(PcapError::Incomplete(_)) => {
                if reader.refill().is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    found
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Numbers of the transports.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Strips link and network headers: addresses, and the transport's number and bytes.
fn segment(link: i32, frame: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let mut packet = match link {
        1 => {
            let mut at = 12;
            while matches!(be16(frame, at)?, 0x8100 | 0x88a8) {
                at += 4;
            }
            frame.get(at + 2..)?
        }
        0 | 108 => frame.get(4..)?,
        // FDDI with LLC and SNAP.
        10 => frame.get(21..)?,
        113 => frame.get(16..)?,
        276 => frame.get(20..)?,
        _ => frame,
    };
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let total = usize::from(be16(packet, 2)?);
            let transport = *packet.get(9)?;
            // Of a datagram in fragments, only the first has ports, and none is whole.
            if transport == UDP && be16(packet, 6)? & 0x3fff != 0 {
                return None;
            }
            let total = if total == 0 { packet.len() } else { total };
            packet = packet.get(..total).unwrap_or(packet);
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            Some((address(12)?, address(16)?, transport, packet.get(header..)?))
        }
        6 => {
            let transport = *packet.get(6)?;
            let total = 40 + usize::from(be16(packet, 4)?);
            packet = packet.get(..total).unwrap_or(packet);
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            Some((address(8)?, address(24)?, transport, packet.get(40..)?))
        }
        _ => None,
    }
}

type Address = (IpAddr, u16);

/// The TCP connections and UDP flows of a capture.
pub fn connections(path: &Path) -> Vec<Connection> {
    connections_of(path, |_| true)
}

/// The same, of only those packets that `keep` wants, by their number from 0.
pub fn connections_of(path: &Path, keep: impl Fn(usize) -> bool) -> Vec<Connection> {
    let packets = packets(path).into_iter().enumerate().filter(|(number, _)| keep(*number));
    let packets: Vec<_> = packets.map(|(_, packet)| packet).collect();
    let mut all = tcp_connections(&packets);
    all.extend(udp_flows(&packets));
    all
}

/// Both directions between two addresses and ports, one piece a datagram; the client is who sent first.
fn udp_flows(packets: &[(i32, Vec<u8>)]) -> Vec<Connection> {
    let mut open: BTreeMap<[Address; 2], (Address, usize)> = BTreeMap::new();
    let mut all: Vec<Connection> = Vec::new();
    for (link, frame) in packets {
        let Some((source, target, UDP, datagram)) = segment(*link, frame) else { continue };
        let (Some(from), Some(to)) = (be16(datagram, 0), be16(datagram, 2)) else { continue };
        let (Some(length), Some(data)) = (be16(datagram, 4), datagram.get(8..)) else { continue };
        let length = usize::from(length).saturating_sub(8);
        let data = data.get(..length).unwrap_or(data);
        if data.is_empty() {
            continue;
        }
        let (a, b) = ((source, from), (target, to));
        let (client, index) = *open.entry([a.min(b), a.max(b)]).or_insert_with(|| {
            all.push(Connection { ports: (from, to), datagrams: true, ..Connection::default() });
            (a, all.len() - 1)
        });
        // What the capture itself cut off is lost here: a datagram's hole belongs to its piece.
        all[index].pieces.push((client == a, Piece::Bytes(data.to_vec())));
    }
    all
}

fn tcp_connections(packets: &[(i32, Vec<u8>)]) -> Vec<Connection> {
    let mut open: BTreeMap<[(IpAddr, u16); 2], usize> = BTreeMap::new();
    let mut all: Vec<Tcp> = Vec::new();
    for (link, frame) in packets {
        let Some((source, target, TCP, segment)) = segment(*link, frame) else { continue };
        let (Some(from), Some(to)) = (be16(segment, 0), be16(segment, 2)) else { continue };
        let Some(sequence) = segment.get(4..8).map(|s| u32::from_be_bytes(s.try_into().unwrap())) else { continue };
        let (Some(offset), Some(flags)) = (segment.get(12), segment.get(13)) else { continue };
        let data = segment.get(usize::from(offset >> 4) * 4..).unwrap_or_default();
        let (a, b) = ((source, from), (target, to));
        let key = [a.min(b), a.max(b)];
        let syn = flags & 2 != 0;
        let opens = syn && flags & 16 == 0;
        let known = open.get(&key).map(|index| &all[*index]);
        let reuse = opens && known.is_some_and(|t| !t.connection.pieces.is_empty() && t.first != Some(sequence));
        if reuse {
            open.remove(&key);
        }
        let index = *open.entry(key).or_insert_with(|| {
            all.push(Tcp::default());
            all.len() - 1
        });
        let tcp = &mut all[index];
        if opens {
            tcp.first = Some(sequence);
        }
        if syn {
            tcp.client = Some(if flags & 16 == 0 { a } else { b });
            tcp.syn = true;
        }
        let client = *tcp.client.get_or_insert(if from < to && from < 1024 { b } else { a });
        let is_client = client == a;
        tcp.connection.ports = if is_client { (from, to) } else { (to, from) };
        if let (true, Some(ack)) = (flags & 16 != 0, segment.get(8..12)) {
            tcp.sides[usize::from(is_client)].acknowledged = Some(u32::from_be_bytes(ack.try_into().unwrap()));
            release(&mut tcp.sides[usize::from(is_client)], !is_client, &mut tcp.connection.pieces, 64);
        }
        let side = &mut tcp.sides[usize::from(!is_client)];
        let sequence = if syn { sequence.wrapping_add(1) } else { sequence };
        if syn {
            side.next.get_or_insert(sequence);
        }
        if data.is_empty() {
            continue;
        }
        side.next.get_or_insert(sequence);
        side.waiting
            .entry(sequence)
            .and_modify(|d| {
                if data.len() > d.len() {
                    *d = data.to_vec()
                }
            })
            .or_insert(data.to_vec());
        release(side, is_client, &mut tcp.connection.pieces, 64);
    }
    all.into_iter()
        .map(|mut tcp| {
            for (index, side) in tcp.sides.iter_mut().enumerate() {
                release(side, index == 0, &mut tcp.connection.pieces, 0);
            }
            tcp.connection.mid_stream = !tcp.syn;
            tcp.connection
        })
        .filter(|c| !c.pieces.is_empty())
        .collect()
}

/// Moves what is in order to the pieces; where more than `patience` segments wait for a lost one, it is given up.
fn release(side: &mut Side, client: bool, pieces: &mut Vec<(bool, Piece)>, patience: usize) {
    while let Some(next) = side.next {
        let key = side.waiting.keys().copied().min_by_key(|s| s.wrapping_sub(next) as i32);
        let Some(sequence) = key else { return };
        let ahead = sequence.wrapping_sub(next) as i32;
        if ahead > 0 {
            let lost = side.acknowledged.is_some_and(|ack| ack.wrapping_sub(sequence) as i32 > 0);
            if side.waiting.len() <= patience && !lost {
                return;
            }
            pieces.push((client, Piece::Lost(ahead as u64)));
            side.next = Some(sequence);
            continue;
        }
        let data = side.waiting.remove(&sequence).unwrap();
        let fresh = data.get((-ahead) as usize..).unwrap_or_default();
        if !fresh.is_empty() {
            side.next = Some(next.wrapping_add(fresh.len() as u32));
            pieces.push((client, Piece::Bytes(fresh.to_vec())));
        }
    }
}

/// Detects and decodes a connection, of whose packets `limit` bytes are kept. `None` where nobody claims it.
pub fn decode(connection: &Connection, limit: usize) -> Option<(&'static Protocol, Output)> {
    decode_into(connection, limit, Output::default())
}

/// The same, with what `out` asks for.
pub fn decode_into(connection: &Connection, limit: usize, out: Output) -> Option<(&'static Protocol, Output)> {
    decode_from(connection, limit, [0; 2], out)
}

/// The same, where the streams of the client and the server begin at these offsets.
pub fn decode_from(
    connection: &Connection,
    limit: usize,
    mut offsets: [u64; 2],
    mut out: Output,
) -> Option<(&'static Protocol, Output)> {
    let (client_port, server_port) = connection.ports;
    let mut decoder = Decoder::new(Setup {
        mid_stream: connection.mid_stream,
        // Who sent the first datagram of a flow that was seen need not have sent the first one.
        near_is_client: (!connection.mid_stream && !connection.datagrams).then_some(true),
        ports: [Some(client_port), Some(server_port)],
        datagrams: connection.datagrams,
        ..Setup::default()
    });
    for (client, piece) in &connection.pieces {
        let (end, offset) = if *client { (End::Near, &mut offsets[0]) } else { (End::Far, &mut offsets[1]) };
        let (bytes, hole) = match piece {
            Piece::Bytes(bytes) if bytes.len() > limit => {
                (&bytes[..limit], Some(Hole { length: (bytes.len() - limit) as u64, kind: HoleKind::Cut }))
            }
            Piece::Bytes(bytes) => (bytes.as_slice(), None),
            Piece::Lost(length) => (&[][..], Some(Hole { length: *length, kind: HoleKind::Gap })),
            Piece::Cut(length) => (&[][..], Some(Hole { length: *length, kind: HoleKind::Cut })),
        };
        let fill = |stream: &mut Stream| {
            stream.push(bytes);
            if let Some(hole) = hole {
                stream.push_hole(hole);
            }
        };
        decoder.push(end, *offset, fill, &mut out);
        *offset += bytes.len() as u64 + hole.map_or(0, |hole| hole.length);
    }
    decoder.finish(&mut out);
    decoder.protocol().map(|number| (&REGISTRY[usize::from(number)], out))
}

/// A decoder by its name.
pub fn parser(name: &str, mid_stream: bool) -> Box<dyn Parser> {
    let (_, protocol) = protocol_named(name).unwrap();
    (protocol.parser)(&Start { mid_stream, ..Start::default() })
}

/// Pieces of a conversation: (from the client, bytes).
pub fn pieces(talk: &[(bool, &[u8])]) -> Vec<(bool, Piece)> {
    talk.iter().map(|(client, bytes)| (*client, Piece::Bytes(bytes.to_vec()))).collect()
}

/// Decodes a conversation given as whole sends.
pub fn talk(name: &str, mid_stream: bool, talk: &[(bool, &[u8])]) -> Output {
    run(parser(name, mid_stream).as_mut(), &pieces(talk))
}

/// A MySQL packet.
pub fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    bytes.push(sequence);
    bytes.extend_from_slice(payload);
    bytes
}

/// MySQL packets of one side, numbered from `first`.
pub fn packets_from(first: u8, payloads: &[&[u8]]) -> Vec<u8> {
    payloads.iter().enumerate().flat_map(|(i, payload)| packet(first.wrapping_add(i as u8), payload)).collect()
}

/// Pushes pieces through a decoder, with byte classes.
pub fn run(parser: &mut dyn Parser, pieces: &[(bool, Piece)]) -> Output {
    let mut streams = Streams::default();
    let mut out = Output { marks: Some(Vec::new()), ..Output::default() };
    for (client, piece) in pieces {
        let stream = if *client { &mut streams.client } else { &mut streams.server };
        match piece {
            Piece::Bytes(bytes) => stream.push(bytes),
            Piece::Lost(length) => stream.push_hole(Hole { length: *length, kind: HoleKind::Gap }),
            Piece::Cut(length) => stream.push_hole(Hole { length: *length, kind: HoleKind::Cut }),
        }
        if out.switched.is_none() {
            parser.parse(&mut streams, &mut out);
        }
    }
    if out.switched.is_some() {
        // What a decoder that has no successor leaves.
        out.skipped_bytes[0] += streams.client.end() - streams.client.position();
        out.skipped_bytes[1] += streams.server.end() - streams.server.position();
        return out;
    }
    streams.client.close();
    streams.server.close();
    parser.finish(&mut streams, &mut out);
    out
}

/// One line for people.
pub fn line(e: &Exchange) -> String {
    let names: Vec<_> = Flags::NAMES.iter().filter(|(f, _)| e.flags.contains(*f)).map(|(_, n)| *n).collect();
    format!(
        "{} {} {:?} {} {} {:?} -> {:?} rows {:?} {}",
        e.op,
        e.target.as_deref().unwrap_or("-").chars().take(60).collect::<String>(),
        e.status,
        e.code.as_deref().unwrap_or("-"),
        e.error.as_deref().unwrap_or("-").chars().take(50).collect::<String>(),
        e.request,
        e.response,
        e.rows,
        names.join(",")
    )
}
