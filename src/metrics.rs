//! Numbers for Prometheus: every name, label and unit of the project is here.
//!
//! The data path counts in plain [`Cell`]s of its worker ([`WorkerStats`], [`BackendStats`]) and adds them to the
//! process's counters every [`FLUSH_EVERY`]; a query costs it no atomic and no lookup. What is rare (a login, a hold, a
//! role change) is counted at once. Gauges of things that live are guards, so that none is forgotten on an error's path.
//! Labels are enums or names of the configuration, never what a client wrote.

mod count;
mod events;
pub mod histogram;
pub mod reconciler;
#[cfg(test)]
mod tests;

pub use count::Labels;
pub use events::*;

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;

use count::Count;
use metrics::{Counter, counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// How often a worker flushes its own counts.
pub const FLUSH_EVERY: Duration = Duration::from_millis(500);

macro_rules! names {
    ($($constant:ident = $name:literal, $kind:ident, $help:literal;)*) => {
        $(const $constant: &str = $name;)*
        /// Every metric: name, kind, help.
        const ALL: &[(&str, Kind, &str)] = &[$(($name, Kind::$kind, $help)),*];
    };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

names! {
    QUERIES = "holdfast_queries_total", Counter, "Commands answered, by class and by the role of the server that answered.";
    QUERY_SECONDS = "holdfast_query_duration_seconds", Histogram, "From a command's last byte to its answer's last byte.";
    CLIENT_RECEIVED = "holdfast_client_received_bytes_total", Counter, "Bytes read from clients.";
    CLIENT_SENT = "holdfast_client_sent_bytes_total", Counter, "Bytes written to clients.";
    SERVER_ERRORS = "holdfast_server_errors_total", Counter, "ERR packets of servers passed on to clients.";
    BACKEND_QUERIES = "holdfast_backend_queries_total", Counter, "Commands answered, by server.";
    BACKEND_RECEIVED = "holdfast_backend_received_bytes_total", Counter, "Bytes read from servers.";
    BACKEND_SENT = "holdfast_backend_sent_bytes_total", Counter, "Bytes written to servers.";
    BACKEND_CONNECTIONS = "holdfast_backend_connections", Gauge, "Open connections to a server, probes excluded.";
    BACKEND_CONNECTS = "holdfast_backend_connects_total", Counter, "Attempts to connect and log in, by result.";
    BACKEND_ROLE = "holdfast_backend_role", Gauge, "1 for the role a server has been proven to have, 0 for the others.";
    BACKEND_LAG = "holdfast_backend_lag_seconds", Gauge, "How far a follower is behind, as the last probe saw it.";
    TERM = "holdfast_term", Gauge, "Counts the primary changes of a cluster.";
    PRIMARY_CHANGES = "holdfast_primary_changes_total", Counter, "New primaries proven.";
    CONFLICTS = "holdfast_topology_conflicts_total", Counter, "Contradictions between servers, labels and terms, by kind; each is resolved by proof.";
    WATCH_UP = "holdfast_kubernetes_watch_up", Gauge, "1 while the pods of a namespace are watched, 0 while the API server is away: the last known pods stay.";
    WATCH_EVENTS = "holdfast_kubernetes_watch_events_total", Counter, "What the API server said of pods: apply, delete, list (from the beginning, or after 410 Gone).";
    WATCH_ERRORS = "holdfast_kubernetes_watch_errors_total", Counter, "Why a watch of pods failed: configuration, unreachable, forbidden, expired (410 Gone), refused.";
    WATCH_PODS = "holdfast_kubernetes_watch_pods", Gauge, "Pods known to the watches of a preset.";
    SESSIONS = "holdfast_client_sessions", Gauge, "Clients connected.";
    CLUSTER_SESSIONS = "holdfast_cluster_sessions", Gauge, "Clients logged in, by cluster.";
    CLUSTERS = "holdfast_clusters", Gauge, "Clusters served, by where they are known from.";
    ACCEPTED = "holdfast_client_connections_total", Counter, "Connections accepted from clients.";
    REFUSED = "holdfast_client_connections_refused_total", Counter, "Connections closed before a login, by reason.";
    LOGINS = "holdfast_logins_total", Counter, "Logins by result: ok, refused (wrong proof or rights), failed (no answer to be had).";
    PINNED = "holdfast_pinned_sessions", Gauge, "Sessions that must keep their server connection, by reason.";
    SHARED_BORROWS = "holdfast_shared_borrows_total", Counter, "Shared connections that sessions asked for, by result: used (another session's), new, waited, none.";
    SHARED_WAITING = "holdfast_shared_waiting", Gauge, "Statements that wait for a shared connection.";
    ERRORS = "holdfast_errors_total", Counter, "Errors of the proxy's own, by kind and by the side that failed.";
    STANDBYS = "holdfast_standby_connections_total", Counter, "Connections to a new primary that were made before it was proven.";
    RERUNS = "holdfast_reruns_total", Counter, "Statements run again elsewhere before their client saw anything, by reason.";
    REPLAYS = "holdfast_replays_total", Counter, "Transactions run again on a new primary: same (they go on), different (1213), failed (1213).";
    VERDICTS = "holdfast_verdicts_total", Counter, "Writes whose answer was lost: committed, not_committed, unknown.";
    WITNESSES = "holdfast_witnesses", Gauge, "Servers whose binary log is watched, so that they can say what became of a write (exactly_once).";
    FALLBACKS = "holdfast_read_fallbacks_total", Counter, "Reads for which no follower qualified.";
    FRESH_READS = "holdfast_session_reads_total", Counter, "Reads that had to see what their session had written, by how: follower_known, waited (for a follower), primary.";
    HOLDS = "holdfast_holds_total", Counter, "Statements that had to wait for a server.";
    HOLD_ENDS = "holdfast_hold_ends_total", Counter, "How waiting ended: released, timed_out, abandoned (the client left).";
    HOLDING = "holdfast_holding", Gauge, "Statements waiting for a server now.";
    HOLD_SECONDS = "holdfast_hold_duration_seconds", Histogram, "How long statements waited for a server.";
    HAS_PRIMARY = "holdfast_has_primary", Gauge, "1 while the cluster has a proven primary, 0 while it has none, NaN once there is no such cluster.";
    CERTIFICATE_END = "holdfast_certificate_expiry_timestamp_seconds", Gauge, "When the proxy's own certificate ends, Unix time; by side (listener, cluster) and its name.";
    CONFIG_CURRENT = "holdfast_config_current", Gauge, "1 if the configuration file is in effect, 0 if it was refused or needs a restart.";
    RELOADS = "holdfast_config_reloads_total", Counter, "Configurations read again after a change, by result.";
    NUDGES = "holdfast_nudges_total", Counter, "Times the reconciler was told that a primary looks lost, by its answer: heard, unknown (it keeps no such cluster), not_leading, failed.";
    RECONCILER_LEADS = "holdfast_reconciler_leads", Gauge, "1 while this reconciler holds the Lease.";
    RECONCILER_CHANGES = "holdfast_reconciler_primary_changes_total", Counter, "Primaries made or moved, by cluster.";
    RECONCILER_CHANGE_SECONDS = "holdfast_reconciler_primary_change_seconds", Gauge, "How long the last change of the primary took, from when nobody took writes (or the decision, if somebody still did) to the label.";
    RECONCILER_READY = "holdfast_reconciler_cluster_ready", Gauge, "1 while the cluster is Ready.";
    RECONCILER_ERRANT = "holdfast_reconciler_errant_transactions", Gauge, "Transactions that a member has and its primary never had.";
    RECONCILER_BEHIND = "holdfast_reconciler_behind_transactions", Gauge, "Transactions of the primary that a member has not executed yet.";
    RECONCILER_NUDGES = "holdfast_reconciler_nudges_total", Counter, "What proxies said of primaries that look lost, by what became of it: heard, unknown (no such cluster), not_leading.";
    RECONCILER_NUDGED = "holdfast_reconciler_nudged_looks_total", Counter, "Looks at a cluster that came sooner because a proxy said so.";
    BUILD = "holdfast_build_info", Gauge, "1, with the version as label.";
}

/// Sets the process's recorder up and describes all metrics. A second call gives the same handle.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // It only fails if something else in this process installed one; then ours stays empty.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1);
        handle
    };
    HANDLE.get_or_init(install).clone()
}

