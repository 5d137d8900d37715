//! From a frame to its TCP segment or UDP datagram: network layer, fragments, tunnels.
//!
//! IP and its extension headers are read by etherparse's lax slices, which go as far as the bytes do. Lengths on the wire,
//! which those don't keep, come from the headers here.

use std::hash::{DefaultHasher, Hasher};

use etherparse::{Ipv6ExtensionSlice, LaxIpSlice, TcpSlice, UdpHeaderSlice};
use kfr_bundle::events::{FAMILY_INET, FAMILY_INET6};

use crate::copies::Copies;
use crate::counters::Counters;
use crate::fragments::{Fragment, Fragments, Whole};
use crate::link::{ETHER_ARP, ETHER_BRIDGING, ETHER_IPV4, ETHER_IPV6, ETHER_NSH, Layer, Passed, first, pass};
use crate::bytes::{be16, be32};
use crate::source::Frame;

/// Headers that are followed: VLAN tags and tunnels together, deeper than any network nests them.
const MAX_LAYERS: u32 = 32;
/// Tunnels in each other.
const MAX_TUNNELS: u32 = 8;
/// Bytes of the link header that tell where a packet was seen.
const PATH_BYTES: usize = 32;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// An address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct End {
    /// IPv4: first 4 bytes.
    pub address: [u8; 16],
    /// Port.
    pub port: u16,
    /// Address family.
    pub family: u16,
}

/// A TCP segment or UDP datagram.
#[derive(Debug, Clone, Copy)]
pub struct Transport<'a> {
    /// When it was captured.
    pub time_ns: u64,
    /// Sender.
    pub source: End,
    /// Receiver.
    pub destination: End,
    /// TCP's own fields; `None` for UDP.
    pub tcp: Option<Tcp>,
    /// Length of the payload on the wire.
    pub length: u32,
    /// Payload, as far as it was captured.
    pub payload: &'a [u8],
}

/// What a TCP header says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number; `None` without the flag.
    pub acknowledged: Option<u32>,
    /// SYN.
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
}

/// A place in a packet.
#[derive(Debug, Clone, Copy)]
struct At<'a> {
    layer: Layer,
    bytes: &'a [u8],
    /// Bytes on the wire from here on.
    wire: usize,
    layers: u32,
    tunnels: u32,
}

/// What a step came to.
enum Step<'a> {
    Go(At<'a>),
    Reassembled(Whole),
    Done,
}

/// Unpacks frames.
#[derive(Default)]
pub struct Unpacker {
    fragments: Fragments,
    copies: Copies,
}

/// What goes along while one frame is unpacked.
struct Trip<'a> {
    time_ns: u64,
    /// Where it was seen.
    path: u64,
    counters: &'a mut Counters,
}

