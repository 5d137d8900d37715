//! Golden metrics: rate, errors, duration, slow calls, by edge and by endpoint.

use std::hash::Hasher;

use kfr_protocols::{REGISTRY, Status};
use rustc_hash::{FxHashMap, FxHasher};

use super::histogram::Histogram;
use super::request::{Exemplar, Request};

/// A call is slow above this. One threshold for all until checks bring their own: the default that the best peer uses
/// for HTTP (500 ms) would hide every slow cache or database call.
pub const SLOW_NS: u64 = 100_000_000;

/// Endpoints that one shard tells apart; further ones are counted together as `…`. A bound on memory, far above what a
/// report can show.
const MAX_ENDPOINTS: usize = 4096;
/// Longest target of an endpoint, bytes; statements are longer.
const MAX_TARGET_BYTES: usize = 256;

/// Counts of a set of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Golden {
    /// Requests.
    pub requests: u64,
    /// Of these, answered with an error.
    pub errors: u64,
    /// Of these, not answered.
    pub unanswered: u64,
    /// Of these, with an outcome that was not seen: neither errors nor successes.
    pub unknown: u64,
    /// Of these, slower than [`SLOW_NS`].
    pub slow: u64,
    /// Durations of those answered, ns.
    pub durations: Histogram,
    /// Bytes of requests.
    pub request_bytes: u64,
    /// Bytes of answers.
    pub response_bytes: u64,
    /// The slowest.
    pub slowest: Option<Exemplar>,
    /// The first that failed.
    pub first_error: Option<Exemplar>,
    /// By time step; empty where not kept.
    pub series: Vec<Point>,
}

/// Counts of one time step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Point {
    /// Requests that began in it.
    pub requests: u64,
    /// Of these, errors.
    pub errors: u64,
    /// Of these, with an outcome that was not seen.
    pub unknown: u64,
    /// Durations of those answered, ns.
    pub durations: Histogram,
}

impl Golden {
    /// Counts one request; `step` is its time step, where a series is kept.
    pub fn record(&mut self, request: &Request, step: Option<usize>) {
        let error = request.exchange.status == Status::Error;
        let unknown = request.exchange.status == Status::Unknown;
        self.requests += 1;
        self.unknown += u64::from(unknown);
        self.errors += u64::from(error);
        self.unanswered += u64::from(request.exchange.status == Status::Unanswered);
        self.request_bytes += length(&request.exchange.request);
        self.response_bytes += request.exchange.response.as_ref().map_or(0, length);
        if let Some(duration) = request.duration_ns {
            self.durations.record(duration);
            self.slow += u64::from(duration > SLOW_NS);
            self.slowest = Exemplar::slower(self.slowest, Some(Exemplar::of(request)));
        }
        if error {
            self.first_error = Exemplar::earlier(self.first_error, Some(Exemplar::of(request)));
        }
        if let Some(step) = step {
            if step >= self.series.len() {
                self.series.resize_with(step + 1, Point::default);
            }
            if let Some(point) = self.series.get_mut(step) {
                point.requests += 1;
                point.errors += u64::from(error);
                point.unknown += u64::from(unknown);
                if let Some(duration) = request.duration_ns {
                    point.durations.record(duration);
                }
            }
        }
    }

    /// Adds other counts.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.unanswered += other.unanswered;
        self.unknown += other.unknown;
        self.slow += other.slow;
        self.durations.merge(&other.durations);
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        self.slowest = Exemplar::slower(self.slowest, other.slowest);
        self.first_error = Exemplar::earlier(self.first_error, other.first_error);
        if self.series.len() < other.series.len() {
            self.series.resize_with(other.series.len(), Point::default);
        }
        for (point, more) in self.series.iter_mut().zip(&other.series) {
            point.requests += more.requests;
            point.errors += more.errors;
            point.unknown += more.unknown;
            point.durations.merge(&more.durations);
        }
    }
}

fn length(range: &std::ops::Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// What callers of a service tell apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// Number of the service that answers.
    pub server: u32,
    /// Index in the protocol registry.
    pub protocol: u16,
    /// The protocol's operation.
    pub op: Box<str>,
    /// Path with numbers and ids replaced, or normalised statement; empty where keys are too many to tell apart.
    pub target: Box<str>,
}

/// Client service, server service, protocol.
pub type EdgeKey = (u32, u32, u16);

/// Golden metrics of the requests of one shard, or of all after merging.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By (client service, server service, protocol), with a series.
    pub edges: FxHashMap<EdgeKey, Golden>,
    endpoints: Vec<(EndpointKey, Golden)>,
    by_hash: FxHashMap<u64, Vec<u32>>,
    scratch: String,
}

impl Metrics {
    /// Counts one request between two services.
    pub fn record(&mut self, request: &Request, client: u32, server: u32, step: usize) {
        self.edges.entry((client, server, request.protocol)).or_default().record(request, Some(step));
        let mut target = std::mem::take(&mut self.scratch);
        endpoint_target(request, &mut target);
        let golden = self.endpoint(server, request.protocol, &request.exchange.op, &target);
        golden.record(request, None);
        self.scratch = target;
    }

    fn endpoint(&mut self, server: u32, protocol: u16, op: &str, target: &str) -> &mut Golden {
        let mut found = self.find(server, protocol, op, target);
        if found.is_none() && self.endpoints.len() >= MAX_ENDPOINTS {
            found = self.find(server, protocol, op, "…");
            if found.is_none() {
                return self.insert(server, protocol, op, "…");
            }
        }
        match found {
            // The index comes from the list itself.
            Some(index) => &mut self.endpoints[index].1,
            None => self.insert(server, protocol, op, target),
        }
    }

