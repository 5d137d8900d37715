//! Captures made by hand, and bundles in memory.

#![allow(dead_code)]

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};

use kfr_bundle::events::{SocketEvent, StateEvent, TcpEvent};
use kfr_bundle::{BlockKind, Condition, DataBlock, Reader, Row, Writer, decode_rows};
use kfr_import::{Error, Summary, import};

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Imports a capture; gives the bundle's bytes.
pub fn imported(capture: &[u8]) -> Result<(Summary, Vec<u8>), Error> {
    let memory = Memory::default();
    let stream = memory.clone();
    let summary = import(Cursor::new(capture), "x.pcap", |header| Writer::to_stream(Box::new(stream), header))?;
    let bytes = memory.0.lock().unwrap().clone();
    Ok((summary, bytes))
}

/// A data event, as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    pub socket: u64,
    pub sent: bool,
    pub offset: u64,
    pub length: u32,
    pub payload: Vec<u8>,
    pub time_ns: u64,
}

/// Everything in a bundle.
pub struct Content {
    pub summary: Summary,
    pub data: Vec<Data>,
    pub sockets: Vec<SocketEvent>,
    pub states: Vec<StateEvent>,
    pub tcp: Vec<TcpEvent>,
}

impl Content {
    /// All bytes of one direction of one socket, in the order of the file.
    pub fn bytes(&self, socket: u64, sent: bool) -> Vec<u8> {
        let rows = self.data.iter().filter(|data| data.socket == socket && data.sent == sent);
        rows.flat_map(|data| data.payload.clone()).collect()
    }
}

fn rows<R: Row>(reader: &Reader, kind: BlockKind) -> Vec<R> {
    let mut all = Vec::new();
    for entry in reader.blocks_of(kind) {
        let mut raw = Vec::new();
        reader.read_block(entry, &mut raw).unwrap();
        all.extend(decode_rows::<R>(&raw).unwrap());
    }
    all
}

/// Imports a capture and reads the bundle, which has to be whole and to number its events without gaps.
pub fn content(capture: &[u8]) -> Content {
    let (summary, bytes) = imported(capture).unwrap();
    let reader = Reader::open_bytes(bytes).unwrap();
    assert_eq!(Condition::of(&reader, reader.damage()), Condition::Whole);
    let mut numbers = Vec::new();
    let mut data = Vec::new();
    for entry in reader.blocks_of(BlockKind::DATA) {
        let mut raw = Vec::new();
        reader.read_block(entry, &mut raw).unwrap();
        for row in DataBlock::decode(raw, 0).unwrap().rows() {
            numbers.push(row.sequence);
            data.push(Data {
                socket: row.socket,
                sent: row.direction == 0,
                offset: row.offset,
                length: row.length,
                payload: row.payload.to_vec(),
                time_ns: row.time_ns,
            });
        }
    }
    let sockets: Vec<SocketEvent> = rows(&reader, BlockKind::SOCKETS);
    let states: Vec<StateEvent> = rows(&reader, BlockKind::STATES);
    let tcp: Vec<TcpEvent> = rows(&reader, BlockKind::TCP);
    numbers.extend(sockets.iter().map(|row| row.header.sequence));
    numbers.extend(states.iter().map(|row| row.header.sequence));
    numbers.extend(tcp.iter().map(|row| row.header.sequence));
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..summary.counters.events), "every event is numbered once");
    Content { summary, data, sockets, states, tcp }
}

/// A pcap file (little-endian, µs) of frames with their times in µs.
pub fn pcap(link: u32, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, link] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    for (time_us, frame) in frames {
        let (seconds, fraction, length) =
            ((time_us / 1_000_000) as u32, (time_us % 1_000_000) as u32, frame.len() as u32);
        for field in [seconds, fraction, length, length] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        file.extend_from_slice(frame);
    }
    file
}

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;
pub const RST: u8 = 4;

/// A segment between 10.0.0.1:40000 and 10.0.0.2:80; `up`: from the client.
#[derive(Debug, Clone)]
pub struct Segment {
    pub up: bool,
    pub sequence: u32,
    pub acknowledged: u32,
    pub flags: u8,
    pub payload: Vec<u8>,
    pub id: u16,
    pub hops: u8,
    pub client_port: u16,
}

pub fn segment(up: bool, flags: u8, sequence: u32, acknowledged: u32, payload: &[u8]) -> Segment {
    Segment { up, sequence, acknowledged, flags, payload: payload.to_vec(), id: 0, hops: 64, client_port: 40000 }
}

impl Segment {
    /// As an IPv4 packet.
    pub fn ip(&self) -> Vec<u8> {
        let (client, server) = (self.client_port.to_be_bytes(), 80u16.to_be_bytes());
        let mut tcp = if self.up { [client, server].concat() } else { [server, client].concat() };
        tcp.extend_from_slice(&self.sequence.to_be_bytes());
        tcp.extend_from_slice(&self.acknowledged.to_be_bytes());
        tcp.extend_from_slice(&[0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend_from_slice(&self.payload);
        let ends = if self.up { [1, 2] } else { [2, 1] };
        ip4(6, self.id, self.hops, ends, &tcp)
    }
}

/// An IPv4 packet between 10.0.0.x.
pub fn ip4(protocol: u8, id: u16, hops: u8, ends: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&[0, 0, hops, protocol, 0, 0, 10, 0, 0, ends[0], 10, 0, 0, ends[1]]);
    packet.extend_from_slice(payload);
    packet
}

/// A UDP datagram.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut datagram: Vec<u8> = [source, destination, length, 0].iter().flat_map(|field| field.to_be_bytes()).collect();
    datagram.extend_from_slice(payload);
    datagram
}

/// An Ethernet frame.
pub fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}
