//! Integers at a place in bytes that may be too short for them.

/// Byte order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Least significant first.
    Little,
    /// Most significant first, as on the network.
    Big,
}

/// 16 bits at `at`.
pub fn u16_at(bytes: &[u8], at: usize, order: Order) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(match order {
        Order::Little => u16::from_le_bytes(field),
        Order::Big => u16::from_be_bytes(field),
    })
}

/// 32 bits at `at`.
pub fn u32_at(bytes: &[u8], at: usize, order: Order) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(match order {
        Order::Little => u32::from_le_bytes(field),
        Order::Big => u32::from_be_bytes(field),
    })
}

/// 16 bits at `at`, in network order.
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    u16_at(bytes, at, Order::Big)
}

/// 32 bits at `at`, in network order.
pub fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    u32_at(bytes, at, Order::Big)
}
