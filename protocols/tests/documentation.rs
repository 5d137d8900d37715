//! The tables in `docs/PROTOCOLS.md` come from the registry: `KFR_BLESS=1` writes them anew.

use std::fmt::Write;
use std::path::Path;

use kfr_protocols::{Flags, Protocol, REGISTRY};

const BEGIN: &str = "<!-- from the registry of decoders: begin -->\n";
const END: &str = "<!-- from the registry of decoders: end -->\n";

fn carried_by(protocol: &Protocol) -> &'static str {
    match (protocol.streams, protocol.datagrams) {
        (true, true) => "streams, datagrams",
        (true, false) => "streams",
        (false, true) => "datagrams",
        (false, false) => "another protocol",
    }
}

fn tables() -> String {
    let mut text = String::from("| protocol | over | a request, `op` and `target` | source |\n|---|---|---|---|\n");
    for protocol in REGISTRY {
        let about = &protocol.about;
        let _ =
            writeln!(text, "| `{}` | {} | {} | {} |", protocol.name, carried_by(protocol), about.request, about.source);
    }
    text.push_str("\n| protocol | read | inferred where the start, or something in the middle, was not seen | not read |\n|---|---|---|---|\n");
    for protocol in REGISTRY {
        let about = &protocol.about;
        let _ = writeln!(text, "| `{}` | {} | {} | {} |", protocol.name, about.read, about.mid_stream, about.not_read);
    }
    text
}

#[test]
fn the_tables_are_those_of_the_registry() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOLS.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the document has a place for the tables");
    let (found, after) = rest.split_once(END).expect("the document has an end of the tables");
    let expected = tables();
    if std::env::var_os("KFR_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert!(
            found == expected,
            "docs/PROTOCOLS.md is not what the registry says; KFR_BLESS=1 writes its tables anew"
        );
    }
}

#[test]
fn every_protocol_is_described() {
    for protocol in REGISTRY {
        let about = &protocol.about;
        for text in [about.source, about.request, about.read, about.mid_stream, about.not_read] {
            assert!(!text.is_empty() && !text.contains(['|', '\n']), "{}: {text:?}", protocol.name);
        }
    }
    let mut names: Vec<_> = REGISTRY.iter().map(|protocol| protocol.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), REGISTRY.len(), "names are unique");
    assert!(REGISTRY.len() <= 64, "a set of protocols has 64 bits");
}

#[test]
fn every_flag_is_described() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOLS.md");
    let document = std::fs::read_to_string(path).unwrap();
    for (_, name) in Flags::NAMES {
        assert!(document.contains(&format!("`{name}`")), "the flag {name} is not in docs/PROTOCOLS.md");
    }
}
