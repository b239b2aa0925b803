//! Full disks, and replicas that don't reach the primary: rows that came from faults inflicted on real servers.

use super::group::of_views;
use super::*;

fn full(mut s: Snapshot) -> Snapshot {
    if let Ok(answer) = &mut s.members[0].sight {
        answer.full = true;
    }
    s
}

#[test]
fn a_primary_without_room_makes_way_if_the_others_can_do_without_it() {
    let plan = check(&full(healthy()), Phase::Changing, &["unlabel a", "fence a"]);
    assert!(plan.why.contains("no room is left on the disk of a"), "{}", plan.why);
    // With one of them away nobody could take over: it stays what it is, and that is said.
    let mut s = full(healthy());
    s.members[2] = member('c', Err(gone()));
    let plan = check(&s, Phase::Degraded, &[]);
    assert!(plan.why.contains("no room is left on the disk of a"), "{}", plan.why);
    // Nor does one that has no room itself.
    let mut s = full(healthy());
    s.members[2] = member('c', Ok(Answer { full: true, ..replica('c', 'a', Receiver::On, "a1-9") }));
    check(&s, Phase::Degraded, &[]);
}

#[test]
fn a_groups_primary_without_room_makes_way_to_a_majority() {
    check(&full(of_views("PSS", "PSS", "PSS")), Phase::Degraded, &["unlabel a", "fence a"]);
    let mut s = full(of_views("PSS", "PSS", "PSS"));
    s.members[2] = member('c', Err(gone()));
    check(&s, Phase::Degraded, &[]);
}

#[test]
fn a_replica_that_does_not_reach_the_primary_is_said_and_keeps_its_label() {
    let mut s = healthy();
    s.members[1] = member('b', Ok(replica('b', 'a', Receiver::Connecting, "a1-9")));
    let plan = check(&s, Phase::Degraded, &[]);
    assert!(plan.why.contains("it does not reach the primary"), "{}", plan.why);
    // But it gets none.
    s.members[1].label = None;
    check(&s, Phase::Degraded, &[]);
}
