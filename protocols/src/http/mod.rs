//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112).

mod answer;
mod body;
mod detect;
mod head;
mod marks;

use std::ops::Range;

pub(crate) use answer::{code_text, shown_target};
pub(crate) use head::is_secret;

use crate::pairing::{Chunks, Looks, Pairing, drop_all, find_start, hole_flag, pass_chunk};
use crate::turns::{self, Turns};
use crate::{
    About, ByteClass, Exchange, Flags, NAMELESS, Options, Output, Parser, Protocol, Side, Streams, SwitchedTo, text,
};
use answer::{set_status, upgrade};
use body::{Chunked, Step};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "http",
    streams: true,
    datagrams: false,
    detect: detect::detect,
    parser: |start| Box::new(Http::new(start.options, start.mid_stream)),
    about: About {
        source: "RFC 9110, RFC 9112",
        request: "a request head; `op` the method, `target` the path (query values masked)",
        read: "heads, bodies by length, chunked or to the end, interim answers, HEAD, CONNECT, upgrades, pipelining",
        mid_stream: "requests at the start of a send; answers by their status line",
        not_read: "content codings, multipart",
    },
};

/// A head longer than this is given up. Servers refuse heads far smaller (8 KiB to 64 KiB).
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Methods of RFC 9110, section 9, and RFC 5789: what stands behind one in a malformed request line is a target.
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Where the client's stream stands.
#[derive(Debug)]
enum Asking {
    /// Looking for a request at the starts of chunks.
    Search,
    /// At the start of a request, or inside its head.
    Head {
        scanned: usize,
    },
    Chunked(Chunked),
    /// A body of `length` bytes that the request beginning at `start` may send, or not, as the answer is
    /// (RFC 9110, section 10.1.1).
    Expecting {
        start: u64,
        length: u64,
    },
    /// A CONNECT waits for its answer: what follows may be anything.
    Paused,
}

/// Where the server's stream stands.
#[derive(Debug)]
enum Answering {
    Head {
        scanned: usize,
    },
    /// A body of known length, which ends at `end`.
    Length {
        start: u64,
        end: u64,
    },
    Chunked {
        start: u64,
        chunked: Chunked,
    },
}

/// What an answer's framing depends on.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Head,
    Connect,
    /// The method is in a hole: it may be HEAD.
    Unknown,
    Other,
}

struct Http {
    options: Options,
    mid_stream: bool,
    /// No request was read yet.
    fresh: bool,
    chunks: Chunks,
    pairing: Pairing<Asked>,
    asking: Asking,
    /// Where the request begins whose end is in a hole: what is passed over to find the next one is its.
    unended: Option<u64>,
    /// `seen_at` of the request whose head is being read.
    head_seen_at: Option<u64>,
    answering: Answering,
    tunnel: bool,
}

impl Http {
    fn new(options: Options, mid_stream: bool) -> Self {
        Self {
            options,
            mid_stream,
            fresh: true,
            chunks: Chunks::default(),
            pairing: Pairing::default(),
            asking: if mid_stream { Asking::Search } else { Asking::Head { scanned: 0 } },
            unended: None,
            head_seen_at: None,
            answering: Answering::Head { scanned: 0 },
            tunnel: false,
        }
    }

    fn read_requests(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.tunnel && !streams.client.is_empty() {
            match &mut self.asking {
                Asking::Paused => return,
                Asking::Search => {
                    let found = find_start(&mut streams.client, Side::Client, chunk, out, head::looks_like_request);
                    self.extend_unended(streams);
                    if !found {
                        return;
                    }
                    self.unended = None;
                    self.asking = Asking::Head { scanned: 0 };
                }
                Asking::Head { .. } => {
                    if self.pairing.is_full(streams, out) || !self.read_request_head(streams, chunk, out) {
                        return;
                    }
                }
                Asking::Expecting { start, length } => {
                    let (start, length) = (*start, *length);
                    self.read_expected_body(streams, start, length, out);
                }
                Asking::Chunked(chunked) => {
                    let step = chunked.read(&mut streams.client, Side::Client, out);
                    if let Some(last) = self.pairing.back_mut() {
                        last.exchange.request.end = streams.client.position();
                    }
                    match step {
                        Step::Wait => return,
                        Step::Done => self.asking = Asking::Head { scanned: 0 },
                        Step::Lost(flag) => {
                            if let Some(last) = self.pairing.back_mut() {
                                last.exchange.flags.insert(flag);
                                self.unended = Some(last.exchange.request.start);
                            }
                            self.search(streams, chunk, out);
                        }
                    }
                }
            }
        }
    }

