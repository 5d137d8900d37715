//! The block of bytes moved on sockets ([`crate::BlockKind::DATA`]): the hot one, so its columns are predicted.
//!
//! Rows of one socket, direction, process and offset kind form a *flow*. The block has a table of its flows, in the
//! order in which they first appear, and each row names its flow by number. Differences are then taken within the flow
//! where that predicts better: a byte's offset follows from the row before, a thread seldom changes. Payload lies in
//! one arena, ordered by flow, so that similar messages are near each other for the compressor.

use crate::events::OFFSET_DATAGRAM;

mod decode;
mod encode;

pub use decode::{DataBlock, DataRow};
pub use encode::DataColumns;

/// What the rows of one flow share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Socket, as in [`crate::events::DataEvent`].
    pub socket: u64,
    /// Process, as in [`crate::events::EventHeader`].
    pub process: u32,
    /// `DIRECTION_SENT` or `DIRECTION_RECEIVED`.
    pub direction: u8,
    /// One of the `OFFSET_` constants.
    pub offset_kind: u8,
}

/// Where an unconnected datagram came from or went to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Address family; 0 where the address could not be read.
    pub family: u16,
    /// IPv4: first 4 bytes.
    pub address: [u8; 16],
    /// Port, host byte order.
    pub port: u16,
}

/// How far a row moves its flow's offset.
pub(crate) fn offset_step(offset_kind: u8, length: u32) -> u64 {
    if offset_kind == OFFSET_DATAGRAM { 1 } else { u64::from(length) }
}
