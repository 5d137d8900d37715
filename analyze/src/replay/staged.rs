//! Payload that the other end of a connection kept, until the observer's own events say that it moved.

use std::collections::VecDeque;

use kfr_protocols::{Hole, HoleKind, Stream};

#[derive(Debug, Clone, Copy)]
struct Piece {
    offset: u64,
    length: u64,
    /// Bytes of it that are in `bytes`, from its first one on.
    kept: usize,
    kind: HoleKind,
}

impl Piece {
    fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Contiguous pieces of one direction's payload.
#[derive(Debug, Default)]
pub struct Staged {
    pieces: VecDeque<Piece>,
    bytes: Vec<u8>,
    /// Bytes of `bytes` that are used up.
    used: usize,
}

impl Staged {
    /// Adds the next bytes: `length` of which `payload` is kept.
    pub fn push(&mut self, offset: u64, length: u64, payload: &[u8], kind: HoleKind) {
        if self.used == self.bytes.len() {
            self.bytes.clear();
            self.used = 0;
        } else if self.used > 65536 && self.used > self.bytes.len() / 2 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        self.bytes.extend_from_slice(payload);
        self.pieces.push_back(Piece { offset, length, kept: payload.len(), kind });
    }

    /// Moves the bytes of `offset..offset + length` into `stream`; what is not here becomes holes.
    pub fn move_into(&mut self, offset: u64, length: u64, stream: &mut Stream) {
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            self.drop_before(at);
            let Some(piece) = self.pieces.front_mut().filter(|piece| piece.offset < end) else {
                stream.push_hole(Hole { length: end - at, kind: HoleKind::Gap });
                return;
            };
            if piece.offset > at {
                stream.push_hole(Hole { length: piece.offset - at, kind: HoleKind::Gap });
                at = piece.offset;
            }
            // drop_before has cut the piece, so that it begins at `at`.
            let take = piece.end().min(end) - at;
            let kept = piece.kept.min(usize::try_from(take).unwrap_or(usize::MAX));
            stream.push(self.bytes.get(self.used..self.used + kept).unwrap_or_default());
            if take > kept as u64 {
                stream.push_hole(Hole { length: take - kept as u64, kind: piece.kind });
            }
            self.used += kept;
            piece.kept -= kept;
            piece.offset += take;
            piece.length -= take;
            at += take;
        }
        self.drop_before(end);
    }

    /// Forgets the oldest pieces, until at most `bytes` of payload are left.
    pub fn keep_last(&mut self, bytes: usize) {
        while self.bytes.len() - self.used > bytes
            && let Some(piece) = self.pieces.pop_front()
        {
            self.used += piece.kept;
        }
    }

    /// Gives memory back.
    pub fn rest(&mut self) {
        self.bytes.drain(..self.used);
        self.used = 0;
        self.bytes.shrink_to_fit();
        self.pieces.shrink_to_fit();
    }

    /// Forgets what lies before `offset`.
    pub fn drop_before(&mut self, offset: u64) {
        while let Some(piece) = self.pieces.front_mut() {
            if piece.offset >= offset && piece.length > 0 {
                return;
            }
            let cut = (offset.saturating_sub(piece.offset)).min(piece.length);
            let kept = piece.kept.min(usize::try_from(cut).unwrap_or(usize::MAX));
            self.used += kept;
            piece.kept -= kept;
            piece.offset += cut;
            piece.length -= cut;
            if piece.length > 0 {
                return;
            }
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_at_their_offsets_with_holes_between() {
        let mut staged = Staged::default();
        staged.push(10, 5, b"hello", HoleKind::Cut);
        staged.push(15, 6, b"wor", HoleKind::Cut);
        staged.push(21, 2, b"xy", HoleKind::Cut);
        let mut stream = Stream::default();
        stream.start_at(8);
        staged.move_into(8, 9, &mut stream);
        assert_eq!(stream.skip_hole().map(|(_, hole)| hole), Some(Hole { length: 2, kind: HoleKind::Gap }));
        assert_eq!((stream.bytes(), stream.position()), (&b"hellowo"[..], 10));
        staged.move_into(17, 6, &mut stream);
        assert_eq!(stream.bytes(), b"hellowor");
        assert_eq!(stream.hole(), Some(Hole { length: 3, kind: HoleKind::Cut }));
        stream.skip_hole();
        assert_eq!((stream.bytes(), stream.end()), (&b"xy"[..], 23));
        assert!(staged.pieces.is_empty());
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut staged = Staged::default();
        for offset in 0..4 {
            staged.push(offset * 4, 4, b"abcd", HoleKind::Cut);
            staged.keep_last(9);
        }
        let mut stream = Stream::default();
        staged.move_into(0, 16, &mut stream);
        assert_eq!(stream.skip_hole().map(|(_, hole)| hole.length), Some(8));
        assert_eq!(stream.bytes(), b"abcdabcd");
    }

    #[test]
    fn what_is_skipped_is_forgotten() {
        let mut staged = Staged::default();
        staged.push(0, 4, b"abcd", HoleKind::Cut);
        staged.push(4, 4, b"efgh", HoleKind::Cut);
        staged.drop_before(6);
        let mut stream = Stream::default();
        stream.start_at(6);
        staged.move_into(6, 2, &mut stream);
        assert_eq!(stream.bytes(), b"gh");
    }
}
