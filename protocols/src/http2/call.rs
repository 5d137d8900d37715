//! One stream of a connection: a request with its answer, put together from frames.

use std::ops::Range;

use super::grpc;
use super::hpack::Kind;
use crate::{Exchange, Flags, NAMELESS, Options, Side, Status, http, text};

/// What one side sent on a stream.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// From its first frame to the end of its last one; `None` while there is none.
    pub range: Option<Range<u64>>,
    /// Bytes of its own frames in that.
    bytes: u64,
    /// The side's stream offset behind its last frame: what was lost behind it may be this stream's.
    last: u64,
    /// Its end was seen.
    pub done: bool,
    /// Frames may be missing: `bytes` is too little.
    partial: bool,
    /// Fields whose names are not known.
    unknown: bool,
    pub messages: grpc::Messages,
}

impl Part {
    fn touch(&mut self, range: Range<u64>) {
        self.bytes += range.end - range.start;
        self.last = range.end;
        match &mut self.range {
            Some(whole) => whole.end = range.end,
            None => self.range = Some(range),
        }
    }

    fn size(&self) -> Option<u64> {
        let range = self.range.as_ref()?;
        (!self.partial && self.bytes != range.end - range.start).then_some(self.bytes)
    }
}

/// Where frames of one side were lost last: offset behind the part that was lost, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loss {
    pub end: u64,
    pub flag: Flags,
}

/// Why a stream ended before its time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    /// RST_STREAM with its error code, where that was read.
    Reset(Side, Option<u32>),
    /// GOAWAY says that the server did not and will not look at it.
    GoneAway,
}

/// Longest method that is believed: the longest registered one (`UPDATEREDIRECTREF`) has 17 letters.
const MAX_METHOD_BYTES: usize = 32;

/// Whether a value can be a method. A token may hold more (RFC 9110, section 5.6.2), but all that are registered or met
/// are of upper-case letters and hyphens.
pub(super) fn is_method(value: &[u8]) -> bool {
    (1..=MAX_METHOD_BYTES).contains(&value.len()) && value.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-')
}

/// What header blocks are read for.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub method: Option<Box<str>>,
    /// Values masked unless they are to be shown.
    pub path: Option<Box<str>>,
    authority: Option<Box<str>>,
    pub code: Option<u16>,
    grpc: Option<bool>,
    grpc_status: Option<Box<str>>,
    grpc_message: Option<Box<str>>,
    /// There were fields whose names or values are not known.
    pub unknown: bool,
}

impl Fields {
    /// Takes a field in. Of several with one name the first counts.
    pub fn add(&mut self, kind: Kind, value: Option<&[u8]>, options: Options) {
        let Some(value) = value else {
            self.unknown |= !matches!(kind, Kind::Other | Kind::Secret);
            return;
        };
        match kind {
            Kind::Unknown | Kind::Other | Kind::Secret | Kind::Protocol => {}
            // What is no method was named by an entry of a table that was not followed, or is no header at all.
            Kind::Method if !is_method(value) => self.unknown = true,
            Kind::Method if self.method.is_none() => self.method = Some(text::bounded(value, MAX_METHOD_BYTES, false)),
            Kind::Path if self.path.is_none() => self.path = Some(http::shown_target(value, false, options)),
            Kind::Authority if self.authority.is_none() && self.method.as_deref() == Some("CONNECT") => {
                self.authority = Some(text::bounded(value, 1024, false));
            }
            Kind::Status if self.code.is_none() => {
                let digits = value.len() == 3 && value.iter().all(u8::is_ascii_digit);
                self.code = digits.then(|| value.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0')));
            }
            Kind::ContentType if self.grpc.is_none() => self.grpc = Some(grpc::is_content_type(value)),
            Kind::GrpcStatus if self.grpc_status.is_none() => {
                self.grpc_status = Some(text::bounded(value.trim_ascii(), 16, false));
            }
            Kind::GrpcMessage if self.grpc_message.is_none() => {
                let message = text::bounded(&grpc::percent_decoded(value), 1024, false);
                self.grpc_message = Some(if options.literals {
                    message
                } else {
                    text::mask_numbers(&text::mask_quoted(&message)).into()
                });
            }
            _ => {}
        }
    }
}

/// A stream that a client opened.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub client: Part,
    pub server: Part,
    asked: Fields,
    answered: Fields,
    /// The final answer's head was seen.
    pub answering: bool,
    /// A header block came behind that.
    trailers: bool,
    pub ended: Option<Ended>,
    flags: Flags,
    /// Where the request is, if none of its frames was seen.
    unseen_at: u64,
}

