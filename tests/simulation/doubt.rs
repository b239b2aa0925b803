//! The shell when an answer is lost: verdicts, writes whose COMMIT is sent apart, transactions that are run again.

use super::checkout::observe;
use super::plant::Plant;
use super::shell::{Attempt, Request, Said, Shell, transaction_lost};
use super::world::Time;
use bytes::{Bytes, BytesMut};
use holdfast::classify::{Class, Classified};
use holdfast::error::{ClientError, ErrorKind};
use holdfast::failover::fate::{Doubt, Fate, Lost, Settled};
use holdfast::failover::refusal::{self, Refused};
use holdfast::failover::{Verdict, fate, verdict};
use holdfast::session::{Pin, Slot};
use holdfast::topology::Topology;
use holdfast::types::{BackendId, Term};
use holdfast::wire::command::Answer;
use holdfast::wire::ok::OkPacket as PlainOk;
use holdfast::wire::packet::write_packet;
use holdfast::wire::response::Kind;
use holdfast::wire::session_track::{Ok as OkPacket, Rewrite, STATUS_AUTOCOMMIT, Tracking, rewrite};
use std::sync::Arc;

const COMMIT: &str = "COMMIT AND NO CHAIN NO RELEASE";
/// ER_RUN_HOOK_ERROR.
const RUN_HOOK_ERROR: u16 = 3100;

impl Shell {
    /// Waits for a primary that was proven after `asked`.
    async fn primary_since(&mut self, asked: u64, until: Time) -> Option<Arc<Topology>> {
        let w = self.w.clone();
        let proven = w.wait(self.task, Some(until), |world| {
            let topology = &world.topology;
            let proven = topology.primary.is_some() && topology.proven_ms.is_some_and(|proven| proven > asked);
            proven.then(|| topology.clone())
        });
        proven.await
    }

    /// Finds out what became of it, and goes on from there.
    pub async fn resolve(&mut self, request: &Request, doubt: Doubt) -> Attempt {
        self.session.written.lose_track();
        let verdict = match self.plant {
            Some(Plant::ForgottenVerdict) => {
                self.drop_connection(Slot::Primary, true);
                Verdict::NotCommitted
            }
            Some(Plant::AcknowledgedEarly) => {
                self.drop_connection(Slot::Primary, true);
                Verdict::Committed
            }
            _ => self.verdict().await,
        };
        self.w.borrow().note(|| format!("verdict {verdict:?}"));
        self.w.borrow().count(match verdict {
            Verdict::Committed => "verdict: committed",
            Verdict::NotCommitted => "verdict: not committed",
            Verdict::Unknown(_) => "verdict: unknown",
        });
        let failed = |kind, message: &str| Attempt::Failed(ClientError::new(kind, message.to_owned()), 1);
        match fate::settle(verdict, &doubt, request.statement, false, self.session.pins()) {
            Settled::Kept => match doubt {
                Doubt::Kept(kept) => self.committed(request, &kept, None),
                Doubt::Commit | Doubt::Before | Doubt::Write => self.done(request),
            },
            Settled::Done => self.done(request),
            Settled::ChainLost => failed(ErrorKind::ResultCut, "committed, but the chain is lost"),
            Settled::AnswerLost => failed(ErrorKind::ResultCut, "executed and committed; the answer is lost"),
            Settled::Again => Attempt::Again(Slot::Primary),
            Settled::NotExecuted => failed(ErrorKind::NoBackend, "not executed"),
            Settled::TransactionLost => Attempt::Failed(transaction_lost(), 1),
            Settled::StateLost(pin) => Attempt::Failed(state_lost(pin), 1),
            Settled::Unknown(why) => failed(ErrorKind::OutcomeUnknown, why),
        }
    }

