//! The shell's way to a connection: the kept one if it still leads there, another, or a held wait; and what goes with one.

use super::plant::Plant;
use super::shell::{Conn, Shell, Unavailable, transaction_lost};
use super::world::{LinkState, Time};
use bytes::{Buf, Bytes, BytesMut};
pub use holdfast::backend::observe;
use holdfast::error::{ClientError, ErrorKind};
use holdfast::routing::{self, Turn};
use holdfast::session::Trace;
use holdfast::session::{Pin, Slot};
use holdfast::types::{BackendId, Term};
use holdfast::wire::command::Answer;
use holdfast::wire::packet::HEADER;
use holdfast::wire::response::{Kind, Scanner, Shape, Step};
use std::time::Duration;

/// A proof that is older does not carry a statement while there is doubt (ms).
pub const DOUBT_MS_MAX: u64 = 3_000;
/// How long a connection may take (µs).
const CONNECT_MAX: Time = 500_000;
/// A server that did not let us in is left alone for so long (µs).
const CONNECT_AGAIN: Time = 20_000;
/// Followers further behind serve no reads.
const LAG_MAX: Option<Duration> = Some(Duration::from_secs(1));
/// Asked right after login.
const SETUP: &str = "SET SESSION session_track_system_variables='*', SESSION sql_mode=@@SESSION.sql_mode";

impl Shell {
    pub async fn checkout(&mut self, slot: Slot, deadline: Time) -> Result<Slot, Unavailable> {
        let result = match slot {
            Slot::Primary => self.checkout_primary(deadline).await,
            Slot::Follower => self.checkout_follower(deadline).await,
        };
        self.held = None;
        self.w.borrow().waiters.remove(&self.task);
        result
    }

    fn is_bound(&self, slot: Slot) -> bool {
        let pinned = slot == Slot::Primary && self.session.pins().lost_with_connection().is_some();
        pinned || self.session.transaction() == Some(slot)
    }

    /// The connection's end has not been seen.
    fn is_quiet(&self, slot: Slot) -> bool {
        let world = self.w.borrow();
        self.slots[slot.index()].as_ref().is_none_or(|conn| {
            let link = &world.links[conn.link];
            link.state == LinkState::Open && link.input.is_empty()
        })
    }

    /// The kept connection can take the next statement as it is.
    pub fn is_ready(&self, slot: Slot) -> bool {
        let world = self.w.borrow();
        let topology = world.topology.clone();
        drop(world);
        let Some(conn) = self.slots[slot.index()].as_ref() else { return false };
        let serves = match slot {
            Slot::Primary => {
                let leads = topology.primary == Some(conn.backend) && topology.term == conn.term;
                leads && !topology.doubt && (topology.accepting || self.is_bound(slot))
            }
            Slot::Follower => routing::serves_reads(&topology, conn.backend, LAG_MAX),
        };
        serves && self.is_quiet(slot)
    }

    async fn checkout_primary(&mut self, deadline: Time) -> Result<Slot, Unavailable> {
        loop {
            let (topology, now_ms) = {
                let world = self.w.borrow();
                (world.topology.clone(), world.now_ms())
            };
            let proven = topology.primary_for_writes(now_ms, DOUBT_MS_MAX);
            let kept = self.slots[0].as_ref().map(|c| (c.backend, c.term));
            let turn = match self.is_quiet(Slot::Primary) {
                true if self.has(Plant::UnprovenPrimary) && kept.is_some() => Turn::Keep,
                true => routing::primary(&topology, proven, kept, self.is_bound(Slot::Primary)),
                false => Turn::Leave,
            };
            match turn {
                Turn::Leave => {
                    let quiet = self.is_quiet(Slot::Primary);
                    self.lose(Slot::Primary, quiet)?;
                }
                Turn::Keep => {
                    if self.bring(Slot::Primary).await? {
                        return Ok(Slot::Primary);
                    }
                }
                Turn::Wait => self.hold(topology.version, deadline).await?,
                Turn::Connect(primary) => {
                    let (id, term) = (primary.id, topology.term);
                    if self.adopt(id, term) {
                        continue;
                    }
                    if !self.connect(Slot::Primary, id, term, deadline).await {
                        self.w.suspect(id);
                        let again = deadline.min(self.w.borrow().now + CONNECT_AGAIN);
                        match self.hold(topology.version, again).await {
                            Err(Unavailable::Error(e)) if e.kind == ErrorKind::NoBackend => {
                                if self.w.borrow().now >= deadline {
                                    return Err(Unavailable::Error(e));
                                }
                            }
                            other => other?,
                        }
                    }
                }
            }
        }
    }

