//! A change of the primary on its way: a switchover, wherever it was left, and a failover whose old primary is back.

use super::*;

const SWITCH_TO_B: [&str; 9] =
    ["claim b", "unlabel a", "fence a", "catch_up b", "announce b", "settle b", "promote b", "label b", "follow a"];

#[test]
fn row_10_switchover() {
    let mut asked = healthy();
    asked.wishes.switchover = Some(Switchover { target: Some(named('b')) });
    let mut any = healthy();
    any.wishes.switchover = Some(Switchover { target: None });
    let mut deleted = healthy();
    deleted.members[0].deleting = true;
    let mut fenced = healthy();
    fenced.members[0].fenced = true;
    for s in [asked, any, deleted, fenced] {
        let plan = decide(&s);
        let named = |step: &&str| *step != "follow a" || !s.members[0].fenced;
        let wanted: Vec<&str> = SWITCH_TO_B.into_iter().filter(named).collect();
        let seen: Vec<String> = steps(&plan).into_iter().filter(|step| step != "follow c").collect();
        assert_eq!(seen, wanted, "{}", plan.why);
        let how = Action::Fence { member: named_a(), how: Fencing::Planned };
        assert!(plan.steps.iter().any(|step| step.action == how), "commits in flight are acknowledged");
    }
    // To itself: nothing to do. To one that is not in sync: not now.
    let mut s = healthy();
    s.wishes.switchover = Some(Switchover { target: Some(named('a')) });
    check(&s, Phase::Ready, &[]);
    s.wishes.switchover = Some(Switchover { target: Some(named('b')) });
    s.members[1] = member('b', Ok(replica('b', 'a', Receiver::Connecting, "a1-9")));
    let plan = check(&s, Phase::Degraded, &[]);
    assert!(plan.why.contains("not b, which is in sync"), "{}", plan.why);
}

fn named_a() -> MemberName {
    named('a')
}

/// The record says that `b` takes over from `a` in term 5.
fn changing(a: Result<Answer, Failure>, b: Answer, c: Answer) -> Snapshot {
    let mut s = three(a, b, c);
    (s.record.target, s.record.term) = (Some(named('b')), Term(5));
    s
}

#[test]
fn a_switchover_goes_on_wherever_it_was_left() {
    let on = |m| replica(m, 'a', Receiver::On, "a1-9");
    let fenced = || booted('a', "a1-9");
    // After the claim.
    let wanted = ["unlabel a", "fence a", "catch_up b", "announce b", "settle b", "promote b", "label b", "follow c"];
    check(&changing(Ok(primary('a', "a1-9")), on('b'), on('c')), Phase::Changing, &wanted);
    // After the fence: nothing to fence.
    let plan = decide(&changing(Ok(fenced()), on('b'), on('c')));
    assert!(steps(&plan).starts_with(&["unlabel a".to_owned(), "catch_up b".to_owned()]), "{plan:?}");
    // After it was settled: never undone, whatever happened to the old one meanwhile.
    for old in [Ok(fenced()), Err(gone()), Ok(primary('a', "a1-9"))] {
        let mut s = changing(old, on('b'), on('c'));
        s.record.primary = Some(named('b'));
        let steps = steps(&decide(&s));
        assert!(steps.contains(&"promote b".to_owned()) && !steps.iter().any(|s| s.starts_with("claim")), "{steps:?}");
        let open = s.members[0].answer().is_some_and(|a| !a.read_only);
        assert_eq!(steps.contains(&"fence a".to_owned()), open, "{steps:?}");
    }
    // Somebody opened it by hand.
    check(&changing(Ok(fenced()), primary('b', "a1-9,b1"), on('c')), Phase::Changing, &["settle b"]);
}

#[test]
fn a_switchover_that_gets_nowhere_is_undone_before_the_promotion() {
    let mut s = changing(
        Ok(booted('a', "a1-9")),
        replica('b', 'a', Receiver::Connecting, "a1-5"),
        replica('c', 'a', Receiver::On, "a1-9"),
    );
    s.change_ms = CHANGE_MS_MAX + 1;
    let plan = check(&s, Phase::Changing, &["claim a"]);
    assert_eq!(plan.steps[0].action, Action::Claim { member: named('a'), term: Term(6) });
}

#[test]
fn a_failover_goes_on_although_the_old_primary_is_back() {
    let off = |m| replica(m, 'a', Receiver::Off, "a1-9");
    // Back as it booted, with a commit that nobody acknowledged.
    let s = changing(Ok(booted('a', "a1-10")), off('b'), off('c'));
    let plan = decide(&s);
    assert!(steps(&plan).contains(&"promote b".to_owned()), "{plan:?}");
    // Resumed, and still writable: fenced by force first.
    let plan = decide(&changing(Ok(primary('a', "a1-9")), off('b'), off('c')));
    assert_eq!(steps(&plan)[..2], ["unlabel a", "fence a"]);
    assert!(plan.steps.iter().any(|s| s.action == Action::Fence { member: named_a(), how: Fencing::Forced }));
}

#[test]
fn a_target_that_is_lost_is_replaced() {
    let off = |m| replica(m, 'a', Receiver::Off, "a1-9");
    let mut s = changing(Ok(booted('a', "a1-9")), booted('b', ""), off('c'));
    s.members[1].sight = Err(gone());
    let plan = decide(&s);
    assert!(steps(&plan).contains(&"promote a".to_owned()), "the undo of an interrupted switchover: {plan:?}");
}
