//! Exactly once: no client has to guess whether its write was executed (`exactly_once`).
//!
//! ```text
//!  BEGIN + statement ──► answer kept ──► COMMIT ──► OK ──► the kept answer goes to the client
//!    │ lost: nothing was committed │ ERR: ROLLBACK, the ERR goes  │ lost: the verdict of the new primary
//!    └──► again                    └──► to the client             ├─ committed: the kept answer
//!                                                                 ├─ not committed: again
//!                                                                 └─ unknown: 08007
//! ```
//!
//! That is a write outside a transaction. In one, only the client's own COMMIT can be in doubt, and DDL, which can't be
//! rolled back, is sent as it is: there is a verdict on both. Why BEGIN and COMMIT: a binary log says whether, not what was
//! answered; the row count and the insert id of a lost answer are nowhere to be found.

use super::request::{Attempt, Request};
use super::{ClientSession, End};
use crate::backend::observe;
use crate::classify::Classified;
use crate::error::{ClientError, ErrorKind};
use crate::failover::fate::{self, Doubt};
use crate::failover::{refusal, stamp};
use crate::metrics;
use crate::relay::{Said, read_err};
use crate::session::Slot;
use crate::topology::Hint;
use crate::types::{BackendId, Term};
use crate::wire::command::Answer;
use crate::wire::packet::{HEADER, write_packet};
use crate::wire::response::Kind;
use crate::wire::session_track::{Ok as OkPacket, Rewrite, STATUS_AUTOCOMMIT, rewrite};
use bytes::{Bytes, BytesMut};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Instant, SystemTime};

/// Whatever completion_type is.
const COMMIT: &[u8] = b"COMMIT AND NO CHAIN NO RELEASE";
/// ER_RUN_HOOK_ERROR: the group would not have the transaction, or it can't be told whether it has it.
const RUN_HOOK_ERROR: u16 = 3100;

/// Why there is no answer.
enum NoAnswer {
    /// The connection ended, or was cut.
    Lost,
    End(End),
}

impl ClientSession {
    /// Are the commits of its connection to the primary known, and can the next be marked?
    pub(super) fn is_traced(&self) -> bool {
        self.exactly_once
            && !self.session.steers_gtids()
            && self.primary.as_ref().is_some_and(|c| c.marks == Some(true) && c.named.is_some())
            && self.is_told()
    }

    /// Marks what is sent to the primary next, by the time and version it is committed with; answers what to send before it.
    pub(super) fn mark(&mut self) -> Option<BytesMut> {
        let connection = self.primary.as_ref()?;
        let ((_, version), stamp) = (connection.named?, stamp(SystemTime::now(), connection.thread_id));
        self.marked = Some((Instant::now(), stamp));
        let sql = format!("SET SESSION original_commit_timestamp={stamp}, SESSION original_server_version={version}");
        Some(connection.query_packet(sql.as_bytes()))
    }

    /// The answer to a mark. False: the connection was lost.
    pub(super) async fn is_marked(&mut self) -> Result<bool, End> {
        match self.answer().await {
            Ok((Kind::Err, _)) => {
                self.marked = None;
                Ok(true)
            }
            Ok(_) => Ok(true),
            Err(NoAnswer::Lost) => Ok(false),
            Err(NoAnswer::End(end)) => Err(end),
        }
    }

    /// Is this a write whose COMMIT is sent apart?
    pub(super) fn commits_apart(&self, request: &Request) -> bool {
        self.is_traced()
            && request.answer == Answer::Results
            && !request.incoming.streamed
            && fate::commits_apart(&self.session, request.statement)
    }

