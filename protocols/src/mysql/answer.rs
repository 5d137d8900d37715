//! Answers to commands: OK, ERR, result sets, prepared statements
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response.html>).
//!
//! What ends a list of columns or rows is told by the packets themselves, never by remembered capabilities, so that a
//! connection opened before the recording is read as well: an EOF packet has 5 bytes, the OK packet that replaces it
//! (`CLIENT_DEPRECATE_EOF`) at least 7, and a row that begins with the same byte at least 16 MiB.

use super::outcome::{Outcome, column_count, failure};
use super::packet::{HEADER_BYTES, MAX_PAYLOAD_BYTES, Packet, Peek, peek, u16_le, u32_le};
use super::{Answer, Asking, MySql, login};
use crate::pairing::{Looks, find_start, pass_chunk};
use crate::{ByteClass, Flags, Output, Side, Status, Streams};

const OK: u8 = 0x00;
const FILE: u8 = 0xfb;
const EOF: u8 = 0xfe;
const ERR: u8 = 0xff;

/// Bytes of OK, ERR and column-count packets that are looked at; messages are at most 512 bytes long.
const WANTED_BYTES: usize = 600;

/// Packets of a login are far shorter.
const MAX_LOGIN_BYTES: u64 = 1 << 16;

/// Columns that a result may have (servers: 4096).
const MAX_COLUMNS: u64 = 1 << 16;

/// What comes next from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The first packet of an answer, or of one more result.
    First,
    /// Column descriptions of a result set.
    Columns {
        left: u64,
    },
    /// An EOF, or the first row.
    AfterColumns,
    Rows,
    /// Descriptions of parameters, and then of so many columns.
    Prepared {
        left: u64,
        columns: u64,
    },
    /// The EOF behind them.
    AfterPrepared {
        columns: u64,
    },
    /// Column descriptions up to an EOF.
    Fields,
    /// The client's file comes first.
    File,
    /// Questions about who it is.
    Login,
    /// Events.
    Binlog,
}

/// How far the answer to the oldest command was read.
#[derive(Debug)]
pub(super) struct Answering {
    stage: Stage,
    /// Where the answer begins, once its first packet was seen.
    start: Option<u64>,
    /// Sequence number of the next packet.
    sequence: u8,
    /// The next packet goes on with the last one's payload.
    continued: bool,
    /// Rows sent.
    rows: u64,
    /// A result set was among the results.
    has_rows: bool,
    /// What the ends of its results said.
    outcome: Outcome,
    /// Whether `CLIENT_DEPRECATE_EOF` was agreed on, where that is known.
    pub deprecate_eof: Option<bool>,
    /// What is left of the answer are bytes that have yet to arrive.
    complete: bool,
}

impl Default for Answering {
    fn default() -> Self {
        Self {
            stage: Stage::First,
            start: None,
            sequence: 1,
            continued: false,
            rows: 0,
            has_rows: false,
            outcome: Outcome::default(),
            deprecate_eof: None,
            complete: false,
        }
    }
}

impl Answering {
    fn reset(&mut self) {
        *self = Self { deprecate_eof: self.deprecate_eof, ..Self::default() };
    }

    /// Where the answer begins, once its first packet was seen.
    pub fn start(&self) -> Option<u64> {
        self.start
    }
}

/// What one packet means for the answer.
enum Step {
    /// It goes on.
    More(Stage),
    /// It is complete with this packet.
    Done,
    /// Look at the packet again, at this stage.
    Again(Stage),
    /// What the packet means is in a hole, or it means nothing.
    Lost(Flags),
}

/// Whether bytes look like the first packet of an answer.
pub(super) fn looks_like_answer(bytes: &[u8], sequence: u8) -> Looks {
    let &[a, b, c, number, first, ..] = bytes else { return Looks::Open };
    let length = u32::from_le_bytes([a, b, c, 0]);
    if number != sequence || length == 0 {
        return Looks::No;
    }
    let fits = match first {
        OK => (7..1 << 16).contains(&length),
        ERR => (9..1024).contains(&length),
        EOF => length == 5 || (7..1 << 16).contains(&length),
        FILE => length < 4096,
        0xfc => length == 3 || length == 4,
        1..=0xfa => length == 1 || length == 2,
        _ => false,
    };
    // What follows goes on with the answer or begins the next one.
    match bytes.get(HEADER_BYTES + length as usize..) {
        _ if !fits => Looks::No,
        Some([_, _, _, next, ..]) => (*next == sequence.wrapping_add(1) || *next == 1).into(),
        Some(_) => Looks::Yes,
        None => Looks::Open,
    }
}

