//! A statement on its way through a session, and how one attempt to have it answered ends.

use super::{End, Incoming};
use crate::classify::Classified;
use crate::error::ClientError;
use crate::relay::Said;
use crate::routing;
use crate::session::Slot;
use crate::types::StatementId;
use crate::wire::command::Answer;
use bytes::Bytes;

/// A statement or command on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Its bytes.
    pub incoming: Incoming,
    /// The form of its answer.
    pub answer: Answer,
    /// What it is.
    pub statement: Classified,
    /// The prepared statement it executes, resets or fetches from.
    pub prepared: Option<StatementId>,
    /// The id that the answer to PREPARE gets.
    pub new_id: u32,
    /// The connection it must use, whatever the router says.
    pub only: Option<Slot>,
    /// It changes nothing on the server that matters if it is sent again.
    pub repeatable: bool,
}

impl Request {
    /// COM_QUERY.
    pub fn text(incoming: Incoming, statement: Classified) -> Self {
        Self {
            incoming,
            answer: Answer::Results,
            statement,
            prepared: None,
            new_id: 0,
            only: None,
            repeatable: statement.repeats_alone(),
        }
    }

    /// As the router sees it.
    #[inline]
    pub fn command(&self) -> routing::Command {
        let Self { answer, statement, only, repeatable, .. } = *self;
        routing::Command { statement, prepares: answer == Answer::Prepared, only, repeatable }
    }
}

/// Why a prepared statement is not known to a connection.
pub(super) enum PrepareFailed {
    /// The server's ERR payload.
    Refused(Bytes),
    /// The connection broke.
    Broken,
    /// The statement lived on a connection that is gone and its text was too long to keep.
    Gone,
}

/// How one attempt ended.
pub(super) enum Attempt {
    Done(Said),
    Again(Slot),
    Failed(ClientError, u8),
    /// The server's own ERR packet, header included.
    Refused(Bytes),
    End(End),
}
