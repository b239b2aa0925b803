//! `holdfast proxy`: puts the rooms together, from the configuration to the last session's end.
//!
//! One control runtime (this thread) owns topology, admin port, reload and shutdown; the workers own the data path.
//! Shutdown: SIGTERM or SIGINT → not ready → stop accepting → sessions end at their next transaction boundary → at the
//! deadline the rest is cut. SIGHUP, and a change of the file, reload the configuration.

use crate::accounts::{Accounts, AccountsConfig, Credential, RsaKey, Sealer, SessionCredential};
use crate::admin::{self, AdminState, Readiness};
use crate::config::watch::{LastRead, Watch};
use crate::config::{
    AccountSource, ClientTlsMode, ClusterConfig, Config, ListenerConfig, RoleHint, Source, SslMode, watch,
};
use crate::frontend::drain;
use crate::frontend::listener::{accept, bind};
use crate::frontend::shared::{AllSessions, Cluster, Listener, Registry};
use crate::frontend::signal::Signal;
use crate::frontend::worker::{Worker, WorkerContext};
use crate::metrics;
use crate::status::{self, recorder};
use crate::telemetry::Telemetry;
use crate::tls::{self, BackendTls, ListenerTls, TlsFiles};
use crate::topology::{self, kubernetes::Hub};
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

mod pods;

/// How often certificate files are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);
/// How often the shutdown looks whether all sessions have ended.
const ENDED_EVERY: Duration = Duration::from_millis(20);

/// The parts that a reload replaces.
struct Running {
    clusters: Vec<ArcSwap<Cluster>>,
    /// What has happened to each of them.
    histories: Vec<recorder::SharedHistory>,
    listeners: Vec<Arc<ArcSwap<Listener>>>,
    sessions: Arc<AllSessions>,
    sealer: Arc<Sealer>,
    /// Watches of pods, shared by the clusters.
    hub: Hub,
}

/// Runs the proxy until it is told to stop. Must run inside a tokio runtime.
pub async fn run(path: &Path, config: Config, telemetry: Telemetry) -> Result<()> {
    let prometheus = metrics::install();
    let stop = CancellationToken::new();
    let control = CancellationToken::new();
    let context = WorkerContext {
        registry: Arc::new(Registry::default()),
        rsa: Arc::new(RsaKey::new()),
        shutdown: Signal::new(),
    };
    let running = Arc::new(Running::start(&config, &control)?);
    for cluster in &running.clusters {
        let (name, topology) = (cluster.load().name.clone(), cluster.load().topology.clone());
        tokio::spawn(drain::run(name, topology, Arc::clone(&context.registry), control.clone()));
    }
    let workers = workers(config.proxy.workers, &context)?;
    let ready = Arc::new(AtomicBool::new(true));
    let read = LastRead::first();
    if let Some(admin) = &config.admin {
        let port = bind(admin.listen).with_context(|| format!("admin port {}", admin.listen))?;
        let about = About { file: path.to_owned(), read: Arc::clone(&read), started: SystemTime::now() };
        let state = admin_state(Arc::clone(&running), Arc::clone(&ready), about, prometheus);
        tokio::spawn(admin::serve(port, state, control.clone()));
    }
    for listener in &running.listeners {
        let loaded = listener.load_full();
        let address = loaded.config.listen;
        let port = bind(address).with_context(|| format!("listener {}: {address}", loaded.config.name))?;
        tracing::info!(listener = %loaded.config.name, %address, cluster = %loaded.cluster.name, "listening");
        tokio::spawn(accept(port, Arc::clone(listener), Arc::clone(&workers), stop.clone()));
    }
    let deadline = config.proxy.shutdown_deadline;
    tokio::spawn(certificates(Arc::clone(&running), control.clone()));
    let reload = reload((path, read), config, Arc::clone(&running), telemetry, control.clone())?;
    stopped().await?;

    ready.store(false, Ordering::Relaxed);
    tracing::info!(sessions = context.registry.len(), ?deadline, "shutting down");
    stop.cancel();
    context.shutdown.cancel();
    let ended = tokio::time::timeout(deadline, all_ended(&context.registry)).await.is_ok();
    if !ended {
        tracing::warn!(sessions = context.registry.len(), "deadline: the remaining sessions are cut");
        context.registry.cut();
        let _ = tokio::time::timeout(Duration::from_secs(1), all_ended(&context.registry)).await;
    }
    control.cancel();
    reload.abort();
    tracing::info!("stopped");
    Ok(())
}

