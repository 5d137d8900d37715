//! One cause, one finding: what fails or is slow along a chain of calls is told once, at its deepest place.
//!
//! Without traces a call is known by its time: a caller's first failure (or slowest request) has its dependency's inside
//! it, an edge connects the two, and the dependency failed about as often. The joined finding says what it joined.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::{Found, subject};
use crate::report::document::{Document, Endpoint, Exemplar, Finding, Statement, Subject};
use crate::report::text::{duration, one_line};

/// Share of a caller's failures that its dependency's have to cover, in tenths.
const COVERED_TENTHS: u64 = 8;
/// Longest chain of calls that is followed, also where services call each other in a circle.
const MAX_DEPTH: usize = 8;
const MAX_REASONS: usize = 8;
const MAX_EVIDENCE: usize = 8;

/// In which way an endpoint is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It fails.
    Errors,
    /// It is slow.
    Latency,
}

/// An endpoint that is bad in some way: numbers of the service and of the endpoint in it.
pub type Place = (Trouble, usize, usize);

/// The endpoint that a statement is seen as.
pub fn place_of(document: &Document, trouble: Trouble, statement: &Statement) -> Option<Place> {
    let server = statement.server.as_deref()?;
    let service = document.services.iter().position(|service| service.id == server)?;
    let endpoints = document.services.get(service)?.endpoints.iter().enumerate();
    let matching = endpoints.filter(|(_, endpoint)| {
        let target = endpoint.target.as_deref().unwrap_or_default();
        let cut = target.strip_suffix('…').filter(|start| statement.text.starts_with(start));
        endpoint.protocol == statement.system && (target == statement.text || cut.is_some())
    });
    let rank = |endpoint: &Endpoint| match trouble {
        Trouble::Errors => endpoint.golden.errors,
        Trouble::Latency => endpoint.golden.max_ns.unwrap_or_default(),
    };
    let (number, _) = matching.max_by_key(|(number, endpoint)| (rank(endpoint), std::cmp::Reverse(*number)))?;
    Some((trouble, service, number))
}

/// An endpoint's name.
pub fn endpoint_name(document: &Document, service: usize, endpoint: usize) -> String {
    let Some(service) = document.services.get(service) else { return String::new() };
    let Some(endpoint) = service.endpoints.get(endpoint) else { return service.name.clone() };
    let target = endpoint.target.as_deref().unwrap_or_default();
    one_line(format!("{} {target} on {}", endpoint.op, service.name).replace("  ", " ").as_str(), 120)
}

/// Joins findings that have one cause.
pub fn join(document: &Document, found: Vec<Found>) -> Vec<Found> {
    let graph = Graph::new(document, &found);
    let mut groups: BTreeMap<Place, Vec<Found>> = BTreeMap::new();
    let mut joined = Vec::new();
    for one in found {
        match one.place.and_then(|place| graph.group.get(&place)) {
            Some(group) => groups.entry(*group).or_default().push(one),
            None => joined.push(one),
        }
    }
    joined.extend(groups.into_iter().filter_map(|(group, members)| graph.merge(group, members)));
    joined
}

/// Bad endpoints, and which of them are bad because of which.
struct Graph<'a> {
    document: &'a Document,
    /// By caller.
    links: BTreeMap<Place, Vec<Place>>,
    /// The first place of the group that each place belongs to.
    group: BTreeMap<Place, Place>,
    /// Calls between each caller and its deepest cause.
    depth: BTreeMap<Place, usize>,
}

