//! What compressed frames hold, zlib or zstd, never more of it than they announce.

use crate::unpack;

/// RFC 8878, 3.1.1: the magic number of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Base-2 logarithm of the largest zstd window that is granted: that of the longest frame.
const MAX_WINDOW_LOG: u32 = 24;

/// How decompressing went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inflated {
    /// To the end, and the length is the one announced; or as far as the input went, which was cut.
    Sound,
    /// The input is no such stream, breaks off, or holds less or more than announced.
    Damaged,
}

/// How compressed bytes begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Zlib,
    Zstd,
}

/// The format of compressed bytes; `None` where it is neither, or too few are there. Both begin with something of their
/// own, so what was agreed on doesn't have to be known.
pub(super) fn format(bytes: &[u8]) -> Option<Format> {
    match bytes {
        _ if bytes.starts_with(&ZSTD_MAGIC) => Some(Format::Zstd),
        // RFC 1950, 2.2: method 8, window of 32 KiB at most, no dictionary, a multiple of 31.
        &[method, flags, ..] => {
            let fits = method & 0x0f == 8 && method >> 4 <= 7 && flags & 0x20 == 0;
            (fits && u16::from_be_bytes([method, flags]).is_multiple_of(31)).then_some(Format::Zlib)
        }
        _ => None,
    }
}

/// Appends to `out`, which is empty, what `input` holds: `announced` bytes, or the beginning of them where the input is
/// `cut`.
pub(super) fn inflate(input: &[u8], announced: usize, cut: bool, out: &mut Vec<u8>) -> Inflated {
    let whole = unpack(input, announced, out);
    // One byte more than announced is allowed for above, to see that there is more.
    if out.len() > announced {
        out.clear();
        return Inflated::Damaged;
    }
    match whole {
        Some(true) if out.len() == announced => Inflated::Sound,
        Some(false) if cut => Inflated::Sound,
        _ => Inflated::Damaged,
    }
}

/// The first `count` bytes of what `input` holds, or fewer.
pub(super) fn first(input: &[u8], count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    unpack(input, count, &mut out);
    out
}

/// Whether the stream ended within `input` and the bound; `None` where it is broken.
fn unpack(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Option<bool> {
    match format(input)? {
        Format::Zlib => unpack::zlib_stream(input, limit, out),
        Format::Zstd => unpack::zstd_frame(input, limit, MAX_WINDOW_LOG, out),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn both(bytes: &[u8]) -> [Vec<u8>; 2] {
        [deflated(bytes), zstd::bulk::compress(bytes, 3).unwrap()]
    }

    #[test]
    fn what_was_announced_and_no_more() {
        let text = b"select something from somewhere ".repeat(9000);
        for packed in both(&text) {
            let run = |input: &[u8], announced, cut| {
                let mut out = Vec::new();
                let how = inflate(input, announced, cut, &mut out);
                assert!(out.len() <= announced && out.capacity() <= announced * 2 + 2 * unpack::MIN_GROWTH);
                assert!(text.starts_with(&out));
                (how, out.len())
            };
            assert_eq!(run(&packed, text.len(), false), (Inflated::Sound, text.len()));
            assert_eq!(run(&packed, text.len() - 1, false), (Inflated::Damaged, 0));
            assert_eq!(run(&packed, 1, false), (Inflated::Damaged, 0));
            assert_eq!(run(&packed, text.len() + 1, false), (Inflated::Damaged, text.len()));
            let half = &packed[..packed.len() / 2];
            assert_eq!(run(half, text.len(), true).0, Inflated::Sound);
            assert_eq!(run(half, text.len(), false).0, Inflated::Damaged);
            assert_eq!(first(&packed, 10)[..10], text[..10]);
        }
        assert_eq!(inflate(b"\x78\x9c\xff\xff", 9, true, &mut Vec::new()), Inflated::Damaged);
    }

    #[test]
    fn bombs_stay_small() {
        for packed in both(&vec![0; 64 << 20]) {
            let mut out = Vec::new();
            assert_eq!(inflate(&packed, 5000, false, &mut out), Inflated::Damaged);
            assert!(out.capacity() < 20_000);
        }
    }
}
