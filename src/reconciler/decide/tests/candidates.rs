//! Who bears witness to what a lost primary had, and who may follow it.

use super::*;

#[test]
fn row_8_an_errant_replica_is_no_witness() {
    let off = |m, executed| replica(m, 'a', Receiver::Off, executed);
    let s = three(Err(gone()), off('b', "a1-9"), off('c', "a1-9,c1"));
    check(&s, Phase::Waiting, &[]);
}

#[test]
fn a_clone_that_broke_off_is_no_witness() {
    let off = |m, executed| replica(m, 'a', Receiver::Off, executed);
    let mut s = three(Err(gone()), off('b', "a1-9"), booted('c', ""));
    assert!(steps(&decide(&s)).contains(&"promote b".to_owned()), "it was always empty");
    s.record.known.push(Known { member: named('c'), uuid: uuid('c'), has: gtids("a1-9") });
    check(&s, Phase::Waiting, &[]);
}

#[test]
fn row_9_candidates_that_can_not_be_ordered() {
    let off = |m, executed| replica(m, 'a', Receiver::Off, executed);
    let mut s = three(Err(gone()), off('b', "a1-9,x1"), off('c', "a1-9,y1"));
    // Nothing is known of what the primary had, so neither can be called errant.
    s.record.known.clear();
    check(&s, Phase::Person, &[]);
}

#[test]
fn row_9_a_replica_with_commits_that_wait_is_no_candidate() {
    let mut waits = replica('c', 'a', Receiver::Off, "a1-9");
    waits.semisync.waiting = 1;
    let s = three(Err(gone()), replica('b', 'a', Receiver::Off, "a1-9"), waits);
    check(&s, Phase::Waiting, &[]);
}