async fn all_ended(registry: &Registry) {
    while !registry.is_empty() {
        tokio::time::sleep(ENDED_EVERY).await;
    }
}

async fn stopped() -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn workers(configured: usize, context: &WorkerContext) -> Result<Arc<Vec<Worker>>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = if configured == 0 { cores } else { configured };
    let workers: Result<Vec<_>> =
        (0..count).map(|n| Worker::spawn(n, context.clone()).context("start a worker")).collect();
    Ok(Arc::new(workers?))
}

impl Running {
    fn start(config: &Config, control: &CancellationToken) -> Result<Self> {
        let sealer = Sealer::new().context("the system gives no randomness")?;
        let hub = Hub::new(control.clone());
        let (mut clusters, mut histories) = (Vec::new(), Vec::new());
        for cluster in &config.clusters {
            let tls = Arc::new(backend_tls(cluster)?);
            let handle = topology::spawn(topology_settings(cluster, &tls, &hub), control.clone());
            let cluster = Cluster::new(cluster.clone(), handle.clone(), tls);
            histories.push(recorder::spawn(handle, Arc::clone(&cluster.holds), control.clone()));
            clusters.push(Arc::new(cluster));
        }
        let sessions = Arc::new(AllSessions::new(config.proxy.max_connections));
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let cluster =
                clusters.iter().find(|c| &*c.name.0 == listener.cluster.as_str()).context("unknown cluster")?;
            let tls = Arc::new(listener_tls(listener)?);
            let accounts = Arc::new(accounts(listener, cluster, &sealer)?);
            let made = Listener::new(listener.clone(), Arc::clone(cluster), tls, accounts, Arc::clone(&sessions));
            listeners.push(Arc::new(ArcSwap::from_pointee(made)));
        }
        let clusters = clusters.into_iter().map(ArcSwap::new).collect();
        Ok(Self { clusters, histories, listeners, sessions, sealer, hub })
    }

    /// Takes over a new configuration with the same listeners and clusters. On an error nothing has changed.
    async fn apply(&self, config: &Config) -> Result<()> {
        let mut clusters = Vec::new();
        for (new, old) in config.clusters.iter().zip(&self.clusters) {
            let old = old.load_full();
            let tls = if new.tls == old.config.tls { Arc::clone(&old.tls) } else { Arc::new(backend_tls(new)?) };
            clusters.push(Arc::new(old.with_config(new.clone(), tls)));
        }
        let mut listeners = Vec::new();
        for (new, old) in config.listeners.iter().zip(&self.listeners) {
            let old = old.load_full();
            let cluster = clusters.iter().find(|c| &*c.name.0 == new.cluster.as_str()).context("unknown cluster")?;
            let tls = if new.tls == old.config.tls { Arc::clone(&old.tls) } else { Arc::new(listener_tls(new)?) };
            let same = new.account_source == old.config.account_source && new.account_file == old.config.account_file;
            let accounts =
                if same { Arc::clone(&old.accounts) } else { Arc::new(accounts(new, cluster, &self.sealer)?) };
            listeners.push(Arc::new(old.with_config(new.clone(), Arc::clone(cluster), tls, accounts)));
        }
        self.sessions.limit(config.proxy.max_connections);
        for (slot, cluster) in self.clusters.iter().zip(clusters) {
            if slot.load().config != cluster.config {
                cluster.topology.configure(topology_settings(&cluster.config, &cluster.tls, &self.hub)).await;
            }
            slot.store(cluster);
        }
        for (slot, listener) in self.listeners.iter().zip(listeners) {
            slot.store(listener);
        }
        Ok(())
    }

    fn readiness(&self, accepting: bool) -> Readiness {
        let mut reasons = Vec::new();
        if !accepting {
            reasons.push("shutting down".to_owned());
        }
        for cluster in &self.clusters {
            let cluster = cluster.load();
            let topology = cluster.topology.load();
            if topology.primary.is_none() {
                reasons.push(format!("cluster {} has no proven primary: {}", cluster.name, topology.why));
            }
        }
        let troubles = self.clusters.iter().filter_map(|cluster| cluster.load().topology.source_trouble());
        let mut notes: Vec<String> = troubles.collect();
        notes.dedup();
        Readiness { ready: reasons.is_empty(), reasons, notes }
    }

    fn topology(&self) -> serde_json::Value {
        let all = self.clusters.iter().map(|cluster| {
            let cluster = cluster.load();
            cluster.topology.to_json(&cluster.all_connections())
        });
        serde_json::json!({ "clusters": all.collect::<Vec<_>>() })
    }

    fn status(&self, accepting: bool, about: &About) -> serde_json::Value {
        let Readiness { ready, reasons, .. } = self.readiness(accepting);
        let clusters = self.clusters.iter().zip(&self.histories);
        status::to_json(&status::Sources {
            clusters: clusters.map(|(cluster, history)| (cluster.load_full(), Arc::clone(history))).collect(),
            listeners: self.listeners.iter().map(|listener| listener.load_full()).collect(),
            ready,
            reasons,
            file: about.file.clone(),
            read: about.read.load_full(),
            started: about.started,
        })
    }
}