    async fn checkout_follower(&mut self, deadline: Time) -> Result<Slot, Unavailable> {
        let open = self.session.transaction() == Some(Slot::Follower);
        let mut tried: Vec<BackendId> = Vec::new();
        loop {
            let topology = self.w.borrow().topology.clone();
            if let Some(backend) = self.slots[1].as_ref().map(|conn| conn.backend) {
                let quiet = self.is_quiet(Slot::Follower);
                let drained = routing::is_drained(topology.backend(backend));
                let near = (open && !drained) || routing::serves_reads(&topology, backend, LAG_MAX);
                if !(quiet && near && !tried.contains(&backend)) {
                    self.lose(Slot::Follower, quiet)?;
                } else if self.bring(Slot::Follower).await? {
                    return Ok(Slot::Follower);
                } else if self.session.pins().contains(Pin::Variable) {
                    return self.checkout_primary(deadline).await;
                } else {
                    tried.push(backend);
                }
                continue;
            }
            let turn = self.w.borrow().rng.below(3) as usize;
            let Some(follower) = routing::choose(&topology, LAG_MAX, &tried, |_| 0, turn).map(|f| f.id) else {
                return self.checkout_primary(deadline).await;
            };
            if !self.connect(Slot::Follower, follower, topology.term, deadline).await {
                self.w.suspect(follower);
                tried.push(follower);
            }
        }
    }

    /// The server that the session reads from is the primary now.
    fn adopt(&mut self, primary: BackendId, term: Term) -> bool {
        let held = self.session.transaction().is_some() || self.session.statements.is_held();
        let there = self.slots[1].as_ref().is_some_and(|conn| conn.backend == primary);
        if held || !there || !self.is_quiet(Slot::Follower) {
            return false;
        }
        let Some(mut conn) = self.slots[1].take() else { return false };
        conn.term = term;
        self.w.borrow().links[conn.link].term = term;
        self.session.follower_became_primary();
        self.slots[0] = Some(conn);
        true
    }

    /// Waits for another snapshot; an error at the deadline, or when too many wait already.
    async fn hold(&mut self, version: u64, deadline: Time) -> Result<(), Unavailable> {
        if self.held.is_none() && !self.waits() {
            let held = self.w.borrow().holds.enter(0);
            if held.is_none() && !self.has(Plant::UnboundedHold) {
                self.w.borrow().count("hold was full");
                let error = ClientError::new(ErrorKind::Limit, "too many statements wait already");
                return Err(Unavailable::Error(error));
            }
            self.held = held;
            self.enter_hold();
        }
        let news = self.w.clone();
        let changed = news.wait(self.task, Some(deadline), |w| (w.topology.version != version).then_some(()));
        changed.await.ok_or_else(|| {
            Unavailable::Error(ClientError::new(
                ErrorKind::NoBackend,
                "no proven primary; the statement was not executed",
            ))
        })
    }

    fn waits(&self) -> bool {
        self.w.borrow().waiters.contains(&self.task)
    }

    fn enter_hold(&mut self) {
        let mut world = self.w.borrow();
        world.waiters.insert(self.task);
        world.count("held");
        let (waiting, max) = (world.waiters.len(), world.setup.hold_statements_max);
        if waiting > max {
            world.fail(format!("{waiting} statements are held, {max} may be"));
        }
    }

    /// Connects, and has the server report what it should. False if it does not let us in.
    async fn connect(&mut self, slot: Slot, backend: BackendId, term: Term, deadline: Time) -> bool {
        let link = self.w.borrow().connect(self.task, backend, term);
        let until = deadline.min(self.w.borrow().now + CONNECT_MAX);
        let w = self.w.clone();
        let state = w.wait(self.task, Some(until), |w| {
            Some(w.links[link].state).filter(|state| *state != LinkState::Connecting)
        });
        if state.await != Some(LinkState::Open) {
            self.w.borrow().links[link].state = LinkState::Closed;
            return false;
        }
        let conn = {
            let mut world = self.w.borrow();
            world.epochs += 1;
            let shape = Shape { deprecate_eof: world.links[link].deprecate_eof, optional_metadata: false };
            let (thread, epoch) = (world.links[link].thread, world.epochs);
            let (variables, insert_id, autocommit) = (0, 0, true);
            let (tracks_gtids, marks, trace) = (false, false, Trace::default());
            Conn {
                link,
                backend,
                term,
                thread,
                epoch,
                variables,
                autocommit,
                insert_id,
                tracks_gtids,
                marks,
                trace,
                shape,
            }
        };
        self.slots[slot.index()] = Some(conn);
        let Ok(setup) = self.statement(slot, SETUP).await else {
            self.slots[slot.index()] = None;
            self.w.borrow().hang_up(link);
            return false;
        };
        if slot == Slot::Primary && self.session.variables.version() == 0 {
            self.session.begin(|session| observe(session, slot, &setup));
            self.is_current(slot);
        }
        true
    }

    pub fn is_current(&mut self, slot: Slot) {
        let (version, autocommit) = (self.session.variables.version(), self.session.autocommit());
        let insert_id = self.session.insert_id();
        if let Some(conn) = self.conn(slot) {
            (conn.variables, conn.autocommit, conn.insert_id) = (version, autocommit, insert_id);
        }
    }

