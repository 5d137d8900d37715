//! Who answered for a translated address, by the node's own table of connections.

use std::net::IpAddr;

use kfr_bundle::conntrack::TranslationFact;
use rustc_hash::FxHashMap;

use super::sockets::{Endpoint, Socket, Transport};

/// Entries kept at most.
const MAX_ENTRIES: usize = 1 << 20;
/// For how long the kernel keeps a connection in its table after it ended, ns: TCP's `TIME_WAIT`
/// (`nf_conntrack_tcp_timeout_time_wait`).
const KEPT_NS: u64 = 120_000_000_000;

/// A client's address and the one it asked for.
type Asked = (Transport, IpAddr, u16, IpAddr, u16);

/// When an entry was read (wall clock, ns), and who answers.
type Entry = (u64, (IpAddr, u16));

/// Entries of the tables of all nodes.
#[derive(Debug, Default)]
pub struct Translations {
    /// By who asked whom.
    all: FxHashMap<Asked, Vec<Entry>>,
    entries: usize,
}

impl Translations {
    /// Adds a row whose time is wall clock.
    pub fn add(&mut self, row: &TranslationFact) {
        let transport = match row.transport.as_str() {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return,
        };
        let address = |text: &str| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        if let (Some(client), Some(asked), Some(server)) =
            (address(&row.client), address(&row.asked), address(&row.server))
            && (asked, row.asked_port) != (server, row.server_port)
            && self.entries < MAX_ENTRIES
        {
            self.entries += 1;
            let key = (transport, client, row.client_port, asked, row.asked_port);
            self.all.entry(key).or_default().push((row.time_ns, (server, row.server_port)));
        }
    }

    /// Puts them in order.
    pub fn finish(&mut self) {
        self.all.values_mut().for_each(|entries| entries.sort_unstable());
    }

    /// Who answered a client's connection. Ports are used again: the entry must have been read when the connection had begun and
    /// before it could be gone from the table; of several the first. Where the beginning was not seen, the last one before will
    /// do. `first_ns` is when it began, or was first seen; times are wall clock, ns.
    pub fn answered(&self, client: &Socket, first_ns: u64, closed_ns: Option<u64>) -> Option<(IpAddr, u16)> {
        let (Endpoint::Ip(from, from_port), Endpoint::Ip(to, to_port)) = (&client.local, &client.remote) else {
            return None;
        };
        let entries = self.all.get(&(client.transport, *from, *from_port, *to, *to_port))?;
        let (before, behind) = entries.split_at(entries.partition_point(|(read_ns, _)| *read_ns < first_ns));
        let last_ns = closed_ns.unwrap_or(u64::MAX).saturating_add(KEPT_NS);
        let is_begun = client.connecting_ns.or(client.opened_ns).is_some();
        // An open TCP connection keeps its addresses to itself, however long it was silent.
        let oldest_ns = if client.transport == Transport::Tcp { 0 } else { first_ns.saturating_sub(KEPT_NS) };
        let older = before.last().filter(|(read_ns, _)| !is_begun && *read_ns >= oldest_ns);
        behind.first().filter(|(read_ns, _)| *read_ns <= last_ns).or(older).map(|(_, server)| *server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_entry_holds_for_the_connection_that_it_was_read_of() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut found = Translations::default();
        for (time_ns, server) in [(300, "10.2.0.3"), (100, "10.2.0.2"), (500, "no address")] {
            found.add(&TranslationFact {
                time_ns: time_ns * SECOND,
                transport: "tcp".into(),
                client: "10.1.0.2".into(),
                client_port: 40_000,
                asked: "10.96.0.1".into(),
                asked_port: 80,
                server: server.into(),
                server_port: 8080,
                ..TranslationFact::default()
            });
        }
        found.finish();
        let socket = |port| Socket {
            local: Endpoint::Ip(ip("10.1.0.2"), port),
            remote: Endpoint::Ip(ip("10.96.0.1"), 80),
            opened_ns: Some(1),
            ..Socket::default()
        };
        let of = |port, began: u64, closed: Option<u64>| {
            let answered = found.answered(&socket(port), began * SECOND, closed.map(|at| at * SECOND));
            answered.map(|(ip, port)| format!("{ip}:{port}"))
        };
        let (first, second) = (Some("10.2.0.2:8080".to_string()), Some("10.2.0.3:8080".to_string()));
        assert_eq!([of(40_000, 90, Some(95)), of(40_000, 90, None)], [first.clone(), first]);
        // The port was used again, after the first reading; or so long before it that the entry is another one's.
        assert_eq!([of(40_000, 150, Some(290)), of(40_000, 150, Some(160))], [second, None]);
        assert_eq!([of(40_000, 301, None), of(40_001, 90, None)], [None, None]);
        let older = Socket { opened_ns: None, ..socket(40_000) };
        assert_eq!(found.answered(&older, 400 * SECOND, None), Some((ip("10.2.0.3"), 8080)));
    }
}