impl Unpacker {
    /// Unpacks a frame; gives its segment or datagram to `out`.
    pub fn frame(&mut self, frame: &Frame<'_>, counters: &mut Counters, out: &mut dyn FnMut(&Transport<'_>, &mut Counters)) {
        let mut path = DefaultHasher::new();
        path.write_u32(frame.interface);
        let wire = (frame.wire_len as usize).max(frame.bytes.len());
        let at = At { layer: Layer::Other, bytes: frame.bytes, wire, layers: 0, tunnels: 0 };
        let at = match first(frame.link, frame.bytes) {
            Passed::Next(layer, length) => match advance(at, layer, length) {
                Some(at) => at,
                None => {
                    counters.packets_truncated += 1;
                    return;
                }
            },
            Passed::Truncated => {
                counters.packets_truncated += 1;
                return;
            }
            Passed::NotIp => {
                counters.packets_not_ip += 1;
                counters.packets_unknown_link += u64::from(!matches!(frame.link, 0 | 108));
                return;
            }
        };
        // Cooked headers tell direction, Ethernet's addresses tell the hop.
        let header = if at.layer == Layer::Ethernet { 14 } else { frame.bytes.len() - at.bytes.len() };
        path.write(frame.bytes.get(..header.min(PATH_BYTES)).unwrap_or_default());
        let mut trip = Trip { time_ns: frame.time_ns, path: path.finish(), counters };
        let mut whole = match self.walk(at, &mut trip, out) {
            Some(whole) => whole,
            None => return,
        };
        // Each round is one tunnel deeper, or ends.
        for _ in 0..MAX_TUNNELS {
            let layer = Layer::Other;
            let at = At { layer, bytes: &whole.bytes, wire: whole.bytes.len(), layers: 0, tunnels: whole.tunnels };
            let step = self.carried(&whole.header, at, &mut trip, out);
            let next = match step {
                Step::Go(at) => self.walk(at, &mut trip, out),
                Step::Reassembled(whole) => Some(whole),
                Step::Done => None,
            };
            match next {
                Some(next) => whole = next,
                None => return,
            }
        }
        trip.counters.packets_too_deep += 1;
    }

    /// Follows headers until something is handed out, or a packet was put together from fragments.
    fn walk(&mut self, mut at: At<'_>, trip: &mut Trip<'_>, out: &mut dyn FnMut(&Transport<'_>, &mut Counters)) -> Option<Whole> {
        loop {
            if at.layers > MAX_LAYERS || at.tunnels > MAX_TUNNELS {
                trip.counters.packets_too_deep += 1;
                return None;
            }
            if at.layer == Layer::Ip {
                match self.ip(at, trip, out) {
                    Step::Go(next) => at = next,
                    Step::Reassembled(whole) => return Some(whole),
                    Step::Done => return None,
                }
                continue;
            }
            let next = match pass(at.layer, at.bytes) {
                Passed::Next(layer, length) => advance(at, layer, length),
                Passed::Truncated => None,
                Passed::NotIp => {
                    trip.counters.packets_not_ip += 1;
                    trip.counters.packets_arp += u64::from(at.layer == Layer::Ether(ETHER_ARP));
                    return None;
                }
            };
            match next {
                Some(next) => at = next,
                None => {
                    trip.counters.packets_truncated += 1;
                    return None;
                }
            }
        }
    }

    fn ip<'a>(&mut self, at: At<'a>, trip: &mut Trip<'_>, out: &mut dyn FnMut(&Transport<'_>, &mut Counters)) -> Step<'a> {
        let Ok((ip, stopped)) = LaxIpSlice::from_slice(at.bytes) else {
            trip.counters.packets_truncated += 1;
            return Step::Done;
        };
        let payload = ip.payload();
        // Both are slices of one packet: what lies before the payload are its headers.
        let before = (payload.payload.as_ptr() as usize).saturating_sub(at.bytes.as_ptr() as usize);
        let wire = ip_wire(&ip, at.wire).saturating_sub(before).max(payload.payload.len());
        let protocol = payload.ip_number.0;
        let carried = At { layer: Layer::Other, bytes: payload.payload, wire, ..at };
        let mut header = IpHeader { protocol, ..IpHeader::default() };
        let mut fragment = None;
        match &ip {
            LaxIpSlice::Ipv4(v4) => {
                header.family = FAMILY_INET;
                put(&mut header.source, &v4.header().source());
                put(&mut header.destination, &v4.header().destination());
                header.id = u32::from(v4.header().identification());
                header.hops = v4.header().ttl();
                if v4.is_payload_fragmented() {
                    let at = u32::from(v4.header().fragments_offset().value()) * 8;
                    fragment = Some((at, v4.header().more_fragments()));
                }
            }
            LaxIpSlice::Ipv6(v6) => {
                header.family = FAMILY_INET6;
                put(&mut header.source, &v6.header().source());
                put(&mut header.destination, &v6.header().destination());
                header.hops = v6.header().hop_limit();
                if v6.is_payload_fragmented() {
                    for extension in v6.extensions().clone() {
                        if let Ipv6ExtensionSlice::Fragment(found) = extension {
                            header.id = found.identification();
                            fragment = Some((u32::from(found.fragment_offset().value()) * 8, found.more_fragments()));
                        }
                    }
                }
            }
        }
        match fragment {
            None => {
                if stopped.is_some() && !matches!(protocol, TCP | UDP) {
                    trip.counters.packets_truncated += 1;
                    return Step::Done;
                }
                self.carried(&header, carried, trip, out)
            }
            Some((offset, more)) => self.fragment(&header, carried, offset, more, trip),
        }
    }

    fn fragment<'a>(&mut self, header: &IpHeader, at: At<'a>, offset: u32, more: bool, trip: &mut Trip<'_>) -> Step<'a> {
        trip.counters.fragments += 1;
        let mut print = header.fingerprint();
        print.write_u32(offset);
        print.write(at.bytes);
        if self.copies.is_copy(print.finish(), trip.path_of(header), trip.time_ns, header.id != 0) {
            trip.counters.packet_copies += 1;
            return Step::Done;
        }
        let fragment = Fragment { offset, more, bytes: at.bytes, cut: at.wire > at.bytes.len(), tunnels: at.tunnels };
        match self.fragments.add(header, &fragment, trip.time_ns, trip.counters) {
            Some(whole) => Step::Reassembled(whole),
            None => Step::Done,
        }
    }

    /// What an IP packet carries.
    fn carried<'a>(
        &mut self,
        header: &IpHeader,
        at: At<'a>,
        trip: &mut Trip<'_>,
        out: &mut dyn FnMut(&Transport<'_>, &mut Counters),
    ) -> Step<'a> {
        match header.protocol {
            TCP | UDP => self.transport(header, at, trip, out),
            // IP in IP (RFC 2003), 6in4 (RFC 4213), MPLS in IP (RFC 4023).
            4 | 41 => into_tunnel(Some((Layer::Ip, 0)), at, trip, |counters| &mut counters.tunnels_ip),
            137 => into_tunnel(Some((Layer::Ether(0x8847), 0)), at, trip, |counters| &mut counters.tunnels_ip),
            47 => match gre(at.bytes) {
                Some(inner) => into_tunnel(Some(inner), at, trip, |counters| &mut counters.tunnels_gre),
                None => {
                    trip.counters.packets_other_ip += 1;
                    Step::Done
                }
            },
            1 | 58 => {
                trip.counters.packets_icmp += 1;
                Step::Done
            }
            132 => {
                trip.counters.packets_sctp += 1;
                Step::Done
            }
            _ => {
                trip.counters.packets_other_ip += 1;
                Step::Done
            }
        }
    }

    fn transport<'a>(
        &mut self,
        header: &IpHeader,
        at: At<'a>,
        trip: &mut Trip<'_>,
        out: &mut dyn FnMut(&Transport<'_>, &mut Counters),
    ) -> Step<'a> {
        let end = |address, port| End { address, port, family: header.family };
        let mut print = header.fingerprint();
        let (source, destination, tcp, header_len, mut length);
        if header.protocol == TCP {
            let Ok(slice) = TcpSlice::from_slice(at.bytes) else {
                trip.counters.packets_truncated += 1;
                return Step::Done;
            };
            (source, destination) = (slice.source_port(), slice.destination_port());
            tcp = Some(Tcp {
                sequence: slice.sequence_number(),
                acknowledged: slice.ack().then(|| slice.acknowledgment_number()),
                syn: slice.syn(),
                fin: slice.fin(),
                rst: slice.rst(),
            });
            header_len = slice.header_slice().len();
            length = at.wire.saturating_sub(header_len);
            // Without the checksum: offloads fill it in later.
            print.write(at.bytes.get(..16).unwrap_or_default());
            print.write(at.bytes.get(18..).unwrap_or_default());
        } else {
            let Ok(slice) = UdpHeaderSlice::from_slice(at.bytes) else {
                trip.counters.packets_truncated += 1;
                return Step::Done;
            };
            (source, destination) = (slice.source_port(), slice.destination_port());
            tcp = None;
            header_len = 8;
            length = at.wire.saturating_sub(header_len);
            // A datagram that the sender's interface is to split has no length of its own yet.
            let said = usize::from(slice.length());
            if said >= header_len {
                length = length.min(said - header_len);
            }
            print.write(at.bytes.get(..6).unwrap_or_default());
            print.write(at.bytes.get(8..).unwrap_or_default());
        }
        let payload = at.bytes.get(header_len..).unwrap_or_default();
        let payload = payload.get(..length.min(payload.len())).unwrap_or_default();
        if header.protocol == UDP
            && let Some((inner, kind)) = udp_tunnel(source, destination, payload, length)
        {
            let at = At { bytes: payload, wire: length, ..at };
            return into_tunnel(Some(inner), at, trip, kind);
        }
        if self.copies.is_copy(print.finish(), trip.path_of(header), trip.time_ns, header.id != 0) {
            trip.counters.packet_copies += 1;
            return Step::Done;
        }
        let transport = Transport {
            time_ns: trip.time_ns,
            source: end(header.source, source),
            destination: end(header.destination, destination),
            tcp,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            payload,
        };
        out(&transport, trip.counters);
        Step::Done
    }

    /// The capture is over: packets that still wait for fragments are incomplete.
    pub fn finish(&mut self, counters: &mut Counters) {
        self.fragments.finish(counters);
    }
}

