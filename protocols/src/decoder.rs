//! One connection from its first bytes to its requests: finds out who speaks, takes a wrong guess back, and follows a
//! connection from one protocol into the next.

use std::collections::VecDeque;

use crate::{
    Flags, Options, Output, Parser, Prefix, ProtocolSet, REGISTRY, Side, Start, Stream, Streams, SwitchedTo, detect,
    protocol_named,
};

/// Bytes of each direction that detection looks at.
const PREFIX_BYTES: usize = 4096;
/// A prefix up to this long is judged anew with every chunk; a longer one when it has grown by a quarter.
const SMALL_PREFIX_BYTES: usize = 256;
/// Chunks and bytes that may wait for detection, or are kept to take a guess back.
const MAX_LOG: usize = 1024;
const MAX_LOG_BYTES: usize = 64 << 10;
/// The same while one side only has sent anything: a large first request tells little without its answer.
const MAX_ONE_SIDED_BYTES: usize = 2 << 20;
/// Bytes below which nobody is asked to be sure that these can't be his.
const FEW_BYTES: usize = 64;
/// Times that detection starts over behind the first chunk before a connection counts as unknown.
const MAX_ATTEMPTS: u32 = 256;
/// The same where the start of the connection was seen, and for datagrams.
const MAX_ATTEMPTS_FROM_START: u32 = 8;
const MAX_DATAGRAM_ATTEMPTS: u32 = 64;
/// Protocols that a connection goes through one after the other.
const MAX_SWITCHES: u32 = 8;

/// An end of a connection, before it is known which of them asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one whose events are replayed.
    Near,
    /// The other one.
    Far,
}

/// What is known of a connection before its first byte.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// How to show what is read.
    pub options: Options,
    /// The start of the connection was not seen.
    pub mid_stream: bool,
    /// Each push is one datagram.
    pub datagrams: bool,
    /// `None`: detection decides.
    pub near_is_client: Option<bool>,
    /// Ports of the near and the far end, where there are any.
    pub ports: [Option<u16>; 2],
    /// The protocol (its number in the registry), told by somebody who knows: nothing is detected.
    pub hint: Option<u16>,
}

enum Stage {
    /// Nobody claimed it yet.
    Undecided,
    /// A decoder reads it on a guess: what it puts out is held back until it has read an answer.
    Trial {
        parser: Box<dyn Parser>,
        out: Box<Output>,
        /// Exchanges of `out` that were looked at for an answer.
        looked: usize,
    },
    /// A decoder reads it.
    Decoding(Box<dyn Parser>),
    /// Nobody reads it.
    Opaque,
}

/// Decodes one connection.
pub struct Decoder {
    setup: Setup,
    stage: Stage,
    streams: Streams,
    /// Whether the client's (server's) first offset is set.
    started: [bool; 2],
    near_is_client: Option<bool>,
    /// The first protocol that was found.
    protocol: Option<u16>,
    /// The one that is read now.
    current: u16,
    /// Pushed so far, in order, while it is undecided or on trial.
    log: VecDeque<(End, Stream)>,
    log_bytes: usize,
    /// Whether the near (far) end has sent anything.
    spoke: [bool; 2],
    /// What detection sees of `log`: of the near and the far end.
    prefixes: [First; 2],
    /// Lengths of both at which more bytes were asked for, by those who are still asked: until they have grown by
    /// enough, nobody is asked again.
    judged: Option<[usize; 2]>,
    /// Of `log`, what is in front was tried by these already.
    excluded: ProtocolSet,
    attempts: u32,
    switches: u32,
}

