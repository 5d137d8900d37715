//! Hello messages and certificates, as far as they are there.

use super::certificate;
use super::words::{is_grease, is_version_13, suite_name, version_name};
use crate::{TlsFacts, text};

/// A name in a hello, bytes (a host name has at most 253, RFC 1035).
const MAX_NAME_BYTES: usize = 255;
/// Application protocols that are kept.
const MAX_PROTOCOLS: usize = 16;

/// Extension types (RFC 6066, 7301, 8446).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// Reads fields from front to back. What a length reaches beyond the end is given as far as it is there.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    fn number24(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) << 16 | usize::from(self.number()?))
    }

    fn up_to(&mut self, count: usize) -> &'a [u8] {
        self.take(count).unwrap_or_else(|| std::mem::take(&mut self.0))
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        Some(self.up_to(usize::from(length)))
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        Some(self.up_to(usize::from(length)))
    }
}

/// Extensions: type and content.
fn extensions(fields: &mut Fields<'_>, mut visit: impl FnMut(u16, Fields<'_>)) {
    let mut list = Fields(fields.long().unwrap_or_default());
    while let Some(kind) = list.number() {
        let Some(content) = list.long() else { return };
        visit(kind, Fields(content));
    }
}

/// What the client offers (RFC 8446, section 4.1.2; RFC 5246, section 7.4.1.2).
pub(super) fn client(body: &[u8], facts: &mut TlsFacts) {
    let mut fields = Fields(body);
    let Some(legacy) = fields.number() else { return };
    let mut version = legacy;
    let skipped = fields.take(32).and_then(|_| fields.short()).and_then(|_| fields.long()).and_then(|_| fields.short());
    let mut protocols = Vec::new();
    if skipped.is_some() {
        extensions(&mut fields, |kind, mut content| match kind {
            SERVER_NAME => {
                let mut list = Fields(content.long().unwrap_or_default());
                while let (Some(kind), Some(name)) = (list.byte(), list.long()) {
                    if kind == 0 && !name.is_empty() {
                        facts.server_name = Some(text::bounded(name, MAX_NAME_BYTES, false));
                        break;
                    }
                }
            }
            ALPN => protocols = application_protocols(content),
            SUPPORTED_VERSIONS => {
                let mut list = Fields(content.short().unwrap_or_default());
                while let Some(offered) = list.number() {
                    if !is_grease(offered) && (is_version_13(offered) || offered > version) && version != 0x0304 {
                        version = offered;
                    }
                }
            }
            _ => {}
        });
    }
    facts.version = Some(version_name(version));
    if !protocols.is_empty() {
        facts.alpn = protocols;
    }
}

/// What the server chose; true if the rest of the handshake is encrypted (TLS 1.3). `None` where the version is cut.
pub(super) fn server(body: &[u8], facts: &mut TlsFacts) -> Option<bool> {
    let mut fields = Fields(body);
    let mut version = fields.number()?;
    if let Some(suite) = fields.take(32).and_then(|_| fields.short()).and_then(|_| fields.number()) {
        facts.cipher = Some(suite_name(suite));
    }
    fields.byte();
    extensions(&mut fields, |kind, mut content| match kind {
        ALPN => {
            let protocols = application_protocols(content);
            if !protocols.is_empty() {
                facts.alpn = protocols;
            }
        }
        SUPPORTED_VERSIONS => version = content.number().unwrap_or(version),
        _ => {}
    });
    facts.version = Some(version_name(version));
    Some(is_version_13(version))
}

fn application_protocols(mut content: Fields<'_>) -> Vec<Box<str>> {
    let mut list = Fields(content.long().unwrap_or_default());
    let mut found = Vec::new();
    while let Some(name) = list.short() {
        let grease = matches!(name, [a, b] if is_grease(u16::from_be_bytes([*a, *b])));
        if !grease && !name.is_empty() && found.len() < MAX_PROTOCOLS {
            found.push(text::bounded(name, MAX_NAME_BYTES, false));
        }
    }
    found
}

/// The server's own certificate, the first of its chain (RFC 5246, section 7.4.2).
pub(super) fn certificates(body: &[u8], facts: &mut TlsFacts) {
    let mut fields = Fields(body);
    if fields.number24().is_some()
        && let Some(length) = fields.number24()
    {
        facts.certificate = certificate::names(fields.up_to(length));
    }
}
