//! Histories: who said what when, and what the snapshot makes of it. Through [`Picture`], because memory matters.

mod labels;

use crate::topology::picture::Picture;
use crate::topology::proof::Now;
use crate::topology::report::*;
use crate::topology::settings::{Limits, RoleHint, ServerEntry, Source};
use crate::topology::snapshot::{Flavor, Serving, Topology};
use crate::types::{Address, BackendId, ClusterName, Gtids, Role, Term};
use proptest::prelude::*;
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
fn first_answers_of_a_group() {
    // Views of A, B, C (empty: gone); the primary; followers that serve.
    for (views, primary, followers) in [
        (["PSS", "PSS", "PSS"], Some(A), "BC"),
        (["PSS", "PSS", ""], Some(A), "B"),
        // One member's own view is not enough.
        (["PSS", "", ""], None, ""),
        // Kill -9 of A, before and after it is expelled.
        (["", "USS", "USS"], None, "BC"),
        (["", "-PS", "-PS"], Some(B), "C"),
        (["", "-PS", "USS"], None, "C"),
        // A cut off from the others, who have gone on.
        (["Puu", "-PS", "-PS"], Some(B), "C"),
        (["Puu", "USS", "USS"], None, "BC"),
        // A resumed, with its view of before.
        (["PSS", "-PS", "-PS"], Some(B), "C"),
        (["PSS", "-PS", ""], None, ""),
        // Only a minority can be asked, and it is one.
        (["", "", "uuS"], None, ""),
        // Members that left in good order leave a view of one.
        (["P--", "o", "o"], Some(A), ""),
        (["P--", "-e-", "--e"], Some(A), ""),
        // A member joins; one is in error.
        (["PSr", "PSr", "PSr"], Some(A), "B"),
        (["PSe", "PSe", "--e"], Some(A), "B"),
        // Two views of one, the disaster of a group started twice: two majorities of their own.
        (["P--", "-P-", ""], None, ""),
        // Multi-primary mode.
        (["PPP", "PPP", "PPP"], None, ""),
        // Nobody has started the group: writable and alone is not enough here.
        (["o--", "-o-", "--o"], None, ""),
        // Between two primaries.
        (["SPS", "PSS", "PSS"], None, "ABC"),
        (["SPS", "SPS", "PSS"], Some(B), "AC"),
    ] {
        let mut world = World::of(3);
        let said =
            |id: u32| (id, if views[id as usize].is_empty() { gone() } else { Ok(member(id, views[id as usize])) });
        let topology = world.at(1000, [said(A), said(B), said(C)]);
        assert_eq!(topology.primary.map(|id| id.0), primary, "{views:?}: {}", topology.why);
        let serving: String = topology.followers().map(|b| ["A", "B", "C"][b.id.0 as usize]).collect();
        assert_eq!(serving, followers, "{views:?}");
    }
}

#[test]
fn a_group_primary_must_be_writable_itself() {
    for broken in [Report { read_only: true, ..member(A, "PSS") }, offline(member(A, "PSS"))] {
        let mut world = World::of(3);
        let topology = world.at(1000, [(A, Ok(broken)), (B, Ok(member(B, "PSS"))), (C, Ok(member(C, "PSS")))]);
        assert_eq!(who(&topology), (None, 0));
    }
}

#[test]
fn a_member_restarted_without_its_group_is_no_primary() {
    let mut world = World::of(1);
    let alone = Report { read_only: false, ..member(A, "o") };
    assert_eq!(who(&world.at(1000, [(A, Ok(alone))])), (None, 0));
}

#[test]
fn a_frozen_primary_that_resumes_stays_deposed() {
    let mut world = World::of(3);
    let all = |a, b: &str, c: &str| [(A, a), (B, Ok(member(B, b))), (C, Ok(member(C, c)))];
    assert_eq!(who(&world.at(1000, all(Ok(member(A, "PSS")), "PSS", "PSS"))), (Some(A), 1));
    // Frozen: silence, while the others notice nothing yet: kept, in doubt.
    let frozen = world.at(4000, all(silent(), "PSS", "PSS"));
    assert_eq!((who(&frozen), frozen.doubt), ((Some(A), 1), true));
    // Slow under load: the others' views keep it, however long.
    world.at(7000, [(B, Ok(member(B, "PSS"))), (C, Ok(member(C, "PSS")))]);
    let slow = world.at(9000, all(silent(), "PSS", "PSS"));
    assert_eq!((who(&slow), slow.doubt, slow.proven_ms), ((Some(A), 1), true, Some(1000)));
    assert_eq!(who(&world.at(10_000, all(silent(), "USS", "USS"))), (None, 1));
    assert_eq!(who(&world.at(10_500, all(silent(), "-PS", "USS"))), (None, 1));
    assert_eq!(who(&world.at(11_000, all(silent(), "-PS", "-PS"))), (Some(B), 2));
    // It resumes with its old view, ONLINE, PRIMARY, writable.
    assert_eq!(who(&world.at(12_000, all(Ok(member(A, "PSS")), "-PS", "-PS"))), (Some(B), 2));
    // Even when the others die, or when all that is left of one is what it said before the freeze.
    let later = world.at(13_000, [(B, gone()), (C, gone()), (A, Ok(member(A, "PSS")))]);
    assert_eq!(who(&later), (None, 2));
}

