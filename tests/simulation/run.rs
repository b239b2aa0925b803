//! One seed: the world, its clients, and the last look at what the servers hold.

use super::client::{Client, Fate, Kind};
use super::faults;
use super::plant::Plant;
use super::world::{Shared, Time, World};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

/// When everything must have come to rest (µs).
const LONGEST: Time = 60_000_000;

/// What a seed showed.
pub struct Shown {
    pub violation: Option<String>,
    pub trace: Option<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

/// Runs a seed to its end, or to the first broken invariant.
pub fn run(seed: u64, plant: Option<Plant>, traced: bool) -> Shown {
    let w = Shared(Rc::new(RefCell::new(World::new(seed, plant, traced))));
    let mut tasks: Vec<Option<Pin<Box<dyn Future<Output = ()>>>>> = Vec::new();
    let clients = {
        let mut world = w.borrow();
        world.tasks = 4 + world.rng.below(4) as usize;
        world.ready = (0..world.tasks).collect();
        (0..world.tasks).map(|_| (world.rng.pick(&Kind::ALL), world.rng.next())).collect::<Vec<_>>()
    };
    for (me, (kind, seed)) in clients.into_iter().enumerate() {
        w.borrow().note(|| format!("client {me} is {kind:?}"));
        tasks.push(Some(Box::pin(Client::new(&w, me, kind, seed).run())));
    }
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        loop {
            let Some(next) = w.borrow().ready.pop_first() else { break };
            if let Some(task) = tasks.get_mut(next)
                && task.as_mut().is_some_and(|task| task.as_mut().poll(&mut cx).is_ready())
            {
                tasks[next] = None;
            }
        }
        let mut world = w.borrow();
        if world.violation.is_some() || is_over(&mut world) || !world.advance() {
            break;
        }
    }
    tasks.clear();
    let mut world = w.borrow();
    if world.violation.is_none() {
        look_at_the_data(&mut world);
    }
    let (violation, trace) = (world.violation.take(), world.trace.take());
    Shown { violation, trace, counts: std::mem::take(&mut world.counts) }
}

fn is_over(world: &mut World) -> bool {
    if world.now > LONGEST {
        let (finished, tasks, quiet) = (world.finished, world.tasks, faults::is_quiet(world));
        world.fail(format!("no rest: {finished} of {tasks} clients are done, the servers are at rest: {quiet}"));
    }
    let all = world.servers[world.truth.primary].has.len();
    let applied = world.servers.iter().all(|server| server.has.len() == all && server.commits.is_empty());
    world.finished == world.tasks && applied && faults::is_quiet(world)
}

/// No acknowledged write is lost, none is there twice, none that failed is there, and none by halves.
fn look_at_the_data(world: &mut World) {
    let rows = world.servers[world.truth.primary].rows.clone();
    let there = |client: usize, n: u64| rows.get(&client).map_or(0, |all| all.iter().filter(|m| **m == n).count());
    let mut broken = Vec::new();
    for outcome in &world.outcomes {
        let times: Vec<usize> = outcome.rows.iter().map(|n| there(outcome.client, *n)).collect();
        let right = match outcome.fate {
            Fate::Committed => times.iter().all(|times| *times == 1),
            Fate::Absent => times.iter().all(|times| *times == 0),
            Fate::Unknown => times.iter().all(|n| *n == times[0] && *n <= 1),
        };
        if !right {
            broken.push(format!("{outcome:?} is there {times:?} times"));
        }
    }
    for what in broken {
        world.fail(what);
    }
    let same = world.servers.iter().all(|server| {
        let sorted = |rows: &BTreeMap<usize, Vec<u64>>| -> BTreeMap<usize, Vec<u64>> {
            let mut rows = rows.clone();
            rows.values_mut().for_each(|all| all.sort_unstable());
            rows
        };
        sorted(&server.rows) == sorted(&rows)
    });
    if !same {
        world.fail("the simulated servers differ at the end: the simulation itself is wrong".to_owned());
    }
}
