//! Golden metrics: rate, errors, duration, slow calls, by edge and by endpoint.

use std::hash::Hasher;

use kfr_protocols::{REGISTRY, Status};
use rustc_hash::{FxHashMap, FxHasher};

use super::histogram::Histogram;
use super::path::template_segment;
use super::request::{Exemplar, Request};

/// A call is slow above this. One threshold for all until checks bring their own: the default that the best peer uses
/// for HTTP (500 ms) would hide every slow cache or database call.
pub const SLOW_NS: u64 = 100_000_000;

/// Endpoints that one shard tells apart; further ones are counted together as `…`. A bound on memory, far above what a
/// report can show.
const MAX_ENDPOINTS: usize = 4096;
/// Longest target of an endpoint, bytes; statements are longer.
const MAX_TARGET_BYTES: usize = 256;
/// Endpoints of a shard whose course and error codes are kept: 64 shards of them, 120 steps each, are 24 MB.
const MAX_DETAILED: usize = 256;
/// Error codes that one endpoint tells apart, and their longest.
const MAX_CODES: usize = 4;
const MAX_CODE_BYTES: usize = 32;

/// Counts of a set of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Golden {
    /// Requests.
    pub requests: u64,
    /// Of these, answered with an error.
    pub errors: u64,
    /// Of these errors, the client's own: HTTP 4xx.
    pub client_errors: u64,
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
    /// The first that failed, by its server's fault if there is one.
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
        let by_client = error && is_client_error(request);
        if error {
            let first = Some(Exemplar::of(request));
            self.first_error = first_error((self.first_error, self.fails()), (first, !by_client));
        }
        let unknown = request.exchange.status == Status::Unknown;
        self.requests += 1;
        self.unknown += u64::from(unknown);
        self.errors += u64::from(error);
        self.client_errors += u64::from(by_client);
        self.unanswered += u64::from(request.exchange.status == Status::Unanswered);
        self.request_bytes += request.exchange.request_size();
        self.response_bytes += request.exchange.response_size().unwrap_or_default();
        if let Some(duration) = request.duration_ns {
            self.durations.record(duration);
            self.slow += u64::from(duration > SLOW_NS);
            self.slowest = Exemplar::slower(self.slowest, Some(Exemplar::of(request)));
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

    fn fails(&self) -> bool {
        self.errors > self.client_errors
    }

    /// Adds other counts.
    pub fn merge(&mut self, other: &Self) {
        self.first_error = first_error((self.first_error, self.fails()), (other.first_error, other.fails()));
        self.requests += other.requests;
        self.errors += other.errors;
        self.client_errors += other.client_errors;
        self.unanswered += other.unanswered;
        self.unknown += other.unknown;
        self.slow += other.slow;
        self.durations.merge(&other.durations);
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        self.slowest = Exemplar::slower(self.slowest, other.slowest);
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

/// Of two first errors, each with whether it is its server's fault, the one to show: the server's, then the earlier.
fn first_error(a: (Option<Exemplar>, bool), b: (Option<Exemplar>, bool)) -> Option<Exemplar> {
    match (a, b) {
        ((Some(a), true), (_, false)) => Some(a),
        ((_, false), (Some(b), true)) => Some(b),
        ((a, _), (b, _)) => Exemplar::earlier(a, b),
    }
}

/// Whether an error is one that the server blames on its client (RFC 9110, section 15.5). Other protocols don't tell.
fn is_client_error(request: &Request) -> bool {
    protocol_name(request).starts_with("http")
        && request.exchange.code.as_deref().is_some_and(|code| code.len() == 3 && code.starts_with('4'))
}

fn protocol_name(request: &Request) -> &'static str {
    REGISTRY.get(usize::from(request.protocol)).map_or("", |protocol| protocol.name)
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

/// What one endpoint comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Its golden metrics, without a series.
    pub golden: Golden,
    detail: Option<Box<Detail>>,
}

/// Counts of one time step of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// Requests that began in it.
    pub requests: u32,
    /// Of these, errors.
    pub errors: u32,
    /// Of these, the client's own.
    pub client_errors: u32,
    /// Requests whose outcome was not seen.
    pub unknown: u32,
}

/// Kept for the first endpoints of a shard only: a series with histograms for each of thousands would take gigabytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Detail {
    steps: Vec<Step>,
    codes: Vec<(Box<str>, u64)>,
}

