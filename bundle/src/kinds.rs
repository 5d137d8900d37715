//! What a block holds.

/// Number that says what a block holds. A reader skips and counts those it doesn't know, so this is no enum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct BlockKind(pub u16);

impl BlockKind {
    /// How and on what the bundle was recorded: named maps.
    pub const MANIFEST: Self = Self(1);
    /// Bytes moved on sockets: columns ([`crate::DataColumns`]).
    pub const DATA: Self = Self(2);
    /// Sockets: columns of [`crate::events::SocketEvent`].
    pub const SOCKETS: Self = Self(3);
    /// TCP state changes: columns of [`crate::events::StateEvent`].
    pub const STATES: Self = Self(4);
    /// Retransmissions and resets: columns of [`crate::events::TcpEvent`].
    pub const TCP: Self = Self(5);
    /// exec, fork, exit: columns of [`crate::events::ProcessEvent`].
    pub const PROCESS_EVENTS: Self = Self(6);
    /// Processes as `/proc` shows them, and what user space adds to them: named maps.
    pub const PROCESSES: Self = Self(7);
    /// Host samples: named maps.
    pub const HOST: Self = Self(8);
    /// The same moment on several clocks: columns of [`crate::rows::Anchor`].
    pub const ANCHORS: Self = Self(9);
    /// What was lost, cut or unseen, as cumulative counters: named maps.
    pub const LEDGER: Self = Self(10);
    /// Kubernetes objects and their changes: named maps ([`crate::kube::KubeFact`]).
    pub const KUBE: Self = Self(11);
    /// Symbols and unwind tables (reserved).
    pub const SYMBOLS: Self = Self(12);
    /// The bundles of a merged file: named maps ([`crate::merge::SourceFact`]).
    pub const SOURCES: Self = Self(13);
    /// Containers and their pods, as files of the node name them: named maps ([`crate::facts::ContainerFact`]).
    pub const CONTAINERS: Self = Self(14);
    /// Lines of container logs: named maps ([`crate::logs::LogFact`]).
    pub const LOGS: Self = Self(15);
    /// What became of each container's lines: named maps ([`crate::logs::LogCounts`]).
    pub const LOG_COUNTS: Self = Self(16);
    /// Translations of addresses, from the node's table of connections: named maps ([`crate::conntrack::TranslationFact`]).
    pub const CONNTRACK: Self = Self(17);
    /// The footer's index: columns of [`crate::index::IndexRow`]. Only the last block has this kind.
    pub const INDEX: Self = Self(0xFFFF);

    /// The kind's name, or `None` for a kind that this version doesn't know.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::MANIFEST => "manifest",
            Self::DATA => "data",
            Self::SOCKETS => "sockets",
            Self::STATES => "states",
            Self::TCP => "tcp",
            Self::PROCESS_EVENTS => "process_events",
            Self::PROCESSES => "processes",
            Self::HOST => "host",
            Self::ANCHORS => "anchors",
            Self::LEDGER => "ledger",
            Self::KUBE => "kube",
            Self::SYMBOLS => "symbols",
            Self::SOURCES => "sources",
            Self::CONTAINERS => "containers",
            Self::LOGS => "logs",
            Self::LOG_COUNTS => "log_counts",
            Self::CONNTRACK => "conntrack",
            Self::INDEX => "index",
            _ => return None,
        })
    }
}

impl std::fmt::Display for BlockKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "kind {}", self.0),
        }
    }
}
