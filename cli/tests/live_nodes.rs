//! Several nodes: a recording on the client's and one on the server's, with a translation of addresses between them, must come
//! to one picture. The nodes are network namespaces, their pods processes in them, the Service nftables.
//!
//! Needs root, BTF and nft; else the tests say why they were skipped.
#![cfg(all(target_os = "linux", feature = "capture"))]

mod truth;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use truth::{Bundle, Capture, KFR, folder, live};

/// Requests over the Service's address, and directly.
const CALLED: usize = 30;
const DIRECT: usize = 20;

/// Answers each request after 20 ms; a connection with several requests stays open.
const SERVER: &str = r#"
import http.server, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(0.02)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer(("10.241.2.2", 8080), Handler)
print("ready", flush=True)
server.serve_forever()
"#;

const CLIENT: &str = r#"
import http.client, sys
def talk(host, port, requests):
    connection = http.client.HTTPConnection(host, port)
    for number in range(requests):
        connection.request("GET", "/item")
        assert connection.getresponse().read() == b"hello"
    connection.close()
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(3): talk("10.241.96.10", 80, 10)
    for _ in range(2): talk("10.241.2.2", 8080, 10)
    print("done", flush=True)
"#;

/// One test at a time: the namespaces have names.
static ONE: Mutex<()> = Mutex::new(());

/// Two nodes and the router between them, which translates a Service's address.
struct Network {
    names: [String; 3],
}

