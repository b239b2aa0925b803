//! Keeps MySQL clusters and their roles correct: observe, decide, act.
//!
//! Why beside the proxy and not in it: the proxy only ever finds out who the primary is; somebody has to make one, and of that
//! there must be exactly one, who writes down what it does before it does it. The walk of one round:
//!
//! [`place`] reads what was written down: wishes, record, members → [`observe`] asks all members at once → [`snapshot`]
//! \[pure\] puts both together → [`decide`] \[pure\] makes a plan of steps, each with its reason → [`act`] does one idempotent
//! step after the other, [`place`] writes down what must be known before the next one. [`engine`] repeats that: every second,
//! at once when a server leaves, and until nothing is left to do. It may die between any two steps.
//!
//! What fences is the data path, not a lock: semi-sync that never times out, or the group's quorum. A commit that was
//! acknowledged is on so many members that whoever is promoted has it (see [`decide`]), whatever a frozen or cut off primary
//! does meanwhile. What it refuses: to promote whom it can't prove to have everything, to choose between histories that each
//! have something of their own, to throw data away without `autoReclone`, to touch another operator's cluster (`external`).
//!
//! [`resource`]: the custom resources, from which `deploy/crds/` is generated; [`status`] turns the record into a status and
//! back, [`story`] keeps in it what has happened. [`config`]: the file of `holdfast reconcile` where the members are listed and
//! no Kubernetes is needed. [`kubernetes`]: MysqlClusters and what belongs to them; [`init`] and [`accounts`]: what their pods
//! are before the servers start.

pub mod accounts;
pub mod act;
pub mod action;
pub mod config;
pub mod death;
pub mod decide;
pub mod engine;
pub mod init;
pub mod kubernetes;
pub mod observe;
pub mod place;
pub mod resource;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod story;

use config::{File, FileError};
use engine::Engine;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Keeps the cluster of this file until SIGTERM or SIGINT.
///
/// # Errors
/// What is wrong with the file, before anything is done.
pub async fn run(file: &File) -> Result<(), FileError> {
    let engine = Engine::new(file.place()?, file.access()?);
    engine.run(told_to_stop()?).await;
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
