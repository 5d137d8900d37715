//! What every section needs: names, health, and where links lead.

use crate::report::{
    document::{Document, Figure, Service, Subject},
    figure::{Axis, time_axis},
    health::Health,
    text,
};
use std::collections::{BTreeMap, BTreeSet};

/// Anchors by id of one kind of thing; only of what the page shows, so that every link has its target.
type Anchors = BTreeMap<String, String>;

/// The document with its look-ups.
pub(crate) struct Context<'a> {
    pub(super) doc: &'a Document,
    services: BTreeMap<&'a str, &'a Service>,
    health: BTreeMap<&'a str, Health>,
    service_anchors: Anchors,
    workload_anchors: Anchors,
    finding_anchors: Vec<Option<String>>,
    ledger_anchors: Vec<Option<String>>,
    ledger_by_id: BTreeMap<&'a str, usize>,
    sql_anchors: Vec<Option<String>>,
    sql_by_id: BTreeMap<&'a str, usize>,
    connection_anchors: Vec<Option<String>>,
    connection_by_id: BTreeMap<&'a str, usize>,
    node_anchors: Vec<Option<String>>,
    node_by_id: BTreeMap<&'a str, usize>,
    pub(super) axis: Option<Axis>,
    /// So many services have a section of their own; the others' rows carry their anchors.
    pub(super) sections: u64,
}

/// Makes anchors that are stable for the same id, and unique in the page.
struct Namer(BTreeSet<String>);

impl Namer {
    fn name(&mut self, kind: &str, id: &str) -> String {
        let slug: String = id
            .chars()
            .take(48)
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let mut name = format!("{kind}-{slug}");
        if slug != id {
            name.push_str(&format!("-{:08x}", fnv(id)));
        }
        let mut unique = name.clone();
        let mut number = 2;
        while !self.0.insert(unique.clone()) {
            unique = format!("{name}.{number}");
            number += 1;
        }
        unique
    }

    /// Names the first `shown` of a list.
    fn list<'a>(&mut self, kind: &str, ids: impl Iterator<Item = &'a str>, shown: u64) -> Vec<Option<String>> {
        ids.enumerate().map(|(i, id)| ((i as u64) < shown).then(|| self.name(kind, id))).collect()
    }
}

/// A short hash that never changes (FNV-1a, folded to 32 bits).
fn fnv(text: &str) -> u32 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}

/// The first index of each id.
fn first<'a>(ids: impl DoubleEndedIterator<Item = &'a str> + ExactSizeIterator) -> BTreeMap<&'a str, usize> {
    ids.enumerate().rev().map(|(i, id)| (id, i)).collect()
}

impl<'a> Context<'a> {
    #[expect(clippy::too_many_arguments, reason = "one count a section, in the page's order")]
    pub(crate) fn new(
        doc: &'a Document,
        findings: u64,
        ledger: u64,
        services: u64,
        details: u64,
        statements: u64,
        connections: u64,
        nodes: u64,
        workloads: u64,
    ) -> Self {
        let mut namer = Namer(BTreeSet::new());
        let mut service_anchors = Anchors::new();
        for service in doc.services.iter().take(services.max(details) as usize) {
            if !service_anchors.contains_key(&service.id) {
                let name = namer.name("svc", &service.id);
                service_anchors.insert(service.id.clone(), name);
            }
        }
        let mut workload_anchors = Anchors::new();
        for workload in doc.workloads.iter().take(workloads as usize) {
            if !workload_anchors.contains_key(&workload.id) {
                let name = namer.name("workload", &workload.id);
                workload_anchors.insert(workload.id.clone(), name);
            }
        }
        let mut health: BTreeMap<&str, Health> =
            doc.services.iter().rev().map(|s| (s.id.as_str(), Health::of_golden(&s.inbound))).collect();
        for finding in &doc.findings {
            let subject = finding.subject.id.as_deref();
            // A statement's finding is one of the service that runs it; endpoints that suffer are as bad as the cause.
            let server = doc.sql.iter().find(|one| Some(one.fingerprint.as_str()) == subject);
            let victims = finding.victims.iter().filter(|victim| victim.kind == "endpoint");
            let all = subject
                .into_iter()
                .chain(server.and_then(|one| one.server.as_deref()))
                .chain(victims.filter_map(|victim| victim.id.as_deref()));
            for id in all {
                if let Some(entry) = health.get_mut(id) {
                    *entry = (*entry).max(Health::of_severity(finding.severity));
                }
            }
        }
        let mut context = Self {
            services: doc.services.iter().rev().map(|s| (s.id.as_str(), s)).collect(),
            health,
            service_anchors,
            workload_anchors,
            finding_anchors: namer.list("f", doc.findings.iter().map(|f| f.id.as_str()), findings),
            ledger_anchors: namer.list("l", doc.ledger.entries.iter().map(|e| e.id.as_str()), ledger),
            ledger_by_id: first(doc.ledger.entries.iter().map(|e| e.id.as_str())),
            sql_anchors: namer.list("sql", doc.sql.iter().map(|s| s.fingerprint.as_str()), statements),
            sql_by_id: first(doc.sql.iter().map(|s| s.fingerprint.as_str())),
            connection_anchors: namer.list("conn", doc.network.connections.iter().map(|c| c.id.as_str()), connections),
            connection_by_id: first(doc.network.connections.iter().map(|c| c.id.as_str())),
            node_anchors: namer.list("node", doc.nodes.iter().map(|n| n.name.as_str()), nodes),
            node_by_id: first(doc.nodes.iter().map(|n| n.name.as_str())),
            axis: None,
            sections: details,
            doc,
        };
        context.axis = context.find_axis();
        context
    }

