//! The one writer of a cluster's topology: collects answers and hints, draws the next snapshot, publishes it.
//!
//! Why one: two writers could publish two primaries. The task owns the probers (one per server), starts and stops them as
//! servers come and go, sets their pace, and says in the log who changed role and why. All rules are in
//! [`super::picture`] and [`super::proof`].

use super::handle::{Command, TopologyHandle};
use super::kubernetes::{PodFeed, PodList};
use super::nudge::{self, Reconciler};
use super::picture::Picture;
use super::probe::{Pace, Prober};
use super::proof::Now;
use super::report::Observation;
use super::settings::{Account, TopologySettings};
use super::snapshot::{Backend, Conflict, Topology};
use crate::accounts::Credential;
use crate::metrics;
use crate::types::{BackendId, Role};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Answers grow old and members are forgotten also when nobody says anything.
const TICK: Duration = Duration::from_millis(250);
/// After news of the pods the servers are asked often for so long: labels and servers seldom change at the same moment.
const SETTLES: Duration = Duration::from_secs(3);
/// Answers that may wait for the writer.
const ANSWERS_MAX: usize = 256;

/// Starts the writer and the probers of one cluster on the current tokio runtime; they end with `shutdown`. The handle
/// goes on showing the last snapshot then.
pub fn spawn(settings: TopologySettings, shutdown: CancellationToken) -> TopologyHandle {
    let epoch = Instant::now();
    let settings = Arc::new(settings);
    let picture = Picture::new(settings.cluster.clone(), settings.source.clone(), settings.limits.clone(), now(epoch));
    let (handle, commands) = TopologyHandle::new(picture.current().as_ref().clone(), epoch);
    let (answers, inbox) = mpsc::channel(ANSWERS_MAX);
    let pace = watch::Sender::new(Pace { interval: settings.probe.interval, wakes: 0, doubted_ms: None });
    let reconciler = watch::Sender::new(settings.reconciler.clone());
    let writer = Writer {
        handle: handle.clone(),
        settings,
        retired: None,
        picture,
        epoch,
        pace,
        answers,
        probers: HashMap::new(),
        tasks: JoinSet::new(),
        doubt_since: Some(epoch),
        woken: None,
        news: None,
        unsettled_since: None,
        reconciler,
    };
    let nudging = nudge::run(handle.clone(), writer.reconciler.subscribe());
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(nudging));
    handle.set_source(writer.settings.pods.as_ref());
    tokio::spawn(writer.run(commands, inbox, shutdown));
    handle
}

fn now(epoch: Instant) -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { ms: epoch.elapsed().as_millis() as u64, unix_ms: unix.as_millis() as u64 }
}

struct Writer {
    handle: TopologyHandle,
    settings: Arc<TopologySettings>,
    /// The account's password before the present one. A Secret and the server are never changed in the same moment; each
    /// server that still refuses the new password is asked with this one.
    retired: Option<Credential>,
    picture: Picture,
    epoch: Instant,
    pace: watch::Sender<Pace>,
    answers: mpsc::Sender<Observation>,
    probers: HashMap<BackendId, CancellationToken>,
    /// Dropping it ends every prober.
    tasks: JoinSet<()>,
    doubt_since: Option<Instant>,
    woken: Option<Instant>,
    /// The last news of the pods.
    news: Option<Instant>,
    unsettled_since: Option<Instant>,
    /// For the task that tells it.
    reconciler: watch::Sender<Option<Reconciler>>,
}

