//! Translations of addresses, as the kernel's table of connections (netfilter's conntrack) has them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A row of a [`crate::BlockKind::CONNTRACK`] block: one connection whose addresses the node translates. Addresses are texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TranslationFact {
    /// When the table was read, `CLOCK_BOOTTIME` ns.
    pub time_ns: u64,
    /// `tcp` or `udp`.
    pub transport: String,
    /// Who asks, as the client's socket has it.
    pub client: String,
    /// Its port.
    pub client_port: u16,
    /// Whom it asks, as the client's socket has it: a Service's address.
    pub asked: String,
    /// Its port.
    pub asked_port: u16,
    /// Who answers, as the server's socket has it.
    pub server: String,
    /// Its port.
    pub server_port: u16,
    /// Whom the server answers: the client, or an address that stands for it.
    pub answered: String,
    /// Its port.
    pub answered_port: u16,
}

impl TranslationFact {
    /// Reads a line of `/proc/net/nf_conntrack` or of `conntrack -L`, which leaves out the first two words: the tuple of the
    /// first packet, then that of the answer, between words that don't matter here. `None` of a line without an address
    /// that is translated, and of what is no such line.
    pub fn parse(line: &str, time_ns: u64) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let transport = words.by_ref().take(3).find(|word| matches!(*word, "tcp" | "udp"))?.to_string();
        let (mut addresses, mut ports) = (Vec::with_capacity(4), Vec::with_capacity(4));
        for word in words {
            match word.split_once('=') {
                Some(("src" | "dst", ip)) if addresses.len() < 4 => addresses.push(ip.parse::<IpAddr>().ok()?),
                Some(("sport" | "dport", port)) if ports.len() < 4 => ports.push(port.parse::<u16>().ok()?),
                _ => {}
            }
        }
        let (&[client, asked, server, answered], &[client_port, asked_port, server_port, answered_port]) =
            (addresses.as_slice(), ports.as_slice())
        else {
            return None;
        };
        let as_asked = (client, client_port, asked, asked_port) == (answered, answered_port, server, server_port);
        let [client, asked, server, answered] = [client, asked, server, answered].map(|ip| ip.to_string());
        let fact = Self {
            time_ns,
            transport,
            client,
            client_port,
            asked,
            asked_port,
            server,
            server_port,
            answered,
            answered_port,
        };
        (!as_asked).then_some(fact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUPLES: &str =
        "src=10.1.0.2 dst=10.96.0.10 sport=48576 dport=80 src=10.2.0.2 dst=10.1.0.2 sport=8080 dport=48576";

    #[test]
    fn both_forms_are_read_alike() {
        let of_proc = format!("ipv4     2 tcp      6 119 TIME_WAIT {TUPLES} [ASSURED] mark=0 zone=0 use=2");
        let of_tool = format!("tcp      6 431997 ESTABLISHED {TUPLES} [ASSURED] mark=0 use=1");
        let fact = TranslationFact::parse(&of_proc, 7).unwrap();
        assert_eq!(TranslationFact::parse(&of_tool, 7).as_ref(), Some(&fact));
        assert_eq!(
            (&*fact.client, fact.client_port, &*fact.asked, fact.asked_port),
            ("10.1.0.2", 48576, "10.96.0.10", 80)
        );
        assert_eq!((&*fact.server, fact.server_port, &*fact.answered), ("10.2.0.2", 8080, "10.1.0.2"));
        // An answer that was not seen yet is told between the two.
        let waiting = "udp 17 29 src=fd00::1 dst=fd00::a sport=5 dport=53 [UNREPLIED] src=fd00::2 dst=fd00::1 sport=53 dport=5 use=1";
        assert_eq!(TranslationFact::parse(waiting, 0).unwrap().server, "fd00::2");
    }

    #[test]
    fn what_is_not_translated_or_no_line_of_the_table_is_left_out() {
        let plain =
            "tcp 6 9 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1";
        let other =
            "icmp 1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=1";
        for line in [plain, other, "", "tcp", &TUPLES[..40], &format!("tcp 6 {}", TUPLES.replace("48576", "99999"))] {
            assert_eq!(TranslationFact::parse(line, 0), None, "{line}");
        }
    }
}