    async fn verdict(&mut self) -> Verdict {
        let (stamp, conn) = (self.marked.take(), self.slots[0].as_mut());
        let in_doubt = conn.map(|conn| (std::mem::take(&mut conn.trace), conn.backend, conn.thread));
        self.drop_connection(Slot::Primary, false);
        let (Some(stamp), Some((trace, backend, thread))) = (stamp, in_doubt) else {
            return Verdict::Unknown("it could not be marked");
        };
        let deadline = self.w.setup().hold_max + self.w.borrow().now;
        let mut asked = self.w.suspect(backend);
        loop {
            let Some(primary) = self.primary_since(asked, deadline).await.and_then(|topology| topology.primary) else {
                return Verdict::Unknown("no primary was proven in time");
            };
            let server = primary.0 as usize;
            let own = primary == backend && self.w.borrow().is_thread_alive(server, thread);
            let looked = self.look(server, backend.0 as usize, stamp, deadline).await;
            let silent = looked.is_none();
            if let Some(verdict) = looked.filter(|_| !own).and_then(|seen| verdict(&trace, &seen)) {
                return verdict;
            }
            if self.w.borrow().now >= deadline {
                return Verdict::Unknown("the new primary can't be asked");
            }
            self.w.clone().sleep(self.task, if silent { 20_000 } else { 5_000 }).await;
            if silent {
                asked = self.w.suspect(primary);
            }
        }
    }

    fn done(&mut self, request: &Request) -> Attempt {
        self.session.sent(Slot::Primary, request.statement);
        let ok = PlainOk {
            header: 0,
            affected_rows: 0,
            last_insert_id: 0,
            status: STATUS_AUTOCOMMIT,
            warnings: 0,
            tail: &[],
        };
        self.answer(&ok.payload())
    }

    fn answer(&mut self, payload: &[u8]) -> Attempt {
        let mut packet = BytesMut::new();
        write_packet(&mut packet, &mut 1, payload);
        self.out.extend_from_slice(&packet);
        Attempt::Done
    }

    /// A write as BEGIN, itself, and COMMIT.
    pub async fn attempt_exactly(&mut self, request: &Request) -> Attempt {
        let mut packets = super::packets::command(0x03, b"BEGIN");
        packets.extend_from_slice(&request.packet);
        let mut input = BytesMut::new();
        if !self.send(Slot::Primary, &packets, Some(request.statement)) {
            return self.nothing_committed();
        }
        let begun = self.read_answer(Slot::Primary, Answer::Results, &mut input).await;
        let answer = match begun {
            Some(_) => self.read_answer(Slot::Primary, Answer::Results, &mut input).await,
            None => None,
        };
        let Some((kind, kept)) = answer else { return self.nothing_committed() };
        if kind == Kind::Err {
            return self.failed_exactly(request.statement, &kept).await;
        }
        let Some(mark) = self.mark() else { return Attempt::Again(Slot::Primary) };
        let mut packets = super::packets::command(0x03, mark.as_bytes());
        packets.extend_from_slice(&super::packets::command(0x03, COMMIT.as_bytes()));
        let marked = match self.send(Slot::Primary, &packets, None) {
            true => self.read_answer(Slot::Primary, Answer::Results, &mut input).await,
            false => None,
        };
        let committed = match marked {
            Some(_) => self.read_answer(Slot::Primary, Answer::Results, &mut input).await,
            None => None,
        };
        match committed {
            Some((Kind::Err, payload)) => {
                if holdfast::relay::read_err(&payload).0 == RUN_HOOK_ERROR {
                    return self.resolve(request, Doubt::Kept(kept)).await;
                }
                self.marked = None;
                self.failed_exactly(request.statement, &payload).await
            }
            Some((_, payload)) => self.committed(request, &kept, Some(&payload)),
            None => self.resolve(request, Doubt::Kept(kept)).await,
        }
    }

    /// Answers the client what its write answered.
    fn committed(&mut self, request: &Request, kept: &[u8], commit: Option<&[u8]>) -> Attempt {
        let Ok(mut ok) = OkPacket::read(kept) else { return Attempt::End(ErrorKind::ResultCut) };
        observe(&mut self.session, Slot::Primary, kept);
        let committed = commit.and_then(|payload| OkPacket::read(payload).ok());
        if let Some(payload) = commit {
            observe(&mut self.session, Slot::Primary, payload);
        }
        let changes = committed.map_or(Vec::new(), |commit| commit.changes.to_vec());
        (ok.changes, ok.status) = (&changes, committed.map_or(STATUS_AUTOCOMMIT, |commit| commit.status));
        let how = Rewrite { changed_back: false, hide_gtids: true, hide_transaction: true };
        let mut payload = BytesMut::new();
        rewrite(&ok, &Tracking::Variables(Default::default()), how, &mut payload);
        if commit.is_some() {
            self.answered(request.statement, request.answer, false, &Said::default());
            self.is_current(Slot::Primary);
        } else {
            self.session.lost(Slot::Primary);
        }
        self.session.sent(Slot::Primary, request.statement);
        self.answer(&payload)
    }