impl MySql {
    pub(super) fn read_answers(&mut self, streams: &mut Streams, chunk: u64, out: &mut Output) {
        loop {
            let server = &mut streams.server;
            if self.answering.complete {
                if server.is_skipping() {
                    return;
                }
                let end = server.position();
                self.answered(end, out);
                continue;
            }
            if server.is_empty() || self.pairing.is_behind() {
                return;
            }
            let Some(front) = self.pairing.front() else {
                self.read_unasked(streams, out);
                return;
            };
            let expected = front.detail.sequence;
            let seen_at = front.seen_at;
            if let Some(lost) = self.pairing.lost() {
                if lost.begun {
                    self.pairing.pass_lost(lost, server, out);
                    return;
                }
                let looks = |bytes: &[u8], _: bool| looks_like_answer(bytes, expected);
                if !find_start(server, Side::Server, chunk, out, looks) {
                    return;
                }
                self.pairing.found(server.position(), out);
            }
            if self.answering.start.is_none() && server.position() < seen_at {
                self.read_unasked(streams, out);
                continue;
            }
            if !self.read_answer_packet(streams, chunk, expected, out) {
                return;
            }
        }
    }

    /// Passes over what no command has asked for: the greeting and the login.
    fn read_unasked(&mut self, streams: &mut Streams, out: &mut Output) {
        let before = self.pairing.front().map_or(u64::MAX, |front| front.seen_at);
        let server = &mut streams.server;
        if !self.greeted {
            match peek(server, 64) {
                Peek::Wait if before == u64::MAX => return,
                Peek::Packet(packet) if packet.missing.is_none() => {
                    let greeting = packet.sequence == 0 && login::is_greeting(packet.payload);
                    self.backslash_escapes = login::greeting_status(packet.payload)
                        .filter(|_| greeting)
                        .map(super::outcome::backslash_escapes)
                        .or(self.backslash_escapes);
                    if greeting && self.asking == Asking::Search && self.fresh {
                        // The recording began between the handshakes of TCP and MySQL.
                        self.mid_stream = false;
                        self.asking = Asking::Greeted;
                    }
                    out.rejected |= !self.mid_stream && !greeting && packet.first() != Some(ERR);
                }
                _ => {}
            }
            self.greeted = true;
        }
        while matches!(self.asking, Asking::Greeted | Asking::Login) && server.position() < before {
            let at = server.position();
            match peek(server, 32) {
                _ if self.login_lost => break,
                Peek::Packet(packet) if packet.length < MAX_LOGIN_BYTES => {
                    if self.asking == Asking::Login && packet.first() == Some(OK) && packet.length >= 7 {
                        self.asking = Asking::Command;
                        self.backslash_escapes = Outcome::of_ok(&packet).map(Outcome::backslash_escapes);
                    }
                    let size = packet.size();
                    out.mark(Side::Server, at..at + size, ByteClass::Structure);
                    server.skip(size);
                }
                Peek::Wait => return,
                _ => self.login_lost = true,
            }
        }
        let count = before.min(server.end()).saturating_sub(server.position());
        // The rest of a login is no command's answer.
        out.skipped(Side::Server, if self.fresh && !self.mid_stream { 0 } else { count });
        server.skip(count);
    }

    fn answered(&mut self, end: u64, out: &mut Output) {
        let start = self.answering.start.unwrap_or(end);
        if let Some(front) = self.pairing.front_mut() {
            if front.exchange.status == Status::Unknown {
                // It was read to its end, and no error was there.
                front.exchange.status = Status::Ok;
            }
            let counts = matches!(front.detail.answer, Answer::Results | Answer::Rows);
            if counts && front.exchange.status == Status::Ok {
                let Answering { rows, has_rows, outcome, .. } = &self.answering;
                front.exchange.rows = Some(if *has_rows { *rows } else { outcome.affected });
            }
            self.answering.outcome.tell(&mut front.exchange);
        }
        self.answering.reset();
        self.pairing.complete(start..end, out);
    }

