//! What runs and can be replaced while it does: clusters, listeners, their certificates and accounts.
//!
//! [`Running::apply`] is the one way to change it, called by one task: the clusters that should be there (the
//! configuration's and those discovered) are compared with those that are, and what appears is started, what changes goes on
//! with other settings, what is no more is ended.

use super::build::{backend_tls, ledger, listener_tls, topology_settings};
use super::discovery::{Found, wanted};
use crate::accounts::Sealer;
use crate::admin::Readiness;
use crate::config::watch::LastRead;
use crate::config::{BackendTlsConfig, ClusterConfig, Config, ListenerConfig};
use crate::failover::witness;
use crate::frontend::clusters::{ByName, Clusters};
use crate::frontend::drain;
use crate::frontend::gate::{AllSessions, Listener};
use crate::frontend::shared::{Cluster, Registry};
use crate::metrics;
use crate::status::{
    self,
    recorder::{self, SharedHistory},
};
use crate::tls::{BackendTls, TlsError};
use crate::topology::{self, kubernetes::Hub};
use crate::types::ClusterId;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::mem::discriminant;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// How long a start waits for the primaries of clusters that were discovered first.
const START_GRACE: Duration = Duration::from_secs(10);

/// The parts that a reload or a discovery replaces.
pub(super) struct Running {
    pub clusters: Arc<Clusters>,
    pub listeners: Vec<Arc<ArcSwap<Listener>>>,
    /// What has happened to each cluster that is there.
    histories: Mutex<HashMap<ClusterId, SharedHistory>>,
    sessions: Arc<AllSessions>,
    sealer: Arc<Sealer>,
    registry: Arc<Registry>,
    /// Watches of pods, shared by the clusters.
    pub hub: Hub,
    control: CancellationToken,
    start: Start,
}

/// Whether all is there that was to be waited for at the start.
#[derive(Default)]
struct Start {
    over: AtomicBool,
    /// Since when every discovery has said what there is.
    discovered: Mutex<Option<Instant>>,
}

impl Running {
    /// Starts the clusters of the configuration and makes its listeners.
    pub async fn start(config: &Config, registry: &Arc<Registry>, control: &CancellationToken) -> Result<Self> {
        let sealer = Sealer::new().context("the system gives no randomness")?;
        let clusters = Arc::new(Clusters::default());
        let sessions = Arc::new(AllSessions::new(config.proxy.max_connections));
        let mut listeners = Vec::new();
        for config in &config.listeners {
            let (tls, ledger) = (Arc::new(listener_tls(config)?), Arc::new(ledger(config, &sealer)?));
            let made = Listener::new(config.clone(), Arc::clone(&clusters), tls, ledger, Arc::clone(&sessions));
            listeners.push(Arc::new(ArcSwap::from_pointee(made)));
        }
        let (registry, hub) = (Arc::clone(registry), Hub::new(control.clone()));
        let (control, start) = (control.clone(), Start::default());
        let histories = Mutex::default();
        let running = Self { clusters, listeners, histories, sessions, sealer, registry, hub, control, start };
        running.apply(config, &vec![None; config.discoveries.len()]).await?;
        Ok(running)
    }