impl Call {
    /// A request with this head; `seen_at`: the server's stream had come so far.
    pub fn new(asked: Fields, flags: Flags, seen_at: u64) -> Self {
        let server = Part { last: seen_at, ..Part::default() };
        Self { asked, server, flags, ..Self::default() }
    }

    /// A request whose head was not seen.
    pub fn headless(flags: Flags, at: u64, seen_at: u64) -> Self {
        let server = Part { last: seen_at, ..Part::default() };
        Self { server, flags, unseen_at: at, ..Self::default() }
    }

    pub fn part(&mut self, side: Side) -> &mut Part {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Bytes of text that it holds.
    pub fn text_bytes(&self) -> usize {
        let (asked, answered) = (&self.asked, &self.answered);
        [&asked.path, &asked.authority, &answered.grpc_message].into_iter().flatten().map(|text| text.len()).sum()
    }

    /// A frame of `side` on this stream was passed; `loss` is the last one on that side.
    pub fn touch(&mut self, side: Side, range: Range<u64>, loss: Option<Loss>) {
        let flags = match loss {
            Some(loss) if loss.end > self.part(side).last => loss.flag,
            _ => Flags::default(),
        };
        // A request that began behind the loss lost nothing by it.
        let part = self.part(side);
        if flags != Flags::default() && (part.range.is_some() || side == Side::Server) {
            part.partial = true;
            self.flags.insert(flags);
        }
        self.part(side).touch(range);
    }

    /// Adds a flag.
    pub fn flag(&mut self, flag: Flags) {
        self.flags.insert(flag);
    }

    /// Takes a header block of the server in that is no interim answer.
    pub fn answer(&mut self, fields: Fields) {
        self.server.unknown |= fields.unknown;
        self.trailers |= self.answering;
        self.answering = true;
        let known = &mut self.answered;
        known.code = known.code.or(fields.code);
        known.grpc = known.grpc.or(fields.grpc);
        known.grpc_status = fields.grpc_status.or(known.grpc_status.take());
        known.grpc_message = fields.grpc_message.or(known.grpc_message.take());
    }

    /// True if header fields say that it is gRPC.
    pub fn is_surely_grpc(&self) -> bool {
        self.asked.grpc.or(self.answered.grpc).unwrap_or(self.answered.grpc_status.is_some())
    }

    /// True where its messages should be counted.
    pub fn may_be_grpc(&self) -> bool {
        self.asked
            .grpc
            .or(self.answered.grpc)
            .unwrap_or(self.asked.unknown || self.server.unknown || self.asked.method.is_none())
    }

    /// `spoken`: other streams of the connection are gRPC for sure.
    pub fn is_grpc(&self, spoken: bool) -> bool {
        match self.asked.grpc.or(self.answered.grpc) {
            Some(known) => known,
            None if self.answered.grpc_status.is_some() => true,
            // The content type was named by an entry of the table that was not seen: bodies that are gRPC's messages
            // to the byte, and trailers behind them.
            None => {
                let method = self.asked.method.as_deref().is_none_or(|method| method == "POST");
                let answers_unknown = self.server.unknown || self.server.range.is_none();
                let unknown = answers_unknown && (self.asked.unknown || self.asked.method.is_none());
                let framed = self.client.messages.are_whole() && self.server.messages.are_whole();
                method && unknown && (framed && self.trailers || spoken && self.client.messages.are_whole())
            }
        }
    }

    /// Whether it can be told no more than it is: its end lies in a part of a side that was lost, or one side has ended
    /// and the other never says so.
    pub fn is_stale(&self, losses: [Option<Loss>; 2]) -> bool {
        let lost = |part: &Part, loss: Option<Loss>| !part.done && loss.is_some_and(|loss| loss.end > part.last);
        self.server.done || lost(&self.client, losses[0]) || lost(&self.server, losses[1])
    }

    /// What has become of it. `losses`: where frames of each side were lost last. `at_end`: nothing more will come;
    /// `ends` are the ends of both streams.
    pub fn into_exchange(
        mut self: Box<Self>,
        numbers: Numbers,
        losses: [Option<Loss>; 2],
        at_end: bool,
        ends: [u64; 2],
    ) -> Exchange {
        let is_grpc = self.is_grpc(numbers.grpc_spoken);
        let mut flags = self.flags;
        let mut doubtful = false;
        if let Some(loss) = losses[1].filter(|loss| !self.server.done && loss.end > self.server.last) {
            // The answer, or its end, may lie in what was lost.
            flags.insert(loss.flag);
            self.server.partial = true;
            doubtful = true;
            match &mut self.server.range {
                Some(range) => range.end = loss.end.min(ends[1]),
                None => self.server.range = Some(ends[1]..ends[1]),
            }
        }
        if let Some(loss) =
            losses[0].filter(|loss| !self.client.done && self.client.range.is_some() && loss.end > self.client.last)
        {
            flags.insert(loss.flag);
            self.client.partial = true;
        }
        let begun = self.server.range.is_some() && !doubtful;
        if at_end && begun && !self.server.done && self.ended.is_none() {
            flags.insert(Flags::INCOMPLETE);
        }
        if is_grpc && (self.client.messages.count > 1 || self.server.messages.count > 1) {
            flags.insert(Flags::STREAMING);
        }
        let unsure = self.asked.grpc.or(self.answered.grpc).is_none()
            && (self.asked.unknown || self.server.unknown)
            && self.asked.method.as_deref().is_none_or(|method| method == "POST");
        let nameless = self.asked.method.is_none() || self.asked.path.is_none() && self.asked.authority.is_none();
        let silent = self.answered.code.is_none() || is_grpc && self.answered.grpc_status.is_none();
        if unsure || self.asked.unknown && nameless || self.server.unknown && silent {
            flags.insert(Flags::UNKNOWN_NAMES);
        }
        let (sizes, request) = ([self.client.size(), self.server.size()], self.client.range.take());
        let mut exchange = Exchange {
            protocol: Some(if is_grpc { numbers.grpc } else { numbers.http2 }),
            request: request.unwrap_or(self.unseen_at..self.unseen_at),
            request_bytes: sizes[0],
            response_bytes: sizes[1],
            ..Exchange::default()
        };
        self.judge(&mut exchange, &mut flags, is_grpc, doubtful);
        exchange.response = self.server.range.take();
        let target = self.asked.path.or(self.asked.authority);
        exchange.op = match &target {
            Some(path) if is_grpc => path.rsplit('/').next().unwrap_or_default().into(),
            None if is_grpc => NAMELESS.into(),
            _ => self.asked.method.unwrap_or_else(|| NAMELESS.into()),
        };
        exchange.target = target;
        exchange.flags = flags;
        exchange
    }

    /// Sets status, code and error.
    fn judge(&mut self, exchange: &mut Exchange, flags: &mut Flags, is_grpc: bool, doubtful: bool) {
        if let Some(code) = self.answered.code {
            exchange.status = if code >= 400 { Status::Error } else { Status::Ok };
            exchange.code = Some(http::code_text(code));
        }
        if is_grpc {
            match self.answered.grpc_status.take() {
                Some(status) => {
                    exchange.status = if &*status == "0" { Status::Ok } else { Status::Error };
                    exchange.code = Some(status);
                    exchange.error = self.answered.grpc_message.take();
                }
                // HTTP's status is the call's only where it is an error: then no gRPC server answered.
                None if exchange.status == Status::Error => {}
                None => (exchange.status, exchange.code) = (Status::Unknown, None),
            }
        }
        match self.ended {
            Some(Ended::Reset(Side::Server, code)) => {
                let name = code.and_then(super::frame::error_name);
                exchange.status = Status::Error;
                exchange.error = Some(format!("reset: {}", name.unwrap_or("unknown error")).into());
                if exchange.code.is_none() {
                    exchange.code = name.map(Into::into).or_else(|| code.map(|code| code.to_string().into()));
                }
            }
            Some(Ended::Reset(Side::Client, _)) => {
                flags.insert(Flags::CANCELLED);
                if !self.answering && !doubtful {
                    exchange.status = Status::Unanswered;
                }
            }
            Some(Ended::GoneAway) => {
                exchange.status = Status::Unanswered;
                exchange.error = Some("the server is going away and did not look at it".into());
            }
            None if self.server.range.is_none() => exchange.status = Status::Unanswered,
            None => {}
        }
    }
}

/// What the protocols of a connection are called in the registry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub http2: u16,
    pub grpc: u16,
    /// A stream was gRPC by its content type or its trailers.
    pub grpc_spoken: bool,
}