#[test]
fn views_from_before_the_doubt_do_not_count() {
    let mut world = World::of(3);
    let all = |ms: u64, world: &mut World| {
        world.at(ms, [(B, Ok(member(B, "PSS"))), (C, Ok(member(C, "PSS"))), (A, Ok(member(A, "PSS")))])
    };
    assert!(!all(1000, &mut world).doubt);
    world.0.suspect(BackendId(A), 1500);
    // A answers again, the others have not been asked since: still in doubt.
    assert!(world.at(1600, [(A, Ok(member(A, "PSS")))]).doubt);
    assert!(!world.at(1700, [(B, Ok(member(B, "PSS")))]).doubt);
}

#[test]
fn members_tell_of_each_other() {
    let mut world = World::with(Source::Members { seeds: vec![address(B)], weight: 7 });
    // The seed has id 0 here: ids count addresses.
    let topology = world.at(1000, [(0, Ok(member(B, "PSS")))]);
    let known: Vec<_> = topology.backends.iter().map(|b| (b.id.0, b.address.port, b.weight)).collect();
    assert_eq!(known, [(0, 3301, 7), (1, 3300, 7), (2, 3302, 7)]);
    let topology = world.at(1100, [(1, Ok(member(A, "PSS"))), (2, Ok(member(C, "PSS")))]);
    assert_eq!(topology.primary().unwrap().address, address(A));
    // C leaves in good order: not served at once, forgotten later; the seed never is.
    let topology = world.at(2000, [(0, Ok(member(B, "PS-"))), (1, Ok(member(A, "PS-"))), (2, Ok(member(C, "--o")))]);
    assert_eq!(role(&topology, 2), (Role::Unknown, false));
    for ms in [30_000, 62_001] {
        world.at(ms, [(0, Ok(member(B, "PS-"))), (1, Ok(member(A, "PS-")))]);
    }
    assert!(world.0.current().backend(BackendId(2)).is_none());
    // And back under its old id.
    let topology = world.at(70_000, [(0, Ok(member(B, "PSr"))), (1, Ok(member(A, "PSr")))]);
    assert_eq!(topology.backend(BackendId(2)).unwrap().address, address(C));
}

#[test]
fn a_seed_under_another_name_is_not_counted_twice() {
    let alias: Address = "alias:3306".parse().unwrap();
    let mut world = World::with(Source::Members { seeds: vec![alias.clone()], weight: 1 });
    let topology = world.at(1000, [(0, Ok(member(A, "P")))]);
    assert_eq!(topology.backends.len(), 1);
    assert_eq!(topology.primary().unwrap().address, alias);
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

/// Anything a server may say of itself in a cluster of three.
fn anything(id: u32) -> impl Strategy<Value = Result<Report, Failure>> {
    let view =
        proptest::sample::select(vec!["PSS", "SPS", "SSP", "-PS", "Puu", "USS", "P--", "-P-", "PPP", "PS-", "o"]);
    prop_oneof![
        Just(gone()),
        Just(silent()),
        Just(barred()),
        (any::<bool>(), 0..3_u32, 0..4_u64, 0..4_u64).prop_map(move |(read_only, source, a, b)| {
            let report = executed(&[(A, a + 1), (B, b + 1)], Report { read_only, ..server(id) });
            Ok(if source == id { report } else { from(source, Receiver::On, report) })
        }),
        (0..4_u64, 0..4_u64).prop_map(move |(a, b)| Ok(executed(&[(A, a + 1), (B, b + 1)], server(id)))),
        view.prop_map(move |view| Ok(member(id, view))),
    ]
}

fn event() -> impl Strategy<Value = (u64, u32, Option<Result<Report, Failure>>)> {
    let said = (0..3_u32).prop_flat_map(|id| (Just(id), anything(id)));
    (0..900_u64, said, 0..8_u8).prop_map(|(gap, (id, said), hint)| (gap, id, (hint > 0).then_some(said)))
}

proptest! {
    #[test]
    fn whatever_is_said(events in proptest::collection::vec(event(), 1..60)) {
        let mut world = World::of(3);
        let mut ms = 1000;
        let mut last: Arc<Topology> = world.0.current().clone();
        for (gap, id, said) in events {
            ms += gap;
            match said {
                Some(outcome) => {
                    world.0.observe(Observation { backend: BackendId(id), asked_ms: ms, outcome });
                }
                None => world.0.suspect(BackendId(id), ms),
            }
            let next = world.0.round(now(ms));
            let primaries = next.backends.iter().filter(|b| b.role == Role::Primary).count();
            prop_assert_eq!(primaries, usize::from(next.primary.is_some()));
            prop_assert!(next.term >= last.term && next.term <= Term(last.term.0 + 1));
            prop_assert!(next.version >= last.version);
            // Another primary is another term, and only ever by proof.
            if next.primary.is_some() && next.primary != last.last_primary.as_ref().map(|l| l.id) {
                prop_assert!(next.term > last.term && !next.doubt);
            }
            if next.primary.is_some() && last.primary.is_none() {
                prop_assert!(!next.doubt);
            }
            for (i, backend) in next.backends.iter().enumerate() {
                prop_assert_eq!((backend.id, &backend.address), (BackendId(i as u32), &address(i as u32)));
            }
            // Proof: it said itself that it can be written, lately or undisturbed, and no other lone server says so, too.
            if let (Some(id), false) = (next.primary, next.doubt) {
                let servers = world.0.servers();
                let server = servers.iter().find(|s| s.id == id).unwrap();
                let (asked, report) = server.usable(ms, 4000).unwrap();
                prop_assert!(!report.read_only && !report.offline && server.beyond_doubt(asked));
                prop_assert_eq!(next.proven_ms, Some(asked));
            }
            last = next;
        }
    }
}