/// Commands answered, by `listener`, `cluster`, `class` and `target`, since the process began.
pub fn queries() -> Vec<(Labels, u64)> {
    count::read(QUERIES)
}

/// Commands answered, by `cluster` and `backend`, since the process began.
pub fn backend_queries() -> Vec<(Labels, u64)> {
    count::read(BACKEND_QUERIES)
}

/// Logins, by `listener` and `result`, since the process began.
pub fn logins() -> Vec<(Labels, u64)> {
    count::read(LOGINS)
}

/// All metrics in Prometheus' text format (version 0.0.4).
pub fn render(handle: &PrometheusHandle) -> String {
    let help = |name: &str| ALL.iter().find(|(known, ..)| *known == name).map_or("", |(_, _, help)| help);
    handle.render() + &histogram::render(help)
}

fn describe() {
    for (name, kind, help) in ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Histogram => {}
        }
    }
}

/// What kind of command a client sent; a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A pure read.
    Read,
    /// Anything that may change data.
    Write,
    /// BEGIN, COMMIT and the like, and what is inside a transaction.
    Transaction,
    /// SET, USE.
    Set,
    /// COM_STMT_PREPARE.
    Prepare,
    /// COM_STMT_EXECUTE outside a transaction.
    Execute,
    /// Everything else.
    Other,
}

impl Class {
    const ALL: [(Self, &str); 7] = [
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Transaction, "transaction"),
        (Self::Set, "set"),
        (Self::Prepare, "prepare"),
        (Self::Execute, "execute"),
        (Self::Other, "other"),
    ];
}

/// The role of the server that answered; a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The primary.
    Primary,
    /// A follower.
    Follower,
}

