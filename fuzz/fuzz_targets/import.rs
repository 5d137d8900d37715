//! Any bytes as a packet capture: `cargo +nightly fuzz run import` in the repository's root.
//!
//! The input is taken as a file, as packets behind a good file header (the first byte chooses the link type), and as
//! blocks behind a good section. Whatever becomes a bundle has to be whole.
#![no_main]

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};

use kfr_bundle::{Condition, Reader, Writer};
use libfuzzer_sys::fuzz_target;

const LINKS: [u32; 12] = [0, 1, 9, 10, 51, 101, 104, 105, 113, 119, 127, 276];

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("one thread").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    import(data);
    let Some((first, rest)) = data.split_first() else { return };
    let link = LINKS[usize::from(*first) % LINKS.len()];
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, link] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    // Packets of a length that their first byte says, a millisecond apart.
    let mut packets = rest;
    let mut time = 0u32;
    while let Some((length, after)) = packets.split_first() {
        let (packet, after) = after.split_at(after.len().min(usize::from(*length)));
        packets = after;
        time += 1000;
        for field in [time / 1_000_000, time % 1_000_000, packet.len() as u32, packet.len() as u32] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        file.extend_from_slice(packet);
    }
    import(&file);
    let mut file = vec![0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0];
    file.extend_from_slice(&[0xff; 8]);
    file.extend_from_slice(&[28, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0]);
    file.extend_from_slice(rest);
    import(&file);
});

fn import(capture: &[u8]) {
    let memory = Memory::default();
    let stream = memory.clone();
    let writer = |header: &_| Writer::to_stream(Box::new(stream), header);
    if kfr_import::import(Cursor::new(capture), "fuzz", writer).is_ok() {
        let bytes = memory.0.lock().expect("one thread").clone();
        let reader = Reader::open_bytes(bytes).expect("own bundle");
        assert_eq!(Condition::of(&reader, reader.damage()), Condition::Whole);
    }
}
