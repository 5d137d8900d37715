//! Replay of a `.kfr` bundle into a report.

pub mod report;