    /// Reads one packet of an answer; false if more bytes are needed.
    fn read_answer_packet(&mut self, streams: &mut Streams, chunk: u64, expected: u8, out: &mut Output) -> bool {
        let server = &mut streams.server;
        let at = server.position();
        let wanted = match self.answering.stage {
            _ if self.answering.continued => 0,
            Stage::Columns { .. } | Stage::Prepared { .. } => 1,
            Stage::Rows | Stage::AfterColumns | Stage::Binlog | Stage::Fields => match peek(server, 1) {
                Peek::Packet(packet) if matches!(packet.first(), Some(ERR | EOF)) => WANTED_BYTES,
                _ => 1,
            },
            _ => WANTED_BYTES,
        };
        let packet = match peek(server, wanted) {
            Peek::Packet(packet) => packet,
            Peek::Wait => return false,
            Peek::Lost(flag) => {
                let begun = self.answering.start.is_some() || !server.bytes().is_empty();
                self.lose_answer(at, begun, flag, streams, chunk, out);
                return true;
            }
        };
        let first = self.answering.start.is_none();
        // Packets that go into a new frame take over its number (`pkt_nr = compress_pkt_nr` in the servers' `net_flush`).
        let reframed = self.inside && !first && self.answering.stage == Stage::First;
        let free = reframed || matches!(self.answering.stage, Stage::File | Stage::Login);
        let due = if first { expected } else { self.answering.sequence };
        if packet.sequence != due && !free {
            if matches!(self.answering.stage, Stage::AfterPrepared { .. }) {
                // No EOF came: it was complete before this packet.
                self.answering.deprecate_eof = Some(true);
                self.answering.complete = true;
                return true;
            }
            self.lose_answer(at, !first, Flags::default(), streams, chunk, out);
            return true;
        }
        let (size, length, sequence) = (packet.size(), packet.length, packet.sequence);
        let step =
            if self.answering.continued { Step::More(self.answering.stage) } else { self.packet(&packet, out, at) };
        match step {
            Step::Again(stage) => {
                self.answering.stage = stage;
                self.answering.sequence = sequence;
                return true;
            }
            Step::Lost(flag) => {
                self.answering.start.get_or_insert(at);
                self.lose_answer(at, true, flag, streams, chunk, out);
                return true;
            }
            Step::More(stage) => self.answering.stage = stage,
            Step::Done => self.answering.complete = true,
        }
        self.answering.start.get_or_insert(at);
        self.answering.sequence = sequence.wrapping_add(1);
        self.answering.continued = length == MAX_PAYLOAD_BYTES;
        streams.server.skip(size);
        if let Stage::AfterPrepared { columns: 0 } = self.answering.stage
            && self.answering.deprecate_eof.is_none()
            && streams.server.is_empty()
            && self.pairing.len() == 1
        {
            // Nothing tells whether an EOF follows but its coming: the answer ends where the next command is seen.
            let start = self.answering.start.unwrap_or(at);
            self.answering.reset();
            self.pairing.lose_end(start);
        }
        true
    }

    /// What a packet of an answer, beginning at stream offset `at`, means at the current stage.
    fn packet(&mut self, packet: &Packet<'_>, out: &mut Output, at: u64) -> Step {
        let class = match self.answering.stage {
            Stage::Columns { .. } | Stage::Prepared { .. } | Stage::Fields => ByteClass::Identifier,
            Stage::Rows | Stage::Binlog => ByteClass::Value,
            Stage::AfterColumns if !matches!(packet.first(), Some(EOF | ERR)) => ByteClass::Value,
            _ if packet.first() == Some(ERR) => ByteClass::Value,
            _ => ByteClass::Structure,
        };
        let step = self.step(packet);
        if !matches!(step, Step::Again(_) | Step::Lost(_)) {
            let head = if packet.first() == Some(ERR) { 3 } else { 0 };
            let payload = at + HEADER_BYTES as u64 + packet.length.min(head);
            out.mark(Side::Server, at..payload, ByteClass::Structure);
            out.mark(Side::Server, payload..at + packet.size(), class);
        }
        step
    }

