//! When bytes moved: the calls of one end and direction, found again by stream offset.

use std::collections::VecDeque;

use kfr_bundle::Address;

/// Calls remembered for a direction; more only if one message takes more calls than this.
const MAX_CALLS: usize = 65536;

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTime {
    /// Offset of its first byte.
    pub offset: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// When it returned, event time.
    pub time_ns: u64,
    /// When its bytes left (sent) or had arrived (received), where TCP tells; else `time_ns`.
    pub moved_ns: u64,
    /// The event.
    pub address: Address,
    /// Whom an unconnected socket sent it to.
    pub talk: Option<Talk>,
}

/// Whom a datagram of an unconnected socket went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Talk {
    /// Number of the connection that stands for this socket and that end.
    pub connection: u32,
    /// That end was recorded: it has these datagrams too.
    pub elsewhere: bool,
}

/// The calls of one end and direction whose bytes may still be asked for.
#[derive(Debug, Default)]
pub struct CallTimes {
    calls: VecDeque<CallTime>,
}

impl CallTimes {
    /// Adds the next call.
    pub fn push(&mut self, call: CallTime) {
        if self.calls.len() >= MAX_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// The call that moved the byte at `offset`.
    pub fn at(&self, offset: u64) -> Option<&CallTime> {
        // Mostly the first one.
        let first = self.calls.front()?;
        let found = if offset < first.end {
            first
        } else {
            self.calls.get(self.calls.partition_point(|call| call.end <= offset))?
        };
        (found.offset <= offset).then_some(found)
    }

    /// Forgets calls whose bytes all lie before `offset`.
    pub fn forget_before(&mut self, offset: u64) {
        while self.calls.front().is_some_and(|call| call.end <= offset) {
            self.calls.pop_front();
        }
    }

    /// Forgets all but the latest `count` calls.
    pub fn keep_last(&mut self, count: usize) {
        self.calls.drain(..self.calls.len().saturating_sub(count));
    }

    /// Gives memory back.
    pub fn rest(&mut self) {
        self.calls.shrink_to_fit();
    }

    /// When the latest call returned; 0 if there was none.
    pub fn last_ns(&self) -> u64 {
        self.calls.back().map_or(0, |call| call.time_ns)
    }
}
