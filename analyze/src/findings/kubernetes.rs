//! Checks over what Kubernetes told: rollouts, revisions, containers, pods, nodes.

use std::collections::BTreeMap;

use super::{Found, Verdict, finding, subject};
use crate::report::document::{Change, Confidence, Document, Finding, Revision, Rollout, Severity, Subject, Workload};
use crate::report::text::{clock, duration, one_line, percent, plural};

/// Most findings of one check.
const MOST: usize = 10;
/// A rollout that takes longer has a problem.
const LONG_NS: u64 = 180_000_000_000;
/// Requests to a revision below which a share says little.
const ENOUGH: u64 = 10;
/// From this share of errors on a revision is bad, if the one before it was clearly better.
const BAD_RATIO: f64 = 0.05;
const WORSE: f64 = 3.0;
/// A revision is slower where its p95 is twice the old one's, and so much longer.
const SLOWER_NS: u64 = 50_000_000;
/// Under this share of the pods that are wanted a workload is short of them.
const READY_SHARE: f64 = 0.75;

fn run(document: &Document, each: impl FnOnce(&Document) -> Vec<Found>) -> Verdict {
    if document.workloads.is_empty() && document.pods.is_empty() && document.changes.is_empty() {
        return Verdict::NotRun("Kubernetes was not asked: no objects in the recording".to_string());
    }
    let mut found = each(document);
    found.truncate(MOST);
    Verdict::Ran(found)
}

fn about(workload: &Workload) -> Subject {
    subject("workload", &workload.name, Some(&workload.id))
}

/// Kubernetes Services in front that had fewer behind them, and services whose calls failed.
fn victims(document: &Document, workload: &Workload) -> Vec<Subject> {
    let wanted = workload.replicas.map_or(0, |replicas| replicas.wanted);
    let short = workload.kubernetes_services.iter().filter(|service| {
        let least = service.least_ready.or(service.ready);
        least.is_some_and(|least| least < wanted.max(service.ready.unwrap_or_default()))
    });
    let short = short.map(|service| subject("kubernetes service", &service.name, None));
    let failing = document
        .edges
        .iter()
        .filter(|edge| workload.services.contains(&edge.server) && edge.golden.server_errors() > 0);
    let callers =
        failing.map(|edge| subject("service", super::service_name(document, &edge.client), Some(&edge.client)));
    let mut victims: Vec<Subject> = short.chain(callers).collect();
    victims.dedup();
    victims.truncate(MOST);
    victims
}

fn revision<'a>(workload: &'a Workload, name: &str) -> Option<&'a Revision> {
    workload.revisions.iter().find(|revision| revision.name == name)
}

/// `revision 3 (api:1.5.0)`.
fn named(workload: &Workload, name: &str, number: Option<u64>) -> String {
    let image = revision(workload, name).and_then(|revision| revision.images.first());
    let image = image.map(|image| image.image.rsplit('/').next().unwrap_or(&image.image));
    let number = number.map_or_else(|| name.to_string(), |number| number.to_string());
    let image = image.map_or_else(String::new, |image| format!(" ({image})"));
    one_line(&format!("revision {number}{image}"), 160)
}

/// Rollouts that don't get done.
pub fn rollouts(document: &Document) -> Verdict {
    run(document, |document| {
        let end_ns = document.capture.end_ns.unwrap_or_default();
        let all = document
            .workloads
            .iter()
            .flat_map(|workload| workload.rollouts.iter().map(move |rollout| (workload, rollout)));
        let found = all.filter_map(|(workload, rollout)| {
            let took_ns = rollout.ended_ns.unwrap_or(end_ns).saturating_sub(rollout.began_ns);
            let goes_on = !matches!(rollout.outcome.as_str(), "waiting" | "unknown");
            let long = took_ns > LONG_NS && rollout.from.is_some() && goes_on;
            (rollout.stuck_ns.is_some() || long).then(|| stuck(document, workload, rollout, took_ns).into())
        });
        found.collect()
    })
}

