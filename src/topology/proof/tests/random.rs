//! Whatever servers say, in whatever order: what a snapshot never does.

use super::*;
use proptest::prelude::*;

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
