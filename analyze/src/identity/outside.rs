//! Names of addresses outside, by the DNS answers that were recorded.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::sockets::{Endpoint, Socket};

/// Names kept at most, and answers: beyond that addresses stay without.
const MAX_NAMES: usize = 1 << 16;
const MAX_ANSWERS: usize = 1 << 18;

/// Who asks: by address, or (a socket that is bound to none has no address) by bundle and network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Has an address.
    Address(IpAddr),
    /// Was recorded in a network namespace.
    Namespace(u32, u64),
}

impl Asker {
    /// Who has an address, if it is one.
    pub fn at(ip: IpAddr) -> Option<Self> {
        (!ip.is_unspecified()).then_some(Self::Address(ip))
    }

    /// Who owns a socket.
    pub fn of(socket: &Socket) -> [Option<Self>; 2] {
        let address = if let Endpoint::Ip(ip, _) = socket.local { Self::at(ip) } else { None };
        // Packets have none.
        let namespace = (socket.netns != 0).then_some(Self::Namespace(socket.id.0, socket.netns));
        [address, namespace]
    }
}

/// One DNS answer: who had asked, as far as that is known, for which name, what came, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Wall clock, ns.
    pub time_ns: u64,
    /// Who asked.
    pub askers: [Option<Asker>; 2],
    /// The name asked for, whatever aliases led on from it.
    pub name: Box<str>,
    /// An address that it has.
    pub address: IpAddr,
}

/// When an address got which name (its number).
type Named = Vec<(u64, u32)>;

/// Addresses, by the names that were asked for.
#[derive(Debug, Default)]
pub struct Names {
    all: Vec<Box<str>>,
    numbers: FxHashMap<Box<str>, u32>,
    by_asker: FxHashMap<(Asker, IpAddr), Named>,
    /// By address, whoever asked.
    by_anybody: FxHashMap<IpAddr, Named>,
    answers: usize,
}

impl Names {
    /// Adds answers, in any order; call [`Names::finish`] behind the last.
    pub fn add(&mut self, answer: &Answer) {
        // Block lists answer with nobody's address.
        if self.is_full() || answer.address.is_loopback() || answer.address.is_unspecified() || answer.name.len() < 2 {
            return;
        }
        // Resolvers mix upper and lower case, so that answers are harder to forge.
        let name: Box<str> = answer.name.trim_end_matches('.').to_lowercase().into();
        let next = self.all.len() as u32;
        let number = *self.numbers.entry(name.clone()).or_insert(next);
        if number == next {
            self.all.push(name);
        }
        self.answers += 1;
        let named = (answer.time_ns, number);
        self.by_anybody.entry(answer.address).or_default().push(named);
        for asker in answer.askers.into_iter().flatten() {
            self.by_asker.entry((asker, answer.address)).or_default().push(named);
        }
    }

    /// Whether no more are kept.
    pub fn is_full(&self) -> bool {
        self.all.len() >= MAX_NAMES || self.answers >= MAX_ANSWERS
    }

    /// Puts them in order.
    pub fn finish(&mut self) {
        for named in self.by_asker.values_mut().chain(self.by_anybody.values_mut()) {
            named.sort_unstable();
            named.dedup_by_key(|(_, number)| *number);
            named.shrink_to_fit();
        }
    }

    /// The name by which whoever connects, or else anybody, was last given an address before a moment.
    pub fn of(&self, address: IpAddr, askers: [Option<Asker>; 2], time_ns: u64) -> Option<&str> {
        let latest = |named: &Named| {
            let before = named.partition_point(|(at, _)| *at <= time_ns);
            before.checked_sub(1).and_then(|last| named.get(last)).copied()
        };
        let own = askers.into_iter().flatten().filter_map(|asker| self.by_asker.get(&(asker, address)));
        let (_, number) = own.filter_map(latest).max().or_else(|| self.by_anybody.get(&address).and_then(latest))?;
        self.all.get(number as usize).map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_answer_before_a_connection_names_it() {
        let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut names = Names::default();
        for (time_ns, client, name, address) in [
            (30, Some(ip(1)), "b.example.com", ip(9)),
            (10, Some(ip(1)), "A.example.COM.", ip(9)),
            (40, Some(ip(2)), "c.example.com", ip(9)),
            (50, None, "d.example.com", ip(9)),
            (5, Some(ip(1)), "blocked.example.com", IpAddr::from([127, 0, 0, 1])),
        ] {
            names.add(&Answer { time_ns, askers: [client.and_then(Asker::at), None], name: name.into(), address });
        }
        names.finish();
        let of = |client: u8, time_ns| names.of(ip(9), [Asker::at(ip(client)), Some(Asker::Namespace(0, 7))], time_ns);
        assert_eq!(of(1, 9), None);
        assert_eq!(
            [10, 29, 30, 99].map(|at| of(1, at).unwrap()),
            ["a", "a", "b", "b"].map(|of| format!("{of}.example.com"))
        );
        // Who didn't ask himself may have it from others.
        assert_eq!([of(3, 45), of(3, 50)], [Some("c.example.com"), Some("d.example.com")]);
        assert_eq!(names.of(IpAddr::from([127, 0, 0, 1]), [None; 2], 99), None);
    }

    #[test]
    fn there_are_only_so_many() {
        let mut names = Names::default();
        for number in 0..MAX_NAMES + 9 {
            let address = IpAddr::from((number as u32 | 0x0a00_0000).to_be_bytes());
            names.add(&Answer { time_ns: 1, askers: [None; 2], name: format!("n{number}.example").into(), address });
        }
        assert!(names.is_full() && names.all.len() == MAX_NAMES);
    }
}