fn stuck(document: &Document, workload: &Workload, rollout: &Rollout, took_ns: u64) -> Finding {
    let to = named(workload, &rollout.to, rollout.number);
    let went = match (rollout.outcome.as_str(), rollout.stuck_ns) {
        ("complete", _) => format!("took {}", duration(took_ns)),
        ("replaced", _) => format!("was stuck, and given up after {}", duration(took_ns)),
        (_, Some(at_ns)) => format!("is stuck since {}", clock(at_ns)),
        _ => format!("is not done after {}", duration(took_ns)),
    };
    let lasting = !matches!(rollout.outcome.as_str(), "complete" | "replaced");
    let severity = if lasting { Severity::Critical } else { Severity::Warning };
    let mut one =
        finding(severity, Confidence::High, about(workload), format!("{}: the rollout of {to} {went}", workload.name));
    one.id = format!("{}/{}", rollout.to, rollout.began_ns);
    one.onset_ns = Some(rollout.began_ns);
    one.reasons.push(format!("what is different: {}", one_line(&rollout.difference, 200)));
    if let Some(at_ns) = rollout.stuck_ns {
        one.reasons.push(format!("Kubernetes gave it up at {}: its progress deadline had passed", clock(at_ns)));
    }
    let pods = document
        .pods
        .iter()
        .filter(|pod| pod.workload.as_ref() == Some(&workload.id) && pod.revision.as_ref() == Some(&rollout.to));
    let never: Vec<&str> = pods.filter(|pod| pod.ready_ns.is_none()).map(|pod| pod.name.as_str()).collect();
    if !never.is_empty() {
        let names = one_line(&never.iter().take(3).copied().collect::<Vec<_>>().join(", "), 200);
        one.reasons
            .push(format!("{} never became ready: {names}", plural(never.len() as u64, "pod of it", "pods of it")));
    }
    let during = |change: &&Change| {
        let at_ns = change.at_ns.unwrap_or_default();
        let until_ns = change.until_ns.unwrap_or(at_ns);
        change.is_bad
            && change.workload.as_ref() == Some(&workload.id)
            && change.kind != "rollout"
            && at_ns >= rollout.began_ns
            && until_ns >= rollout.began_ns
            && at_ns <= rollout.ended_ns.unwrap_or(u64::MAX)
    };
    let mut told: Vec<&Change> = document.changes.iter().filter(during).collect();
    told.sort_by_key(|change| std::cmp::Reverse(change.count));
    one.reasons.extend(told.into_iter().take(2).map(in_words));
    one.victims = victims(document, workload);
    one
}

/// A change as a reason.
fn in_words(change: &Change) -> String {
    let times = if change.count > 1 { format!(" ({} times)", change.count) } else { String::new() };
    let at = change.at_ns.map_or_else(String::new, |at_ns| format!("{} ", clock(at_ns)));
    format!("{at}{}{times}", one_line(&change.summary, 200))
}

/// New revisions that fail, or are slow, where the old one was not.
pub fn revisions(document: &Document) -> Verdict {
    run(document, |document| {
        let mut found = Vec::new();
        for workload in &document.workloads {
            let mut seen = std::collections::BTreeSet::new();
            for rollout in workload.rollouts.iter().rev().filter(|rollout| !rollout.is_rollback) {
                let (Some(new), Some(old)) = (
                    revision(workload, &rollout.to),
                    rollout.from.as_deref().and_then(|from| revision(workload, from)),
                ) else {
                    continue;
                };
                if seen.insert(new.name.as_str()) {
                    found.extend(worse(document, workload, rollout, old, new));
                }
            }
        }
        found
    })
}

fn worse(document: &Document, workload: &Workload, rollout: &Rollout, old: &Revision, new: &Revision) -> Option<Found> {
    let (before, after) = (&old.inbound, &new.inbound);
    if before.judged() < ENOUGH || after.judged() < ENOUGH {
        return None;
    }
    let ratio =
        |golden: &crate::report::document::Golden| golden.server_errors() as f64 / golden.judged().max(1) as f64;
    let (was, is) = (ratio(before), ratio(after));
    let old_name = named(
        workload,
        &old.name,
        workload
            .rollouts
            .iter()
            .rev()
            .find(|one| one.to == old.name && one.began_ns <= rollout.began_ns)
            .and_then(|one| one.number),
    );
    let new_name = named(workload, &new.name, rollout.number);
    let sure = if before.judged() >= 50 && after.judged() >= 50 { Confidence::High } else { Confidence::Medium };
    let mut one = if is >= BAD_RATIO && is > was * WORSE {
        let title = format!(
            "{} {new_name}: {} of {} requests failed, {}; of {old_name} {}",
            workload.name,
            after.server_errors(),
            after.judged(),
            percent(is),
            percent(was)
        );
        finding(Severity::Critical, sure, about(workload), title)
    } else {
        let (was_ns, is_ns) = (before.p95_ns?, after.p95_ns?);
        if is_ns < was_ns.saturating_mul(2) || is_ns < was_ns.saturating_add(SLOWER_NS) {
            return None;
        }
        let title =
            format!("{} {new_name}: p95 {}; of {old_name} {}", workload.name, duration(is_ns), duration(was_ns));
        finding(Severity::Warning, sure, about(workload), title)
    };
    one.id = format!("revision/{}", new.name);
    one.onset_ns = Some(rollout.began_ns);
    one.reasons.push(format!("what is different: {}", one_line(&rollout.difference, 200)));
    one.reasons.push(format!(
        "the same callers at the same time: {} to the old one, {} to the new one",
        plural(before.requests, "request", "requests"),
        plural(after.requests, "request", "requests")
    ));
    let failing = new.callers.iter().filter(|caller| caller.errors > 0);
    one.victims = failing
        .take(MOST)
        .map(|caller| subject("service", super::service_name(document, &caller.service), Some(&caller.service)))
        .collect();
    let impact = after.server_errors() as f64 / document.overall.requests.max(1) as f64;
    Some(Found { finding: one, impact, place: None })
}

