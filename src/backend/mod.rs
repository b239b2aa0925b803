//! Server side: connect to a mysqld, log in as the client's account, ask the proxy's own small questions.
//!
//! The login passes on what the server says: a refusal is kept byte for byte. What it can't do with the credential at
//! hand it says so ([`ConnectError::CredentialInsufficient`]); nothing is retried here.

mod bring;
mod connect;
mod connection;
mod exchange;
mod handles;
mod pool;
mod query;

pub use connect::{ConnectError, ConnectTarget, Connected, LoginRequest, connect};
pub use connection::{BackendConnection, BringError, Counted, observe};
pub use handles::{Handles, Told};
pub use pool::{Borrowed, Holder, NotBorrowed, Place, Shelf, ShelfLimits, Shelved};
pub use query::{QueryError, Rows, query_text};
