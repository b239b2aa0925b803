//! The reconciler in Kubernetes: every MysqlCluster of its namespaces is kept, by one reconciler at a time.
//!
//! ```text
//!             Lease taken              a MysqlCluster appears
//! candidate ─────────────▶ leader ─────────────────────────────▶ accounts ──▶ objects ──▶ kept: the engine keeps its roles,
//!     ▲                      │                                                            upkeep its objects and operations
//!     └──────────────────────┘                                                                         │
//!       not renewed for 7 s: all of it ends, roles stay as they are          it is deleted: its loops end, Kubernetes
//!                                                                            collects what it owned
//! ```
//!
//! Two loops per cluster. The engine ([`crate::reconciler::engine`]) has the servers and the status for itself, and decides as
//! it does without Kubernetes; its `place` is where it reads and writes. Upkeep never touches a server or the status: it
//! applies [`objects`], and when it needs the primary elsewhere (a pod must go) it says so on the pod, and waits. An external
//! cluster has the same loops, and pods from a watch of its own (`members`); nothing is planned for it, nothing applied.
//!
//! While the API server is away nothing can be claimed, so roles freeze.

mod cache;
pub mod conf;
pub mod lease;
mod led;
mod members;
pub mod objects;
mod operations;
mod page;
mod place;
mod progress;
mod rollout;
mod tell;
mod upkeep;
mod volumes;

use super::engine::Engine;
use super::external::External;
use super::resource::{MysqlCluster, MysqlOperation, TopologyKind};
use super::{admin_port, server};
use crate::admin::suspect::Listener;
use crate::metrics;
use crate::topology::kubernetes::client::{Access, Trouble, TroubleKind};
use crate::topology::kubernetes::pod::Pod;
use cache::{Bells, Cache, follow};
use kube::Client;
use kube::api::{Api, ApiResource, Resource, ResourceExt};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use lease::{Candidate, GIVE_UP, RENEW as RENEWAL};
use led::Led;
use members::Members;
use place::InKubernetes;
use progress::AllProgress;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The label with a pod's role.
pub const ROLE: &str = "holdfast.io/role";
/// On a pod whose primary must move away, because the pod is about to go.
const LEAVING: &str = "holdfast.io/leaving";
/// On a pod whose data are being replaced: it needs a new identity afterwards.
const RENEW: &str = "holdfast.io/renew";
/// Between two looks at the objects of a cluster.
const UPKEEP: Duration = Duration::from_secs(5);
/// Between two looks at the Secret of another operator's account.
const ROTATION: Duration = Duration::from_secs(10);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// Events that wait to be sent; more are dropped.
const EVENTS_MAX: usize = 64;

/// What it is told on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which API server.
    pub access: Access,
    /// Whose MysqlClusters; none: its own namespace's.
    pub namespaces: Vec<String>,
    /// The image that initialises members: this program's.
    pub image: String,
    /// Its name on the Lease: its pod's.
    pub identity: String,
    /// Where its admin port listens, if it has one.
    pub listen: Option<SocketAddr>,
}

/// What the loops of one namespace share.
pub struct Shared {
    client: Client,
    namespace: String,
    image: String,
    clusters: Cache<MysqlCluster>,
    /// Of those that are Holdfast's own.
    pods: Arc<Cache<Pod>>,
    operations: Cache<MysqlOperation>,
    bells: Bells,
    /// Rung by proxies.
    suspicions: Bells,
    progress: AllProgress,
    news: Notify,
    events: mpsc::Sender<(String, Event)>,
}

