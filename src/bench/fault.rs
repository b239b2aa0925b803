//! \[pure\] What a client is told when a statement fails, and what that says about a write.

use std::fmt;

/// An answer that is an error, or a connection that gave none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Error number; 0 if the connection failed.
    pub code: u16,
    /// SQLSTATE; empty if the connection failed.
    pub state: String,
    /// The server's message, or what happened to the connection.
    pub text: String,
    /// The connection can't be used any more.
    pub lost: bool,
}

impl Fault {
    /// A connection that broke, never came to be, or did not answer.
    pub fn lost(text: impl Into<String>) -> Self {
        Self { code: 0, state: String::new(), text: text.into(), lost: true }
    }

    /// A deadlock or a lock wait that ran out (also what a proxy says of a transaction that went with its server):
    /// rolled back, and to be tried again.
    pub fn is_retry(&self) -> bool {
        matches!(self.code, 1213 | 1205)
    }

    /// A prepared statement that the other side does not know (ER_UNKNOWN_STMT_HANDLER).
    pub fn is_unknown_statement(&self) -> bool {
        self.code == 1243
    }

    /// What this says about a write that was sent.
    pub fn claim(&self) -> Claim {
        match self.code {
            // ER_DUP_ENTRY for a key that was never sent before.
            1062 => Claim::AlreadyThere,
            // Shutdown, error during commit, interrupted, out of time, replication hook: may come after the commit.
            0 | 1053 | 1180 | 1317 | 1927 | 3024 | 3100 => Claim::Unknown,
            // Class 08: the connection to whoever executes it.
            _ if self.state.starts_with("08") => Claim::Unknown,
            _ => Claim::NotApplied,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == 0 {
            return f.write_str(&self.text);
        }
        write!(f, "{} ({}): {}", self.code, self.state, self.text)
    }
}

/// What a client was told of a write that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It may have been applied.
    Unknown,
    /// It was not.
    NotApplied,
    /// Its key exists: somebody ran it a second time.
    AlreadyThere,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_became_of_the_write() {
        for (code, state, claim) in [
            (0, "", Claim::Unknown),
            (1105, "08007", Claim::Unknown),
            (1053, "08S01", Claim::Unknown),
            (1317, "70100", Claim::Unknown),
            (1290, "HY000", Claim::NotApplied),
            (2003, "HY000", Claim::NotApplied),
            (1213, "40001", Claim::NotApplied),
            (1062, "23000", Claim::AlreadyThere),
        ] {
            let fault = Fault { code, state: state.to_owned(), text: String::new(), lost: code == 0 };
            assert_eq!(fault.claim(), claim, "{code}");
        }
    }
}
