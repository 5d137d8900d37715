//! Unpacks the beginning of compressed bytes: as much as is here, and never more than asked for.
//!
//! The payload of a recording is cut, and a few KiB of a message say what it is. So each function takes bytes that may
//! end anywhere and returns what they hold up to `limit`; what is wrong or missing ends it early. Snappy and LZ4 blocks
//! are read here: the crates for them want the whole block and a buffer of the size that the block itself claims.

use flate2::{Decompress, FlushDecompress};
use zstd::stream::raw::{DParameter, Decoder, Operation};

/// Windows of Zstandard frames that are followed, as a power of two (8 MiB, what every decoder must accept by RFC 8878).
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

/// Bytes that a packed byte may become, where the format sets no bound (LZ4 does: 255), so that a flood of small bombs
/// costs no more than any other flood; and those that are free.
const MAX_RATIO: usize = 256;
const MIN_LIMIT_BYTES: usize = 4096;

/// Bytes by which the output grows at least and at most.
pub(crate) const MIN_GROWTH: usize = 4 << 10;
const MAX_GROWTH: usize = 1 << 20;

fn bounded(packed: &[u8], limit: usize) -> usize {
    limit.min(packed.len().saturating_mul(MAX_RATIO).saturating_add(MIN_LIMIT_BYTES))
}

