//! Time, events, connections and the trace: what happens next is the earliest event, and nothing else moves.
//!
//! A connection is two streams of bytes that arrive in pieces of chance. When its server dies, any number of the bytes on
//! their way still arrive. A server that is cut off loses nothing: what was sent arrives when it is back.

mod links;

pub use links::{Link, LinkState};

use super::client::Outcome;
use super::cluster::{self, Truth};
use super::faults::{self, Fault};
use super::plant::Plant;
use super::probes::Prober;
use super::rng::Rng;
use super::server::{self, Life, Row, Server, Txn, TxnId};
use bytes::BytesMut;
use holdfast::failover::Holds;
use holdfast::topology::Topology;
use holdfast::topology::picture::Picture;
use holdfast::types::{BackendId, Consistency, Term};
use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// Microseconds of simulated time.
pub type Time = u64;

/// What may happen.
#[derive(Clone, Debug)]
pub enum Event {
    Wake {
        task: usize,
    },
    /// A client's connection request reaches a server.
    Connect {
        link: usize,
    },
    ToServer {
        link: usize,
        bytes: BytesMut,
    },
    ToProxy {
        link: usize,
        bytes: BytesMut,
    },
    Closed {
        link: usize,
    },
    HungUp {
        link: usize,
    },
    Await {
        server: usize,
        thread: u32,
        set: String,
        until: Time,
    },
    Decide {
        server: usize,
    },
    Committed {
        server: usize,
        id: TxnId,
    },
    Ship {
        from: usize,
        to: usize,
    },
    Apply {
        server: usize,
    },
    Step,
    Fault(Fault),
    Ask {
        server: usize,
    },
    /// The question that was asked at `asked` reaches the server.
    Asked {
        server: usize,
        asked: Time,
    },
    /// Its answer, or the end of the prober's patience, reaches the proxy.
    Answered {
        server: usize,
        asked: Time,
        report: Box<holdfast::topology::report::Report>,
    },
    Unanswered {
        server: usize,
        asked: Time,
    },
    Round,
    Tick,
}

/// What a seed decides.
#[derive(Clone, Debug)]
pub struct Setup {
    pub exactly_once: bool,
    pub consistency: Consistency,
    pub pods: bool,
    pub hold_max: Time,
    pub hold_statements_max: usize,
    pub deprecate_eof: bool,
    /// A frame that is longer is forwarded as it arrives.
    pub window: usize,
    pub replay_bytes: usize,
}

pub struct World {
    pub now: Time,
    pub rng: Rng,
    pub setup: Setup,
    pub plant: Option<Plant>,
    events: BTreeMap<(Time, u64), Event>,
    serial: u64,
    pub ready: BTreeSet<usize>,
    pub tasks: usize,
    pub links: Vec<Link>,
    pub servers: Vec<Server>,
    pub txns: Vec<Txn>,
    pub truth: Truth,
    pub picture: Picture,
    pub topology: Arc<Topology>,
    pub probers: Vec<Prober>,
    /// When the primary of the snapshot last changed.
    pub changed: Time,
    pub holds: Arc<Holds>,
    /// The tasks whose statement waits for a primary.
    pub waiters: BTreeSet<usize>,
    pub epochs: u64,
    /// Which server has accepted writes in a term.
    accepted: BTreeMap<Term, usize>,
    /// When a snapshot last let this server be written in this term.
    pub last_proven: BTreeMap<(BackendId, Term), Time>,
    pub outcomes: Vec<Outcome>,
    /// Clients that have done all they wanted.
    pub finished: usize,
    pub violation: Option<String>,
    pub trace: Option<String>,
    pub counts: BTreeMap<&'static str, u64>,
    stalled: Vec<(usize, Event)>,
}

/// The world, shared by the tasks of one thread.
#[derive(Clone)]
pub struct Shared(pub Rc<RefCell<World>>);

impl World {
    pub fn new(seed: u64, plant: Option<Plant>, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let setup = Setup {
            exactly_once: rng.percent(70),
            consistency: if rng.percent(60) { Consistency::Session } else { Consistency::Eventual },
            pods: rng.percent(40),
            hold_max: 10_000_000,
            hold_statements_max: if rng.percent(15) { 2 } else { 100 },
            deprecate_eof: rng.percent(60),
            window: rng.pick(&[24, 64, 256, 65_536]),
            replay_bytes: if rng.percent(90) { 1 << 16 } else { 0 },
        };
        let grouped = rng.percent(60);
        let truth = Truth {
            grouped,
            primary: 0,
            members: (0..3).collect(),
            view: 0,
            rising: None,
            handing_over: None,
            patience: (rng.between(40_000, 150_000), rng.between(200_000, 600_000)),
            notice: rng.between(20_000, 600_000),
        };
        let (picture, probers) = super::probes::begin(&setup);
        let mut world = Self {
            now: 0,
            rng,
            plant,
            events: BTreeMap::new(),
            serial: 0,
            ready: BTreeSet::new(),
            tasks: 0,
            links: Vec::new(),
            servers: (0..3).map(|_| Server::new()).collect(),
            txns: Vec::new(),
            truth,
            topology: picture.current().clone(),
            picture,
            probers,
            changed: 0,
            holds: Holds::new(setup.hold_statements_max, usize::MAX),
            waiters: BTreeSet::new(),
            last_proven: BTreeMap::new(),
            outcomes: Vec::new(),
            finished: 0,
            epochs: 0,
            accepted: BTreeMap::new(),
            violation: None,
            trace: traced.then(String::new),
            counts: BTreeMap::new(),
            stalled: Vec::new(),
            setup,
        };
        world.note(|| format!("seed {seed}"));
        cluster::begin(&mut world);
        super::probes::relabel(&mut world);
        faults::plan(&mut world);
        for server in 0..3 {
            world.at(0, Event::Ask { server });
        }
        world.at(0, Event::Tick);
        world
    }

