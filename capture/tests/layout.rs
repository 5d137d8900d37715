//! The compiled probes and the decoder agree on every offset, size and constant.

use std::collections::BTreeMap;
use std::mem::offset_of;

use kfr_bundle::events::*;
use kfr_capture::{Config, Control, Counters, HookState, MAX_PAYLOAD_LIMIT, OBJECTS, WHOLE_REQUESTS_FROM};
use libbpf_rs::btf::types::{MemberAttr, Struct};
use libbpf_rs::btf::{Btf, HasSize};

/// A struct's size and its members' names and offsets, as the user space has them.
struct Layout {
    name: &'static str,
    size: usize,
    members: Vec<(&'static str, usize)>,
}

macro_rules! layout {
    ($name:literal, $type:ty, $($member:ident)*) => {
        Layout {
            name: $name,
            size: size_of::<$type>(),
            members: vec![$((stringify!($member), offset_of!($type, $member))),*],
        }
    };
}

fn layouts() -> Vec<Layout> {
    let mut counters = layout!("counters", Counters, events lost shrunk refused_state waiting asked);
    // Named for what it counts on the one side, for what it numbers on the other.
    counters.members[0].0 = "sequence";
    vec![
        layout!("event_header", EventHeader, time_ns sequence kind cpu thread process reserved),
        layout!("data_event", DataEvent, header socket offset length kept age_ns direction offset_kind missing reserved),
        layout!("datagram_event", DatagramEvent, data peer_address peer_port peer_family reserved),
        layout!("socket_event", SocketEvent, header socket netns cgroup peer inode opened_ns local_address remote_address
            local_port remote_port family socket_type protocol role state sent_sequence received_sequence
            first_sent_sequence first_received_sequence offset_kind seen_by path_length comm path reserved),
        layout!("state_event", StateEvent, header socket netns cgroup bytes_acknowledged bytes_received local_address
            remote_address asked_address local_port remote_port asked_port asked_family family old_state new_state
            sent_sequence received_sequence rtt_us rtt_min_us retransmits error reserved),
        layout!("tcp_event", TcpEvent, header socket netns local_address remote_address local_port remote_port family
            what state),
        layout!("process_event", ProcessEvent, header cgroup start_ns parent namespace_process exit_status what reserved
            arguments_length comm arguments),
        layout!("config", Config, ring_bytes bulk_refill_ns own_process bulk_limit filter_process filter_cgroup
            filter_port ask_mask),
        layout!("control", Control, boot_offset_ns payload_limit walk_number),
        counters,
    ]
}

#[test]
fn every_offset_and_size_is_the_compiled_probes() {
    let folder = std::env::temp_dir();
    for (object, image) in OBJECTS {
        let path = folder.join(format!("kfr-layout-{}-{object}.o", std::process::id()));
        std::fs::write(&path, image).unwrap();
        let btf = Btf::from_path(&path);
        std::fs::remove_file(&path).unwrap();
        let btf = btf.unwrap();
        let of_one_hook = (*object == "syscall").then(|| layout!("hook_state", HookState, last_id uring_calls));
        for layout in layouts().into_iter().chain(of_one_hook) {
            let case = format!("struct {} of {object}", layout.name);
            let compiled = btf.type_by_name::<Struct<'_>>(layout.name).unwrap_or_else(|| panic!("{case} is missing"));
            assert_eq!(compiled.size(), layout.size, "size of {case}");
            let members: Vec<(String, usize)> = compiled
                .iter()
                .map(|member| {
                    let MemberAttr::Normal { offset } = member.attr else { panic!("a bit-field in {case}") };
                    (member.name.unwrap().to_string_lossy().into_owned(), offset as usize / 8)
                })
                .collect();
            let expected: Vec<_> = layout.members.iter().map(|(name, offset)| (name.to_string(), *offset)).collect();
            assert_eq!(members, expected, "members of {case}");
        }
    }
}

/// Constants by name, as a header file gives them: `NAME = NUMBER,` or `#define NAME NUMBER`.
fn constants(header: &str) -> BTreeMap<&str, u64> {
    let lines = header.lines().map(str::trim);
    lines
        .filter_map(|line| {
            let (name, value) = match line.strip_prefix("#define ") {
                Some(rest) => rest.split_once(' ')?,
                None => line.strip_suffix(',')?.split_once(" = ")?,
            };
            Some((name, value.trim().parse().ok()?))
        })
        .collect()
}

macro_rules! named {
    ($($name:ident)*) => { BTreeMap::from([$((stringify!($name), u64::from($name))),*]) };
}

#[test]
fn every_constant_is_the_headers() {
    let header = constants(include_str!("../../bpf/events.h"));
    let ours = named!(
        KIND_DATA KIND_DATAGRAM KIND_SOCKET KIND_STATE KIND_TCP KIND_PROCESS
        DIRECTION_SENT DIRECTION_RECEIVED
        OFFSET_TCP OFFSET_COUNTED OFFSET_DATAGRAM
        MISSING_NOTHING MISSING_LIMIT MISSING_BULK MISSING_PRESSURE MISSING_PEER_KEEPS MISSING_NO_BUFFER
        MISSING_NOT_THIS_CALL MISSING_COMPAT MISSING_FAULT MISSING_SEGMENTS MISSING_MESSAGE_INDEX MISSING_DISCARDED
        ROLE_UNKNOWN ROLE_CLIENT ROLE_SERVER ROLE_LISTENER
        SEEN_BY_DATA SEEN_BY_WALK
        TCP_RETRANSMIT TCP_RESET_SENT TCP_RESET_RECEIVED
        PROCESS_EXEC PROCESS_FORK PROCESS_EXIT
    );
    assert_eq!(header, ours);
    let transfer = constants(include_str!("../../bpf/socket/transfer.h"));
    assert_eq!(transfer["MAX_KEPT"], u64::from(MAX_PAYLOAD_LIMIT));
    assert_eq!(transfer["WHOLE_REQUESTS_FROM"], u64::from(WHOLE_REQUESTS_FROM));
}
