//! Holdfast: a MySQL-protocol proxy that keeps clients connected while the primary changes.
//!
//! # The two walks
//!
//! **A query.** [`frontend::listener`] accepts a client and hands it to a [`frontend::worker`]; [`frontend::login`] and
//! [`accounts`] let it in, proven by a login to a server. The session loop in [`frontend::session`] reads one command;
//! [`session`] says what is open (a transaction? pins?); [`classify`] names the statement; [`routing`] picks one of the
//! session's two connections; the snapshot from [`topology`] says whether that connection still leads where it should, and
//! [`failover`] bounds the wait when there is no proven primary. [`backend`] connects and brings a connection to the
//! session's state; [`relay`] forwards the response, and what it observes goes back into [`session`]. Where sessions share
//! connections, [`frontend::pools`] has them between transactions.
//!
//! **A role change.** [`topology`]'s probers ask the servers; one writer per cluster computes the next immutable snapshot by
//! pure rules and publishes it. Held statements wake; connections to a server that is no longer what it was carry no
//! further statement.
//!
//! [`status`] records the snapshots and gathers what a person wants to know; [`admin`] shows it.
//!
//! [`reconciler`] stands beside the proxy and not behind it: it makes primaries, which the proxy only finds. A subcommand of its
//! own, it shares [`types`], the way to a server and the words of [`topology`].
//!
//! [`mod@bench`] stands apart: it is a client, of any port, that measures a failover.
//!
//! Nothing flows the other way: [`topology`] knows no session; [`wire`], [`session`], [`classify`] and [`routing`] know no
//! socket. Rooms marked \[pure\] import no runtime, socket, clock or randomness.
//!
//! Threads: each worker is a current-thread runtime that owns its sessions and their connections, so the data path takes no
//! lock. [`proxy`] puts the rooms together and takes them down.

pub mod types;
pub mod error;
pub mod config;
pub mod wire;
pub mod transport;
pub mod tls;
pub mod accounts;
pub mod classify;
pub mod session;
pub mod routing;
pub mod topology;
pub mod backend;
pub mod failover;
pub mod relay;
pub mod frontend;
pub mod status;
pub mod admin;
pub mod metrics;
pub mod telemetry;
pub mod proxy;
pub mod bench;
pub mod reconciler;
