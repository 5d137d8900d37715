//! The text protocol over a stream: answers come in the order of the commands.

use super::line::{Answer, Form, Line, Lines, mark, read, verb_named};
use super::{MAX_KEPT_BYTES, fail, key};
use crate::frames::{Frame, Frames, Next};
use crate::pairing::{Chunks, Pairing};
use crate::turns::{self, Turns};
use crate::{Exchange, Flags, NAMELESS, Options, Output, Parser, Side, Start, Status, Streams};

/// Bytes of a hole behind a value that can be only one thing: `END` and its line end.
const END_BYTES: u64 = 5;

/// What is known of a command that waits.
#[derive(Debug)]
pub(super) struct Expect {
    answer: Answer,
    verb: &'static str,
    /// A meta command with the flag `q`: what is usual is not answered.
    quiet: bool,
    /// Its key and its opaque token (flag `O`), to tell answers of quiet commands apart.
    key: Box<[u8]>,
    opaque: Option<Box<[u8]>>,
    /// The flags `v` (a value is sent) and `k` (the key is shown).
    value: bool,
    shows_key: bool,
}

/// An answer of several lines that is being read.
#[derive(Debug, Clone, Copy)]
struct Reading {
    start: u64,
    values: u64,
}

pub(super) struct Text {
    options: Options,
    mid_stream: bool,
    /// No command was read yet.
    fresh: bool,
    chunks: Chunks,
    client: Frames,
    server: Frames,
    pairing: Pairing<Expect>,
    reading: Option<Reading>,
    /// Where the command begins that waits already, though its data is still arriving.
    early: Option<u64>,
}

impl Text {
    pub fn new(start: Start) -> Self {
        Self {
            options: start.options,
            mid_stream: start.mid_stream,
            fresh: true,
            chunks: Chunks::default(),
            client: Frames::new(Side::Client, MAX_KEPT_BYTES, start.mid_stream),
            server: Frames::new(Side::Server, MAX_KEPT_BYTES, start.mid_stream),
            pairing: Pairing::default(),
            reading: None,
            early: None,
        }
    }

    fn read_commands(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.pairing.is_full(streams, out) {
            let seen = self.pairing.seen_now(streams);
            match self.client.next(&mut streams.client, chunk, seen, &Lines, out) {
                Next::Frame(frame) => {
                    self.command(&frame, streams, out);
                    self.client.recycle(frame);
                }
                Next::Lost(_, flag) => {
                    if flag == Flags::default() && self.fresh {
                        out.rejected = true;
                    }
                    // Answers to what was lost may be taken for those of others.
                    self.pairing.doubt(self.pairing.seen_now(streams), flag);
                }
                Next::Wait => return,
            }
        }
    }

    fn command(&mut self, frame: &Frame, streams: &mut Streams, out: &mut Output) {
        let line = match read(Side::Client, &frame.bytes) {
            Ok(Some(line)) => line,
            // Longer than what is kept.
            _ => Line { end: frame.bytes.len(), ..Line::words(&frame.bytes) },
        };
        mark(Side::Client, frame, &line, out);
        if self.early.take() == Some(frame.range.start) {
            return;
        }
        self.ask(&line, frame, streams, out);
    }

    fn ask(&mut self, line: &Line, frame: &Frame, streams: &mut Streams, out: &mut Output) {
        let Some((mut exchange, expect)) = asked(line, frame) else {
            if self.fresh {
                out.rejected = true;
            }
            return;
        };
        if std::mem::take(&mut self.fresh) && self.mid_stream {
            exchange.flags.insert(Flags::MID_STREAM);
        }
        if expect.answer == Answer::Nothing {
            exchange.status = Status::Ok;
            exchange.flags.insert(Flags::NO_REPLY);
            out.exchanges.push(exchange);
            return;
        }
        let lost = self.pairing.lost().is_some();
        self.pairing.push(exchange, frame.seen_at, expect, &mut streams.server, out);
        if lost && self.pairing.lost().is_none() {
            self.reading = None;
        }
    }

    fn read_answers(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        while !self.pairing.is_behind() {
            let server = &mut streams.server;
            if let Some(lost) = self.pairing.lost()
                && lost.begun
                && !self.pairing.is_empty()
            {
                self.pairing.pass_lost(lost, server, out);
                return;
            }
            match self.server.next(server, chunk, streams.client.end(), &Lines, out) {
                Next::Frame(frame) => {
                    if self.pairing.lost().is_some() {
                        self.pairing.found(frame.range.start, out);
                    }
                    self.ask_early(streams, out);
                    self.line(&frame, out);
                    self.server.recycle(frame);
                }
                Next::Lost(at, flag) => self.lose(at, flag, server.position(), out),
                Next::Wait => return,
            }
        }
    }

