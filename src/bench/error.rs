//! Why a measurement could not be made: each error says what to do about it.

use super::fault::Fault;
use crate::types::Address;
use std::path::PathBuf;

/// A measurement that could not be made, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file of the command line.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A report to compare with is none.
    #[error("{}: not a report of this version: {error}", path.display())]
    Report {
        /// Which.
        path: PathBuf,
        /// Where it is wrong.
        error: serde_json::Error,
    },
    /// No runtime.
    #[error("runtime: {0}")]
    Runtime(std::io::Error),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The port under test does not do what the measurement needs.
    #[error("{address}: {what}: {fault}{}", advice(fault))]
    Target {
        /// The port.
        address: Address,
        /// What was tried.
        what: &'static str,
        /// What came back.
        fault: Fault,
    },
    /// One of the servers does not.
    #[error("server {address}: {what}: {fault}{}", advice(fault))]
    Server {
        /// The server.
        address: Address,
        /// What was tried.
        what: &'static str,
        /// What came back.
        fault: Fault,
    },
    /// The database belongs to somebody.
    #[error("database `{0}` has tables that are not ours, and it would be dropped: choose another with --database")]
    ForeignDatabase(String),
    /// Nobody knows who the primary is.
    #[error("{0}")]
    NoPrimary(String),
    /// The trigger could not be pulled.
    #[error("trigger: {0}")]
    Trigger(String),
    /// The state before the next run did not come back.
    #[error("{0}")]
    NotReady(String),
    /// A bug of ours.
    #[error("a client of the measurement failed: {0}: please report this")]
    Client(String),
    /// Ctrl-C.
    #[error("interrupted: nothing was measured; the database may be left behind")]
    Interrupted,
}

/// What helps against the errors that everybody meets.
fn advice(fault: &Fault) -> &'static str {
    match fault.code {
        1044 | 1142 | 1227 => {
            "; the account needs CREATE, DROP, INSERT, UPDATE, DELETE, SELECT on the database, and on the servers SELECT \
             ON performance_schema.* (for --trigger switch also GROUP_REPLICATION_ADMIN)"
        }
        1045 => "; give --user and --password-file, or the password in HOLDFAST_BENCH_PASSWORD",
        1040 | 1203 => "; ask for fewer clients or raise the limit on connections",
        0 => "; is it running, and is the address right?",
        _ => "",
    }
}
