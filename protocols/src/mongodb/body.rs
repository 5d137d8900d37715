//! What requests and answers say: command, collection, how it went.

use super::bson::{self, Document};
use super::wire::*;
use crate::cursor::Cursor;
use crate::{ByteClass, NAMELESS, text};

/// Bytes of a name that are shown.
const MAX_NAME_BYTES: usize = 1024;

/// Classes of a message's bytes from its start on: (end, class), in order.
#[derive(Debug, Default)]
pub(super) struct Classes {
    wanted: bool,
    base: usize,
    list: Vec<(u64, ByteClass)>,
}

impl Classes {
    /// `base`: where the body begins in the message; nothing is noted where nobody asks.
    pub fn new(wanted: bool, base: usize) -> Self {
        Self { wanted, base, list: Vec::new() }
    }

    fn to(&mut self, end: usize, class: ByteClass) {
        if self.wanted {
            self.list.push(((self.base + end) as u64, class));
        }
    }

    pub fn list(&self) -> &[(u64, ByteClass)] {
        &self.list
    }
}

/// What a request asks.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub op: Box<str>,
    pub target: Option<Box<str>>,
    /// It gets no answer.
    pub silent: bool,
    /// It may get more than one.
    pub exhaust: bool,
    /// Its answer is a command's: a document with `ok`.
    pub command: bool,
    /// `n` in its answer is a number of documents written.
    pub writes: bool,
    /// Credentials are in it or in its answer.
    pub secret: bool,
    /// What was needed lies behind the bytes that are here.
    pub cut: bool,
}

/// Commands whose first field holds the name of a collection.
fn names_collection(command: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"aggregate",
        b"cloneCollectionAsCapped",
        b"collMod",
        b"collStats",
        b"collstats",
        b"compact",
        b"convertToCapped",
        b"count",
        b"create",
        b"createIndexes",
        b"createSearchIndexes",
        b"delete",
        b"deleteIndexes",
        b"distinct",
        b"drop",
        b"dropIndexes",
        b"dropSearchIndex",
        b"filemd5",
        b"find",
        b"findAndModify",
        b"findandmodify",
        b"geoNear",
        b"geoSearch",
        b"insert",
        b"killCursors",
        b"listIndexes",
        b"mapReduce",
        b"mapreduce",
        b"parallelCollectionScan",
        b"planCacheClear",
        b"planCacheClearFilters",
        b"planCacheListFilters",
        b"planCacheSetFilter",
        b"reIndex",
        b"update",
        b"updateSearchIndex",
        b"validate",
    ];
    NAMES.contains(&command)
}

/// Commands whose first field holds `database.collection`.
fn names_namespace(command: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"enableSharding",
        b"moveChunk",
        b"moveCollection",
        b"renameCollection",
        b"reshardCollection",
        b"shardCollection",
        b"split",
    ];
    NAMES.contains(&command)
}

/// Commands that carry credentials.
fn is_secret(command: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"authenticate",
        b"copydbsaslstart",
        b"createUser",
        b"getnonce",
        b"saslContinue",
        b"saslStart",
        b"speculativeAuthenticate",
        b"updateUser",
    ];
    NAMES.contains(&command)
}

/// The command in a document and what it is about.
struct Command<'a> {
    name: &'a [u8],
    collection: Option<&'a [u8]>,
    namespace: Option<&'a [u8]>,
    database: Option<&'a [u8]>,
    secret: bool,
    complete: bool,
    /// One of these names goes on behind the bytes that are here.
    cut: bool,
}

