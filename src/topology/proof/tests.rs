//! Histories: who said what when, and what the snapshot makes of it. Through [`Picture`], because memory matters.

mod groups;
mod labels;
mod pods;
mod random;

use crate::topology::picture::Picture;
use crate::topology::proof::Now;
use crate::topology::report::*;
use crate::topology::settings::{Limits, RoleHint, ServerEntry, Source};
use crate::topology::snapshot::{Flavor, Serving, Topology};
use crate::types::{Address, BackendId, ClusterName, Gtids, Role, Term};
use std::sync::Arc;

const A: u32 = 0;
const B: u32 = 1;
const C: u32 = 2;

fn address(id: u32) -> Address {
    Address { host: "db".into(), port: 3300 + id as u16 }
}

fn uuid(id: u32) -> Arc<str> {
    format!("{id:08x}-0000-4000-8000-000000000000").into()
}

fn now(ms: u64) -> Now {
    Now { ms, unix_ms: 1_000_000 + ms }
}

fn greeting() -> Arc<ServerGreeting> {
    let (version, plugin) = ("9.7.4".into(), "caching_sha2_password".into());
    Arc::new(ServerGreeting { version, flavor: Flavor::MySql, capabilities: 0xF, collation: 255, plugin })
}

/// A server that answers: writable, alone, having executed nothing.
fn server(id: u32) -> Report {
    Report {
        server_uuid: Some(uuid(id)),
        server_id: id,
        read_only: false,
        offline: false,
        gtids: None,
        group: None,
        channels: Vec::new(),
        greeting: greeting(),
    }
}

fn read_only(id: u32) -> Report {
    Report { read_only: true, ..server(id) }
}

fn offline(report: Report) -> Report {
    Report { offline: true, ..report }
}

/// With a channel from `source`.
fn from(source: u32, receiver: Receiver, report: Report) -> Report {
    let channel =
        Channel { source_uuid: Some(uuid(source)), source_server_id: None, source: Some(address(source)), receiver };
    Report { channels: vec![channel], ..report }
}

fn replica(id: u32, source: u32) -> Report {
    from(source, Receiver::On, read_only(id))
}

/// Having executed these transactions of each source.
fn executed(sets: &[(u32, u64)], report: Report) -> Report {
    let text: Vec<String> = sets.iter().map(|(id, last)| format!("{}:1-{last}", uuid(*id))).collect();
    Report { gtids: Some(Arc::new(Gtids::MySql(text.join(",").parse().unwrap()))), ..report }
}

/// A member with a view: one letter per member, A to C: P primary, S secondary, u/U unreachable secondary/primary,
/// r recovering, e error, o offline, `-` not in it.
fn member(id: u32, view: &str) -> Report {
    let one = |(i, letter): (usize, char)| {
        let (state, primary) = match letter {
            'P' => (MemberState::Online, true),
            'S' => (MemberState::Online, false),
            'U' => (MemberState::Unreachable, true),
            'u' => (MemberState::Unreachable, false),
            'r' => (MemberState::Recovering, false),
            'e' => (MemberState::Error, false),
            'o' => (MemberState::Offline, false),
            _ => return None,
        };
        Some(Member { uuid: uuid(i as u32), address: Some(address(i as u32)), state, primary })
    };
    let members = view.chars().enumerate().filter_map(one).collect();
    let primary = view.chars().nth(id as usize) == Some('P');
    Report { read_only: !primary, group: Some(GroupView { members }), ..server(id) }
}

fn gone() -> Result<Report, Failure> {
    Err(Failure { kind: FailureKind::Gone, text: "connection refused".into() })
}

fn silent() -> Result<Report, Failure> {
    Err(Failure { kind: FailureKind::Silent, text: "no answer".into() })
}

fn barred() -> Result<Report, Failure> {
    Err(Failure { kind: FailureKind::Barred, text: "access denied".into() })
}

/// A cluster under test.
struct World(Picture);