impl Shared {
    /// Pods as far as they matter here.
    fn pods_api(&self) -> Api<Pod> {
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Tells a person of something, beside the object; it is lost where too much is told. What has the same reason and action
    /// as before is only counted.
    fn event(&self, cluster: &str, type_: EventType, (reason, action): (&str, &str), note: String) {
        let (reason, action) = (reason.to_owned(), action.to_owned());
        let event = Event { type_, reason, note: Some(note), action, secondary: None };
        drop(self.events.try_send((cluster.to_owned(), event)));
    }
}

/// Keeps the clusters until told to stop.
///
/// # Errors
/// There is no way to the API server.
pub async fn run(options: &Options, stop: CancellationToken) -> Result<(), Trouble> {
    let led = Arc::new(Led::default());
    if let Some(listen) = options.listen {
        let (listening, shown, started) = (led.clone(), led.clone(), SystemTime::now());
        let hear: Listener = Arc::new(move |suspicion| listening.hear(suspicion));
        let status = Arc::new(move || page::to_json(shown.clusters().as_deref(), started));
        let opened = admin_port(listen, hear, status, stop.clone()).await;
        let kind = TroubleKind::Configuration;
        opened.map_err(|error| Trouble { kind, text: format!("admin port {listen}: {error}") })?;
    }
    let (client, home) = options.access.open().await?;
    let mut candidate = Candidate::new(Api::namespaced(client.clone(), &home), options.identity.clone());
    let namespaces = if options.namespaces.is_empty() { vec![home] } else { options.namespaces.clone() };
    let mut has_led = false;
    while !stop.is_cancelled() {
        if let Some(()) = stop.run_until_cancelled(taken(&mut candidate)).await {
            tracing::info!(identity = options.identity, "leads");
            has_led = true;
            metrics::reconciler::leads(true);
            let leading = stop.child_token();
            let shared = (&client, options, &*led);
            let work = join(namespaces.iter().map(|namespace| keep_namespace(shared, namespace, leading.clone())));
            tokio::join!(work, renewed(&mut candidate, leading.clone()));
            metrics::reconciler::leads(false);
            tracing::info!("leads no more");
        }
    }
    if has_led {
        drop(tokio::time::timeout(RENEWAL, candidate.release()).await);
    }
    Ok(())
}

async fn join(all: impl Iterator<Item = impl Future<Output = ()>>) {
    futures_util::future::join_all(all).await;
}

/// Ends when the Lease is ours.
async fn taken(candidate: &mut Candidate) {
    loop {
        match tokio::time::timeout(RENEWAL, candidate.try_hold()).await {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the Lease can't be taken"),
            Err(_) => tracing::warn!("the Lease can't be taken: the API server does not answer"),
        }
        tokio::time::sleep(RENEWAL).await;
    }
}

/// Renews it; cancels the work when that fails for too long.
async fn renewed(candidate: &mut Candidate, leading: CancellationToken) {
    let _end: DropGuard = leading.clone().drop_guard();
    let mut last = Instant::now();
    while leading.run_until_cancelled(tokio::time::sleep(RENEWAL)).await.is_some() {
        match tokio::time::timeout(RENEWAL, candidate.try_hold()).await {
            Ok(Ok(true)) => last = Instant::now(),
            Ok(Ok(false)) => return tracing::warn!("another holds the Lease"),
            Ok(Err(_)) | Err(_) if last.elapsed() + RENEWAL < GIVE_UP => {}
            Ok(Err(_)) | Err(_) => return tracing::warn!("the Lease could not be renewed: roles stay as they are"),
        }
    }
}

/// Watches one namespace and keeps a pair of loops for each of its MysqlClusters.
async fn keep_namespace(
    (client, options, led): (&Client, &Options, &Led),
    namespace: &str,
    leading: CancellationToken,
) {
    let (events, told) = mpsc::channel(EVENTS_MAX);
    let shared = Arc::new(Shared {
        client: client.clone(),
        namespace: namespace.to_owned(),
        image: options.image.clone(),
        clusters: Cache::default(),
        pods: Arc::default(),
        operations: Cache::default(),
        bells: Bells::default(),
        suspicions: Bells::default(),
        progress: AllProgress::default(),
        news: Notify::new(),
        events,
    });
    led.add(&shared);
    let mut watches = JoinSet::new();
    let (own, pods, asked) = (shared.clone(), shared.clone(), shared.clone());
    watches.spawn(async move {
        let api: Api<MysqlCluster> = Api::namespaced(own.client.clone(), &own.namespace);
        follow(api, "", &own.clusters, |cluster: &MysqlCluster| Some(cluster.name_any()), (&own.bells, &own.news))
            .await;
    });
    watches.spawn(async move {
        let concerns = |pod: &Pod| pod.metadata.labels.as_ref()?.get(objects::CLUSTER).cloned();
        follow(pods.pods_api(), objects::CLUSTER, &pods.pods, concerns, (&pods.bells, &pods.news)).await;
    });
    watches.spawn(async move {
        let api: Api<MysqlOperation> = Api::namespaced(asked.client.clone(), &asked.namespace);
        let concerns = |op: &MysqlOperation| Some(op.spec.cluster.clone());
        follow(api, "", &asked.operations, concerns, (&asked.bells, &asked.news)).await;
    });
    watches.spawn(tell_events(shared.clone(), told));
    let mut kept: HashMap<String, Kept> = HashMap::new();
    while leading.run_until_cancelled(shared.news.notified()).await.is_some() {
        // A cluster whose pods are not known yet looks as if it had none.
        if !(shared.pods.is_listed() && shared.operations.is_listed()) {
            continue;
        }
        let there = shared.clusters.all(|cluster| cluster.metadata.deletion_timestamp.is_none());
        let names: Vec<String> = there.iter().map(|cluster| cluster.name_any()).collect();
        // One whose loops have ended, for whatever reason, gets new ones; so does one that has other pods now.
        let is_kept = |name: &str, external: &Option<External>| {
            there.iter().any(|cluster| cluster.name_any() == name && cluster.spec.external == *external)
        };
        kept.retain(|name, kept| is_kept(name, &kept.external) && !kept.work.is_finished());
        shared.bells.keep_only(&names);
        shared.suspicions.keep_only(&names);
        shared.progress.keep_only(&names);
        for cluster in there {
            kept.entry(cluster.name_any()).or_insert_with(|| Kept::start(&shared, cluster));
        }
    }
    for (_, kept) in kept {
        kept.end().await;
    }
}

/// The loops of one cluster; they end when this is dropped.
struct Kept {
    stop: CancellationToken,
    work: tokio::task::JoinHandle<()>,
    /// Whose pods it began with.
    external: Option<External>,
}

impl Kept {
    fn start(shared: &Arc<Shared>, cluster: Arc<MysqlCluster>) -> Self {
        let stop = CancellationToken::new();
        let external = cluster.spec.external.clone();
        let work = tokio::spawn(keep(shared.clone(), cluster, stop.clone()));
        Self { stop, work, external }
    }