impl Writer {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut inbox: mpsc::Receiver<Observation>,
        shutdown: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.staff();
        let mut feed = self.settings.pods.clone();
        self.follow(feed.as_mut());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(command) = commands.recv() => {
                    let mut wake = self.obey(command);
                    while let Ok(command) = commands.try_recv() {
                        wake |= self.obey(command);
                    }
                    feed = self.settings.pods.clone();
                    self.follow(feed.as_mut());
                    if wake {
                        self.wake();
                    }
                }
                Some(observation) = inbox.recv() => {
                    self.picture.observe(observation);
                    while let Ok(observation) = inbox.try_recv() {
                        self.picture.observe(observation);
                    }
                }
                () = news(feed.as_mut()) => self.follow(feed.as_mut()),
                _ = tick.tick() => {}
            }
            self.round();
        }
    }

    /// Takes a command in; true if the probers should ask at once.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Suspect { backend, hint, at_ms } => {
                tracing::debug!(cluster = %self.settings.cluster, backend = backend.0, hint = hint.as_str(), "hint");
                self.picture.suspect(backend, at_ms);
                self.pace.send_modify(|pace| pace.doubted_ms = pace.doubted_ms.max(Some(at_ms)));
                true
            }
            Command::Configure(settings) => {
                self.picture.limit(settings.limits.clone());
                self.picture.configure(settings.source.clone(), now(self.epoch));
                self.handle.set_source(settings.pods.as_ref());
                self.retired = retired(&self.settings.account, &settings.account, self.retired.take());
                self.reconciler.send_replace(settings.reconciler.clone());
                self.settings = Arc::new(*settings);
                // Account, TLS or rhythm may differ: every prober begins again.
                for (_, stop) in self.probers.drain() {
                    stop.cancel();
                }
                true
            }
        }
    }

    /// Takes in the pods as they are now.
    fn follow(&mut self, feed: Option<&mut PodFeed>) {
        let Some(feed) = feed else { return };
        let list: Arc<PodList> = feed.pods.borrow_and_update().clone();
        if list.complete && self.picture.follow_pods(&list.pods, now(self.epoch)) {
            tracing::debug!(cluster = %self.settings.cluster, pods = list.pods.len(), "pods changed");
            self.news = Some(Instant::now());
            self.wake();
        }
    }

    /// One step: the next snapshot, what follows from it, and the pace.
    fn round(&mut self) {
        // What was published last: a change of pods or settings has drawn snapshots of its own since.
        let before = self.handle.snapshot();
        let next = self.picture.round(now(self.epoch));
        if next.version != before.version {
            tell(&before, &next);
            tell_conflicts(&before, &next);
        }
        count(&before, &next);
        self.handle.publish(next.clone());
        self.staff();
        self.set_pace(next.doubt);
    }

    /// Starts probers for new servers and stops those of servers that are no more.
    fn staff(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        let servers = self.picture.servers();
        self.probers.retain(|id, stop| {
            let known = servers.iter().any(|server| server.id == *id);
            if !known {
                stop.cancel();
            }
            known
        });
        for server in servers {
            self.probers.entry(server.id).or_insert_with(|| {
                let stop = CancellationToken::new();
                let prober = Prober {
                    id: server.id,
                    address: server.address.clone(),
                    settings: self.settings.clone(),
                    retired: self.retired.clone(),
                    pace: self.pace.subscribe(),
                    answers: self.answers.clone(),
                    epoch: self.epoch,
                    stop: stop.clone(),
                };
                self.tasks.spawn(prober.run());
                stop
            });
        }
    }

    fn set_pace(&mut self, doubt: bool) {
        let settling = !doubt && self.is_settling();
        let probe = &self.settings.probe;
        let interval = if doubt {
            let since = *self.doubt_since.get_or_insert_with(Instant::now);
            let lasting = since.elapsed() > probe.doubt_max;
            if lasting { probe.lasting_interval } else { probe.doubt_interval }
        } else {
            self.doubt_since = None;
            if settling { probe.doubt_interval } else { probe.interval }
        };
        self.pace.send_if_modified(|pace| std::mem::replace(&mut pace.interval, interval) != interval);
    }

    /// Are roles about to change? Not for ever: labels that stay wrong are no news.
    fn is_settling(&mut self) -> bool {
        let recent = self.news.is_some_and(|news| news.elapsed() < SETTLES);
        if !self.picture.unsettled() {
            self.unsettled_since = None;
            return recent;
        }
        let since = *self.unsettled_since.get_or_insert_with(Instant::now);
        recent || since.elapsed() < self.settings.probe.doubt_max
    }

    /// Has every server asked at once, but not for each of a flood of hints.
    fn wake(&mut self) {
        if self.woken.is_none_or(|woken| woken.elapsed() >= self.settings.probe.wake_gap()) {
            self.woken = Some(Instant::now());
            self.pace.send_modify(|pace| pace.wakes += 1);
        }
    }
}