impl EndpointCounts {
    fn record(&mut self, request: &Request, step: usize) {
        self.golden.record(request, None);
        let Some(detail) = &mut self.detail else { return };
        let error = request.exchange.status == Status::Error;
        if step >= detail.steps.len() {
            detail.steps.resize(step + 1, Step::default());
        }
        if let Some(step) = detail.steps.get_mut(step) {
            step.requests = step.requests.saturating_add(1);
            step.errors = step.errors.saturating_add(error.into());
            step.client_errors = step.client_errors.saturating_add((error && is_client_error(request)).into());
            step.unknown = step.unknown.saturating_add((request.exchange.status == Status::Unknown).into());
        }
        if let Some(code) = request.exchange.code.as_deref().filter(|code| error && code.len() <= MAX_CODE_BYTES) {
            detail.count(code, 1);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.golden.merge(&other.golden);
        let Some(more) = &other.detail else { return };
        let detail = self.detail.get_or_insert_default();
        if detail.steps.len() < more.steps.len() {
            detail.steps.resize(more.steps.len(), Step::default());
        }
        for (sum, part) in detail.steps.iter_mut().zip(&more.steps) {
            sum.requests = sum.requests.saturating_add(part.requests);
            sum.errors = sum.errors.saturating_add(part.errors);
            sum.client_errors = sum.client_errors.saturating_add(part.client_errors);
            sum.unknown = sum.unknown.saturating_add(part.unknown);
        }
        for (code, count) in &more.codes {
            detail.count(code, *count);
        }
    }

    /// Its course; `None` where some shard did not keep them.
    pub fn steps(&self) -> Option<&[Step]> {
        let steps = self.detail.as_ref().map(|detail| detail.steps.as_slice())?;
        let counted: u64 = steps.iter().map(|step| u64::from(step.requests)).sum();
        (counted == self.golden.requests).then_some(steps)
    }

    /// Codes of errors and how often they came, most often first; as far as they were kept.
    pub fn codes(&self) -> Vec<(&str, u64)> {
        let codes = self.detail.iter().flat_map(|detail| &detail.codes);
        let mut codes: Vec<(&str, u64)> = codes.map(|(code, count)| (&**code, *count)).collect();
        codes.sort_unstable_by_key(|(code, count)| (std::cmp::Reverse(*count), *code));
        codes
    }
}

impl Detail {
    fn count(&mut self, code: &str, count: u64) {
        if let Some((_, sum)) = self.codes.iter_mut().find(|(known, _)| **known == *code) {
            *sum += count;
        } else if self.codes.len() < MAX_CODES {
            self.codes.push((code.into(), count));
        }
    }
}

/// Client service, server service, protocol.
pub type EdgeKey = (u32, u32, u16);

/// Golden metrics of the requests of one shard, or of all after merging.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By (client service, server service, protocol), with a series.
    pub edges: FxHashMap<EdgeKey, Golden>,
    /// By (client service, pod that answered), without.
    pub pods: FxHashMap<(u32, u32), Golden>,
    endpoints: Vec<(EndpointKey, EndpointCounts)>,
    by_hash: FxHashMap<u64, Vec<u32>>,
    scratch: String,
}

impl Metrics {
    /// Counts one request between two services; `pod` is the one that answered, where that is known.
    pub fn record(&mut self, request: &Request, client: u32, server: u32, pod: Option<u32>, step: usize) {
        if let Some(pod) = pod {
            self.pods.entry((client, pod)).or_default().record(request, None);
        }
        self.edges.entry((client, server, request.protocol)).or_default().record(request, Some(step));
        let mut target = std::mem::take(&mut self.scratch);
        endpoint_target(request, &mut target);
        self.endpoint(server, request.protocol, &request.exchange.op, &target).record(request, step);
        self.scratch = target;
    }