/// Appends what a zlib stream (RFC 1950) holds to `out`, which is empty, up to one byte more than `limit`, so that more can
/// be told from as much. Whether the stream ended; `None` where it is broken.
pub(crate) fn zlib_stream(packed: &[u8], limit: usize, out: &mut Vec<u8>) -> Option<bool> {
    let mut stream = Decompress::new(true);
    loop {
        let read = usize::try_from(stream.total_in()).ok()?;
        let before = grow(out, limit);
        let status = stream.decompress(packed.get(read..)?, out.get_mut(before..)?, FlushDecompress::None);
        out.truncate(usize::try_from(stream.total_out()).ok()?);
        match status {
            Ok(flate2::Status::StreamEnd) => return Some(true),
            Ok(_) if out.len() > limit => return Some(false),
            Ok(_) if out.len() == before && stream.total_in() == read as u64 => return Some(false),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// The same for a Zstandard frame (RFC 8878) with a window of `max_window_log` bits at most.
pub(crate) fn zstd_frame(mut packed: &[u8], limit: usize, max_window_log: u32, out: &mut Vec<u8>) -> Option<bool> {
    let mut stream = Decoder::new().ok()?;
    stream.set_parameter(DParameter::WindowLogMax(max_window_log)).ok()?;
    loop {
        let before = grow(out, limit);
        let status = stream.run_on_buffers(packed, out.get_mut(before..)?);
        let (read, written) = status.as_ref().map_or((0, 0), |status| (status.bytes_read, status.bytes_written));
        out.truncate(before + written);
        packed = packed.get(read..)?;
        match status {
            Ok(status) if status.remaining == 0 => return Some(true),
            Ok(_) if out.len() > limit => return Some(false),
            Ok(_) if read == 0 && written == 0 => return Some(false),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Makes room for more output; gives the length before.
fn grow(out: &mut Vec<u8>, limit: usize) -> usize {
    let before = out.len();
    let room = limit.saturating_add(1).saturating_sub(before);
    out.resize(before + room.min(before.clamp(MIN_GROWTH, MAX_GROWTH)), 0);
    before
}

/// Up to `limit` bytes of a zlib stream (RFC 1950).
pub(crate) fn zlib(packed: &[u8], limit: usize) -> Vec<u8> {
    let (limit, mut out) = (bounded(packed, limit), Vec::new());
    let _ = zlib_stream(packed, limit, &mut out);
    out.truncate(limit);
    out
}

/// Up to `limit` bytes of a Zstandard frame (RFC 8878).
pub(crate) fn zstd(packed: &[u8], limit: usize) -> Vec<u8> {
    let (limit, mut out) = (bounded(packed, limit), Vec::new());
    let _ = zstd_frame(packed, limit, MAX_ZSTD_WINDOW_LOG, &mut out);
    out.truncate(limit);
    out
}

/// Copies `length` bytes from `distance` back, which may overlap what is written; false where there are not so many.
fn copy_back(out: &mut Vec<u8>, distance: usize, length: usize, limit: usize) -> bool {
    let Some(from) = out.len().checked_sub(distance).filter(|_| distance > 0) else { return false };
    for at in from..from + length.min(limit.saturating_sub(out.len())) {
        let Some(byte) = out.get(at).copied() else { return false };
        out.push(byte);
    }
    true
}

/// Up to `limit` bytes of an LZ4 block (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>).
pub(crate) fn lz4(packed: &[u8], limit: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut input = packed.iter();
    let long = |short: u8, input: &mut std::slice::Iter<'_, u8>| {
        let mut length = usize::from(short);
        let mut more = if short == 15 { 255 } else { 0 };
        while more == 255 {
            more = *input.next()?;
            length = length.saturating_add(usize::from(more));
        }
        Some(length)
    };
    while out.len() < limit {
        let Some(token) = input.next() else { break };
        let Some(literals) = long(token >> 4, &mut input) else { break };
        let rest = input.as_slice();
        let room = limit - out.len();
        let here = rest.get(..literals.min(room)).unwrap_or(rest);
        out.extend_from_slice(here);
        let Some(rest) = rest.get(literals..) else { break };
        input = rest.iter();
        let (Some(low), Some(high)) = (input.next(), input.next()) else { break };
        let Some(length) = long(token & 15, &mut input) else { break };
        if !copy_back(&mut out, usize::from(u16::from_le_bytes([*low, *high])), length.saturating_add(4), limit) {
            break;
        }
    }
    out.truncate(limit);
    out
}

/// Up to `limit` bytes of a Snappy block (<https://github.com/google/snappy/blob/main/format_description.txt>).
pub(crate) fn snappy(packed: &[u8], limit: usize) -> Vec<u8> {
    let mut cursor = crate::cursor::Cursor::new(packed);
    let mut out = Vec::new();
    // The length of the whole: not needed, as it ends with the bytes.
    if cursor.varint().is_none() {
        return out;
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0usize, |n, byte| n << 8 | usize::from(*byte));
    while out.len() < limit {
        let Some(tag) = cursor.u8() else { break };
        let high = usize::from(tag >> 2);
        let (length, distance) = match tag & 3 {
            0 => {
                let length = if high < 60 { Some(high) } else { cursor.take(high - 59).map(number) };
                let Some(length) = length else { break };
                let wanted = length + 1;
                let here = cursor.take_some(wanted);
                let room = limit - out.len();
                out.extend_from_slice(here.get(..room).unwrap_or(here));
                if here.len() < wanted {
                    break;
                }
                continue;
            }
            1 => ((high & 7) + 4, cursor.u8().map(|low| high >> 3 << 8 | usize::from(low))),
            2 => (high + 1, cursor.take(2).map(number)),
            _ => (high + 1, cursor.take(4).map(number)),
        };
        let Some(distance) = distance else { break };
        if !copy_back(&mut out, distance, length, limit) {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"a flight recorder, a flight recorder, a flight recorder";

    // Written by the libraries of the formats' authors (python3-snappy, python3-lz4).
    const SNAPPY: &[u8] = b"\x37\x48a flight recorder, \x8e\x13\x00";
    const LZ4: &[u8] = b"\xff\x04a flight recorder, \x13\x00\x0c\x50order";

    #[test]
    fn blocks_are_unpacked_as_far_as_they_go() {
        assert_eq!(snappy(SNAPPY, 100), TEXT);
        for end in 0..SNAPPY.len() {
            assert!(TEXT.starts_with(&snappy(&SNAPPY[..end], 100)), "{end}");
        }
        assert_eq!(snappy(SNAPPY, 30), &TEXT[..30]);
        assert_eq!(snappy(SNAPPY, 5), &TEXT[..5]);
        for end in 0..LZ4.len() {
            assert!(TEXT.starts_with(&lz4(&LZ4[..end], 100)), "{end}");
        }
        assert_eq!(lz4(LZ4, 30), &TEXT[..30]);
    }

    #[test]
    fn streams_are_unpacked_as_far_as_they_go() {
        let long: Vec<u8> = (0..5000).flat_map(|n| format!("{n} flights, {}; ", n * n).into_bytes()).collect();
        let packed = ::zstd::bulk::compress(&long, 3).unwrap();
        assert_eq!(zstd(&packed, 1 << 20), long);
        assert_eq!(zstd(&packed, 1000), &long[..1000]);
        assert!(long.starts_with(&zstd(&packed[..packed.len() / 2], 1 << 20)));
        let mut deflate = flate2::Compress::new(flate2::Compression::default(), true);
        let mut packed = Vec::with_capacity(1 << 16);
        deflate.compress_vec(&long, &mut packed, flate2::FlushCompress::Finish).unwrap();
        assert_eq!(zlib(&packed, 1 << 20), long);
        assert_eq!(zlib(&packed, 1000), &long[..1000]);
        assert!(!zlib(&packed[..packed.len() / 2], 1 << 20).is_empty());
    }

    #[test]
    fn a_bomb_stays_small() {
        let bomb = ::zstd::bulk::compress(&vec![0; 16 << 20], 19).unwrap();
        let most = bomb.len() * MAX_RATIO + MIN_LIMIT_BYTES;
        assert_eq!(zstd(&bomb, 16 << 20).len(), most.min(16 << 20));
    }

    #[test]
    fn nonsense_gives_little_and_no_more_than_the_limit() {
        let mut random = 1u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..200)
                .map(|_| {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (random >> 56) as u8
                })
                .collect();
            for unpack in [snappy, lz4, zlib, zstd] {
                assert!(unpack(&bytes, 1000).len() <= 1000);
            }
        }
        assert!(lz4(&[0xff; 100_000], 1000).is_empty());
    }
}
