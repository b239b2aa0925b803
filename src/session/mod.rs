//! \[pure\] What a client session is: transaction, variables, schema, prepared statements, pins.
//!
//! A session is told what was sent ([`Session::sent`]) and what came back ([`Session::observe_status`],
//! [`Session::observe_change`]) and answers what the router and the backend side ask: is a transaction open and where, which
//! state does a connection still lack, what ties the session to its primary connection. It knows no socket; the two backend
//! connections a session may hold are just [`Slot`]s here.

mod commits;
mod observed;
mod pins;
mod recorder;
mod replayed;
mod statements;
mod trace;
mod variables;
mod written;

pub use pins::{Pin, Pins};
pub use recorder::{AnswerDigest, Recorded, Recorder, repeats};
pub use replayed::{REOPENING, Replayed};
pub use statements::{Remote, Statement, Statements};
pub use trace::Trace;
pub use variables::{Set, Variables, numeric};
pub use written::{Written, read as read_gtids};

use crate::classify::{Class, Classified, Dialect, Flags, Flavor};
use crate::types::Consistency;
use crate::wire::session_track::{STATUS_AUTOCOMMIT, STATUS_IN_TRANS, STATUS_NO_BACKSLASH_ESCAPES, TrackedVariables};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Reports of commits that are kept until somebody takes them; one statement brings one, a procedure may bring more.
const COMMITTED_MAX: usize = 64;

/// Which of a session's backend connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The connection to the primary.
    Primary,
    /// The connection to one follower.
    Follower,
}

impl Slot {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Follower,
            Self::Follower => Self::Primary,
        }
    }

    /// 0 or 1.
    pub fn index(self) -> usize {
        match self {
            Self::Primary => 0,
            Self::Follower => 1,
        }
    }
}

/// Everything a client's session is, apart from its sockets.
#[derive(Debug)]
pub struct Session {
    /// Status flags of the last OK or EOF.
    status: u16,
    /// Where a transaction is open.
    transaction: Option<Slot>,
    /// The connection that ran the last statement: SHOW WARNINGS and its kin ask there.
    last: Slot,
    /// The default schema, as the servers reported it.
    schema: Option<Box<[u8]>>,
    /// System variables set since login.
    pub variables: Variables,
    /// What ties the session to its primary connection.
    pins: Pins,
    /// A one-shot SET TRANSACTION waits for its transaction.
    one_shot: bool,
    /// It may still wait: not every statement is what it waits for, as a SELECT without tables.
    one_shot_perhaps: bool,
    /// Prepared statements.
    pub statements: Statements,
    /// How text is read.
    dialect: Dialect,
    /// What the client wants to be told of system variables.
    pub tracked: TrackedVariables,
    /// The statement under way reported a system variable.
    reported: bool,
    /// It reported `session_track_system_variables`: only a change to `*` does.
    tracks_all: bool,
    /// COM_SET_OPTION's last word on multi-statements; none: as at login.
    pub multi_statements: Option<bool>,
    /// A command was answered since the last statement that sets ROW_COUNT() back where it is run.
    row_count_due: bool,
    /// The insert id that the primary told last; 0: none. What LAST_INSERT_ID() is, unless it was an explicit value.
    insert_id: u64,
    /// It may be another one: what an answer told was perhaps an explicit value.
    insert_id_doubted: bool,
    /// What the primary has told of commits since this was last taken: GTID sets as text.
    committed: Vec<Box<[u8]>>,
    /// The client has a hand in its transactions' GTIDs, or will not have them told.
    steers_gtids: bool,
    /// What the client has asked for by `SET @holdfast_consistency`.
    consistency: Option<Consistency>,
    /// What it has committed.
    pub written: Written,
    /// It has set a variable that is its connection's own business, such as gtid_next.
    local: bool,
    /// sql_log_bin=OFF: what it commits stays on its server.
    unlogged: bool,
}

impl Session {
    /// A session right after login.
    pub fn new(schema: Option<&[u8]>, dialect: Dialect, statements_max: usize) -> Self {
        Self {
            status: STATUS_AUTOCOMMIT,
            transaction: None,
            last: Slot::Primary,
            schema: schema.filter(|s| !s.is_empty()).map(Into::into),
            variables: Variables::default(),
            pins: Pins::default(),
            one_shot: false,
            one_shot_perhaps: false,
            statements: Statements::new(statements_max),
            dialect,
            tracked: TrackedVariables::default(),
            multi_statements: None,
            row_count_due: false,
            insert_id: 0,
            insert_id_doubted: false,
            local: false,
            committed: Vec::new(),
            steers_gtids: false,
            consistency: None,
            written: Written::default(),
            unlogged: false,
            reported: false,
            tracks_all: false,
        }
    }

