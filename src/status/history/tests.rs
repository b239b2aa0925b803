//! What is kept of a cluster's past, snapshot by snapshot.

use super::*;
use crate::topology::kubernetes::{Group, Label, PodFacts, PodState};
use crate::topology::{LastPrimary, Serving};
use crate::types::{BackendId, Role, Term};

/// A snapshot in which `primary` (or nobody) leads, of servers db-0, db-1…
fn snapshot(version: u64, primary: Option<u32>, servers: u32, since: u64, why: &str) -> Topology {
    let backend = |id| {
        let role = if Some(id) == primary { Role::Primary } else { Role::Follower };
        let address = format!("db-{id}").parse().unwrap();
        Backend { role, serving: Serving::Yes, ..Backend::new(BackendId(id), address, 1) }
    };
    Topology {
        version,
        primary: primary.map(BackendId),
        last_primary: primary.map(|id| LastPrimary { id: BackendId(id), server_uuid: "".into() }),
        backends: (0..servers).map(backend).collect(),
        since_unix_ms: since,
        why: why.into(),
        doubt: primary.is_none(),
        ..Topology::empty("orders".into())
    }
}

fn pod(name: &str) -> PodFacts {
    PodFacts {
        group: Group { namespace: "shop".into(), cluster: "orders".into(), component: "".into() },
        name: name.into(),
        uid: "u".into(),
        address: None,
        state: PodState::Ready,
        restarts: 0,
        label: Label::None,
        unlabelled_reads: true,
        term: None,
    }
}

fn with_term(term: u64, mut topology: Topology) -> Arc<Topology> {
    topology.term = Term(term);
    Arc::new(topology)
}

fn noted(steps: Vec<(Arc<Topology>, Waiting)>) -> History {
    let mut history = History::new(Arc::new(Topology::empty("orders".into())));
    for (topology, waiting) in steps {
        let now = topology.since_unix_ms;
        history.note(topology, waiting, now);
    }
    history
}

const NOBODY: Waiting = Waiting { now: 0, entered: 0 };

#[test]
fn a_failover_is_one_entry_from_the_loss_to_the_proof() {
    let history = noted(vec![
        (with_term(1, snapshot(1, Some(0), 3, 1_000, "proven")), Waiting { now: 0, entered: 7 }),
        (with_term(1, snapshot(2, None, 3, 5_000, "connection refused")), Waiting { now: 2, entered: 9 }),
        (with_term(1, snapshot(2, None, 3, 5_000, "connection refused")), Waiting { now: 4, entered: 11 }),
        (with_term(2, snapshot(3, Some(1), 3, 6_100, "a majority says so")), Waiting { now: 5, entered: 12 }),
        (with_term(2, snapshot(3, Some(1), 3, 6_100, "a majority says so")), Waiting { now: 0, entered: 12 }),
    ]);
    let json = history.to_json();
    let entry = &json["primaries"][0];
    let facts = ["from", "to", "lost_unix_ms", "proven_unix_ms", "ms", "term", "held", "why_lost", "why_proven"];
    assert_eq!(
        facts.map(|fact| entry[fact].clone()),
        [
            json!("db-0:3306"),
            json!("db-1:3306"),
            json!(5_000),
            json!(6_100),
            json!(1_100),
            json!(2),
            json!(5),
            json!("connection refused"),
            json!("a majority says so"),
        ]
    );
    assert_eq!(json["primaries"][1]["from"], Value::Null, "the first one replaced nobody");
    assert_eq!(json["primaries"].as_array().unwrap().len(), 2);
}

#[test]
fn a_switchover_nobody_saw_the_gap_of_and_a_primary_that_comes_back() {
    let history = noted(vec![
        (with_term(1, snapshot(1, Some(0), 2, 1_000, "proven")), NOBODY),
        (with_term(2, snapshot(4, Some(1), 2, 2_000, "set as primary")), NOBODY),
        (with_term(2, snapshot(5, None, 2, 3_000, "cut off")), NOBODY),
    ]);
    let changes: Vec<_> = history.changes().collect();
    assert_eq!(changes[1].lost.as_ref().map(|(at, _)| *at), Some(2_000));
    assert_eq!(changes[1].proven.as_ref().map(|(to, at, _)| (to.address.as_str(), *at)), Some(("db-1:3306", 2_000)));
    let from = |change: &PrimaryChange| change.from.as_ref().unwrap().address.clone();
    assert_eq!((from(changes[2]), &changes[2].proven), ("db-1:3306".to_owned(), &None));
    let mut history = history;
    history.note(with_term(2, snapshot(6, Some(1), 2, 3_500, "proven again")), NOBODY, 3_500);
    let back = history.changes().last().unwrap();
    assert_eq!((from(back), back.term), ("db-1:3306".to_owned(), 2));
    assert_eq!(back.proven.as_ref().map(|(to, ..)| to.address.as_str()), Some("db-1:3306"));
}