    pub fn now_ms(&self) -> u64 {
        self.now / 1000
    }

    pub fn at(&mut self, time: Time, event: Event) {
        self.serial += 1;
        self.events.insert((time.max(self.now), self.serial), event);
    }

    /// A line of the trace, written only if somebody reads it.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            use std::fmt::Write as _;
            let _ = writeln!(trace, "{:>10} {}", self.now, line());
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// An invariant is broken; the first one counts.
    pub fn fail(&mut self, what: String) {
        self.note(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// Lets the next thing happen; false if nothing will.
    pub fn advance(&mut self) -> bool {
        let Some(((time, _), event)) = self.events.pop_first() else { return false };
        self.now = time;
        self.happen(event);
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { task } => drop(self.ready.insert(task)),
            Event::Connect { link } => self.on_connect(link),
            Event::ToServer { link, bytes } => self.on_bytes_to_server(link, bytes),
            Event::ToProxy { link, bytes } => self.on_bytes_to_proxy(link, bytes),
            Event::Closed { link } => self.on_closed(link),
            Event::HungUp { link } => self.on_hang_up(link),
            Event::Await { server, thread, set, until } => match self.servers[server].life {
                Life::Up => server::look_at_wait(self, server, thread, set, until),
                Life::Frozen => self.stalled.push((server, Event::Await { server, thread, set, until })),
                Life::Down => {}
            },
            Event::Decide { server } => cluster::decide(self, server),
            Event::Committed { server, id } => cluster::done(self, server, id),
            Event::Ship { from, to } => cluster::arrived(self, from, to),
            Event::Apply { server } => cluster::apply(self, server),
            Event::Step => cluster::step(self),
            Event::Fault(fault) => faults::happen(self, fault),
            Event::Ask { server } => super::probes::ask(self, server),
            Event::Asked { server, asked } => super::probes::asked(self, server, asked),
            Event::Answered { server, asked, report } => super::probes::answered(self, server, asked, *report),
            Event::Unanswered { server, asked } => super::probes::unanswered(self, server, asked),
            Event::Round => super::probes::round(self),
            Event::Tick => {
                super::probes::round(self);
                self.at(self.now + 100_000, Event::Tick);
            }
        }
    }

    /// A server is heard again: what was under way arrives.
    pub fn release(&mut self, server: usize) {
        let (mine, others) = std::mem::take(&mut self.stalled).into_iter().partition(|(s, _)| *s == server);
        self.stalled = others;
        let mine: Vec<(usize, Event)> = mine;
        for (_, event) in mine {
            self.at(self.now, event);
        }
    }

    pub fn forget_stalled(&mut self, server: usize) {
        self.stalled.retain(|(s, _)| *s != server);
    }

    /// A server is about to commit what came by a connection: in each term, one server only.
    pub fn check_accepted(&mut self, server: usize, thread: u32, rows: &[Row]) {
        let Some(link) = self.links.iter().find(|l| l.server == server && l.thread == thread) else { return };
        let term = link.term;
        let first = *self.accepted.entry(term).or_insert(server);
        if first != server {
            self.fail(format!("in term {} both server {first} and server {server} took writes: {rows:?}", term.0));
        }
    }

    pub fn is_thread_alive(&self, server: usize, thread: u32) -> bool {
        let host = &self.servers[server];
        host.conns.contains_key(&thread) || host.commits.iter().any(|c| c.thread == thread)
    }
}

impl Shared {
    /// A hint against a server; answers since when answers count (ms).
    pub fn suspect(&self, backend: BackendId) -> u64 {
        super::probes::suspect(&mut self.borrow(), backend)
    }

    pub fn setup(&self) -> Setup {
        self.borrow().setup.clone()
    }

    pub fn borrow(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    pub async fn sleep(&self, task: usize, time: Time) {
        let until = self.borrow().now + time;
        self.borrow().at(until, Event::Wake { task });
        poll_fn(|_| if self.borrow().now >= until { Poll::Ready(()) } else { Poll::Pending }).await
    }

    /// Waits until `what` has a value, at most until `until`. It is asked after each event that concerns the task.
    pub async fn wait<T>(
        &self,
        task: usize,
        until: Option<Time>,
        mut what: impl FnMut(&mut World) -> Option<T>,
    ) -> Option<T> {
        if let Some(until) = until {
            self.borrow().at(until, Event::Wake { task });
        }
        poll_fn(|_| {
            let mut world = self.borrow();
            match what(&mut world) {
                Some(value) => Poll::Ready(Some(value)),
                None if until.is_some_and(|until| world.now >= until) => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }
}