    /// Takes over a configuration with the same listeners, and what was found. On an error nothing has changed.
    pub async fn apply(&self, config: &Config, found: &[Found]) -> Result<()> {
        let old = self.clusters.load();
        let wanted = wanted(config, found, |name| old.contains_key(name));
        let plans = self.plan(&wanted)?;
        let mut listeners = Vec::new();
        for (new, old) in config.listeners.iter().zip(&self.listeners) {
            listeners.push(self.changed_listener(&old.load(), new)?);
        }
        self.sessions.limit(config.proxy.max_connections);
        let discovered = wanted.len() - config.clusters.len();
        let mut clusters = ByName::new();
        for (config, plan) in wanted.into_iter().zip(plans) {
            let cluster = self.carry_out(config, plan).await;
            clusters.insert(cluster.name.clone(), cluster);
        }
        for gone in old.values().filter(|old| clusters.get(&old.name).is_none_or(|new| new.id != old.id)) {
            tracing::info!(cluster = %gone.name, "cluster removed: its sessions are told at their next statement");
            metrics::certificate_end("cluster", &gone.name.0, None);
            for backend in &gone.topology.load().backends {
                metrics::backend_role(&gone.name.0, &backend.address.to_string(), None);
                metrics::backend_lag(&gone.name.0, &backend.address.to_string(), None);
            }
        }
        let ids: Vec<ClusterId> = clusters.values().map(|cluster| cluster.id).collect();
        self.clusters.replace(clusters);
        lock(&self.histories).retain(|id, _| ids.contains(id));
        for (slot, listener) in self.listeners.iter().zip(listeners) {
            listener.accounts.forget_gone(&self.clusters);
            slot.store(listener);
        }
        metrics::clusters(config.clusters.len(), discovered);
        if found.iter().all(Option::is_some) {
            let mut since = lock(&self.start.discovered);
            since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// All that can fail of starting and changing clusters.
    fn plan(&self, wanted: &[ClusterConfig]) -> Result<Vec<Plan>> {
        let now = self.clusters.load();
        // Clusters that say the same of TLS share their certificates.
        let mut known: Vec<(BackendTlsConfig, Arc<BackendTls>)> =
            now.values().map(|cluster| (cluster.config.tls.clone(), Arc::clone(&cluster.tls))).collect();
        let mut plans = Vec::new();
        for config in wanted {
            let tls = match known.iter().find(|(same, _)| *same == config.tls) {
                Some((_, tls)) => Arc::clone(tls),
                None => Arc::new(backend_tls(config)?),
            };
            known.push((config.tls.clone(), Arc::clone(&tls)));
            let old = now.get(config.name.as_str());
            let stays = old.filter(|old| discriminant(&old.config.source) == discriminant(&config.source));
            plans.push(match stays {
                Some(old) if old.config == *config => Plan::Keep(Arc::clone(old)),
                Some(old) => Plan::Change(Arc::clone(old), tls),
                None => Plan::Start(tls),
            });
        }
        Ok(plans)
    }

    async fn carry_out(&self, config: ClusterConfig, plan: Plan) -> Arc<Cluster> {
        match plan {
            Plan::Keep(cluster) => cluster,
            Plan::Change(old, tls) => {
                old.topology.configure(topology_settings(&config, &tls, &self.hub)).await;
                Arc::new(old.with_config(config, tls))
            }
            Plan::Start(tls) => {
                let probing = self.control.child_token();
                let handle = topology::spawn(topology_settings(&config, &tls, &self.hub), probing.clone());
                tracing::info!(cluster = config.name, "cluster added");
                let cluster = Arc::new(Cluster::new(config, handle.clone(), tls, probing.clone()));
                let history = recorder::spawn(handle.clone(), Arc::clone(&cluster.holds), probing.clone());
                lock(&self.histories).insert(cluster.id, history);
                let (witnesses, name) = (Arc::clone(&cluster.witnesses), cluster.name.0.as_ref().into());
                tokio::spawn(witness::run(witnesses, name, handle.clone(), probing.clone()));
                tokio::spawn(drain::run(cluster.id, handle, Arc::clone(&self.registry), probing));
                cluster
            }
        }
    }

    fn changed_listener(&self, old: &Listener, new: &ListenerConfig) -> Result<Arc<Listener>> {
        let tls = if new.tls == old.config.tls { Arc::clone(&old.tls) } else { Arc::new(listener_tls(new)?) };
        let same = new.account_source == old.config.account_source && new.account_file == old.config.account_file;
        let accounts = if same { Arc::clone(&old.accounts) } else { Arc::new(ledger(new, &self.sealer)?) };
        Ok(Arc::new(old.with_config(new.clone(), tls, accounts)))
    }

    /// Whether clients should be sent here.
    pub fn readiness(&self, accepting: bool) -> Readiness {
        let mut reasons = Vec::new();
        if !accepting {
            reasons.push("shutting down".to_owned());
        }
        let clusters = self.clusters.load();
        let starting = self.is_starting(&clusters);
        for cluster in clusters.values().filter(|cluster| starting || cluster.config.required) {
            let topology = cluster.topology.load();
            if topology.primary.is_none() {
                reasons.push(format!("cluster {} has no proven primary: {}", cluster.name, topology.why));
            }
        }
        if lock(&self.start.discovered).is_none() {
            reasons.push("no discovery has said yet which clusters there are".to_owned());
        }
        Readiness { ready: reasons.is_empty(), reasons, notes: self.hub.troubles() }
    }

    /// True while clusters that were discovered at the start are still looked at: a proxy that has just been started must
    /// not take clients from one that knows its clusters already. Later ones make nobody unready.
    fn is_starting(&self, clusters: &ByName) -> bool {
        if self.start.over.load(Ordering::Relaxed) {
            return false;
        }
        let since = *lock(&self.start.discovered);
        let late = since.is_some_and(|since| since.elapsed() > START_GRACE);
        let all = since.is_some() && clusters.values().all(|cluster| cluster.topology.load().primary.is_some());
        self.start.over.store(all || late, Ordering::Relaxed);
        !(all || late)
    }

    /// The clusters for /topology.
    pub fn topology(&self) -> serde_json::Value {
        let clusters = self.clusters.load();
        let all = clusters.values().map(|cluster| cluster.topology.to_json(&cluster.all_connections()));
        serde_json::json!({ "clusters": all.collect::<Vec<_>>() })
    }

    /// The clusters, and what has happened to them, for the status page.
    pub fn status(&self, accepting: bool, about: &About) -> serde_json::Value {
        let Readiness { ready, reasons, .. } = self.readiness(accepting);
        let histories = lock(&self.histories).clone();
        let with_history = |cluster: &Arc<Cluster>| Some((Arc::clone(cluster), histories.get(&cluster.id)?.clone()));
        status::to_json(&status::Sources {
            clusters: self.clusters.load().values().filter_map(with_history).collect(),
            listeners: self.listeners.iter().map(|listener| listener.load_full()).collect(),
            ready,
            reasons,
            file: about.file.clone(),
            read: about.read.load_full(),
            started: about.started,
        })
    }

    /// Reads certificates again when their files have changed, and account files with them. Blocking.
    pub fn reread_files(&self) {
        let mut seen: Vec<*const BackendTls> = Vec::new();
        for cluster in self.clusters.load().values() {
            let at = Arc::as_ptr(&cluster.tls);
            if !seen.contains(&at) {
                told("cluster", &cluster.name.0, cluster.tls.reload_if_changed());
                seen.push(at);
            }
            metrics::certificate_end("cluster", &cluster.name.0, cluster.tls.not_after());
        }
        for listener in &self.listeners {
            let listener = listener.load();
            told("listener", &listener.config.name, listener.tls.reload_if_changed());
            metrics::certificate_end("listener", &listener.config.name, listener.tls.not_after());
            if let Err(error) = listener.accounts.reload() {
                tracing::warn!(listener = %listener.config.name, %error, "account file not taken over");
            }
        }
    }
}

/// What the process knows of itself.
pub(super) struct About {
    /// The configuration file.
    pub file: PathBuf,
    /// What became of it when it was read last.
    pub read: Arc<ArcSwap<LastRead>>,
    /// When the process began.
    pub started: SystemTime,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of a cluster.
enum Plan {
    Keep(Arc<Cluster>),
    Change(Arc<Cluster>, Arc<BackendTls>),
    Start(Arc<BackendTls>),
}

fn told(side: &str, name: &str, reloaded: Result<bool, TlsError>) {
    match reloaded {
        Ok(false) => {}
        Ok(true) => tracing::info!(side, name, "certificates reloaded"),
        Err(error) => tracing::warn!(side, name, %error, "certificates not taken over; the old ones stay"),
    }
}
