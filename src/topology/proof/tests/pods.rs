//! The lives of pods: they come, move, are restarted, and go.

use super::*;
use crate::topology::kubernetes::{Group, Label, PodFacts, PodState};
use Label::{Follower, Primary};

pub(super) fn pod(id: u32, label: Label) -> PodFacts {
    PodFacts {
        group: Group { namespace: "shop".into(), cluster: "orders".into(), component: "".into() },
        name: format!("db-{id}").into(),
        uid: format!("uid-{id}").into(),
        address: Some(address(id)),
        state: PodState::Ready,
        restarts: 0,
        label,
        unlabelled_reads: true,
        term: None,
    }
}

fn going(state: PodState, pod: PodFacts) -> PodFacts {
    PodFacts { state, ..pod }
}

impl World {
    pub(super) fn of_pods<const N: usize>(pods: [PodFacts; N]) -> Self {
        let mut world = Self::with(Source::Pods);
        world.pods(0, pods);
        world
    }

    pub(super) fn pods<const N: usize>(&mut self, ms: u64, pods: [PodFacts; N]) -> Arc<Topology> {
        self.0.follow_pods(&pods.map(Arc::new), now(ms));
        self.0.round(now(ms))
    }
}

pub(super) fn serving(topology: &Topology, id: u32) -> &'static str {
    topology.backend(BackendId(id)).map_or("unknown", |backend| backend.serving.as_str())
}

#[test]
fn a_pod_under_the_same_name_is_another_server() {
    let mut world = World::of_pods([pod(A, Primary), pod(B, Follower)]);
    assert_eq!(who(&world.at(1000, [(A, Ok(server(A))), (B, Ok(replica(B, A)))])), (Some(A), 1));
    let moved = PodFacts { address: Some(address(C)), uid: "uid-new".into(), ..pod(A, Primary) };
    let topology = world.pods(2000, [moved.clone(), pod(B, Follower)]);
    // Dropped at once, not after a drain; who is there still follows nobody that could be asked.
    assert!(topology.backend(BackendId(A)).is_none());
    assert_eq!((who(&topology), topology.backend(BackendId(2)).unwrap().address.port), ((None, 1), 3302));
    assert_eq!(who(&world.at(2001, [(2, Ok(server(A))), (B, Ok(replica(B, A)))])), (Some(2), 2));
    // The same address, and another pod: what the old one said is nobody's.
    let other = PodFacts { uid: "uid-newer".into(), ..moved };
    let topology = world.pods(3000, [other, pod(B, Follower)]);
    assert_eq!(who(&topology), (None, 2));
    assert_eq!(role(&topology, 2), (Role::Unknown, false));
    assert_eq!(who(&world.at(3001, [(2, Ok(server(A)))])), (Some(2), 2));
}

#[test]
fn an_answer_from_before_the_pod_was_another_proves_nothing() {
    let mut world = World::of_pods([pod(A, Primary)]);
    world.at(1000, [(A, Ok(server(A)))]);
    world.pods(2000, [PodFacts { uid: "uid-new".into(), ..pod(A, Primary) }]);
    world.0.observe(Observation { backend: BackendId(A), asked_ms: 1999, outcome: Ok(server(A)) });
    assert_eq!(who(&world.0.round(now(2001))), (None, 1));
}

#[test]
fn of_two_pods_at_one_address_the_one_that_stays() {
    let old = going(PodState::Deleting, pod(A, Primary));
    let new = PodFacts { uid: "uid-new".into(), name: "db-9".into(), ..pod(A, Follower) };
    for pods in [[old.clone(), new.clone()], [new, old]] {
        let topology = World::of_pods(pods).0.round(now(1));
        assert_eq!(topology.backends.len(), 1);
        assert_eq!(&*topology.backends[0].pod.as_ref().unwrap().uid, "uid-new");
    }
}

#[test]
fn a_new_pod_does_not_stop_the_primary() {
    let mut world = World::of_pods([pod(A, Primary)]);
    assert_eq!(who(&world.at(1000, [(A, Ok(server(A)))])), (Some(A), 1));
    let grown = world.pods(1100, [pod(A, Primary), pod(B, Follower)]);
    assert_eq!((who(&grown), grown.doubt), ((Some(A), 1), false));
    // But who it is must be asked before anybody else becomes the primary.
    let mut world = World::of_pods([pod(A, Primary), pod(B, Follower)]);
    assert_eq!(who(&world.at(1000, [(A, Ok(server(A)))])), (None, 0));
}