/// The password that `new` replaces: that of `old`, or the one before where only other settings differ.
fn retired(old: &Account, new: &Account, before: Option<Credential>) -> Option<Credential> {
    if old.user != new.user {
        return None;
    }
    let same = old.credential.password_bytes() == new.credential.password_bytes();
    if same { before } else { Some(old.credential.clone()) }
}

/// Waits for news of the pods; for ever if there are none. Cancel safe.
async fn news(feed: Option<&mut PodFeed>) {
    if let Some(feed) = feed
        && feed.pods.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// One line per contradiction, when it appears and when it is over.
fn tell_conflicts(before: &Topology, next: &Topology) {
    let among = |conflict: &Conflict, others: &[Conflict]| {
        others.iter().any(|other| (other.kind, &other.backends) == (conflict.kind, &conflict.backends))
    };
    for conflict in next.conflicts.iter().filter(|conflict| !among(conflict, &before.conflicts)) {
        metrics::conflict(&next.cluster.0, conflict.kind.as_str());
        let primary = next.primary().map(|primary| primary.address.to_string());
        tracing::warn!(
            cluster = %next.cluster,
            kind = conflict.kind.as_str(),
            evidence = %conflict.evidence,
            primary = primary.as_deref().unwrap_or("none"),
            "conflict"
        );
    }
    for conflict in before.conflicts.iter().filter(|conflict| !among(conflict, &next.conflicts)) {
        tracing::info!(cluster = %next.cluster, kind = conflict.kind.as_str(), "conflict is over");
    }
}

/// One line per role change.
fn tell(before: &Topology, next: &Topology) {
    for backend in &next.backends {
        let old = before.backend(backend.id).map_or("none", |old| old.role.as_str());
        if old != backend.role.as_str() {
            tell_one(next, backend, old);
        }
    }
    for gone in before.backends.iter().filter(|old| next.backend(old.id).is_none()) {
        let pod = pod_of(gone);
        let from = gone.role.as_str();
        tracing::info!(cluster = %next.cluster, backend = %gone.address, pod, from, to = "none", "role");
    }
    if before.primary.is_some() && next.primary.is_none() {
        tracing::warn!(cluster = %next.cluster, term = next.term.0, why = %next.why, "no primary");
    }
}

fn pod_of(backend: &Backend) -> Option<&str> {
    backend.pod.as_ref().map(|pod| &*pod.name)
}

fn tell_one(next: &Topology, backend: &Backend, old: &'static str) {
    tracing::info!(
        cluster = %next.cluster,
        term = next.term.0,
        backend = %backend.address,
        pod = pod_of(backend),
        from = old,
        to = backend.role.as_str(),
        evidence = %backend.evidence,
        "role"
    );
}

/// Roles, lag and term for /metrics, as far as they differ.
fn count(before: &Topology, next: &Topology) {
    let cluster = &*next.cluster.0;
    for backend in &next.backends {
        let name = || backend.address.to_string();
        let old = before.backend(backend.id);
        if old.is_none_or(|old| old.role != backend.role) {
            metrics::backend_role(cluster, &name(), Some(backend.role));
        }
        let lag_ms = if backend.role == Role::Follower { backend.lag_ms } else { None };
        if old.is_none_or(|old| (old.lag_ms, old.role) != (backend.lag_ms, backend.role)) {
            metrics::backend_lag(cluster, &name(), lag_ms.map(Duration::from_millis));
        }
    }
    for gone in before.backends.iter().filter(|old| next.backend(old.id).is_none()) {
        metrics::backend_role(cluster, &gone.address.to_string(), None);
        metrics::backend_lag(cluster, &gone.address.to_string(), None);
    }
    if before.term != next.term || before.version == 0 {
        metrics::term(cluster, next.term.0, before.term != next.term);
    }
}