impl Trip<'_> {
    /// Where a packet was seen, with what routers and tunnels change of it.
    fn path_of(&self, header: &IpHeader) -> u64 {
        self.path ^ u64::from(header.hops).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// What is needed of an IP header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct IpHeader {
    /// Address family.
    pub family: u16,
    /// Sender.
    pub source: [u8; 16],
    /// Receiver.
    pub destination: [u8; 16],
    /// Protocol number.
    pub protocol: u8,
    /// Identification; 0 where it has none (IPv6 without fragments) or tells nothing.
    pub id: u32,
    /// Time to live, hop limit.
    pub hops: u8,
}

impl IpHeader {
    fn fingerprint(&self) -> DefaultHasher {
        let mut print = DefaultHasher::new();
        print.write(&self.source);
        print.write(&self.destination);
        print.write_u32(self.id);
        print.write_u8(self.protocol);
        print
    }
}

fn put(to: &mut [u8; 16], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// Length of an IP packet on the wire. A length of 0 is left to the interface by a sender that lets it segment; then the
/// frame tells.
fn ip_wire(ip: &LaxIpSlice<'_>, frame: usize) -> usize {
    match ip {
        LaxIpSlice::Ipv4(v4) => {
            let total = usize::from(v4.header().total_len());
            if total < usize::from(v4.header().ihl()) * 4 { frame } else { total }
        }
        LaxIpSlice::Ipv6(v6) => match usize::from(v6.header().payload_length()) {
            0 => frame,
            payload => payload + 40,
        },
    }
}

fn advance<'a>(at: At<'a>, layer: Layer, length: usize) -> Option<At<'a>> {
    let bytes = at.bytes.get(length..)?;
    Some(At { layer, bytes, wire: at.wire.saturating_sub(length).max(bytes.len()), layers: at.layers + 1, ..at })
}