#[test]
fn pods_that_go_are_drained_and_then_cut() {
    use PodState::{Cordoned, Deleting, Ready, Unhealthy, Unready};
    // (state, primary before and after the deadline, follower before and after)
    for (state, primary, follower) in [
        (Ready, ["yes", "yes"], ["yes", "yes"]),
        (Unready, ["yes", "yes"], ["draining", "drained"]),
        (Unhealthy, ["yes", "yes"], ["draining", "drained"]),
        (Cordoned, ["draining", "drained"], ["draining", "drained"]),
        (Deleting, ["draining", "yes"], ["draining", "drained"]),
    ] {
        let mut world = World::of_pods([pod(A, Primary), pod(B, Follower)]);
        let said = || [(A, Ok(server(A))), (B, Ok(replica(B, A)))];
        world.at(1000, said());
        world.pods(2000, [going(state, pod(A, Primary)), going(state, pod(B, Follower))]);
        for (i, ms) in [2001, 62_000].into_iter().enumerate() {
            let topology = world.at(ms, said());
            assert_eq!(who(&topology), (Some(A), 1), "{state:?}");
            let now = (serving(&topology, A), serving(&topology, B));
            assert_eq!(now, (primary[i], follower[i]), "{state:?} at {ms}");
            assert_eq!(topology.accepting, primary[i] == "yes");
        }
        // And back.
        world.pods(63_000, [pod(A, Primary), pod(B, Follower)]);
        let topology = world.at(63_001, said());
        assert_eq!((serving(&topology, A), serving(&topology, B)), ("yes", "yes"));
    }
}

#[test]
fn a_drained_pod_that_is_silent_is_still_cut() {
    let mut world = World::of_pods([pod(A, Primary), going(PodState::Deleting, pod(B, Follower))]);
    let topology = world.at(1000, [(A, Ok(server(A))), (B, gone())]);
    assert_eq!(serving(&topology, B), "no");
    let topology = world.at(60_000, [(A, Ok(server(A))), (B, gone())]);
    assert!(
        matches!(&topology.backend(BackendId(B)).unwrap().serving, Serving::Drained { reason } if &**reason == "its pod is being deleted")
    );
}

#[test]
fn silence_is_counted_from_the_first_question_without_any_answer() {
    let mut world = World::of_pods([pod(A, Primary), pod(B, Follower)]);
    let silence = Limits::default().silence_ms;
    let mut is_silent = |ms, said| {
        let topology = world.at(ms, [(A, Ok(server(A))), (B, said)]);
        (topology.backend(BackendId(B)).unwrap().silent, topology.version)
    };
    let (_, version) = is_silent(1000, Ok(replica(B, A)));
    assert!(!is_silent(2000, silent()).0 && !is_silent(2000 + silence - 1, gone()).0);
    let (is, after) = is_silent(2000 + silence, silent());
    assert!(is && after > version, "and whoever waits for news hears of it");
    // One that refuses the question is alive, and so is one that answers.
    for said in [barred(), Ok(replica(B, A))] {
        assert!(!is_silent(20_000 + silence, said).0);
        assert!(!is_silent(21_000 + silence, silent()).0, "counted anew");
        assert!(is_silent(21_000 + 2 * silence, silent()).0);
    }
}

#[test]
fn a_restart_casts_doubt_until_the_next_answer() {
    let mut world = World::of_pods([pod(A, Primary)]);
    assert!(!world.at(1000, [(A, Ok(server(A)))]).doubt);
    assert!(world.pods(1100, [PodFacts { restarts: 1, ..pod(A, Primary) }]).doubt);
    assert!(!world.at(1101, [(A, Ok(server(A)))]).doubt);
    // The same facts again are no news.
    assert!(!world.pods(1200, [PodFacts { restarts: 1, ..pod(A, Primary) }]).doubt);
}

#[test]
fn the_heir_of_a_set_has_the_label_or_is_alone() {
    let mut world = World::of_pods([pod(A, Primary), pod(B, Follower), pod(C, Follower)]);
    let all = [(A, Ok(server(A))), (B, Ok(replica(B, A))), (C, Ok(replica(C, A)))];
    assert_eq!(world.at(1000, all).heir, None);
    assert_eq!(world.at(2000, [(A, gone())]).heir, None, "B or C");
    assert_eq!(world.pods(3000, [pod(A, Follower), pod(B, Follower), pod(C, Primary)]).heir, Some(BackendId(C)));
    world.pods(4000, [pod(A, Follower), pod(B, Follower), pod(C, Follower)]);
    assert_eq!(world.at(5000, [(C, gone())]).heir, Some(BackendId(B)));
    let topology = world.at(6000, [(B, Ok(server(B)))]);
    assert_eq!((topology.primary, topology.heir), (Some(BackendId(B)), None));
}