impl<'a> Graph<'a> {
    fn new(document: &'a Document, found: &[Found]) -> Self {
        // Everything that fails may link two findings, also what is too rare for one of its own; slow is what was found.
        let mut places: BTreeSet<Place> = found.iter().filter_map(|one| one.place).collect();
        for (number, service) in document.services.iter().enumerate() {
            let failing = service.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.golden.errors > 0);
            places.extend(failing.map(|(endpoint, _)| (Trouble::Errors, number, endpoint)));
        }
        let number: BTreeMap<&str, usize> =
            document.services.iter().enumerate().map(|(number, service)| (service.id.as_str(), number)).collect();
        let calls: BTreeSet<(usize, usize)> = document
            .edges
            .iter()
            .filter_map(|edge| Some((*number.get(edge.client.as_str())?, *number.get(edge.server.as_str())?)))
            .filter(|(client, server)| client != server)
            .collect();
        let mut graph = Self { document, links: BTreeMap::new(), group: BTreeMap::new(), depth: BTreeMap::new() };
        for (client, server) in calls {
            for trouble in [Trouble::Errors, Trouble::Latency] {
                let of = |service: usize| places.range((trouble, service, 0)..(trouble, service + 1, 0)).copied();
                for caller in of(client) {
                    let causes = of(server).filter(|called| graph.is_because_of(caller, *called)).collect::<Vec<_>>();
                    graph.links.entry(caller).or_default().extend(causes);
                }
            }
        }
        // Round by round, each as wide as all links: recursion would walk every path of a dense graph.
        for _ in 0..MAX_DEPTH {
            let deeper = graph.links.iter().filter(|(_, causes)| !causes.is_empty());
            let deeper = deeper.map(|(caller, causes)| {
                (*caller, 1 + causes.iter().map(|cause| graph.depth(*cause)).max().unwrap_or_default())
            });
            graph.depth = deeper.collect();
        }
        graph.group = graph.groups(&places);
        graph
    }

    fn depth(&self, place: Place) -> usize {
        self.depth.get(&place).copied().unwrap_or_default()
    }

    /// Places that links connect, in either direction.
    fn groups(&self, places: &BTreeSet<Place>) -> BTreeMap<Place, Place> {
        let mut neighbours: BTreeMap<Place, Vec<Place>> = BTreeMap::new();
        for (caller, causes) in &self.links {
            for cause in causes {
                neighbours.entry(*caller).or_default().push(*cause);
                neighbours.entry(*cause).or_default().push(*caller);
            }
        }
        let mut group = BTreeMap::new();
        for first in places {
            let mut waiting = vec![*first];
            while let Some(place) = waiting.pop() {
                if let Entry::Vacant(slot) = group.entry(place) {
                    slot.insert(*first);
                    waiting.extend(neighbours.get(&place).into_iter().flatten().copied());
                }
            }
        }
        group
    }

    fn endpoint(&self, (_, service, endpoint): Place) -> Option<&'a Endpoint> {
        self.document.services.get(service)?.endpoints.get(endpoint)
    }

    fn is_because_of(&self, caller: Place, called: Place) -> bool {
        let (Some(a), Some(b)) = (self.endpoint(caller), self.endpoint(called)) else { return false };
        let (outer, inner, enough) = match caller.0 {
            Trouble::Errors => {
                // What a dependency's client did wrong explains no failure of that client's own.
                let same_fault = b.golden.server_errors() > 0 || a.golden.server_errors() == 0;
                let covered = b.golden.errors * 10 >= a.golden.errors * COVERED_TENTHS;
                (&a.first_error, &b.first_error, same_fault && covered)
            }
            Trouble::Latency => {
                let took = |one: &Option<Exemplar>| one.as_ref().and_then(|one| one.duration_ns).unwrap_or_default();
                (&a.slowest, &b.slowest, took(&b.slowest).saturating_mul(2) >= took(&a.slowest))
            }
        };
        let (Some(outer), Some(inner)) = (outer, inner) else { return false };
        let end_ns = outer.start_ns.saturating_add(outer.duration_ns.unwrap_or_default());
        enough && (outer.start_ns..=end_ns).contains(&inner.start_ns)
    }

    fn merge(&self, group: Place, members: Vec<Found>) -> Option<Found> {
        let ratio = |one: &Found| {
            let golden = one.place.and_then(|place| self.endpoint(place)).map(|endpoint| &endpoint.golden);
            golden.and_then(|golden| golden.error_ratio).unwrap_or_default()
        };
        let depth = |one: &Found| one.place.map_or(0, |place| self.depth(place));
        let mut members = members;
        members.sort_by(|a, b| {
            let worst =
                b.finding.severity.cmp(&a.finding.severity).then(b.finding.confidence.cmp(&a.finding.confidence));
            // A statement says more than the endpoint that it is counted as.
            let says_more = |one: &Found| one.finding.subject.kind == "statement";
            depth(a)
                .cmp(&depth(b))
                .then(ratio(b).total_cmp(&ratio(a)))
                .then(says_more(b).cmp(&says_more(a)))
                .then(worst)
                .then(a.finding.title.cmp(&b.finding.title))
        });
        let mut members = members.into_iter();
        let mut cause = members.next()?;
        let others: Vec<Found> = members.collect();
        let place = cause.place?;
        for one in &others {
            cause.finding.severity = cause.finding.severity.max(one.finding.severity);
            cause.finding.confidence = cause.finding.confidence.max(one.finding.confidence);
            cause.impact = cause.impact.max(one.impact);
            if one.place == Some(place) && one.finding.check != cause.finding.check && place.0 == Trouble::Latency {
                cause.finding.reasons.push(one.finding.title.clone());
            }
        }
        self.name_victims(&mut cause.finding, place, group);
        for evidence in others.iter().flat_map(|one| &one.finding.evidence) {
            if cause.finding.evidence.len() < MAX_EVIDENCE && !cause.finding.evidence.contains(evidence) {
                cause.finding.evidence.push(evidence.clone());
            }
        }
        Some(cause)
    }

    /// Puts those that suffer first among the reasons, and those that fail along with the cause after them.
    fn name_victims(&self, finding: &mut Finding, cause: Place, group: Place) {
        let places = self.group.iter().filter(|(place, of)| **of == group && **place != cause).map(|(place, _)| *place);
        let mut places: Vec<(usize, Place)> = places.map(|place| (self.depth(place), place)).collect();
        places.sort_unstable_by_key(|(depth, place)| (*depth == 0, *depth, *place));
        let mut reasons = Vec::new();
        let mut victims: Vec<Subject> = Vec::new();
        for (depth, place) in places {
            let (Some(endpoint), Some(service)) = (self.endpoint(place), self.document.services.get(place.1)) else {
                continue;
            };
            let name = endpoint_name(self.document, place.1, place.2);
            let golden = &endpoint.golden;
            let how = match place.0 {
                Trouble::Errors => format!("{} of {} requests failed", golden.errors, golden.requests),
                Trouble::Latency => format!("p95 is {}", duration(golden.p95_ns.unwrap_or_default())),
            };
            if depth > 0 {
                reasons.push(format!("{name} with it: {how}"));
                victims.push(subject("endpoint", &name, Some(&service.id)));
            } else {
                reasons.push(format!("at the same moments {name}: {how}"));
            }
        }
        let told: BTreeSet<Option<String>> = victims.iter().map(|victim| victim.id.clone()).collect();
        victims.extend(finding.victims.drain(..).filter(|victim| !told.contains(&victim.id)));
        finding.victims = victims;
        reasons.append(&mut finding.reasons);
        reasons.truncate(MAX_REASONS);
        finding.reasons = reasons;
    }
}
