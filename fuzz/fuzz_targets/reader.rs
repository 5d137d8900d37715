//! Any bytes as a bundle: `cargo +nightly fuzz run reader` in the repository's root.
//!
//! The input is read twice: as a whole file, and as what follows good file headers. The second half is what a fuzzer
//! would hardly get to, since checksums stand before it; so that it can forge blocks, the input also says where block
//! headers are to be given right checksums.
#![no_main]

use kfr_bundle::block::{BLOCK_HEADER_BYTES, BLOCK_MAGIC};
use kfr_bundle::columns::DataBlock;
use kfr_bundle::{BlockKind, FileHeader, Reader, Uuid};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    read(data.to_vec());
    let header = FileHeader { bundle_id: Uuid::from_bytes([7; 16]), ..FileHeader::new("fuzz") };
    let mut file = [header.encode(), header.encode()].concat();
    file.extend_from_slice(data);
    sign_blocks(&mut file, &header);
    read(file);
});

/// Opens, reads everything, and checks what holds for any input.
fn read(bytes: Vec<u8>) {
    let length = bytes.len() as u64;
    let Ok(reader) = Reader::open_bytes(bytes) else { return };
    let mut end = 0;
    let mut raw = Vec::new();
    for entry in reader.blocks() {
        assert!(entry.offset >= end && entry.end() <= length, "blocks lie in the file, one after the other");
        end = entry.end();
        if reader.read_block(entry, &mut raw).is_ok() {
            assert_eq!(raw.len(), entry.raw_len as usize);
            if entry.kind == BlockKind::DATA {
                let _ = DataBlock::decode(std::mem::take(&mut raw), entry.first_row);
            }
        }
    }
    let mut end = 0;
    for region in &reader.damage().regions {
        assert!(region.offset + region.bytes <= length);
        assert!(region.offset >= end || region.offset < 1024, "damaged regions don't overlap");
        end = region.offset + region.bytes;
    }
    let _ = kfr_bundle::verify::verify_reader(&reader).expect("memory can be read");
}

/// Gives each block header in `file`, and its payload, the checksums that make a reader believe it.
fn sign_blocks(file: &mut [u8], header: &FileHeader) {
    let mut at = 0;
    while let Some(found) = file[at..].windows(BLOCK_MAGIC.len()).position(|window| window == BLOCK_MAGIC) {
        let start = at + found;
        at = start + 1;
        if file.len() < start + BLOCK_HEADER_BYTES {
            return;
        }
        let field = |place: usize| u32::from_le_bytes(file[start + place..start + place + 4].try_into().unwrap());
        let end = start + BLOCK_HEADER_BYTES;
        let payload = file.get(end..end.saturating_add(field(72) as usize)).map(crc);
        if let Some(payload) = payload {
            file[start + 80..start + 84].copy_from_slice(&payload.to_le_bytes());
        }
        file[start + 8..start + 10].copy_from_slice(&(BLOCK_HEADER_BYTES as u16).to_le_bytes());
        file[start + 12..start + 16].fill(0);
        let seal = crc(&[header.bundle_id.as_bytes(), &file[start..end]].concat());
        file[start + 12..start + 16].copy_from_slice(&seal.to_le_bytes());
    }
}

/// CRC32C, bit by bit: small and slow, and no dependency.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}
