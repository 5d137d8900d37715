//! memcached: the text protocol with its meta commands
//! (<https://github.com/memcached/memcached/blob/master/doc/protocol.txt>), the binary protocol
//! (<https://github.com/memcached/memcached/wiki/BinaryProtocolRevamped>), and both over UDP.

mod binary;
mod detect;
mod line;
mod packet;
mod text;
mod udp;

use crate::{About, Exchange, Options, Output, Parser, Protocol, Start, Status, Streams, text::MAX_TEXT_BYTES};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "memcached",
    streams: true,
    datagrams: true,
    detect: detect::detect,
    parser: |start| Box::new(Memcached::new(*start)),
    about: About {
        source: "memcached's doc/protocol.txt, the binary protocol's wiki page",
        request: "a text or meta command, or a binary request; `op` its verb, `target` its first key and how many more",
        read: "values by length, noreply and quiet commands, opaque numbers, UDP; hits as `rows`",
        mid_stream: "commands at the start of a send; of binary requests, those that fit their opcode's layout",
        not_read: "values, logs of `watch`, UDP requests in several datagrams",
    },
};

/// Bytes of a key that are kept; servers take 250.
const MAX_KEY_BYTES: usize = 256;

/// Bytes of a message that are kept: lines with many keys are long.
const MAX_KEPT_BYTES: usize = 8 << 10;

/// A connection speaks one of two protocols; the first byte of a request tells which.
enum Memcached {
    Undecided(Start),
    Text(Box<text::Text>),
    Binary(Box<binary::Binary>),
    Udp(Box<udp::Udp>),
}

impl Memcached {
    fn new(start: Start) -> Self {
        if start.datagrams { Memcached::Udp(Box::new(udp::Udp::new(start))) } else { Memcached::Undecided(start) }
    }

    fn parser(&mut self, streams: &Streams) -> Option<&mut dyn Parser> {
        if let Memcached::Undecided(start) = self {
            let first = [&streams.client, &streams.server].into_iter().find_map(|stream| stream.bytes().first());
            *self = match first? {
                // A text command begins with a letter, and so does an answer, or with a digit.
                byte if byte.is_ascii_alphanumeric() => Memcached::Text(Box::new(text::Text::new(*start))),
                _ => Memcached::Binary(Box::new(binary::Binary::new(*start))),
            };
        }
        match self {
            Memcached::Undecided(_) => None,
            Memcached::Text(text) => Some(text.as_mut()),
            Memcached::Binary(binary) => Some(binary.as_mut()),
            Memcached::Udp(udp) => Some(udp.as_mut()),
        }
    }
}

impl Parser for Memcached {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        if let Some(parser) = self.parser(streams) {
            parser.parse(streams, out);
        }
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        if let Some(parser) = self.parser(streams) {
            parser.finish(streams, out);
        }
    }
}

/// A key for people.
fn key(bytes: &[u8]) -> Box<str> {
    crate::text::bounded(bytes, MAX_KEY_BYTES, false)
}

/// Notes an error and its message.
fn fail(exchange: &mut Exchange, code: &str, message: &[u8], options: Options) {
    exchange.status = Status::Error;
    exchange.code = Some(code.into());
    let message = crate::text::bounded(message.trim_ascii(), MAX_TEXT_BYTES, false);
    exchange.error = (!message.is_empty()).then(|| match options.literals {
        true => message,
        false => crate::text::mask_quoted(&message),
    });
}