    /// An answer comes and nobody waits: the server refuses a command whose data is still arriving.
    fn ask_early(&mut self, streams: &mut Streams, out: &mut Output) {
        if !self.pairing.is_empty() || self.early.is_some() {
            return;
        }
        let Some(begun) = self.client.begun() else { return };
        let Ok(Some(line)) = read(Side::Client, &begun.bytes) else { return };
        let frame = Frame { range: begun.range.clone(), bytes: begun.bytes.clone(), whole: true, ..Frame::default() };
        let frame = Frame { seen_at: begun.seen_at, missing: begun.missing, ..frame };
        self.early = Some(frame.range.start);
        self.ask(&line, &frame, streams, out);
    }

    /// The answer can't be followed from `at` on; reading goes on at `next`.
    fn lose(&mut self, at: u64, flag: Flags, next: u64, out: &mut Output) {
        let reading = self.reading.take();
        if let (Some(reading), Some(front)) = (reading, self.pairing.front_mut()) {
            front.exchange.status = Status::Ok;
            if front.detail.answer == Answer::Values && flag != Flags::default() && next == at + END_BYTES {
                // A value came before, and another would be longer.
                front.exchange.rows = Some(reading.values);
                self.pairing.complete(reading.start..next, out);
                return;
            }
        }
        self.pairing.lose(reading.map_or(at, |reading| reading.start), true, flag);
    }

    /// A line of the server, with its data.
    fn line(&mut self, frame: &Frame, out: &mut Output) {
        let line = match read(Side::Server, &frame.bytes) {
            Ok(Some(line)) => line,
            _ => Line { end: frame.bytes.len(), ..Line::words(&frame.bytes) },
        };
        mark(Side::Server, frame, &line, out);
        let bytes = &frame.bytes;
        let word = line.word(0, bytes);
        let start = self.reading.map_or(frame.range.start, |reading| reading.start);
        self.pass_quiet(&line, frame, out);
        let Some(front) = self.pairing.front_mut().filter(|front| front.seen_at <= start) else { return };
        let reading = self.reading.get_or_insert(Reading { start, values: 0 });
        let error = matches!(word, b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR");
        match front.detail.answer {
            Answer::Values if word == b"VALUE" => {
                reading.values += 1;
                return;
            }
            Answer::Lines if matches!(word, b"STAT" | b"ITEM" | b"PREFIX" | b"KEY") || word.starts_with(b"key=") => {
                return;
            }
            Answer::Values if !error => front.exchange.rows = Some(reading.values),
            Answer::Meta if front.detail.verb == "mg" && !error => {
                front.exchange.rows = Some(u64::from(word != b"EN"));
            }
            _ => {}
        }
        judge(&mut front.exchange, &line, bytes, self.options);
        if !frame.whole {
            front.exchange.flags.insert(Flags::INCOMPLETE);
        }
        self.reading = None;
        self.pairing.complete(start..frame.range.end, out);
    }

    /// Quiet commands that this line can't be the answer to were not answered.
    fn pass_quiet(&mut self, line: &Line, frame: &Frame, out: &mut Output) {
        if self.reading.is_some() {
            return;
        }
        while let Some(front) = self.pairing.front().filter(|front| front.detail.quiet) {
            if front.seen_at > frame.range.start || may_answer(&front.detail, line, &frame.bytes) {
                return;
            }
            self.pairing.complete_silent(out);
        }
    }
}

/// How a command went, by the line that ends its answer. A miss is no error, and neither is a condition that was not met:
/// they are what the command asks for; they stand as `code`.
pub(super) fn judge(exchange: &mut Exchange, line: &Line, bytes: &[u8], options: Options) {
    let word = line.word(0, bytes);
    match word {
        b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => {
            let [_, second, ..] = &line.words;
            let message = if line.count > 1 { bytes.get(second.start..line.end) } else { None };
            fail(exchange, &String::from_utf8_lossy(word), message.unwrap_or_default(), options);
        }
        b"NOT_FOUND" | b"NOT_STORED" | b"EXISTS" | b"BUSY" | b"BADCLASS" | b"NOSPARE" | b"NOTFULL" | b"UNSAFE"
        | b"SAME" | b"EN" | b"NF" | b"NS" | b"EX" => {
            exchange.status = Status::Ok;
            exchange.code = Some(String::from_utf8_lossy(word).into());
        }
        _ => exchange.status = Status::Ok,
    }
}

/// What a client asks with this line; `None` if there is nothing on it.
fn asked(line: &Line, frame: &Frame) -> Option<(Exchange, Expect)> {
    let (mut exchange, verb) = request(line, &frame.bytes)?;
    exchange.request = frame.range.clone();
    if !frame.whole {
        exchange.flags.insert(Flags::INCOMPLETE);
    }
    let bytes = &frame.bytes;
    let mut expect = Expect {
        answer: Answer::Line,
        verb: "",
        quiet: false,
        key: Box::default(),
        opaque: None,
        value: false,
        shows_key: false,
    };
    if let Some(verb) = verb {
        expect.answer = if line.last(bytes) == b"noreply" { Answer::Nothing } else { verb.answer };
        expect.verb = verb.name;
        if matches!(verb.form, Form::Meta | Form::MetaStore) {
            let flags = flags(line, bytes, if verb.form == Form::Meta { 2 } else { 3 });
            expect.quiet = flags.clone().any(|flag| flag == b"q");
            if expect.quiet {
                expect.key = line.word(1, bytes).into();
                expect.value = flags.clone().any(|flag| flag == b"v");
                expect.shows_key = flags.clone().any(|flag| flag == b"k");
                expect.opaque = flags.clone().find_map(|flag| flag.strip_prefix(b"O")).map(Into::into);
            }
        }
    }
    Some((exchange, expect))
}

/// A command's verb and keys.
pub(super) fn request(line: &Line, bytes: &[u8]) -> Option<(Exchange, Option<&'static super::line::Verb>)> {
    let name = line.word(0, bytes);
    if name.is_empty() {
        return None;
    }
    let verb = verb_named(name);
    // One that nobody knows is refused by the server.
    let op = verb.map_or_else(|| NAMELESS.into(), |verb| verb.name.into());
    let (first, count) = match verb.map(|verb| verb.form) {
        None | Some(Form::Plain) => (None, 0),
        Some(Form::Keys) => (Some(1), line.count.saturating_sub(2)),
        Some(Form::TouchKeys) => (Some(2), line.count.saturating_sub(3)),
        Some(_) => (Some(1), 0),
    };
    let mut target = first.map(|index| line.word(index, bytes)).filter(|key| !key.is_empty()).map(key);
    if count > 0
        && let Some(first) = &target
    {
        target = Some(match bytes.get(line.end.saturating_sub(1)) {
            Some(b'\n') => format!("{first} +{count}").into(),
            // The line goes on behind what is kept.
            _ => format!("{first} …").into(),
        });
    }
    Some((Exchange { op, target, ..Exchange::default() }, verb))
}

/// The flags of a meta command or answer, from word `from` on.
fn flags<'a>(line: &Line, bytes: &'a [u8], from: usize) -> impl Iterator<Item = &'a [u8]> + Clone {
    let text = bytes.get(..line.last.end).unwrap_or_default();
    text.split(|b| *b == b' ').filter(|word| !word.is_empty()).skip(from)
}

