//! The rows about groups. A view is one letter per member a, b, c: P primary, S secondary, r recovering, u unreachable,
//! `-` not in it.

use super::*;
use crate::topology::report::MemberState;

fn view(of: char, letters: &str, executed: &str) -> Answer {
    let mut members = Vec::new();
    for (name, letter) in ['a', 'b', 'c'].into_iter().zip(letters.chars()) {
        let (state, primary) = match letter {
            'P' => (MemberState::Online, true),
            'S' => (MemberState::Online, false),
            'r' => (MemberState::Recovering, false),
            'u' => (MemberState::Unreachable, false),
            'e' => (MemberState::Error, false),
            _ => continue,
        };
        members.push(GroupMember { uuid: uuid(name), state, primary });
    }
    let primary = members.iter().any(|m| m.uuid == uuid(of) && m.primary);
    let group = Some(GroupSight { members, received: GtidSet::default() });
    let fenced = !primary;
    Answer { read_only: fenced, super_read_only: fenced, group, ..booted(of, executed) }
}

fn group(members: [Result<Answer, Failure>; 3]) -> Snapshot {
    let mut s = snapshot(['a', 'b', 'c'].into_iter().zip(members).map(|(name, sight)| member(name, sight)).collect());
    s.wishes.topology = TopologyKind::Group;
    s
}

pub(super) fn of_views(a: &str, b: &str, c: &str) -> Snapshot {
    group([Ok(view('a', a, "x1-9")), Ok(view('b', b, "x1-9")), Ok(view('c', c, "x1-9"))])
}

#[test]
fn nothing_is_done_while_the_group_is_well() {
    check(&of_views("PSS", "PSS", "PSS"), Phase::Ready, &[]);
}

#[test]
fn what_the_group_decided_is_written_down_and_labelled() {
    let s = group([Err(gone()), Ok(view('b', "-PS", "x1-9")), Ok(view('c', "-PS", "x1-9"))]);
    let plan = check(&s, Phase::Changing, &["claim b", "unlabel a", "settle b", "announce b", "label b"]);
    assert_eq!(plan.steps[0].action, Action::Claim { member: named('b'), term: Term(5) });
    // Not while only one of them says so, and not before anybody is it.
    check(&group([Err(gone()), Ok(view('b', "uPS", "x1")), Err(gone())]), Phase::Waiting, &[]);
    check(&group([Err(gone()), Ok(view('b', "-SS", "x1")), Ok(view('c', "-SS", "x1"))]), Phase::Changing, &[]);
}

#[test]
fn a_primary_that_was_frozen_is_not_believed() {
    // It resumed and still thinks that it is the primary of all; the others have expelled it.
    let mut s = of_views("PSS", "-PS", "-PS");
    let plan = decide(&s);
    assert_eq!(steps(&plan)[0], "claim b");
    assert!(!steps(&plan).contains(&"fence a".to_owned()), "the group fences it by itself: {plan:?}");
    // Once it knows that it is out, it joins again.
    s.members[0] = member('a', Ok(view('a', "e--", "x1-9")));
    assert!(steps(&decide(&s)).contains(&"join a".to_owned()));
}

#[test]
fn who_left_is_brought_back_unless_it_has_more() {
    for left in ["--e", "---"] {
        let s = of_views("PS-", "PS-", left);
        check(&s, Phase::Degraded, &["unlabel c", "join c"]);
    }
    let mut s = group([Ok(view('a', "PS-", "x1-9")), Ok(view('b', "PS-", "x1-9")), Ok(view('c', "---", "x1-9,c1"))]);
    check(&s, Phase::Degraded, &["unlabel c"]);
    s.wishes.auto_reclone = true;
    check(&s, Phase::Degraded, &["unlabel c", "clone c"]);
    let open = Answer { read_only: false, super_read_only: false, ..view('c', "---", "x1-9") };
    s.members[2] = member('c', Ok(open));
    check(&s, Phase::Degraded, &["unlabel c", "fence c"]);
}

#[test]
fn a_group_that_is_down_is_founded_by_the_most_advanced_when_all_are_there() {
    let down = |executed: [&str; 3]| {
        let answers = ['a', 'b', 'c'].into_iter().zip(executed).map(|(m, executed)| Ok(view(m, "---", executed)));
        group(answers.collect::<Vec<_>>().try_into().unwrap())
    };
    let mut s = down(["x1-8", "x1-9", "x1-9"]);
    check(&s, Phase::Changing, &["claim b", "bootstrap b", "settle b", "announce b", "label b"]);
    s.members[2].sight = Err(gone());
    check(&s, Phase::Waiting, &[]);
    check(&down(["x1-8,a1", "x1-9", "x1-9"]), Phase::Person, &[]);
    // The one that was to found it is still to found it.
    let mut s = down(["x1-9", "x1-9", "x1-9"]);
    s.record.target = Some(named('a'));
    check(&s, Phase::Changing, &["bootstrap a"]);
}

