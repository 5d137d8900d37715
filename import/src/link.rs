//! Link layers: from a captured frame to what it carries.
//!
//! By hand, though etherparse reads Ethernet, VLAN and Linux cooked frames: it knows neither of the other link types nor
//! MPLS, PPP, LLC within VLAN, and each of these leads to another.

use crate::bytes::{Order, be16, be32, u32_at};

/// What comes next in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet frame.
    Ethernet,
    /// What this EtherType says.
    Ether(u16),
    /// IPv4 or IPv6, by its version.
    Ip,
    /// PPP, perhaps with address and control field.
    Ppp,
    /// IEEE 802.2 LLC.
    Llc,
    /// IEEE 802.11.
    Wireless,
    /// Nothing that IP can be found in.
    Other,
}

/// How a layer is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// Its header had so many bytes, and that comes next.
    Next(Layer, usize),
    /// Its header is cut off.
    Truncated,
    /// It carries no IP.
    NotIp,
}

/// EtherType of IPv4.
pub const ETHER_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHER_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHER_IPV6: u16 = 0x86dd;
/// EtherType of an Ethernet frame in a tunnel (transparent Ethernet bridging).
pub const ETHER_BRIDGING: u16 = 0x6558;
/// EtherType of the network service header (RFC 8300).
pub const ETHER_NSH: u16 = 0x894f;

/// What the link types of <https://www.tcpdump.org/linktypes.html> begin with, and the bytes before it.
pub fn first(link: u16, bytes: &[u8]) -> Passed {
    match link {
        1 => Passed::Next(Layer::Ethernet, 0),
        0 | 108 => loopback(bytes),
        // Raw IP: LINKTYPE_RAW, and DLT_RAW as different systems number it.
        12 | 14 | 101 | 228 | 229 => Passed::Next(Layer::Ip, 0),
        9 | 50 => Passed::Next(Layer::Ppp, 0),
        51 => Passed::Next(Layer::Ether(0x8864), 0),
        // FDDI: frame control and two addresses.
        10 => Passed::Next(Layer::Llc, 13),
        // Cisco HDLC: address, control, EtherType.
        104 => be16(bytes, 2).map_or(Passed::Truncated, |kind| Passed::Next(Layer::Ether(kind), 4)),
        105 => Passed::Next(Layer::Wireless, 0),
        // Prism header, radiotap header (its length is little-endian).
        119 => Passed::Next(Layer::Wireless, 144),
        127 => match bytes {
            [_, _, low, high, ..] => {
                Passed::Next(Layer::Wireless, usize::from(u16::from_le_bytes([*low, *high])).max(4))
            }
            _ => Passed::Truncated,
        },
        // Linux cooked, versions 1 and 2.
        113 => be16(bytes, 14).map_or(Passed::Truncated, |kind| Passed::Next(cooked(kind), 16)),
        276 => match (be16(bytes, 0), bytes.len()) {
            (Some(kind), 20..) => Passed::Next(cooked(kind), 20),
            _ => Passed::Truncated,
        },
        _ => Passed::NotIp,
    }
}

/// The protocol of a Linux cooked header; values below 1536 are Linux's own.
fn cooked(kind: u16) -> Layer {
    match kind {
        0x0004 => Layer::Llc,
        // 802.3 frames without LLC, CAN, and so on.
        0..0x0600 => Layer::Other,
        _ => Layer::Ether(kind),
    }
}

/// BSD loopback: the address family in the byte order of the machine (LINKTYPE_NULL) or of the network (LINKTYPE_LOOP).
/// Files don't always keep to it, so that the order is told by the number.
fn loopback(bytes: &[u8]) -> Passed {
    let families = (u32_at(bytes, 0, Order::Little), be32(bytes, 0));
    let (Some(little), Some(big)) = families else { return Passed::Truncated };
    // AF_INET6 is 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on Darwin, 10 on Linux, 23 on Windows.
    if [little, big].iter().any(|family| matches!(family, 2 | 10 | 23 | 24 | 28 | 30)) {
        Passed::Next(Layer::Ip, 4)
    } else {
        Passed::NotIp
    }
}