impl Decoder {
    /// A connection of which nothing was seen yet.
    pub fn new(setup: Setup) -> Self {
        let mut decoder = Self {
            setup,
            stage: Stage::Undecided,
            streams: Streams::default(),
            started: [false; 2],
            near_is_client: setup.near_is_client,
            protocol: None,
            current: 0,
            log: VecDeque::new(),
            log_bytes: 0,
            spoke: [false; 2],
            prefixes: Default::default(),
            judged: None,
            excluded: ProtocolSet::default(),
            attempts: 0,
            switches: 0,
        };
        if let Some((number, protocol)) = setup.hint.and_then(|hint| Some((hint, REGISTRY.get(usize::from(hint))?))) {
            let near_is_client = setup.near_is_client.unwrap_or(setup.ports[0] >= setup.ports[1]);
            decoder.near_is_client = Some(near_is_client);
            decoder.protocol = Some(number);
            decoder.current = number;
            decoder.stage = Stage::Decoding((protocol.parser)(&decoder.start(near_is_client)));
        }
        decoder
    }

    /// The protocol's number in the registry: of several, one inside the other, the outermost. `None` while unknown.
    pub fn protocol(&self) -> Option<u16> {
        self.protocol
    }

    /// Whether the near end is the client, as far as it is known.
    pub fn near_is_client(&self) -> Option<bool> {
        self.near_is_client
    }

    /// True if nothing that is pushed is looked at any more: pushing it is a waste.
    pub fn is_opaque(&self) -> bool {
        matches!(self.stage, Stage::Opaque) && self.protocol.is_none()
    }

    /// Adds what `end` sent next: `fill` pushes bytes and holes, the first of which has this stream offset. What was sent
    /// (or received) at once is one call.
    pub fn push(&mut self, end: End, offset: u64, fill: impl FnOnce(&mut Stream), out: &mut Output) {
        match &mut self.stage {
            Stage::Decoding(_) => {
                let stream = self.stream(end, offset);
                fill(stream);
                self.decode(out);
            }
            Stage::Undecided | Stage::Trial { .. } => {
                let mut chunk = Stream::default();
                chunk.start_at(offset);
                fill(&mut chunk);
                self.log_bytes += chunk.bytes().len();
                let [near, far] = &mut self.spoke;
                *(if end == End::Near { near } else { far }) = true;
                self.see(end, &chunk);
                if matches!(self.stage, Stage::Trial { .. }) {
                    self.try_on(end, &chunk);
                    self.log.push_back((end, chunk));
                    self.judge_trial(false, out);
                } else {
                    self.log.push_back((end, chunk));
                }
                self.decide(false, out);
            }
            Stage::Opaque => {
                if self.protocol.is_some() {
                    let mut chunk = Stream::default();
                    fill(&mut chunk);
                    let side = self.side(end);
                    out.skipped(side, chunk.end());
                }
            }
        }
    }

    /// Nothing more will come.
    pub fn finish(&mut self, out: &mut Output) {
        self.decide(true, out);
        loop {
            match &mut self.stage {
                Stage::Trial { parser, out: held, .. } => {
                    self.streams.client.close();
                    self.streams.server.close();
                    parser.finish(&mut self.streams, held);
                    self.judge_trial(true, out);
                    self.decide(true, out);
                    if matches!(self.stage, Stage::Decoding(_)) {
                        // It was finished on trial.
                        return;
                    }
                }
                Stage::Decoding(parser) => {
                    self.streams.client.close();
                    self.streams.server.close();
                    let before = out.exchanges.len();
                    parser.finish(&mut self.streams, out);
                    self.name(before, out);
                    if out.switched.take().is_none() {
                        return;
                    }
                    self.pass_rest(out);
                    return;
                }
                Stage::Undecided | Stage::Opaque => return,
            }
        }
    }

    /// Gives back memory that only a busy connection needs.
    pub fn rest(&mut self) {
        self.streams.client.rest_long();
        self.streams.server.rest_long();
        self.log.shrink_to_fit();
    }

    fn start(&self, near_is_client: bool) -> Start {
        Start {
            options: self.setup.options,
            mid_stream: self.setup.mid_stream || self.attempts > 0,
            datagrams: self.setup.datagrams,
            server_port: self.server_port(near_is_client),
        }
    }

    /// The server's port, where this is the client.
    fn server_port(&self, near_is_client: bool) -> Option<u16> {
        let [near, far] = self.setup.ports;
        if near_is_client { far } else { near }
    }

    fn side(&self, end: End) -> Side {
        if (end == End::Near) == (self.near_is_client != Some(false)) { Side::Client } else { Side::Server }
    }

