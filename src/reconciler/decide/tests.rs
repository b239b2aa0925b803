//! Each row of the table, by hand-made snapshots. One letter per member: a, b, c; `a` is the recorded primary of term 4.
//! Which test on real servers each row has stands in `tests/reconcile_set.rs`.
#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod candidates;
mod changes;
mod group;
mod histories;
mod room;

use super::semisync::FOR_EVER_MS;
use super::{CHANGE_MS_MAX, decide};
use crate::reconciler::action::{Action, Fencing, Phase, Plan};
use crate::reconciler::resource::{Durability, TopologyKind};
use crate::reconciler::snapshot::*;
use crate::topology::report::{Failure, FailureKind, Receiver};
use crate::types::{Address, GtidSet, Role, Term, Uuid};

fn uuid(member: char) -> Uuid {
    Uuid([member as u8; 16])
}

/// `a1-5,b1` and the like.
fn gtids(text: &str) -> GtidSet {
    let long = |part: &str| format!("{}:{}", uuid(part.chars().next().unwrap()), &part[1..]);
    text.split(',').filter(|part| !part.is_empty()).map(long).collect::<Vec<_>>().join(",").parse().unwrap()
}

fn address(member: char) -> Address {
    Address { host: member.to_string().into(), port: 3306 }
}

fn named(member: char) -> MemberName {
    MemberName::from(&*member.to_string())
}

/// A writable server without a channel, whose commits wait for one replica and have two.
fn primary(member: char, executed: &str) -> Answer {
    let semisync = Semisync { source: true, acks: 1, timeout_ms: FOR_EVER_MS, replica: false, clients: 2, waiting: 0 };
    Answer {
        uuid: uuid(member),
        executed: gtids(executed),
        purged: GtidSet::default(),
        read_only: false,
        super_read_only: false,
        offline: false,
        full: false,
        channel: None,
        semisync,
        group: None,
    }
}

/// A server as it boots: read-only, receiving nothing.
fn booted(member: char, executed: &str) -> Answer {
    let semisync = Semisync { acks: 1, ..Semisync::default() };
    Answer { read_only: true, super_read_only: true, semisync, ..primary(member, executed) }
}

/// A replica of `source` that has executed and received these.
fn replica(member: char, source: char, receiver: Receiver, executed: &str) -> Answer {
    let channel = Channel {
        source_uuid: Some(uuid(source)),
        source: Some(address(source)),
        receiver,
        silent: false,
        received: GtidSet::default(),
        applying: true,
        error: None,
    };
    let semisync = Semisync { acks: 1, replica: true, ..Semisync::default() };
    Answer { channel: Some(channel), semisync, ..booted(member, executed) }
}

fn received(more: &str, mut answer: Answer) -> Answer {
    answer.channel.as_mut().unwrap().received = gtids(more);
    answer
}

fn gone() -> Failure {
    Failure { kind: FailureKind::Gone, text: "nobody listens".into() }
}

fn member(name: char, sight: Result<Answer, Failure>) -> Member {
    Member {
        name: named(name),
        address: address(name),
        fenced: false,
        deleting: false,
        leaving: false,
        stopped: false,
        busy: false,
        label: Some(if name == 'a' { Role::Primary } else { Role::Follower }),
        term: (name == 'a').then_some(Term(4)),
        lag_ms: None,
        sight: sight.map(Box::new),
    }
}

fn snapshot(members: Vec<Member>) -> Snapshot {
    let wishes = Wishes {
        topology: TopologyKind::Semisync,
        durability: Durability::Strict,
        auto_reclone: false,
        failover_delay_ms: 0,
        switchover: None,
        force: false,
        reclone: None,
        max_lag_ms: 0,
    };
    let known = Known { member: named('a'), uuid: uuid('a'), has: gtids("a1-5") };
    let record = Record {
        primary: Some(named('a')),
        target: Some(named('a')),
        term: Term(4),
        acks: Some((members.len() / 2) as u32),
        known: vec![known],
    };
    Snapshot { wishes, record, members, lost_ms: 60_000, change_ms: 0 }
}

