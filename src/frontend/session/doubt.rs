//! An answer was lost with its server: what became of the write, by the lane it was sent under.

use super::execute::{Attempt, Request};
use super::lost::Lost;
use super::{ClientSession, End};
use crate::classify::{Class, Flags};
use crate::error::{ClientError, ErrorKind};
use crate::failover::Verdict;
use crate::metrics;
use crate::session::Slot;
use crate::topology::Hint;
use crate::wire::session_track::STATUS_AUTOCOMMIT;
use bytes::Bytes;
use std::time::Instant;

/// What is in doubt when an answer was lost.
pub(super) enum Doubt {
    /// The client's COMMIT.
    Commit,
    /// A write that was sent as it is.
    Write,
    /// The proxy's COMMIT of a write whose answer is kept.
    Kept(Bytes),
}

impl ClientSession {
    /// What is in doubt, where a lane has the verdict on it.
    pub(super) fn doubt(&self, request: &Request, lost: &Lost) -> Option<Doubt> {
        let untold = lost.whole && lost.said.forwarded == 0 && !self.is_killed();
        // What is not written to the binary log has no GTID.
        if self.session.is_unlogged() {
            return None;
        }
        if !untold || self.lane.lease.is_none() || self.session.pins().lost_with_connection().is_some() {
            return None;
        }
        match request.statement.class {
            Class::Commit { .. } if lost.was_open => Some(Doubt::Commit),
            Class::Write if !lost.was_open && self.session.autocommit() && !lost.repeatable => Some(Doubt::Write),
            _ => None,
        }
    }

    /// Finds out what became of it, on the new primary, and goes on from there.
    pub(super) async fn resolve(&mut self, request: &Request, doubt: Doubt) -> Attempt {
        // Whatever it was, its GTIDs were in the answer.
        self.session.written.lose_track();
        let verdict = match self.verdict().await {
            Ok(verdict) => verdict,
            Err(end) => return Attempt::End(end),
        };
        let cluster = self.cluster().name.0.to_string();
        let (word, pin) = match verdict {
            Verdict::Committed => ("committed", None),
            Verdict::NotCommitted => ("not_committed", self.session.pins().lost_with_connection()),
            Verdict::Unknown(_) => ("unknown", None),
        };
        metrics::verdict(&cluster, word);
        tracing::info!(session = self.handle.id.0, cluster, ?verdict, "an answer was lost with its server");
        match (verdict, doubt) {
            (Verdict::Committed, Doubt::Kept(kept)) => self.committed(request, &kept, None).await,
            (Verdict::Committed, Doubt::Commit) => self.commit_was_done(request).await,
            (Verdict::Committed, Doubt::Write) if request.statement.flags.contains(Flags::IMPLICIT_COMMIT) => {
                self.session.sent(Slot::Primary, request.statement);
                self.answer_client(&plain_ok(), None).await
            }
            (Verdict::Committed, Doubt::Write) => {
                let message = "holdfast: the statement was executed and committed; only what it answered was lost with its server";
                Attempt::Failed(ClientError::new(ErrorKind::ResultCut, message), 1)
            }
            (Verdict::NotCommitted, Doubt::Commit) => Attempt::Failed(super::checkout::transaction_lost(), 1),
            (Verdict::NotCommitted, Doubt::Write | Doubt::Kept(_)) => match pin {
                Some(pin) => Attempt::Failed(super::lost::state_lost(pin), 1),
                None if request.incoming.streamed => {
                    let message = "holdfast: the server went away and the statement was not executed; retry";
                    Attempt::Failed(ClientError::new(ErrorKind::NoBackend, message), 1)
                }
                None => {
                    metrics::rerun(&cluster, "not_committed");
                    Attempt::Again(Slot::Primary)
                }
            },
            (Verdict::Unknown(why), _) => {
                let message = format!(
                    "holdfast: the server went away before it answered, and {why}; whether the statement was executed is \
                     unknown: check before running it again"
                );
                Attempt::Failed(ClientError::new(ErrorKind::OutcomeUnknown, message), 1)
            }
        }
    }

    async fn commit_was_done(&mut self, request: &Request) -> Attempt {
        if let Class::Commit { chain: true, .. } = request.statement.class {
            let message = "holdfast: the transaction was committed, but the one chained to it was lost with its server";
            return Attempt::Failed(ClientError::new(ErrorKind::ResultCut, message), 1);
        }
        self.session.sent(Slot::Primary, request.statement);
        self.answer_client(&plain_ok(), None).await
    }

    /// Waits for a primary that was proven after the loss, and asks it.
    async fn verdict(&mut self) -> Result<Verdict, End> {
        let lease = self.lane.lease.take();
        let backend = self.primary.as_ref().map(|connection| connection.backend);
        self.drop_connection(Slot::Primary, None);
        if self.is_killed() {
            return Err(End::Killed);
        }
        let (Some(lease), Some(backend)) = (lease, backend) else { return Ok(Verdict::Unknown("it had no lane")) };
        let cluster = self.cluster().clone();
        let deadline = Instant::now() + cluster.config.hold_max;
        let hold = cluster.holds.enter().map(|held| (held, metrics::hold(&cluster.name.0)));
        let asked = cluster.topology.suspect(backend, Hint::ConnectionLost);
        let primary = tokio::select! {
            topology = cluster.topology.primary_since(asked, cluster.config.hold_max) => topology,
            () = cluster.gone.cancelled() => None,
            () = self.handle.kill.cancelled() => return Err(End::Killed),
        };
        let Some(primary) = primary.and_then(|topology| topology.primary) else {
            return Ok(Verdict::Unknown("no primary was proven in time"));
        };
        let verdict = lease.verdict(primary, deadline).await;
        if let Some((_held, hold)) = hold {
            hold.release();
        }
        Ok(verdict)
    }
}

/// An OK that says nothing but that.
fn plain_ok() -> Bytes {
    crate::wire::ok::OkPacket {
        header: 0,
        affected_rows: 0,
        last_insert_id: 0,
        status: STATUS_AUTOCOMMIT,
        warnings: 0,
        tail: &[],
    }
    .payload()
}
