//! What is written comes back: every row type, data blocks, maps; and what is hostile is refused, not obeyed.

use kfr_bundle::columns::{DataBlock, DataColumns, Peer};
use kfr_bundle::error::DecodeError;
use kfr_bundle::events::{
    DataEvent, DatagramEvent, EventHeader, KIND_DATA, KIND_DATAGRAM, KIND_PROCESS, KIND_SOCKET, KIND_STATE, KIND_TCP,
    ProcessEvent, SocketEvent, StateEvent, TcpEvent,
};
use kfr_bundle::rows::{Anchor, Row, decode_rows, encode_numbered_rows, encode_rows, row_numbers};
use kfr_bundle::{MapWriter, decode_maps};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

/// An event of random bytes, but for what isn't stored: its kind and its padding.
fn event<E: FromBytes>(bytes: &[u8], fix: impl FnOnce(&mut E)) -> E {
    let mut event = E::read_from_prefix(bytes).unwrap().0;
    fix(&mut event);
    event
}

fn header(header: &mut EventHeader, kind: u16) {
    header.kind = kind;
    header.reserved = 0;
}

fn bytes_of(size: usize) -> impl Strategy<Value = Vec<u8>> {
    // Sparse bytes make small numbers and zero columns likely.
    prop_oneof![
        prop::collection::vec(any::<u8>(), size),
        prop::collection::vec(prop_oneof![8 => Just(0u8), 1 => any::<u8>()], size)
    ]
}

fn comes_back<R: Row + PartialEq + std::fmt::Debug>(rows: &[R]) {
    let raw = encode_rows(rows);
    assert_eq!(decode_rows::<R>(&raw).unwrap(), rows);
    assert_eq!(row_numbers(&raw, 7).unwrap(), (7..7 + rows.len() as u32).collect::<Vec<_>>());
    for cut in 0..raw.len().min(200) {
        assert!(decode_rows::<R>(&raw[..cut]).is_err());
    }
}

