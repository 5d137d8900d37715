//! Numbers of DNS and their names (IANA, "Domain Name System (DNS) Parameters").

use std::borrow::Cow;

pub(super) const A: u16 = 1;
pub(super) const SOA: u16 = 6;
pub(super) const AAAA: u16 = 28;
pub(super) const OPT: u16 = 41;
pub(super) const TKEY: u16 = 249;
pub(super) const TSIG: u16 = 250;
pub(super) const IXFR: u16 = 251;
pub(super) const AXFR: u16 = 252;

/// Opcodes (RFC 1035, 1996, 2136, 8490).
pub(super) const QUERY: u8 = 0;

/// Record and question types by number, in order.
const TYPES: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (3, "MD"),
    (4, "MF"),
    (5, "CNAME"),
    (6, "SOA"),
    (7, "MB"),
    (8, "MG"),
    (9, "MR"),
    (10, "NULL"),
    (11, "WKS"),
    (12, "PTR"),
    (13, "HINFO"),
    (14, "MINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (24, "SIG"),
    (25, "KEY"),
    (28, "AAAA"),
    (29, "LOC"),
    (30, "NXT"),
    (33, "SRV"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (39, "DNAME"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (55, "HIP"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (108, "EUI48"),
    (109, "EUI64"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
];

/// A type's name; `TYPE65534` where it has none (RFC 3597).
pub(super) fn type_name(number: u16) -> Cow<'static, str> {
    let found = TYPES.binary_search_by_key(&number, |(number, _)| *number).ok().and_then(|index| TYPES.get(index));
    found.map_or_else(|| format!("TYPE{number}").into(), |(_, name)| (*name).into())
}

/// An opcode's name, for those that exist.
pub(super) fn opcode_name(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        QUERY => "QUERY",
        1 => "IQUERY",
        2 => "STATUS",
        4 => "NOTIFY",
        5 => "UPDATE",
        6 => "DSO",
        _ => return None,
    })
}

/// A response code's name, the upper bits of EDNS included; `RCODE3841` where it has none.
pub(super) fn rcode_name(rcode: u16) -> Cow<'static, str> {
    let name = match rcode {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        11 => "DSOTYPENI",
        16 => "BADVERS",
        17 => "BADKEY",
        18 => "BADTIME",
        19 => "BADMODE",
        20 => "BADNAME",
        21 => "BADALG",
        22 => "BADTRUNC",
        23 => "BADCOOKIE",
        _ => return format!("RCODE{rcode}").into(),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_in_order_and_unknown_ones_have_numbers() {
        assert!(TYPES.is_sorted_by_key(|(number, _)| *number));
        assert_eq!((type_name(28), type_name(65), type_name(300)), ("AAAA".into(), "HTTPS".into(), "TYPE300".into()));
    }
}