#[test]
fn without_quorum_only_the_proven_dead_are_left_out() {
    let mut s = group([Err(gone()), Err(gone()), Ok(view('c', "uuS", "x1-9"))]);
    check(&s, Phase::Waiting, &[]);
    s.members[0].stopped = true;
    check(&s, Phase::Waiting, &[]);
    s.members[1].stopped = true;
    let plan = check(&s, Phase::Changing, &["force_members c"]);
    assert_eq!(plan.steps[0].action, Action::ForceMembers { member: named('c'), stay: vec![named('c')] });
}

#[test]
fn without_quorum_those_that_came_back_outside_of_it_are_left_out() {
    let two_lost = |c: &str, b: Answer| group([Ok(view('a', "---", "x1-9")), Ok(b), Ok(view('c', c, "x1-9"))]);
    check(&two_lost("uuS", view('b', "---", "x1-8")), Phase::Changing, &["force_members c"]);
    // One is not back yet, is writable, or is counted among the living: it has just joined.
    let mut s = two_lost("uuS", view('b', "---", "x1-9"));
    s.members[1].sight = Err(gone());
    check(&s, Phase::Waiting, &[]);
    let open = Answer { read_only: false, super_read_only: false, ..view('b', "---", "x1-9") };
    check(&two_lost("uuS", open), Phase::Waiting, &[]);
    check(&two_lost("uSP", view('b', "---", "x1-9")), Phase::Waiting, &[]);
}

#[test]
fn without_quorum_who_has_less_than_one_that_left_gives_the_group_up() {
    let left = |a: &str, b: &str| {
        let (a, b) = (view('a', "---", a), view('b', "---", b));
        group([Ok(a), Ok(b), Ok(view('c', "uuS", "x1-9"))])
    };
    let plan = check(&left("x1-9", "x1-10"), Phase::Changing, &["leave c"]);
    assert!(plan.why.contains("b left it with what c lacks"), "{}", plan.why);
    check(&left("x1-11", "x1-10"), Phase::Changing, &["leave c"]);
    // Then nobody is left, and it is founded by who has all.
    let mut s = left("x1-9", "x1-10");
    s.members[2].sight = Ok(Box::new(view('c', "---", "x1-9")));
    check(&s, Phase::Changing, &["claim b", "bootstrap b", "settle b", "announce b", "label b"]);
    // Whose histories don't contain each other are for a person; who is not there may have still more.
    check(&left("x1-9,y1", "x1-10"), Phase::Person, &[]);
    let mut s = left("x1-9", "x1-10");
    s.members[0].sight = Err(gone());
    check(&s, Phase::Waiting, &[]);
    s.members[0].stopped = true;
    check(&s, Phase::Waiting, &[]);
    // Neither is one that has joined since, nor one whose server does not belong to the cluster.
    let mut s = left("x1-9", "x1-10");
    s.members[2].sight = Ok(Box::new(view('c', "SuS", "x1-9")));
    check(&s, Phase::Waiting, &[]);
    let mut s = left("x1-9", "x1-10");
    s.members.remove(0);
    check(&s, Phase::Waiting, &[]);
}

#[test]
fn two_groups_are_for_a_person() {
    check(&of_views("P--", "-PS", "-PS"), Phase::Person, &[]);
}

#[test]
fn two_that_have_lost_sight_of_each_other_are_one_group_while_the_third_sees_both() {
    check(&of_views("PuS", "uSS", "PSS"), Phase::Degraded, &["unlabel b"]);
}

#[test]
fn the_primary_of_a_group_is_moved_by_the_group() {
    let mut s = of_views("PSS", "PSS", "PSS");
    s.wishes.switchover = Some(Switchover { target: Some(named('c')) });
    let plan = check(&s, Phase::Changing, &["elect c"]);
    assert_eq!(plan.steps[0].action, Action::Elect { member: named('c'), uuid: uuid('c') });
    let mut s = of_views("PSS", "PSS", "PSS");
    s.members[0].deleting = true;
    check(&s, Phase::Changing, &["elect b"]);
    // It has moved, and the wish is one of the term before: that is no reason to move again.
    let mut s = of_views("SPS", "SPS", "SPS");
    s.wishes.switchover = Some(Switchover { target: None });
    let steps = ["claim b", "unlabel a", "settle b", "announce b", "label b", "label a"];
    check(&s, Phase::Changing, &steps);
}
