//! Counts records without reading them: <https://kafka.apache.org/documentation/#messageformat>.

use crate::cursor::{be16, be32};

/// What stands before a batch's length: the offset and the length itself.
const BEFORE: u64 = 12;

/// Records in `length` bytes of batches or messages, the first of which are `bytes`. A part of a batch at the end, which
/// a broker may send, is none. `None` where that can't be told: compressed messages of the formats before 2, or what is
/// needed is missing.
pub(crate) fn count(bytes: &[u8], length: u64) -> Option<u64> {
    let (mut at, mut count) = (0u64, 0u64);
    while length.saturating_sub(at) > BEFORE {
        let here = bytes.get(usize::try_from(at).ok()?..)?;
        let size = u64::try_from(be32(here, 8)?).ok()?;
        let end = at + BEFORE + size;
        if end > length || size == 0 {
            break;
        }
        match *here.get(16)? {
            // Attributes at 21, the number of records at 57. A control batch (bit 5) marks a transaction's end.
            2 if be16(here, 21)? & 0x20 != 0 => {}
            2 => count = count.saturating_add(u64::try_from(be32(here, 57)?).ok()?),
            // Attributes at 17: the lowest bits name the compression.
            0 | 1 if here.get(17)? & 7 == 0 => count = count.saturating_add(1),
            _ => return None,
        }
        at = end;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(records: i32, attributes: u16) -> Vec<u8> {
        let mut bytes = vec![0; 61];
        bytes[11] = 49;
        bytes[16] = 2;
        bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
        bytes[57..].copy_from_slice(&records.to_be_bytes());
        bytes
    }

    #[test]
    fn batches_tell_their_records() {
        let two = [batch(3, 0), batch(4, 2), batch(1, 0x20)].concat();
        assert_eq!(count(&two, two.len() as u64), Some(7));
        assert_eq!(count(&two, two.len() as u64 - 1), Some(7), "a part of a batch");
        assert_eq!(count(&two[..100], two.len() as u64), None, "a head is missing");
        assert_eq!(count(&two[..61], 61), Some(3));
        assert_eq!(count(&[], 0), Some(0));
        assert_eq!(count(&[0xff; 200], 200), None);
    }

    #[test]
    fn old_messages_count_unless_compressed() {
        let mut old = vec![0; 26];
        old[11] = 14;
        assert_eq!(count(&[old.clone(), old.clone()].concat(), 52), Some(2));
        old[17] = 1;
        assert_eq!(count(&old, 26), None);
    }
}
