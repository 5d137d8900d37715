//! HTTP/2 (RFC 9113) with HPACK (RFC 7541), and gRPC on top of it.

mod call;
mod calls;
mod detect;
mod frame;
mod grpc;
mod half;
mod hpack;
mod huffman;

use crate::pairing::{Chunks, drop_rest};
use crate::{About, ByteClass, Detected, Options, Output, Parser, Protocol, Side, Start, Streams, protocol_named};
use call::{Ended, Fields, Numbers};
use calls::Calls;
use frame::{DATA, END_STREAM, GOAWAY, HEADERS, Head, PUSH_PROMISE, RST_STREAM};
use half::{Event, Half};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "http2",
    streams: true,
    datagrams: false,
    detect: detect::detect,
    parser: |start| Box::new(Http2::new(start)),
    about: About {
        source: "RFC 9113, RFC 7541, RFC 8441",
        request: "a stream that the client opens; `op` the method, `target` the path (query values masked)",
        read: "all frames, padding, CONTINUATION, trailers, interim answers, resets, GOAWAY, CONNECT, h2c upgrades",
        mid_stream: "frames by their structure; names that the compression state hides are unknown and come back as it renews",
        not_read: "content codings, what pushed streams carry, priorities, what CONNECT carries",
    },
};

pub(crate) const GRPC: Protocol = Protocol {
    name: "grpc",
    streams: true,
    datagrams: false,
    // It is found inside HTTP/2.
    detect: |_| Detected::No,
    parser: |start| Box::new(Http2::new(start)),
    about: About {
        source: "gRPC over HTTP/2 (PROTOCOL-HTTP2.md)",
        request: "a stream with content type application/grpc; `op` the method, `target` /package.Service/Method",
        read: "status and message from trailers, number of messages, cancelling",
        mid_stream: "as HTTP/2; without a known content type by message framing and trailers",
        not_read: "messages, gRPC-Web, details in grpc-status-details-bin",
    },
};

struct Http2 {
    options: Options,
    chunks: Chunks,
    client: Half,
    server: Half,
    calls: Calls,
}

impl Http2 {
    fn new(start: &Start) -> Self {
        let number = |name| protocol_named(name).map_or(0, |(number, _)| number);
        let numbers = Numbers { http2: number("http2"), grpc: number("grpc"), grpc_spoken: false };
        Self {
            options: start.options,
            chunks: Chunks::default(),
            client: Half::new(Side::Client, start.mid_stream),
            server: Half::new(Side::Server, start.mid_stream),
            calls: Calls::new(numbers, start.mid_stream),
        }
    }

    /// Reads one side as far as it is here.
    fn read(&mut self, side: Side, streams: &mut Streams, chunk: u64, out: &mut Output) {
        loop {
            let (half, stream, other) = match side {
                Side::Client => (&mut self.client, &mut streams.client, &streams.server),
                Side::Server => (&mut self.server, &mut streams.server, &streams.client),
            };
            match half.next(stream, chunk, &mut self.calls, self.options, out) {
                Event::Wait => return,
                Event::NotHttp2 => {
                    out.rejected = true;
                    return;
                }
                Event::Lost(flag) => {
                    let at = stream.position();
                    self.calls.lose(side, at, flag);
                }
                Event::Frame(range, head, code) => {
                    let other_end = other.end();
                    let ends = [streams.client.end(), streams.server.end()];
                    self.take(side, range, head, code, other_end, ends, out);
                }
            }
        }
    }

    /// A frame was passed: `code` is the error code of RST_STREAM, or the last stream of GOAWAY.
    #[allow(clippy::too_many_arguments)]
    fn take(
        &mut self,
        side: Side,
        range: std::ops::Range<u64>,
        head: Head,
        code: Option<u32>,
        other_end: u64,
        ends: [u64; 2],
        out: &mut Output,
    ) {
        let half = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        match head.kind {
            DATA => {
                if side == Side::Client {
                    self.calls.find_unseen(head.stream, range.start, other_end);
                }
                self.calls.touch(side, head.stream, range);
            }
            // The block's frames are told as one.
            HEADERS => {
                let fields = std::mem::take(&mut half.fields);
                match side {
                    Side::Client => self.calls.ask(head.stream, fields, range, half.cut, other_end, ends, out),
                    Side::Server => self.calls.answer(head.stream, fields, range, half.cut, head.has(END_STREAM), ends),
                }
            }
            PUSH_PROMISE => half.fields = Fields::default(),
            RST_STREAM => self.calls.end(head.stream, Ended::Reset(side, code), range, ends, out),
            GOAWAY if side == Side::Server => self.calls.go_away(code, ends, out),
            _ => {}
        }
        if matches!(head.kind, DATA | HEADERS) && head.has(END_STREAM) {
            self.calls.done(side, head.stream, ends, out);
        }
    }
}

impl Parser for Http2 {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        let (client_chunk, server_chunk) = self.chunks.advance(streams);
        self.read(Side::Client, streams, client_chunk, out);
        if !out.rejected {
            self.read(Side::Server, streams, server_chunk, out);
        }
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        self.parse(streams, out);
        let ends = [streams.client.end(), streams.server.end()];
        for (side, end, other_end) in [(Side::Client, ends[0], ends[1]), (Side::Server, ends[1], ends[0])] {
            let (half, stream) = match side {
                Side::Client => (&mut self.client, &mut streams.client),
                Side::Server => (&mut self.server, &mut streams.server),
            };
            // The frame that the end cut off counts as far as it came.
            if let Some((head, start)) = half.finish(stream, self.options, out) {
                let head = Head { flags: head.flags & !END_STREAM, ..head };
                self.take(side, start..end, head, None, other_end, ends, out);
            }
        }
        self.calls.finish(ends, out);
        drop_rest(streams, out);
    }
}

/// The header block's part in the payload of a HEADERS or PUSH_PROMISE frame, or of what is there of it: without
/// padding, priority and the promised stream. `None` if there can be none.
fn block_of<'a>(head: &Head, payload: &'a [u8]) -> Option<&'a [u8]> {
    let (before, padding) = surroundings(head, payload);
    let end = (head.length as usize).checked_sub(padding)?.min(payload.len());
    if before > end {
        if payload.len() < head.length as usize { Some(&[]) } else { None }
    } else {
        payload.get(before..end)
    }
}

/// Bytes before the block or data of a frame, and of padding behind it.
fn surroundings(head: &Head, payload: &[u8]) -> (usize, usize) {
    let padded = head.has(frame::PADDED) && matches!(head.kind, DATA | HEADERS | PUSH_PROMISE);
    let padding = if padded { payload.first().copied().unwrap_or_default() } else { 0 };
    let mut before = usize::from(padded);
    if head.kind == HEADERS && head.has(frame::HAS_PRIORITY) {
        before += 5;
    }
    if head.kind == PUSH_PROMISE {
        before += 4;
    }
    (before, usize::from(padding))
}

const STRUCTURE: ByteClass = ByteClass::Structure;
