//! The verdict and the findings.

use super::Context;
use crate::report::{
    document::{Confidence, Finding, Outcome, Subject},
    health::Health,
    text,
};

/// Most lines of the verdict.
const VERDICT: usize = 5;
/// Most evidence addresses shown of a finding.
const EVIDENCE: usize = 8;

/// All findings, and what to say without any.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The first of them, one line each.
    pub(super) verdict: Vec<Line>,
    pub(super) all: Vec<View>,
    pub(super) hidden: u64,
    /// Said where there is no finding: which checks stand behind that.
    pub(super) without: String,
}

/// A line of the verdict.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) href: String,
    pub(super) health: Health,
    pub(super) word: &'static str,
    pub(super) title: String,
    pub(super) onset: Option<(String, String)>,
    pub(super) confidence: &'static str,
    /// Endpoints that suffer, in a phrase.
    pub(super) hits: String,
}

/// A finding in full.
#[derive(Debug)]
pub(super) struct View {
    pub(super) anchor: String,
    pub(super) line: Line,
    pub(super) check: String,
    pub(super) subject: Link,
    pub(super) reasons: Vec<String>,
    pub(super) ruled_out: Vec<String>,
    pub(super) victims: Vec<Link>,
    pub(super) victims_hidden: usize,
    pub(super) evidence: Vec<String>,
    pub(super) evidence_hidden: usize,
    pub(super) verify: Option<String>,
    pub(super) caveats: Vec<(String, String)>,
    pub(super) open: bool,
}

/// A name, with a link where the page shows the thing.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) href: Option<String>,
}

impl Link {
    fn new(context: &Context<'_>, subject: &Subject) -> Self {
        Self {
            kind: subject.kind.clone(),
            name: text::one_line(&subject.name, 120),
            href: context.subject_href(subject),
        }
    }
}

pub(super) fn findings(context: &Context<'_>, shown: u64) -> Findings {
    let doc = context.doc;
    let all: Vec<View> = doc
        .findings
        .iter()
        .enumerate()
        .take(shown as usize)
        .filter_map(|(i, finding)| Some(view(context, finding, i, context.finding_anchor(i)?)))
        .collect();
    let verdict = doc
        .findings
        .iter()
        .take(VERDICT.min(all.len()))
        .enumerate()
        .filter_map(|(i, finding)| Some(line(finding, i, context.finding_anchor(i)?)))
        .collect();
    let ran = |outcome| doc.checks.iter().filter(|check| check.outcome == outcome).count() as u64;
    let without = if doc.checks.is_empty() {
        "No check ran on this capture, so nothing was looked for: read the figures below.".to_owned()
    } else {
        format!(
            "No check raised a finding: {} passed, {} could not run. The ledger tells what was not seen.",
            text::count(ran(Outcome::Passed)),
            text::count(ran(Outcome::NotRun))
        )
    };
    Findings { verdict, hidden: (doc.findings.len() - all.len()) as u64, all, without }
}

fn line(finding: &Finding, index: usize, anchor: &str) -> Line {
    let health = Health::of_severity(finding.severity);
    Line {
        number: index + 1,
        href: format!("#{anchor}"),
        health,
        word: if health == Health::Healthy { "note" } else { health.word() },
        title: text::one_line(&finding.title, 400),
        onset: finding.onset_ns.map(|at| (text::rfc3339(at), text::clock_ms(at))),
        confidence: match finding.confidence {
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
        },
        hits: hits(finding),
    }
}

fn hits(finding: &Finding) -> String {
    const NAMED: usize = 3;
    let names: Vec<String> = finding
        .victims
        .iter()
        .filter(|victim| victim.kind == "endpoint")
        .map(|victim| text::one_line(&victim.name, 80))
        .collect();
    match names.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ")),
    }
}

fn view(context: &Context<'_>, finding: &Finding, index: usize, anchor: &str) -> View {
    View {
        anchor: anchor.to_owned(),
        line: line(finding, index, anchor),
        check: finding.check.clone(),
        subject: Link::new(context, &finding.subject),
        reasons: finding.reasons.iter().take(12).cloned().collect(),
        ruled_out: finding.ruled_out.iter().take(12).cloned().collect(),
        victims: finding.victims.iter().take(12).map(|victim| Link::new(context, victim)).collect(),
        victims_hidden: finding.victims.len().saturating_sub(12),
        evidence: finding.evidence.iter().take(EVIDENCE).cloned().collect(),
        evidence_hidden: finding.evidence.len().saturating_sub(EVIDENCE),
        verify: finding.verify.clone(),
        caveats: context.caveats_by_id(&finding.weakened_by),
        open: index < 1,
    }
}
