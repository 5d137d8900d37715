//! What becomes of single packets and short conversations.

mod common;

use common::{ACK, Content, FIN, RST, SYN, Segment, content, ethernet, ip4, pcap, segment, udp};
use kfr_bundle::events::{ROLE_CLIENT, ROLE_UNKNOWN, TCP_RESET_SENT, TCP_RETRANSMIT};

/// Raw IP, a millisecond apart.
fn raw(packets: &[Vec<u8>]) -> Vec<u8> {
    let frames: Vec<_> =
        packets.iter().enumerate().map(|(at, packet)| (1_000_000 + at as u64 * 1000, packet.clone())).collect();
    pcap(101, &frames)
}

fn conversation(segments: &[Segment]) -> Content {
    let packets: Vec<_> = segments
        .iter()
        .enumerate()
        .map(|(at, segment)| {
            Segment { id: if segment.id == 0 { at as u16 + 1 } else { segment.id }, ..segment.clone() }.ip()
        })
        .collect();
    content(&raw(&packets))
}

fn opened() -> Vec<Segment> {
    vec![segment(true, SYN, 99, 0, b""), segment(false, SYN | ACK, 499, 100, b""), segment(true, ACK, 100, 500, b"")]
}

#[test]
fn a_conversation_from_its_start_to_its_end() {
    let mut segments = opened();
    segments.extend([
        segment(true, ACK, 100, 500, b"GET"),
        segment(false, ACK, 500, 103, b"200"),
        segment(true, ACK | FIN, 103, 503, b""),
        segment(false, ACK | FIN, 503, 104, b""),
        segment(true, ACK, 104, 504, b""),
    ]);
    let found = conversation(&segments);
    assert_eq!(found.sockets.len(), 1);
    let socket = &found.sockets[0];
    assert_eq!((socket.role, socket.local_port, socket.remote_port), (ROLE_CLIENT, 40000, 80));
    let states: Vec<_> = found.states.iter().map(|state| (state.old_state, state.new_state)).collect();
    assert_eq!(states, [(7, 2), (2, 1), (1, 4), (4, 6), (6, 7)]);
    // The handshake took two milliseconds at the capture point.
    assert_eq!(
        (found.states[1].rtt_us, found.states[1].sent_sequence, found.states[1].received_sequence),
        (2000, 100, 500)
    );
    let data: Vec<_> = found.data.iter().map(|data| (data.sent, data.offset, data.payload.as_slice())).collect();
    assert_eq!(data, [(true, 100, b"GET".as_slice()), (false, 500, b"200".as_slice())]);
    assert_eq!(found.data[0].time_ns, 1_003_000_000);
}

#[test]
fn order_repeats_and_losses_are_told_apart() {
    let mut segments = opened();
    segments.extend([
        segment(true, ACK, 103, 500, b"def"),
        segment(true, ACK, 100, 500, b"abc"),
        segment(true, ACK, 100, 500, b"abcdef"),
        segment(true, ACK, 105, 500, b"?"),
        segment(true, ACK, 110, 500, b"klm"),
        segment(false, ACK, 500, 113, b"ok"),
    ]);
    let found = conversation(&segments);
    assert_eq!(found.bytes(1, true), b"abcdefklm");
    let offsets: Vec<_> = found.data.iter().map(|data| data.offset).collect();
    // The gap is passed before the answer that tells of it.
    assert_eq!(offsets, [100, 103, 110, 500]);
    let counters = &found.summary.counters;
    assert_eq!((counters.gaps, counters.segments_missing_bytes), (1, 4));
    assert_eq!((counters.retransmitted_segments, counters.retransmitted_bytes), (1, 6));
    assert_eq!((counters.segments_out_of_order, counters.keep_alives), (1, 1));
    assert_eq!(found.tcp.iter().filter(|event| event.what == TCP_RETRANSMIT && event.local_port == 40000).count(), 1);
}