    fn endpoint(&mut self, server: u32, protocol: u16, op: &str, target: &str) -> &mut EndpointCounts {
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

    fn insert(&mut self, server: u32, protocol: u16, op: &str, target: &str) -> &mut EndpointCounts {
        let index = self.endpoints.len();
        self.by_hash.entry(hash(server, protocol, op, target)).or_default().push(index as u32);
        let key = EndpointKey { server, protocol, op: op.into(), target: target.into() };
        let detail = (index < MAX_DETAILED).then(Box::default);
        self.endpoints.push((key, EndpointCounts { golden: Golden::default(), detail }));
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
        for (key, golden) in other.pods {
            self.pods.entry(key).or_default().merge(&golden);
        }
        for (key, counts) in other.endpoints {
            match self.find(key.server, key.protocol, &key.op, &key.target) {
                Some(index) => self.endpoints[index].1.merge(&counts),
                None => *self.insert(key.server, key.protocol, &key.op, &key.target) = counts,
            }
        }
    }

    /// Endpoints in a total order.
    pub fn into_endpoints(self) -> Vec<(EndpointKey, EndpointCounts)> {
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
    let name = protocol_name(request);
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

/// A path without its query, and with what varies by customer replaced: see [`template_segment`].
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
        out.push_str(template_segment(segment).unwrap_or(segment));
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
        assert_eq!(template("/users/alice@corp.com/orders/ORD-00017"), "/users/{email}/orders/{id}");
        assert_eq!(template("/"), "/");
        assert_eq!(template(&format!("/{}", "é".repeat(300))).chars().last(), Some('…'));
    }

    /// A word for a number, without digits.
    fn word(number: usize) -> String {
        number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect()
    }

    fn answered(target: &str, code: &str) -> Request {
        let status = if code < "400" { Status::Ok } else { Status::Error };
        let http = REGISTRY.iter().position(|protocol| protocol.name == "http").unwrap_or_default();
        Request {
            connection: 0,
            number: 0,
            observer_is_client: true,
            protocol: http as u16,
            exchange: kfr_protocols::Exchange {
                op: "GET".into(),
                target: Some(target.into()),
                code: Some(code.into()),
                status,
                ..Default::default()
            },
            start_ns: 0,
            ttfb_ns: None,
            duration_ns: Some(1),
            server_ns: None,
            evidence: Default::default(),
        }
    }

    #[test]
    fn what_the_client_did_wrong_is_told_from_what_the_server_did() {
        let mut metrics = Metrics::default();
        for code in ["200", "401", "404", "401", "500"] {
            metrics.record(&answered("/login", code), 0, 1, None, 0);
        }
        let (_, login) = &metrics.into_endpoints()[0];
        assert_eq!((login.golden.errors, login.golden.client_errors), (4, 3));
        assert_eq!(login.codes(), [("401", 2), ("404", 1), ("500", 1)]);
    }

    #[test]
    fn each_endpoint_has_a_course_of_its_own_across_shards() {
        let (mut one, mut two) = (Metrics::default(), Metrics::default());
        one.record(&answered("/old", "500"), 0, 1, None, 0);
        one.record(&answered("/new", "200"), 0, 1, None, 0);
        two.record(&answered("/new", "500"), 0, 1, None, 3);
        one.merge(two);
        let endpoints = one.into_endpoints();
        let course = |counts: &EndpointCounts| -> Vec<(u32, u32)> {
            counts.steps().unwrap_or_default().iter().map(|step| (step.requests, step.errors)).collect()
        };
        assert_eq!(course(&endpoints[0].1), [(1, 0), (0, 0), (0, 0), (1, 1)]);
        assert_eq!(course(&endpoints[1].1), [(1, 1)]);
    }

    #[test]
    fn a_course_that_a_shard_did_not_keep_is_unknown() {
        let (mut one, mut two) = (Metrics::default(), Metrics::default());
        for number in 0..MAX_DETAILED {
            one.record(&answered(&format!("/{}", word(number)), "200"), 0, 1, None, 0);
        }
        one.record(&answered("/late", "200"), 0, 1, None, 0);
        two.record(&answered("/late", "500"), 0, 1, None, 1);
        one.merge(two);
        let endpoints = one.into_endpoints();
        let course = |target: &str| {
            endpoints.iter().find(|(key, _)| *key.target == *target).map(|(_, counts)| counts.steps().is_some())
        };
        assert_eq!((course("/a"), course("/late")), (Some(true), Some(false)));
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
            request.exchange.target = Some(format!("/{}", word(number)).into());
            metrics.record(&request, 0, 1, None, 0);
        }
        let endpoints = metrics.into_endpoints();
        assert_eq!(endpoints.len(), MAX_ENDPOINTS + 1);
        assert_eq!(
            endpoints.iter().map(|(_, counts)| counts.golden.requests).sum::<u64>(),
            (MAX_ENDPOINTS + 100) as u64
        );
    }
}
