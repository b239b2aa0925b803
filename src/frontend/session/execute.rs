//! One statement: routed, checked out, sent, relayed; again elsewhere where that is provably safe, else an honest error.
//!
//! | what happened | what follows |
//! | --- | --- |
//! | the command did not reach the server whole | sent again |
//! | a read outside a transaction, nothing forwarded | sent again |
//! | refused because the server is read-only | from a follower: the primary; from the primary: held for the new one |
//! | a read, partly forwarded | error 1159 behind the last whole packet |
//! | inside a transaction | error 1213 / 40001 |
//! | a write or COMMIT, answer lost | error 1105 / 08007: outcome unknown |

use super::checkout::Unavailable;
use super::freshness::is_not_understood;
use super::request::{Attempt, PrepareFailed, Request};
use super::send::Sent;
use super::{ClientSession, End};
use super::{replay, share};
use crate::classify::{Class, Flags};
use crate::error::{ClientError, ErrorKind};
use crate::failover::fate::{self, Lost};
use crate::metrics;
use crate::relay::{Context256, Ended, Relay, Said};
use crate::routing::{self, Route};
use crate::session::Slot;
use crate::wire::command::Answer;
use crate::wire::packet::write_packet;
use bytes::{Buf, BytesMut};
use tokio::time::Instant;

impl ClientSession {
    /// Runs a request to its end and takes it off the input. What the client read is in the answer's `errno`; errors of
    /// the proxy's own count as errno 1105.
    pub(super) async fn execute(&mut self, request: Request) -> Result<Said, End> {
        let started = Instant::now();
        self.inserts = share::inserts(request.statement);
        if self.is_settling_due(request.statement)
            && let Err(unavailable) = Box::pin(self.settle()).await
        {
            return self.unavailable(request, unavailable).await;
        }
        if self.account.is_some() && self.asks_for_what_is_gone(&request).await {
            let mut request = request;
            return match Box::pin(self.answer_left(&mut request)).await? {
                Some(said) => Ok(said),
                None => Box::pin(self.execute(request)).await,
            };
        }
        if is_not_understood(request.statement) {
            return self.refuse_consistency(&request).await;
        }
        let was_open = self.session.transaction().is_some();
        self.refused = false;
        if !was_open {
            self.recorder.begin(self.session.insert_id());
        }
        let listener = self.around.inside.gate.listener.config.consistency;
        let route = routing::route_command(self.mode, listener, &self.session, request.command());
        let said = self.attempts(request, route, started).await?;
        if self.session.transaction() == Some(Slot::Follower) && request.statement.flags.contains(Flags::LAST_INSERT_ID)
        {
            self.learn_insert_id(Slot::Follower).await;
        }
        self.handle.set_active(None);
        self.count_pins();
        self.count(&request, was_open, &said, started.elapsed());
        Ok(said)
    }

    fn count(&self, request: &Request, was_open: bool, said: &Said, elapsed: std::time::Duration) {
        let class = match (request.answer, request.statement.class) {
            (Answer::Prepared, _) => metrics::Class::Prepare,
            _ if was_open => metrics::Class::Transaction,
            (_, Class::Begin { .. } | Class::Commit { .. } | Class::Rollback { .. } | Class::Savepoint | Class::Xa) => {
                metrics::Class::Transaction
            }
            _ if request.prepared.is_some() => metrics::Class::Execute,
            (_, Class::Read) => metrics::Class::Read,
            (_, Class::Set | Class::Use) => metrics::Class::Set,
            (_, Class::Write | Class::Multi | Class::Call | Class::LoadDataLocal) => metrics::Class::Write,
            _ => metrics::Class::Other,
        };
        let target = match self.session.last() {
            Slot::Primary => metrics::Target::Primary,
            Slot::Follower => metrics::Target::Follower,
        };
        let stats = &self.around.inside.stats;
        stats.query(class, target, elapsed);
        stats.received(request.incoming.length);
        stats.sent(said.forwarded as usize);
        if said.errno.is_some() {
            stats.server_error();
        }
    }

