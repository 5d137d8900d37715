//! What container runtimes write around a line.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

/// A piece of a line as it stands in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The runtime's stamp, ns since 1970.
    pub wall_ns: u64,
    /// Where the container wrote it.
    pub stream: Stream,
    /// The line goes on in the stream's next record.
    pub partial: bool,
    /// The container's bytes.
    pub text: Cow<'a, [u8]>,
}

/// Where a container writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// As runtimes write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"stdout" => Some(Self::Out),
            b"stderr" => Some(Self::Err),
            _ => None,
        }
    }
}

/// Docker's `json-file` driver (moby, `daemon/logger/jsonfilelog/jsonlog`).
#[derive(Deserialize)]
struct DockerRecord<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Reads a record without its line end: `TIME stdout|stderr TAGS TEXT`, of whose tags, apart by `:`, the first is `P` (partial)
/// or `F` (full) (Kubernetes, design-proposals-archive/node/kubelet-cri-logging.md), or one of Docker's. `None` for
/// anything else.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    if line.first() == Some(&b'{') {
        return docker(line);
    }
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let wall_ns = stamp(std::str::from_utf8(parts.next()?).ok()?)?;
    let stream = Stream::named(parts.next()?)?;
    let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    // A line that is empty may have no space before it.
    Some(Record { wall_ns, stream, partial, text: Cow::Borrowed(parts.next().unwrap_or_default()) })
}

fn docker(line: &[u8]) -> Option<Record<'_>> {
    let DockerRecord { log, stream, time } = serde_json::from_slice(line).ok()?;
    let partial = !log.ends_with('\n');
    let text = match log {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    Some(Record { wall_ns: stamp(&time)?, stream: Stream::named(stream.as_bytes())?, partial, text })
}

fn stamp(text: &str) -> Option<u64> {
    text.parse::<Timestamp>().ok().and_then(|time| u64::try_from(time.as_nanosecond()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(wall_ns: u64, stream: Stream, partial: bool, text: &str) -> Option<Record<'_>> {
        Some(Record { wall_ns, stream, partial, text: Cow::Borrowed(text.as_bytes()) })
    }

    #[test]
    fn records_of_every_runtime_are_read() {
        let second = 1_795_344_399_000_000_000;
        for (line, expected) in [
            ("2026-11-22T10:46:39.187429103Z stdout F a  b", record(second + 187_429_103, Stream::Out, false, "a  b")),
            ("2026-11-22T12:46:39+02:00 stderr P:x ", record(second, Stream::Err, true, "")),
            ("2026-11-22T10:46:39Z stdout F", record(second, Stream::Out, false, "")),
            ("2026-11-22T10:46:39Z stdout Q a", None),
            ("2026-11-22T10:46:39Z stdin F a", None),
            ("yesterday stdout F a", None),
            ("2026-11-22T10:46:39Z", None),
            ("", None),
            (
                r#"{"log":"a\u003cb\n","stream":"stderr","time":"2026-11-22T10:46:39.000000001Z"}"#,
                record(second + 1, Stream::Err, false, "a<b\n"),
            ),
            (r#"{"log":"a","stream":"stdout","time":"2026-11-22T10:46:39Z"}"#, record(second, Stream::Out, true, "a")),
            (r#"{"log":"a"}"#, None),
            (r#"{"log":"#, None),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
        let text = b"2026-11-22T10:46:39Z stdout F \xff\0";
        assert_eq!(parse(text).map(|record| record.text.into_owned()), Some(b"\xff\0".to_vec()));
    }
}
