//! Pods as a source of servers: what the API server says of them, as hints.
//!
//! One watch per operator's labels and set of namespaces, however many clusters there are; each cluster's writer gets the
//! facts of its own pods. What it refuses to do: it names no primary, and it never forgets what it knew because the API
//! server is away.
//!
//! - [`preset`] \[pure\]: what each operator's labels mean.
//! - [`pod`] \[pure\]: from a pod to the facts that are kept.
//! - [`index`] \[pure\]: pods by cluster.
//! - [`watch`]: [`Hub`] shares watches and hands out [`PodFeed`]s; `follow` lists and watches.

pub mod index;
pub mod pod;
pub mod preset;
pub mod client;
mod follow;
pub mod watch;

pub use client::Access;
pub use pod::{Group, Label, PodFacts, PodState, TermHint};
pub use preset::{Preset, RoleSource, Rules, TermSource};
pub use watch::{GroupFeed, GroupList, Hub, PodFeed, PodList, Query, WatchKey};