    /// Lets `tell` report what servers said of their defaults: none of it is something that the client has set.
    pub fn begin(&mut self, tell: impl FnOnce(&mut Self)) {
        let (pins, local) = (self.pins, self.local);
        tell(self);
        self.variables.clear();
        self.pins = pins;
        (self.reported, self.tracks_all, self.steers_gtids) = (false, false, false);
        (self.local, self.insert_id_doubted) = (local, false);
    }

    /// Back to the state after login, keeping the schema (COM_RESET_CONNECTION keeps it).
    pub fn reset(&mut self) {
        let multibyte = self.dialect.multibyte_escape_unsafe;
        self.transaction = None;
        self.last = Slot::Primary;
        self.variables.clear();
        // Servers keep the active roles, and perhaps what the next insert id is to be (seen on 9.7.4).
        let role = self.pins.contains(Pin::Role);
        self.pins = Pins::default();
        if role {
            self.pins.add(Pin::Role);
        }
        (self.one_shot, self.one_shot_perhaps) = (false, false);
        self.statements.clear();
        self.tracked = TrackedVariables::default();
        (self.insert_id, self.insert_id_doubted) = (0, false);
        self.committed.clear();
        (self.steers_gtids, self.unlogged, self.consistency) = (false, false, None);
        self.dialect.multibyte_escape_unsafe = multibyte;
    }

    /// Where a transaction is open, if one is.
    #[inline]
    pub fn transaction(&self) -> Option<Slot> {
        self.transaction
    }

    /// Status flags as last reported, for the proxy's own OK packets.
    pub fn status(&self) -> u16 {
        self.status & (STATUS_AUTOCOMMIT | STATUS_NO_BACKSLASH_ESCAPES)
            | if self.transaction.is_some() { STATUS_IN_TRANS } else { 0 }
    }

    /// False under `autocommit=0`, where any statement opens a transaction.
    #[inline]
    pub fn autocommit(&self) -> bool {
        self.status & STATUS_AUTOCOMMIT != 0
    }

    /// The connection that ran the last statement.
    #[inline]
    pub fn last(&self) -> Slot {
        self.last
    }

    /// The default schema.
    pub fn schema(&self) -> Option<&[u8]> {
        self.schema.as_deref()
    }

    /// How statement text is to be read.
    #[inline]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What ties the session to its primary connection.
    #[inline]
    pub fn pins(&self) -> Pins {
        self.pins
    }

    /// True while a one-shot SET TRANSACTION waits.
    #[inline]
    pub fn one_shot(&self) -> bool {
        self.one_shot
    }

    /// True while one may wait.
    pub fn one_shot_perhaps(&self) -> bool {
        self.one_shot_perhaps
    }

    /// Adds a pin from outside, such as state that a follower would not take.
    pub fn pin(&mut self, pin: Pin) {
        self.pins.add(pin);
    }

    /// Notes that a statement of this class was answered without error on `slot`.
    #[inline]
    pub fn sent(&mut self, slot: Slot, statement: Classified) {
        (self.last, self.row_count_due) = (slot, false);
        let reported = std::mem::take(&mut self.reported);
        let flags = statement.flags;
        if statement.class == Class::Set && !reported && self.is_unseen(flags) {
            self.pins.add(Pin::Variable);
        }
        if statement.class == Class::Read && flags.is_empty() && !self.one_shot {
            return;
        }
        if flags.contains(Flags::CONSISTENCY) {
            self.consistency = commits::consistency(statement.hint);
        }
        self.one_shot = flags.contains(Flags::ONE_SHOT_TRANSACTION)
            || (self.one_shot && matches!(statement.class, Class::Set | Class::Diagnostics | Class::Empty));
        let ended = match statement.class {
            Class::Commit { chain, .. } | Class::Rollback { chain, .. } => !chain,
            Class::Write => flags.contains(Flags::DML) && self.transaction.is_none(),
            _ => false,
        };
        // SET autocommit=1 ends a read-only transaction, and what follows is refused all the same (seen on 9.7.4).
        // With autocommit=0 a savepoint stands before the transaction has begun.
        let begins = statement.class == Class::Begin { read_only: true }
            || (statement.class == Class::Savepoint && !self.autocommit());
        self.one_shot_perhaps = begins || self.one_shot || (self.one_shot_perhaps && !ended);
        for (flag, pin) in [
            (Flags::TEMPORARY_TABLE, Pin::TemporaryTable),
            (Flags::USER_VARIABLE_WRITE, Pin::UserVariable),
            (Flags::LOCK_FUNCTION, Pin::NamedLock),
            (Flags::SET_ROLE, Pin::Role),
        ] {
            if flags.contains(flag) {
                self.pins.add(pin);
            }
        }
        match statement.class {
            Class::Lock => self.pins.add(Pin::TableLock),
            Class::Unlock => self.pins.remove(Pin::TableLock),
            Class::Prepare => self.pins.add(Pin::TextPrepared),
            Class::Handler => self.pins.add(Pin::Handler),
            // What a procedure or a prepared text leaves behind can't be seen from here.
            Class::Call | Class::Execute => self.pins.add(Pin::Unseen),
            _ => {}
        }
    }

