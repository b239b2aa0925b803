//! A transaction that lost its primary is run again on the new one, and goes on there if every answer is what the client has
//! seen.
//!
//! ```text
//!  transaction lost ──► a primary ──► each statement again ──► all answers the same ──► the statement at hand goes there
//!   (recorded whole)      │ none in time     │ one is not, or an error                    
//!                         └──────────────────┴──► rolled back, 1213
//! ```
//!
//! Only another primary will do: a connection that was lost to one that stays may have been killed there, to be rid of its
//! transaction. What it can't be run again for: state outside the transaction that its statements may have used or changed (SET, USE, XA,
//! LOAD DATA LOCAL, cursors, long data, several statements in one), and everything that pins a session to its connection.

use super::ClientSession;
use super::checkout::{Unavailable, transaction_lost};
use super::request::{PrepareFailed, Request};
use crate::error::{ClientError, ErrorKind};
use crate::metrics;
use crate::relay::{Context256, DIGEST_MAX, Ended, Relay, Said};
use crate::session::{AnswerDigest, REOPENING, Recorded, Replayed, Slot, repeats};
use crate::topology::Hint;
use crate::wire::capabilities::Capabilities;
use crate::wire::command::Answer;
use crate::wire::execute as wire;
use crate::wire::packet::{HEADER, write_packet};
use bytes::BytesMut;
use std::sync::Arc;
use tokio::time::Instant;

/// A digest to be told of an answer.
pub(super) fn digest() -> Context256 {
    Context256::new(&aws_lc_rs::digest::SHA256)
}

fn finish(digest: Context256) -> AnswerDigest {
    let whole = digest.finish();
    whole.as_ref().first_chunk().copied().unwrap_or_default()
}

impl ClientSession {
    /// Is the answer of this statement, on the primary, to be kept in mind?
    #[inline]
    pub(super) fn records(&self, request: &Request, was_open: bool) -> bool {
        request.answer == Answer::Results && self.recorder.wants(&self.session, request.statement, was_open)
    }

    /// A statement was answered by the primary.
    #[inline]
    pub(super) fn record(&mut self, request: &Request, owned: Option<&[u8]>, said: &Said, digest: Option<Context256>) {
        if self.session.transaction() != Some(Slot::Primary) {
            return self.recorder.clear();
        }
        // To prepare a statement changes nothing in a transaction.
        if request.answer != Answer::Prepared {
            self.record_in_transaction(request, owned, said, digest);
        }
    }

    fn record_in_transaction(
        &mut self,
        request: &Request,
        owned: Option<&[u8]>,
        said: &Said,
        digest: Option<Context256>,
    ) {
        let spoils =
            !repeats(request.statement) || said.forwarded > DIGEST_MAX || said.cursor || request.incoming.streamed;
        let mut recorder = std::mem::take(&mut self.recorder);
        recorder.answered(&self.session, request.statement, said.errno.is_some(), || {
            let digest = digest.filter(|_| !spoils)?;
            let packet = self.packet_with_types(request, owned)?;
            let (prepared, class) = (request.prepared, request.statement.class);
            Some(Recorded { packet, prepared, class, answer: finish(digest) })
        });
        self.recorder = recorder;
    }

    /// The packet, so that it can be sent on a connection that knows nothing of its parameters' types.
    fn packet_with_types(&self, request: &Request, owned: Option<&[u8]>) -> Option<Box<[u8]>> {
        let packet = owned.unwrap_or(self.client.input.get(..request.incoming.length)?);
        let Some(id) = request.prepared else { return Some(packet.into()) };
        let statement = self.session.statements.peek(id)?;
        let attributes = self.identity.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
        let payload = &packet[HEADER..];
        match wire::binding(payload, statement.parameters, attributes).ok()? {
            Some(binding) if binding.types.is_none() => {
                let (_, types) = statement.types.as_ref()?;
                let with = wire::with_types(payload, binding.flag_at, types);
                let mut packet = BytesMut::with_capacity(with.len() + HEADER);
                write_packet(&mut packet, &mut 0, &with);
                Some(packet[..].into())
            }
            Some(_) | None => Some(packet.into()),
        }
    }

    /// Was a transaction lost that can be run again?
    pub(super) fn is_replayable(&self, request: &Request, error: &ClientError) -> bool {
        error.kind == ErrorKind::TransactionLost
            && !request.incoming.streamed
            && self.recorder.can_be_run_again(&self.session)
    }

