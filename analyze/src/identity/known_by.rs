//! How something is known, said wherever it is shown.

/// How the two ends of a connection were matched, or who is at one of them.
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
    /// Files of its node name the pod; its workload is guessed from the name.
    NodeNames,
    /// The node's own table of translated connections said so.
    Conntrack,
    /// It was the only one behind the Service's address, or all that were are of one workload.
    EndpointSlice,
    /// A DNS answer had given the address to a name before.
    Dns,
}

impl KnownBy {
    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequence => "sequence",
            Self::Address => "address",
            Self::UnixPeer => "unix_peer",
            Self::PodAddress => "pod_address",
            Self::NodeNames => "node_names",
            Self::Conntrack => "conntrack",
            Self::EndpointSlice => "endpoint_slice",
            Self::Dns => "dns",
        }
    }
}