    async fn end(mut self) {
        self.stop.cancel();
        drop((&mut self.work).await);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One cluster: accounts, then objects and roles side by side.
async fn keep(shared: Arc<Shared>, cluster: Arc<MysqlCluster>, stop: CancellationToken) {
    let name = cluster.name_any();
    let members = Members::of(&shared, &cluster);
    let work = async {
        let Some(Some(access)) = stop.run_until_cancelled(accounts(&shared, &name)).await else { return };
        if stop.run_until_cancelled(members.known()).await.is_none() {
            return;
        }
        let engine = Engine::new(InKubernetes::new(shared.clone(), &name, members.clone()), access);
        tokio::join!(engine.run(stop.clone()), stop.run_until_cancelled(keep_objects(&shared, &name)));
    };
    tokio::select! {
        () = work => {}
        () = members.watch(&shared) => {}
        () = rotated(&shared, &cluster) => {}
    }
    // If it is still to be kept, it gets new loops.
    shared.news.notify_one();
}

/// Ends when the Secret of another operator's account has changed: what is asked then must log in anew.
async fn rotated(shared: &Shared, cluster: &MysqlCluster) {
    if cluster.spec.topology != TopologyKind::External {
        return std::future::pending().await;
    }
    let mut first = None;
    loop {
        if let Ok(version) = upkeep::account_version(shared, cluster).await
            && *first.get_or_insert_with(|| version.clone()) != version
        {
            return tracing::info!(cluster = cluster.name_any(), "its account has changed");
        }
        tokio::time::sleep(ROTATION).await;
    }
}

/// The accounts, as soon as they are there; `None` once there is no such cluster.
async fn accounts(shared: &Shared, name: &str) -> Option<server::Access> {
    loop {
        let cluster = shared.clusters.find(name)?;
        match upkeep::accounts(shared, &cluster).await {
            Ok(access) => return Some(access),
            Err(error) => tracing::warn!(cluster = name, %error, "its accounts"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn keep_objects(shared: &Arc<Shared>, name: &str) {
    let mut bell = shared.bells.of(name);
    let mut upkeep = upkeep::Upkeep::new(shared.clone(), name);
    let mut trouble = String::new();
    while let Some(cluster) = shared.clusters.find(name) {
        let done = upkeep.round(&cluster).await;
        let new = done.as_ref().err().map(ToString::to_string).unwrap_or_default();
        if !new.is_empty() && new != trouble {
            tracing::warn!(cluster = name, error = new, "its objects");
            shared.event(name, EventType::Warning, ("UpkeepFailed", "Apply"), new.clone());
        }
        trouble = new;
        // Its own changes ring, too.
        tokio::time::sleep(AGAIN).await;
        if done.is_ok() {
            drop(tokio::time::timeout(UPKEEP, bell.changed()).await);
        }
    }
}

async fn tell_events(shared: Arc<Shared>, mut told: mpsc::Receiver<(String, Event)>) {
    let recorder = Recorder::new(shared.client.clone(), Reporter { controller: "holdfast".to_owned(), instance: None });
    while let Some((name, event)) = told.recv().await {
        let Some(cluster) = shared.clusters.find(&name) else { continue };
        if let Err(error) = recorder.publish(&event, &cluster.object_ref(&())).await {
            tracing::warn!(cluster = name, %error, "an Event could not be written");
        }
    }
}