/// Whether a line may be the answer to a quiet command.
fn may_answer(expect: &Expect, line: &Line, bytes: &[u8]) -> bool {
    let word = line.word(0, bytes);
    let mut shown = flags(line, bytes, if word == b"VA" { 2 } else { 1 });
    let opaque = shown.clone().find_map(|flag| flag.strip_prefix(b"O"));
    let key = shown.find_map(|flag| flag.strip_prefix(b"k"));
    // What was asked for is shown in every answer of these.
    let flagged = matches!(word, b"HD" | b"VA" | b"NS" | b"EX" | b"NF");
    let expected_key = expect.shows_key.then_some(&*expect.key);
    if flagged && (opaque != expect.opaque.as_deref() || key != expected_key) {
        return false;
    }
    match word {
        // Only with an error are these answered.
        b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => true,
        b"HD" => expect.verb == "mg" && !expect.value,
        b"VA" => matches!(expect.verb, "mg" | "ma") && expect.value,
        b"NS" | b"EX" => expect.verb != "mg",
        // Of `md`, some versions send it.
        b"NF" => expect.verb != "mg",
        b"ME" => expect.verb == "me",
        _ => false,
    }
}

impl Turns for Text {
    type Detail = Expect;

    fn pairing(&mut self) -> &mut Pairing<Expect> {
        &mut self.pairing
    }

    fn chunks(&mut self) -> &mut Chunks {
        &mut self.chunks
    }

    fn read_requests(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        self.read_commands(streams, chunk, out);
    }

    fn read_answers(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        self.read_answers(streams, chunk, out);
    }
}

impl Parser for Text {
    fn parse(&mut self, streams: &mut Streams, out: &mut Output) {
        if self.mid_stream && self.fresh && self.pairing.lost().is_none() && self.reading.is_none() {
            // The server's first bytes may stand inside an answer.
            self.pairing.lose(streams.server.position(), false, Flags::default());
        }
        turns::read(self, streams, out);
    }

    fn finish(&mut self, streams: &mut Streams, out: &mut Output) {
        turns::read_rest(self, streams, out);
        if let Some(frame) = self.client.finish(&streams.client) {
            self.command(&frame, streams, out);
        }
        let partial = self.server.finish(&streams.server).map(|frame| frame.range.start);
        let begun = (!streams.server.bytes().is_empty()).then_some(streams.server.position());
        let start = self.reading.map(|reading| reading.start).or(partial).or(begun);
        if let Some(start) = start.filter(|_| self.pairing.lost().is_none())
            && self.pairing.front().is_some_and(|front| front.seen_at <= start)
        {
            if let (Some(front), true) = (self.pairing.front_mut(), self.reading.is_some() || partial.is_some()) {
                // Data had begun.
                front.exchange.status = Status::Ok;
            }
            self.pairing.finish_incomplete(start, streams, out);
        }
        turns::end(self, streams, out);
    }
}