/// By pod, also when the pod is gone or has another address since.
#[test]
fn pods_are_remembered_by_name() {
    let in_pods = |mut topology: Topology| {
        for server in &mut topology.backends {
            server.pod = Some(Arc::new(pod(&format!("orders-mysql-{}", server.id.0))));
        }
        topology
    };
    let mut history = noted(vec![
        (with_term(1, in_pods(snapshot(1, Some(0), 2, 1_000, "proven"))), NOBODY),
        (with_term(2, in_pods(snapshot(2, Some(1), 2, 2_000, "proven"))), NOBODY),
    ]);
    history.note(with_term(2, in_pods(snapshot(3, Some(1), 1, 2_000, "proven"))), NOBODY, 2_100);
    let json = history.to_json();
    let change = &json["primaries"][0];
    assert_eq!(
        ["from", "from_pod", "to", "to_pod"].map(|field| change[field].as_str().unwrap()),
        ["db-0:3306", "orders-mysql-0", "db-1:3306", "orders-mysql-1"]
    );
    assert_eq!(json["primaries"][1]["from_pod"], Value::Null);
    assert!(json["roles"].as_array().unwrap().iter().all(|role| role["pod"].is_string()), "{json:#}");
}

#[test]
fn what_is_kept_is_bounded() {
    let long = "x".repeat(10 * TEXT_MAX);
    let steps = (1..1_000).map(|n| {
        let primary = (n % 2 == 0).then_some(u32::try_from(n % 4).unwrap() / 2);
        (with_term(n, snapshot(n, primary, u32::try_from(n % 5).unwrap(), n, &long)), NOBODY)
    });
    let json = noted(steps.collect()).to_json();
    assert_eq!(json["primaries"].as_array().unwrap().len(), CHANGES_MAX);
    assert_eq!(json["roles"].as_array().unwrap().len(), ROLES_MAX);
    assert!(json["primaries"][0]["why_proven"].as_str().is_none_or(|why| why.chars().count() <= TEXT_MAX + 1));
    assert_eq!(json["primaries"][0]["lost_unix_ms"], 999, "the newest comes first");
}

#[test]
fn roles_and_doubts_are_noted() {
    let mut doubted = snapshot(2, Some(0), 2, 1_000, "proven");
    doubted.doubt = true;
    let mut history =
        noted(vec![(with_term(1, snapshot(1, Some(0), 2, 1_000, "proven")), NOBODY), (with_term(1, doubted), NOBODY)]);
    assert_eq!(history.to_json()["doubts"], json!({ "count": 1, "last_unix_ms": 1_000, "last_ms": null }));
    let mut drained = snapshot(3, Some(0), 2, 1_000, "proven");
    drained.backends[1].serving = Serving::Draining { reason: "cordoned".into() };
    history.note(with_term(1, drained), NOBODY, 1_250);
    let gone = snapshot(4, Some(0), 1, 1_000, "proven");
    history.note(with_term(1, gone), NOBODY, 1_300);
    let json = history.to_json();
    assert_eq!(json["doubts"]["last_ms"], 250);
    let roles = json["roles"].as_array().unwrap();
    let steps: Vec<_> =
        roles.iter().rev().map(|r| ["server", "from", "to"].map(|f| r[f].as_str().unwrap().to_owned())).collect();
    assert_eq!(
        steps,
        [
            ["db-0:3306", "none", "primary"],
            ["db-1:3306", "none", "follower"],
            ["db-1:3306", "follower", "draining"],
            ["db-1:3306", "draining", "none"],
        ]
    );
}