    async fn attempts(&mut self, mut request: Request, route: Route, started: Instant) -> Result<Said, End> {
        let mut slot = route.slot;
        let deadline = started + self.around.inside.gate.hold_max();
        loop {
            slot = match self.checkout(slot, deadline).await {
                Ok(slot) => slot,
                Err(Unavailable::Error(error)) if self.is_replayable(&request, &error) => {
                    match Box::pin(self.replay(deadline)).await {
                        Ok(()) => continue,
                        Err(why) => return self.unavailable(request, why).await,
                    }
                }
                Err(unavailable) => return self.unavailable(request, unavailable).await,
            };
            if route.fresh {
                slot = match self.freshen(slot, deadline).await {
                    Ok(slot) => slot,
                    Err(unavailable) => return self.unavailable(request, unavailable).await,
                };
            }
            match self.attempt(&mut request, slot, route.repeatable).await {
                Attempt::Failed(error, 1) if self.is_replayable(&request, &error) => {
                    match Box::pin(self.replay(deadline)).await {
                        Ok(()) => slot = Slot::Primary,
                        Err(why) => return self.unavailable(request, why).await,
                    }
                }
                Attempt::Done(said) => {
                    self.client.input.advance(request.incoming.length);
                    return Ok(said);
                }
                Attempt::Again(next) if Instant::now() < deadline => slot = next,
                Attempt::Again(_) => {
                    let error =
                        ClientError::new(ErrorKind::NoBackend, "holdfast: no server took the statement in time; retry");
                    return self.unavailable(request, Unavailable::Error(error)).await;
                }
                Attempt::Failed(error, sequence) => {
                    self.client.input.advance(request.incoming.length);
                    self.refuse(&error, sequence).await?;
                    if error.kind == ErrorKind::SessionStateLost {
                        return Err(End::Error(error.kind));
                    }
                    return Ok(failed());
                }
                Attempt::Refused(packet) => {
                    self.client.input.advance(request.incoming.length);
                    self.client.write_all(&packet).await.map_err(|_| End::ClientGone)?;
                    return Ok(failed());
                }
                Attempt::End(end) => return Err(end),
            }
        }
    }

    /// No connection: tells the client why.
    async fn unavailable(&mut self, request: Request, why: Unavailable) -> Result<Said, End> {
        if let Unavailable::End(end) = why {
            return Err(end);
        }
        self.skip(request.incoming).await?;
        match why {
            Unavailable::Error(error) => {
                self.refuse(&error, 1).await?;
                if matches!(error.kind, ErrorKind::SessionStateLost | ErrorKind::ClusterGone) {
                    return Err(End::Error(error.kind));
                }
            }
            Unavailable::Refused(err) => self.reply(&err, 1).await?,
            Unavailable::End(end) => return Err(end),
        }
        Ok(failed())
    }

    /// Sends the request on the connection in `slot` and relays the answer.
    async fn attempt(&mut self, request: &mut Request, slot: Slot, repeatable: bool) -> Attempt {
        let asked = self.asked(slot);
        let owned = match self.ready(request, slot).await {
            Ok(owned) => owned,
            Err(why) => return self.prepare_failed(why, slot),
        };
        if slot == Slot::Primary
            && let Err(again) = self.ready_tracking(request.statement).await
        {
            return again;
        }
        // Whoever asked a server something first may have waited long for its answer: does the connection still lead there?
        if self.asked(slot) != asked && !self.is_ready(slot) {
            return Attempt::Again(slot);
        }
        if slot == Slot::Primary && self.commits_apart(request) {
            return self.attempt_exactly(request, owned).await;
        }
        self.handle.set_active(Some(slot.index()));
        let was_open = self.session.transaction().is_some();
        let traced = slot == Slot::Primary && self.is_traced();
        let knowable = traced && fate::is_knowable(&self.session, request.statement, was_open);
        let mark = if knowable { self.mark() } else { None };
        let sent = match self.send(request, slot, owned.as_deref(), mark).await {
            Ok(Sent::Lost) => {
                let lost = lost_answer(request, slot, repeatable, was_open, &Said::default());
                return self.answer_lost(request, &lost, 1).await;
            }
            Ok(sent) => sent,
            Err(attempt) => return attempt,
        };
        self.relay_answer(request, slot, owned.as_deref(), (sent, repeatable, was_open)).await
    }