    async fn failed_exactly(&mut self, statement: Classified, payload: &[u8]) -> Attempt {
        let leads = self.slots[0].as_ref().map(|conn| (conn.backend, conn.term));
        if self.statement(Slot::Primary, "ROLLBACK").await.is_err() {
            self.drop_connection(Slot::Primary, true);
        }
        let (errno, message) = holdfast::relay::read_err(payload);
        let mut packet = BytesMut::new();
        write_packet(&mut packet, &mut 1, payload);
        if refusal::by_fence(errno, message)
            && let Some(leads) = leads
        {
            return self.refused_as_read_only(statement, leads, packet.freeze()).await;
        }
        self.session.ran_on(Slot::Primary);
        Attempt::Refused(packet.freeze())
    }

    /// The connection was lost before a COMMIT was sent.
    fn nothing_committed(&mut self) -> Attempt {
        self.drop_connection(Slot::Primary, true);
        match self.session.pins().lost_with_connection() {
            Some(pin) => Attempt::Failed(state_lost(pin), 1),
            None => Attempt::Again(Slot::Primary),
        }
    }

    /// A server refused as read-only: nothing was executed.
    pub async fn withheld(&mut self, statement: Classified, slot: Slot, packet: Bytes) -> Attempt {
        if slot == Slot::Follower {
            return Attempt::Again(Slot::Primary);
        }
        let leads = self.slots[0].as_ref().map(|conn| (conn.backend, conn.term));
        let Some(leads) = leads else { return Attempt::Again(slot) };
        self.refused_as_read_only(statement, leads, packet).await
    }

    async fn refused_as_read_only(
        &mut self,
        statement: Classified,
        leads: (BackendId, Term),
        packet: Bytes,
    ) -> Attempt {
        let asked = self.w.suspect(leads.0);
        let until = self.w.setup().hold_max + self.w.borrow().now;
        let topology = self.primary_since(asked, until).await;
        let open = self.session.transaction() == Some(Slot::Primary);
        match refusal::after(topology.as_deref(), leads, statement, open, self.refused) {
            Refused::Fenced if !open => Attempt::Again(Slot::Primary),
            Refused::Fenced | Refused::RolledBack => {
                self.drop_connection(Slot::Primary, false);
                match self.session.pins().lost_with_connection() {
                    Some(pin) => Attempt::Failed(state_lost(pin), 1),
                    None => Attempt::Failed(transaction_lost(), 1),
                }
            }
            Refused::Again => {
                self.refused = true;
                Attempt::Again(Slot::Primary)
            }
            Refused::Stands => Attempt::Refused(packet),
        }
    }

    /// The connection ended before the answer did, and nobody knows.
    pub fn backend_lost(&mut self, request: &Request, lost: &Lost, sequence: u8) -> Attempt {
        self.drop_connection(lost.slot, true);
        if lost.slot == Slot::Primary && request.statement.class != Class::Read {
            self.session.written.lose_track();
        }
        let sequence = if lost.forwarded { sequence } else { 1 };
        let failed = |kind, message: &'static str| Attempt::Failed(ClientError::new(kind, message), sequence);
        match fate::fate(&self.session, request.statement, lost) {
            Fate::Again => Attempt::Again(lost.slot),
            Fate::CutShort => Attempt::End(ErrorKind::ResultCut),
            Fate::StateLost(pin) => Attempt::Failed(state_lost(pin), sequence),
            Fate::TransactionLost if self.has(Plant::NoReplay) => Attempt::Again(Slot::Primary),
            Fate::TransactionLost => Attempt::Failed(transaction_lost(), sequence),
            Fate::ResultCut => failed(ErrorKind::ResultCut, "the result was cut"),
            Fate::OutcomeUnknown => failed(ErrorKind::OutcomeUnknown, "the outcome is unknown"),
        }
    }
}

fn state_lost(pin: Pin) -> ClientError {
    ClientError::new(ErrorKind::SessionStateLost, format!("state ({}) went with the server; reconnect", pin.as_str()))
}