#[test]
fn bytes_missing_at_the_end_are_counted() {
    let mut segments = opened();
    segments.extend([segment(true, ACK, 100, 500, b"abc"), segment(false, ACK, 500, 150, b"")]);
    assert_eq!(conversation(&segments).summary.counters.segments_missing_bytes, 46);
}

/// What the events of one connection say, in their order.
fn told(found: &Content) -> Vec<(bool, u64, u32, u64)> {
    found.data.iter().map(|data| (data.sent, data.offset, data.length, data.time_ns / 1_000_000 - 1000)).collect()
}

#[test]
fn an_acknowledged_loss_is_told_before_whoever_acknowledged_goes_on() {
    let mut segments = opened();
    segments.extend([
        segment(true, ACK, 100, 500, b"one"),
        // The answer, 20 bytes, is not in the capture. The next request acknowledges it.
        segment(true, ACK, 103, 520, b"two"),
        segment(false, ACK, 520, 106, b"answer"),
    ]);
    let found = conversation(&segments);
    assert_eq!(told(&found), [(true, 100, 3, 3), (false, 520, 0, 4), (true, 103, 3, 4), (false, 520, 6, 5)]);
    assert_eq!((found.summary.counters.gaps, found.summary.counters.segments_missing_bytes), (1, 20));
}

#[test]
fn an_acknowledgment_that_stands_before_its_data_loses_nothing() {
    let mut segments = opened();
    segments.extend([
        segment(true, ACK, 100, 500, b"one"),
        segment(true, ACK, 103, 506, b"two"),
        segment(false, ACK, 500, 103, b"answer"),
        segment(false, ACK, 506, 106, b"more"),
    ]);
    let found = conversation(&segments);
    assert_eq!(told(&found), [(true, 100, 3, 3), (false, 500, 6, 5), (true, 103, 3, 4), (false, 506, 4, 6)]);
    assert_eq!(found.summary.counters.gaps, 0);
}

#[test]
fn behind_a_lost_exchange_a_request_has_its_own_time() {
    let mut segments = opened();
    segments.extend([
        segment(true, ACK, 100, 500, b"one"),
        segment(false, ACK, 500, 103, b"answer"),
        // One exchange of 10 and 20 bytes is lost; this acknowledges its answer, and nothing yet the question.
        segment(true, ACK, 113, 526, b"two"),
        segment(false, ACK, 526, 116, b"answer"),
    ]);
    let found = conversation(&segments);
    let two = found.data.iter().find(|data| data.payload == b"two").unwrap();
    assert_eq!((two.offset, two.time_ns), (113, 1_005_000_000));
}

#[test]
fn joined_in_the_middle_both_directions_begin_where_the_first_packet_says() {
    let segments = [
        segment(true, ACK, 100, 500, b"one"),
        segment(true, ACK, 103, 520, b"two"),
        segment(false, ACK, 520, 106, b"answer"),
    ];
    let found = conversation(&segments);
    assert_eq!((found.sockets[0].sent_sequence, found.sockets[0].received_sequence), (100, 500));
    assert_eq!(told(&found), [(true, 100, 3, 0), (false, 520, 0, 1), (true, 103, 3, 1), (false, 520, 6, 2)]);
}

#[test]
fn a_port_used_again_without_its_start_is_another_connection() {
    let mut segments = opened();
    segments.extend([
        segment(true, ACK | FIN, 100, 500, b"one"),
        segment(false, ACK | FIN, 500, 104, b""),
        segment(true, ACK, 104, 501, b""),
        // Sent again, then somebody new.
        segment(true, ACK, 100, 500, b"one"),
        segment(true, ACK, 50_000, 900_000, b"two"),
    ]);
    let found = conversation(&segments);
    assert_eq!(found.sockets.len(), 2);
    assert_eq!((found.bytes(1, true), found.bytes(2, true)), (b"one".to_vec(), b"two".to_vec()));
}