    /// True for a SET whose system variables a server did not report though it should have: MariaDB 10.11 is silent about
    /// `SET @@x = …`. What was set then can't be carried to another connection.
    fn is_unseen(&self, flags: Flags) -> bool {
        let told = Flags::GLOBAL_SET | Flags::SET_ROLE | Flags::ONE_SHOT_TRANSACTION;
        let told = told | Flags::SESSION_TRACK | Flags::CONSISTENCY;
        let only_user_variables = flags.contains(Flags::USER_VARIABLE_WRITE);
        !flags.intersects(told) && (!only_user_variables || matches!(self.dialect.flavor, Flavor::MariaDb { .. }))
    }

    /// What the client now wants to be told of system variables, where the server says `value`. Under the proxy's own `*`
    /// that is the client's word only if the server reported it.
    pub fn track(&mut self, value: &[u8]) {
        let all = std::mem::take(&mut self.tracks_all);
        if value != b"*" || all {
            self.tracked = TrackedVariables::parse(value);
        }
    }

    /// Notes that something ran on `slot` that left nothing behind but its diagnostics.
    #[inline]
    pub fn ran_on(&mut self, slot: Slot) {
        (self.last, self.row_count_due, self.reported) = (slot, false, false);
    }

    /// Where the last statement's diagnostics are, and whether its ROW_COUNT() was set back since.
    pub fn left(&self) -> (Slot, bool) {
        (self.last, self.row_count_due)
    }

    /// Notes that what ran since [`Session::left`] has touched neither.
    pub fn restore(&mut self, left: (Slot, bool)) {
        (self.last, self.row_count_due) = left;
    }

    /// Notes a command that leaves all the last statement left behind, on `last`, but ROW_COUNT(), which it sets to 0: a
    /// ping, a change of schema.
    pub fn passed_by(&mut self, last: Slot) {
        self.restore((last, true));
    }

    /// True if `statement` may ask for a ROW_COUNT() that a command answered elsewhere has set back.
    #[inline]
    pub fn is_row_count_due(&self, statement: Classified) -> bool {
        self.row_count_due
            && (statement.flags.contains(Flags::DIAGNOSTICS)
                || matches!(statement.class, Class::Call | Class::Execute | Class::Multi))
    }

    /// What a text means when it is prepared now in `schema`, as a number: another one under another state.
    pub fn prepared_under(&self, schema: Option<&[u8]>) -> u64 {
        const MEANT: [&[u8]; 5] = [
            b"sql_mode",
            b"character_set_client",
            b"character_set_connection",
            b"collation_connection",
            b"default_collation_for_utf8mb4",
        ];
        let mut hasher = DefaultHasher::new();
        schema.hash(&mut hasher);
        MEANT.map(|name| self.variables.get(name)).hash(&mut hasher);
        hasher.finish()
    }

    /// What LAST_INSERT_ID() is, as far as answers have told; 0: nothing was inserted.
    #[inline]
    pub fn insert_id(&self) -> u64 {
        self.insert_id
    }

    /// An answer of the primary told an insert id.
    #[inline]
    pub fn set_insert_id(&mut self, id: u64) {
        self.insert_id = id;
    }

    /// LAST_INSERT_ID() may be what only the server knows.
    pub fn doubt_insert_id(&mut self) {
        self.insert_id_doubted = true;
    }

    /// May it?
    pub fn is_insert_id_doubted(&self) -> bool {
        self.insert_id_doubted
    }

    /// The server has said what LAST_INSERT_ID() is.
    pub fn learn_insert_id(&mut self, id: u64) {
        (self.insert_id, self.insert_id_doubted) = (id, false);
    }

    /// Has it set what is not carried to another connection, and does not pin it to its primary's either?
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// The follower's connection is the primary's now, with what is prepared there and what the last statement left.
    pub fn follower_became_primary(&mut self) {
        self.statements.follower_became_primary();
        self.variables.follower_became_primary();
        self.last = Slot::Primary;
    }

    /// Forgets what `slot`'s connection held when that connection is gone; answers whether a transaction was lost.
    pub fn lost(&mut self, slot: Slot) -> bool {
        let transaction = self.transaction == Some(slot);
        if transaction {
            self.transaction = None;
        }
        transaction
    }
}

#[cfg(test)]
mod tests;