    /// A write as BEGIN, itself, and COMMIT. `owned`: the packet to send instead of the client's.
    pub(super) async fn attempt_exactly(&mut self, request: &Request, owned: Option<BytesMut>) -> Attempt {
        self.handle.set_active(Some(Slot::Primary.index()));
        let Some(connection) = self.primary.as_mut() else { return Attempt::Again(Slot::Primary) };
        let leads = (connection.backend, connection.term);
        let mut packets = connection.query_packet(b"BEGIN");
        packets.extend_from_slice(owned.as_deref().unwrap_or(&self.client.input[..request.incoming.length]));
        if connection.send(&packets).await.is_err() {
            return self.nothing_committed();
        }
        let begun = self.answer().await;
        let answer = match begun {
            Ok(_) => self.answer().await,
            Err(lost) => Err(lost),
        };
        let (kind, payload) = match answer {
            Ok(answer) => answer,
            Err(NoAnswer::Lost) => return self.nothing_committed(),
            Err(NoAnswer::End(end)) => return self.end_exactly(end),
        };
        match kind {
            Kind::Ok => {}
            Kind::Err => return self.failed_exactly(request.statement, leads, &payload).await,
            _ => {
                // Nothing but an OK or an ERR answers such a statement.
                self.drop_connection(Slot::Primary, None);
                let message = "holdfast: the server gave an unknown answer to a write, which was rolled back";
                return Attempt::Failed(ClientError::new(ErrorKind::ResultCut, message), 1);
            }
        }
        self.commit_exactly(request, leads, payload).await
    }

    async fn commit_exactly(&mut self, request: &Request, leads: (BackendId, Term), kept: Bytes) -> Attempt {
        let Some(mut packets) = self.mark() else { return Attempt::Again(Slot::Primary) };
        let Some(connection) = self.primary.as_mut() else { return Attempt::Again(Slot::Primary) };
        packets.extend_from_slice(&connection.query_packet(COMMIT));
        let sent = connection.send(&packets).await.is_ok();
        let committed = match if sent { self.is_marked().await } else { Ok(false) } {
            Ok(true) => self.answer().await,
            Ok(false) => Err(NoAnswer::Lost),
            Err(end) => Err(NoAnswer::End(end)),
        };
        match committed {
            Ok((Kind::Err, payload)) => {
                let (errno, _) = read_err(&payload);
                if errno == RUN_HOOK_ERROR {
                    return self.refused_by_group(request, leads, kept, &payload).await;
                }
                self.marked = None;
                self.failed_exactly(request.statement, leads, &payload).await
            }
            Ok((_, payload)) => self.committed(request, &kept, Some(&payload)).await,
            Err(NoAnswer::Lost) => self.resolve(request, Doubt::Kept(kept)).await,
            Err(NoAnswer::End(end)) => self.end_exactly(end),
        }
    }

    /// The group would not have the write, or its primary is losing its place. If it is the primary still, it has said all there
    /// is to say of a write that is not there: it would not have it again, either.
    async fn refused_by_group(
        &mut self,
        request: &Request,
        leads: (BackendId, Term),
        kept: Bytes,
        refusal: &[u8],
    ) -> Attempt {
        let attempt = self.resolve(request, Doubt::Kept(kept)).await;
        let (term, primary) = self.cluster().proven_primary();
        let stays = primary.is_some_and(|primary| (primary.id, term) == leads);
        match attempt {
            Attempt::Again(_) if stays => self.answer_client(refusal, Some(RUN_HOOK_ERROR)).await,
            other => other,
        }
    }

    /// Answers the client what its write answered; `commit`: what COMMIT answered, if that is known.
    pub(super) async fn committed(&mut self, request: &Request, kept: &[u8], commit: Option<&[u8]>) -> Attempt {
        let Ok(mut ok) = OkPacket::read(kept) else { return Attempt::End(End::Error(ErrorKind::ResultCut)) };
        observe(&mut self.session, Slot::Primary, kept);
        if ok.last_insert_id != 0 {
            self.session.set_insert_id(ok.last_insert_id);
        }
        let mut changes = ok.changes.to_vec();
        let committed = commit.and_then(|payload| OkPacket::read(payload).ok());
        if let (Some(payload), Some(committed)) = (commit, &committed) {
            observe(&mut self.session, Slot::Primary, payload);
            changes.extend_from_slice(committed.changes);
        }
        (ok.changes, ok.status) = (&changes, committed.map_or(STATUS_AUTOCOMMIT, |commit| commit.status));
        let how = Rewrite { changed_back: false, hide_gtids: !self.session.wants_gtids(), hide_transaction: true };
        let mut payload = BytesMut::new();
        rewrite(&ok, &self.tracking, how, &mut payload);
        if commit.is_some() {
            self.answered(request, false, &Said::default());
            let Self { session, primary, .. } = self;
            if let Some(connection) = primary.as_mut() {
                connection.is_current(session, Slot::Primary);
                if ok.last_insert_id != 0 {
                    connection.has_insert_id(ok.last_insert_id);
                }
                connection.count();
            }
        } else {
            self.session.lost(Slot::Primary);
        }
        self.session.sent(Slot::Primary, request.statement);
        self.answer_client(&payload, None).await
    }

