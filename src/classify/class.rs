//! The words of this room: what a statement is, what it touches, what its author asked for, and how its text is to be
//! read. Plain values; nothing here decides.

use std::ops::{BitOr, BitOrAssign};

/// What of the session's `sql_mode` decides how text is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SqlMode {
    /// ANSI_QUOTES: `"x"` is an identifier, not a string.
    pub ansi_quotes: bool,
    /// NO_BACKSLASH_ESCAPES: `\` inside a string is an ordinary character.
    pub no_backslash_escapes: bool,
    /// IGNORE_SPACE: `COUNT (x)` is the built-in function (otherwise it could be a stored one; manual 11.2.5).
    pub ignore_space: bool,
}

/// Which family of server reads the text, and its version: decides which version comments are code and which
/// functions are built in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavor {
    /// MySQL; version as in version comments: 9.7.4 is 90704.
    MySql {
        /// major * 10000 + minor * 100 + patch.
        version: u32,
    },
    /// MariaDB; 10.11.11 is 101111.
    MariaDb {
        /// major * 10000 + minor * 100 + patch.
        version: u32,
    },
}

impl Default for Flavor {
    /// The oldest MySQL served: its set of built-in functions is the smallest.
    fn default() -> Self {
        Flavor::MySql { version: 80000 }
    }
}

/// Everything outside the text that decides its meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// The server family and version.
    pub flavor: Flavor,
    /// The session's `sql_mode`, as far as it matters here.
    pub mode: SqlMode,
    /// The client's character set has `\` or `` ` `` as a trail byte (gbk, sjis, cp932, big5, gb18030): text with
    /// both non-ASCII bytes and one of these is never called a read, because this lexer does not decode characters.
    pub multibyte_escape_unsafe: bool,
}

/// What a statement is, as far as routing cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A pure read: may go to a follower.
    Read,
    /// Anything that must be on the primary: DML, DDL, administration, and whatever is not understood.
    Write,
    /// START TRANSACTION or BEGIN (MariaDB's BEGIN NOT ATOMIC is a `Write`).
    Begin {
        /// Its characteristics say READ ONLY.
        read_only: bool,
    },
    /// COMMIT.
    Commit {
        /// AND CHAIN.
        chain: bool,
        /// RELEASE: the server closes the connection.
        release: bool,
    },
    /// ROLLBACK of the whole transaction.
    Rollback {
        /// AND CHAIN.
        chain: bool,
        /// RELEASE: the server closes the connection.
        release: bool,
    },
    /// SAVEPOINT, RELEASE SAVEPOINT, ROLLBACK TO: follows the transaction.
    Savepoint,
    /// XA of any kind.
    Xa,
    /// SET of variables, names, role or transaction characteristics; the flags have the details.
    /// (SET PASSWORD, SET DEFAULT ROLE and MariaDB's SET STATEMENT ... FOR are a `Write`.)
    Set,
    /// USE of a schema.
    Use,
    /// A read of what the previous statement left behind: must run on the connection that ran that statement.
    Diagnostics,
    /// LOCK TABLES, LOCK INSTANCE, FLUSH TABLES ... WITH READ LOCK or FOR EXPORT, BACKUP STAGE/LOCK.
    Lock,
    /// UNLOCK TABLES, UNLOCK INSTANCE, BACKUP UNLOCK.
    Unlock,
    /// KILL of a connection or of its query.
    Kill {
        /// KILL QUERY: the connection stays.
        query: bool,
        /// The connection id as the client wrote it; None when it is not a plain number (send it to the primary).
        id: Option<u64>,
    },
    /// CALL.
    Call,
    /// PREPARE as text.
    Prepare,
    /// EXECUTE as text, MariaDB's EXECUTE IMMEDIATE.
    Execute,
    /// DEALLOCATE PREPARE or DROP PREPARE.
    Deallocate,
    /// HANDLER.
    Handler,
    /// LOAD DATA LOCAL or LOAD XML LOCAL: the server will ask the client for a file.
    LoadDataLocal,
    /// No statement at all: only whitespace, comments and `;`. Still the server's to answer.
    Empty,
    /// Several statements in one text which are not all reads.
    Multi,
}

/// What a statement touches beside its class: a set of the constants below.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*
            const NAMES: &'static [(&'static str, Flags)] = &[$((stringify!($name), Flags::$name)),*];
        }
    };
}