proptest! {
    #[test]
    fn sockets(seeds in prop::collection::vec(bytes_of(size_of::<SocketEvent>()), 0..20)) {
        comes_back(&seeds.iter().map(|seed| event(seed, |event: &mut SocketEvent| {
            header(&mut event.header, KIND_SOCKET);
            event.reserved = 0;
        })).collect::<Vec<_>>());
    }

    #[test]
    fn states(seeds in prop::collection::vec(bytes_of(size_of::<StateEvent>()), 0..20)) {
        comes_back(&seeds.iter().map(|seed| event(seed, |event: &mut StateEvent| {
            header(&mut event.header, KIND_STATE);
            event.reserved = 0;
        })).collect::<Vec<_>>());
    }

    #[test]
    fn tcp(seeds in prop::collection::vec(bytes_of(size_of::<TcpEvent>()), 0..20)) {
        comes_back(&seeds.iter().map(|seed| event(seed, |event: &mut TcpEvent| {
            header(&mut event.header, KIND_TCP);
            (event.header.thread, event.header.process) = (0, 0);
        })).collect::<Vec<_>>());
    }

    #[test]
    fn processes(seeds in prop::collection::vec(bytes_of(size_of::<ProcessEvent>()), 0..20)) {
        comes_back(&seeds.iter().map(|seed| event(seed, |event: &mut ProcessEvent| {
            header(&mut event.header, KIND_PROCESS);
            event.reserved = 0;
        })).collect::<Vec<_>>());
    }

    #[test]
    fn anchors(times: Vec<(u64, u64, u64, u64)>) {
        comes_back(&times.iter().map(|&(boottime_ns, realtime_ns, monotonic_ns, uncertainty_ns)|
            Anchor { boottime_ns, realtime_ns, monotonic_ns, uncertainty_ns }).collect::<Vec<_>>());
    }

    #[test]
    fn row_numbers_of_a_cut_block(numbers: Vec<u32>, first_row: u32) {
        let rows = vec![Anchor::default(); numbers.len()];
        let raw = encode_numbered_rows(&rows, &numbers, first_row);
        prop_assert_eq!(row_numbers(&raw, first_row).unwrap(), numbers);
        prop_assert_eq!(decode_rows::<Anchor>(&raw).unwrap(), rows);
    }

    #[test]
    fn data(
        seeds in prop::collection::vec((bytes_of(size_of::<DatagramEvent>()), any::<bool>(), 0usize..40), 0..60),
        sockets in 1u64..8,
        narrow: bool,
    ) {
        let mut columns = DataColumns::new();
        let mut events = Vec::new();
        for (index, (seed, datagram, kept)) in seeds.iter().enumerate() {
            let payload = vec![index as u8; *kept];
            let event = event(seed, |event: &mut DatagramEvent| {
                header(&mut event.data.header, if *datagram { KIND_DATAGRAM } else { KIND_DATA });
                if narrow {
                    event.data.socket %= sockets;
                    event.data.header.process %= 2;
                    event.data.direction %= 2;
                    event.data.offset_kind %= 3;
                    event.data.header.cpu %= 4;
                }
                event.data.kept = *kept as u32;
                event.data.reserved = 0;
                event.reserved = 0;
            });
            if *datagram {
                columns.push_datagram(&event, &payload);
            } else {
                columns.push(&event.data, &payload);
            }
            events.push((event, payload));
        }
        let mut raw = Vec::new();
        columns.encode(&mut raw);
        let block = DataBlock::decode(raw.clone(), 100).unwrap();
        prop_assert_eq!(block.len(), events.len());
        let mut again = DataColumns::new();
        for (index, row) in block.rows().enumerate() {
            let (event, payload) = &events[index];
            prop_assert_eq!(row.event(), event.data);
            prop_assert_eq!(row.payload, payload.as_slice());
            prop_assert_eq!(row.row_number, 100 + index as u32);
            let peer = Peer { family: event.peer_family, address: event.peer_address, port: event.peer_port };
            prop_assert_eq!(row.peer, (event.data.header.kind == KIND_DATAGRAM).then_some(peer));
            if index % 3 == 0 {
                again.push_decoded(&row);
            }
        }
        let mut cut = Vec::new();
        again.encode(&mut cut);
        let cut = DataBlock::decode(cut, 0).unwrap();
        for (index, row) in cut.rows().enumerate() {
            prop_assert_eq!(row.row_number, 100 + 3 * index as u32);
            prop_assert_eq!(row.payload, block.payload(3 * index));
            prop_assert_eq!(row.event(), block.row(3 * index).unwrap().event());
        }
        columns.clear();
        raw.clear();
        columns.encode(&mut raw);
        prop_assert_eq!(DataBlock::decode(raw, 0).unwrap().len(), 0);
    }

    #[test]
    fn hostile_content_never_panics(mut raw: Vec<u8>, seeds in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let _ = DataBlock::decode(raw.clone(), 0);
        let _ = decode_rows::<SocketEvent>(&raw);
        let _ = decode_maps::<Sample>(&raw);
        let _ = row_numbers(&raw, 0);
        raw = sample_block();
        for (place, byte) in &seeds {
            let place = place.index(raw.len());
            raw[place] = *byte;
        }
        if let Ok(block) = DataBlock::decode(raw.clone(), u32::MAX) {
            let kept: usize = block.rows().map(|row| row.payload.len()).sum();
            prop_assert!(kept <= raw.len());
        }
    }
}

fn sample_block() -> Vec<u8> {
    let mut columns = DataColumns::new();
    for index in 0..50u64 {
        let mut event = DatagramEvent::default();
        event.data.header.time_ns = index * 1000;
        event.data.header.sequence = index;
        event.data.header.cpu = (index % 3) as u16;
        event.data.socket = index % 5;
        event.data.length = 10;
        if index % 7 == 0 {
            event.peer_port = 53;
            columns.push_datagram(&event, b"0123456789");
        } else {
            columns.push(&event.data, b"abcde");
        }
    }
    let mut raw = Vec::new();
    columns.encode(&mut raw);
    raw
}

#[test]
fn time_bounds_and_sizes_follow_the_rows() {
    let mut columns = DataColumns::new();
    assert_eq!(columns.time_bounds(), None);
    for time_ns in [5, 3, 9] {
        let mut event = DataEvent::default();
        event.header.time_ns = time_ns;
        columns.push(&event, b"xyz");
    }
    assert_eq!(columns.time_bounds(), Some((3, 9)));
    assert_eq!(columns.raw_bytes(), 3 * (size_of::<DataEvent>() + 3));
    columns.clear();
    assert_eq!((columns.len(), columns.raw_bytes(), columns.time_bounds()), (0, 0, None));
}

