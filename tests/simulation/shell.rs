//! The simulator's shell of one session: what `frontend::session` does with sockets and timers, done with simulated ones. It
//! sequences; every decision is one of the crate's pure functions:
//!
//! | step | decided by |
//! | --- | --- |
//! | what a command is, where it goes | `classify`, `routing::route_command` |
//! | whether the kept connection still leads there | `routing::primary`, `routing::serves_reads`, `routing::choose` |
//! | whether a read is fresh there | `session::Written`, `routing::freshness` |
//! | where an answer ends, what it says | `wire::response::Scanner`, `Session::observe_*` |
//! | what a lost answer means | `failover::{fate, verdict}` |
//! | whether a transaction can be run again, and went the same | `session::Recorder`, `session::Replayed` |
//!
//! A [`Plant`] leaves one of them out.

mod parts;
mod relay;

use super::plant::Plant;
use super::world::{Shared, Time, World};
use bytes::{Bytes, BytesMut};
use holdfast::classify::{Class, Classified, Flags};
use holdfast::error::{ClientError, ErrorKind};
use holdfast::failover::fate::Lost;
use holdfast::failover::{Held, fate, refusal};
use holdfast::routing::{self, Mode, Route};
use holdfast::session::{Recorded, Recorder, Session, Slot, repeats};
use holdfast::types::{BackendId, StatementId, Term};
use holdfast::wire::command::Answer;
use holdfast::wire::err::client_error;
use holdfast::wire::execute::STATEMENT_ID;
use holdfast::wire::packet::{HEADER, write_packet};
use holdfast::wire::response::{Kind, Prepared};
pub use parts::{Attempt, Conn, Ended, Reply, Request, Said, Unavailable};

/// After a change of the primary, what is under way on the old one may still be answered for so long (µs).
const LAST_ANSWERS: Time = 2_000_000;

/// A change of the primary that is younger need not have been seen by a statement on its way (µs).
const UNSEEN_CHANGE: Time = 10_000;

pub struct Shell {
    pub w: Shared,
    pub task: usize,
    pub session: Session,
    pub slots: [Option<Conn>; 2],
    pub recorder: Recorder,
    /// The time that what is under way on the primary is committed with.
    pub marked: Option<u64>,
    pub left: Option<(BackendId, Term)>,
    pub fresh: (u64, u64),
    pub held: Option<Held>,
    pub plant: Option<Plant>,
    /// What was forwarded of the answer at hand.
    pub out: Vec<u8>,
    /// Whether this statement may be forwarded at all (a replay's may not).
    pub digest: Option<Vec<u8>>,
    prepared: Option<(Slot, Prepared)>,
    /// The primary has refused the statement at hand as read-only, and was asked again.
    pub refused: bool,
    /// Questions of its own that it has asked, of whomever.
    pub asked: u64,
}

impl Shell {
    pub fn new(w: &Shared, task: usize) -> Self {
        let world = w.borrow();
        let replay_bytes = world.setup.replay_bytes;
        let plant = world.plant;
        drop(world);
        Self {
            w: w.clone(),
            task,
            session: Session::new(None, Default::default(), 100),
            slots: [None, None],
            recorder: Recorder::new(replay_bytes),
            marked: None,
            left: None,
            fresh: (0, 0),
            held: None,
            plant,
            out: Vec::new(),
            digest: None,
            prepared: None,
            refused: false,
            asked: 0,
        }
    }