    fn find(&self, server: u32, protocol: u16, op: &str, target: &str) -> Option<usize> {
        let candidates = self.by_hash.get(&hash(server, protocol, op, target))?;
        candidates.iter().map(|index| *index as usize).find(|index| {
            self.endpoints.get(*index).is_some_and(|(key, _)| {
                key.server == server && key.protocol == protocol && *key.op == *op && *key.target == *target
            })
        })
    }

    fn insert(&mut self, server: u32, protocol: u16, op: &str, target: &str) -> &mut Golden {
        let index = self.endpoints.len();
        self.by_hash.entry(hash(server, protocol, op, target)).or_default().push(index as u32);
        let key = EndpointKey { server, protocol, op: op.into(), target: target.into() };
        self.endpoints.push((key, Golden::default()));
        &mut self.endpoints[index].1
    }

    /// Adds metrics by edge.
    pub fn merge_edges(&mut self, edges: FxHashMap<EdgeKey, Golden>) {
        for (key, golden) in edges {
            self.edges.entry(key).or_default().merge(&golden);
        }
    }

    /// Adds the metrics of another shard.
    pub fn merge(&mut self, other: Self) {
        self.merge_edges(other.edges);
        for (key, golden) in other.endpoints {
            match self.find(key.server, key.protocol, &key.op, &key.target) {
                Some(index) => self.endpoints[index].1.merge(&golden),
                None => *self.insert(key.server, key.protocol, &key.op, &key.target) = golden,
            }
        }
    }

    /// Endpoints in a total order.
    pub fn into_endpoints(self) -> Vec<(EndpointKey, Golden)> {
        let mut endpoints = self.endpoints;
        endpoints.sort_by(|(a, _), (b, _)| a.cmp(b));
        endpoints
    }
}

fn hash(server: u32, protocol: u16, op: &str, target: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u32(server);
    hasher.write_u16(protocol);
    hasher.write(op.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(target.as_bytes());
    hasher.finish()
}

fn endpoint_target(request: &Request, out: &mut String) {
    out.clear();
    if let Some(statement) = &request.exchange.statement {
        push_cut(out, statement);
        return;
    }
    let name = REGISTRY.get(usize::from(request.protocol)).map_or("", |protocol| protocol.name);
    let Some(target) = request.exchange.target.as_deref() else { return };
    if name.starts_with("http") || name == "grpc" {
        template_path(target, out);
    }
}

fn push_cut(out: &mut String, text: &str) {
    let mut end = text.len().min(MAX_TARGET_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.push_str(text.get(..end).unwrap_or_default());
    if end < text.len() {
        out.push('…');
    }
}

/// A path without its query, numbers as `{n}` and long hexadecimal or mixed ids as `{id}`.
fn template_path(path: &str, out: &mut String) {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut cut = path.len().min(MAX_TARGET_BYTES);
    while !path.is_char_boundary(cut) {
        cut -= 1;
    }
    for (index, segment) in path.get(..cut).unwrap_or_default().split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        let digits = segment.bytes().filter(u8::is_ascii_digit).count();
        if !segment.is_empty() && digits == segment.len() {
            out.push_str("{n}");
        } else if segment.len() >= 16
            && digits >= 4
            && segment.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-' || b == b'_')
        {
            out.push_str("{id}");
        } else {
            out.push_str(segment);
        }
    }
    if cut < path.len() {
        out.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(path: &str) -> String {
        let mut out = String::new();
        template_path(path, &mut out);
        out
    }

    #[test]
    fn paths_lose_what_varies() {
        assert_eq!(template("/product/17?ref=a"), "/product/{n}");
        assert_eq!(template("/u/0b9c0a4e-6f2e-4c1d-9c59-1f2e3d4c5b6a/cart"), "/u/{id}/cart");
        assert_eq!(template("/v2/orders"), "/v2/orders");
        assert_eq!(template("/"), "/");
        assert_eq!(template(&format!("/{}", "é".repeat(300))).chars().last(), Some('…'));
    }

    #[test]
    fn an_outcome_that_was_not_seen_is_neither_error_nor_success() {
        use kfr_protocols::Status::{Error, Ok, Unanswered, Unknown};
        let mut request = request();
        let (mut a, mut b) = (Golden::default(), Golden::default());
        for (status, first) in [(Ok, true), (Unknown, true), (Error, false), (Unknown, false), (Unanswered, false)] {
            request.exchange.status = status;
            if first { &mut a } else { &mut b }.record(&request, Some(1));
        }
        a.merge(&b);
        assert_eq!((a.requests, a.errors, a.unanswered, a.unknown), (5, 1, 1, 2));
        assert_eq!((a.series[1].requests, a.series[1].errors, a.series[1].unknown), (5, 1, 2));
    }

    fn request() -> Request {
        Request {
            connection: 0,
            number: 0,
            observer_is_client: true,
            protocol: 0,
            exchange: kfr_protocols::Exchange { op: "GET".into(), ..Default::default() },
            start_ns: 0,
            ttfb_ns: None,
            duration_ns: Some(1),
            server_ns: None,
            evidence: Default::default(),
        }
    }

    #[test]
    fn endpoints_beyond_the_bound_are_counted_together() {
        let mut metrics = Metrics::default();
        let mut request = request();
        for number in 0..MAX_ENDPOINTS + 100 {
            request.exchange.target = Some(format!("/page{number}x").into());
            metrics.record(&request, 0, 1, 0);
        }
        let endpoints = metrics.into_endpoints();
        assert_eq!(endpoints.len(), MAX_ENDPOINTS + 1);
        assert_eq!(endpoints.iter().map(|(_, golden)| golden.requests).sum::<u64>(), (MAX_ENDPOINTS + 100) as u64);
    }
}
