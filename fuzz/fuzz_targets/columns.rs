//! Any bytes as a block's decompressed content: `cargo +nightly fuzz run columns` in the repository's root.
#![no_main]

use kfr_bundle::columns::{DataBlock, DataColumns};
use kfr_bundle::decode_maps;
use kfr_bundle::events::{ProcessEvent, SocketEvent, StateEvent, TcpEvent};
use kfr_bundle::facts::{HostSample, LedgerFact, Manifest, ProcessFact};
use kfr_bundle::index::IndexRow;
use kfr_bundle::rows::{Anchor, Row, decode_rows, encode_rows, row_numbers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    rows::<SocketEvent>(raw);
    rows::<StateEvent>(raw);
    rows::<TcpEvent>(raw);
    rows::<ProcessEvent>(raw);
    rows::<Anchor>(raw);
    rows::<IndexRow>(raw);
    let _ = row_numbers(raw, 9);
    let _ = decode_maps::<Manifest>(raw);
    let _ = decode_maps::<ProcessFact>(raw);
    let _ = decode_maps::<HostSample>(raw);
    let _ = decode_maps::<LedgerFact>(raw);
    let Ok(block) = DataBlock::decode(raw.to_vec(), 3) else { return };
    // What was understood is written and read back the same.
    let mut columns = DataColumns::new();
    for row in block.rows() {
        columns.push_decoded(&row);
    }
    let mut again = Vec::new();
    columns.encode(&mut again);
    let again = DataBlock::decode(again, 0).expect("own content");
    assert_eq!(again.len(), block.len());
    for (old, new) in block.rows().zip(again.rows()) {
        assert_eq!((old.event(), old.payload, old.peer), (new.event(), new.payload, new.peer));
        assert_eq!(old.row_number, new.row_number);
    }
});

fn rows<R: Row + PartialEq + std::fmt::Debug>(raw: &[u8]) {
    if let Ok(rows) = decode_rows::<R>(raw) {
        assert_eq!(decode_rows::<R>(&encode_rows(&rows)).expect("own content"), rows);
    }
}