flags! {
    /// Refers to a user variable (`@x`).
    USER_VARIABLE = 0;
    /// Assigns a user variable (SET @x, `:=`, INTO @x).
    USER_VARIABLE_WRITE = 1;
    /// CREATE TEMPORARY TABLE, or something that could hide one (CALL, EXECUTE, compound statements).
    TEMPORARY_TABLE = 2;
    /// Refers to LAST_INSERT_ID() or the variables behind it.
    LAST_INSERT_ID = 3;
    /// Calls GET_LOCK, RELEASE_LOCK, RELEASE_ALL_LOCKS, IS_FREE_LOCK or IS_USED_LOCK.
    LOCK_FUNCTION = 4;
    /// Sets characteristics of the next transaction only (SET TRANSACTION, SET @@transaction_isolation).
    ONE_SHOT_TRANSACTION = 5;
    /// Touches a session_track_* variable, which is the proxy's own business.
    SESSION_TRACK = 6;
    /// SELECT SQL_CALC_FOUND_ROWS.
    SQL_CALC_FOUND_ROWS = 7;
    /// Commits the open transaction on its own (manual 15.3.3).
    IMPLICIT_COMMIT = 8;
    /// INSERT, REPLACE or LOAD DATA: may leave an insert id.
    INSERT_LIKE = 9;
    /// Answers from the state of one server (processes, counters, logs), not from replicated data.
    READS_PROCESS_STATE = 10;
    /// SET GLOBAL, PERSIST or PERSIST_ONLY.
    GLOBAL_SET = 11;
    /// Writes a file on the server (INTO OUTFILE, INTO DUMPFILE).
    INTO_OUTFILE = 12;
    /// FOR UPDATE, FOR SHARE, LOCK IN SHARE MODE.
    LOCKING_READ = 13;
    /// Refers to what the previous statement left (FOUND_ROWS(), ROW_COUNT(), @@warning_count, @@error_count).
    DIAGNOSTICS = 14;
    /// SET ROLE.
    SET_ROLE = 15;
    /// Not known to be free of side effects. On a `Set`: its expressions must be evaluated once, on the primary. On a
    /// `Write`: a query that calls what is not known to be pure.
    IMPURE = 16;
    /// INSERT, REPLACE, UPDATE or DELETE itself: answers how many rows it touched, and can be rolled back.
    DML = 17;
    /// Sets `@holdfast_consistency`, and nothing else, to what the hint says; with IMPURE: not in words that are understood.
    CONSISTENCY = 18;
}

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// True if every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if at least one flag of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// True if no flag is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = Self::NAMES.iter().filter(|(_, flag)| self.contains(*flag)).map(|(name, _)| *name);
        f.debug_list().entries(names).finish()
    }
}

/// What the statement's author asked for in a comment such as `/* holdfast:primary */`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hint {
    /// Nothing.
    #[default]
    None,
    /// `holdfast:primary`: run it on the primary.
    Primary,
    /// `holdfast:follower`: run it on a follower, however stale. A `Write` stays one: the router refuses it.
    Follower,
    /// `holdfast:strong`: read the newest data.
    Strong,
    /// `holdfast:session`: read at least what the session has written.
    Session,
    /// `holdfast:eventual`: read whatever the next best server has.
    Eventual,
}

/// The answer about one text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Classified {
    /// What it is.
    pub class: Class,
    /// What it touches. Beyond the first 4 KiB of a text already known not to be a read, flags are not looked for.
    pub flags: Flags,
    /// What its author asked for.
    pub hint: Hint,
}

impl Classified {
    /// Outside a transaction, can it be sent again when its connection ended before the answer? All it does is for the
    /// connection that is gone.
    #[inline]
    #[must_use]
    pub fn repeats_alone(self) -> bool {
        let elsewhere = Flags::GLOBAL_SET | Flags::IMPURE | Flags::LOCK_FUNCTION | Flags::DIAGNOSTICS;
        match self.class {
            Class::Begin { .. } | Class::Use | Class::Empty => true,
            Class::Set => !self.flags.intersects(elsewhere),
            _ => false,
        }
    }

    /// Has it committed nothing if it is answered with an error?
    #[must_use]
    pub fn commits_all_or_nothing(self) -> bool {
        self.flags.contains(Flags::DML) || matches!(self.class, Class::Commit { .. })
    }

    /// Does it open a transaction, whatever autocommit is?
    #[inline]
    #[must_use]
    pub fn opens(self) -> bool {
        matches!(self.class, Class::Begin { .. })
    }

    /// May it have committed something once it is answered? `was_open`: a transaction was before it.
    #[inline]
    #[must_use]
    pub fn may_commit(self, was_open: bool) -> bool {
        match self.class {
            Class::Read | Class::Diagnostics | Class::Use | Class::Empty | Class::Kill { .. } => false,
            Class::Savepoint | Class::Deallocate => false,
            // They end an open transaction, or may.
            Class::Begin { .. } | Class::Set | Class::Rollback { .. } | Class::Lock | Class::Unlock => was_open,
            Class::Prepare | Class::Handler => was_open,
            Class::Write | Class::Commit { .. } | Class::Xa | Class::Call | Class::Execute => true,
            Class::LoadDataLocal | Class::Multi => true,
        }
    }
}
