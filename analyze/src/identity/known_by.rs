//! How something is known, said wherever it is shown.

/// How the two ends of a connection were matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KnownBy {
    /// Both initial sequence numbers agree: the same bytes, whatever addresses were translated in between.
    Sequence,
    /// The addresses mirror each other.
    Address,
    /// The kernel names the other unix socket.
    UnixPeer,
    /// A pod had the address at that time.
    PodAddress,
    /// It was the only one behind the Service's address, or all that were are of one workload.
    EndpointSlice,
}

impl KnownBy {
    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequence => "sequence",
            Self::Address => "address",
            Self::UnixPeer => "unix_peer",
            Self::PodAddress => "pod_address",
            Self::EndpointSlice => "endpoint_slice",
        }
    }
}
