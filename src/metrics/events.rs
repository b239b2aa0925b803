//! Guards for what lives, and one function for each rare event.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{Gauge, counter, gauge};

use super::count::Count;
use super::histogram::{Series, series};
use super::{
    ACCEPTED, BACKEND_CONNECTIONS, BACKEND_CONNECTS, BACKEND_LAG, BACKEND_ROLE, BackendStats, CERTIFICATE_END,
    CLUSTER_SESSIONS, CLUSTERS, CONFIG_CURRENT, CONFLICTS, ERRORS, FALLBACKS, HAS_PRIMARY, HOLD_ENDS, HOLD_SECONDS,
    HOLDING, HOLDS, LOGINS, NUDGES, PINNED, PRIMARY_CHANGES, REFUSED, RELOADS, REPLAYS, RERUNS, SESSIONS,
    SHARED_BORROWS, SHARED_WAITING, STANDBYS, TERM, VERDICTS, WATCH_ERRORS, WATCH_EVENTS, WATCH_PODS, WATCH_UP,
    WITNESSES, WorkerStats,
};
use crate::error::{ErrorKind, Side};
use crate::types::Role;

/// Counts itself in a gauge as long as it lives.
#[must_use = "it counts only as long as it lives"]
pub struct Guard(Gauge);

impl Guard {
    fn new(gauge: Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// A client is connected to that listener; also counts the connection.
pub fn session(listener: &str) -> Guard {
    counter!(ACCEPTED, "listener" => listener.to_owned()).increment(1);
    Guard::new(gauge!(SESSIONS, "listener" => listener.to_owned()))
}

/// A connection to that server is open.
pub fn backend_connection(cluster: &str, backend: &str) -> Guard {
    let labels = [("cluster", cluster.to_owned()), ("backend", backend.to_owned())];
    Guard::new(gauge!(BACKEND_CONNECTIONS, &labels))
}

thread_local! {
    static BACKENDS: RefCell<HashMap<(String, String), Rc<BackendStats>>> = RefCell::default();
    static WORKERS: RefCell<HashMap<(String, String), Rc<WorkerStats>>> = RefCell::default();
}

/// This worker's counts for that server.
pub fn backend_stats(cluster: &str, backend: &str) -> Rc<BackendStats> {
    BACKENDS.with_borrow_mut(|backends| {
        let key = (cluster.to_owned(), backend.to_owned());
        Rc::clone(backends.entry(key).or_insert_with(|| Rc::new(BackendStats::new(cluster, backend))))
    })
}

/// This worker's counts for that listener and cluster.
pub fn worker_stats(listener: &str, cluster: &str) -> Rc<WorkerStats> {
    WORKERS.with_borrow_mut(|workers| {
        let key = (listener.to_owned(), cluster.to_owned());
        Rc::clone(workers.entry(key).or_insert_with(|| Rc::new(WorkerStats::new(listener, cluster))))
    })
}

/// Flushes what this worker counted; with [`super::FLUSH_EVERY`]. Clusters and servers that no session has to do with any
/// more are forgotten.
pub fn flush_workers() {
    WORKERS.with_borrow_mut(|workers| {
        workers.values().for_each(|stats| stats.flush());
        workers.retain(|_, stats| Rc::strong_count(stats) > 1);
    });
    BACKENDS.with_borrow_mut(|backends| {
        backends.values().for_each(|stats| stats.flush());
        backends.retain(|_, stats| Rc::strong_count(stats) > 1);
    });
}

/// A session of that cluster has logged in by that listener.
pub fn cluster_session(listener: &str, cluster: &str) -> Guard {
    Guard::new(gauge!(CLUSTER_SESSIONS, "listener" => listener.to_owned(), "cluster" => cluster.to_owned()))
}

/// A session is pinned for that reason.
pub fn pin(listener: &str, cluster: &str, reason: &'static str) -> Guard {
    let labels = [("listener", listener.to_owned()), ("cluster", cluster.to_owned()), ("reason", reason.to_owned())];
    Guard::new(gauge!(PINNED, &labels))
}

/// Clusters that are served now, from the configuration and discovered.
pub fn clusters(configured: usize, discovered: usize) {
    gauge!(CLUSTERS, "origin" => "configured").set(configured as f64);
    gauge!(CLUSTERS, "origin" => "discovered").set(discovered as f64);
}

/// A statement waits for a server of that cluster. End it with [`Hold::release`] or [`Hold::time_out`]; dropped, the
/// client has left.
pub fn hold(cluster: &str) -> Hold {
    counter!(HOLDS, "cluster" => cluster.to_owned()).increment(1);
    let holding = Guard::new(gauge!(HOLDING, "cluster" => cluster.to_owned()));
    let seconds = series(HOLD_SECONDS, &[("cluster", cluster)]);
    Hold { cluster: cluster.to_owned(), since: Instant::now(), seconds, end: "abandoned", _holding: holding }
}

/// One statement that waits; see [`hold`].
#[must_use = "a hold that is dropped counts as abandoned"]
pub struct Hold {
    cluster: String,
    since: Instant,
    seconds: Arc<Series>,
    end: &'static str,
    _holding: Guard,
}

impl Hold {
    /// There is a server: it goes on.
    pub fn release(mut self) {
        self.end = "released";
    }

    /// It waited too long, or there was no room to wait.
    pub fn time_out(mut self) {
        self.end = "timed_out";
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        counter!(HOLD_ENDS, "cluster" => self.cluster.clone(), "end" => self.end).increment(1);
        self.seconds.record(self.since.elapsed());
    }
}

/// How a login ended; a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginResult {
    /// The client is in.
    Ok,
    /// Wrong proof, or no right to be here.
    Refused,
    /// No answer was to be had, from the client or from a server.
    Failed,
}

/// A login ended; `cluster` is empty where it led nowhere.
pub fn login(listener: &str, cluster: &str, result: LoginResult) {
    let result = match result {
        LoginResult::Ok => "ok",
        LoginResult::Refused => "refused",
        LoginResult::Failed => "failed",
    };
    Count::of(LOGINS, &[("listener", listener), ("cluster", cluster), ("result", result)]).increment(1);
}

/// A connection was closed before its login, e.g. for `max_connections`.
pub fn refused(listener: &str, reason: &'static str) {
    counter!(REFUSED, "listener" => listener.to_owned(), "reason" => reason).increment(1);
}

/// An error of the proxy's own.
pub fn error(kind: ErrorKind, side: Side) {
    counter!(ERRORS, "kind" => kind.as_str(), "side" => side.as_str()).increment(1);
}

/// A statement runs again elsewhere before its client saw anything, e.g. for `read_only`.
pub fn rerun(cluster: &str, reason: &'static str) {
    counter!(RERUNS, "cluster" => cluster.to_owned(), "reason" => reason).increment(1);
}

/// A transaction was run again on a new primary, and its answers were the `same` or `different`, or that `failed`.
pub fn replay(cluster: &str, result: &'static str) {
    counter!(REPLAYS, "cluster" => cluster.to_owned(), "result" => result).increment(1);
}

/// A session had its connection to a new primary before that one was proven.
pub fn standby(cluster: &str) {
    counter!(STANDBYS, "cluster" => cluster.to_owned()).increment(1);
}

/// What was found out of a write whose answer was lost: `committed`, `not_committed` or `unknown`.
pub fn verdict(cluster: &str, verdict: &'static str) {
    counter!(VERDICTS, "cluster" => cluster.to_owned(), "verdict" => verdict).increment(1);
}

/// A session has asked for a shared connection: it got one that was `used`, or a place for a `new` one, or one it had
/// `waited` for, or `none`.
pub fn shared_borrow(cluster: &str, result: &'static str) {
    counter!(SHARED_BORROWS, "cluster" => cluster.to_owned(), "result" => result).increment(1);
}

/// A statement waits for a shared connection.
pub fn shared_waiting(cluster: &str) -> Guard {
    Guard::new(gauge!(SHARED_WAITING, "cluster" => cluster.to_owned()))
}

/// A server's binary log is watched, while the answer lives.
pub fn witness(cluster: &str) -> Guard {
    Guard::new(gauge!(WITNESSES, "cluster" => cluster.to_owned()))
}

/// No follower qualified for a read.
pub fn read_fallback(cluster: &str) {
    counter!(FALLBACKS, "cluster" => cluster.to_owned()).increment(1);
}

/// A connection attempt to a server ended.
pub fn backend_connect(cluster: &str, backend: &str, ok: bool) {
    let result = if ok { "ok" } else { "failed" };
    let labels = [("cluster", cluster.to_owned()), ("backend", backend.to_owned()), ("result", result.to_owned())];
    counter!(BACKEND_CONNECTS, &labels).increment(1);
}

/// What a server has been proven to be; `None`: it is no longer of the cluster.
pub fn backend_role(cluster: &str, backend: &str, role: Option<Role>) {
    for known in [Role::Primary, Role::Follower, Role::Unknown] {
        let (cluster, backend) = (cluster.to_owned(), backend.to_owned());
        let value = if role == Some(known) { 1 } else { 0 };
        gauge!(BACKEND_ROLE, "cluster" => cluster, "backend" => backend, "role" => known.as_str()).set(value);
    }
}

/// How far a follower is behind; `None`: not known.
pub fn backend_lag(cluster: &str, backend: &str, lag: Option<Duration>) {
    let seconds = lag.map_or(f64::NAN, |lag| lag.as_secs_f64());
    gauge!(BACKEND_LAG, "cluster" => cluster.to_owned(), "backend" => backend.to_owned()).set(seconds);
}

/// The term of a cluster; `changed`: it has a new primary.
pub fn term(cluster: &str, term: u64, changed: bool) {
    gauge!(TERM, "cluster" => cluster.to_owned()).set(term as f64);
    counter!(PRIMARY_CHANGES, "cluster" => cluster.to_owned()).increment(u64::from(changed));
}

/// Whether a cluster has a proven primary; `None`: there is no such cluster any more. A series cannot be taken back, but
/// NaN is less than nothing: it equals no number, and Prometheus' `max` and `min` pass it over.
pub fn has_primary(cluster: &str, has: Option<bool>) {
    let value = has.map_or(f64::NAN, |has| f64::from(u8::from(has)));
    gauge!(HAS_PRIMARY, "cluster" => cluster.to_owned()).set(value);
}

/// When the certificate that a `side` (`listener`, `cluster`) of that name shows ends; `None`: it shows none.
pub fn certificate_end(side: &'static str, name: &str, end: Option<SystemTime>) {
    let seconds = end.and_then(|end| end.duration_since(UNIX_EPOCH).ok()).map_or(f64::NAN, |end| end.as_secs_f64());
    gauge!(CERTIFICATE_END, "side" => side, "name" => name.to_owned()).set(seconds);
}

/// Whether what the configuration file says is in effect.
pub fn config_current(current: bool) {
    gauge!(CONFIG_CURRENT).set(f64::from(u8::from(current)));
}

/// A changed configuration was read.
pub fn reload(ok: bool) {
    counter!(RELOADS, "result" => if ok { "ok" } else { "failed" }).increment(1);
}

/// Servers, labels and terms contradict each other in that way.
pub fn conflict(cluster: &str, kind: &'static str) {
    counter!(CONFLICTS, "cluster" => cluster.to_owned(), "kind" => kind).increment(1);
}

/// The reconciler was told that this cluster's primary looks lost, with that answer.
pub fn nudge(cluster: &str, result: &'static str) {
    counter!(NUDGES, "cluster" => cluster.to_owned(), "result" => result).increment(1);
}

/// The pods of a namespace are watched, or can't be.
pub fn watch_up(preset: &'static str, namespace: &str, up: bool) {
    gauge!(WATCH_UP, "preset" => preset, "namespace" => namespace.to_owned()).set(if up { 1 } else { 0 });
}

/// The API server said something of pods.
pub fn watch_event(preset: &'static str, namespace: &str, event: &'static str) {
    counter!(WATCH_EVENTS, "preset" => preset, "namespace" => namespace.to_owned(), "event" => event).increment(1);
}

/// A watch of pods failed.
pub fn watch_error(preset: &'static str, namespace: &str, kind: &'static str) {
    counter!(WATCH_ERRORS, "preset" => preset, "namespace" => namespace.to_owned(), "kind" => kind).increment(1);
}

/// The pods that one watch knows, a part of those of its preset; none any more when dropped.
pub struct WatchedPods {
    gauge: Gauge,
    pods: AtomicUsize,
}

/// A watch of that preset, which knows no pods yet.
pub fn watched_pods(preset: &'static str) -> WatchedPods {
    WatchedPods { gauge: gauge!(WATCH_PODS, "preset" => preset), pods: AtomicUsize::new(0) }
}

impl WatchedPods {
    /// It knows so many now.
    pub fn set(&self, pods: usize) {
        let before = self.pods.swap(pods, Ordering::Relaxed);
        self.gauge.increment(pods as f64 - before as f64);
    }
}

impl Drop for WatchedPods {
    fn drop(&mut self) {
        self.set(0);
    }
}
