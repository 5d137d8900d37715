//! Ids in a line that tie it to a request.

/// What a line names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ids {
    /// Trace (W3C Trace Context, and what loggers call so).
    pub trace_id: Option<String>,
    /// Request (`X-Request-Id`, and what loggers call so).
    pub request_id: Option<String>,
}

impl Ids {
    /// The first of each that a line names.
    pub fn of(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        let trace_id = named(text, &lower, &["trace"]).or_else(|| traceparent(&lower));
        Self { trace_id, request_id: named(text, &lower, &["request", "req", "correlation"]) }
    }
}

/// The value of `trace_id=`, `"traceId":`, `x-request-id: `, for one of these names before `id`.
fn named(text: &str, lower: &str, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        lower.match_indices(name).find_map(|(at, _)| {
            let rest = lower.get(at + name.len()..)?;
            let id = rest.strip_prefix(['_', '-', '.', ' ']).unwrap_or(rest).strip_prefix("id")?;
            let behind = id.trim_start_matches(['\\', '"', '\'']).trim_start();
            let value = behind.strip_prefix(['=', ':'])?.trim_start().trim_start_matches(['\\', '"', '\'']);
            // The same place in the text as it was written: both have the same length.
            let value = text.get(text.len() - value.len()..)?;
            let end = value.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(value.len());
            value.get(..end).filter(|id| (6..=64).contains(&id.len())).map(str::to_string)
        })
    })
}

/// The trace id of a `traceparent` (W3C Trace Context, 3.2): `00-TRACE-SPAN-FLAGS`.
fn traceparent(lower: &str) -> Option<String> {
    lower.match_indices("00-").find_map(|(at, _)| {
        let mut parts = lower.get(at..)?.get(3..55)?.split('-');
        let hex = |part: Option<&str>, length: usize| {
            part.map(str::to_string).filter(|id| id.len() == length && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        let trace = hex(parts.next(), 32)?;
        hex(parts.next(), 16)?;
        hex(parts.next(), 2)?;
        trace.bytes().any(|byte| byte != b'0').then_some(trace)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(text: &str) -> (Option<String>, Option<String>) {
        let Ids { trace_id, request_id } = Ids::of(text);
        (trace_id, request_id)
    }

    #[test]
    fn ids_are_found_under_their_names() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let some = |id: &str| Some(id.to_string());
        assert_eq!(ids(&format!("x traceparent: 00-{trace}-00f067aa0ba902b7-01 y")), (some(trace), None));
        assert_eq!(ids(r#"{"traceId":"AbC123dEf","requestId":"r-1_2345"}"#), (some("AbC123dEf"), some("r-1_2345")));
        assert_eq!(ids("trace_id=abcdef0123 X-Request-Id: 99887766"), (some("abcdef0123"), some("99887766")));
        assert_eq!(ids("request idle, trace identity: none, req_id="), (None, None));
        assert_eq!(ids(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))), (None, None));
    }

    proptest! {
        #[test]
        fn any_line_is_read(text in "(trace|request|[_-]|id|[=:\"]|00-|[0-9a-f]{1,32}|ä|İ){0,20}") {
            let found = Ids::of(&text);
            prop_assert!(found.request_id.is_none_or(|id| text.contains(&id)));
        }
    }
}
