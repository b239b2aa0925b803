//! What a simulated session is made of, and what goes through it.

use bytes::Bytes;
use holdfast::classify::Classified;
use holdfast::error::{ClientError, ErrorKind};
use holdfast::session::{Slot, Trace};
use holdfast::types::{BackendId, StatementId, Term};
use holdfast::wire::command::Answer;
use holdfast::wire::response::{Prepared, Shape};

/// A connection to a server.
pub struct Conn {
    pub link: usize,
    pub backend: BackendId,
    pub term: Term,
    pub thread: u32,
    pub epoch: u64,
    pub variables: u64,
    pub autocommit: bool,
    pub insert_id: u64,
    pub tracks_gtids: bool,
    pub marks: bool,
    pub trace: Trace,
    pub shape: Shape,
}

/// A command of the client's.
#[derive(Clone)]
pub struct Request {
    pub packet: Bytes,
    pub answer: Answer,
    pub statement: Classified,
    pub prepared: Option<StatementId>,
    /// The id that the answer to PREPARE gets.
    pub new_id: u32,
    pub only: Option<Slot>,
    pub repeatable: bool,
}

/// What the client gets.
pub struct Reply {
    pub bytes: Vec<u8>,
    /// The session is over, for this reason.
    pub ended: Option<ErrorKind>,
    /// What was prepared, where.
    pub prepared: Option<(Slot, Prepared)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    pub errno: Option<u16>,
    pub prepared: Option<Prepared>,
    pub plain_eof: bool,
    pub forwarded: usize,
    pub next_sequence: u8,
}

pub enum Ended {
    Done,
    Withheld { packet: Bytes },
    Lost { clean: bool },
    Malformed,
}

pub enum Attempt {
    Done,
    Again(Slot),
    Failed(ClientError, u8),
    Refused(Bytes),
    End(ErrorKind),
}

/// Why there is no connection.
pub enum Unavailable {
    Error(ClientError),
}
