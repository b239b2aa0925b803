//! What the reconciler counts.

use super::{
    RECONCILER_BEHIND, RECONCILER_CHANGE_SECONDS, RECONCILER_CHANGES, RECONCILER_ERRANT, RECONCILER_LEADS,
    RECONCILER_NUDGED, RECONCILER_NUDGES, RECONCILER_READY,
};
use metrics::{counter, gauge};
use std::time::Duration;

/// It leads, or it does not.
pub fn leads(is: bool) {
    gauge!(RECONCILER_LEADS).set(f64::from(u8::from(is)));
}

/// The primary of that cluster has changed.
pub fn primary_changed(cluster: &str, took: Duration) {
    counter!(RECONCILER_CHANGES, "cluster" => cluster.to_owned()).increment(1);
    gauge!(RECONCILER_CHANGE_SECONDS, "cluster" => cluster.to_owned()).set(took.as_secs_f64());
}

/// A proxy said that a primary looks lost.
pub fn nudged(became: &'static str) {
    counter!(RECONCILER_NUDGES, "result" => became).increment(1);
}

/// That made a look at this cluster come sooner.
pub fn nudged_look(cluster: &str) {
    counter!(RECONCILER_NUDGED, "cluster" => cluster.to_owned()).increment(1);
}

/// All is well with that cluster, or it is not.
pub fn cluster_ready(cluster: &str, is: bool) {
    gauge!(RECONCILER_READY, "cluster" => cluster.to_owned()).set(f64::from(u8::from(is)));
}

/// Transactions that a member has and its primary never had, and those that it has not executed yet.
pub fn member(cluster: &str, member: &str, (errant, behind): (u64, u64)) {
    let labels = [("cluster", cluster.to_owned()), ("member", member.to_owned())];
    gauge!(RECONCILER_ERRANT, &labels).set(errant as f64);
    gauge!(RECONCILER_BEHIND, &labels).set(behind as f64);
}
