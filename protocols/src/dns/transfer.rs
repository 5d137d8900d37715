//! Zone transfers over TCP: one question, answered by any number of messages (RFC 5936, RFC 1995).

use std::collections::BTreeMap;

use super::Arrived;
use super::message::Message;
use super::wire::End;
use crate::{Exchange, Flags, Output};

/// Transfers under way at once.
const MAX_TRANSFERS: usize = 256;

/// A transfer whose first message came.
#[derive(Debug)]
pub(super) struct Transfer {
    exchange: Exchange,
    incremental_asked: bool,
    /// Serial of the zone sent: of the SOA record that the answer begins with.
    serial: Option<u32>,
    /// SOA records with that serial so far.
    seen: u32,
    /// It consists of differences, between SOA records of their own.
    incremental: bool,
    rows: u64,
    /// Where it ends can't be told any more.
    lost: bool,
}

impl Transfer {
    pub fn new(exchange: Exchange, incremental_asked: bool) -> Self {
        Self { exchange, incremental_asked, serial: None, seen: 0, incremental: false, rows: 0, lost: false }
    }

    /// Messages of it were lost.
    pub fn lose(&mut self, flag: Flags) {
        self.lost = true;
        self.exchange.flags.insert(flag);
    }

    /// Reads a message of it; true if it was the last.
    fn feed(&mut self, message: &Message, arrived: &Arrived<'_>) -> bool {
        let answers = u64::from(message.header.counts[1]);
        if let Some(response) = &mut self.exchange.response {
            response.end = arrived.range.end;
        }
        let first = self.rows == 0;
        for (index, serial) in &message.soas {
            let index = self.rows + u64::from(*index);
            if index == 0 {
                self.serial = Some(*serial);
            }
            self.incremental |= index == 1 && self.incremental_asked && self.serial != Some(*serial);
            self.seen += u32::from(self.serial == Some(*serial));
        }
        self.rows += answers;
        self.exchange.rows = Some(self.rows);
        if message.rcode != Some(0) {
            super::tell(&mut self.exchange, message, arrived);
            self.exchange.rows = Some(self.rows);
            return true;
        }
        if !matches!(message.end, End::Whole(_)) {
            self.lost = true;
            self.exchange.flags.insert(arrived.missing);
            // Malformed, not cut: nothing better will come.
            return arrived.missing == Flags::default();
        }
        // Without an SOA record in front it is no transfer. One SOA record and nothing else: there is nothing new.
        let ended = if self.incremental { self.seen >= 3 } else { self.seen >= 2 };
        ended || first && (self.serial.is_none() || self.incremental_asked && answers == 1)
    }
}

/// Transfers by their message id.
#[derive(Debug, Default)]
pub(super) struct Transfers(BTreeMap<u16, Transfer>);

impl Transfers {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The first message of a transfer came.
    pub fn begin(&mut self, mut transfer: Transfer, message: &Message, arrived: &Arrived<'_>, out: &mut Output) {
        if transfer.feed(message, arrived) {
            give_out(transfer, out);
            return;
        }
        let id = message.header.id;
        let crowded = if self.0.len() >= MAX_TRANSFERS { self.0.pop_first().map(|(_, oldest)| oldest) } else { None };
        for old in [crowded, self.0.insert(id, transfer)].into_iter().flatten() {
            give_up(old, out);
        }
    }

    /// A message came: true if it continues a transfer.
    pub fn feed(&mut self, message: &Message, arrived: &Arrived<'_>, out: &mut Output) -> bool {
        let Some(transfer) = self.0.get_mut(&message.header.id) else { return false };
        if transfer.feed(message, arrived)
            && let Some(transfer) = self.0.remove(&message.header.id)
        {
            give_out(transfer, out);
        }
        true
    }

    /// Messages were lost, perhaps the last ones.
    pub fn lost(&mut self, flag: Flags) {
        for transfer in self.0.values_mut() {
            transfer.lose(flag);
        }
    }

    /// Nothing more will come.
    pub fn finish(&mut self, out: &mut Output) {
        while let Some((_, transfer)) = self.0.pop_first() {
            give_up(transfer, out);
        }
    }
}

/// It ends here, finished or not.
fn give_up(mut transfer: Transfer, out: &mut Output) {
    if !transfer.lost {
        transfer.exchange.flags.insert(Flags::INCOMPLETE);
    }
    give_out(transfer, out);
}

fn give_out(mut transfer: Transfer, out: &mut Output) {
    if transfer.lost {
        // Records that were not seen are not counted.
        transfer.exchange.rows = None;
    }
    out.exchanges.push(transfer.exchange);
}