fn three(a: Result<Answer, Failure>, b: Answer, c: Answer) -> Snapshot {
    snapshot(vec![member('a', a), member('b', Ok(b)), member('c', Ok(c))])
}

/// All is well.
fn healthy() -> Snapshot {
    three(Ok(primary('a', "a1-9")), replica('b', 'a', Receiver::On, "a1-9"), replica('c', 'a', Receiver::On, "a1-8"))
}

/// The steps as `verb member`, in order.
fn steps(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.action.to_string()).collect()
}

fn check(s: &Snapshot, phase: Phase, wanted: &[&str]) -> Plan {
    let plan = decide(s);
    assert_eq!((plan.phase, steps(&plan)), (phase, wanted.iter().map(|w| (*w).to_owned()).collect()), "{}", plan.why);
    assert!(plan.steps.iter().all(|step| !step.why.is_empty()), "each step has a reason: {plan:?}");
    plan
}

#[test]
fn nothing_is_done_while_all_is_well() {
    check(&healthy(), Phase::Ready, &[]);
}

#[test]
fn row_1_failover_when_enough_have_stopped_receiving() {
    // Nobody receives any more, but might again: first everybody stands still.
    let connecting = |m| replica(m, 'a', Receiver::Connecting, "a1-9");
    let s = three(Err(gone()), connecting('b'), connecting('c'));
    check(&s, Phase::Changing, &["stop_receiver b", "stop_receiver c"]);
    // Then the one that has all, executed or not.
    let off = |m, executed| replica(m, 'a', Receiver::Off, executed);
    let s = three(Err(gone()), off('b', "a1-9"), received("a6-10", off('c', "a1-6")));
    let wanted = ["claim c", "announce c", "unlabel a", "settle c", "promote c", "label c", "follow b"];
    let plan = check(&s, Phase::Changing, &wanted);
    assert!(plan.steps.iter().any(|s| s.action == Action::Claim { member: named('c'), term: Term(5) }));
    assert!(plan.steps.iter().any(|s| s.action == Action::Promote { member: named('c'), acks: 1 }));
}

#[test]
fn row_1_no_failover_with_too_few() {
    let off = || replica('b', 'a', Receiver::Off, "a1-9");
    // One of three: the other one may have more, and may still acknowledge to the lost one.
    let s = snapshot(vec![member('a', Err(gone())), member('b', Ok(off())), member('c', Err(gone()))]);
    let plan = check(&s, Phase::Waiting, &[]);
    assert!(plan.why.contains("1 more of the other members must answer"), "{}", plan.why);
    // One of two is enough: the only replica has every acknowledged commit.
    let s = snapshot(vec![member('a', Err(gone())), member('b', Ok(off()))]);
    assert!(steps(&decide(&s)).contains(&"promote b".to_owned()));
    // Five members, two acknowledgements: three must stand still.
    let mut five = vec![member('a', Err(gone())), member('b', Ok(off()))];
    five.push(member('c', Ok(replica('c', 'a', Receiver::Off, "a1-8"))));
    five.extend(['d', 'e'].map(|m| member(m, Err(gone()))));
    check(&snapshot(five.clone()), Phase::Waiting, &[]);
    five[3] = member('d', Ok(replica('d', 'a', Receiver::Off, "a1-7")));
    assert!(steps(&decide(&snapshot(five.clone()))).contains(&"promote b".to_owned()));
    // With commits that waited for one only (`preferred`), four must.
    let mut lowered = snapshot(five);
    lowered.record.acks = Some(1);
    check(&lowered, Phase::Waiting, &[]);
}

#[test]
fn row_1_waits_for_the_delay_of_the_spec() {
    let off = |m| replica(m, 'a', Receiver::Off, "a1-9");
    let mut s = three(Err(gone()), off('b'), off('c'));
    (s.wishes.failover_delay_ms, s.lost_ms) = (5000, 4999);
    check(&s, Phase::Waiting, &[]);
    s.lost_ms = 5000;
    assert!(steps(&decide(&s)).contains(&"promote b".to_owned()));
}

