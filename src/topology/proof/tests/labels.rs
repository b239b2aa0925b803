//! Servers that are pods: what labels and terms may do, and what they never may.

use super::pods::{pod, serving};
use super::*;
use crate::topology::kubernetes::{Label, PodFacts, TermHint};
use crate::topology::snapshot::ConflictKind;
use Label::{Follower, Learner, Primary};

const D: u32 = 3;

/// With a term that was written ahead of the role, or after it was seen.
fn term(number: u64, ahead: bool, pod: PodFacts) -> PodFacts {
    PodFacts { term: Some(TermHint { number, ahead }), ..pod }
}

/// What there is to read at 3 a.m.: pods by name, and the one that is gone first, wherever it stands.
#[test]
fn the_lost_one_is_named_first_and_by_its_pod() {
    let mut world = World::of_pods([pod(A, Follower), pod(B, Primary)]);
    let well = world.at(1000, [(A, Ok(replica(A, B))), (B, Ok(server(B)))]);
    assert_eq!(well.primary, Some(BackendId(B)));
    let lost = world.at(1100, [(A, Ok(replica(A, B))), (B, gone())]);
    assert_eq!(lost.primary, None);
    let (name, other) = (format!("db-{B} ({}): ", address(B)), format!("; db-{A} ({}): ", address(A)));
    assert!(lost.why.starts_with(&name) && lost.why.contains(&other), "{}", lost.why);
    let follower = &lost.backend(BackendId(A)).unwrap().evidence;
    assert!(follower.contains(&format!("db-{B} (")), "{follower}");
}

type Said = Result<Report, Failure>;

