//! \[pure\] The MySQL client/server protocol: packet headers, values, handshake, commands, where a response ends.
//!
//! Bytes in, meaning out, and the other way round; no socket, clock or randomness. A peer's bytes never panic: every
//! reader answers [`Malformed`] instead. Source for all of it: MySQL's "Client/Server Protocol" documentation and, where
//! that is silent, what a real 9.7 and MariaDB 10.11 put on the wire.

pub mod auth;
pub mod binlog;
pub mod capabilities;
pub mod command;
pub mod compress;
pub mod err;
pub mod execute;
pub mod handshake;
pub mod lenenc;
pub mod ok;
pub mod packet;
pub mod response;
pub mod session_track;

/// The bytes are not what the protocol says must stand here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet: {0}")]
pub struct Malformed(pub &'static str);