impl Target {
    const ALL: [(Self, &str); 2] = [(Self::Primary, "primary"), (Self::Follower, "follower")];
}

/// How a read came to see what its session had written; a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The follower was known to have it.
    Known,
    /// The follower was waited for.
    Waited,
    /// It ran on the primary.
    Primary,
}

impl Freshness {
    const ALL: [(Self, &str); 3] =
        [(Self::Known, "follower_known"), (Self::Waited, "waited"), (Self::Primary, "primary")];
}

/// A plain number of a worker and the process's counter it is added to.
struct Tally<C>(Cell<u64>, C);

/// A process's counter.
trait Counts {
    fn increment(&self, n: u64);
}

impl Counts for Counter {
    fn increment(&self, n: u64) {
        Counter::increment(self, n);
    }
}

impl Counts for Count {
    fn increment(&self, n: u64) {
        Count::increment(self, n);
    }
}

impl<C: Counts> Tally<C> {
    fn new(counter: C) -> Self {
        Self(Cell::new(0), counter)
    }

    fn add(&self, count: u64) {
        self.0.set(self.0.get() + count);
    }

    fn flush(&self) {
        let count = self.0.replace(0);
        if count > 0 {
            self.1.increment(count);
        }
    }
}

/// What one worker counts for one listener. Belongs to the worker's thread; flush it every [`FLUSH_EVERY`]. What is left
/// is flushed on drop.
pub struct WorkerStats {
    /// By class and target.
    queries: [[(histogram::Local, Count); 2]; 7],
    received: Tally<Counter>,
    sent: Tally<Counter>,
    server_errors: Tally<Counter>,
    /// By [`Freshness`].
    fresh: [Tally<Counter>; 3],
}

impl WorkerStats {
    /// Counts for that listener and its cluster.
    pub fn new(listener: &str, cluster: &str) -> Self {
        let labels = [("listener", listener.to_owned()), ("cluster", cluster.to_owned())];
        let of = |class: usize, target: usize| {
            let (class, target) = (Class::ALL[class].1, Target::ALL[target].1);
            let labels = [("listener", listener), ("cluster", cluster), ("class", class), ("target", target)];
            (histogram::Local::new(histogram::series(QUERY_SECONDS, &labels)), Count::of(QUERIES, &labels))
        };
        Self {
            queries: std::array::from_fn(|class| std::array::from_fn(|target| of(class, target))),
            received: Tally::new(counter!(CLIENT_RECEIVED, &labels)),
            sent: Tally::new(counter!(CLIENT_SENT, &labels)),
            server_errors: Tally::new(counter!(SERVER_ERRORS, &labels)),
            fresh: Freshness::ALL.map(|(_, how)| {
                let labels =
                    [("listener", listener.to_owned()), ("cluster", cluster.to_owned()), ("by", how.to_owned())];
                Tally::new(counter!(FRESH_READS, &labels))
            }),
        }
    }

    /// One command was answered; `elapsed` from its last byte to the answer's last.
    pub fn query(&self, class: Class, target: Target, elapsed: Duration) {
        self.queries[class as usize][target as usize].0.record(elapsed);
    }

    /// Bytes read from clients.
    pub fn received(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }

    /// Bytes written to clients.
    pub fn sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
    }

    /// A server's ERR packet was passed on.
    pub fn server_error(&self) {
        self.server_errors.add(1);
    }

    /// A read had to see what its session had written.
    pub fn fresh(&self, how: Freshness) {
        self.fresh[how as usize].add(1);
    }

    /// Adds what was counted since the last time to the process's counters.
    pub fn flush(&self) {
        for (durations, counter) in self.queries.iter().flatten() {
            let count = durations.flush();
            if count > 0 {
                counter.increment(count);
            }
        }
        [&self.received, &self.sent, &self.server_errors].into_iter().chain(&self.fresh).for_each(Tally::flush);
    }
}

impl Drop for WorkerStats {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What one worker counts for one server; as [`WorkerStats`].
pub struct BackendStats {
    queries: Tally<Count>,
    received: Tally<Counter>,
    sent: Tally<Counter>,
}

impl BackendStats {
    /// Counts for that server.
    pub fn new(cluster: &str, backend: &str) -> Self {
        let labels = [("cluster", cluster.to_owned()), ("backend", backend.to_owned())];
        Self {
            queries: Tally::new(Count::of(BACKEND_QUERIES, &[("cluster", cluster), ("backend", backend)])),
            received: Tally::new(counter!(BACKEND_RECEIVED, &labels)),
            sent: Tally::new(counter!(BACKEND_SENT, &labels)),
        }
    }

    /// It answered one command.
    pub fn query(&self) {
        self.queries.add(1);
    }

    /// Bytes read from it.
    pub fn received(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }

    /// Bytes written to it.
    pub fn sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
    }

    /// Adds what was counted since the last time to the process's counters.
    pub fn flush(&self) {
        self.queries.flush();
        [&self.received, &self.sent].into_iter().for_each(Tally::flush);
    }
}

impl Drop for BackendStats {
    fn drop(&mut self) {
        self.flush();
    }
}
