//! When a server refuses as read-only, or goes away before its answer is whole: what is provably safe to send again, and
//! what the client is told otherwise.

use super::checkout::transaction_lost;
use super::request::{Attempt, Request};
use super::{ClientSession, End};
use crate::backend::BringError;
use crate::classify::{Class, Classified};
use crate::error::{ClientError, ErrorKind};
use crate::failover::fate::{Fate, Lost, fate};
use crate::failover::refusal::{self, Refused};
use crate::metrics;
use crate::relay::read_err;
use crate::routing::Mode;
use crate::session::{Pin, Slot};
use crate::topology::Hint;
use crate::types::{BackendId, Term};
use crate::wire::err::ErrPacket;
use crate::wire::packet::{HEADER, write_packet};
use bytes::{Bytes, BytesMut};
use std::time::Duration;

/// What a server says of a write in a read-only transaction, as a follower does not say it: its own reason comes first.
const READ_ONLY_TRANSACTION: &str = "SIGNAL SQLSTATE '25006' SET MYSQL_ERRNO=1792, \
     MESSAGE_TEXT='Cannot execute statement in a READ ONLY transaction.'";

/// Between two tries at a primary that says it is about to be another one's follower.
const PASSING: Duration = Duration::from_millis(10);

impl ClientSession {
    /// Which ERR as first packet is not for the client to see.
    pub(super) fn withhold(&self, request: &Request, slot: Slot, in_transaction: bool) -> fn(u16, &[u8]) -> bool {
        if self.mode == Mode::Followers || (request.incoming.streamed && slot == Slot::Primary) {
            return |_, _| false;
        }
        match slot {
            // A read-only transaction that lives on a follower: the answer must be that of its own server.
            Slot::Follower if in_transaction => refusal::by_fence,
            Slot::Follower => refusal::by_follower,
            Slot::Primary => refusal::by_fence,
        }
    }

    /// The server refused because it is read-only: nothing was executed.
    pub(super) async fn withheld(
        &mut self,
        statement: Classified,
        slot: Slot,
        (errno, length): (u16, usize),
    ) -> Attempt {
        let Some(connection) = self.slot(slot).as_mut() else { return Attempt::Again(Slot::Primary) };
        let packet = connection.channel.input.split_to(length).freeze();
        let leads = (connection.backend, connection.term);
        connection.channel.release();
        let cluster = self.cluster().clone();
        if slot == Slot::Follower && self.session.transaction() == Some(Slot::Follower) {
            return self.refused_in_read_only_transaction().await;
        }
        if slot == Slot::Follower {
            tracing::debug!(session = self.handle.id.0, errno, "refused by a follower, run on the primary");
            metrics::rerun(&cluster.name.0, "follower_refused");
            return Attempt::Again(Slot::Primary);
        }
        self.refused_as_read_only(statement, leads, packet).await
    }

    /// The primary refused as read-only with this ERR packet: nothing was executed. `leads`: where its connection does.
    pub(super) async fn refused_as_read_only(
        &mut self,
        statement: Classified,
        leads: (BackendId, Term),
        packet: Bytes,
    ) -> Attempt {
        let cluster = self.cluster().clone();
        let asked = cluster.topology.suspect(leads.0, Hint::ReadOnly);
        self.stand_by();
        let limit = self.around.inside.gate.hold_max();
        let answer = tokio::select! {
            answer = cluster.topology.primary_since(asked, limit) => answer,
            () = cluster.gone.cancelled() => None,
        };
        let open = self.session.transaction() == Some(Slot::Primary);
        let passing = packet.get(HEADER..).is_some_and(|payload| refusal::is_passing(read_err(payload).0));
        match refusal::after(answer.as_deref(), leads, statement, open, self.refused && !passing) {
            Refused::Fenced | Refused::RolledBack => self.fenced(Slot::Primary),
            Refused::Again => {
                if passing {
                    tokio::time::sleep(PASSING).await;
                }
                self.refused = true;
                Attempt::Again(Slot::Primary)
            }
            Refused::Stands => Attempt::Refused(packet),
        }
    }

    /// Another server is the primary now. What was open on this one cannot be committed any more.
    fn fenced(&mut self, slot: Slot) -> Attempt {
        if self.session.transaction() != Some(slot) {
            return Attempt::Again(Slot::Primary);
        }
        self.drop_connection(slot, None);
        match self.session.pins().lost_with_connection() {
            Some(pin) => Attempt::Failed(state_lost(pin), 1),
            None => Attempt::Failed(transaction_lost(), 1),
        }
    }

    /// What the server would have said itself, raised on the follower so that SHOW WARNINGS finds it there instead of the
    /// follower's own reason.
    async fn refused_in_read_only_transaction(&mut self) -> Attempt {
        let raised = match self.follower.as_mut() {
            Some(connection) => connection.statement(READ_ONLY_TRANSACTION).await,
            None => Err(BringError::Broken("connection closed".to_owned())),
        };
        if let Err(BringError::Refused { errno, message }) = raised {
            self.session.ran_on(Slot::Follower);
            let err = ErrPacket { code: errno, state: *b"25006", message: message.as_bytes() };
            let mut packet = BytesMut::new();
            write_packet(&mut packet, &mut 1, &err.payload());
            return Attempt::Refused(packet.freeze());
        }
        self.drop_connection(Slot::Follower, Some(Hint::ConnectionLost));
        Attempt::Failed(transaction_lost(), 1)
    }

    /// The connection ended before the answer did. `sequence`: an error's, behind what was forwarded.
    pub(super) fn backend_lost(&mut self, request: &Request, lost: &Lost, sequence: u8) -> Attempt {
        self.drop_connection(lost.slot, Some(Hint::ConnectionLost));
        if lost.slot == Slot::Primary && request.statement.class != Class::Read {
            self.session.written.lose_track();
        }
        if self.is_killed() {
            return Attempt::End(End::Killed);
        }
        let sequence = if lost.forwarded { sequence } else { 1 };
        match fate(&self.session, request.statement, lost) {
            Fate::Again => Attempt::Again(lost.slot),
            Fate::CutShort => Attempt::End(End::Error(ErrorKind::ResultCut)),
            Fate::StateLost(pin) => Attempt::Failed(state_lost(pin), sequence),
            Fate::TransactionLost => Attempt::Failed(transaction_lost(), sequence),
            Fate::ResultCut => {
                let message = "holdfast: the server went away in the middle of the result; run the statement again";
                Attempt::Failed(ClientError::new(ErrorKind::ResultCut, message), sequence)
            }
            Fate::OutcomeUnknown => {
                let message = "holdfast: the server went away before it answered; whether the statement was executed is unknown: check before running it again";
                Attempt::Failed(ClientError::new(ErrorKind::OutcomeUnknown, message), sequence)
            }
        }
    }
}

pub(super) fn state_lost(pin: Pin) -> ClientError {
    let pin = pin.as_str();
    let message = format!("holdfast: the server went away and took this session's state ({pin}) along; reconnect");
    ClientError::new(ErrorKind::SessionStateLost, message)
}