#[test]
fn what_was_under_way_when_a_reset_came_belongs_to_the_connection() {
    let mut segments = opened();
    segments.extend([
        segment(true, ACK, 100, 500, b"one"),
        segment(false, ACK, 500, 103, b"ans"),
        segment(true, RST, 103, 0, b""),
        segment(false, ACK, 503, 103, b"wer"),
    ]);
    let found = conversation(&segments);
    assert_eq!((found.sockets.len(), found.bytes(1, false)), (1, b"answer".to_vec()));
}

/// A mangled capture: the acknowledgment is of bytes that come only later, with others held in between.
#[test]
fn what_is_held_fills_what_is_missing_before_it_is_given_up() {
    let mut segments = opened();
    segments.extend([
        segment(true, ACK, 100, 520, b""),
        segment(true, ACK, 100, 540, b""),
        segment(false, ACK, 530, 100, b"0123456789"),
        segment(false, ACK, 500, 100, b"01234567890123456789"),
        segment(false, ACK, 520, 100, b"0123456789"),
    ]);
    let found = conversation(&segments);
    assert_eq!((found.bytes(1, false).len(), found.summary.counters.gaps), (40, 0));
}

#[test]
fn a_port_used_again_is_another_connection() {
    let mut segments = opened();
    segments.push(segment(true, ACK, 100, 500, b"one"));
    segments.push(segment(false, RST, 500, 0, b""));
    segments.extend([
        segment(true, SYN, 7000, 0, b""),
        segment(false, SYN | ACK, 9000, 7001, b""),
        segment(true, ACK, 7001, 9001, b"two"),
    ]);
    let found = conversation(&segments);
    assert_eq!(found.sockets.len(), 2);
    assert_eq!((found.bytes(1, true), found.bytes(2, true)), (b"one".to_vec(), b"two".to_vec()));
    assert_eq!(found.tcp.iter().filter(|event| event.what == TCP_RESET_SENT && event.local_port == 80).count(), 1);
}

#[test]
fn a_refused_connection_has_its_error() {
    let found = conversation(&[segment(true, SYN, 99, 0, b""), segment(false, RST | ACK, 0, 100, b"")]);
    let last = found.states.last().unwrap();
    assert_eq!((last.old_state, last.new_state, last.error), (2, 7, 111));
}

#[test]
fn data_in_the_first_segment_are_data() {
    let found = conversation(&[
        segment(true, SYN, 99, 0, b"early"),
        segment(false, SYN | ACK, 499, 105, b""),
        segment(true, ACK, 105, 500, b"later"),
    ]);
    assert_eq!(found.bytes(1, true), b"earlylater");
    assert_eq!(found.states[1].sent_sequence, 100);
}

#[test]
fn a_connection_without_its_start_has_no_role() {
    let found = conversation(&[segment(false, ACK, 500, 100, b"answer"), segment(true, ACK, 100, 506, b"ask")]);
    let socket = &found.sockets[0];
    assert_eq!(
        (socket.role, socket.local_port, socket.opened_ns, socket.first_sent_sequence),
        (ROLE_UNKNOWN, 40000, 0, 0)
    );
    assert!(found.states.is_empty());
}

#[test]
fn sequence_numbers_wrap() {
    let start = u32::MAX - 1;
    let found = conversation(&[
        segment(true, SYN, start.wrapping_sub(1), 0, b""),
        segment(false, SYN | ACK, 499, start, b""),
        segment(true, ACK, start, 500, b"abcd"),
        segment(true, ACK, start.wrapping_add(4), 500, b"efgh"),
    ]);
    assert_eq!(found.bytes(1, true), b"abcdefgh");
    assert_eq!(found.data[1].offset, u64::from(start.wrapping_add(4)));
}

