//! Client side: accept, greet, TLS, log in, and the session loop where all steps meet.
//!
//! [`listener`] accepts and hands each client to a [`worker`]; there [`login`] lets it in, [`route`]d to one of the
//! [`clusters`] through a [`gate`] and proven by [`prove`], and [`session`] serves its commands until it ends or the proxy
//! does ([`shutdown`]). The client authenticates at the proxy, and the proxy as the client at a server: there
//! is no list of users in between.

mod balance;
pub mod clusters;
pub mod drain;
pub mod facade;
pub mod gate;
pub mod ledger;
pub mod listener;
pub mod login;
mod logins;
pub mod pools;
pub mod prove;
pub mod route;
pub mod session;
pub mod shared;
pub mod shutdown;
pub mod signal;
pub mod worker;
pub mod proxy_protocol;
