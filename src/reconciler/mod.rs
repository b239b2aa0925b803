//! Keeps MySQL clusters and their roles correct: observe, decide, act.
//!
//! Why beside the proxy and not in it: the proxy only ever finds out who the primary is; somebody has to make one, and of that
//! there must be exactly one, who writes down what it does before it does it. The walk of one round:
//!
//! [`place`] reads what was written down: wishes, record, members → [`observe`] asks all members at once → [`snapshot`]
//! \[pure\] puts both together → [`decide`] \[pure\] makes a plan of steps, each with its reason → [`act`] does one idempotent
//! step after the other, [`place`] writes down what must be known before the next one. [`engine`] repeats that: every second,
//! at once when a server leaves or a proxy says that the primary looks lost, and until nothing is left to do. It may die between
//! any two steps.
//!
//! What fences is the data path, not a lock: semi-sync that never times out, or the group's quorum. A commit that was
//! acknowledged is on so many members that whoever is promoted has it (see [`decide`]), whatever a frozen or cut off primary
//! does meanwhile. What it refuses: to promote whom it can't prove to have everything, to choose between histories that each
//! have something of their own, to throw data away without `autoReclone`, to touch another operator's cluster (`external`).
//!
//! [`resource`], [`external`]: the custom resources, from which `deploy/crds/` is generated; [`status`] turns the record
//! into a status and back, [`story`] keeps in it what has happened. [`config`]: the file of `holdfast reconcile` where the members are listed and
//! no Kubernetes is needed. [`kubernetes`]: MysqlClusters and what belongs to them; [`init`] and [`accounts`]: what their pods
//! are before the servers start.

pub mod accounts;
pub mod act;
pub mod action;
pub mod config;
pub mod death;
pub mod decide;
pub mod engine;
pub mod external;
pub mod init;
pub mod kubernetes;
pub mod observe;
pub mod place;
pub mod resource;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod story;

use crate::admin::suspect::{Heard, Listener};
use crate::{admin, metrics};
use config::{File, FileError};
use engine::Engine;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Keeps the cluster of this file until SIGTERM or SIGINT.
///
/// # Errors
/// What is wrong with the file, before anything is done.
pub async fn run(file: &File) -> Result<(), FileError> {
    let (place, access) = (file.place()?, file.access()?);
    let (stop, suspicions) = (told_to_stop()?, watch::Sender::new(()));
    let hearing = suspicions.subscribe();
    if let Some(listen) = file.listen() {
        // There is one cluster, whatever the proxy calls it.
        let hear: Listener = Arc::new(move |_| {
            suspicions.send_replace(());
            metrics::reconciler::nudged(Heard::Yes.as_str());
            Heard::Yes
        });
        // What it knows of the cluster is in the record.
        let status = Arc::new(|| json!({ "see": "the record" }));
        admin_port(listen, hear, status, stop.clone())
            .await
            .map_err(|error| FileError::Wrong(format!("admin port {listen}: {error}")))?;
    }
    Engine::new(place.hearing(hearing), access).run(stop).await;
    Ok(())
}

/// Serves the admin port until told to stop. It is ready as soon as it runs, whoever leads.
async fn admin_port(
    listen: SocketAddr,
    hear: Listener,
    status: Arc<dyn Fn() -> Value + Send + Sync>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let state = admin::AdminState {
        ready: Arc::new(|| admin::Readiness { ready: true, reasons: Vec::new(), notes: Vec::new() }),
        topology: Arc::new(|| json!({ "see": "/status.json" })),
        status,
        prometheus: metrics::install(),
        before_scrape: Arc::new(|| {}),
        suspect: Some(hear),
    };
    tokio::spawn(admin::serve(listener, state, stop));
    Ok(())
}

/// Cancelled by SIGTERM and SIGINT.
///
/// # Errors
/// Signals can't be listened to.
pub fn told_to_stop() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        told.cancel();
    });
    Ok(stop)
}
