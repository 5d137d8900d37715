//! How columns hold integers: LEB128 varints, of values or of zigzag differences.
//!
//! The formats are described in `docs/FORMAT.md`. Differences are taken modulo 2^64, so any value follows any other.

/// Maps small differences of either sign to small numbers: 0, -1, 1, -2 … to 0, 1, 2, 3 ….
#[inline]
pub(crate) fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (((difference as i64) >> 63) as u64)
}

/// Undoes [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// Appends `value`, seven bits a byte, lowest first; a set high bit says that another byte follows.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Squeezes eight groups of seven bits, one a byte, into 56 bits.
#[inline]
fn squeeze(word: u64) -> u64 {
    let word = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
    let word = (word & 0x0000_3fff_0000_3fff) | ((word & 0x3fff_0000_3fff_0000) >> 2);
    (word & 0x0fff_ffff) | ((word & 0x0fff_ffff_0000_0000) >> 4)
}

/// Reads one varint; `None` if the bytes end within it or it has bits above the 64th.
#[inline]
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    if let Some((&first, rest)) = bytes.split_first()
        && first < 0x80
    {
        *bytes = rest;
        return Some(u64::from(first));
    }
    if let Some(word) = bytes.first_chunk::<8>().map(|chunk| u64::from_le_bytes(*chunk)) {
        let stops = !word & HIGH_BITS;
        if stops != 0 {
            let length = stops.trailing_zeros() / 8 + 1;
            let kept = word & (u64::MAX >> (64 - 8 * length)) & !HIGH_BITS;
            *bytes = bytes.get(length as usize..).unwrap_or_default();
            return Some(squeeze(kept));
        }
    }
    take_varint_slow(bytes)
}

#[cold]
fn take_varint_slow(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if index == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Gives each of `count` varints to `each`, which says whether the value is acceptable; `None` unless `bytes` hold
/// exactly that many acceptable values.
#[inline]
pub(crate) fn for_each_varint(mut bytes: &[u8], count: usize, mut each: impl FnMut(u64) -> bool) -> Option<()> {
    let mut left = count;
    while left >= 8
        && let Some(chunk) = bytes.first_chunk::<8>()
    {
        if u64::from_le_bytes(*chunk) & HIGH_BITS == 0 {
            for &byte in chunk {
                if !each(u64::from(byte)) {
                    return None;
                }
            }
            bytes = bytes.get(8..).unwrap_or_default();
            left -= 8;
        } else {
            // Some of the next values are long: take four one by one before looking for another run of short ones.
            for _ in 0..4 {
                if !each(take_varint(&mut bytes)?) {
                    return None;
                }
            }
            left -= 4;
        }
    }
    for _ in 0..left {
        if !each(take_varint(&mut bytes)?) {
            return None;
        }
    }
    bytes.is_empty().then_some(())
}

/// A type that a column can hold.
pub(crate) trait Cell: Copy + PartialEq {
    /// Appends all values to `out`; returns false if all were zero (then the column is left out).
    fn encode(values: impl Iterator<Item = Self>, out: &mut Vec<u8>) -> bool;

    /// Fills `cells` (of which there are `count`) from a column; `None` unless it holds exactly as many valid values.
    fn decode<'a>(bytes: &[u8], count: usize, cells: impl Iterator<Item = &'a mut Self>) -> Option<()>
    where
        Self: 'a;
}

macro_rules! integer_cell {
    ($($integer:ty),*) => {$(
        /// Zigzag difference from the row before (0 before the first), as varint.
        impl Cell for $integer {
            fn encode(values: impl Iterator<Item = Self>, out: &mut Vec<u8>) -> bool {
                let mut last = 0;
                let mut any = false;
                for value in values {
                    let value = u64::from(value);
                    any |= value != 0;
                    put_varint(out, zigzag(value.wrapping_sub(last)));
                    last = value;
                }
                any
            }

            fn decode<'a>(bytes: &[u8], count: usize, mut cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
                let mut last = 0u64;
                for_each_varint(bytes, count, |value| {
                    last = last.wrapping_add(unzigzag(value));
                    match (cells.next(), Self::try_from(last)) {
                        (Some(cell), Ok(value)) => {
                            *cell = value;
                            true
                        }
                        _ => false,
                    }
                })
            }
        }
    )*};
}

integer_cell!(u16, u32, u64);

/// One byte a row.
impl Cell for u8 {
    fn encode(values: impl Iterator<Item = Self>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.extend(values);
        out.get(start..).unwrap_or_default().iter().any(|byte| *byte != 0)
    }

    fn decode<'a>(bytes: &[u8], count: usize, cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
        if bytes.len() != count {
            return None;
        }
        for (cell, byte) in cells.zip(bytes) {
            *cell = *byte;
        }
        Some(())
    }
}

/// `N` bytes a row.
impl<const N: usize> Cell for [u8; N] {
    fn encode(values: impl Iterator<Item = Self>, out: &mut Vec<u8>) -> bool {
        let mut any = false;
        for value in values {
            any |= value != [0; N];
            out.extend_from_slice(&value);
        }
        any
    }

    fn decode<'a>(bytes: &[u8], count: usize, cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
        if Some(bytes.len()) != count.checked_mul(N) {
            return None;
        }
        for (cell, value) in cells.zip(bytes.as_chunks::<N>().0) {
            *cell = *value;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_come_back(values: Vec<u64>, shift in 0u32..64) {
            let mut bytes = Vec::new();
            for value in &values {
                put_varint(&mut bytes, value >> shift);
            }
            let mut back = Vec::new();
            let result = for_each_varint(&bytes, values.len(), |value| { back.push(value << shift); true });
            prop_assert_eq!(result, Some(()));
            prop_assert_eq!(back, values.iter().map(|value| value >> shift << shift).collect::<Vec<_>>());
        }

        #[test]
        fn zigzag_comes_back(value: u64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn any_bytes_are_values_or_refused(bytes: Vec<u8>, count in 0usize..64) {
            let mut slow = Vec::new();
            let mut rest = bytes.as_slice();
            for _ in 0..count {
                match take_varint_slow(&mut rest) {
                    Some(value) => slow.push(value),
                    None => { slow.clear(); rest = &[0]; break }
                }
            }
            let mut fast = Vec::new();
            let result = for_each_varint(&bytes, count, |value| { fast.push(value); true });
            prop_assert_eq!(result.is_some(), rest.is_empty());
            if result.is_some() {
                prop_assert_eq!(fast, slow);
            }
        }
    }

    #[test]
    fn an_eleventh_byte_or_a_65th_bit_is_refused() {
        assert_eq!(take_varint(&mut [0xff; 11].as_slice()), None);
        let mut largest = vec![0xff; 9];
        largest.push(1);
        assert_eq!(take_varint(&mut largest.as_slice()), Some(u64::MAX));
        largest[9] = 2;
        assert_eq!(take_varint(&mut largest.as_slice()), None);
    }
}
