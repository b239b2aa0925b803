//! What ties a session to its primary connection, as a small set of reasons.

/// One reason why reads stay on the primary's connection, and why that connection can't be exchanged silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    /// A temporary table exists.
    TemporaryTable,
    /// A user variable was set. Reads that name none may still go to a follower.
    UserVariable,
    /// GET_LOCK may hold a lock.
    NamedLock,
    /// LOCK TABLES, LOCK INSTANCE or FLUSH TABLES WITH READ LOCK is in force.
    TableLock,
    /// A text PREPARE made a statement.
    TextPrepared,
    /// HANDLER … OPEN may have a handler open.
    Handler,
    /// SET ROLE changed the active roles.
    Role,
    /// A system variable was set that can't be set elsewhere with the same meaning (`timestamp`, `rand_seed1`, …).
    Variable,
    /// A procedure or a prepared text ran; what it left can't be seen.
    Unseen,
    /// The client reads the binary log.
    Replica,
}

impl Pin {
    /// All of them, in the order of their bits.
    pub const ALL: [Self; 10] = [
        Self::TemporaryTable,
        Self::UserVariable,
        Self::NamedLock,
        Self::TableLock,
        Self::TextPrepared,
        Self::Handler,
        Self::Role,
        Self::Variable,
        Self::Unseen,
        Self::Replica,
    ];

    /// The metric label, also used in messages to the client.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TemporaryTable => "temporary_table",
            Self::UserVariable => "user_variable",
            Self::NamedLock => "named_lock",
            Self::TableLock => "table_lock",
            Self::TextPrepared => "text_prepared",
            Self::Handler => "handler",
            Self::Role => "role",
            Self::Variable => "variable",
            Self::Unseen => "unseen",
            Self::Replica => "replica",
        }
    }
}

/// A set of [`Pin`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u16);

impl Pins {
    /// Adds one.
    pub fn add(&mut self, pin: Pin) {
        self.0 |= 1 << pin as u16;
    }

    /// Takes one out.
    pub fn remove(&mut self, pin: Pin) {
        self.0 &= !(1 << pin as u16);
    }

    /// Whether it is in.
    #[inline]
    pub fn contains(self, pin: Pin) -> bool {
        self.0 & (1 << pin as u16) != 0
    }

    /// True if there is none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True if a plain read must stay on the primary's connection. User variables alone don't ask for that: a statement
    /// that names one is known from its text.
    #[inline]
    pub fn hold_reads(self) -> bool {
        self.0 & !(1 << Pin::UserVariable as u16 | 1 << Pin::NamedLock as u16 | 1 << Pin::TextPrepared as u16) != 0
    }

    /// The first of those that would be lost with the primary's connection.
    pub fn lost_with_connection(self) -> Option<Pin> {
        Pin::ALL.into_iter().find(|pin| self.contains(*pin) && *pin != Pin::Replica)
    }
}