    /// Bytes came behind a head that asked whether to send the body: that body, or, where the answer made it needless,
    /// the next request.
    fn read_expected_body(&mut self, streams: &mut Streams, start: u64, length: u64, out: &mut Output) {
        self.asking = Asking::Head { scanned: 0 };
        let asked = self.pairing.back_mut().filter(|last| last.exchange.request.start == start);
        let needless = asked.is_none();
        if needless && head::looks_like_request(streams.client.bytes(), false) == Looks::Yes {
            return;
        }
        let at = streams.client.position();
        if let Some(last) = asked {
            last.exchange.request.end = at.saturating_add(length);
        }
        out.mark(Side::Client, at..at.saturating_add(length), ByteClass::Value);
        streams.client.skip(length);
    }

    /// Gives up the client's current chunk; the next request begins at a later one.
    fn search(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        pass_chunk(&mut streams.client, Side::Client, chunk, out);
        self.extend_unended(streams);
        self.asking = Asking::Search;
        self.head_seen_at = None;
    }

    fn extend_unended(&mut self, streams: &Streams) {
        if let (Some(start), Some(last)) = (self.unended, self.pairing.back_mut())
            && last.exchange.request.start == start
        {
            last.exchange.request.end = streams.client.position();
        }
    }

    /// Reads a request head; false if more bytes are needed.
    fn read_request_head(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        let blank = streams.client.bytes().iter().take_while(|b| matches!(**b, b'\r' | b'\n')).count();
        if blank > 0 && matches!(self.asking, Asking::Head { scanned: 0 }) {
            // Empty lines before a request line are to be ignored (RFC 9112, section 2.2).
            let at = streams.client.position();
            out.mark(Side::Client, at..at + blank as u64, ByteClass::Structure);
            streams.client.advance(blank);
        }
        let bytes = streams.client.bytes();
        let hole = streams.client.hole();
        if bytes.is_empty() {
            if hole.is_some() {
                self.search(streams, chunk, out);
                return true;
            }
            return false;
        }
        let seen_at = match self.head_seen_at {
            Some(seen_at) => seen_at,
            None => *self.head_seen_at.insert(self.pairing.seen_now(streams)),
        };
        let mut scanned = match self.asking {
            Asking::Head { scanned } => scanned,
            _ => 0,
        };
        let first_look = scanned == 0;
        let end = head::head_end(bytes, &mut scanned);
        self.asking = Asking::Head { scanned: scanned.max(1) };
        let broken = end.is_none() && (first_look || bytes.len() < 64) && !head::can_be_request(bytes);
        if end.is_none() && hole.is_none() && !broken && bytes.len() <= MAX_HEAD_BYTES {
            return false;
        }
        let line = match end {
            Some(_) => head::first_line(bytes).and_then(head::request_line),
            None => head::cut_request_line(bytes),
        };
        let malformed = match line {
            // Nothing tells that this is HTTP but an answer, and that has to come first.
            None if self.fresh && !self.mid_stream && hole.is_none() => match head::status_line(streams.server.bytes())
            {
                Ok(_) => head::first_line(bytes).map(head::malformed_line),
                Err(Looks::Open) if !streams.client.is_closed() && bytes.len() <= MAX_HEAD_BYTES => return false,
                Err(_) => {
                    out.rejected = true;
                    None
                }
            },
            _ => None,
        };
        self.head_seen_at = None;
        let is_malformed = malformed.is_some();
        let Some(line) = line.or(malformed) else {
            self.search(streams, chunk, out);
            return true;
        };
        let start = streams.client.position();
        let head = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        let mut exchange = self.request(head, &line);
        if is_malformed && !self.options.literals && !METHODS.contains(&&*exchange.op) {
            // What stands in place of a request line may be anything.
            exchange.op = NAMELESS.into();
            exchange.target = None;
        }
        let asked = match head.get(line.method.clone()) {
            Some(method) if line.cut && line.target.start == line.method.end && b"HEAD".starts_with(method) => {
                Asked::Unknown
            }
            Some(b"HEAD") => Asked::Head,
            Some(b"CONNECT") => Asked::Connect,
            _ => Asked::Other,
        };
        marks::mark_request(head, start, &line, out);
        let head_bytes = head.len();
        exchange.request = start..start + head_bytes as u64;
        let Some(_) = end else {
            self.unended = Some(start);
            exchange.flags.insert(hole.map_or(Flags::TRUNCATED, |hole| hole_flag(hole.kind)));
            self.pairing.push(exchange, seen_at, asked, &mut streams.server, out);
            self.search(streams, chunk, out);
            return true;
        };
        let framing = head::framing(head);
        streams.client.advance(head_bytes);
        self.asking = Asking::Head { scanned: 0 };
        match (framing.coding, framing.length) {
            _ if matches!(asked, Asked::Connect) => self.asking = Asking::Paused,
            (Some(true), _) => self.asking = Asking::Chunked(Chunked::start()),
            (_, Some(length)) if framing.expect && length > 0 => self.asking = Asking::Expecting { start, length },
            (_, Some(length)) => {
                let body = exchange.request.end..exchange.request.end.saturating_add(length);
                exchange.request.end = body.end;
                out.mark(Side::Client, body, ByteClass::Value);
                streams.client.skip(length);
            }
            _ => {}
        }
        self.pairing.push(exchange, seen_at, asked, &mut streams.server, out);
        true
    }

