//! What an import counts, under the names that the bundle's ledger has them (`docs/FORMAT.md`).

use std::collections::BTreeMap;

/// Lists counters: field and meaning; the field's name is the name in the ledger.
macro_rules! counters {
    ($($(#[doc = $meaning:literal])+ $name:ident,)*) => {
        /// Counters of an import.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $meaning])+ pub $name: u64,)*
        }

        impl Counters {
            /// By name; those that are zero are left out, except for what a reader looks for.
            pub fn named(&self) -> BTreeMap<String, u64> {
                [$((stringify!($name), self.$name),)*]
                    .into_iter()
                    .filter(|(name, value)| *value > 0 || matches!(*name, "packets" | "events" | "events_lost"))
                    .map(|(name, value)| (name.to_string(), value))
                    .collect()
            }
        }
    };
}

counters! {
    /// Events written.
    events,
    /// Events that could not be written: none, an import waits.
    events_lost,
    /// Packets in the file.
    packets,
    /// Packets of which the capture kept only the beginning.
    packets_snapped,
    /// Packets whose headers are cut off or malformed: nothing of them is in the bundle.
    packets_truncated,
    /// Packets without IP, or of a link type that is not known.
    packets_not_ip,
    /// Of these, ARP.
    packets_arp,
    /// Packets of a link type that is not known.
    packets_unknown_link,
    /// ICMP and ICMPv6.
    packets_icmp,
    /// SCTP.
    packets_sctp,
    /// IP packets of other protocols.
    packets_other_ip,
    /// Packets nested deeper than eight tunnels.
    packets_too_deep,
    /// Packets that were seen before, at another place or on another interface.
    packet_copies,
    /// Packets unpacked from VXLAN, its GPE included.
    tunnels_vxlan,
    /// Packets unpacked from Geneve.
    tunnels_geneve,
    /// Packets unpacked from GRE, ERSPAN included.
    tunnels_gre,
    /// Packets unpacked from IP in IP, 6in4 and MPLS in IP included.
    tunnels_ip,
    /// Packets unpacked from GTP-U and Teredo.
    tunnels_udp,
    /// Fragments of IP packets.
    fragments,
    /// Packets put together from fragments.
    fragments_reassembled,
    /// Packets of which fragments are missing: nothing of them is in the bundle.
    fragments_incomplete,
    /// Fragments that overlap others.
    fragments_overlapping,
    /// TCP connections.
    tcp_connections,
    /// UDP flows.
    udp_flows,
    /// Connections and flows forgotten because there were too many at once: what follows counts as new ones.
    flows_evicted,
    /// TCP segments with payload.
    segments,
    /// Segments that brought bytes which were there already.
    retransmitted_segments,
    /// Bytes that were there already.
    retransmitted_bytes,
    /// Segments that came after ones behind them in the stream.
    segments_out_of_order,
    /// Bytes that came twice and differently; the first copy is kept.
    overlaps_conflicting,
    /// Keep-alive segments.
    keep_alives,
    /// Places where bytes of a TCP stream are missing.
    gaps,
    /// Bytes of TCP streams that no packet of the capture holds.
    segments_missing_bytes,
    /// Gaps declared because too much waited for them.
    gaps_forced,
    /// Bytes of payload that packets had and the capture didn't keep.
    payload_snapped_bytes,
    /// 1 if the file ends in the middle of a packet.
    file_truncated,
    /// 1 if the rest of the file can't be read.
    file_damaged,
    /// Blocks of pcapng that hold no packets.
    blocks_skipped,
    /// Packets of interfaces that the file doesn't describe, or without bytes.
    packets_unreadable,
}