/// Bad changes of these kinds by workload, in the report's order of workloads; others by their subject.
fn by_workload<'a>(document: &'a Document, kinds: &[&str]) -> Vec<(Subject, Vec<&'a Change>)> {
    let mut groups: BTreeMap<(usize, &str), Vec<&Change>> = BTreeMap::new();
    let places: BTreeMap<&str, usize> =
        document.workloads.iter().enumerate().map(|(place, workload)| (workload.id.as_str(), place)).collect();
    for change in document.changes.iter().filter(|change| change.is_bad && kinds.contains(&change.kind.as_str())) {
        // What was over before the recording is told as a change only.
        let last_ns = change.until_ns.or(change.at_ns);
        if last_ns < document.capture.start_ns {
            continue;
        }
        let place = change.workload.as_deref().and_then(|id| places.get(id)).copied().unwrap_or(usize::MAX);
        let name = if place == usize::MAX { change.subject.as_str() } else { "" };
        groups.entry((place, name)).or_default().push(change);
    }
    let named = |(place, name): (usize, &str)| match document.workloads.get(place) {
        Some(workload) => about(workload),
        None if document.nodes.iter().any(|node| node.name == name) => subject("node", name, Some(name)),
        None => subject("kubernetes object", name, None),
    };
    groups.into_iter().map(|(key, changes)| (named(key), changes)).collect()
}

fn from_changes(
    document: &Document,
    kinds: &[&str],
    make: impl Fn(&Subject, &[&Change]) -> Option<(Severity, String)>,
) -> Vec<Found> {
    let groups = by_workload(document, kinds).into_iter();
    let found = groups.filter_map(|(subject, changes)| {
        let (severity, title) = make(&subject, &changes)?;
        let workload = subject.id.as_deref().and_then(|id| document.workloads.iter().find(|one| one.id == id));
        let mut one = finding(severity, Confidence::High, subject, title);
        one.onset_ns = changes.iter().filter_map(|change| change.at_ns).min();
        one.reasons = changes.iter().take(3).map(|change| in_words(change)).collect();
        if changes.len() > 3 {
            one.reasons.push(format!("and {} more, see the changes", changes.len() - 3));
        }
        one.victims = workload.map(|workload| victims(document, workload)).unwrap_or_default();
        Some(one.into())
    });
    found.collect()
}

fn times(changes: &[&Change]) -> u64 {
    changes.iter().fold(0, |sum: u64, change| sum.saturating_add(change.count.max(1)))
}

/// Containers killed for their memory.
pub fn oom_kills(document: &Document) -> Verdict {
    run(document, |document| {
        from_changes(document, &["oom_killed"], |subject, changes| {
            let looping = changes.iter().any(|change| change.summary.contains("CrashLoopBackOff"));
            let severity = if looping { Severity::Critical } else { Severity::Warning };
            let kills = plural(times(changes), "container killed", "containers killed");
            Some((severity, format!("{}: {kills} for using more memory than their limit", subject.name)))
        })
    })
}

/// Containers that end and are started again.
pub fn restarts(document: &Document) -> Verdict {
    run(document, |document| {
        from_changes(document, &["restarted"], |subject, changes| {
            let looping = changes.iter().any(|change| change.summary.contains("CrashLoopBackOff"));
            if times(changes) < 2 && !looping {
                return None;
            }
            let severity = if looping { Severity::Critical } else { Severity::Warning };
            let now = if looping { ", now in CrashLoopBackOff" } else { "" };
            Some((
                severity,
                format!(
                    "{}: containers ended {} and were started again{now}",
                    subject.name,
                    plural(times(changes), "time", "times")
                ),
            ))
        })
    })
}