impl Network {
    fn new() -> Self {
        let id = std::process::id();
        let network = Self { names: ["client", "server", "router"].map(|name| format!("kfr{id}{name}")) };
        let [client, server, router] = &network.names;
        for name in &network.names {
            ip(&format!("netns add {name}"));
        }
        for (node, number) in [(client, 1), (server, 2)] {
            ip(&format!("link add name eth0 netns {node} type veth peer name node{number} netns {router}"));
            ip(&format!("-n {node} addr add 10.241.{number}.2/24 dev eth0"));
            ip(&format!("-n {router} addr add 10.241.{number}.1/24 dev node{number}"));
            for (name, device) in [(node, "lo"), (node, "eth0"), (router, &*format!("node{number}"))] {
                ip(&format!("-n {name} link set {device} up"));
            }
            ip(&format!("-n {node} route add default via 10.241.{number}.1"));
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward && nft 'table ip nat { chain services { \
            type nat hook prerouting priority -100; ip daddr 10.241.96.10 tcp dport 80 dnat to 10.241.2.2:8080; }; }'";
        ip(&format!("netns exec {router} sh -c {}", forward.replace(' ', "\u{a0}")));
        network
    }

    /// The router's table of connections.
    fn conntrack(&self) -> Vec<u8> {
        let mut cat = Command::new("ip");
        cat.args(["netns", "exec", &self.names[2], "cat", "/proc/net/nf_conntrack"]);
        let output = cat.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// A Python program in a namespace, once it is ready.
    fn run(&self, node: usize, program: &str) -> Pod {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.names[node], "/usr/bin/python3", "-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut pod = Pod { child, stdin, stdout: BufReader::new(stdout) };
        pod.wait_for("ready");
        pod
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs ip; no-break spaces stay within a word.
fn ip(arguments: &str) {
    let words = arguments.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace('\u{a0}', " "));
    let output = Command::new("ip").args(words).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Pod {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Pod {
    fn wait_for(&mut self, said: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), said);
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn requests(bundles: &[&Bundle]) -> Vec<Value> {
    let output = Command::new(KFR)
        .args(["dump", "--requests"])
        .args(bundles.iter().map(|bundle| &bundle.path))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(line: &Value, key: &str) -> u64 {
    line[key].as_u64().unwrap_or_else(|| panic!("no {key}: {line}"))
}

/// Compares requests one by one: all of them are too much to read.
#[track_caller]
fn assert_same(one: &[Value], other: &[Value]) {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).for_each(|(one, other)| assert_eq!(one, other));
}

#[test]
fn both_ends_on_two_nodes_are_one_connection() {
    if !live(&["nft", "ip"]) {
        return;
    }
    let _turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (network, folder) = (Network::new(), folder());
    let server = network.run(1, SERVER);
    let mut client = network.run(0, CLIENT);
    // The client's node is the one that translates: its table is the router's.
    let root = folder.path().join("root");
    let table = root.join("proc/1/net/nf_conntrack");
    fs::create_dir_all(table.parent().unwrap()).unwrap();
    fs::write(&table, "").unwrap();
    let record = |name: &str, pid: &str| {
        let options = ["--kube", "off", "--node-name", name, "--pid", pid, "--host-root", root.to_str().unwrap()];
        Capture::start(folder.path(), name, &options)
    };
    let (at_client, at_server) = (record("node-a", &client.pid()), record("node-b", &server.pid()));
    let beside = record("again-a", &client.pid());
    client.stdin.write_all(b"go\n").unwrap();
    client.wait_for("done");
    fs::write(&table, network.conntrack()).unwrap();
    let (at_client, at_server, beside) = (at_client.stop(), at_server.stop(), beside.stop());

    let both = requests(&[&at_client, &at_server]);
    assert_eq!(both.len(), CALLED + DIRECT);
    // The order in which bundles are named says nothing.
    assert_same(&requests(&[&at_server, &at_client]), &both);
    for line in &both {
        let (client_end, server_end) = (&line["client"], &line["server"]);
        assert_eq!((&client_end["node"], &server_end["node"]), (&"node-a".into(), &"node-b".into()), "{line}");
        assert_eq!((client_end["pid"].to_string(), server_end["pid"].to_string()), (client.pid(), server.pid()));
        assert!(client_end["process"].is_string() && server_end["process"].is_string(), "{line}");
        // Whatever address was asked for.
        assert_eq!((&server_end["address"], &server_end["port"]), (&"10.241.2.2".into(), &8080.into()), "{line}");
        assert_eq!(server_end["known_by"], "sequence", "{line}");
        assert!(line["flags"].as_array().unwrap().is_empty(), "{line}");
        let (duration, served) = (number(line, "duration_ns"), number(line, "server_ns"));
        assert!(served > 20_000_000 && duration >= served, "{line}");
    }

    // Of one of them: the same requests, from one side.
    let alone = requests(&[&at_client]);
    let called = |line: &&Value| line["server"]["known_by"] == "conntrack";
    assert_eq!((alone.len(), alone.iter().filter(called).count()), (CALLED + DIRECT, CALLED));
    assert!(alone.iter().all(|line| line["server"]["address"] == "10.241.2.2" && line["server"]["port"] == 8080));
    let timed = |lines: &[Value]| -> Vec<(u64, u64)> {
        lines.iter().map(|line| (number(line, "start_ns"), number(line, "duration_ns"))).collect()
    };
    assert_eq!(timed(&alone), timed(&both));
    assert!(alone.iter().all(|line| line["server"]["pid"].is_null() && line["server_ns"].is_null()));
    let served = requests(&[&at_server]);
    assert_eq!(served.len(), CALLED + DIRECT);
    for (line, joined) in served.iter().zip(&both) {
        assert!(line["client"]["pid"].is_null() && line["client"]["address"] == "10.241.1.2", "{line}");
        assert!(number(line, "duration_ns") <= number(joined, "duration_ns"), "{line}");
        assert!(number(line, "start_ns") >= number(joined, "start_ns"), "{line}");
    }

    // A node that was recorded twice at once counts once.
    assert_same(&requests(&[&at_client, &beside]), &alone);
    assert_same(&requests(&[&at_client, &beside, &at_server]), &both);
}

/// Answers questions for addresses by the last label but one: `a2.` is 10.241.2.2. Names end in `search.test` nowhere.
const RESOLVER: &str = r#"
import socket, struct
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.241.2.2", 53))
print("ready", flush=True)
while True:
    asked, client = server.recvfrom(512)
    end = asked.index(0, 12) + 5
    question = asked[12:end]
    if b"\x06search" in question:
        server.sendto(asked[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + question, client)
        continue
    alias = b"\xc0\x0c\0\x05\0\1\0\0\0\x3c\0\x07\x01e\x03net\0"
    at = struct.pack(">H", 0xc000 | (12 + len(question) + 12))
    address = at + b"\0\1\0\1\0\0\0\x3c\0\x04" + socket.inet_aton("10.241.2.2")
    server.sendto(asked[:2] + b"\x81\x80\0\1\0\2\0\0\0\0" + question + alias + address, client)
"#;

const ASKING: &str = r#"
import http.client, socket, sys
def resolve(name, connected):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    asked = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if connected:
        client.connect(("10.241.2.2", 53))
        client.send(asked)
    else:
        client.sendto(asked, ("10.241.2.2", 53))
    answer = client.recvfrom(512)[0]
    return socket.inet_ntoa(answer[-4:]) if answer[3] & 15 == 0 else None
def get(host):
    connection = http.client.HTTPConnection(host, 8080)
    connection.request("GET", "/item")
    assert connection.getresponse().read() == b"hello"
    connection.close()
print("ready", flush=True)
for line in sys.stdin:
    get("10.241.2.2")
    for name, connected in [("api.example.com", True), ("Files.example.com", False)]:
        assert resolve(name + ".search.test", connected) is None
        get(resolve(name, connected))
    print("done", flush=True)
"#;

#[test]
fn addresses_outside_are_called_what_dns_called_them() {
    if !live(&["nft", "ip"]) {
        return;
    }
    let _turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (network, folder) = (Network::new(), folder());
    let (_server, resolver) = (network.run(1, SERVER), network.run(1, RESOLVER));
    for hook in truth::HOOKS {
        let mut client = network.run(0, ASKING);
        let record = |name: &str, pid: &str| {
            let options = ["--kube", "off", "--socket-hook", hook, "--node-name", name, "--pid", pid];
            Capture::start(folder.path(), name, &options)
        };
        let (at_client, at_resolver) = (record("node-a", &client.pid()), record("node-b", &resolver.pid()));
        client.stdin.write_all(b"go\n").unwrap();
        client.wait_for("done");
        let (at_client, at_resolver) = (at_client.stop(), at_resolver.stop());
        for bundles in [vec![&at_client], vec![&at_client, &at_resolver]] {
            let lines = requests(&bundles);
            let calls: Vec<&Value> = lines.iter().filter(|line| line["protocol"] == "http").collect();
            let name = |line: &&Value| (line["server"]["workload"].clone(), line["server"]["known_by"].clone());
            let named = |name: &str| (Value::from(format!("{name}.example.com:8080")), Value::from("dns"));
            // Nobody had asked for a name yet.
            let expected = [(Value::Null, Value::Null), named("api"), named("files")];
            assert_eq!(calls.iter().map(name).collect::<Vec<_>>(), expected, "{hook}");
        }
    }
}
