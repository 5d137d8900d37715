//! Names in a certificate (X.509 in DER: RFC 5280, X.690): subject's common name, alternative DNS names and addresses.
//!
//! A walk along the few fields that lead there. Crates that read certificates whole bring a dozen others with them, and
//! refuse what is cut.

use std::net::IpAddr;

use crate::text;

/// Names of one certificate that are kept.
const MAX_NAMES: usize = 100;
/// Bytes of a name.
const MAX_NAME_BYTES: usize = 255;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const BMP_STRING: u8 = 0x1e;
/// `[0]` version and `[3]` extensions of a TBSCertificate.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// Of a GeneralName: `[2]` dNSName, `[7]` iPAddress.
const DNS_NAME: u8 = 0x82;
const ADDRESS: u8 = 0x87;
/// id-at-commonName, id-ce-subjectAltName.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Takes one element from the front: its tag and content, which may be cut.
fn element<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if *first >= 0x80 {
        // At most three bytes of length: no handshake message has more than 2^24 bytes.
        let (digits, behind) = rest.split_at_checked(usize::from(*first & 0x7f).min(4))?;
        if digits.is_empty() || digits.len() > 3 {
            return None;
        }
        length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
    *bytes = behind;
    Some((*tag, content))
}

/// The content of the element in front, if it has this tag.
fn inside<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(bytes).filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

/// The names of a certificate, as far as it is there: common name first, none twice.
pub(super) fn names(mut certificate: &[u8]) -> Vec<Box<str>> {
    let mut found = Vec::new();
    let _ = read(&mut certificate, &mut found);
    found
}

fn read(certificate: &mut &[u8], found: &mut Vec<Box<str>>) -> Option<()> {
    let mut outer = inside(certificate, SEQUENCE)?;
    let mut fields = inside(&mut outer, SEQUENCE)?;
    let (tag, _) = element(&mut fields)?;
    if tag == VERSION {
        element(&mut fields)?;
    }
    // Signature algorithm, issuer, validity.
    for _ in 0..3 {
        element(&mut fields)?;
    }
    let mut subject = inside(&mut fields, SEQUENCE)?;
    while let Some(mut set) = inside(&mut subject, SET) {
        while let Some(mut attribute) = inside(&mut set, SEQUENCE) {
            if inside(&mut attribute, OID) == Some(COMMON_NAME)
                && let Some((kind, value)) = element(&mut attribute)
            {
                add(found, if kind == BMP_STRING { utf16(value) } else { text::bounded(value, MAX_NAME_BYTES, false) });
            }
        }
    }
    // The key, then perhaps unique identifiers, then extensions.
    let mut extensions = loop {
        match element(&mut fields)? {
            (EXTENSIONS, mut content) => break inside(&mut content, SEQUENCE)?,
            _ => continue,
        }
    };
    while let Some(mut extension) = inside(&mut extensions, SEQUENCE) {
        if inside(&mut extension, OID) != Some(SUBJECT_ALT_NAME) {
            continue;
        }
        // Behind the name: perhaps whether it is critical, then the content.
        while let Some((tag, mut content)) = element(&mut extension) {
            if tag != OCTETS {
                continue;
            }
            let mut list = inside(&mut content, SEQUENCE)?;
            while let Some((kind, name)) = element(&mut list) {
                match kind {
                    DNS_NAME => add(found, text::bounded(name, MAX_NAME_BYTES, false)),
                    ADDRESS => {
                        let v4 = <[u8; 4]>::try_from(name).map(IpAddr::from);
                        if let Ok(address) = v4.or_else(|_| <[u8; 16]>::try_from(name).map(IpAddr::from)) {
                            add(found, address.to_string().into());
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    Some(())
}

fn add(found: &mut Vec<Box<str>>, name: Box<str>) {
    if found.len() < MAX_NAMES && !name.is_empty() && !found.contains(&name) {
        found.push(name);
    }
}

fn utf16(bytes: &[u8]) -> Box<str> {
    let units = bytes.chunks_exact(2).take(MAX_NAME_BYTES).filter_map(|pair| pair.first_chunk());
    char::decode_utf16(units.map(|pair| u16::from_be_bytes(*pair)))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect::<String>()
        .into()
}