/// Reads a command's document, which begins at `base` in the body.
fn command<'a>(bytes: &'a [u8], base: usize, classes: &mut Classes) -> Command<'a> {
    let mut command = Command {
        name: b"",
        collection: None,
        namespace: None,
        database: None,
        secret: false,
        complete: false,
        cut: false,
    };
    let mut document = Document::new(bytes);
    let mut wrapped = None;
    for (index, element) in document.by_ref().enumerate() {
        let value_at = base + element.value_at;
        classes.to(value_at, ByteClass::Structure);
        let mut class = ByteClass::Value;
        if index == 0 {
            command.name = element.name;
            command.secret = is_secret(element.name);
            // Queries and explained commands stand inside a document of their own.
            if matches!(element.name, b"$query" | b"query" | b"explain" | b"$explain") {
                wrapped = element.document().and_then(|mut inner| inner.next());
                command.cut = !element.whole && wrapped.is_none_or(|inner| !inner.whole);
            }
        }
        if element.name == b"speculativeAuthenticate" {
            command.secret = true;
        }
        let text = element.text();
        if index == 0 && element.kind == bson::STRING {
            if names_namespace(element.name) {
                command.namespace = text;
                class = ByteClass::Identifier;
            } else if names_collection(element.name) {
                command.collection = text;
                class = ByteClass::Identifier;
            }
        } else if element.name == b"$db" {
            command.database = text;
            class = ByteClass::Identifier;
        } else if element.name == b"collection" && command.name == b"getMore" {
            command.collection = text;
            class = ByteClass::Identifier;
        }
        command.cut |= class == ByteClass::Identifier && !element.whole;
        if command.secret && class == ByteClass::Value {
            class = ByteClass::Secret;
        }
        classes.to(value_at + element.value.len(), class);
    }
    command.complete = document.complete;
    if command.complete {
        classes.to(base + document.at(), ByteClass::Structure);
    }
    if let Some(inner) = wrapped {
        if matches!(command.name, b"$query" | b"query") {
            command.name = inner.name;
            command.secret |= is_secret(inner.name);
        }
        if names_collection(inner.name) {
            command.collection = inner.text();
        }
    }
    command
}

/// Bytes of a command's name at most; no known one is longer.
const MAX_COMMAND_BYTES: usize = 40;

fn name(bytes: &[u8]) -> Box<str> {
    if bytes.is_empty() { NAMELESS.into() } else { text::bounded(bytes, MAX_NAME_BYTES, false) }
}

/// Whether it is made like the name of a command; data in its place are not shown.
fn is_word(name: &[u8]) -> bool {
    name.len() <= MAX_COMMAND_BYTES && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

impl Asked {
    fn of(command: &Command<'_>, database: Option<&[u8]>) -> Self {
        let database = command.database.or(database);
        // It may stand further on.
        let collection_follows = command.name == b"getMore" && command.collection.is_none();
        let lacks = command.name.is_empty() || database.is_none() || collection_follows;
        let target = match (command.namespace, command.collection) {
            (Some(namespace), _) => Some(name(namespace)),
            (_, Some(collection)) => {
                Some(format!("{}.{}", database.map_or(NAMELESS.into(), name), name(collection)).into())
            }
            _ => database.map(name),
        };
        Asked {
            op: if is_word(command.name) { name(command.name) } else { NAMELESS.into() },
            target,
            command: true,
            writes: matches!(command.name, b"insert" | b"update" | b"delete"),
            secret: command.secret,
            cut: command.cut || !command.complete && lacks,
            ..Asked::default()
        }
    }
}

/// Reads a request's body.
pub(super) fn request(op: u32, body: &[u8], classes: &mut Classes) -> Asked {
    legacy(op, body, classes).unwrap_or_else(|| match op {
        OP_MSG => message(body, classes),
        _ => Asked { op: operation(op).into(), cut: true, ..Asked::default() },
    })
}

fn operation(op: u32) -> &'static str {
    match op {
        OP_UPDATE => "OP_UPDATE",
        OP_INSERT => "OP_INSERT",
        OP_QUERY => "OP_QUERY",
        OP_GET_MORE => "OP_GET_MORE",
        OP_DELETE => "OP_DELETE",
        OP_KILL_CURSORS => "OP_KILL_CURSORS",
        _ => NAMELESS,
    }
}

