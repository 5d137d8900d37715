//! gRPC over HTTP/2 (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use crate::Stream;

/// `application/grpc` with or without a format; gRPC-Web, whose name begins alike, has other bodies.
pub(super) fn is_content_type(value: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    let starts = value.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME));
    starts && matches!(value.get(NAME.len()), None | Some(b'+' | b';' | b' '))
}

/// `grpc-message` in plain text.
pub(super) fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let digit = |at: usize| value.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let (mut text, mut at) = (Vec::with_capacity(value.len()), 0);
    while let Some(byte) = value.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                text.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                text.push(*byte);
                at += 1;
            }
        }
    }
    text
}

/// Counts messages in one direction of a stream: a flag, four bytes of length, and as many bytes.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub count: u32,
    /// Bytes that the current one still has.
    left: u64,
    /// Its head as far as it was read.
    head: [u8; 5],
    have: usize,
    /// The bytes are no messages, or a head was not seen.
    lost: bool,
}

impl Messages {
    /// True if everything that was read were whole messages, and there was at least one.
    pub fn are_whole(&self) -> bool {
        self.count > 0 && self.left == 0 && self.have == 0 && !self.lost
    }

    /// A part of the body was not seen.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// Reads a frame's payload up to `end`; false if more bytes are needed.
    pub fn read(&mut self, stream: &mut Stream, end: u64) -> bool {
        loop {
            let here = end.saturating_sub(stream.position());
            if here == 0 || stream.is_skipping() {
                return here == 0;
            }
            if self.lost {
                stream.skip(here);
                continue;
            }
            if self.left > 0 {
                let count = self.left.min(here);
                self.left -= count;
                stream.skip(count);
                continue;
            }
            let bytes = stream.bytes();
            let Some(byte) = bytes.first().copied() else {
                if stream.hole().is_none() {
                    return false;
                }
                self.lost = true;
                continue;
            };
            stream.advance(1);
            if let Some(place) = self.head.get_mut(self.have) {
                *place = byte;
            }
            self.have += 1;
            if self.have == self.head.len() {
                let [compressed, length @ ..] = self.head;
                self.have = 0;
                self.left = u64::from(u32::from_be_bytes(length));
                self.lost = compressed > 1;
                self.count += u32::from(!self.lost);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for (value, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=utf-8", true),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            assert_eq!(is_content_type(value.as_bytes()), is, "{value}");
        }
    }

    #[test]
    fn messages_in_plain_text() {
        assert_eq!(percent_decoded(b"caf%C3%A9 100%25 %zz %4"), "café 100% %zz %4".as_bytes());
    }
}