    fn request(&mut self, head: &[u8], line: &head::RequestLine) -> Exchange {
        let method = head.get(line.method.clone()).unwrap_or_default();
        let target = head.get(line.target.clone()).unwrap_or_default();
        let shown = shown_target(target, line.cut, self.options);
        let mut exchange = Exchange {
            op: if method.is_empty() { NAMELESS.into() } else { text::bounded(method, 64, false) },
            target: Some(shown),
            ..Exchange::default()
        };
        if self.fresh && self.mid_stream {
            exchange.flags.insert(Flags::MID_STREAM);
        }
        self.fresh = false;
        exchange
    }

    fn read_responses(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.tunnel && !self.pairing.is_behind() {
            if let Some(lost) = self.pairing.lost() {
                // An answer that is being passed over may be followed by one that can be recognised, but only one that
                // somebody waits for.
                let expected = !lost.begun || self.pairing.len() > 1;
                if expected && self.found_response(streams, chunk, out) {
                    continue;
                }
                if !expected {
                    self.pairing.pass_lost(lost, &mut streams.server, out);
                }
                return;
            }
            let Some(front) = self.pairing.front() else {
                // While a head is being read, what the server sends may already be its answer.
                if self.head_seen_at.is_none() {
                    drop_all(&mut streams.server, Side::Server, out);
                }
                return;
            };
            let ahead = front.seen_at.saturating_sub(streams.server.position());
            if ahead > 0 && matches!(self.answering, Answering::Head { .. }) {
                out.skipped(Side::Server, ahead);
                streams.server.skip(ahead);
            }
            let more = match self.answering {
                Answering::Head { scanned } => self.read_response_head(streams, chunk, scanned, out),
                Answering::Length { start, end } => {
                    let whole = streams.server.position() >= end;
                    if whole {
                        self.answered(start..end, out);
                    }
                    whole
                }
                Answering::Chunked { start, mut chunked } => {
                    match chunked.read(&mut streams.server, Side::Server, out) {
                        Step::Done => self.answered(start..streams.server.position(), out),
                        Step::Wait => {
                            self.answering = Answering::Chunked { start, chunked };
                            return;
                        }
                        Step::Lost(flag) => self.lose_response(streams, start, true, flag, chunk, out),
                    }
                    true
                }
            };
            if !more {
                return;
            }
        }
    }

    fn found_response(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) -> bool {
        let looks = |bytes: &[u8], _: bool| match head::status_line(bytes) {
            Ok(_) => Looks::Yes,
            Err(looks) => looks,
        };
        let found = find_start(&mut streams.server, Side::Server, chunk, out, looks);
        if found {
            self.pairing.found(streams.server.position(), out);
        }
        found
    }

    fn lose_response(
        &mut self,
        streams: &mut Streams,
        start: u64,
        begun: bool,
        flag: Flags,
        chunk: u64,
        out: &mut Output,
    ) {
        self.answering = Answering::Head { scanned: 0 };
        self.pairing.lose(start, begun, flag);
        pass_chunk(&mut streams.server, Side::Server, chunk, out);
    }

    fn answered(&mut self, response: Range<u64>, out: &mut Output) {
        self.pairing.complete(response, out);
        self.answering = Answering::Head { scanned: 0 };
    }