impl World {
    fn of(servers: u32) -> Self {
        let entry = |id| ServerEntry { address: address(id), weight: 1, role_hint: None };
        Self::with(Source::Static { servers: (0..servers).map(entry).collect() })
    }

    fn with(source: Source) -> Self {
        Self(Picture::new(ClusterName::from("test"), source, Limits::default(), now(0)))
    }

    /// At `ms` these answers to questions of that moment come in, in order; what the snapshot is then.
    fn at<const N: usize>(&mut self, ms: u64, said: [(u32, Result<Report, Failure>); N]) -> Arc<Topology> {
        for (id, outcome) in said {
            self.0.observe(Observation { backend: BackendId(id), asked_ms: ms, outcome });
            self.0.round(now(ms));
        }
        self.0.round(now(ms))
    }
}

/// (primary, term), the parts most rules are about.
fn who(topology: &Topology) -> (Option<u32>, u64) {
    (topology.primary.map(|id| id.0), topology.term.0)
}

fn role(topology: &Topology, id: u32) -> (Role, bool) {
    let backend = topology.backend(BackendId(id)).unwrap();
    (backend.role, backend.serving == Serving::Yes)
}

fn kinds(topology: &Topology) -> Vec<&'static str> {
    topology.conflicts.iter().map(|conflict| conflict.kind.as_str()).collect()
}

#[test]
fn first_answers_of_a_set() {
    let half_fenced = offline(server(A));
    // What A and B say; the primary; a word of the evidence.
    for (a, b, primary, evidence) in [
        (Ok(server(A)), Ok(replica(B, A)), Some(A), "writable"),
        (Ok(replica(A, B)), Ok(server(B)), Some(B), "writable"),
        (Ok(server(A)), gone(), Some(A), "writable"),
        (Ok(server(A)), silent(), Some(A), "writable"),
        (Ok(read_only(A)), Ok(replica(B, A)), None, "read-only"),
        (Ok(half_fenced), Ok(replica(B, A)), None, "offline_mode"),
        (gone(), Ok(replica(B, A)), None, "connection refused"),
        (gone(), gone(), None, "connection refused"),
        (barred(), Ok(replica(B, A)), None, "access denied"),
        // Two that can be written.
        (Ok(server(A)), Ok(server(B)), None, "more than one"),
        (Ok(server(A)), Ok(from(A, Receiver::On, server(B))), Some(A), "writable"),
        (Ok(server(A)), Ok(from(A, Receiver::Connecting, server(B))), Some(A), "writable"),
        (Ok(server(A)), Ok(from(A, Receiver::Off, server(B))), Some(A), "writable"),
        (Ok(from(B, Receiver::On, server(A))), Ok(from(A, Receiver::On, server(B))), None, "follows another"),
        (Ok(from(B, Receiver::Off, server(A))), Ok(from(A, Receiver::Off, server(B))), None, "follows another"),
        // A ring with one writable half; a replica left writable under a fenced source.
        (Ok(from(B, Receiver::On, server(A))), Ok(replica(B, A)), Some(A), "writable"),
        (Ok(read_only(A)), Ok(from(A, Receiver::On, server(B))), None, "follows another"),
        // Its source is dead: promoted only once its channel is stopped.
        (gone(), Ok(from(A, Receiver::Connecting, server(B))), None, "follows another"),
        (gone(), Ok(from(A, Receiver::Off, server(B))), Some(B), "writable"),
        // Fewer transactions are no proof of being stale.
        (Ok(executed(&[(A, 9)], server(A))), Ok(executed(&[(A, 5)], server(B))), None, "more than one"),
    ] {
        let mut world = World::of(2);
        let topology = world.at(1000, [(A, a.clone()), (B, b.clone())]);
        assert_eq!(topology.primary.map(|id| id.0), primary, "{a:?} {b:?}: {}", topology.why);
        assert!(topology.why.contains(evidence), "{}", topology.why);
    }
}