    pub fn has(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    pub fn conn(&mut self, slot: Slot) -> Option<&mut Conn> {
        self.slots[slot.index()].as_mut()
    }

    /// Runs one command to its end.
    pub async fn execute(&mut self, mut request: Request) -> Reply {
        self.out.clear();
        self.refused = false;
        let started = self.w.borrow().now;
        let was_open = self.session.transaction().is_some();
        if !was_open {
            self.recorder.begin(self.session.insert_id());
        }
        let listener = self.w.borrow().setup.consistency;
        let Request { answer, statement, only, repeatable, .. } = request;
        let command = routing::Command { statement, prepares: answer == Answer::Prepared, only, repeatable };
        let route = routing::route_command(Mode::Split, listener, &self.session, command);
        let route = match request.statement.class == Class::Write && request.statement.flags == Flags::IMPURE {
            true if self.has(Plant::UnknownToFollower) => Route { slot: Slot::Follower, ..route },
            _ => route,
        };
        let ended = self.attempts(&mut request, route, started).await;
        Reply { bytes: std::mem::take(&mut self.out), ended, prepared: self.prepared.take() }
    }

    async fn attempts(&mut self, request: &mut Request, route: Route, started: Time) -> Option<ErrorKind> {
        let mut slot = route.slot;
        let deadline = started + self.w.borrow().setup.hold_max;
        loop {
            slot = match self.checkout(slot, deadline).await {
                Ok(slot) => slot,
                Err(Unavailable::Error(error)) if self.is_replayable(&error) => match self.replay(deadline).await {
                    Ok(()) => continue,
                    Err(Unavailable::Error(error)) => return self.refuse(&error, 1),
                },
                Err(Unavailable::Error(error)) => return self.refuse(&error, 1),
            };
            if route.fresh && !self.has(Plant::StaleFollower) {
                slot = match self.freshen(slot, deadline).await {
                    Ok(slot) => slot,
                    Err(Unavailable::Error(error)) => return self.refuse(&error, 1),
                };
            }
            match self.attempt(request, slot, route.repeatable).await {
                Attempt::Failed(error, 1) if self.is_replayable(&error) => match self.replay(deadline).await {
                    Ok(()) => slot = Slot::Primary,
                    Err(Unavailable::Error(error)) => return self.refuse(&error, 1),
                },
                Attempt::Done => return None,
                Attempt::Again(next) if self.w.borrow().now < deadline => slot = next,
                Attempt::Again(_) => {
                    let error = ClientError::new(ErrorKind::NoBackend, "no server took the statement in time");
                    return self.refuse(&error, 1);
                }
                Attempt::Failed(error, sequence) => return self.refuse(&error, sequence),
                Attempt::Refused(packet) => {
                    self.out.extend_from_slice(&packet);
                    return None;
                }
                Attempt::End(kind) => return Some(kind),
            }
        }
    }

    /// An error of the proxy's own; answers the kind if the session ends with it.
    fn refuse(&mut self, error: &ClientError, sequence: u8) -> Option<ErrorKind> {
        let mut packet = BytesMut::new();
        write_packet(&mut packet, &mut { sequence }, &client_error(error));
        self.out.extend_from_slice(&packet);
        let message = error.message.clone();
        self.w.borrow().note(|| format!("client is told {message}"));
        matches!(error.kind, ErrorKind::SessionStateLost).then_some(error.kind)
    }

    async fn attempt(&mut self, request: &mut Request, slot: Slot, repeatable: bool) -> Attempt {
        let asked = self.asked;
        if let Some(id) = request.prepared {
            match self.prepare_on(id, slot).await {
                Some(remote) => request.packet = with_id(&request.packet, remote),
                None => {
                    let lost = self.drop_connection(slot, true);
                    return if lost { Attempt::Failed(transaction_lost(), 1) } else { Attempt::Again(slot) };
                }
            }
        }
        if slot == Slot::Primary {
            if self.w.borrow().setup.exactly_once && self.session.transaction().is_none() && !self.ready_marks().await {
                return Attempt::Again(Slot::Primary);
            }
            if !self.ready_tracking(request.statement).await {
                return Attempt::Again(Slot::Primary);
            }
        }
        // Whoever asked a server something first may have waited long for its answer: does it still lead there?
        if self.asked != asked && !self.has(Plant::NoSecondLook) && !self.is_ready(slot) {
            return Attempt::Again(slot);
        }
        if slot == Slot::Primary {
            let apart = self.is_traced() && request.answer == Answer::Results;
            if apart && fate::commits_apart(&self.session, request.statement) {
                return self.attempt_exactly(request).await;
            }
        }
        let was_open = self.session.transaction().is_some();
        let withhold = if slot == Slot::Follower && !was_open { refusal::by_follower } else { refusal::by_fence };
        let knowable = slot == Slot::Primary && self.is_knowable(request.statement);
        let mark = if knowable { self.mark() } else { None };
        let wants = slot == Slot::Primary
            && request.answer == Answer::Results
            && self.recorder.wants(&self.session, request.statement, was_open);
        self.digest = wants.then(Vec::new);
        let prefix = mark.as_ref().map(|sql| super::packets::command(0x03, sql.as_bytes()));
        let begun = prefix.is_none_or(|packet: BytesMut| self.send(slot, &packet, None));
        let whole = begun && self.send(slot, &request.packet, Some(request.statement));
        let mut said = Said::default();
        let begun = mark.is_none() || self.read_answer(slot, Answer::Results, &mut BytesMut::new()).await.is_some();
        let ended = match whole && begun {
            true => self.relay(slot, request, &mut said, true, withhold).await,
            false => Ended::Lost { clean: true },
        };
        match ended {
            Ended::Done => {
                self.is_current(slot);
                if slot == Slot::Primary {
                    self.answered(request.statement, request.answer, was_open, &said);
                }
                self.note(request, slot, &said);
                if slot == Slot::Primary {
                    self.record(request, &said);
                }
                Attempt::Done
            }
            Ended::Withheld { packet } => self.withheld(request.statement, slot, packet).await,
            Ended::Lost { clean } => {
                let forwarded = said.forwarded > 0;
                let lost = Lost { slot, whole, forwarded, clean, repeatable, streamed: false, was_open };
                self.lost(request, &lost, said.next_sequence).await
            }
            Ended::Malformed => {
                self.w.borrow().fail("the scanner calls an answer malformed".to_owned());
                Attempt::End(ErrorKind::ResultCut)
            }
        }
    }

    async fn lost(&mut self, request: &Request, lost: &Lost, sequence: u8) -> Attempt {
        let repeats = lost.forwarded && !lost.was_open && lost.repeatable;
        if self.has(Plant::DoubledResult) && repeats {
            self.drop_connection(lost.slot, true);
            return Attempt::Again(lost.slot);
        }
        let marked = lost.slot == Slot::Primary && self.marked.is_some();
        if marked && let Some(doubt) = fate::doubt(&self.session, request.statement, lost) {
            return self.resolve(request, doubt).await;
        }
        let writes = matches!(request.statement.class, Class::Write | Class::Commit { .. });
        if self.has(Plant::ForgottenVerdict) && writes && !lost.forwarded {
            self.drop_connection(lost.slot, true);
            return Attempt::Again(lost.slot);
        }
        self.backend_lost(request, lost, sequence)
    }

    fn note(&mut self, request: &Request, slot: Slot, said: &Said) {
        match said.errno {
            _ if request.answer == Answer::Prepared => self.session.ran_on(slot),
            None => self.session.sent(slot, request.statement),
            Some(_) => self.session.ran_on(slot),
        }
        if self.has(Plant::ForgottenPin) {
            self.session.begin(|_| {});
        }
    }

    /// Sends a packet. A statement may be sent only where the snapshot leads: that is looked at here again, apart from the
    /// decision.
    pub fn send(&mut self, slot: Slot, packet: &[u8], statement: Option<Classified>) -> bool {
        let Some(conn) = self.slots[slot.index()].as_ref() else { return false };
        let (link, backend, term) = (conn.link, conn.backend, conn.term);
        let mut world = self.w.borrow();
        self.asked += u64::from(statement.is_none());
        if let Some(statement) = statement {
            check_destination(&mut world, self.task, slot, backend, term, statement);
        }
        world.send_to_server(link, packet)
    }

    fn record(&mut self, request: &Request, said: &Said) {
        let digest = self.digest.take();
        if request.answer == Answer::Prepared && self.session.transaction() == Some(Slot::Primary) {
            return;
        }
        self.recorder.answered(&self.session, request.statement, said.errno.is_some(), || {
            digest.filter(|_| repeats(request.statement)).map(|told| Recorded {
                packet: request.packet[..].into(),
                prepared: request.prepared,
                class: request.statement.class,
                answer: sum(&told),
            })
        });
    }

    /// The statement's id on the connection in `slot`. `None`: it broke.
    pub async fn prepare_on(&mut self, id: StatementId, slot: Slot) -> Option<u32> {
        let conn = self.slots[slot.index()].as_ref()?;
        let (epoch, shape) = (conn.epoch, conn.shape);
        let statement = self.session.statements.get(id)?;
        if let Some(remote) = statement.remote(slot, epoch) {
            return Some(remote.id);
        }
        let packet = super::packets::command(0x16, &statement.sql.clone());
        let (kind, payload) = self.own(slot, &packet, Answer::Prepared).await?;
        if kind == Kind::Err {
            return None;
        }
        let prepared = Prepared::read(&payload, shape).ok()?;
        let remote = holdfast::session::Remote { id: prepared.id, epoch, types: 0 };
        self.session.statements.get(id)?.remotes[slot.index()] = Some(remote);
        Some(prepared.id)
    }
}

/// An execute's packet with the server's id.
pub fn with_id(packet: &[u8], id: u32) -> Bytes {
    let mut packet = BytesMut::from(packet);
    packet[HEADER..][STATEMENT_ID].copy_from_slice(&id.to_le_bytes());
    packet.freeze()
}

pub fn transaction_lost() -> ClientError {
    ClientError::new(ErrorKind::TransactionLost, "the transaction was rolled back; restart it")
}

/// A checksum of an answer: FNV-1a, twice.
pub fn sum(bytes: &[u8]) -> [u8; 16] {
    let fnv = |seed: u64| bytes.iter().fold(seed, |sum, b| (sum ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3));
    let (one, two) = (fnv(0xCBF2_9CE4_8422_2325), fnv(0x1234_5678_9ABC_DEF1));
    let mut sum = [0; 16];
    sum[..8].copy_from_slice(&one.to_le_bytes());
    sum[8..].copy_from_slice(&two.to_le_bytes());
    sum
}

/// The invariants of promises 1 and 5, where a statement leaves the proxy.
fn check_destination(world: &mut World, task: usize, slot: Slot, backend: BackendId, term: Term, what: Classified) {
    let topology = world.topology.clone();
    let read = matches!(what.class, Class::Read | Class::Begin { read_only: true } | Class::Diagnostics);
    match slot {
        Slot::Primary => {
            let proven = topology.primary_for_writes(world.now_ms(), super::checkout::DOUBT_MS_MAX).map(|p| p.id);
            if proven == Some(backend) && topology.term == term {
                world.last_proven.insert((backend, term), world.now);
                return;
            }
            // The snapshot is loaded once per command: what changed while it was made ready is not seen.
            let last = world.last_proven.get(&(backend, term)).copied().unwrap_or(0);
            if world.now - last > UNSEEN_CHANGE {
                let now = (topology.primary, topology.term.0);
                world.fail(format!("task {task}: {what:?} goes to {backend:?} of term {}, now is {now:?}", term.0));
            }
        }
        // What ends a read-only transaction goes where that is.
        Slot::Follower if read || matches!(what.class, Class::Commit { .. }) => {}
        Slot::Follower => world.fail(format!("task {task}: {what:?} goes to a follower")),
    }
}