/// Everything before `OP_MSG`; `None` where too little is here, or it is none of those.
fn legacy(op: u32, body: &[u8], classes: &mut Classes) -> Option<Asked> {
    let mut cursor = Cursor::new(body);
    if op == OP_COMMAND {
        let database = cursor.c_string()?;
        classes.to(cursor.at(), ByteClass::Identifier);
        let named = cursor.c_string()?;
        classes.to(cursor.at(), ByteClass::Structure);
        let base = cursor.at();
        // Metadata comes before the arguments in some versions, behind them in others: the command's own begins with
        // its name.
        let mut found = command(cursor.rest(), base, classes);
        if found.name != named {
            found = Command { name: named, collection: None, cut: !found.complete, ..found };
        }
        return Some(Asked::of(&found, Some(database)));
    }
    if !matches!(op, OP_UPDATE | OP_INSERT | OP_QUERY..=OP_KILL_CURSORS) {
        return None;
    }
    let flags = cursor.le32()?;
    classes.to(cursor.at(), ByteClass::Structure);
    if op == OP_KILL_CURSORS {
        return Some(Asked { op: operation(op).into(), silent: true, ..Asked::default() });
    }
    let namespace = cursor.c_string()?;
    classes.to(cursor.at(), ByteClass::Identifier);
    if op == OP_QUERY {
        cursor.take(8)?;
        classes.to(cursor.at(), ByteClass::Structure);
        const EXHAUST: u32 = 64;
        if let Some(database) = namespace.strip_suffix(b".$cmd") {
            let found = command(cursor.rest(), cursor.at(), classes);
            return Some(Asked { exhaust: flags & EXHAUST != 0, ..Asked::of(&found, Some(database)) });
        }
        return Some(Asked {
            op: operation(op).into(),
            target: Some(name(namespace)),
            exhaust: flags & EXHAUST != 0,
            ..Asked::default()
        });
    }
    let silent = op != OP_GET_MORE;
    Some(Asked { op: operation(op).into(), target: Some(name(namespace)), silent, ..Asked::default() })
}

// Flags of `OP_MSG`. That of the checksum is of no interest: nothing reads as far as the last four bytes.
const MORE_TO_COME: u32 = 1 << 1;
const EXHAUST_ALLOWED: u32 = 1 << 16;

/// Goes through the sections of an `OP_MSG` up to its document; `None` where it is not here.
fn body_document<'a>(body: &'a [u8], classes: &mut Classes) -> (u32, Option<(&'a [u8], usize)>) {
    let mut cursor = Cursor::new(body);
    let Some(flags) = cursor.le32() else { return (0, None) };
    classes.to(cursor.at(), ByteClass::Structure);
    loop {
        match cursor.u8() {
            Some(0) => return (flags, Some((cursor.rest(), cursor.at()))),
            Some(1) => {
                let at = cursor.at();
                let Some(size) = cursor.le32().and_then(|size| usize::try_from(size).ok()) else {
                    return (flags, None);
                };
                if cursor.take(size.saturating_sub(4)).is_none() {
                    return (flags, None);
                }
                classes.to(at + 4, ByteClass::Structure);
                classes.to(cursor.at(), ByteClass::Value);
            }
            _ => return (flags, None),
        }
    }
}

fn message(body: &[u8], classes: &mut Classes) -> Asked {
    let (flags, document) = body_document(body, classes);
    let mut asked = match document {
        Some((document, at)) => Asked::of(&command(document, at, classes), None),
        None => Asked { op: NAMELESS.into(), command: true, cut: true, ..Asked::default() },
    };
    asked.silent = flags & MORE_TO_COME != 0;
    asked.exhaust = flags & EXHAUST_ALLOWED != 0;
    asked
}

/// What an answer says.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// `None` where that was not seen.
    pub ok: Option<bool>,
    pub code: Option<Box<str>>,
    pub message: Option<Box<str>>,
    pub rows: Option<u64>,
    /// Another answer follows.
    pub more: bool,
    /// It may need what lies behind the bytes that are here.
    pub cut: bool,
    pub secret: bool,
}

/// Reads an answer's body: to a command, or to a query of a collection.
pub(super) fn answer(op: u32, body: &[u8], asked: &Asked, classes: &mut Classes) -> Answer {
    let found = match op {
        OP_REPLY => reply(body, asked, classes),
        OP_COMMANDREPLY => Some(result(body, 0, asked, classes)),
        _ => {
            let (flags, document) = body_document(body, classes);
            document.map(|(document, at)| Answer {
                more: flags & MORE_TO_COME != 0,
                ..result(document, at, asked, classes)
            })
        }
    };
    found.unwrap_or(Answer { cut: true, ..Answer::default() })
}

fn reply(body: &[u8], asked: &Asked, classes: &mut Classes) -> Option<Answer> {
    let mut cursor = Cursor::new(body);
    let flags = cursor.le32()?;
    let cursor_id = cursor.le64()?;
    let _from = cursor.le32()?;
    let count = cursor.le32()?;
    classes.to(cursor.at(), ByteClass::Structure);
    let more = asked.exhaust && cursor_id != 0;
    if flags & 1 != 0 {
        let code = Some("CursorNotFound".into());
        return Some(Answer { ok: Some(false), code, ..Answer::default() });
    }
    if flags & 2 != 0 {
        let mut failed = result(cursor.rest(), cursor.at(), asked, classes);
        failed.ok = Some(false);
        return Some(failed);
    }
    if asked.command {
        return Some(Answer { more, ..result(cursor.rest(), cursor.at(), asked, classes) });
    }
    Some(Answer { ok: Some(true), rows: Some(u64::from(count)), more, ..Answer::default() })
}

