//! Bugs that can be planted into the simulator's shell, to see that the simulation finds them.

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The kept connection is used whatever the snapshot says of the primary.
    UnprovenPrimary,
    /// A write whose answer was lost is sent again without a verdict.
    ForgottenVerdict,
    /// A commit whose answer was lost is taken for done.
    AcknowledgedEarly,
    /// A transaction's next statement goes to the new primary, and the transaction's first ones don't.
    NoReplay,
    /// The answers of a replay are not compared.
    BlindReplay,
    /// A follower answers, however far behind it is.
    StaleFollower,
    /// A new connection does not get the session's variables.
    ForgottenState,
    /// Everybody may wait for a primary.
    UnboundedHold,
    /// What is not understood goes to a follower.
    UnknownToFollower,
    /// An idle client is told that its server went away.
    ErrorToIdle,
    /// A read is run again though a piece of its result was forwarded.
    DoubledResult,
    /// What went with a connection (a temporary table) is not told.
    ForgottenPin,
    /// After a question of its own, the shell does not look again whether the connection still leads to the primary.
    NoSecondLook,
}

impl Plant {
    pub const ALL: [Self; 13] = [
        Self::UnprovenPrimary,
        Self::ForgottenVerdict,
        Self::AcknowledgedEarly,
        Self::NoReplay,
        Self::BlindReplay,
        Self::StaleFollower,
        Self::ForgottenState,
        Self::UnboundedHold,
        Self::UnknownToFollower,
        Self::ErrorToIdle,
        Self::DoubledResult,
        Self::ForgottenPin,
        Self::NoSecondLook,
    ];
}