    fn step(&mut self, packet: &Packet<'_>) -> Step {
        let Some(front) = self.pairing.front() else { return Step::Lost(Flags::default()) };
        let answer = front.detail.answer;
        let Some(kind) = packet.first() else {
            return match packet.missing {
                Some(flag) => Step::Lost(flag),
                None if answer == Answer::Single => Step::Done,
                None => Step::Lost(Flags::default()),
            };
        };
        if self.answering.stage == Stage::First && kind != ERR {
            // Each result has a status of its own; what is not seen of the last one is not known.
            let status = if says_ok(answer, kind, packet) { Status::Ok } else { Status::Unknown };
            if let Some(front) = self.pairing.front_mut() {
                front.exchange.status = status;
            }
        }
        let short = packet.length < MAX_PAYLOAD_BYTES;
        match self.answering.stage {
            Stage::First => match answer {
                _ if kind == ERR => self.failed(packet),
                Answer::Fields => Step::Again(Stage::Fields),
                Answer::Rows => {
                    self.answering.has_rows = true;
                    Step::Again(Stage::Rows)
                }
                Answer::Login => Step::Again(Stage::Login),
                Answer::Binlog => Step::Again(Stage::Binlog),
                Answer::Prepared => self.prepared(packet),
                Answer::Results => self.result(packet),
                Answer::Single | Answer::None => {
                    self.note(Some(packet).filter(|_| kind == OK && packet.length >= 7).and_then(Outcome::of_ok));
                    Step::Done
                }
                Answer::Unknown => Step::Lost(Flags::default()),
            },
            Stage::File => Step::Again(Stage::First),
            Stage::Columns { left: 0 | 1 } => Step::More(Stage::AfterColumns),
            Stage::Columns { left } => Step::More(Stage::Columns { left: left - 1 }),
            Stage::AfterColumns if kind == EOF && packet.length == 5 => {
                self.answering.deprecate_eof.get_or_insert(false);
                match Outcome::of_eof(packet) {
                    Some(outcome) if outcome.has_cursor() => self.ended(outcome),
                    Some(outcome) => {
                        self.backslash_escapes = Some(outcome.backslash_escapes());
                        Step::More(Stage::Rows)
                    }
                    None => Step::Lost(packet.missing.unwrap_or_default()),
                }
            }
            Stage::AfterColumns => {
                if !matches!(kind, ERR) {
                    self.answering.deprecate_eof.get_or_insert(true);
                }
                Step::Again(Stage::Rows)
            }
            Stage::Rows => match kind {
                ERR => self.failed(packet),
                EOF if short => match Outcome::of_eof(packet) {
                    Some(outcome) => self.ended(outcome),
                    None => Step::Lost(packet.missing.unwrap_or_default()),
                },
                _ => {
                    self.answering.rows += 1;
                    Step::More(Stage::Rows)
                }
            },
            Stage::Prepared { left: 0 | 1, columns } => self.described(columns),
            Stage::Prepared { left, columns } => Step::More(Stage::Prepared { left: left - 1, columns }),
            Stage::AfterPrepared { columns } if kind == EOF && packet.length == 5 => {
                self.answering.deprecate_eof.get_or_insert(false);
                self.note(Outcome::of_eof(packet));
                if columns == 0 { Step::Done } else { Step::More(Stage::Prepared { left: columns, columns: 0 }) }
            }
            Stage::AfterPrepared { columns } => {
                self.answering.deprecate_eof.get_or_insert(true);
                if columns == 0 {
                    return Step::Lost(Flags::default());
                }
                Step::Again(Stage::Prepared { left: columns, columns: 0 })
            }
            Stage::Fields => match kind {
                ERR => self.failed(packet),
                EOF if short => Step::Done,
                _ => Step::More(Stage::Fields),
            },
            Stage::Login => match kind {
                ERR => self.failed(packet),
                OK => {
                    self.note(Outcome::of_ok(packet));
                    Step::Done
                }
                _ => Step::More(Stage::Login),
            },
            Stage::Binlog => match kind {
                ERR => self.failed(packet),
                EOF if packet.length < 9 => Step::Done,
                _ => Step::More(Stage::Binlog),
            },
        }
    }

    /// Notes what the end of a result says.
    fn note(&mut self, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome {
            self.backslash_escapes = Some(outcome.backslash_escapes());
            self.answering.outcome.add(outcome);
        }
    }

    /// A result ended like this.
    fn ended(&mut self, outcome: Outcome) -> Step {
        self.backslash_escapes = Some(outcome.backslash_escapes());
        self.answering.outcome.add(outcome);
        if !outcome.has_more() {
            return Step::Done;
        }
        if let Some(front) = self.pairing.front_mut() {
            front.exchange.status = Status::Unknown;
        }
        Step::More(Stage::First)
    }

    /// The descriptions of parameters or columns of a prepared statement are complete.
    fn described(&self, columns: u64) -> Step {
        match (self.answering.deprecate_eof, columns) {
            (Some(true), 0) => Step::Done,
            (Some(true), _) => Step::More(Stage::Prepared { left: columns, columns: 0 }),
            _ => Step::More(Stage::AfterPrepared { columns }),
        }
    }