/// Passes one layer that is no IP.
pub fn pass(layer: Layer, bytes: &[u8]) -> Passed {
    match layer {
        Layer::Ethernet => match be16(bytes, 12) {
            None => Passed::Truncated,
            // Below 1536 it is a length (IEEE 802.3).
            Some(0..0x0600) => Passed::Next(Layer::Llc, 14),
            Some(kind) => Passed::Next(Layer::Ether(kind), 14),
        },
        Layer::Ether(kind) => ether(kind, bytes),
        Layer::Llc => match bytes {
            // SNAP with an EtherType.
            [0xaa, 0xaa, 3, 0, 0, 0 | 0xf8, high, low, ..] => {
                Passed::Next(Layer::Ether(u16::from_be_bytes([*high, *low])), 8)
            }
            // IP by its own service access point.
            [6, 6, 3, ..] => Passed::Next(Layer::Ip, 3),
            [_, _, _, ..] => Passed::NotIp,
            _ => Passed::Truncated,
        },
        Layer::Ppp => ppp(bytes),
        Layer::Wireless => wireless(bytes),
        Layer::Ip | Layer::Other => Passed::NotIp,
    }
}

fn ether(kind: u16, bytes: &[u8]) -> Passed {
    match kind {
        ETHER_IPV4 | ETHER_IPV6 => Passed::Next(Layer::Ip, 0),
        // VLAN tags, also of providers and of older switches.
        0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => match be16(bytes, 2) {
            None => Passed::Truncated,
            Some(0..0x0600) => Passed::Next(Layer::Llc, 4),
            Some(kind) => Passed::Next(Layer::Ether(kind), 4),
        },
        0x8847 | 0x8848 => mpls(bytes),
        // PPPoE session: version and type, code, session, length; then PPP without address and control field.
        0x8864 => match bytes {
            [0x11, 0, _, _, _, _, ..] => Passed::Next(Layer::Ppp, 6),
            [_, _, _, _, _, _, ..] => Passed::NotIp,
            _ => Passed::Truncated,
        },
        ETHER_BRIDGING => Passed::Next(Layer::Ethernet, 0),
        ETHER_NSH => nsh(bytes),
        _ => Passed::NotIp,
    }
}

/// Label stack (RFC 3032). What follows its bottom is told by its first bits, as routers do (RFC 4928).
fn mpls(bytes: &[u8]) -> Passed {
    for (number, label) in bytes.chunks_exact(4).enumerate() {
        let [_, _, bottom, _] = label else { break };
        if bottom & 1 == 0 {
            continue;
        }
        let end = 4 * (number + 1);
        return match bytes.get(end).map(|first| first >> 4) {
            Some(4 | 6) => Passed::Next(Layer::Ip, end),
            // A pseudowire's control word (RFC 4385), then its frame.
            Some(0) => Passed::Next(Layer::Ethernet, end + 4),
            Some(_) => Passed::NotIp,
            None => Passed::Truncated,
        };
    }
    Passed::Truncated
}

/// Network service header (RFC 8300, section 2.2): length in words in the lower six bits of the second byte.
fn nsh(bytes: &[u8]) -> Passed {
    let [_, length, _, next, ..] = bytes else { return Passed::Truncated };
    let length = usize::from(length & 0x3f) * 4;
    let layer = match next {
        1 | 2 => Layer::Ip,
        3 => Layer::Ethernet,
        4 => Layer::Ether(ETHER_NSH),
        5 => Layer::Ether(0x8847),
        _ => return Passed::NotIp,
    };
    if length < 8 { Passed::NotIp } else { Passed::Next(layer, length) }
}

/// PPP (RFC 1662): address and control field may be left out, and the first byte of a protocol below 256.
fn ppp(bytes: &[u8]) -> Passed {
    let skipped = if bytes.starts_with(&[0xff, 0x03]) { 2 } else { 0 };
    let (protocol, length) = match bytes.get(skipped..).unwrap_or_default() {
        [first, ..] if first & 1 == 1 => (u16::from(*first), 1),
        [first, second, ..] => (u16::from_be_bytes([*first, *second]), 2),
        _ => return Passed::Truncated,
    };
    let layer = match protocol {
        0x0021 | 0x0057 => Layer::Ip,
        0x0281 | 0x0283 => Layer::Ether(0x8847),
        _ => return Passed::NotIp,
    };
    Passed::Next(layer, skipped + length)
}

/// IEEE 802.11: data frames that aren't encrypted. Frame control's first byte holds type and subtype, its second flags.
fn wireless(bytes: &[u8]) -> Passed {
    let [control, flags, ..] = bytes else { return Passed::Truncated };
    let (kind, subtype) = (control >> 2 & 3, control >> 4);
    // Frames without data (subtype bit 2) and protected ones (flag bit 6) have nothing to show.
    if kind != 2 || subtype & 4 != 0 || flags & 0x40 != 0 {
        return Passed::NotIp;
    }
    let mut length = 24;
    if flags & 3 == 3 {
        length += 6;
    }
    if subtype & 8 != 0 {
        length += 2;
        if flags & 0x80 != 0 {
            length += 4;
        }
    }
    Passed::Next(Layer::Llc, length)
}