fn into_tunnel<'a>(
    inner: Option<(Layer, usize)>,
    at: At<'a>,
    trip: &mut Trip<'_>,
    kind: fn(&mut Counters) -> &mut u64,
) -> Step<'a> {
    match inner.and_then(|(layer, length)| advance(at, layer, length)) {
        Some(next) => {
            *kind(trip.counters) += 1;
            Step::Go(At { tunnels: next.tunnels + 1, ..next })
        }
        None => {
            trip.counters.packets_truncated += 1;
            Step::Done
        }
    }
}

/// GRE (RFC 2784, 2890), version 1 of PPTP (RFC 2637), and ERSPAN in it (draft-foschiano-erspan).
fn gre(bytes: &[u8]) -> Option<(Layer, usize)> {
    let (flags, kind) = (be16(bytes, 0)?, be16(bytes, 2)?);
    let mut length = 4;
    if flags & 7 == 1 {
        // Key with payload length and call, sequence and acknowledgment number where flagged; PPP.
        length += 4;
        length += if flags & 0x1000 != 0 { 4 } else { 0 };
        length += if flags & 0x0080 != 0 { 4 } else { 0 };
        return (kind == 0x880b && bytes.len() > length).then_some((Layer::Ppp, length));
    }
    // Source routing is no more (RFC 2784).
    if flags & 0x4007 != 0 {
        return None;
    }
    for flag in [0x8000, 0x2000, 0x1000] {
        length += if flags & flag != 0 { 4 } else { 0 };
    }
    match kind {
        // Type I has neither sequence number nor header, type II a header of 8 bytes.
        0x88be if flags & 0x1000 == 0 => Some((Layer::Ethernet, length)),
        0x88be => Some((Layer::Ethernet, length + 8)),
        // Type III: 12 bytes, and 8 more if its last bit says so.
        0x22eb => {
            let optional = bytes.get(length + 11)? & 1;
            Some((Layer::Ethernet, length + 12 + usize::from(optional) * 8))
        }
        kind => ether_layer(kind).map(|layer| (layer, length)),
    }
}