    /// Runs the lost transaction again. On an error it is lost for good, and nothing of it is left.
    pub(super) async fn replay(&mut self, deadline: Instant) -> Result<(), Unavailable> {
        let Some(statements) = self.recorder.complete() else { return Err(Unavailable::Error(transaction_lost())) };
        let (cluster, left) = (self.cluster().name.0.to_string(), self.left);
        loop {
            self.session.set_insert_id(self.recorder.insert_id());
            self.inserts = true;
            match self.checkout(Slot::Primary, deadline).await {
                Ok(_) => {}
                Err(Unavailable::End(end)) => return Err(Unavailable::End(end)),
                Err(Unavailable::Error(_) | Unavailable::Refused(_)) => break,
            }
            // Lost from a primary that still is the primary: somebody may have killed it there, and meant it.
            if self.primary.as_ref().map(|connection| (connection.backend, connection.term)) == left {
                break;
            }
            let replayed = self.replay_once(&statements).await;
            match replayed {
                Replayed::Same => {
                    metrics::replay(&cluster, "same");
                    tracing::info!(session = self.handle.id.0, statements = statements.len(), "transaction run again");
                    return Ok(());
                }
                Replayed::Different => {
                    metrics::replay(&cluster, "different");
                    self.drop_connection(Slot::Primary, None);
                    self.recorder.clear();
                    return Err(Unavailable::Error(transaction_lost()));
                }
                Replayed::Lost => {
                    self.drop_connection(Slot::Primary, Some(Hint::ConnectionLost));
                    if Instant::now() >= deadline {
                        break;
                    }
                }
            }
        }
        metrics::replay(&cluster, "failed");
        self.recorder.clear();
        Err(Unavailable::Error(transaction_lost()))
    }

    async fn replay_once(&mut self, statements: &[Arc<Recorded>]) -> Replayed {
        if self.ready_tracking(REOPENING).await.is_err() {
            return Replayed::Lost;
        }
        for recorded in statements {
            match self.replay_statement(recorded).await {
                Replayed::Same => {}
                other => return other,
            }
        }
        Replayed::transaction(&self.session)
    }

    async fn replay_statement(&mut self, recorded: &Recorded) -> Replayed {
        let mut packet = BytesMut::from(&*recorded.packet);
        if let Some(id) = recorded.prepared {
            match self.prepare_on(id, Slot::Primary).await {
                Ok(remote) => packet[HEADER..][wire::STATEMENT_ID].copy_from_slice(&remote.id.to_le_bytes()),
                Err(PrepareFailed::Broken) => return Replayed::Lost,
                Err(PrepareFailed::Refused(_) | PrepareFailed::Gone) => return Replayed::Different,
            }
        }
        let hide_gtids = self.hides_gtids(Slot::Primary);
        let Self { client, session, primary, tracking, handle, .. } = self;
        let Some(connection) = primary.as_mut() else { return Replayed::Lost };
        if connection.send(&packet).await.is_err() {
            return Replayed::Lost;
        }
        let (mut said, mut told, shape) = (Said::default(), digest(), connection.shape);
        let (nudge, index) = (&handle.nudge, Slot::Primary.index());
        let mine = handle.raw_connection(index);
        let mut relay = Relay {
            client,
            backend: &mut connection.channel,
            session,
            slot: Slot::Primary,
            tracking,
            hide_gtids,
            class: recorded.class,
            statement_id: 0,
            command: 0,
            kill: handle.kill.token(),
            cut: &|cx| nudge.poll_cut(cx, index, mine),
            counts: false,
            digest: Some(&mut told),
            forwards: false,
            withhold: |_, _| false,
        };
        match relay.run(Answer::Results, shape, &mut said).await {
            Ended::Done => {}
            Ended::BackendLost { .. } => return Replayed::Lost,
            Ended::Withheld { .. } | Ended::ClientLost | Ended::OutOfOrder { .. } | Ended::Malformed(_) => {
                return Replayed::Different;
            }
        }
        connection.is_current(session, Slot::Primary);
        if said.insert_id != 0 {
            connection.has_insert_id(said.insert_id);
        }
        connection.trace.answered(&session.take_committed(), false);
        Replayed::statement(recorded, finish(told))
    }
}
