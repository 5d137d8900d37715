//! Unbound, asked by dig over UDP and TCP: dig's own account of each answer, and the server's statistics. The server's
//! UDP socket is connected to nobody.

use std::path::Path;
use std::process::Command;

use super::harness::{compare, live, name, run};
use crate::truth::{Bundle, Capture, Counts, HOOKS, Server, assert_equal, find_program, folder, free_port, wait_for};

/// Names that answer, that have nothing of a type, that don't exist, that are refused, and whose answer is long.
const ZONES: &str = r#"
  local-zone: "shop.test." static
  local-data: "shop.test. 60 IN SOA ns.shop.test. admin.shop.test. 1 2 3 4 5"
  local-data: "www.shop.test. 60 IN A 192.0.2.1"
  local-data: "www.shop.test. 60 IN AAAA 2001:db8::1"
  local-data: "shop.test. 60 IN MX 10 mail.shop.test."
  local-zone: "private.test." refuse
"#;

fn start(folder: &Path, port: u16) -> Server {
    let configuration = folder.join("unbound.conf");
    let long: String = (0..20)
        .map(|n| format!("  local-data: 'long.shop.test. 60 IN TXT \"{n} {}\"'\n", "text ".repeat(40)))
        .collect();
    let text = format!(
        "server:\n  interface: 127.0.0.1@{port}\n  username: \"\"\n  chroot: \"\"\n  directory: \"{0}\"\n  pidfile: \"\"\n  \
         use-syslog: no\n  num-threads: 1\n  module-config: \"iterator\"\n  extended-statistics: yes\n{ZONES}{long}\
         remote-control:\n  control-enable: yes\n  control-interface: \"{0}/control\"\n  control-use-cert: no\n",
        folder.display()
    );
    std::fs::write(&configuration, text).unwrap();
    let mut command = Command::new(find_program("unbound").unwrap());
    command.args(["-d", "-c"]).arg(&configuration);
    let server = Server::start("unbound", port, &folder.join("unbound.log"), &mut command);
    wait_for("unbound's control", || folder.join("control").exists().then_some(()));
    server
}

/// Statistics since they were asked for last.
fn statistics(folder: &Path) -> Counts {
    let control = run(Command::new("unbound-control").arg("-c").arg(folder.join("unbound.conf")).arg("stats"));
    let numbers = control.lines().filter_map(|line| line.split_once('='));
    numbers.filter_map(|(name, number)| Some((name.to_string(), number.parse().ok()?))).collect()
}

/// Asks over UDP or TCP; counts questions by type and code as dig shows them.
fn ask(port: u16, options: &[&[&str]]) -> Counts {
    let mut counts = Counts::new();
    let names = ["www.shop.test A", "www.shop.test AAAA", "shop.test MX", "shop.test SOA", "www.shop.test TXT"];
    let failing = ["none.shop.test A", "none.shop.test AAAA", "x.private.test A"];
    let batch: Vec<&str> = names.into_iter().chain(failing).collect();
    let port = port.to_string();
    for options in options {
        let folder = folder();
        let questions = folder.path().join("questions");
        std::fs::write(&questions, batch.repeat(4).join("\n")).unwrap();
        let mut dig = Command::new("dig");
        dig.args(["@127.0.0.1", "-p", &port, "+tries=1", "+time=20"]).args(*options).arg("-f").arg(&questions);
        count(&run(&mut dig), &mut counts);
    }
    counts
}

/// Asks for what does not fit: told so over UDP, dig asks again over TCP.
fn ask_for_much(port: u16) -> Counts {
    let mut counts = Counts::new();
    let port = port.to_string();
    for _ in 0..3 {
        let long = ["@127.0.0.1", "-p", &port, "+tries=1", "+time=20", "+bufsize=512", "long.shop.test", "TXT"];
        let text = run(Command::new("dig").args(long));
        assert!(text.contains("Truncated, retrying in TCP mode"), "{text}");
        count(&text, &mut counts);
        *counts.entry("TXT ok NOERROR".to_string()).or_default() += 1;
    }
    counts
}