/// What the process knows of itself.
struct About {
    file: PathBuf,
    read: Arc<ArcSwap<LastRead>>,
    started: SystemTime,
}

fn admin_state(
    running: Arc<Running>,
    ready: Arc<AtomicBool>,
    about: About,
    prometheus: metrics_exporter_prometheus::PrometheusHandle,
) -> AdminState {
    let (topology, status, accepting) = (Arc::clone(&running), Arc::clone(&running), Arc::clone(&ready));
    AdminState {
        status: Arc::new(move || status.status(accepting.load(Ordering::Relaxed), &about)),
        ready: Arc::new(move || running.readiness(ready.load(Ordering::Relaxed))),
        topology: Arc::new(move || topology.topology()),
        prometheus,
        before_scrape: Arc::new(|| {}),
    }
}

/// Watches the configuration file and SIGHUP; what is valid and needs no restart goes into effect.
fn reload(
    (path, read): (&Path, Arc<ArcSwap<LastRead>>),
    config: Config,
    running: Arc<Running>,
    telemetry: Telemetry,
    control: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>> {
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let nudge = Arc::new(tokio::sync::Notify::new());
    let (publish, mut published) = tokio::sync::watch::channel(Arc::new(config));
    let watch = Watch { path: path.to_owned(), every: Watch::EVERY, nudge: Arc::clone(&nudge), read };
    metrics::config_current(true);
    tokio::spawn(watch::run(watch, publish, control.clone()));
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                () = control.cancelled() => return,
                _ = hangup.recv() => nudge.notify_one(),
                changed = published.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let config = published.borrow_and_update().clone();
                    if let Err(error) = telemetry.change_level(&config.log.level) {
                        tracing::error!(%error, "log level not changed");
                    }
                    if let Err(error) = running.apply(&config).await {
                        tracing::error!(error = format!("{error:#}"), "configuration not taken over");
                    }
                }
            }
        }
    }))
}

/// Reads certificates again when their files change, and account files with them.
async fn certificates(running: Arc<Running>, control: CancellationToken) {
    let mut every = tokio::time::interval(CERTIFICATES_EVERY);
    loop {
        tokio::select! {
            () = control.cancelled() => return,
            _ = every.tick() => {}
        }
        let running = Arc::clone(&running);
        let _ = tokio::task::spawn_blocking(move || running.reread_files()).await;
    }
}

