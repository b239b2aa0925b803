//! `holdfast proxy`: puts the rooms together, from the configuration to the last session's end.
//!
//! One control runtime (this thread) owns topology, admin port, reload, discovery and shutdown; the workers own the data
//! path. `running` is what a reload replaces, `discovery` which clusters there should be, `build` turns the configuration's
//! words into the rooms' own. Shutdown: see [`crate::frontend::shutdown`]. SIGHUP, and a change of the file, reload the
//! configuration.

mod build;
pub mod connect_check;
mod discovery;
mod pods;
mod running;
#[cfg(test)]
mod tests;

use crate::accounts::RsaKey;
use crate::admin::{self, AdminState};
use crate::config::watch::{LastRead, Watch};
use crate::config::{Config, ShutdownTimes, watch};
use crate::frontend::listener::{accept, bind};
use crate::frontend::shared::Registry;
use crate::frontend::shutdown::Shutdown;
use crate::frontend::worker::{Worker, WorkerContext};
use crate::metrics;
use crate::telemetry::Telemetry;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use running::{About, Running};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// How often certificate files are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);
/// How often the shutdown looks whether all sessions have ended.
const ENDED_EVERY: Duration = Duration::from_millis(20);

/// Runs the proxy until it is told to stop. Must run inside a tokio runtime.
pub async fn run(path: &Path, config: Config, telemetry: Telemetry) -> Result<()> {
    let prometheus = metrics::install();
    let stop = CancellationToken::new();
    let control = CancellationToken::new();
    let context = WorkerContext {
        registry: Arc::new(Registry::default()),
        rsa: Arc::new(RsaKey::new()),
        shutdown: Shutdown::default(),
    };
    let running = Arc::new(Running::start(&config, &context.registry, &control).await?);
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
        let routes = &loaded.config.routes;
        let (cluster, route) = (routes.default.as_deref().unwrap_or_default(), &routes.by);
        tracing::info!(listener = %loaded.config.name, %address, cluster, ?route, "listening");
        tokio::spawn(accept(port, Arc::clone(listener), Arc::clone(&workers), stop.clone()));
    }
    tokio::spawn(certificates(Arc::clone(&running), control.clone()));
    let reloading = reload((path, read), config, Arc::clone(&running), telemetry, control.clone());
    let (in_effect, reload) = reloading?;
    let mut stop_signals = StopSignals::new()?;
    stop_signals.next().await;

    let began = Instant::now();
    ready.store(false, Ordering::Relaxed);
    let times = in_effect.borrow().proxy.shutdown;
    tracing::info!(sessions = context.registry.len(), ?times, "shutting down");
    tokio::select! {
        () = shut_down(&context, times, began, &stop) => {}
        () = stop_signals.next() => tracing::warn!(sessions = context.registry.len(), "told again: not waiting"),
    }
    stop.cancel();
    context.registry.cut();
    let _ = tokio::time::timeout(Duration::from_secs(1), all_ended(&context.registry)).await;
    control.cancel();
    reload.abort();
    tracing::info!("stopped");
    Ok(())
}

/// From the signal until all sessions have ended or the last deadline is over.
async fn shut_down(context: &WorkerContext, times: ShutdownTimes, began: Instant, stop: &CancellationToken) {
    sleep(times.grace).await;
    tracing::info!(sessions = context.registry.len(), "no more clients are accepted");
    stop.cancel();
    context.shutdown.close(times.idle);
    let ended = all_ended(&context.registry);
    tokio::pin!(ended);
    let deadline = began + times.deadline;
    if timeout_at(deadline, &mut ended).await.is_ok() {
        return;
    }
    tracing::info!(sessions = context.registry.len(), "deadline: sessions end at their next transaction boundary");
    context.shutdown.ending.cancel();
    if timeout_at(deadline + times.transactions, &mut ended).await.is_err() {
        tracing::warn!(sessions = context.registry.len(), "deadline: the remaining sessions are cut");
    }
}

async fn all_ended(registry: &Registry) {
    // A client that was accepted a moment ago is on its way to a worker.
    sleep(ENDED_EVERY).await;
    while !registry.is_empty() {
        sleep(ENDED_EVERY).await;
    }
}

/// SIGTERM and SIGINT.
struct StopSignals(Signal, Signal);

impl StopSignals {
    fn new() -> Result<Self> {
        let of = |kind, name| signal(kind).context(name);
        Ok(Self(of(SignalKind::terminate(), "SIGTERM")?, of(SignalKind::interrupt(), "SIGINT")?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

fn workers(configured: usize, context: &WorkerContext) -> Result<Arc<Vec<Worker>>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = if configured == 0 { cores } else { configured };
    let workers: Result<Vec<_>> =
        (0..count).map(|n| Worker::spawn(n, count, context.clone()).context("start a worker")).collect();
    Ok(Arc::new(workers?))
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
        suspect: None,
    }
}

/// Watches the configuration file, SIGHUP and what is discovered; what is valid and needs no restart goes into effect. The
/// first answer is the configuration that is in effect.
fn reload(
    (path, read): (&Path, Arc<ArcSwap<LastRead>>),
    config: Config,
    running: Arc<Running>,
    telemetry: Telemetry,
    control: CancellationToken,
) -> Result<(tokio::sync::watch::Receiver<Arc<Config>>, tokio::task::JoinHandle<()>)> {
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let nudge = Arc::new(Notify::new());
    let mut discovered = discovery::start(&config.discoveries, &running.hub, &control);
    let (publish, mut published) = tokio::sync::watch::channel(Arc::new(config));
    let in_effect = published.clone();
    let watch = Watch { path: path.to_owned(), every: Watch::EVERY, nudge: Arc::clone(&nudge), read };
    metrics::config_current(true);
    tokio::spawn(watch::run(watch, publish, control.clone()));
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                () = control.cancelled() => return,
                _ = hangup.recv() => {
                    nudge.notify_one();
                    continue;
                }
                changed = published.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = discovered.changed() => {}
            }
            let config = published.borrow_and_update().clone();
            if let Err(error) = telemetry.change_level(&config.log.level) {
                tracing::error!(%error, "log level not changed");
            }
            if let Err(error) = running.apply(&config, &discovered.found()).await {
                tracing::error!(error = format!("{error:#}"), "configuration not taken over");
            }
        }
    });
    Ok((in_effect, task))
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