/// Pods that don't start: no image, no room, no volume.
pub fn not_starting(document: &Document) -> Verdict {
    run(document, |document| {
        from_changes(document, &["not_starting", "unschedulable"], |subject, changes| {
            let end_ns = document.capture.end_ns;
            let lasting: Vec<_> =
                changes.iter().filter(|change| change.until_ns.is_none() || change.until_ns >= end_ns).collect();
            let first = lasting.first()?;
            let why =
                if first.kind == "unschedulable" { "no node has room for it" } else { "a container doesn't start" };
            Some((Severity::Critical, format!("{}: {why}: {}", subject.name, one_line(&first.summary, 120))))
        })
    })
}

/// Workloads with fewer pods ready than they want, at the end.
pub fn replicas(document: &Document) -> Verdict {
    run(document, |document| {
        // Why they are not ready, others tell.
        let told = |workload: &Workload| {
            let own = document
                .changes
                .iter()
                .filter(|change| change.is_bad && change.workload.as_ref() == Some(&workload.id));
            let mut why = own.filter(|change| {
                ["not_starting", "unschedulable", "oom_killed", "restarted"].contains(&change.kind.as_str())
            });
            let lasts = |change: &Change| change.until_ns.is_none() || change.summary.contains("CrashLoopBackOff");
            why.any(lasts)
        };
        let short = document.workloads.iter().filter(|workload| !told(workload)).filter_map(|workload| {
            let replicas = workload.replicas.filter(|replicas| replicas.wanted > 0)?;
            (replicas.ready as f64 <= replicas.wanted as f64 * READY_SHARE).then_some((workload, replicas))
        });
        let found = short.map(|(workload, replicas)| {
            let severity = if replicas.ready == 0 { Severity::Critical } else { Severity::Warning };
            let title = format!("{}: {} of {} pods ready at the end", workload.name, replicas.ready, replicas.wanted);
            let mut one = finding(severity, Confidence::High, about(workload), title);
            one.victims = victims(document, workload);
            let falls = workload.course.iter().rev().take_while(|step| step.ready < step.wanted).last();
            one.onset_ns = falls.map(|step| step.at_ns);
            one.into()
        });
        found.collect()
    })
}

/// Services with nobody ready behind them.
pub fn endpoints(document: &Document) -> Verdict {
    run(document, |document| {
        from_changes(document, &["service"], |_, changes| {
            let longest = changes.iter().max_by_key(|change| {
                change.until_ns.unwrap_or_default().saturating_sub(change.at_ns.unwrap_or_default())
            })?;
            Some((Severity::Warning, format!("Service {}: {}", longest.subject, one_line(&longest.summary, 120))))
        })
    })
}

/// Probes that fail after a pod has been ready, or kill.
pub fn probes(document: &Document) -> Verdict {
    run(document, |document| {
        from_changes(document, &["probe_failed"], |subject, changes| {
            let killed: Vec<&Change> =
                changes.iter().filter(|change| change.summary.contains("will be restarted")).copied().collect();
            if killed.is_empty() {
                return None;
            }
            let kills = plural(times(&killed), "time", "times");
            Some((Severity::Warning, format!("{}: its liveness probe had it restarted {kills}", subject.name)))
        })
    })
}

/// Nodes that are not ready, out of something, or gone; pods that were pushed off.
pub fn nodes(document: &Document) -> Verdict {
    run(document, |document| {
        let mut found = from_changes(document, &["node"], |subject, changes| {
            let is_trouble = |change: &&&Change| {
                [" is True", "is False", "is Unknown", "left the cluster", "booted again", "tainted"]
                    .iter()
                    .any(|what| change.summary.contains(what))
            };
            let first = changes.iter().find(is_trouble)?;
            Some((Severity::Critical, format!("{} {}", subject.name, one_line(&first.summary, 120))))
        });
        found.extend(from_changes(document, &["evicted"], |subject, changes| {
            let pods = plural(times(changes), "pod was", "pods were");
            Some((Severity::Warning, format!("{}: {pods} pushed off the node", subject.name)))
        }));
        found
    })
}

/// Runs of Jobs that failed.
pub fn jobs(document: &Document) -> Verdict {
    run(document, |document| {
        from_changes(document, &["job"], |subject, changes| {
            Some((Severity::Warning, format!("{}: {} failed", subject.name, plural(times(changes), "run", "runs"))))
        })
    })
}