    fn stream(&mut self, end: End, offset: u64) -> &mut Stream {
        let side = self.side(end);
        let (stream, started) = match side {
            Side::Client => (&mut self.streams.client, &mut self.started[0]),
            Side::Server => (&mut self.streams.server, &mut self.started[1]),
        };
        if !std::mem::replace(started, true) {
            stream.start_at(offset);
        }
        stream
    }

    /// Lets the decoder read, and follows where it leads.
    fn decode(&mut self, out: &mut Output) {
        loop {
            let Stage::Decoding(parser) = &mut self.stage else { return };
            let before = out.exchanges.len();
            parser.parse(&mut self.streams, out);
            self.streams.client.rest();
            self.streams.server.rest();
            self.name(before, out);
            if std::mem::take(&mut out.rejected) {
                self.protocol = None;
                self.stage = Stage::Opaque;
                self.streams = Streams::default();
                return;
            }
            let Some(to) = out.switched.take() else { return };
            self.switch(to, out);
        }
    }

    /// Notes whose exchanges these are.
    fn name(&self, from: usize, out: &mut Output) {
        for exchange in out.exchanges.iter_mut().skip(from) {
            exchange.protocol.get_or_insert(self.current);
        }
    }

    fn switch(&mut self, to: SwitchedTo, out: &mut Output) {
        self.switches += 1;
        match to {
            SwitchedTo::Protocol(name) if self.switches <= MAX_SWITCHES => {
                if let Some((number, protocol)) = protocol_named(name) {
                    let start = Start { mid_stream: false, ..self.start(self.near_is_client != Some(false)) };
                    self.current = number;
                    self.stage = Stage::Decoding((protocol.parser)(&start));
                    return;
                }
            }
            SwitchedTo::Tunnel if self.switches <= MAX_SWITCHES => {
                let Streams { client, server } = std::mem::take(&mut self.streams);
                let (near, far) = if self.near_is_client == Some(false) { (server, client) } else { (client, server) };
                self.prefixes = Default::default();
                self.judged = None;
                for (end, stream) in [(End::Near, near), (End::Far, far)] {
                    if !stream.is_empty() {
                        self.log_bytes += stream.bytes().len();
                        self.see(end, &stream);
                        self.log.push_back((end, stream));
                    }
                }
                self.started = [false; 2];
                self.stage = Stage::Undecided;
                self.excluded = ProtocolSet::default();
                self.attempts = 0;
                self.setup.mid_stream = false;
                self.decide(false, out);
                return;
            }
            _ => {}
        }
        self.stage = Stage::Opaque;
        self.pass_rest(out);
    }

    /// Passes over what nobody will read.
    fn pass_rest(&mut self, out: &mut Output) {
        let streams = std::mem::take(&mut self.streams);
        for (side, stream) in [(Side::Client, &streams.client), (Side::Server, &streams.server)] {
            out.skipped(side, stream.end().saturating_sub(stream.position()));
        }
    }

    /// Nothing more is waited for before it is decided.
    fn is_full(&self) -> bool {
        let bytes = if self.spoke == [true; 2] { MAX_LOG_BYTES } else { MAX_ONE_SIDED_BYTES };
        self.log.len() >= MAX_LOG || self.log_bytes >= bytes
    }

