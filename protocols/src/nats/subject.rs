//! Subjects that a client listens to.

use std::collections::VecDeque;

use crate::text;

/// Subscriptions that are remembered.
const MAX_SUBSCRIPTIONS: usize = 64;
/// Longer ones are not.
const MAX_BYTES: usize = 256;

#[derive(Debug)]
struct Subscription {
    /// Its number, as the client gave it.
    sid: Box<[u8]>,
    /// It may have wildcards.
    subject: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Subscriptions {
    known: VecDeque<Subscription>,
    /// There may be others.
    missed: bool,
}

impl Subscriptions {
    pub fn new(missed: bool) -> Self {
        Self { known: VecDeque::new(), missed }
    }

    /// Subscriptions may have been made unseen.
    pub fn miss(&mut self) {
        self.missed = true;
    }

    pub fn add(&mut self, sid: &[u8], subject: &[u8]) {
        if sid.len() > MAX_BYTES || subject.len() > MAX_BYTES {
            self.missed = true;
            return;
        }
        if self.known.len() >= MAX_SUBSCRIPTIONS {
            self.missed = true;
            self.known.pop_front();
        }
        self.known.push_back(Subscription { sid: sid.into(), subject: subject.into() });
    }

    /// An UNSUB: the subject. With a limit of messages the subscription goes on, so it stays known.
    pub fn end(&self, sid: &[u8]) -> Option<Box<str>> {
        let known = self.known.iter().rev().find(|known| *known.sid == *sid)?;
        Some(text::bounded(&known.subject, MAX_BYTES, false))
    }

    /// Whether the client would get what is sent to `subject`.
    pub fn may_receive(&self, subject: &[u8]) -> bool {
        self.missed || self.known.iter().any(|known| matches(&known.subject, subject))
    }
}

/// Whether a subject is one of a pattern's: `*` stands for one word, `>` for one or more at the end.
fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let mut words = subject.split(|b| *b == b'.');
    for part in pattern.split(|b| *b == b'.') {
        match (part, words.next()) {
            (b">", Some(_)) => return true,
            (_, None) => return false,
            (b"*", Some(_)) => {}
            (part, Some(word)) if part == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        assert!(matches(b"_INBOX.a.*", b"_INBOX.a.b"));
        assert!(!matches(b"_INBOX.a.*", b"_INBOX.a.b.c"));
        assert!(matches(b"_INBOX.>", b"_INBOX.a.b.c"));
        assert!(!matches(b"_INBOX.a.>", b"_INBOX.a"));
        assert!(!matches(b"a.b", b"a"));
    }
}
