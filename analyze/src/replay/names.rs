//! DNS answers in the data, read before replay: they name the addresses that connections go to.

use std::net::IpAddr;

use kfr_bundle::events::{DIRECTION_RECEIVED, DIRECTION_SENT};
use kfr_bundle::{BlockEntry, BlockKind, DataBlock};
use kfr_protocols::{Output, Protocol, REGISTRY, Start, Streams};
use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::identity::{Answer, Asker, Endpoint, Names, SocketId, Transport, peer_ip};
use crate::replay::facts::Facts;
use crate::replay::input::Input;

/// Where resolvers answer. Names are read of no other port, so that nobody else's bytes name anything.
const DNS_PORT: u16 = 53;
/// Blocks that are read at a time.
const WINDOW: usize = 64;

/// Sockets that DNS messages go through: what of theirs are answers, and who asks there.
type Resolving = FxHashMap<SocketId, (u8, [Option<Asker>; 2])>;

/// The names that DNS answers over UDP gave to addresses. Answers over TCP are rare, and not read.
pub fn read_names(inputs: &[Input], facts: &Facts) -> Names {
    let mut names = Names::default();
    let resolving = resolving(facts);
    let protocol = REGISTRY.iter().find(|protocol| protocol.name == "dns");
    let (Some(protocol), false) = (protocol, resolving.is_empty()) else { return names };
    for (bundle, input) in inputs.iter().enumerate() {
        let bundle = bundle as u32;
        if !resolving.keys().any(|(of, _)| *of == bundle) {
            continue;
        }
        let entries: Vec<&BlockEntry> = input.reader.blocks_of(BlockKind::DATA).collect();
        for window in entries.chunks(WINDOW) {
            // In the order of the file: what doesn't fit is the same each time.
            let read = |entry: &&BlockEntry| read_block(bundle, input, entry, &resolving, facts, protocol);
            let found: Vec<Vec<Answer>> = window.par_iter().with_max_len(1).map(read).collect();
            found.iter().flatten().for_each(|answer| names.add(answer));
            if names.is_full() {
                break;
            }
        }
    }
    names.finish();
    names
}

fn resolving(facts: &Facts) -> Resolving {
    let mut found = Resolving::default();
    for socket in facts.sockets.all().iter().filter(|socket| socket.transport == Transport::Udp) {
        match (&socket.local, &socket.remote) {
            (_, Endpoint::Ip(_, DNS_PORT)) => {
                found.insert(socket.id, (DIRECTION_RECEIVED, Asker::of(socket)));
            }
            (Endpoint::Ip(_, DNS_PORT), Endpoint::Ip(client, port)) => {
                let client = Some(*client).filter(|_| *port != 0).and_then(Asker::at);
                found.entry(socket.id).or_insert((DIRECTION_SENT, [client, None]));
            }
            _ => {}
        }
    }
    found
}

/// A block that can't be read is counted by replay.
fn read_block(
    bundle: u32,
    input: &Input,
    entry: &BlockEntry,
    resolving: &Resolving,
    facts: &Facts,
    protocol: &Protocol,
) -> Vec<Answer> {
    let mut answers = Vec::new();
    let Some(block) = input.raw(entry).and_then(|raw| DataBlock::decode(raw, entry.first_row).ok()) else {
        return answers;
    };
    let clock = facts.nodes.get(bundle as usize).map(|node| &node.clock);
    // By the block's own numbers of flows.
    let flows: Vec<_> = block
        .flows
        .iter()
        .map(|flow| resolving.get(&(bundle, flow.socket)).filter(|(direction, _)| *direction == flow.direction))
        .collect();
    if flows.iter().all(Option::is_none) {
        return answers;
    }
    for (row, flow) in block.flow.iter().enumerate() {
        let Some(Some((direction, askers))) = flows.get(*flow as usize) else { continue };
        let Some(row) = block.row(row) else { continue };
        let peer = row.peer.filter(|_| *direction == DIRECTION_SENT).and_then(|peer| peer_ip(&peer));
        let askers = peer.map_or(*askers, |peer| [Asker::at(peer), None]);
        let time_ns = clock.map_or(row.time_ns, |clock| clock.wall_ns(row.time_ns));
        let named = read_answer(row.payload, protocol).into_iter();
        answers.extend(named.map(|(name, address)| Answer { time_ns, askers, name, address }));
    }
    answers
}

/// The names and addresses of one datagram; none of one that is no answer.
fn read_answer(datagram: &[u8], protocol: &Protocol) -> Vec<(Box<str>, IpAddr)> {
    // To a question that was asked at another moment.
    let start = Start { mid_stream: true, datagrams: true, server_port: Some(DNS_PORT), ..Start::default() };
    let mut out = Output { names: Some(Vec::new()), ..Output::default() };
    let mut streams = Streams::default();
    streams.server.push(datagram);
    (protocol.parser)(&start).parse(&mut streams, &mut out);
    out.names.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `www.example.com` is an alias of `e.net`, which has an address.
    const ANSWER: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x02\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01\
        \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x07\x01e\x03net\0\
        \xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";

    #[test]
    fn an_answer_names_its_address_by_what_was_asked() {
        let protocol = REGISTRY.iter().find(|protocol| protocol.name == "dns").unwrap();
        assert_eq!(read_answer(ANSWER, protocol), [("www.example.com".into(), IpAddr::from([192, 0, 2, 7]))]);
        // The question, garbage, and every cut.
        let mut question = ANSWER.to_vec();
        question[2] = 1;
        assert_eq!(read_answer(&question, protocol), []);
        for length in 0..ANSWER.len() {
            assert_eq!(read_answer(&ANSWER[..length], protocol), [], "{length}");
        }
    }
}