#[test]
fn row_2_who_is_still_being_served_proves_the_primary_alive() {
    let s = three(
        Err(Failure { kind: FailureKind::Silent, text: "no answer within 1s".into() }),
        replica('b', 'a', Receiver::Connecting, "a1-9"),
        replica('c', 'a', Receiver::On, "a1-9"),
    );
    let plan = check(&s, Phase::Waiting, &[]);
    assert!(plan.why.contains("c still receives from it: looking again"), "{}", plan.why);
}

#[test]
fn row_3_commits_that_wait() {
    // A replica that can be mended is mended, and nothing is lowered.
    let mut s = healthy();
    let waiting = Semisync { clients: 0, waiting: 3, ..primary('a', "").semisync };
    s.members[0] = member('a', Ok(Answer { semisync: waiting.clone(), ..primary('a', "a1-9") }));
    s.members[1] = member('b', Ok(replica('b', 'a', Receiver::Off, "a1-9")));
    s.members[2] = member('c', Err(gone()));
    s.wishes.durability = Durability::Preferred;
    check(&s, Phase::Degraded, &["unlabel b", "follow b"]);
    // None can: still never to 0.
    s.members[1] = member('b', Err(gone()));
    check(&s, Phase::Degraded, &[]);

    // Five members that wait for two, and one is left: `preferred` goes on with one, written down first.
    let mut five = snapshot(vec![
        member(
            'a',
            Ok(Answer { semisync: Semisync { acks: 2, clients: 1, waiting: 3, ..waiting }, ..primary('a', "a1-9") }),
        ),
        member('b', Ok(replica('b', 'a', Receiver::On, "a1-9"))),
        member('c', Err(gone())),
        member('d', Err(gone())),
        member('e', Err(gone())),
    ]);
    check(&five, Phase::Degraded, &[]);
    five.wishes.durability = Durability::Preferred;
    let plan = check(&five, Phase::Degraded, &["record_acks", "acks a"]);
    assert_eq!(plan.steps[0].action, Action::RecordAcks { acks: 1 });
    // Back again: on the server first.
    let both = Semisync { acks: 1, clients: 2, ..primary('a', "").semisync };
    five.record.acks = Some(1);
    five.members[0] = member('a', Ok(Answer { semisync: both, ..primary('a', "a1-9") }));
    five.members[2] = member('c', Ok(replica('c', 'a', Receiver::On, "a1-9")));
    let plan = check(&five, Phase::Degraded, &["acks a", "record_acks"]);
    assert_eq!(plan.steps[1].action, Action::RecordAcks { acks: 2 });
}

#[test]
fn row_3_semi_sync_is_turned_on_again_for_ever() {
    for semisync in [
        Semisync { source: false, ..primary('a', "").semisync },
        Semisync { timeout_ms: 10_000, ..primary('a', "").semisync },
        Semisync { acks: 2, ..primary('a', "").semisync },
    ] {
        let mut s = healthy();
        s.members[0] = member('a', Ok(Answer { semisync, ..primary('a', "a1-9") }));
        check(&s, Phase::Ready, &["acks a"]);
    }
}

#[test]
fn row_4_a_recorded_primary_that_is_read_only_is_finished() {
    let connecting = |m| replica(m, 'a', Receiver::Connecting, "a1-9");
    let s = three(Ok(booted('a', "a1-10")), connecting('b'), connecting('c'));
    check(&s, Phase::Changing, &["announce a", "promote a", "follow b", "follow c"]);
    // A fence that never finished is lifted, too.
    let half = Answer { super_read_only: true, ..primary('a', "a1-9") };
    let s = three(Ok(half), connecting('b'), connecting('c'));
    assert!(steps(&decide(&s)).contains(&"promote a".to_owned()));
}