    /// Asks who speaks here; lets the one who claims it try.
    fn decide(&mut self, complete: bool, out: &mut Output) {
        while matches!(self.stage, Stage::Undecided) && !self.log.is_empty() {
            let full = complete || self.is_full();
            if !full && !self.tells_more() {
                return;
            }
            match self.judge(full) {
                Verdict::Speaks(number, near_is_client) => {
                    let Some(protocol) = REGISTRY.get(usize::from(number)) else { return };
                    let parser = (protocol.parser)(&self.start(near_is_client));
                    let marks = out.marks.is_some().then(Vec::new);
                    let names = out.names.is_some().then(Vec::new);
                    let held = Box::new(Output { marks, names, ..Output::default() });
                    self.stage = Stage::Trial { parser, out: held, looked: 0 };
                    self.current = number;
                    self.near_is_client = Some(near_is_client);
                    let log = std::mem::take(&mut self.log);
                    for (end, chunk) in &log {
                        self.try_on(*end, chunk);
                    }
                    self.log = log;
                    self.judge_trial(false, out);
                }
                Verdict::Wait => {
                    self.judged = Some(self.prefixes.each_ref().map(|prefix| prefix.bytes.len()));
                    return;
                }
                Verdict::Nobody
                    if !full && self.log_bytes < FEW_BYTES && !self.setup.datagrams && self.attempts == 0 =>
                {
                    return;
                }
                Verdict::Nobody => {
                    // Somewhere behind the first chunk a message may begin; where the start was seen, that is little to go
                    // by: a line of a proxy, say.
                    self.attempts += 1;
                    let most = match (self.setup.mid_stream, self.setup.datagrams) {
                        (_, true) => MAX_DATAGRAM_ATTEMPTS,
                        (true, false) => MAX_ATTEMPTS,
                        (false, false) => MAX_ATTEMPTS_FROM_START,
                    };
                    self.excluded = ProtocolSet::default();
                    if let Some((end, chunk)) = self.log.pop_front() {
                        self.log_bytes = self.log_bytes.saturating_sub(chunk.bytes().len());
                        self.see_again(end);
                        if self.attempts < most {
                            out.skipped(self.side(end), chunk.end().saturating_sub(chunk.position()));
                        }
                    }
                    if self.attempts >= most {
                        self.stage = Stage::Opaque;
                        self.log = VecDeque::new();
                        self.log_bytes = 0;
                        self.prefixes = Default::default();
                        return;
                    }
                }
            }
        }
    }

    /// Lets the decoder on trial read a chunk.
    fn try_on(&mut self, end: End, chunk: &Stream) {
        let side = self.side(end);
        let Stage::Trial { parser, out, .. } = &mut self.stage else { return };
        if out.rejected || out.switched.is_some() {
            // A switch is followed when the trial is judged; what comes behind it waits in the streams.
            if out.rejected {
                return;
            }
        }
        let (stream, started) = match side {
            Side::Client => (&mut self.streams.client, &mut self.started[0]),
            Side::Server => (&mut self.streams.server, &mut self.started[1]),
        };
        if !std::mem::replace(started, true) {
            stream.start_at(chunk.position());
        }
        stream.append(chunk);
        if out.switched.is_none() {
            parser.parse(&mut self.streams, out);
        }
    }

    /// Takes the guess back, or stands by it, as soon as that can be told.
    fn judge_trial(&mut self, complete: bool, out: &mut Output) {
        let full = complete || self.is_full();
        let Stage::Trial { out: held, looked, .. } = &mut self.stage else { return };
        let answered = held
            .exchanges
            .iter()
            .skip(std::mem::replace(looked, held.exchanges.len()))
            .any(|exchange| exchange.response.is_some() || exchange.flags.contains(Flags::NO_REPLY));
        let passed_over = held.skipped_bytes.iter().sum::<u64>();
        let nothing = held.exchanges.is_empty() && held.switched.is_none() && held.tls.is_none();
        if held.rejected || full && nothing && passed_over * 2 > self.log_bytes as u64 {
            self.excluded.insert(self.current);
            self.judged = None;
            self.streams = Streams::default();
            self.started = [false; 2];
            self.near_is_client = self.setup.near_is_client.or(self.protocol.and(self.near_is_client));
            self.stage = Stage::Undecided;
            return;
        }
        if !answered && !full && held.switched.is_none() && held.tls.is_none() {
            return;
        }
        let Stage::Trial { parser, out: mut held, .. } = std::mem::replace(&mut self.stage, Stage::Undecided) else {
            return;
        };
        self.stage = Stage::Decoding(parser);
        self.protocol.get_or_insert(self.current);
        self.log = VecDeque::new();
        self.log_bytes = 0;
        self.prefixes = Default::default();
        let before = out.exchanges.len();
        out.exchanges.append(&mut held.exchanges);
        self.name(before, out);
        if let (Some(marks), Some(held)) = (&mut out.marks, &mut held.marks) {
            marks.append(held);
        }
        if let (Some(names), Some(held)) = (&mut out.names, &mut held.names) {
            names.append(held);
        }
        for (sum, held) in out.skipped_bytes.iter_mut().zip(held.skipped_bytes) {
            *sum += held;
        }
        if held.tls.is_some() {
            out.tls = held.tls.take();
        }
        out.began.append(&mut held.began);
        if let Some(to) = held.switched.take() {
            self.switch(to, out);
            if complete {
                self.finish_switched(out);
            } else {
                self.decode(out);
            }
        }
    }