#[test]
fn nobody_is_primary_of_a_set_before_all_were_asked() {
    let mut world = World::of(2);
    assert_eq!(who(&world.at(1000, [(A, Ok(server(A)))])), (None, 0));
    assert_eq!(who(&world.at(1010, [(B, Ok(server(B)))])), (None, 0));
    let mut alone = World::of(1);
    assert_eq!(who(&alone.at(1000, [(A, Ok(server(A)))])), (Some(A), 1));
}

#[test]
fn a_role_in_the_configuration_decides_nothing() {
    let entry = |id, role_hint| ServerEntry { address: address(id), weight: 1, role_hint };
    let servers = vec![entry(A, Some(RoleHint::Primary)), entry(B, Some(RoleHint::Follower))];
    let mut world = World::with(Source::Static { servers });
    let topology = world.at(1000, [(A, Ok(server(A))), (B, Ok(server(B)))]);
    assert_eq!(who(&topology), (None, 0));
    assert!(topology.why.contains("proves nothing"), "{}", topology.why);
    let topology = world.at(2000, [(A, Ok(replica(A, B))), (B, Ok(server(B)))]);
    assert_eq!(who(&topology), (Some(B), 1));
}

#[test]
fn terms_count_servers_not_gaps() {
    let mut world = World::of(2);
    assert_eq!(who(&world.at(1000, [(A, Ok(server(A))), (B, Ok(replica(B, A)))])), (Some(A), 1));
    assert_eq!(who(&world.at(2000, [(A, gone())])), (None, 1));
    assert_eq!(who(&world.at(3000, [(A, Ok(server(A)))])), (Some(A), 1));
    // Planned: A is fenced, then B opened, then A follows it.
    assert_eq!(who(&world.at(4000, [(A, Ok(read_only(A)))])), (None, 1));
    assert_eq!(who(&world.at(4100, [(B, Ok(server(B)))])), (Some(B), 2));
    assert_eq!(who(&world.at(4200, [(A, Ok(replica(A, B)))])), (Some(B), 2));
    // And back.
    assert_eq!(who(&world.at(5000, [(B, Ok(read_only(B)))])), (None, 2));
    assert_eq!(who(&world.at(5100, [(A, Ok(server(A)))])), (Some(A), 3));
    // Another server behind the same address.
    assert_eq!(who(&world.at(6000, [(A, Ok(Report { server_uuid: Some(uuid(9)), ..server(A) }))])), (Some(A), 4));
}

#[test]
fn doubt_keeps_a_primary_and_silence_ends_it() {
    let mut world = World::of(2);
    let proven = world.at(1000, [(A, Ok(server(A))), (B, Ok(replica(B, A)))]);
    assert!(!proven.doubt);
    assert_eq!(proven.proven_ms, Some(1000));
    // A hint.
    world.0.suspect(BackendId(A), 1500);
    let doubted = world.0.round(now(1500));
    assert_eq!((who(&doubted), doubted.doubt, doubted.proven_ms), ((Some(A), 1), true, Some(1000)));
    assert!(doubted.version > proven.version);
    assert!(doubted.primary_for_writes(1500, 1000).is_some());
    assert!(doubted.primary_for_writes(1500, 400).is_none());
    // An answer to a question asked before the hint is no proof.
    assert!(world.at(1400, [(A, Ok(server(A)))]).doubt);
    let again = world.at(1501, [(A, Ok(server(A)))]);
    assert_eq!((again.doubt, again.proven_ms), (false, Some(1501)));
    // One silent question is doubt, silence for longer than an answer counts is the end.
    let doubted = world.at(2500, [(A, silent())]);
    assert_eq!((who(&doubted), doubted.doubt), ((Some(A), 1), true));
    world.at(4000, [(B, Ok(replica(B, A)))]);
    assert_eq!(who(&world.0.round(now(5501))), (Some(A), 1));
    assert_eq!(who(&world.0.round(now(5502))), (None, 1));
    // Refused accounts prove nothing, closed ports end it at once.
    for end in [gone(), barred()] {
        assert_eq!(who(&world.at(6000, [(A, Ok(server(A))), (B, Ok(replica(B, A)))])), (Some(A), 1));
        assert_eq!(who(&world.at(6001, [(A, end)])), (None, 1));
        world = World::of(2);
    }
}