#[test]
fn row_4_not_if_it_lost_its_data() {
    let off = |m| replica(m, 'a', Receiver::Off, "a1-9");
    // Another volume; the same volume without what it was seen to have; without what a replica got from it.
    for forgetful in [booted('x', ""), booted('a', "a1-4"), booted('a', "a1-8")] {
        let s = three(Ok(forgetful), off('b'), off('c'));
        let plan = decide(&s);
        assert!(steps(&plan).contains(&"promote b".to_owned()), "{plan:?}");
        assert!(!steps(&plan).contains(&"follow a".to_owned()), "{plan:?}");
    }
}

#[test]
fn row_5_of_two_writable_servers_the_one_not_recorded_is_fenced() {
    let mut s = healthy();
    s.members[1] = member('b', Ok(primary('b', "a1-9,b1")));
    let plan = check(&s, Phase::Degraded, &["unlabel b", "fence b"]);
    assert!(plan.steps.iter().any(|s| s.action == Action::Fence { member: named('b'), how: Fencing::Forced }));
}

#[test]
fn row_6_replicas_that_are_stopped_or_astray_are_pointed_right() {
    let other = Answer { semisync: Semisync::default(), ..replica('b', 'a', Receiver::On, "a1-9") };
    let mut applier = replica('b', 'a', Receiver::On, "a1-9");
    applier.channel.as_mut().unwrap().applying = false;
    for astray in [
        replica('b', 'a', Receiver::Off, "a1-9"),
        replica('b', 'c', Receiver::On, "a1-9"),
        booted('b', "a1-9"),
        Answer { offline: true, ..replica('b', 'a', Receiver::On, "a1-9") },
        other,
        applier.clone(),
    ] {
        let mut s = healthy();
        s.members[1] = member('b', Ok(astray));
        check(&s, Phase::Degraded, &["unlabel b", "follow b"]);
    }
    // What has failed is not repeated for ever: it is said.
    applier.channel.as_mut().unwrap().error = Some("1062 duplicate entry".into());
    let mut s = healthy();
    s.members[1] = member('b', Ok(applier));
    let plan = check(&s, Phase::Degraded, &["unlabel b"]);
    assert!(plan.why.contains("1062"), "{}", plan.why);
}

#[test]
fn row_7_empty_or_left_behind_is_cloned() {
    let mut s = healthy();
    s.members[1] = member('b', Ok(booted('b', "")));
    let plan = check(&s, Phase::Degraded, &["unlabel b", "clone b"]);
    // From the other replica: the primary has enough to do.
    assert_eq!(plan.steps[1].action, Action::Clone { member: named('b'), donor: named('c') });
    // While it is under way nothing else is done to it.
    s.members[1].busy = true;
    s.members[1].label = None;
    check(&s, Phase::Degraded, &[]);

    let mut s = healthy();
    s.members[0] = member('a', Ok(Answer { purged: gtids("a1-7"), ..primary('a', "a1-9") }));
    s.members[1] = member('b', Ok(replica('b', 'a', Receiver::Off, "a1-6")));
    check(&s, Phase::Degraded, &["unlabel b", "clone b"]);

    // An old primary that forgot what it began itself never gets it back by replication.
    let mut s = healthy();
    s.members[0] = member('a', Ok(primary('a', "a1-9,b1-4")));
    s.members[1] = member('b', Ok(booted('b', "a1-9,b1-3")));
    check(&s, Phase::Degraded, &["unlabel b", "clone b"]);
}

#[test]
fn row_8_errant_transactions() {
    let mut s = healthy();
    s.members[1] = member('b', Ok(replica('b', 'a', Receiver::On, "a1-9,b1-2")));
    let plan = check(&s, Phase::Degraded, &["unlabel b", "stop_receiver b"]);
    assert!(plan.why.contains(":1-2"), "{}", plan.why);
    s.wishes.auto_reclone = true;
    check(&s, Phase::Degraded, &["unlabel b", "stop_receiver b"]);
    s.members[1] = member('b', Ok(replica('b', 'a', Receiver::Off, "a1-9,b1-2")));
    let plan = check(&s, Phase::Degraded, &["unlabel b", "clone b"]);
    // Its copy of a9 may be why that was acknowledged: not from c, which lacks it.
    assert_eq!(plan.steps[1].action, Action::Clone { member: named('b'), donor: named('a') });
    // What it has of the primary's own is never errant, however old the primary's answer.
    let mut s = healthy();
    s.members[1] = member('b', Ok(replica('b', 'a', Receiver::On, "a1-12")));
    check(&s, Phase::Ready, &[]);
}