/// One row: the pods of A and B, what their servers say, who is the primary, and the contradictions told.
type Row = (&'static str, [PodFacts; 2], [Said; 2], Option<u32>, &'static [&'static str]);

fn rows() -> Vec<Row> {
    let labels = |a, b| [pod(A, a), pod(B, b)];
    let terms =
        |ahead, a: (Label, u64), b: (Label, u64)| [term(a.1, ahead, pod(A, a.0)), term(b.1, ahead, pod(B, b.0))];
    let (free, both) = ([Ok(server(A)), Ok(replica(B, A))], [Ok(server(A)), Ok(server(B))]);
    let (promoted, alone) = ([Ok(replica(A, B)), Ok(server(B))], [gone(), Ok(server(B))]);
    vec![
        ("as it should be", labels(Primary, Follower), free.clone(), Some(A), &[]),
        ("two labels, one writable", labels(Primary, Primary), free.clone(), Some(A), &["two_labels"]),
        ("a stale label on a dead pod", labels(Primary, Follower), alone.clone(), Some(B), &["label_elsewhere"]),
        ("a stale label on a demoted pod", labels(Primary, Follower), promoted, Some(B), &["label_elsewhere"]),
        (
            "a label before its server is writable",
            labels(Follower, Primary),
            free.clone(),
            Some(A),
            &["label_elsewhere"],
        ),
        ("a label, and nobody writable", labels(Primary, Follower), [Ok(read_only(A)), Ok(replica(B, A))], None, &[]),
        (
            "the label's pod can be written, and the other too",
            labels(Primary, Follower),
            both.clone(),
            None,
            &["two_writable"],
        ),
        ("no labels at all", labels(Label::None, Label::None), free, Some(A), &["no_label"]),
        (
            "two labels, two writable, no terms",
            labels(Primary, Primary),
            both.clone(),
            None,
            &["two_writable", "two_labels"],
        ),
        (
            "the higher of two claims",
            terms(true, (Primary, 6), (Primary, 7)),
            both.clone(),
            Some(B),
            &["old_term", "two_labels"],
        ),
        (
            "of two versions, too",
            terms(false, (Primary, 6), (Primary, 7)),
            both.clone(),
            Some(B),
            &["old_term", "two_labels"],
        ),
        ("equal claims", terms(true, (Primary, 7), (Primary, 7)), both.clone(), None, &["two_writable", "two_labels"]),
        // A term is written before its server is opened: whoever is open with an older one is left over.
        (
            "an old term without the label",
            terms(true, (Follower, 6), (Primary, 7)),
            both.clone(),
            Some(B),
            &["old_term"],
        ),
        // A version is written when a role was seen: A may just have been promoted.
        (
            "an old version without the label",
            terms(false, (Follower, 6), (Primary, 7)),
            both.clone(),
            None,
            &["two_writable"],
        ),
        (
            "alone, but its claim is old",
            terms(true, (Primary, 8), (Primary, 7)),
            alone.clone(),
            None,
            &["old_term", "two_labels"],
        ),
        (
            "alone, with an old version",
            terms(false, (Primary, 8), (Primary, 7)),
            alone.clone(),
            None,
            &["old_term", "two_labels"],
        ),
        ("alone, an old term, no label", terms(true, (Primary, 8), (Follower, 7)), alone.clone(), None, &["old_term"]),
        (
            "promoted before its label",
            terms(false, (Primary, 8), (Follower, 7)),
            alone.clone(),
            Some(B),
            &["label_elsewhere"],
        ),
        ("no term beside a claim", [term(7, true, pod(A, Primary)), pod(B, Follower)], both, None, &["two_writable"]),
        (
            "no term, alone",
            [term(7, true, pod(A, Primary)), pod(B, Follower)],
            alone.clone(),
            Some(B),
            &["label_elsewhere"],
        ),
        ("a learner is open", labels(Primary, Learner), alone, None, &["learner_writable"]),
    ]
}

#[test]
fn labels_and_terms_of_a_set() {
    for (what, pods, [a, b], primary, conflicts) in rows() {
        let mut world = World::of_pods(pods);
        let topology = world.at(1000, [(A, a), (B, b)]);
        assert_eq!(topology.primary.map(|id| id.0), primary, "{what}: {}", topology.why);
        assert_eq!(kinds(&topology), conflicts, "{what}");
        for conflict in &topology.conflicts {
            assert!(conflict.evidence.contains("330") || conflict.evidence.contains("db-"), "{}", conflict.evidence);
        }
    }
}

/// What obeying a label alone would have done is in the test's name.
#[test]
fn a_label_that_moves_first_does_not_move_writes() {
    let mut world = World::of_pods([pod(A, Primary), pod(B, Follower)]);
    assert_eq!(who(&world.at(1000, [(A, Ok(server(A))), (B, Ok(replica(B, A)))])), (Some(A), 1));
    let moved = world.pods(2000, [pod(A, Follower), pod(B, Primary)]);
    assert_eq!((who(&moved), moved.doubt, world.0.unsettled()), ((Some(A), 1), true, true));
    let asked = world.at(2001, [(A, Ok(server(A))), (B, Ok(replica(B, A)))]);
    assert_eq!((who(&asked), asked.doubt, kinds(&asked)), ((Some(A), 1), false, vec!["label_elsewhere"]));
    assert_eq!(who(&world.at(2100, [(A, Ok(read_only(A)))])), (None, 1));
    let done = world.at(2200, [(B, Ok(server(B))), (A, Ok(replica(A, B)))]);
    assert_eq!((who(&done), kinds(&done), world.0.unsettled()), ((Some(B), 2), vec![], false));
}

#[test]
fn an_old_primary_that_resumes_alone_is_known_by_its_term() {
    let first = || [term(6, true, pod(A, Primary)), term(6, true, pod(B, Follower))];
    let mut world = World::of_pods(first());
    assert_eq!(who(&world.at(1000, [(A, Ok(server(A))), (B, Ok(replica(B, A)))])), (Some(A), 1));
    world.at(2000, [(A, silent())]);
    world.pods(3000, [term(6, true, pod(A, Primary)), term(7, true, pod(B, Primary))]);
    assert_eq!(who(&world.at(5001, [(B, Ok(server(B)))])), (Some(B), 2));
    // B dies with its pod; A is back as it was, with the only label there is.
    let alone = world.pods(6000, [term(6, true, pod(A, Primary))]);
    assert_eq!(alone.primary, None);
    let back = world.at(6001, [(A, Ok(server(A)))]);
    assert_eq!((back.primary, kinds(&back)), (None, vec!["old_term"]));
    assert!(back.why.contains("term 6 is older than 7 of db-1"), "{}", back.why);
    // The operator says so in a new term.
    world.pods(7000, [term(8, true, pod(A, Primary))]);
    assert_eq!(who(&world.at(7001, [(A, Ok(server(A)))])), (Some(A), 3));
}

#[test]
fn another_cluster_under_an_old_name_begins_anew() {
    let mut world = World::of_pods([term(6, true, pod(A, Primary))]);
    let had = executed(&[(A, 10)], server(A));
    assert_eq!(who(&world.at(1000, [(A, Ok(had))])), (Some(A), 1));
    world.pods(2000, [term(1, true, pod(B, Primary))]);
    assert_eq!(who(&world.at(2001, [(B, Ok(executed(&[(B, 1)], server(B))))])), (Some(B), 2));
}

#[test]
fn a_missing_label_keeps_reads_away_unless_all_are_missing() {
    let bare = |id| PodFacts { unlabelled_reads: false, ..pod(id, Label::None) };
    let labelled = |id, label| PodFacts { label, ..bare(id) };
    let said = || [(A, Ok(server(A))), (B, Ok(replica(B, A))), (C, Ok(replica(C, A)))];
    let mut world = World::of_pods([labelled(A, Primary), labelled(B, Follower), bare(C)]);
    let topology = world.at(1000, said());
    assert_eq!((who(&topology), serving(&topology, B), serving(&topology, C)), ((Some(A), 1), "yes", "no"));
    assert_eq!(topology.backend(BackendId(C)).unwrap().serving.reason(), Some("its pod has no role label"));
    // A primary without its label is still one.
    world.pods(2000, [bare(A), labelled(B, Follower), bare(C)]);
    let topology = world.at(2001, said());
    assert_eq!((who(&topology), serving(&topology, A), kinds(&topology)), ((Some(A), 1), "yes", vec!["no_label"]));
    // The operator is down and its labels are gone: proof goes on alone.
    world.pods(3000, [bare(A), bare(B), bare(C)]);
    let topology = world.at(3001, said());
    assert_eq!((who(&topology), serving(&topology, B), serving(&topology, C)), ((Some(A), 1), "yes", "yes"));
}

#[test]
fn a_group_is_judged_by_its_majority_whatever_the_labels_say() {
    let labels = |a, b, c| [pod(A, a), pod(B, b), pod(C, c)];
    for (pods, views, primary, conflicts) in [
        (labels(Primary, Follower, Follower), ["PSS", "PSS", "PSS"], Some(A), vec![]),
        // Frozen and resumed, with the label still on it.
        (labels(Primary, Follower, Follower), ["PSS", "-PS", "-PS"], Some(B), vec!["no_majority", "label_elsewhere"]),
        (labels(Primary, Primary, Follower), ["PSS", "PSS", "PSS"], Some(A), vec!["two_labels"]),
        (labels(Label::None, Label::None, Label::None), ["PSS", "PSS", "PSS"], Some(A), vec!["no_label"]),
        (labels(Follower, Primary, Follower), ["PSS", "PSS", "PSS"], Some(A), vec!["label_elsewhere"]),
        (labels(Primary, Follower, Follower), ["Puu", "", ""], None, vec!["no_majority"]),
    ] {
        let mut world = World::of_pods(pods);
        let said =
            |id: u32| (id, if views[id as usize].is_empty() { gone() } else { Ok(member(id, views[id as usize])) });
        let topology = world.at(1000, [said(A), said(B), said(C)]);
        assert_eq!(topology.primary.map(|id| id.0), primary, "{views:?}: {}", topology.why);
        assert_eq!(kinds(&topology), conflicts, "{views:?}");
    }
}

#[test]
fn a_read_replica_of_a_group_is_a_follower() {
    let mut world = World::of_pods([pod(A, Primary), pod(B, Follower), pod(C, Follower), pod(D, Follower)]);
    let all = [(A, Ok(member(A, "PSS"))), (B, Ok(member(B, "PSS"))), (C, Ok(member(C, "PSS"))), (D, Ok(replica(D, A)))];
    let topology = world.at(1000, all);
    assert_eq!((who(&topology), role(&topology, D)), ((Some(A), 1), (Role::Follower, true)));
}

#[test]
fn kinds_have_words() {
    for kind in [ConflictKind::TwoWritable, ConflictKind::NoLabel] {
        assert!(kind.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    }
}