#[test]
fn a_primary_that_comes_back_writable_is_stale_only_if_it_holds_nothing_new() {
    for (a_has, primary) in [(10, Some(B)), (11, None)] {
        let mut world = World::of(2);
        world.at(1000, [(A, Ok(executed(&[(A, 10)], server(A)))), (B, Ok(executed(&[(A, 10)], replica(B, A))))]);
        world.at(2000, [(A, gone())]);
        let promoted = executed(&[(A, 10), (B, 5)], server(B));
        assert_eq!(who(&world.at(3000, [(B, Ok(promoted.clone()))])), (Some(B), 2));
        let back = executed(&[(A, a_has)], server(A));
        let topology = world.at(4000, [(A, Ok(back.clone())), (B, Ok(promoted))]);
        assert_eq!(topology.primary.map(|id| id.0), primary, "A has {a_has}: {}", topology.why);
        // With B dead A must not win by being the only one: it lacks what B wrote.
        let topology = world.at(5000, [(B, gone()), (A, Ok(back))]);
        assert_eq!(who(&topology), (None, 2));
        assert!(topology.why.contains("lacks"), "{}", topology.why);
        // Fenced and opened again it is a new candidate like any other.
        world.at(6000, [(A, Ok(read_only(A)))]);
        assert_eq!(who(&world.at(7000, [(A, Ok(server(A)))])), (Some(A), 3));
    }
}

#[test]
fn a_promotion_beside_a_living_primary_stops_both() {
    let mut world = World::of(2);
    world.at(1000, [(A, Ok(executed(&[(A, 10)], server(A)))), (B, Ok(replica(B, A)))]);
    let rival = executed(&[(A, 9)], server(B));
    assert_eq!(who(&world.at(2000, [(B, Ok(rival.clone()))])), (None, 1));
    // The old one silent: its last answer still counts for a while.
    assert_eq!(who(&world.at(2500, [(A, silent()), (B, Ok(rival.clone()))])), (None, 1));
    // And then it lacks what A was seen to have, until it has applied that.
    let late = world.at(5001, [(B, Ok(rival))]);
    assert_eq!(who(&late), (None, 1));
    assert!(late.why.contains("lacks 1 transactions"), "{}", late.why);
    assert_eq!(who(&world.at(5002, [(B, Ok(executed(&[(A, 10)], server(B))))])), (Some(B), 2));
}

#[test]
fn followers_of_a_set() {
    let stopped = from(A, Receiver::Off, read_only(B));
    let behind = executed(&[(A, 3)], read_only(B));
    for (b, expected) in [
        (Ok(replica(B, A)), (Role::Follower, true)),
        (Ok(stopped), (Role::Follower, true)),
        (Ok(from(A, Receiver::On, server(B))), (Role::Follower, true)),
        (Ok(from(C, Receiver::On, read_only(B))), (Role::Follower, true)),
        (Ok(read_only(B)), (Role::Unknown, false)),
        (Ok(behind), (Role::Follower, true)),
        (Ok(from(7, Receiver::On, read_only(B))), (Role::Unknown, false)),
        (Ok(offline(replica(B, A))), (Role::Unknown, false)),
        (Ok(from(A, Receiver::Off, server(B))), (Role::Unknown, false)),
        (gone(), (Role::Unknown, false)),
        (barred(), (Role::Unknown, false)),
    ] {
        let mut world = World::of(3);
        let a = executed(&[(A, 5)], server(A));
        world.at(1000, [(A, Ok(a.clone())), (B, b.clone()), (C, Ok(replica(C, A)))]);
        let topology = world.at(1001, [(A, Ok(a)), (B, b.clone())]);
        assert_eq!(who(&topology), (Some(A), 1));
        assert_eq!(role(&topology, B), expected, "{b:?}");
    }
    // One silent question leaves a follower alone.
    let mut world = World::of(2);
    world.at(1000, [(A, Ok(server(A))), (B, Ok(replica(B, A)))]);
    assert_eq!(role(&world.at(2000, [(B, silent())]), B), (Role::Follower, true));
    assert_eq!(role(&world.at(5001, [(A, Ok(server(A)))]), B), (Role::Unknown, false));
}