#[test]
fn row_11_all_down() {
    let mut s = healthy();
    s.members.iter_mut().for_each(|m| m.sight = Err(gone()));
    check(&s, Phase::Waiting, &[]);
    // The replicas alone can prove it only together; the old primary proves it alone.
    s.members[1] = member('b', Ok(booted('b', "a1-9")));
    check(&s, Phase::Waiting, &[]);
    s.members[0] = member('a', Ok(booted('a', "a1-9")));
    assert!(steps(&decide(&s)).contains(&"promote a".to_owned()));
}

#[test]
fn the_first_primary() {
    let new = |members: [Result<Answer, Failure>; 3]| {
        let mut s =
            snapshot(['a', 'b', 'c'].into_iter().zip(members).map(|(name, sight)| member(name, sight)).collect());
        s.record = Record::default();
        s.members.iter_mut().for_each(|m| (m.label, m.term) = (None, None));
        s
    };
    let empty = |m| Ok(booted(m, ""));
    let wanted = ["claim a", "announce a", "settle a", "promote a", "label a", "follow b", "follow c"];
    check(&new([empty('a'), empty('b'), empty('c')]), Phase::Creating, &wanted);
    check(&new([empty('a'), empty('b'), Err(gone())]), Phase::Creating, &[]);
    // One that has data begins; a running set is taken over as it is.
    assert_eq!(steps(&decide(&new([empty('a'), Ok(booted('b', "b1")), empty('c')])))[0], "claim b");
    let running = new([Ok(replica('a', 'b', Receiver::On, "b1")), Ok(primary('b', "b1")), empty('c')]);
    check(&running, Phase::Creating, &["claim b", "settle b", "announce b", "label b"]);
    check(&new([Ok(primary('a', "a1")), Ok(primary('b', "b1")), empty('c')]), Phase::Person, &[]);
    check(&new([Ok(booted('a', "a1")), Ok(booted('b', "b1")), empty('c')]), Phase::Person, &[]);
}

#[test]
fn a_fenced_replica_is_kept_from_traffic() {
    let mut s = healthy();
    s.members[1].fenced = true;
    check(&s, Phase::Degraded, &["unlabel b", "fence b"]);
}

#[test]
fn external_clusters_are_left_in_peace() {
    let told = |change: fn(&mut Snapshot), phase: Phase, why: &str| {
        let mut s = healthy();
        s.wishes.topology = TopologyKind::External;
        s.record = Record::default();
        change(&mut s);
        assert_eq!(check(&s, phase, &[]).why, why);
    };
    told(|_| {}, Phase::Ready, "");
    told(|s| s.members[2].sight = Err(gone()), Phase::Degraded, &format!("c: {}", gone().text));
    told(|s| s.members[0].sight = Err(gone()), Phase::Waiting, "a is labelled as the primary and takes no writes");
    told(|s| (s.members[0].sight, s.members[0].label) = (Err(gone()), None), Phase::Waiting, "no member takes writes");
    told(|s| s.members[0].label = None, Phase::Degraded, "a takes writes and is not labelled as the primary");
    told(
        |s| s.members[1].sight = Ok(Box::new(primary('b', "a1-9"))),
        Phase::Person,
        "a and b take writes at the same time",
    );
    told(
        |s| {
            s.members[0].sight = Ok(Box::new(booted('a', "a1-9")));
            s.members[1].sight = Ok(Box::new(primary('b', "a1-9")));
        },
        Phase::Degraded,
        "b takes writes, but a is labelled as the primary",
    );
}