    fn failed(&mut self, packet: &Packet<'_>) -> Step {
        let mut rest = packet.payload.get(1..).unwrap_or_default();
        if u16_le(&mut rest) == Some(u16::MAX) {
            // MariaDB's progress report (mariadb.com/kb/en/err_packet): no error.
            return Step::More(self.answering.stage);
        }
        if let Some(front) = self.pairing.front_mut() {
            failure(packet, self.options.literals, &mut front.exchange);
        }
        Step::Done
    }

    /// The first packet of a result.
    fn result(&mut self, packet: &Packet<'_>) -> Step {
        match packet.first() {
            Some(OK) if packet.length >= 7 => match Outcome::of_ok(packet) {
                Some(outcome) => self.ended(outcome),
                None => Step::Lost(packet.missing.unwrap_or_default()),
            },
            Some(EOF) if packet.length < 9 => Step::Done,
            Some(FILE) => {
                self.asking = Asking::File;
                Step::More(Stage::File)
            }
            _ => match column_count(packet) {
                Some((columns, true)) if (1..=MAX_COLUMNS).contains(&columns) => {
                    self.answering.has_rows = true;
                    Step::More(Stage::Columns { left: columns })
                }
                Some((columns, false)) if columns <= MAX_COLUMNS => {
                    self.answering.has_rows = true;
                    Step::More(Stage::AfterColumns)
                }
                _ => Step::Lost(packet.missing.unwrap_or_default()),
            },
        }
    }

    /// The first packet of the answer to a prepare: number, columns, parameters, a zero, warnings
    /// (page_protocol_com_stmt_prepare.html).
    fn prepared(&mut self, packet: &Packet<'_>) -> Step {
        let mut rest = packet.payload.get(1..).unwrap_or_default();
        let lost = Step::Lost(packet.missing.unwrap_or_default());
        if packet.first() != Some(OK) {
            return lost;
        }
        let Some(id) = u32_le(&mut rest) else { return lost };
        let (columns, parameters) = (u16_le(&mut rest), u16_le(&mut rest));
        let last = self.pairing.len() == 1;
        if let Some(statement) = self.pairing.front_mut().and_then(|front| front.detail.prepares.take()) {
            self.prepared.remember(id, statement, parameters, last);
        }
        let (Some(columns), Some(parameters)) = (columns, parameters) else { return lost };
        // A zero, warnings, and whether descriptions follow (CLIENT_OPTIONAL_RESULTSET_METADATA).
        if packet.length == 13 && rest.get(3) == Some(&0) {
            return Step::Done;
        }
        match (u64::from(parameters), u64::from(columns)) {
            (0, 0) => Step::Done,
            (0, columns) => Step::More(Stage::Prepared { left: columns, columns: 0 }),
            (parameters, columns) => Step::More(Stage::Prepared { left: parameters, columns }),
        }
    }

    /// The end came within an answer: what of it was read counts.
    pub(super) fn finish_answer(&mut self, streams: &Streams, out: &mut Output) {
        let at = streams.server.position();
        match self.answering.start {
            // All of it may have been there: the EOF that some servers send would say so.
            Some(start) if matches!(self.answering.stage, Stage::AfterPrepared { columns: 0 }) => {
                self.pairing.complete(start..at.min(streams.server.end()), out);
            }
            Some(start) => self.pairing.finish_incomplete(start, streams, out),
            None => {
                let begun = !streams.server.bytes().is_empty();
                if begun && self.pairing.front().is_some_and(|front| front.seen_at <= at) {
                    self.pairing.finish_incomplete(at, streams, out);
                }
            }
        }
    }

    fn lose_answer(&mut self, at: u64, begun: bool, flag: Flags, streams: &mut Streams, chunk: u64, out: &mut Output) {
        let start = self.answering.start.unwrap_or(at);
        self.answering.reset();
        self.pairing.lose(start, begun, flag);
        pass_chunk(&mut streams.server, Side::Server, chunk, out);
    }
}

/// Whether the first packet of a result, which is no ERR, tells that the command was accepted. Where rows follow, an
/// error may still end them; what comes before OK or ERR tells nothing.
fn says_ok(answer: Answer, kind: u8, packet: &Packet<'_>) -> bool {
    match answer {
        Answer::Login | Answer::None => false,
        Answer::Prepared => kind == OK,
        Answer::Results if kind == OK => packet.length >= 7,
        Answer::Results => kind != FILE && (column_count(packet).is_some() || packet.missing.is_some()),
        Answer::Unknown => matches!(kind, OK..=0xfa),
        Answer::Single | Answer::Fields | Answer::Rows | Answer::Binlog => true,
    }
}