impl Running {
    fn reread_files(&self) {
        for cluster in &self.clusters {
            let cluster = cluster.load();
            told("cluster", &cluster.name.0, cluster.tls.reload_if_changed());
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

fn told(side: &str, name: &str, reloaded: Result<bool, tls::TlsError>) {
    match reloaded {
        Ok(false) => {}
        Ok(true) => tracing::info!(side, name, "certificates reloaded"),
        Err(error) => tracing::warn!(side, name, %error, "certificates not taken over; the old ones stay"),
    }
}

fn topology_settings(config: &ClusterConfig, tls: &Arc<BackendTls>, hub: &Hub) -> topology::TopologySettings {
    let source = match &config.source {
        Source::Static { servers } => topology::Source::Static {
            servers: servers
                .iter()
                .map(|server| topology::ServerEntry {
                    address: server.address.clone(),
                    weight: server.weight,
                    role_hint: server.role.map(|role| match role {
                        RoleHint::Primary => topology::RoleHint::Primary,
                        RoleHint::Follower => topology::RoleHint::Follower,
                    }),
                })
                .collect(),
        },
        Source::Members { seeds } => topology::Source::Members { seeds: seeds.clone(), weight: 1 },
        Source::Kubernetes(_) => topology::Source::Pods,
    };
    topology::TopologySettings {
        cluster: config.name.as_str().into(),
        source,
        pods: pods::feed(hub, config),
        account: topology::Account { user: config.account.user.as_str().into(), credential: password(config) },
        tls: Arc::clone(tls),
        probe: topology::ProbeSettings {
            interval: config.probe_interval,
            doubt_interval: config.probe_doubt_interval,
            timeout: config.probe_timeout,
            ..topology::ProbeSettings::default()
        },
        limits: topology::Limits {
            drain_ms: config.drain_deadline.as_millis() as u64,
            accept_lost_ms: config.accept_lost_writes_after.map(|after| after.as_millis() as u64),
            answer_ms_max: (2 * (config.probe_interval + config.probe_timeout)).as_millis() as u64,
            ..topology::Limits::default()
        },
    }
}

fn password(config: &ClusterConfig) -> Credential {
    Credential::password(Zeroizing::new(config.account.password.expose().as_bytes().to_vec()))
}

fn accounts(listener: &ListenerConfig, cluster: &Arc<Cluster>, sealer: &Arc<Sealer>) -> Result<Accounts> {
    let has = |source| listener.account_source.contains(&source);
    let config = AccountsConfig {
        pass_through: has(AccountSource::PassThrough),
        server: has(AccountSource::Server),
        file: listener.account_file.clone(),
        lifetime: cluster.config.account_ttl,
        entries_max: cluster.config.accounts_max,
        ..AccountsConfig::default()
    };
    let service = SessionCredential::seal(sealer, &password(&cluster.config)).context("seal the service account")?;
    let of = Arc::clone(cluster);
    let ask = Box::new(move || {
        let (_, primary) = of.proven_primary();
        Some((of.target(&primary?.address, true), of.config.account.user.as_bytes().to_vec(), service.clone()))
    });
    Accounts::open(config, Arc::clone(sealer), Some(ask)).context("account sources")
}

fn backend_tls(config: &ClusterConfig) -> Result<BackendTls> {
    let mode = match config.tls.mode {
        SslMode::Disabled => tls::SslMode::Disabled,
        SslMode::Preferred => tls::SslMode::Preferred,
        SslMode::Required => tls::SslMode::Required,
        SslMode::VerifyCa => tls::SslMode::VerifyCa,
        SslMode::VerifyIdentity => tls::SslMode::VerifyIdentity,
    };
    let files = TlsFiles { cert: config.tls.cert.clone(), key: config.tls.key.clone(), ca: config.tls.ca.clone() };
    BackendTls::backend(mode, files).with_context(|| format!("cluster {}: TLS", config.name))
}

fn listener_tls(config: &ListenerConfig) -> Result<ListenerTls> {
    let mode = match config.tls.mode {
        ClientTlsMode::Disabled => tls::SslMode::Disabled,
        ClientTlsMode::Preferred => tls::SslMode::Preferred,
        ClientTlsMode::Required => tls::SslMode::Required,
        ClientTlsMode::VerifyCa => tls::SslMode::VerifyCa,
        ClientTlsMode::VerifyIdentity => tls::SslMode::VerifyIdentity,
    };
    let files =
        TlsFiles { cert: config.tls.cert.clone(), key: config.tls.key.clone(), ca: config.tls.client_ca.clone() };
    ListenerTls::listener(mode, files).with_context(|| format!("listener {}: TLS", config.name))
}
