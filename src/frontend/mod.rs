//! Client side: accept, greet, TLS, log in, and the session loop where all steps meet.
//!
//! [`listener`] accepts and hands each client to a [`worker`]; there [`login`] lets it in, proven by [`prove`], and
//! [`session`] serves its commands. The client authenticates at the proxy, and the proxy as the client at a server: there
//! is no list of users in between.

pub mod drain;
pub mod listener;
pub mod login;
pub mod prove;
pub mod session;
pub mod shared;
pub mod signal;
pub mod worker;
pub mod proxy_protocol;