    /// Brings a connection to the session's state; false if it was lost.
    async fn bring(&mut self, slot: Slot) -> Result<bool, Unavailable> {
        let Some(conn) = self.slots[slot.index()].as_ref() else { return Ok(false) };
        let lacking = self.session.variables.lacking(conn.variables);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut wanted: Vec<String> =
            lacking.map(|set| format!("SESSION {}='{}'", text(&set.name), text(&set.value))).collect();
        if slot == Slot::Primary && conn.autocommit != self.session.autocommit() {
            wanted.push(format!("SESSION autocommit={}", u8::from(self.session.autocommit())));
        }
        if !wanted.is_empty() && !self.has(Plant::ForgottenState) {
            match self.statement(slot, &format!("SET {}", wanted.join(", "))).await {
                Ok(_) => {}
                Err(Own::Broken) => {
                    self.lose(slot, false)?;
                    return Ok(false);
                }
                Err(Own::Refused) => {
                    let error = ClientError::new(ErrorKind::SessionStateLost, "the state was refused");
                    return Err(Unavailable::Error(error));
                }
            }
        }
        self.is_current(slot);
        Ok(true)
    }

    /// Drops a connection between statements, and says what that means.
    pub fn lose(&mut self, slot: Slot, quiet: bool) -> Result<(), Unavailable> {
        let lost_transaction = self.drop_connection(slot, !quiet);
        if slot == Slot::Primary
            && let Some(pin) = self.session.pins().lost_with_connection()
        {
            let message = format!("state ({}) went with the primary; reconnect", pin.as_str());
            return Err(Unavailable::Error(ClientError::new(ErrorKind::SessionStateLost, message)));
        }
        if self.has(Plant::ErrorToIdle) && !quiet {
            return Err(Unavailable::Error(ClientError::new(ErrorKind::NoBackend, "the server has gone away")));
        }
        if lost_transaction && !self.has(Plant::NoReplay) {
            return Err(Unavailable::Error(transaction_lost()));
        }
        Ok(())
    }

    /// Drops a connection; answers whether a transaction was open on it.
    pub fn drop_connection(&mut self, slot: Slot, suspect: bool) -> bool {
        if let Some(conn) = self.slots[slot.index()].take() {
            if slot == Slot::Primary {
                self.left = Some((conn.backend, conn.term));
            }
            if suspect {
                self.w.suspect(conn.backend);
            }
            self.w.borrow().hang_up(conn.link);
        }
        if slot == Slot::Primary {
            self.marked = None;
        }
        self.session.lost(slot)
    }

    /// A statement of the shell's own that answers OK. Answers the OK's payload.
    pub async fn statement(&mut self, slot: Slot, sql: &str) -> Result<Bytes, Own> {
        let packet = super::packets::command(0x03, sql.as_bytes());
        match self.own(slot, &packet, Answer::Results).await {
            None => Err(Own::Broken),
            Some((Kind::Err, _)) => Err(Own::Refused),
            Some((_, payload)) => Ok(payload),
        }
    }

    /// A command of the shell's own: the first packet of its answer that says something. `None`: the connection broke.
    pub async fn own(&mut self, slot: Slot, packet: &[u8], answer: Answer) -> Option<(Kind, Bytes)> {
        self.send(slot, packet, None).then_some(())?;
        let mut input = BytesMut::new();
        self.read_answer(slot, answer, &mut input).await
    }

    /// Reads one answer, whose first bytes may be in `input` already; what is behind it stays there.
    pub async fn read_answer(&mut self, slot: Slot, answer: Answer, input: &mut BytesMut) -> Option<(Kind, Bytes)> {
        let shape = self.slots[slot.index()].as_ref()?.shape;
        let mut scanner = Scanner::new(answer, shape);
        let mut first = None;
        loop {
            while let Step::Packet { kind, start, end } = scanner.scan(input).ok()? {
                first.get_or_insert_with(|| (kind, Bytes::copy_from_slice(&input[start + HEADER..end])));
            }
            let n = scanner.passed();
            input.advance(n);
            scanner.consumed(n);
            if scanner.is_done() {
                return first;
            }
            input.extend_from_slice(&self.receive(slot).await?);
        }
    }

    /// The one value of a question of the shell's own.
    pub async fn value(&mut self, slot: Slot, sql: &str) -> Option<String> {
        let packet = super::packets::command(0x03, sql.as_bytes());
        self.send(slot, &packet, None).then_some(())?;
        let shape = self.slots[slot.index()].as_ref()?.shape;
        let (mut scanner, mut input) = (Scanner::new(Answer::Results, shape), BytesMut::new());
        while !scanner.is_done() {
            input.extend_from_slice(&self.receive(slot).await?);
            while let Step::Packet { .. } = scanner.scan(&input).ok()? {}
        }
        match super::packets::read(&input, false, shape.deprecate_eof) {
            Ok(super::packets::Seen::Rows(rows)) => rows.into_iter().next().flatten(),
            Ok(_) | Err(_) => None,
        }
    }
}

/// Why a statement of the shell's own was not taken.
pub enum Own {
    Broken,
    Refused,
}