#[test]
fn a_packet_seen_twice_is_one_event_and_a_repeated_one_is_two() {
    let query = |id, hops| ip4(17, id, hops, [1, 2], &udp(5000, 53, b"name?"));
    let frames = [
        (1_000_000, query(7, 64)),
        // Behind a router, a moment later.
        (1_000_050, query(7, 63)),
        // Asked again after a second.
        (2_000_000, query(8, 64)),
        // The same bytes at once from a sender that doesn't number its packets: two messages.
        (3_000_000, query(0, 64)),
        (3_000_010, query(0, 64)),
    ];
    let found = content(&pcap(101, &frames));
    assert_eq!((found.data.len(), found.summary.counters.packet_copies), (4, 1));
    assert!(found.data.iter().map(|data| data.offset).eq(0..4));
    let mut segments = opened();
    segments.push(Segment { id: 77, ..segment(true, ACK, 100, 500, b"abc") });
    segments.push(Segment { id: 77, hops: 63, ..segment(true, ACK, 100, 500, b"abc") });
    let found = conversation(&segments);
    assert_eq!((found.summary.counters.packet_copies, found.summary.counters.retransmitted_segments), (1, 0));
}

/// One segment of a connection, wrapped into what a network may put around it.
#[test]
fn tunnels_and_link_layers_are_unpacked() {
    let inner = Segment { id: 3, ..segment(true, ACK, 100, 500, b"inside") }.ip();
    let frame = ethernet(0x0800, &inner);
    let around = |protocol, head: &[u8], payload: &[u8]| {
        ethernet(0x0800, &ip4(protocol, 9, 64, [8, 9], &[head, payload].concat()))
    };
    let tunnel = |port, head: &[u8], payload: &[u8]| around(17, &[], &udp(40001, port, &[head, payload].concat()));
    let vxlan = [8, 0, 0, 0, 0, 0, 42, 0];
    let wrapped: Vec<(&str, u32, Vec<u8>)> = vec![
        ("ethernet", 1, frame.clone()),
        ("raw", 101, inner.clone()),
        ("null", 0, [&[2, 0, 0, 0], inner.as_slice()].concat()),
        ("null, big-endian", 0, [&[0, 0, 0, 2], inner.as_slice()].concat()),
        ("cooked", 113, [&[0; 14][..], &[8, 0], &inner].concat()),
        ("cooked 2", 276, [&[8, 0][..], &[0; 18], &inner].concat()),
        ("ppp", 9, [&[0xff, 3, 0, 0x21], inner.as_slice()].concat()),
        ("802.11", 105, [&[8, 1][..], &[0; 22], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &inner].concat()),
        ("vlan", 1, ethernet(0x8100, &[&[0, 5, 8, 0], inner.as_slice()].concat())),
        ("qinq", 1, ethernet(0x88a8, &[&[0, 5, 0x81, 0, 0, 6, 8, 0], inner.as_slice()].concat())),
        ("mpls", 1, ethernet(0x8847, &[&[0, 1, 0, 9, 0, 2, 1, 9], inner.as_slice()].concat())),
        ("llc", 1, ethernet(60, &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], inner.as_slice()].concat())),
        ("pppoe", 1, ethernet(0x8864, &[&[0x11, 0, 0, 1, 0, 9, 0, 0x21], inner.as_slice()].concat())),
        ("vxlan", 1, tunnel(4789, &vxlan, &frame)),
        ("vxlan, linux", 1, tunnel(8472, &vxlan, &frame)),
        ("vxlan, another port", 1, tunnel(5555, &vxlan, &frame)),
        ("vxlan-gpe", 1, tunnel(4790, &[0x0c, 0, 0, 1, 0, 0, 1, 0], &inner)),
        ("nsh", 1, tunnel(4790, &[0x0c, 0, 0, 4, 0, 0, 1, 0, 0, 2, 2, 3, 0, 0, 0, 1], &frame)),
        ("geneve", 1, tunnel(6081, &[1, 0, 0x65, 0x58, 0, 0, 1, 0, 9, 9, 9, 9], &frame)),
        ("gtp", 1, tunnel(2152, &[0x30, 0xff, 0, 46, 0, 0, 0, 1], &inner)),
        ("gre", 1, around(47, &[0, 0, 8, 0], &inner)),
        ("gre, key", 1, around(47, &[0x20, 0, 0x65, 0x58, 0, 0, 0, 1], &frame)),
        ("erspan 2", 1, around(47, &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 0, 0, 0, 0, 0], &frame)),
        ("erspan 3", 1, around(47, &[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &frame)),
        ("ipip", 1, around(4, &[], &inner)),
        (
            "vxlan in gre",
            1,
            around(47, &[0, 0, 8, 0], &ip4(17, 5, 64, [3, 4], &udp(1, 4789, &[&vxlan, frame.as_slice()].concat()))),
        ),
    ];
    for (name, link, frame) in wrapped {
        let found = content(&pcap(link, &[(1_000_000, frame.clone())]));
        assert_eq!(found.bytes(1, true), b"inside", "{name}");
        assert_eq!(found.sockets.len(), 1, "{name}");
        assert_eq!(found.sockets[0].local_address[..4], [10, 0, 0, 1], "{name}");
        // Cut anywhere, nothing is worse than a counter.
        for length in 0..frame.len() {
            let found = content(&pcap(link, &[(1_000_000, frame[..length].to_vec())]));
            let counters = &found.summary.counters;
            let dropped = counters.packets_truncated + counters.packets_not_ip + counters.packets_other_ip;
            assert!(dropped + counters.tcp_connections + counters.udp_flows >= 1, "{name} {length}");
        }
    }
}