/// The error in a document: its code's name or number, and its message.
#[derive(Debug, Default)]
struct Failure {
    code: Option<i64>,
    name: Option<Box<str>>,
    message: Option<Box<str>>,
}

impl Failure {
    fn field(&mut self, element: &bson::Element<'_>) {
        match element.name {
            b"code" => self.code = element.number(),
            b"codeName" => self.name = element.text().map(name),
            b"errmsg" | b"$err" | b"err" => {
                self.message = element.text().map(|text| text::bounded(text, text::MAX_TEXT_BYTES, !element.whole));
            }
            _ => {}
        }
    }

    fn of(mut elements: Document<'_>) -> Self {
        let mut failure = Self::default();
        elements.by_ref().for_each(|element| failure.field(&element));
        failure
    }
}

/// Reads the document that a command is answered with.
fn result(bytes: &[u8], base: usize, asked: &Asked, classes: &mut Classes) -> Answer {
    let mut document = Document::new(bytes);
    let (mut ok, mut cursor_seen, mut secret) = (None, false, asked.secret);
    let (mut rows, mut failure, mut partial) = (None, Failure::default(), None);
    for element in document.by_ref() {
        let value_at = base + element.value_at;
        classes.to(value_at, ByteClass::Structure);
        secret |= element.name == b"speculativeAuthenticate";
        let mut class = if secret { ByteClass::Secret } else { ByteClass::Value };
        match element.name {
            b"ok" => {
                ok = element.number().map(|number| number != 0);
                class = ByteClass::Structure;
            }
            b"n" if asked.writes => rows = element.number().and_then(|n| u64::try_from(n).ok()),
            b"cursor" => {
                cursor_seen = element.kind == 3;
                rows = element.document().and_then(batch);
            }
            // What was written went wrong in part.
            b"writeErrors" => {
                let first = element.document().and_then(|mut errors| errors.next());
                partial = partial.or(first.and_then(|first| first.document()).map(Failure::of));
            }
            b"writeConcernError" => partial = partial.or(element.document().map(Failure::of)),
            _ => failure.field(&element),
        }
        classes.to(value_at + element.value.len(), class);
    }
    if document.complete {
        classes.to(base + document.at(), ByteClass::Structure);
    }
    // `getLastError` succeeds and tells of the failure of the write before it.
    let told = asked.op.eq_ignore_ascii_case("getlasterror") && failure.message.is_some();
    let failed = match (ok, partial) {
        (Some(false), _) => Some(failure),
        (_, Some(partial)) => Some(partial),
        (Some(true), None) if told => Some(failure),
        _ => None,
    };
    let mut answer = Answer { rows, secret, cut: !document.complete, ..Answer::default() };
    match failed {
        Some(failure) => {
            answer.ok = Some(false);
            answer.code = failure.name.or_else(|| failure.code.map(|code| code.to_string().into()));
            answer.message = failure.message;
        }
        // A document with a cursor is never one of an error: those are made anew.
        None if ok == Some(true) || cursor_seen => {
            answer.ok = Some(true);
            answer.cut = false;
        }
        None => {}
    }
    answer
}

/// Documents in the batch of a cursor; `None` where not all are here.
fn batch(cursor: Document<'_>) -> Option<u64> {
    let mut cursor = cursor;
    let batch = cursor.find(|element| matches!(element.name, b"firstBatch" | b"nextBatch"))?;
    let mut documents = batch.document()?;
    let mut count = 0;
    for document in documents.by_ref() {
        count += u64::from(document.whole);
    }
    documents.complete.then_some(count)
}

/// An error message without the values in it: quoted ones, numbers, and the keys in braces of a duplicate key.
pub(super) fn mask(message: &str) -> Box<str> {
    let quoted = text::mask_quoted(message);
    let mut masked = String::with_capacity(quoted.len());
    let mut depth = 0u32;
    for c in quoted.chars() {
        match c {
            '{' => {
                if depth == 0 {
                    masked.push_str("{?");
                }
                depth += 1;
            }
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    masked.push('}');
                }
            }
            _ if depth > 0 => {}
            c => masked.push(c),
        }
    }
    text::mask_numbers(&masked).into()
}
