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
fn a_follower_that_is_late_loses_its_label_until_it_is_well_back() {
    for (label, lag_ms, wanted) in [
        (Some(Role::Follower), 10_000, &[][..]),
        (Some(Role::Follower), 10_001, &["unlabel b"]),
        (None, 5_001, &[]),
        (None, 5_000, &["label b"]),
    ] {
        for mut s in [healthy(), of_views("PSS", "PSS", "PSS")] {
            s.wishes.max_lag_ms = 10_000;
            (s.members[1].label, s.members[1].lag_ms) = (label, Some(lag_ms));
            assert_eq!(steps(&decide(&s)), wanted, "{label:?} {lag_ms}");
            s.wishes.max_lag_ms = 0;
            assert!(!steps(&decide(&s)).contains(&"unlabel b".to_owned()), "0: never");
        }
    }
}

#[test]
fn a_replica_that_does_not_reach_the_primary_is_said_and_keeps_its_label() {
    let mut s = healthy();
    s.members[1] = member('b', Ok(replica('b', 'a', Receiver::Connecting, "a1-9")));
    let plan = check(&s, Phase::Degraded, &[]);
    assert!(plan.why.contains("it hears nothing from the primary"), "{}", plan.why);
    // But it gets none.
    s.members[1].label = None;
    check(&s, Phase::Degraded, &[]);
}

#[test]
fn whoever_hears_nothing_proves_nothing_of_the_primary() {
    // Its receiver waits for room on its disk and calls itself ON all the while.
    let mut deaf = replica('c', 'a', Receiver::On, "a1-8");
    deaf.channel.as_mut().unwrap().silent = true;
    let mut s = healthy();
    s.members[2] = member('c', Ok(deaf.clone()));
    let plan = check(&s, Phase::Degraded, &[]);
    assert!(plan.why.contains("c: it hears nothing from the primary"), "{}", plan.why);
    let s = three(Err(gone()), replica('b', 'a', Receiver::Connecting, "a1-9"), deaf);
    check(&s, Phase::Changing, &["stop_receiver b", "stop_receiver c"]);
}