/// A map of columns by hand: fixmap, fixstr names, bin 8 values.
fn by_hand(rows: u8, columns: &[(&str, &[u8])]) -> Vec<u8> {
    let mut raw = vec![0x80 | (columns.len() as u8 + 1), 0xa4];
    raw.extend_from_slice(b"rows");
    raw.push(rows);
    for (name, value) in columns {
        raw.push(0xa0 | name.len() as u8);
        raw.extend_from_slice(name.as_bytes());
        raw.extend_from_slice(&[0xc4, value.len() as u8]);
        raw.extend_from_slice(value);
    }
    raw
}

#[test]
fn a_missing_column_is_zero_and_an_unknown_one_is_skipped() {
    let raw = by_hand(2, &[("time_ns", &[2, 4]), ("from_the_future", b"whatever")]);
    let events = decode_rows::<TcpEvent>(&raw).unwrap();
    assert_eq!(events.iter().map(|event| event.header.time_ns).collect::<Vec<_>>(), [1, 3]);
    assert!(events.iter().all(|event| event.socket == 0 && event.header.kind == KIND_TCP));
    let block = DataBlock::decode(raw, 0).unwrap();
    assert_eq!(block.time_ns, [1, 3]);
    assert_eq!((block.length.as_slice(), block.payload(1)), ([0, 0].as_slice(), [].as_slice()));
}

#[test]
fn columns_of_another_length_and_values_too_large_are_errors() {
    for column in [[2].as_slice(), &[2, 4, 6], &[2, 0x80]] {
        let error = decode_rows::<TcpEvent>(&by_hand(2, &[("time_ns", column)]));
        assert_eq!(error, Err(DecodeError::Column { column: "time_ns" }));
    }
    let error = decode_rows::<TcpEvent>(&by_hand(1, &[("local_port", &[0xff, 0xff, 0x7f])]));
    assert_eq!(error, Err(DecodeError::Column { column: "local_port" }));
    assert!(decode_rows::<TcpEvent>(&by_hand(2, &[("local_address", &[0; 31])])).is_err());
}

#[test]
fn more_rows_than_bytes_are_refused_before_anything_is_allocated() {
    let mut raw = vec![0x81, 0xa4];
    raw.extend_from_slice(b"rows");
    raw.extend_from_slice(&[0xce, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(decode_rows::<SocketEvent>(&raw), Err(DecodeError::TooManyRows { rows: 0xffff_ffff }));
    assert!(DataBlock::decode(raw, 0).is_err());
    assert!(decode_maps::<Sample>(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
}

#[test]
fn payload_lengths_must_use_up_the_arena() {
    let good = by_hand(1, &[("length", &[3]), ("payload", b"abc")]);
    assert_eq!(DataBlock::decode(good, 0).unwrap().payload(0), b"abc");
    for arena in [b"ab".as_slice(), b"abcd"] {
        assert!(DataBlock::decode(by_hand(1, &[("length", &[3]), ("payload", arena)]), 0).is_err());
    }
    // A cut larger than the length wraps to nearly 4 GiB kept.
    assert!(DataBlock::decode(by_hand(1, &[("cut", &[1]), ("payload", b"abc")]), 0).is_err());
    assert!(DataBlock::decode(by_hand(1, &[("flow", &[9])]), 0).is_err());
    assert!(DataBlock::decode(by_hand(1, &[("peer", &[1])]), 0).is_err());
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    name: String,
    #[serde(default)]
    value: u64,
    inner: Option<Box<Sample>>,
}

#[test]
fn maps_come_back_and_a_malformed_row_is_only_itself() {
    let mut writer = MapWriter::new();
    let sample = Sample { name: "first".into(), value: 1, inner: None };
    let nested = Sample { name: "second".into(), value: 2, inner: Some(Box::new(sample.clone())) };
    writer.push(&sample).unwrap();
    writer.push(&["no", "sample"]).unwrap();
    writer.push(&nested).unwrap();
    assert_eq!(writer.len(), 3);
    let raw = writer.encode();
    assert_eq!(raw.len(), writer.raw_bytes());
    let maps = decode_maps::<Sample>(&raw).unwrap();
    assert_eq!(maps.rows, [(0, sample), (2, nested)]);
    assert_eq!(maps.malformed, 1);
    assert!(raw.windows(4).any(|window| window == b"name"), "fields are named");
}

#[test]
fn deep_nesting_is_refused() {
    let mut writer = MapWriter::new();
    let mut deep = Sample { name: "leaf".into(), value: 0, inner: None };
    for _ in 0..100 {
        deep = Sample { name: "node".into(), value: 0, inner: Some(Box::new(deep)) };
    }
    writer.push(&deep).unwrap();
    assert!(decode_maps::<Sample>(&writer.encode()).is_err());
}
