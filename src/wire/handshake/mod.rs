//! The connection phase: the server's greeting, the client's answer, and what passes between them until OK or ERR.
//!
//! Layouts only; which plugin, which scramble and which capabilities is decided by the rooms that log in
//! (`frontend`, `backend`). HandshakeResponse320 is recognized and refused: MySQL itself dropped it with 8.0. Source:
//! "Connection Phase" of MySQL's protocol documentation, MariaDB's "Connection phase" for its extended capabilities.

mod attributes;
mod change_user;
mod greeting;
mod response;
mod switch;

pub use attributes::{Attributes, put_attribute};
pub use change_user::ChangeUser;
pub use greeting::Greeting;
pub use response::{HandshakeResponse, SSL_REQUEST_BYTES, ssl_request};
pub use switch::{AuthSwitch, MORE_DATA, SWITCH, auth_more_data};

/// Bytes of the random challenge both sides' scrambles are made of.
pub const NONCE: usize = 20;

/// `caching_sha2_password`: MySQL's default since 8.0.
pub const CACHING_SHA2: &[u8] = b"caching_sha2_password";
/// `mysql_native_password`: MariaDB's default, gone from MySQL 9.
pub const NATIVE: &[u8] = b"mysql_native_password";
/// `sha256_password`: the password itself over TLS or RSA, never a scramble.
pub const SHA256: &[u8] = b"sha256_password";
/// `mysql_clear_password`: the password itself; only ever over TLS.
pub const CLEAR: &[u8] = b"mysql_clear_password";
/// `client_ed25519`: MariaDB's.
pub const ED25519: &[u8] = b"client_ed25519";
