//! Groups: what their members' views prove, and what they do not.

use super::*;

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
fn a_member_that_has_not_applied_everything_waits() {
    let at = |n, report: Report| executed(&[(A, n)], report);
    let mut world = World::of(3);
    let first = [(A, "PSS"), (B, "PSS"), (C, "PSS")].map(|(id, view)| (id, Ok(at(10, member(id, view)))));
    assert_eq!(who(&world.at(1000, first)), (Some(A), 1));
    let behind = |n| [(A, gone()), (B, Ok(at(n, member(B, "-PS")))), (C, Ok(at(10, member(C, "-PS"))))];
    let topology = world.at(2000, behind(8));
    assert_eq!((who(&topology), kinds(&topology)), ((None, 1), vec!["missing_writes"]));
    assert_eq!(who(&world.at(2020, behind(10))), (Some(B), 2));
}

#[test]
fn the_heir_is_whom_the_group_has_elected_or_will() {
    let elected = |id: u32, view| Ok(Report { read_only: true, ..member(id, view) });
    let healthy = [(A, Ok(member(A, "PSS"))), (B, Ok(member(B, "PSS"))), (C, Ok(member(C, "PSS")))];
    // What they say then; the heir.
    for (said, heir) in [
        // Elected, and has yet to apply what it got.
        ([(A, elected(A, "SPS")), (B, elected(B, "SPS")), (C, elected(C, "SPS"))], Some(B)),
        ([(A, elected(A, "SSP")), (B, elected(B, "SSP")), (C, elected(C, "SSP"))], Some(C)),
        // Of equals the lowest UUID will be, until it has gone, too.
        ([(A, gone()), (B, Ok(member(B, "USS"))), (C, Ok(member(C, "USS")))], Some(B)),
        ([(A, gone()), (B, gone()), (C, Ok(member(C, "UuS")))], Some(C)),
        ([(A, gone()), (B, gone()), (C, gone())], None),
    ] {
        let mut world = World::of(3);
        assert_eq!(world.at(1000, healthy.clone()).heir, None);
        let topology = world.at(2000, said);
        assert_eq!((topology.primary, topology.heir.map(|id| id.0)), (None, heir), "{}", topology.why);
    }
    let mut world = World::of(3);
    assert_eq!(world.at(1000, [(A, gone()), (B, gone()), (C, gone())]).heir, None, "nobody knows this group");
}
