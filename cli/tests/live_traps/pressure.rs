//! A ring that is too small, and more bytes than anybody wants to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::thread;

use kfr_bundle::events::{ProcessEvent, SocketEvent, StateEvent, TcpEvent};
use kfr_bundle::{BlockKind, DataBlock, Reader, decode_rows};

use crate::live::{Bundle, Recording, inode, lengths, wait_for, with_both_hooks};
use crate::sockets::{receive, send, tcp, unix_pair};

/// The numbers of all events in a bundle, by CPU.
fn numbers(bundle: &Bundle) -> BTreeMap<u16, Vec<u64>> {
    let reader = Reader::open(&bundle.path).unwrap();
    let mut numbers: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    let mut raw = Vec::new();
    for entry in reader.blocks() {
        raw.clear();
        reader.read_block(entry, &mut raw).unwrap();
        let mut add = |cpu: u16, number: u64| numbers.entry(cpu).or_default().push(number);
        match entry.kind {
            BlockKind::DATA => {
                let block = DataBlock::decode(raw.clone(), entry.first_row).unwrap();
                block.cpu.iter().zip(&block.sequence).for_each(|(cpu, number)| add(*cpu, *number));
            }
            BlockKind::SOCKETS => {
                let rows = decode_rows::<SocketEvent>(&raw).unwrap();
                // Those of a walk have no number.
                let numbered = rows.iter().filter(|row| row.header.sequence != u64::MAX);
                numbered.for_each(|row| add(row.header.cpu, row.header.sequence));
            }
            BlockKind::STATES => {
                decode_rows::<StateEvent>(&raw)
                    .unwrap()
                    .iter()
                    .for_each(|row| add(row.header.cpu, row.header.sequence));
            }
            BlockKind::TCP => {
                decode_rows::<TcpEvent>(&raw).unwrap().iter().for_each(|row| add(row.header.cpu, row.header.sequence));
            }
            BlockKind::PROCESS_EVENTS => {
                decode_rows::<ProcessEvent>(&raw)
                    .unwrap()
                    .iter()
                    .for_each(|row| add(row.header.cpu, row.header.sequence));
            }
            _ => {}
        }
    }
    numbers
}

/// Runs something once on each CPU that this thread may use.
fn on_each_cpu(mut work: impl FnMut(usize)) {
    // SAFETY: a zeroed set, and calls that read or write one of its size; the old one is put back.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed);
        for cpu in (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &allowed)) {
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut one);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one);
            work(cpu);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const allowed);
    }
}

#[test]
fn a_full_ring_shrinks_payload_first_and_counts_what_it_loses() {
    const MESSAGES: usize = 60_000;
    with_both_hooks(|hook| {
        let own = std::process::id().to_string();
        let recording = Recording::start(hook, &["--pid", &own, "--buffer-size", "64KiB"]);
        let (one, other) = unix_pair(libc::SOCK_STREAM);
        let message = [b'm'; 300];
        let reader = thread::spawn(move || {
            let mut left = MESSAGES * 300;
            while left > 0 {
                left -= receive(&other, 65536, 0).len();
            }
        });
        for _ in 0..MESSAGES {
            assert_eq!(send(&one, &message, 0), 300);
        }
        reader.join().unwrap();
        // Until the ring is empty again, so that the last event of each CPU is not lost.
        let (quiet, answer) = unix_pair(libc::SOCK_STREAM);
        let (partial, marker) = (recording.partial(), inode(&quiet));
        wait_for("an event of each CPU", || {
            let mut cpus = BTreeSet::new();
            on_each_cpu(|cpu| {
                cpus.insert(cpu as u64);
                send(&quiet, b"quiet", 0);
                receive(&answer, 64, 0);
            });
            let events = Bundle::at(partial.clone()).events();
            let name = events.socket(marker)?;
            let marked = events.of_kind("data").filter(|event| event["socket"] == name);
            let seen: BTreeSet<u64> = marked.filter_map(|event| event["cpu"].as_u64()).collect();
            (seen == cpus).then_some(())
        });
        let number = inode(&one);

        let bundle = recording.stop_with(libc::SIGINT);
        let ledger = bundle.ledger();
        let numbers = numbers(&bundle);
        let rows: u64 = numbers.values().map(|each| each.len() as u64).sum();
        println!(
            "{hook}: {} events, {} lost, {} shrunk",
            ledger["events"], ledger["events_lost"], ledger["payload_shrunk"]
        );
        assert!(ledger["events_lost"] > 0 && ledger["payload_shrunk"] > 0, "{hook}: {ledger:?}");
        assert_eq!(ledger["events"], rows + ledger["events_lost"], "{hook}");
        assert_eq!(bundle.exit_code, Some(3), "{hook}: lost events are said: {}", bundle.said);
        assert!(bundle.said.contains("lost"), "{}", bundle.said);
        // Numbers begin at 0 on each CPU: every hole is a lost event, and every lost event is in a hole.
        let holes: u64 = numbers.values().map(|each| each.iter().max().unwrap() + 1 - each.len() as u64).sum();
        assert_eq!(holes, ledger["events_lost"], "{hook}: losses are located");
        let sent = bundle.events().sent(number);
        let shrunk = sent.iter().filter(|call| call.missing.as_deref() == Some("pressure")).count();
        assert!(shrunk > 0, "{hook}");
        for call in &sent {
            assert_eq!(call.length, 300);
            let room = match call.missing.as_deref() {
                None => vec![300],
                Some("pressure") => vec![0, 128],
                _ => vec![0],
            };
            assert!(room.contains(&call.payload.len()), "{hook}: {:?} {}", call.missing, call.payload.len());
        }
    });
}

#[test]
fn a_bulk_transfer_costs_few_bytes() {
    const TOTAL: usize = 1 << 30;
    with_both_hooks(|hook| {
        let recording = Recording::own(hook);
        let (mut client, mut server) = tcp();
        let sockets = (inode(&client), inode(&server));
        let writer = thread::spawn(move || {
            let chunk = vec![b'b'; 256 << 10];
            for _ in 0..TOTAL / chunk.len() {
                client.write_all(&chunk).unwrap();
            }
            client
        });
        let mut buffer = vec![0u8; 256 << 10];
        let mut got = 0;
        while got < TOTAL {
            got += server.read(&mut buffer).unwrap();
        }
        let client = writer.join().unwrap();
        drop((client, server));

        let partial = recording.partial();
        wait_for("the file", || partial.exists().then_some(()));
        let bundle = recording.stop();
        let events = bundle.events();
        let (sent, received) = (events.sent(sockets.0), events.received(sockets.1));
        assert_eq!(lengths(&sent).iter().sum::<u64>(), TOTAL as u64, "{hook}");
        assert_eq!(lengths(&received).iter().sum::<u64>(), TOTAL as u64, "{hook}");
        let kept: usize = sent.iter().chain(&received).map(|call| call.payload.len()).sum();
        println!("{hook}: {kept} bytes kept of {TOTAL}, in {} calls", sent.len() + received.len());
        assert!(kept < 2 << 20, "{hook}: {kept} bytes of {TOTAL} kept");
        assert!(std::fs::metadata(&bundle.path).unwrap().len() < 4 << 20, "{hook}");
    });
}