fn ether_layer(kind: u16) -> Option<Layer> {
    match kind {
        ETHER_BRIDGING => Some(Layer::Ethernet),
        ETHER_IPV4 | ETHER_IPV6 => Some(Layer::Ip),
        ETHER_NSH | 0x8847 | 0x8848 | 0x8100 | 0x88a8 => Some(Layer::Ether(kind)),
        _ => None,
    }
}

type Count = fn(&mut Counters) -> &mut u64;

/// What a UDP datagram carries if it is a tunnel's. Ports are a hint only: what is inside has to be sane.
fn udp_tunnel(source: u16, destination: u16, payload: &[u8], wire: usize) -> Option<((Layer, usize), Count)> {
    let vxlan: Count = |counters| &mut counters.tunnels_vxlan;
    let geneve: Count = |counters| &mut counters.tunnels_geneve;
    let other: Count = |counters| &mut counters.tunnels_udp;
    match destination {
        // VXLAN (RFC 7348) by its own and by Linux's first port.
        4789 | 8472 if payload.first().is_some_and(|flags| flags & 8 != 0) && payload.len() >= 8 => {
            return Some(((Layer::Ethernet, 8), vxlan));
        }
        // VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe): the next protocol in the fourth byte.
        4790 => {
            let [flags, _, _, next, ..] = payload else { return None };
            let layer = match next {
                _ if flags & 4 == 0 => Layer::Ethernet,
                1 | 2 => Layer::Ip,
                3 => Layer::Ethernet,
                4 => Layer::Ether(ETHER_NSH),
                _ => return None,
            };
            return (flags & 8 != 0).then_some(((layer, 8), vxlan));
        }
        // Geneve (RFC 8926): version 0, length of options in words, protocol type.
        6081 => {
            let first = *payload.first()?;
            let layer = ether_layer(be16(payload, 2)?)?;
            return (first >> 6 == 0).then_some(((layer, 8 + usize::from(first & 0x3f) * 4), geneve));
        }
        _ => {}
    }
    // GTP-U (3GPP TS 29.281): version 1, G-PDU; optional fields if any of three flags is set.
    if source == 2152 || destination == 2152 {
        let [flags, 0xff, ..] = payload else { return None };
        let length = if flags & 7 == 0 { 8 } else { 12 };
        // No extension headers.
        let simple = flags >> 4 == 3 && (flags & 4 == 0 || payload.get(11) == Some(&0));
        return (simple && sane_ip(payload.get(length..)?, wire - length)).then_some(((Layer::Ip, length), other));
    }
    // Teredo (RFC 4380) without its indications.
    if (source == 3544 || destination == 3544) && payload.first().is_some_and(|first| first >> 4 == 6) {
        return sane_ip(payload, wire).then_some(((Layer::Ip, 0), other));
    }
    // VXLAN on another port.
    let [8, 0, 0, 0, _, _, _, 0, frame @ ..] = payload else { return None };
    let sane = matches!(be16(frame, 12)?, ETHER_IPV4 | ETHER_IPV6) && sane_ip(frame.get(14..)?, wire.checked_sub(22)?);
    sane.then_some(((Layer::Ethernet, 8), vxlan))
}

/// Whether this is the beginning of an IP packet with `wire` bytes at most.
fn sane_ip(bytes: &[u8], wire: usize) -> bool {
    match bytes.first().map(|first| (first >> 4, first & 15)) {
        Some((4, words)) => {
            let total = be16(bytes, 2).map_or(0, usize::from);
            words >= 5 && total >= usize::from(words) * 4 && total <= wire && bytes.len() >= 20
        }
        Some((6, _)) => be16(bytes, 4).is_some_and(|length| usize::from(length) + 40 <= wire) && be32(bytes, 36).is_some(),
        _ => false,
    }
}