    /// For figures alone: names for the first services only.
    pub(crate) fn for_figures(doc: &'a Document) -> Self {
        Self::new(doc, 0, 0, 12, 0, 0, 0, 0, 0)
    }

    fn find_axis(&self) -> Option<Axis> {
        let doc = self.doc;
        let calls =
            doc.overall.series.iter().chain(doc.services.iter().flat_map(|s| &s.inbound.series)).map(|p| p.start_ns);
        let samples = doc.nodes.iter().flat_map(|n| &n.samples).map(|s| s.start_ns);
        time_axis((doc.capture.start_ns, doc.capture.end_ns), calls.chain(samples), doc.capture.step_ns.max(1))
    }

    /// Health of a service.
    pub(crate) fn health(&self, service: &str) -> Health {
        self.health.get(service).copied().unwrap_or_default()
    }

    pub(crate) fn service_anchor(&self, id: &str) -> Option<&str> {
        self.service_anchors.get(id).map(String::as_str)
    }

    /// `#…` of a service, if the page shows it.
    pub(super) fn service_href(&self, id: &str) -> Option<String> {
        self.service_anchor(id).map(|anchor| format!("#{anchor}"))
    }

    /// Of a workload, if the page shows it.
    pub(super) fn workload_anchor(&self, id: &str) -> Option<&str> {
        self.workload_anchors.get(id).map(String::as_str)
    }

    /// `#…` of a node by its name, if the page shows it.
    pub(super) fn node_href(&self, name: &str) -> Option<String> {
        let anchor = self.node_by_id.get(name).and_then(|i| self.node_anchor(*i))?;
        Some(format!("#{anchor}"))
    }

    /// Readable name of a service.
    pub(super) fn service_name<'s>(&'s self, id: &'s str) -> &'s str {
        self.services.get(id).map_or(id, |s| s.name.as_str())
    }

    pub(super) fn finding_anchor(&self, index: usize) -> Option<&str> {
        self.finding_anchors.get(index)?.as_deref()
    }

    pub(super) fn ledger_anchor(&self, index: usize) -> Option<&str> {
        self.ledger_anchors.get(index)?.as_deref()
    }

    pub(super) fn sql_anchor(&self, index: usize) -> Option<&str> {
        self.sql_anchors.get(index)?.as_deref()
    }

    pub(super) fn connection_anchor(&self, index: usize) -> Option<&str> {
        self.connection_anchors.get(index)?.as_deref()
    }

    pub(super) fn node_anchor(&self, index: usize) -> Option<&str> {
        self.node_anchors.get(index)?.as_deref()
    }

    /// Where a finding's subject or victim is shown.
    pub(super) fn subject_href(&self, subject: &Subject) -> Option<String> {
        let id = subject.id.as_deref()?;
        let anchor = match subject.kind.as_str() {
            "statement" => self.sql_by_id.get(id).and_then(|i| self.sql_anchor(*i)),
            "connection" => self.connection_by_id.get(id).and_then(|i| self.connection_anchor(*i)),
            "node" => self.node_by_id.get(id).and_then(|i| self.node_anchor(*i)),
            "workload" => self.workload_anchor(id).or_else(|| self.service_anchor(id)),
            "edge" => {
                let edge = self.doc.edges.iter().find(|e| e.id == id)?;
                self.service_anchor(&edge.server)
            }
            _ => self.service_anchor(id),
        };
        anchor.map(|anchor| format!("#{anchor}"))
    }

    /// Link and words of one ledger entry.
    fn caveat(&self, index: usize) -> Option<(String, String)> {
        let entry = self.doc.ledger.entries.get(index)?;
        let href = self.ledger_anchor(index).map_or_else(|| "#ledger".to_owned(), |anchor| format!("#{anchor}"));
        let number = entry.count.map(|n| format!(" ({})", text::quantity(n, &entry.unit))).unwrap_or_default();
        Some((href, format!("{}{number}", entry.what)))
    }

    /// Ledger entries that weaken any of these figures everywhere.
    pub(super) fn caveats(&self, figures: &[Figure]) -> Vec<(String, String)> {
        let entries = self.doc.ledger.entries.iter().enumerate();
        entries
            .filter(|(_, e)| e.weakens.iter().any(|w| figures.contains(w)))
            .filter_map(|(i, _)| self.caveat(i))
            .take(6)
            .collect()
    }

    /// The first of them, for a column's heading.
    pub(super) fn column_caveat(&self, figure: Figure) -> Option<(String, String)> {
        self.caveats(&[figure]).into_iter().next()
    }

    /// Ledger entries by their ids.
    pub(super) fn caveats_by_id(&self, ids: &[String]) -> Vec<(String, String)> {
        ids.iter().filter_map(|id| self.ledger_by_id.get(id.as_str()).and_then(|i| self.caveat(*i))).take(4).collect()
    }
}
