//! However a conversation was split into calls and reported, replay gives the same requests in the same order.

#[path = "../../cli/tests/generate/mod.rs"]
mod generate;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use generate::talk::{Conversation, Expected, Talk};
use generate::{Ends, Random, Recorder, Recording, record};
use kfr_analyze::{Analysis, Input, Options, Want};
use kfr_bundle::Reader;
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Request lines of a bundle that holds this conversation alone.
fn replay(conversation: &Conversation, talk: Talk, recording: &Recording, seed: u64) -> Vec<serde_json::Value> {
    let shared = Shared::default();
    let mut recorder = Recorder::to_stream(Box::new(shared.clone()));
    recorder.open(seed % 100, talk, recording);
    for event in record(conversation, recording, &mut Random(seed)) {
        recorder.event(seed % 100, &event);
    }
    recorder.finish();
    let bytes = shared.0.lock().unwrap().clone();
    let inputs = [Input { path: PathBuf::from("generated.kfr"), reader: Reader::open_bytes(bytes).unwrap() }];
    let options = Options { memory: 64 << 20, threads: Some(1), ..Options::default() };
    let analysis = Analysis::new(&inputs, &options, Want::RequestLines).unwrap();
    let mut out = Vec::new();
    analysis.lines.write(&mut out).unwrap();
    out.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn seen(line: &serde_json::Value) -> Expected {
    Expected {
        op: line["op"].as_str().unwrap().to_string(),
        status: match line["status"].as_str() {
            Some("ok") => "ok",
            Some("error") => "error",
            Some(_) => "unanswered",
            None => "unknown",
        },
        request_bytes: line["request_bytes"].as_u64().unwrap(),
        response_bytes: line["response_bytes"].as_u64().unwrap(),
    }
}

fn talks() -> impl Strategy<Value = Talk> {
    select(&Talk::ALL[..])
}

fn ends() -> impl Strategy<Value = Ends> {
    select(&[Ends::Client, Ends::Server, Ends::Both][..])
}

/// Requests in the order of the connection: lines are ordered by start, and several may begin at once.
fn in_order(lines: &[serde_json::Value]) -> Vec<Expected> {
    let mut numbered: Vec<(u64, Expected)> = lines
        .iter()
        .map(|line| {
            let id = line["id"].as_str().unwrap();
            (id.rsplit('-').next().unwrap().parse().unwrap(), seen(line))
        })
        .collect();
    numbered.sort();
    numbered.into_iter().map(|(_, expected)| expected).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing cut or lost: every request with its sizes, in order, and in the order of its start too.
    #[test]
    fn splitting_and_reporting_change_nothing(
        talk in talks(),
        ends in ends(),
        both_keep in any::<bool>(),
        largest_call in select(&[1usize, 7, 100, 1448, 65536][..]),
        late_percent in select(&[0u64, 10, 50, 100][..]),
        pipeline in 1usize..20,
        body in select(&[0usize, 10, 300, 5000][..]),
        seed in any::<u64>(),
    ) {
        let conversation = Conversation::new(talk, 12, pipeline, body, &mut Random(seed));
        let limit = usize::MAX;
        let recording = Recording { ends, both_keep, limit, largest_call, late_percent, ..Recording::default() };
        let lines = replay(&conversation, talk, &recording, seed);
        prop_assert_eq!(&in_order(&lines), &conversation.expected);
        let in_time: Vec<Expected> = lines.iter().map(seen).collect();
        prop_assert_eq!(&in_time, &conversation.expected);
        for line in &lines {
            let flags: Vec<&str> = line["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()).collect();
            prop_assert!(flags.iter().all(|flag| *flag == "pipelined"), "{}", line);
        }
    }

    /// Payload cut by the limit, requests whole: nothing is missing and nothing out of order.
    #[test]
    fn cut_bodies_change_no_count(
        talk in talks(),
        ends in ends(),
        both_keep in any::<bool>(),
        limit in select(&[128usize, 256, 1000, 4096][..]),
        late_percent in select(&[0u64, 50][..]),
        body in select(&[300usize, 5000, 50_000][..]),
        seed in any::<u64>(),
    ) {
        let conversation = Conversation::new(talk, 12, 1, body, &mut Random(seed));
        let recording = Recording { ends, both_keep, limit, largest_call: usize::MAX, late_percent, ..Recording::default() };
        let lines = replay(&conversation, talk, &recording, seed);
        let names = |all: &[Expected]| all.iter().map(|one| (one.op.clone(), one.status)).collect::<Vec<_>>();
        prop_assert_eq!(names(&in_order(&lines)), names(&conversation.expected));
    }

    /// Two threads on one socket: calls are recorded in the wrong order, and put right.
    #[test]
    fn races_change_no_count(
        talk in talks(),
        ends in ends(),
        largest_call in select(&[50usize, 1448, 65536][..]),
        seed in any::<u64>(),
    ) {
        let conversation = Conversation::new(talk, 12, 4, 1000, &mut Random(seed));
        let recording = Recording { ends, limit: usize::MAX, largest_call, race_percent: 30, ..Recording::default() };
        let lines = replay(&conversation, talk, &recording, seed);
        prop_assert_eq!(&in_order(&lines), &conversation.expected);
    }

    /// The start was not seen, but the first event begins a message: only roles have to be found out.
    #[test]
    fn an_older_connection_at_a_quiet_moment_is_read_whole(
        talk in select(&[Talk::Http, Talk::Redis][..]),
        ends in ends(),
        largest_call in select(&[1448usize, 65536][..]),
        late_percent in select(&[0u64, 50][..]),
        seed in any::<u64>(),
    ) {
        let conversation = Conversation::new(talk, 12, 4, 1000, &mut Random(seed));
        let recording = Recording {
            ends, limit: usize::MAX, largest_call, late_percent, from_the_start: false, ..Recording::default()
        };
        let lines = replay(&conversation, talk, &recording, seed);
        let names = |all: &[Expected]| all.iter().map(|one| (one.op.clone(), one.status)).collect::<Vec<_>>();
        prop_assert_eq!(names(&in_order(&lines)), names(&conversation.expected));
    }

    /// Whatever is lost: no panic, no negative time, and no more requests than there were, give or take the pieces of
    /// those that a gap tore.
    #[test]
    fn losses_are_survived(
        talk in talks(),
        ends in ends(),
        lost_of_10000 in select(&[100u64, 1000, 5000][..]),
        limit in select(&[16usize, 256, 4096][..]),
        largest_call in select(&[20usize, 300, 65536][..]),
        from_the_start in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let conversation = Conversation::new(talk, 12, 4, 1000, &mut Random(seed));
        let recording = Recording {
            ends, lost_of_10000, limit, largest_call, race_percent: 10, from_the_start, ..Recording::default()
        };
        let lines = replay(&conversation, talk, &recording, seed);
        for line in &lines {
            let number = |key: &str| line[key].as_u64();
            prop_assert!(number("ttfb_ns").unwrap_or(0) <= number("duration_ns").unwrap_or(u64::MAX), "{}", line);
        }
        prop_assert!(lines.len() <= conversation.expected.len() * 2, "{} of {}", lines.len(), conversation.expected.len());
    }
}