#[test]
fn lag_is_measured_and_does_not_renew_the_version() {
    let mut world = World::of(2);
    let said = |n| (A, Ok(executed(&[(A, n)], server(A))));
    world.at(1000, [said(1), (B, Ok(executed(&[(A, 1)], replica(B, A))))]);
    world.at(2000, [said(2)]);
    let before = world.at(2001, [(B, Ok(executed(&[(A, 2)], replica(B, A))))]);
    assert_eq!(before.backend(BackendId(B)).unwrap().lag_ms, Some(0));
    world.at(3000, [said(3)]);
    let after = world.at(3300, [(B, Ok(executed(&[(A, 2)], replica(B, A))))]);
    assert_eq!(after.backend(BackendId(B)).unwrap().lag_ms, Some(300));
    assert_eq!(after.version, before.version);
    assert_eq!(after.proven_ms, Some(3000));
}

#[test]
fn a_reload_drains_and_keeps_ids() {
    let entry = |id| ServerEntry { address: address(id), weight: 1, role_hint: None };
    let mut world = World::of(2);
    world.at(1000, [(A, Ok(server(A))), (B, Ok(replica(B, A)))]);
    world.0.configure(Source::Static { servers: vec![entry(A), entry(C)] }, now(1100));
    let topology = world.0.current().clone();
    assert_eq!(topology.backend(BackendId(B)).unwrap().serving.as_str(), "draining");
    assert_eq!(topology.backend(BackendId(2)).unwrap().address, address(C));
    world.0.round(now(61_100));
    assert!(world.0.current().backend(BackendId(B)).is_none());
    world.0.configure(Source::Static { servers: vec![entry(B)] }, now(61_200));
    assert_eq!(world.0.current().backend(BackendId(B)).unwrap().address, address(B));
    // A primary that is taken out is none any more.
    assert_eq!(world.0.current().primary, None);
}

#[test]
fn the_facade_is_the_primarys_and_what_all_can_do() {
    let greets = |version: &str, capabilities, report: Report| {
        let greeting = ServerGreeting { version: version.into(), capabilities, ..(*greeting()).clone() };
        Report { greeting: Arc::new(greeting), ..report }
    };
    let mut world = World::of(2);
    let (a, b) = (greets("9.7.4", 0b111, server(A)), greets("8.4.0", 0b1011, replica(B, A)));
    let facade = world.at(1000, [(A, Ok(a)), (B, Ok(b))]).server.clone().unwrap();
    assert_eq!((&*facade.version, facade.capabilities), ("9.7.4", 0b11));
    // Nobody answers: it stays.
    let later = world.at(2000, [(A, gone()), (B, gone())]);
    assert_eq!(later.server.as_ref(), Some(&facade));
}

#[test]
fn a_loss_is_accepted_after_the_time_that_the_configuration_gives() {
    let limits = |accept_lost_ms| Limits { accept_lost_ms, ..Limits::default() };
    for (limit, at_100, at_200) in [(None, None, None), (Some(150), None, Some(B))] {
        let mut world = World::of(2);
        world.0.limit(limits(limit));
        world.at(1000, [(A, Ok(executed(&[(A, 10)], server(A)))), (B, Ok(replica(B, A)))]);
        let lost = || [(A, gone()), (B, Ok(executed(&[(A, 9)], server(B))))];
        world.at(2000, lost());
        assert_eq!(world.at(2100, lost()).primary.map(|id| id.0), at_100);
        let topology = world.at(2200, lost());
        assert_eq!(topology.primary.map(|id| id.0), at_200, "{}", topology.why);
        assert_eq!(topology.why.contains("accepted after 200 ms"), at_200.is_some(), "{}", topology.why);
    }
}