    /// The end came right behind a switch: what follows it is all there is.
    fn finish_switched(&mut self, out: &mut Output) {
        if let Stage::Decoding(parser) = &mut self.stage {
            let before = out.exchanges.len();
            self.streams.client.close();
            self.streams.server.close();
            parser.finish(&mut self.streams, out);
            self.name(before, out);
            out.switched = None;
        }
    }

    fn judge(&self, complete: bool) -> Verdict {
        let [near, far] = self.prefixes.each_ref().map(|prefix| prefix.bytes.as_slice());
        let mid_stream = self.setup.mid_stream || self.attempts > 0;
        let mut wait = false;
        // Of two orientations that fit, that with the lower port as the server's is looked at first.
        let first = self.setup.ports[0] >= self.setup.ports[1];
        for near_is_client in [first, !first] {
            if self.near_is_client.is_some_and(|known| known != near_is_client) {
                continue;
            }
            let (client, server) = if near_is_client { (near, far) } else { (far, near) };
            let server_port = self.server_port(near_is_client);
            let datagrams = self.setup.datagrams;
            match detect(&Prefix { client, server, mid_stream, complete, datagrams, server_port }, self.excluded) {
                Ok(Some(number)) => return Verdict::Speaks(number, near_is_client),
                Ok(None) => {}
                Err(()) => wait = true,
            }
        }
        if wait { Verdict::Wait } else { Verdict::Nobody }
    }

    /// Shows detection a chunk that is about to join the log.
    fn see(&mut self, end: End, chunk: &Stream) {
        let datagrams = self.setup.datagrams;
        let [near, far] = &mut self.prefixes;
        if end == End::Near { near } else { far }.see(chunk, datagrams);
    }

    /// The same of one end's whole log: its first chunk was dropped.
    fn see_again(&mut self, end: End) {
        self.judged = None;
        let [near, far] = &mut self.prefixes;
        let prefix = if end == End::Near { near } else { far };
        prefix.bytes.clear();
        prefix.whole = false;
        for (_, chunk) in self.log.iter().filter(|(from, _)| *from == end) {
            if prefix.whole {
                break;
            }
            prefix.see(chunk, self.setup.datagrams);
        }
    }

    /// Whether asking again is worth it: it costs a look at all bytes by every protocol, and they come one by one.
    fn tells_more(&self) -> bool {
        let Some(judged) = self.judged else { return true };
        self.prefixes.iter().zip(judged).any(|(prefix, judged)| {
            let length = prefix.bytes.len();
            let step = if judged < SMALL_PREFIX_BYTES { 1 } else { judged / 4 };
            length >= judged + step || prefix.whole && length > judged
        })
    }
}

/// The first bytes of one end, up to the first hole; of datagrams, the first one.
#[derive(Debug, Default)]
struct First {
    bytes: Vec<u8>,
    /// Nothing joins them any more.
    whole: bool,
}

impl First {
    fn see(&mut self, chunk: &Stream, datagrams: bool) {
        if self.whole {
            return;
        }
        let room = PREFIX_BYTES - self.bytes.len();
        let here = chunk.bytes();
        self.bytes.extend_from_slice(here.get(..room).unwrap_or(here));
        self.whole = self.bytes.len() >= PREFIX_BYTES || chunk.hole().is_some() || datagrams;
    }
}

enum Verdict {
    Speaks(u16, bool),
    Wait,
    Nobody,
}