#[test]
fn nesting_has_an_end() {
    let mut packet = Segment { id: 3, ..segment(true, ACK, 100, 500, b"inside") }.ip();
    for _ in 0..20 {
        packet = ip4(4, 9, 64, [8, 9], &packet);
    }
    let found = content(&raw(&[packet]));
    assert_eq!((found.summary.counters.packets_too_deep, found.data.len()), (1, 0));
}

#[test]
fn fragments_are_put_together_and_missing_ones_counted() {
    let payload: Vec<u8> = (0..3000u32).map(|at| at as u8).collect();
    let datagram = udp(5000, 53, &payload);
    let piece = |id: u16, from: usize, to: usize, more: bool| {
        let mut packet = ip4(17, id, 64, [1, 2], &datagram[from..to]);
        let field = (from / 8) as u16 | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        packet
    };
    let found = content(&raw(&[
        piece(5, 1600, 3008, false),
        // Seen twice, and once with other bounds.
        piece(5, 0, 800, true),
        piece(5, 0, 800, true),
        piece(5, 400, 1600, true),
        piece(6, 0, 800, true),
    ]));
    assert_eq!(found.data.len(), 1);
    assert_eq!(found.data[0].payload, payload);
    let counters = &found.summary.counters;
    assert_eq!((counters.fragments, counters.fragments_reassembled), (5, 1));
    assert_eq!((counters.fragments_incomplete, counters.fragments_overlapping, counters.packet_copies), (1, 1, 1));
}

#[test]
fn a_snapped_packet_keeps_its_length_and_an_unset_one_takes_the_frames() {
    let mut packet = Segment { id: 3, ..segment(true, ACK, 100, 500, &[7; 1000]) }.ip();
    let mut file = raw(&[packet[..100].to_vec()]);
    // Length on the wire.
    file[24 + 12..24 + 16].copy_from_slice(&1040u32.to_le_bytes());
    let found = content(&file);
    assert_eq!((found.data[0].length, found.data[0].payload.len()), (1000, 60));
    assert_eq!(found.summary.counters.payload_snapped_bytes, 940);
    packet[2..4].copy_from_slice(&[0, 0]);
    assert_eq!(content(&raw(&[packet])).data[0].payload, [7; 1000]);
}
