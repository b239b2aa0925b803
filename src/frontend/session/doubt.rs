//! An answer was lost with its server: what became of the write, as the new primary has it.

use super::request::{Attempt, Request};
use super::{ClientSession, End};
use crate::error::{ClientError, ErrorKind};
use crate::failover::fate::{self, Doubt, Lost, Settled};
use crate::failover::{InDoubt, Verdict};
use crate::frontend::shared::Cluster;
use crate::metrics;
use crate::session::Slot;
use crate::topology::Hint;
use crate::wire::session_track::STATUS_AUTOCOMMIT;
use bytes::Bytes;
use std::time::{Duration, Instant};

const CHAIN_LOST: &str = "holdfast: the transaction was committed, but the one chained to it was lost with its server";
const ANSWER_LOST: &str =
    "holdfast: the statement was executed and committed; only what it answered was lost with its server";
const NOT_EXECUTED: &str = "holdfast: the server went away and the statement was not executed; retry";

/// How long a proven primary that can't be asked yet is left alone.
const AGAIN: Duration = Duration::from_millis(20);

impl ClientSession {
    /// What is in doubt, where there can be a verdict on it.
    pub(super) fn doubt(&self, request: &Request, lost: &Lost) -> Option<Doubt> {
        match self.marked.is_some() && !self.is_killed() {
            true => fate::doubt(&self.session, request.statement, lost),
            false => None,
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
        let pins = self.session.pins();
        let word = match verdict {
            Verdict::Committed => "committed",
            Verdict::NotCommitted => "not_committed",
            Verdict::Unknown(_) => "unknown",
        };
        metrics::verdict(&cluster, word);
        tracing::info!(session = self.handle.id.0, cluster, ?verdict, "an answer was lost with its server");
        let failed = |kind, message: String| Attempt::Failed(ClientError::new(kind, message), 1);
        self.settle_standby().await;
        match fate::settle(verdict, &doubt, request.statement, request.incoming.streamed, pins) {
            Settled::Kept => match doubt {
                Doubt::Kept(kept) => self.committed(request, &kept, None).await,
                Doubt::Commit | Doubt::Before | Doubt::Write => self.done(request).await,
            },
            Settled::Done => self.done(request).await,
            Settled::ChainLost => failed(ErrorKind::ResultCut, CHAIN_LOST.to_owned()),
            Settled::AnswerLost => failed(ErrorKind::ResultCut, ANSWER_LOST.to_owned()),
            Settled::TransactionLost => Attempt::Failed(super::checkout::transaction_lost(), 1),
            Settled::StateLost(pin) => Attempt::Failed(super::lost::state_lost(pin), 1),
            Settled::NotExecuted => failed(ErrorKind::NoBackend, NOT_EXECUTED.to_owned()),
            Settled::Again => {
                metrics::rerun(&cluster, "not_committed");
                Attempt::Again(Slot::Primary)
            }
            Settled::Unknown(why) => {
                let message = format!(
                    "holdfast: the server went away before it answered, and {why}; whether the statement was executed is \
                     unknown: check before running it again"
                );
                failed(ErrorKind::OutcomeUnknown, message)
            }
        }
    }

    async fn done(&mut self, request: &Request) -> Attempt {
        self.session.sent(Slot::Primary, request.statement);
        self.answer_client(&plain_ok(), None).await
    }

    /// Waits for a primary that was proven after the loss, and asks it; if it goes too, the next.
    async fn verdict(&mut self) -> Result<Verdict, End> {
        let in_doubt = self.in_doubt();
        self.drop_connection(Slot::Primary, None);
        if self.is_killed() {
            return Err(End::Killed);
        }
        let Some(in_doubt) = in_doubt else { return Ok(Verdict::Unknown("it could not be marked")) };
        let cluster = self.cluster().clone();
        self.stand_by();
        let (waiting, deadline) = (self.enter_hold(), Instant::now() + self.around.inside.gate.hold_max());
        let verdict = tokio::select! {
            verdict = find_verdict(&cluster, &in_doubt, deadline) => verdict,
            () = cluster.gone.cancelled() => Verdict::Unknown("the cluster is served no more"),
            () = self.handle.kill.cancelled() => return Err(End::Killed),
        };
        if let Some(waiting) = waiting {
            waiting.hold.release();
        }
        Ok(verdict)
    }

    fn in_doubt(&mut self) -> Option<InDoubt> {
        let (began, committed_us) = self.marked.take()?;
        let connection = self.primary.as_mut()?;
        let (backend, thread) = (connection.backend, connection.thread_id);
        let trace = std::mem::take(&mut connection.trace);
        let (server_id, _) = connection.named?;
        Some(InDoubt { trace, backend, server_id, thread, committed_us, began })
    }
}

async fn find_verdict(cluster: &Cluster, in_doubt: &InDoubt, deadline: Instant) -> Verdict {
    let mut asked = cluster.topology.suspect(in_doubt.backend, Hint::ConnectionLost);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let proven = cluster.topology.primary_since(asked, left).await;
        let Some(primary) = proven.and_then(|topology| topology.primary) else {
            return Verdict::Unknown("no primary was proven in time");
        };
        if let Some(verdict) = cluster.witnesses.verdict(in_doubt, primary, deadline).await {
            return verdict;
        }
        if Instant::now() >= deadline {
            return Verdict::Unknown("the new primary can't be asked");
        }
        tokio::time::sleep(AGAIN).await;
        asked = cluster.topology.suspect(primary, Hint::ConnectionLost);
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
