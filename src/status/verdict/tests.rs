//! What is said of which trouble.

use super::*;
use crate::config::watch::FileState;
use crate::topology::snapshot::{Conflict, ConflictKind};
use crate::types::BackendId;

const NOW: u64 = 1_700_000_100_000;

fn cluster(change: impl FnOnce(&mut Topology, &mut ClusterFacts)) -> ClusterFacts {
    let backend = |id, role| {
        let address = format!("db-{id}").parse().unwrap();
        Backend { role, serving: Serving::Yes, lag_ms: Some(0), ..Backend::new(BackendId(id), address, 1) }
    };
    let mut topology = Topology {
        primary: Some(BackendId(0)),
        backends: vec![backend(0, Role::Primary), backend(1, Role::Follower)],
        doubt: false,
        accepting: true,
        since_unix_ms: NOW - 90_000,
        ..Topology::empty("orders".into())
    };
    let mut facts = ClusterFacts {
        topology: Arc::new(Topology::empty("orders".into())),
        proof_age_ms: Some(100),
        held: 0,
        max_lag: Some(Duration::from_secs(10)),
        certificate_end: None,
        source_trouble: None,
    };
    change(&mut topology, &mut facts);
    facts.topology = Arc::new(topology);
    facts
}

fn facts(clusters: Vec<ClusterFacts>) -> Facts {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW);
    Facts { now, ready: true, reasons: Vec::new(), file: None, clusters, listeners: Vec::new() }
}

fn lost(topology: &mut Topology, facts: &mut ClusterFacts) {
    (topology.primary, topology.doubt, facts.proof_age_ms) = (None, true, None);
    topology.backends[0].role = Role::Follower;
    topology.why = "connection refused".into();
}

#[test]
fn all_is_well() {
    let verdict = judge(&facts(vec![cluster(|_, _| {}), cluster(|_, _| {})]));
    assert_eq!((verdict.state, verdict.problems.len()), (State::Ok, 0));
    assert_eq!(verdict.headline, "All is well: each of 2 clusters has a proven primary, and no statement waits.");
}

#[test]
fn each_trouble_of_a_cluster_in_words() {
    type Change = fn(&mut Topology, &mut ClusterFacts);
    let table: [(Change, State, &str); 12] = [
        (
            |t, f| {
                lost(t, f);
                f.held = 14;
            },
            State::Bad,
            "no primary for 90 s: connection refused; 14 statements wait",
        ),
        (
            |t, f| {
                lost(t, f);
                t.since_unix_ms = 0;
            },
            State::Bad,
            "no primary has been found yet: connection refused",
        ),
        (
            |t, f| (t.doubt, f.proof_age_ms, f.held) = (true, Some(4_200), 1),
            State::Bad,
            "the primary db-0:3306 was last proven 4.2 s ago, so writes wait; one statement waits",
        ),
        (
            |t, f| (t.doubt, f.proof_age_ms) = (true, Some(900)),
            State::Warn,
            "the primary db-0:3306 was last proven 900 ms ago",
        ),
        (
            |t, f| {
                (t.accepting, f.held) = (false, 3);
                t.backends[0].serving = Serving::Draining { reason: "its pod is being deleted".into() };
            },
            State::Bad,
            "the primary db-0:3306 takes no new work, so writes wait: its pod is being deleted; 3 statements wait",
        ),
        (
            |t, _| {
                let evidence = "pods orders-0, orders-1 are both labelled primary".into();
                t.conflicts = vec![Conflict { kind: ConflictKind::TwoLabels, backends: Vec::new(), evidence }];
            },
            State::Warn,
            "pods orders-0, orders-1 are both labelled primary",
        ),
        (|_, f| f.source_trouble = Some("the API server is away".to_owned()), State::Warn, "the API server is away"),
        (|_, f| f.held = 2, State::Warn, "a primary is proven, and yet statements wait; 2 statements wait"),
        (
            |t, _| t.backends[1].serving = Serving::No { reason: "it is OFFLINE".into() },
            State::Warn,
            "db-1:3306 serves nothing: it is OFFLINE",
        ),
        (
            |t, _| t.backends[1].serving = Serving::Draining { reason: "its pod is being deleted".into() },
            State::Warn,
            "db-1:3306 is being drained: its pod is being deleted",
        ),
        (
            |t, _| t.backends[1].lag_ms = Some(200_000),
            State::Warn,
            "db-1:3306 is 3 min behind and gets no reads (at most 10 s)",
        ),
        (
            |_, f| f.certificate_end = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(NOW + 3 * 86_400_000)),
            State::Warn,
            "the certificate shown to its servers ends in 3 days",
        ),
    ];
    for (change, state, text) in table {
        let verdict = judge(&facts(vec![cluster(change)]));
        let first = &verdict.problems[0];
        assert_eq!((first.state, first.about.as_str(), first.text.as_str()), (state, "orders", text));
        assert_eq!(verdict.state, state);
    }
}

#[test]
fn an_api_server_that_is_away_is_one_problem_however_many_clusters_it_has() {
    let away = |trouble: &'static str| cluster(move |_, f| f.source_trouble = Some(trouble.to_owned()));
    let mut clusters: Vec<_> = (0..200).map(|_| away("not watched for 9 s")).collect();
    clusters.push(away("not listed yet"));
    let verdict = judge(&facts(clusters));
    let said: Vec<_> = verdict.problems.iter().map(|p| (p.about.as_str(), p.text.as_str())).collect();
    assert_eq!(said, [("orders", "not listed yet"), ("Kubernetes", "not watched for 9 s (of 200 clusters)")]);
}

#[test]
fn a_moment_of_doubt_is_no_trouble() {
    let verdict = judge(&facts(vec![cluster(|t, f| (t.doubt, f.proof_age_ms) = (true, Some(300)))]));
    assert_eq!(verdict.state, State::Ok);
}

#[test]
fn the_worst_comes_first_and_names_the_headline() {
    let mut all = facts(vec![
        cluster(|t, _| t.backends[1].serving = Serving::Draining { reason: "cordoned".into() }),
        cluster(lost),
    ]);
    all.file = Some(LastRead { state: FileState::Refused, text: "line 3: no".to_owned(), at: all.now });
    all.reasons = vec!["cluster orders has no proven primary: x".to_owned(), "shutting down".to_owned()];
    all.listeners = vec![ListenerFacts {
        name: "app".to_owned(),
        sessions: 95,
        sessions_max: 100,
        certificate_end: Some(all.now - Duration::from_secs(3_600)),
    }];
    let verdict = judge(&all);
    assert_eq!(verdict.headline, "orders has no primary: writes wait.");
    let said: Vec<String> =
        verdict.problems.iter().map(|p| format!("{} {} {}", p.state.as_str(), p.about, p.text)).collect();
    assert_eq!(
        said,
        [
            "bad orders no primary for 90 s: connection refused",
            "bad app its certificate ended 60 min ago",
            "warn orders db-1:3306 is being drained: cordoned",
            "warn orders no follower serves reads",
            "warn app 95 of at most 100 clients are connected",
            "warn configuration the file is not valid, the one before stays in effect: line 3: no",
            "warn this proxy not ready: shutting down",
        ]
    );
    let two = judge(&facts(vec![cluster(lost), cluster(lost), cluster(|_, _| {})]));
    assert_eq!(two.headline, "2 of 3 clusters have no primary, orders among them.");
}
