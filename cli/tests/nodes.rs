//! Bundles of two nodes whose clocks disagree, in two zones: what a report says of both together.

use std::path::{Path, PathBuf};
use std::process::Command;

use kfr_bundle::events::{
    DIRECTION_RECEIVED, DIRECTION_SENT, DataEvent, EventHeader, FAMILY_INET, MISSING_NOTHING, OFFSET_TCP, StateEvent,
};
use kfr_bundle::facts::Manifest;
use kfr_bundle::kube::{KubeChange, KubeFact};
use kfr_bundle::rows::Anchor;
use kfr_bundle::{Block, BlockKind, DataColumns, FileHeader, MapWriter, Writer, encode_rows};
use serde_json::{Value, json};
use zerocopy::FromZeros;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// Wall clock when the first node had run for no time.
const EPOCH: u64 = 1_800_000_000 * SECOND;
/// What the second node's wall clock is ahead.
const AHEAD: u64 = 3 * SECOND;

const ASKED: &[u8] = b"GET /item HTTP/1.1\r\nHost: app\r\n\r\n";
const ANSWERED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A node: number, how long ago it had started, and what its wall clock is ahead.
#[derive(Clone, Copy)]
struct Node {
    number: u8,
    up_ns: u64,
    ahead_ns: u64,
}

const CLIENT: Node = Node { number: 1, up_ns: 0, ahead_ns: 0 };
const SERVER: Node = Node { number: 2, up_ns: 1000 * SECOND, ahead_ns: AHEAD };

impl Node {
    /// Event time of a moment.
    fn at(self, time_ns: u64) -> u64 {
        time_ns + self.up_ns
    }

    fn change(self, sequence: u64, socket: u64, states: (u8, u8), time_ns: u64) -> StateEvent {
        let mut event = StateEvent {
            header: EventHeader { time_ns: self.at(time_ns), sequence, ..FromZeros::new_zeroed() },
            socket,
            family: FAMILY_INET,
            old_state: states.0,
            new_state: states.1,
            ..FromZeros::new_zeroed()
        };
        let port = 40_000 + socket as u16;
        let (own, other) = if self.number == 1 { ((1, port), (2, 80)) } else { ((2, 80), (1, port)) };
        event.local_address[..4].copy_from_slice(&[10, 0, own.0, 9]);
        event.remote_address[..4].copy_from_slice(&[10, 0, other.0, 9]);
        (event.local_port, event.remote_port) = (own.1, other.1);
        let (here, there) = (1000 + socket as u32, 2000 + socket as u32);
        (event.sent_sequence, event.received_sequence) = if self.number == 1 { (here, there) } else { (there, here) };
        event
    }

    /// A call that moved bytes; their offsets are those of the handshake.
    fn moved(self, change: &StateEvent, sequence: u64, sent: bool, payload: &[u8], later_ns: u64) -> DataEvent {
        DataEvent {
            header: EventHeader { time_ns: change.header.time_ns + later_ns, sequence, ..FromZeros::new_zeroed() },
            socket: change.socket,
            offset: u64::from(if sent { change.sent_sequence } else { change.received_sequence }),
            length: payload.len() as u32,
            kept: payload.len() as u32,
            direction: if sent { DIRECTION_SENT } else { DIRECTION_RECEIVED },
            offset_kind: OFFSET_TCP,
            missing: MISSING_NOTHING,
            ..FromZeros::new_zeroed()
        }
    }

    /// What each connection asked and was answered, a little after it was established.
    fn talk(self, states: &[StateEvent]) -> DataColumns {
        let mut columns = DataColumns::new();
        let mut sequence = states.len() as u64;
        for change in states.iter().filter(|change| change.new_state == 1) {
            let asks = self.number == 1;
            for (sent, payload, later_ns) in [(asks, ASKED, MS), (!asks, ANSWERED, 5 * MS)] {
                columns.push(&self.moved(change, sequence, sent, payload, later_ns), payload);
                sequence += 1;
            }
        }
        columns
    }

