//! Fields of Kubernetes objects. A field that is missing, or isn't what it should be, is absent: one strange field doesn't
//! take the others with it.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

/// The value at a path of field names.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(*name))
}

/// A text.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.as_str().filter(|text| !text.is_empty())
}

/// A number that counts something.
pub fn number(value: &Value, path: &[&str]) -> Option<u64> {
    at(value, path)?.as_u64()
}

/// Something that holds or doesn't.
pub fn flag(value: &Value, path: &[&str]) -> Option<bool> {
    at(value, path)?.as_bool()
}

/// A condition of an object's status, by its type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, &["status", "conditions"]).iter().find(|one| text(one, &["type"]) == Some(kind))
}

/// The controller of an object: the reference to it.
pub fn controller(object: &Value) -> Option<&Value> {
    list(object, &["metadata", "ownerReferences"]).iter().find(|owner| is(owner, &["controller"]))
}

/// The elements of an array.
pub fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A port's number.
pub fn port(value: &Value, field: &str) -> Option<u16> {
    value.get(field)?.as_u64().and_then(|port| u16::try_from(port).ok())
}

/// Ports by name, as Services and endpoint slices list them; the name of an only one may be missing.
pub fn ports(value: &Value, path: &[&str]) -> Vec<(String, u16)> {
    let named = |one| Some((text(one, &["name"]).unwrap_or_default().to_string(), port(one, "port")?));
    list(value, path).iter().filter_map(named).collect()
}

/// A condition that holds; false where nothing says so.
pub fn is(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or(false)
}

/// A moment, ns since 1970 (RFC 3339).
pub fn time_ns(value: &Value, path: &[&str]) -> Option<u64> {
    let time: Timestamp = text(value, path)?.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

/// An address, one of IPv4 mapped into IPv6 as IPv4.
pub fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse::<IpAddr>().ok()?.to_canonical())
}

/// The addresses in a text field of this name, of each element of an array.
pub fn ips<'a>(values: &'a [Value], field: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
    values.iter().filter_map(move |value| ip(value.get(field)?.as_str()?))
}

/// The addresses of an array of texts.
pub fn plain_ips<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = IpAddr> + 'a {
    list(value, path).iter().filter_map(|value| ip(value.as_str()?))
}

/// A range of addresses, `10.244.0.0/24`.
pub fn ip_range(text: &str) -> Option<(IpAddr, u8)> {
    let (first, length) = text.split_once('/')?;
    Some((ip(first)?, length.parse().ok()?))
}

/// Whether two addresses begin with the same `length` bits.
pub fn same_range(a: IpAddr, b: IpAddr, length: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let ((a_bits, a_width), (b_bits, b_width)) = (bits(a), bits(b));
    let shift = 128 - u32::from(length.min(a_width));
    a_width == b_width && a_bits.checked_shr(shift) == b_bits.checked_shr(shift)
}