    /// Relays the answer to what was sent on the connection in `slot`. `owned`: what was sent instead of the client's packet.
    async fn relay_answer(
        &mut self,
        request: &mut Request,
        slot: Slot,
        owned: Option<&[u8]>,
        (sent, repeatable, was_open): (Sent, bool, bool),
    ) -> Attempt {
        let withhold = self.withhold(request, slot, was_open);
        let hide_gtids = self.hides_gtids(slot);
        let records = slot == Slot::Primary && self.records(request, was_open);
        let Self { client, session, primary, follower, tracking, handle, account, .. } = self;
        let Some(connection) = (match slot {
            Slot::Primary => primary.as_mut(),
            Slot::Follower => follower.as_mut(),
        }) else {
            return Attempt::Again(slot);
        };
        let mut said = Said::default();
        let mut digest = records.then(replay::digest);
        let shape = connection.shape;
        let (nudge, index, mine) = (&handle.nudge, slot.index(), handle.raw_connection(slot.index()));
        let mut relay = Relay {
            client,
            backend: &mut connection.channel,
            session,
            slot,
            tracking,
            hide_gtids,
            class: request.statement.class,
            statement_id: request.new_id,
            command: request.incoming.length,
            kill: handle.kill.token(),
            cut: &|cx| nudge.poll_cut(cx, index, mine),
            counts: account.is_some(),
            digest: digest.as_mut(),
            forwards: true,
            withhold,
        };
        let ended = relay.run(request.answer, shape, &mut said).await;
        request.incoming.length = relay.command;
        match ended {
            Ended::Done => {
                connection.is_current(session, slot);
                if said.insert_id != 0 {
                    connection.has_insert_id(said.insert_id);
                }
                connection.count();
                self.relayed(request, (slot, sent, was_open), owned, said, digest)
            }
            Ended::Withheld { errno, length } => self.withheld(request.statement, slot, (errno, length)).await,
            Ended::BackendLost { clean } => {
                let whole = sent == Sent::Whole;
                let lost = Lost { whole, clean, ..lost_answer(request, slot, repeatable, was_open, &said) };
                self.answer_lost(request, &lost, said.next_sequence).await
            }
            Ended::ClientLost => {
                self.drop_connection(slot, None);
                Attempt::End(End::ClientGone)
            }
            Ended::OutOfOrder { got } => {
                self.drop_connection(slot, None);
                Attempt::End(self.out_of_order((said.next_sequence, got), said.next_sequence).await)
            }
            Ended::Malformed(malformed) => {
                tracing::error!(session = self.handle.id.0, %malformed, "server broke the protocol");
                let lost = lost_answer(request, slot, false, was_open, &said);
                self.backend_lost(request, &lost, said.next_sequence)
            }
        }
    }

    /// The whole answer was relayed.
    fn relayed(
        &mut self,
        request: &Request,
        (slot, sent, was_open): (Slot, Sent, bool),
        owned: Option<&[u8]>,
        said: Said,
        digest: Option<Context256>,
    ) -> Attempt {
        if slot == Slot::Primary {
            self.answered(request, was_open, &said);
        }
        if sent == Sent::Partly {
            // The server refused the upload and closes; what the client still sends can't be told apart.
            self.drop_connection(slot, None);
            return Attempt::End(End::Error(ErrorKind::MalformedPacket));
        }
        self.note(request, slot, &said);
        if slot == Slot::Primary {
            self.record(request, owned, &said, digest);
        }
        Attempt::Done(said)
    }

    /// Bytes that were ever sent on the connection in `slot`.
    #[inline]
    fn asked(&mut self, slot: Slot) -> Option<u64> {
        self.slot(slot).as_ref().map(|connection| connection.channel.bytes_out)
    }

    /// Readies the connection in `slot` for the request: what a command answered elsewhere would have done there, and the
    /// prepared statement. Answers the packet to send instead of the client's, if it must be another.
    #[inline]
    async fn ready(&mut self, request: &Request, slot: Slot) -> Result<Option<BytesMut>, PrepareFailed> {
        if self.session.is_row_count_due(request.statement)
            && let Some(connection) = self.slot(slot)
        {
            connection.ping().await.map_err(|_| PrepareFailed::Broken)?;
        }
        self.ready_prepared(request, slot).await
    }

    fn prepare_failed(&mut self, why: PrepareFailed, slot: Slot) -> Attempt {
        match why {
            PrepareFailed::Refused(payload) => {
                let mut packet = BytesMut::new();
                write_packet(&mut packet, &mut 1, &payload);
                Attempt::Refused(packet.freeze())
            }
            PrepareFailed::Broken => match self.lost_while_preparing(slot) {
                Some(error) => Attempt::Failed(error, 1),
                None => Attempt::Again(slot),
            },
            PrepareFailed::Gone => {
                let message = "holdfast: the prepared statement went with its server; prepare it again";
                Attempt::Failed(ClientError::new(ErrorKind::UnknownStatement, message), 1)
            }
        }
    }

    /// Tells the session what was run.
    #[inline]
    fn note(&mut self, request: &Request, slot: Slot, said: &Said) {
        if self.account.is_some() {
            self.note_left(request, slot, said);
        }
        if request.answer == Answer::Prepared {
            return self.session.ran_on(slot);
        }
        if slot == Slot::Primary && share::leaves_insert_id(request.statement, said) {
            self.session.doubt_insert_id();
        }
        match said.errno {
            None => self.session.sent(slot, request.statement),
            // Part of several statements may have been run.
            Some(_) if request.statement.class == Class::Multi => self.session.sent(slot, request.statement),
            Some(_) => self.session.ran_on(slot),
        }
    }
}

/// An answer that ended after `said`, in the middle of something.
fn lost_answer(request: &Request, slot: Slot, repeatable: bool, was_open: bool, said: &Said) -> Lost {
    let (forwarded, streamed) = (said.forwarded > 0, request.incoming.streamed);
    Lost { slot, whole: true, forwarded, clean: false, repeatable, streamed, was_open }
}

/// What `execute` answers when the client got an error that was not relayed.
pub(super) fn failed() -> Said {
    Said { errno: Some(1105), ..Said::default() }
}