    fn write(self, folder: &Path, states: &[StateEvent]) -> PathBuf {
        let path = folder.join(format!("node-{}.kfr", self.number));
        let header = FileHeader { boot_id: [self.number; 16], ..FileHeader::new(format!("node-{}", self.number)) };
        let mut writer = Writer::create(&path, &header, true).unwrap();
        let maps = |maps: &mut MapWriter, kind, at| (Block::new(kind, maps.len()).with_times(at, at), maps.encode());
        let mut manifest = MapWriter::new();
        let (started_ns, ended_ns) = (self.at(SECOND), self.at(60 * SECOND));
        manifest.push(&Manifest { started_ns, ended_ns, ..Manifest::default() }).unwrap();
        let (block, raw) = maps(&mut manifest, BlockKind::MANIFEST, ended_ns);
        writer.write_block(&block, &raw).unwrap();
        let anchors = [1, 60].map(|second| Anchor {
            boottime_ns: self.at(second * SECOND),
            realtime_ns: EPOCH + second * SECOND + self.ahead_ns,
            ..Anchor::default()
        });
        writer.write_block(&Block::new(BlockKind::ANCHORS, 2), &encode_rows(&anchors)).unwrap();
        let block = Block::new(BlockKind::STATES, states.len() as u32).with_times(started_ns, ended_ns);
        writer.write_block(&block, &encode_rows(states)).unwrap();
        let (columns, mut raw) = (self.talk(states), Vec::new());
        columns.encode(&mut raw);
        let (first_ns, last_ns) = columns.time_bounds().unwrap();
        let block = Block::new(BlockKind::DATA, columns.len() as u32).with_times(first_ns, last_ns);
        writer.write_block(&block, &raw).unwrap();
        let mut kube = MapWriter::new();
        for number in [1, 2] {
            let node = json!({"metadata": {"name": format!("node-{number}"), "uid": format!("n{number}"),
                "labels": {"topology.kubernetes.io/zone": format!("zone-{number}")}}});
            let pod = json!({"metadata": {"name": format!("app-{number}"), "namespace": "shop", "uid": format!("p{number}"),
                "creationTimestamp": "2020-01-01T00:00:00Z"}, "spec": {"nodeName": format!("node-{number}")},
                "status": {"phase": "Running", "podIP": format!("10.0.{number}.9")}});
            for (kind, object) in [("Node", node), ("Pod", pod)] {
                kube.push(&KubeFact::new(started_ns, KubeChange::Listed, 1, kind, &object).unwrap()).unwrap();
            }
        }
        let (block, raw) = maps(&mut kube, BlockKind::KUBE, started_ns);
        writer.write_block(&block, &raw).unwrap();
        writer.finish().unwrap();
        path
    }
}

/// The two bundles: five connections, each half a millisecond there and back.
fn bundles(folder: &Path) -> [PathBuf; 2] {
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for socket in 1..=5 {
        let began = socket * SECOND;
        client.push(CLIENT.change(2 * socket - 2, socket, (7, 2), began));
        client.push(CLIENT.change(2 * socket - 1, socket, (2, 1), began + 500_000));
        let mut accepted = SERVER.change(socket - 1, socket, (3, 1), began + 750_000);
        accepted.rtt_us = 500;
        server.push(accepted);
    }
    [CLIENT.write(folder, &client), SERVER.write(folder, &server)]
}

fn report(bundles: &[&Path], folder: &Path) -> (Value, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_kfr")).args(["analyze", "-o"]).arg(folder).args(bundles).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json = std::fs::read(folder.join("report.json")).unwrap();
    (serde_json::from_slice(&json).unwrap(), std::fs::read_to_string(folder.join("report.html")).unwrap())
}

#[test]
fn calls_between_two_zones_are_told_and_clocks_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let [client, server] = bundles(folder.path());
    let (json, page) = report(&[&client, &server], &folder.path().join("both"));
    let edges = json["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 1, "{edges:?}");
    assert_eq!((&edges[0]["connections"], &edges[0]["known_by"]), (&json!(5), &json!("sequence")));
    let bytes = 5 * (ASKED.len() + ANSWERED.len());
    assert_eq!(edges[0]["cross_zone"], json!({"connections": 5, "bytes": bytes}));
    assert_eq!((&json["overall"]["requests"], &json["overall"]["errors"]), (&json!(5), &json!(0)));
    assert!(page.contains("Cross-zone"));
    // A server is established half a round trip behind its client: the bound is as wide as the round trip.
    let error = json["capture"]["clock_error_ns"].as_u64().unwrap();
    assert!((250_000..400_000).contains(&error), "{error}");
    assert!(page.contains("clocks agree within"));
    let bounds = ["start_ns", "end_ns"].map(|key| json["capture"][key].as_u64().unwrap());
    assert!(
        bounds[0].abs_diff(EPOCH + SECOND) <= error && bounds[1].abs_diff(EPOCH + 60 * SECOND) <= error,
        "{bounds:?}"
    );

    // One of them: the same connections, and nothing to compare.
    for alone in [&client, &server] {
        let (json, _) = report(&[alone], &folder.path().join(alone.file_stem().unwrap()));
        assert_eq!(json["edges"][0]["connections"], 5);
        assert_eq!(
            (&json["edges"][0]["cross_zone"]["connections"], &json["capture"]["clock_error_ns"]),
            (&json!(5), &Value::Null)
        );
    }
}
