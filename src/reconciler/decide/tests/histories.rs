//! Random histories: a model of servers with real semi-sync rules, random faults, and a reconciler that may die between any
//! two steps. Whatever happens: no acknowledged transaction is ever missing on a server that is opened for writes, no server
//! acknowledges anything after another was opened, and when the faults end the cluster is well again.

mod world;

use super::*;
use proptest::prelude::*;
use world::{Server, World};

#[derive(Clone, Debug)]
enum Event {
    /// A client commits on that server, if it is writable.
    Write(usize),
    /// What that replica's source has reaches its relay log, and is acknowledged.
    Receive(usize),
    Apply(usize),
    Kill(usize),
    Restart(usize),
    Freeze(usize),
    Thaw(usize),
    Cut(usize),
    Join(usize),
    /// The reconciler looks, decides, and does so many of its steps before it dies.
    Reconcile(usize),
    /// The record of a switchover that is asked for.
    Switch(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let i = || 0..5_usize;
    prop_oneof![
        8 => i().prop_map(Event::Write),
        8 => i().prop_map(Event::Receive),
        4 => i().prop_map(Event::Apply),
        2 => i().prop_map(Event::Kill),
        3 => i().prop_map(Event::Restart),
        1 => i().prop_map(Event::Freeze),
        2 => i().prop_map(Event::Thaw),
        1 => i().prop_map(Event::Cut),
        2 => i().prop_map(Event::Join),
        10 => (0..12_usize).prop_map(Event::Reconcile),
        1 => i().prop_map(Event::Switch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn no_acknowledged_write_is_lost_and_all_ends_well(n in 1..=5_usize, events in prop::collection::vec(event(), 0..150)) {
        let mut world = World::new(n);
        for _ in 0..3 {
            world.reconcile(usize::MAX);
        }
        for event in &events {
            world.happen(event);
        }
        // The faults end.
        world.switchover = None;
        for i in 0..n {
            [Event::Thaw(i), Event::Join(i), Event::Restart(i)].iter().for_each(|event| world.happen(event));
        }
        let mut last = None;
        for _ in 0..20 {
            last = Some(world.reconcile(usize::MAX));
            (0..n).for_each(|i| [Event::Receive(i), Event::Apply(i)].iter().for_each(|event| world.happen(event)));
        }
        let last = last.unwrap();
        prop_assert_eq!((last.phase, last.steps.len()), (Phase::Ready, 0), "{:?}\n{:?}\n{:?}", last, world.record, world.servers);
        let writable: Vec<&Server> = world.servers.iter().filter(|s| !s.read_only).collect();
        prop_assert_eq!(writable.len(), 1);
        prop_assert!(world.servers.iter().all(|s| s.executed.contains(&world.acknowledged)));
    }
}