/// Adds the answers that dig printed.
fn count(text: &str, counts: &mut Counts) {
    let mut status = None;
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once(", status: ") {
            status = rest.split(',').next();
        } else if let Some(status) = status.take_if(|_| line.starts_with(';') && line.contains("\tIN\t")) {
            let kind = line.rsplit('\t').next().unwrap();
            let ok = if status == "NOERROR" { "ok " } else { "" };
            *counts.entry(format!("{kind} {ok}{status}")).or_default() += 1;
        }
    }
}

/// The server's statistics, and the same numbers by the recording.
fn compare_statistics(what: &str, said: &Counts, bundle: &Bundle, port: u16) {
    let mut kfr = Counts::new();
    bundle.requests(port, |line| {
        let (op, code) = (line["op"].as_str().unwrap(), line["code"].as_str().unwrap());
        for name in
            [format!("num.query.type.{op}"), format!("num.answer.rcode.{code}"), "total.num.queries".to_string()]
        {
            *kfr.entry(name).or_default() += 1;
        }
    });
    let server = said
        .iter()
        .filter(|(name, count)| {
            let known = ["num.query.type.", "num.answer.rcode.", "total.num.queries"];
            **count > 0 && (known[..2].iter().any(|prefix| name.starts_with(prefix)) || *name == known[2])
        })
        .filter(|(name, _)| *name != "num.answer.rcode.nodata")
        .map(|(name, count)| (name.clone(), *count))
        .collect();
    assert_equal(what, &server, &kfr);
}

/// Records with both hooks what `load` asks: both ends of each conversation, which must count once, and the server's end
/// alone.
fn unbound(load: impl Fn(u16) -> Counts) {
    if !live(&["unbound", "unbound-control", "dig"], &[]) {
        return;
    }
    let folder = folder();
    let port = free_port();
    let server = start(folder.path(), port);
    let [port_text, pid] = [port.to_string(), server.pid().to_string()];
    for hook in HOOKS {
        for (what, scope) in [("both ends", ["--port", &port_text]), ("the server alone", ["--pid", &pid])] {
            statistics(folder.path());
            let capture = Capture::start(folder.path(), "dns", &[&["--socket-hook", hook], &scope[..]].concat());
            let asked = load(port);
            let bundle = capture.stop();
            let said = statistics(folder.path());
            compare(&format!("DNS, {hook} hook, {what}, dig"), "dns", &bundle, port, &asked);
            compare_statistics(&format!("DNS, {hook} hook, {what}, unbound"), &said, &bundle, port);
        }
    }
}

#[test]
fn unbound_counts_the_same_questions_over_tcp() {
    unbound(|port| ask(port, &[&["+tcp"], &["+tcp", "+keepopen"]]));
}

/// What the clients' ends show of UDP.
#[test]
fn unbound_is_asked_the_same_questions_over_udp() {
    if !live(&["unbound", "unbound-control", "dig"], &[]) {
        return;
    }
    let folder = folder();
    let port = free_port();
    let _server = start(folder.path(), port);
    for hook in HOOKS {
        let options = ["--socket-hook", hook, "--port", &port.to_string()];
        let capture = Capture::start(folder.path(), "dns", &options);
        let mut asked = ask(port, &[&["+notcp"], &["+noedns"]]);
        for (name, count) in ask_for_much(port) {
            *asked.entry(name).or_default() += count;
        }
        let bundle = capture.stop();
        let mut kfr = Counts::new();
        bundle.requests(port, |line| {
            assert_eq!(line["protocol"], "dns", "{line}");
            // The server's end counts once more, see below.
            if line["client"]["port"] != 0 {
                *kfr.entry(name(line)).or_default() += 1;
            }
        });
        assert_equal(&format!("DNS over UDP, {hook} hook, dig"), &asked, &kfr);
    }
}

#[test]
fn unbound_counts_the_same_questions_over_udp() {
    unbound(|port| ask(port, &[&["+notcp"], &["+noedns"]]));
}