    /// Reads a response head; false if more bytes are needed.
    fn read_response_head(&mut self, streams: &mut Streams, chunk: u64, mut scanned: usize, out: &mut Output) -> bool {
        let bytes = streams.server.bytes();
        let hole = streams.server.hole();
        let start = streams.server.position();
        let flag = hole.map_or(Flags::default(), |hole| hole_flag(hole.kind));
        if bytes.is_empty() && hole.is_none() {
            return false;
        }
        let code = match head::status_line(bytes) {
            Ok(code) => code,
            Err(Looks::Open) if hole.is_none() => return false,
            Err(looks) => {
                let begun = looks == Looks::Open && !bytes.is_empty();
                self.lose_response(streams, start, begun, flag, chunk, out);
                return true;
            }
        };
        let end = head::head_end(bytes, &mut scanned);
        self.answering = Answering::Head { scanned };
        if end.is_none() && hole.is_none() && bytes.len() <= MAX_HEAD_BYTES {
            return false;
        }
        let head = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        let head_bytes = head.len();
        if end.is_some() {
            // The bytes behind one that is cut may be those of the next answer: they are passed over.
            marks::mark_response(head, start, out);
        }
        if (100..200).contains(&code) && code != 101 && end.is_some() {
            streams.server.advance(head_bytes);
            self.answering = Answering::Head { scanned: 0 };
            return true;
        }
        let Some(front) = self.pairing.front_mut() else { return false };
        let asked = front.detail;
        if (100..200).contains(&code) && code != 101 {
            // An interim answer whose end is not seen: the one that counts comes behind it.
            let flag = if hole.is_some() { flag } else { Flags::TRUNCATED };
            self.lose_response(streams, start, false, flag, chunk, out);
            return true;
        }
        set_status(&mut front.exchange, code, head);
        if end.is_none() {
            let flag = if hole.is_some() { flag } else { Flags::TRUNCATED };
            self.resume_after_connect(asked);
            self.lose_response(streams, start, true, flag, chunk, out);
            return true;
        }
        let framing = head::framing(head);
        let upgraded = if code == 101 { upgrade(head) } else { SwitchedTo::Unread };
        streams.server.advance(head_bytes);
        let body_start = streams.server.position();
        let connected = matches!(asked, Asked::Connect) && (200..300).contains(&code);
        if code == 101 || connected {
            self.answered(start..body_start, out);
            let to = if connected { SwitchedTo::Tunnel } else { upgraded };
            self.enter_tunnel(streams, to, out);
            return true;
        }
        self.resume_after_connect(asked);
        let bodiless = matches!(asked, Asked::Head) || code == 204 || code == 304;
        match (framing.coding, framing.length) {
            _ if bodiless => self.answered(start..body_start, out),
            (None, Some(0)) => self.answered(start..body_start, out),
            _ if matches!(asked, Asked::Unknown) => {
                self.lose_response(streams, start, true, Flags::default(), chunk, out);
            }
            (Some(true), _) => self.answering = Answering::Chunked { start, chunked: Chunked::start() },
            (None, Some(length)) => {
                let end = body_start.saturating_add(length);
                out.mark(Side::Server, body_start..end, ByteClass::Value);
                streams.server.skip(length);
                self.answering = Answering::Length { start, end };
            }
            _ => {
                // The body ends with the connection, or where the next request was seen.
                self.answering = Answering::Head { scanned: 0 };
                self.pairing.lose_end(start);
            }
        }
        true
    }

    /// The end came within an answer's head: what of it was read counts.
    fn finish_head(&mut self, streams: &mut Streams, out: &mut Output) {
        let (bytes, at) = (streams.server.bytes(), streams.server.position());
        let Some(front) = self.pairing.front_mut().filter(|front| front.seen_at <= at && !bytes.is_empty()) else {
            return;
        };
        match head::status_line(bytes) {
            Ok(100 | 102..200) => {}
            Ok(code) => set_status(&mut front.exchange, code, bytes),
            Err(_) => {}
        }
        self.pairing.finish_incomplete(at, streams, out);
    }

    fn resume_after_connect(&mut self, asked: Asked) {
        if matches!((asked, &self.asking), (Asked::Connect, Asking::Paused)) {
            self.asking = Asking::Head { scanned: 0 };
        }
    }

    fn enter_tunnel(&mut self, streams: &mut Streams, to: SwitchedTo, out: &mut Output) {
        out.switched = Some(to);
        self.pairing.finish(streams, out);
        self.tunnel = true;
    }
}

impl Turns for Http {
    type Detail = Asked;

    fn pairing(&mut self) -> &mut Pairing<Asked> {
        &mut self.pairing
    }

    fn chunks(&mut self) -> &mut Chunks {
        &mut self.chunks
    }

    fn read_requests(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        self.read_requests(streams, chunk, out);
    }

    fn read_answers(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        self.read_responses(streams, chunk, out);
    }

    fn has_left(&self) -> bool {
        self.tunnel
    }
}

impl Parser for Http {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        turns::read(self, streams, out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        if !turns::read_rest(self, streams, out) {
            return;
        }
        if let (Asking::Head { .. }, Some(seen_at)) = (&self.asking, self.head_seen_at) {
            let bytes = streams.client.bytes();
            if let Some(line) = head::first_line(bytes).and_then(head::request_line) {
                let start = streams.client.position();
                let mut exchange = self.request(bytes, &line);
                exchange.request = start..start + streams.client.bytes().len() as u64;
                exchange.flags.insert(Flags::INCOMPLETE);
                self.pairing.push(exchange, seen_at, Asked::Other, &mut streams.server, out);
            }
        }
        if self.pairing.lost().is_none() {
            match self.answering {
                Answering::Length { start, .. } | Answering::Chunked { start, .. } => {
                    self.pairing.finish_incomplete(start, streams, out);
                }
                Answering::Head { .. } => self.finish_head(streams, out),
            }
        }
        turns::end(self, streams, out);
    }
}