    /// The statement failed: it is rolled back, and the client is told.
    async fn failed_exactly(&mut self, statement: Classified, leads: (BackendId, Term), payload: &[u8]) -> Attempt {
        let rolled_back = match self.primary.as_mut() {
            Some(connection) => connection.statement("ROLLBACK").await,
            None => Ok(Bytes::new()),
        };
        if rolled_back.is_err() {
            self.drop_connection(Slot::Primary, Some(Hint::ConnectionLost));
        }
        let (errno, message) = read_err(payload);
        if refusal::by_fence(errno, message) {
            let mut packet = BytesMut::new();
            write_packet(&mut packet, &mut 1, payload);
            return self.refused_as_read_only(statement, leads, packet.freeze()).await;
        }
        self.session.ran_on(Slot::Primary);
        self.answer_client(payload, Some(errno)).await
    }

    pub(super) async fn answer_client(&mut self, payload: &[u8], errno: Option<u16>) -> Attempt {
        match self.reply(payload, 1).await {
            Ok(()) => {
                let forwarded = (payload.len() + HEADER) as u64;
                Attempt::Done(Said { errno, forwarded, next_sequence: 2, ..Said::default() })
            }
            Err(end) => Attempt::End(end),
        }
    }

    /// The connection was lost before a COMMIT was sent.
    fn nothing_committed(&mut self) -> Attempt {
        self.drop_connection(Slot::Primary, Some(Hint::ConnectionLost));
        if self.is_killed() {
            return Attempt::End(End::Killed);
        }
        metrics::rerun(&self.cluster().name.0, "not_committed");
        match self.session.pins().lost_with_connection() {
            Some(pin) => Attempt::Failed(super::lost::state_lost(pin), 1),
            None => Attempt::Again(Slot::Primary),
        }
    }

    fn end_exactly(&mut self, end: End) -> Attempt {
        self.drop_connection(Slot::Primary, None);
        Attempt::End(end)
    }

    /// KILL has ended it, or is on its way: a connection that is lost now was killed.
    pub(super) fn is_killed(&self) -> bool {
        self.handle.kill.is_cancelled() || self.handle.doomed.load(Ordering::Relaxed)
    }

    /// Waits for the next answer of the primary's connection, for as long as the client and the connection are to live.
    async fn answer(&mut self) -> Result<(Kind, Bytes), NoAnswer> {
        let Self { client, primary, kill, handle, .. } = self;
        let Some(connection) = primary.as_mut() else { return Err(NoAnswer::Lost) };
        let (index, mine) = (Slot::Primary.index(), handle.raw_connection(Slot::Primary.index()));
        let mut answer = pin!(connection.answer(Answer::Results));
        let mut watch_client = true;
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(|_| NoAnswer::Lost));
            }
            if handle.nudge.poll_cut(cx, index, mine) {
                return Poll::Ready(Err(NoAnswer::Lost));
            }
            if kill.poll(cx).is_ready() {
                return Poll::Ready(Err(NoAnswer::End(End::Killed)));
            }
            if watch_client {
                match client.poll_gone(cx) {
                    Poll::Ready(true) => return Poll::Ready(Err(NoAnswer::End(End::ClientGone))),
                    Poll::Ready(false) => watch_client = false,
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }
}
