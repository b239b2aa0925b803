//! The shell when a transaction is run again on another primary.

use super::plant::Plant;
use super::shell::{Ended, Request, Said, Shell, Unavailable, sum, transaction_lost, with_id};
use super::world::Time;
use bytes::Bytes;
use holdfast::classify::{Classified, Flags, Hint};
use holdfast::error::{ClientError, ErrorKind};
use holdfast::session::{Recorded, Replayed, Slot};
use holdfast::wire::command::Answer;
use std::sync::Arc;

impl Shell {
    pub fn is_replayable(&self, error: &ClientError) -> bool {
        error.kind == ErrorKind::TransactionLost && self.recorder.can_be_run_again(&self.session)
    }

    /// Runs the lost transaction again.
    pub async fn replay(&mut self, deadline: Time) -> Result<(), Unavailable> {
        let Some(statements) = self.recorder.complete() else { return Err(Unavailable::Error(transaction_lost())) };
        let left = self.left;
        loop {
            self.session.set_insert_id(self.recorder.insert_id());
            if Box::pin(self.checkout(Slot::Primary, deadline)).await.is_err() {
                break;
            }
            if self.slots[0].as_ref().map(|conn| (conn.backend, conn.term)) == left {
                break;
            }
            match self.replay_once(&statements).await {
                Replayed::Same => {
                    self.w.borrow().count("replayed");
                    self.w.borrow().note(|| format!("{} statements run again", statements.len()));
                    return Ok(());
                }
                Replayed::Different => {
                    self.w.borrow().count("replay differs");
                    self.drop_connection(Slot::Primary, false);
                    break;
                }
                Replayed::Lost => {
                    self.drop_connection(Slot::Primary, true);
                    if self.w.borrow().now >= deadline {
                        break;
                    }
                }
            }
        }
        self.recorder.clear();
        Err(Unavailable::Error(transaction_lost()))
    }

    async fn replay_once(&mut self, statements: &[Arc<Recorded>]) -> Replayed {
        if self.w.borrow().setup.exactly_once && !self.ready_marks().await {
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
        let mut packet = Bytes::copy_from_slice(&recorded.packet);
        if let Some(id) = recorded.prepared {
            match self.prepare_on(id, Slot::Primary).await {
                Some(remote) => packet = with_id(&packet, remote),
                None => return Replayed::Lost,
            }
        }
        let statement = Classified { class: recorded.class, flags: Flags::NONE, hint: Hint::None };
        let (answer, prepared) = (Answer::Results, recorded.prepared);
        let request = Request { packet, answer, statement, prepared, new_id: 0, only: None, repeatable: false };
        if !self.send(Slot::Primary, &request.packet, Some(statement)) {
            return Replayed::Lost;
        }
        let mut said = Said::default();
        self.digest = Some(Vec::new());
        match self.relay(Slot::Primary, &request, &mut said, false, |_, _| false).await {
            Ended::Done => {}
            Ended::Lost { .. } => return Replayed::Lost,
            Ended::Withheld { .. } | Ended::Malformed => return Replayed::Different,
        }
        self.is_current(Slot::Primary);
        let committed = self.session.take_committed();
        self.commits_answered(&committed, false);
        let told = self.digest.take().unwrap_or_default();
        if self.has(Plant::BlindReplay) { Replayed::Same } else { Replayed::statement(recorded, sum(&told)) }
    }
}
