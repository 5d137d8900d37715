//! HPACK's Huffman code (RFC 7541, Appendix B).
//!
//! The code is canonical: symbols of one length have consecutive codes in the order of their numbers, and the codes of
//! each length follow those of the shorter ones. So the lengths are all that has to be known.

/// Bits that one look at the table covers: every character that is common in headers has a shorter code.
const FAST_BITS: usize = 10;
const MAX_BITS: usize = 30;
/// The symbol that ends a string; it is never sent, only the first bits of it as padding.
const END: u16 = 256;

/// Length of each symbol's code in bits.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

struct Tables {
    /// By the next [`FAST_BITS`] bits: length and symbol of the code that they begin with; 0 where it is longer.
    fast: [u16; 1 << FAST_BITS],
    /// Symbols in the order of their codes.
    symbols: [u16; 257],
    /// By length: the first code, its place in `symbols`, and how many there are.
    first: [(u32, u16, u16); MAX_BITS + 1],
}

static TABLES: Tables = tables();

// Evaluated by the compiler: an index out of bounds would be a build error.
#[allow(clippy::indexing_slicing)]
const fn tables() -> Tables {
    let mut tables = Tables { fast: [0; 1 << FAST_BITS], symbols: [0; 257], first: [(0, 0, 0); MAX_BITS + 1] };
    let (mut code, mut place, mut length) = (0u32, 0usize, 1usize);
    while length <= MAX_BITS {
        code <<= 1;
        tables.first[length] = (code, place as u16, 0);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                tables.symbols[place] = symbol as u16;
                tables.first[length].2 += 1;
                if length <= FAST_BITS {
                    let from = (code as usize) << (FAST_BITS - length);
                    let mut at = from;
                    while at < from + (1 << (FAST_BITS - length)) {
                        tables.fast[at] = (length as u16) << 8 | symbol as u16;
                        at += 1;
                    }
                }
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    tables
}

/// Appends what `input` stands for to `text`, as long as that has less than `max` bytes. `Err` where it is no such code.
pub(super) fn decode(mut input: &[u8], text: &mut Vec<u8>, max: usize) -> Result<(), ()> {
    // The next bits, from the highest on, and how many there are.
    let (mut bits, mut count) = (0u64, 0usize);
    loop {
        while count <= 56
            && let Some((byte, rest)) = input.split_first()
        {
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
            input = rest;
        }
        if text.len() >= max {
            return Ok(());
        }
        let fast = TABLES.fast.get((bits >> (64 - FAST_BITS)) as usize).copied().unwrap_or_default();
        let mut length = usize::from(fast >> 8);
        let mut symbol = fast & 0xff;
        if length == 0 || length > count {
            // Padding: less than 8 bits, all of them set.
            if count < 8 && (bits | u64::MAX >> count) == u64::MAX {
                return Ok(());
            }
            (length, symbol) = long_code(bits).ok_or(())?;
            if length > count || symbol == END {
                return Err(());
            }
        }
        text.push(symbol as u8);
        bits <<= length;
        count -= length;
    }
}

fn long_code(bits: u64) -> Option<(usize, u16)> {
    TABLES.first.iter().enumerate().skip(1).find_map(|(length, (first, place, codes))| {
        let code = (bits >> (64 - length)) as u32;
        let nth = code.checked_sub(*first).filter(|nth| *nth < u32::from(*codes))?;
        Some((length, *TABLES.symbols.get(usize::from(*place) + nth as usize)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(hex: &str) -> Result<Vec<u8>, ()> {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let mut text = Vec::new();
        decode(&bytes, &mut text, 1 << 20).map(|()| text)
    }

    #[test]
    fn examples_of_the_rfc() {
        // RFC 7541, C.4.1 to C.6.1.
        assert_eq!(decoded("f1e3c2e5f23a6ba0ab90f4ff").unwrap(), b"www.example.com");
        assert_eq!(decoded("a8eb10649cbf").unwrap(), b"no-cache");
        assert_eq!(decoded("25a849e95ba97d7f").unwrap(), b"custom-key");
        assert_eq!(decoded("6402").unwrap(), b"302");
        assert_eq!(decoded("d07abe941054d444a8200595040b8166e082a62d1bff").unwrap(), b"Mon, 21 Oct 2013 20:13:21 GMT");
    }

    #[test]
    fn codes_are_complete_and_every_one_decodes() {
        let space: u64 = LENGTHS.iter().map(|length| 1u64 << (MAX_BITS - usize::from(*length))).sum();
        assert_eq!(space, 1 << MAX_BITS);
        for (place, symbol) in TABLES.symbols.iter().enumerate().filter(|(_, symbol)| **symbol < END) {
            let length = usize::from(LENGTHS[usize::from(*symbol)]);
            let (first, at, _) = TABLES.first[length];
            let code = u64::from(first) + (place - usize::from(at)) as u64;
            let padded = code << (64 - length) | u64::MAX >> length;
            let bytes = &padded.to_be_bytes()[..length.div_ceil(8)];
            let mut text = Vec::new();
            assert_eq!(decode(bytes, &mut text, 9), Ok(()), "{symbol}");
            assert_eq!(text, [*symbol as u8]);
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        assert_eq!(decoded("ffffffff"), Err(()), "the end symbol");
        assert_eq!(decoded("07ff"), Err(()), "padding of 11 bits");
        assert_eq!(decoded("f1e3c2e5f23a6ba0ab90f4"), Err(()), "padding that is none");
        assert_eq!(decoded("").unwrap(), b"");
    }
}
