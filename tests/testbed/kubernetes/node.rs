//! A node: takes pods from the API and runs them, as scheduler and kubelet would.
//!
//! Pods bound to the node's name are its own; pods that nobody bound are bound first, if the node is to schedule. What a pod
//! runs is decided by the test's [`Runner`], not by its image.

use super::disks::Disks;
use super::network::Network;
use super::pod::{Orders, Report, RunningPod, work};
use super::program::Runner;
use super::{ControlPlane, Runtime};
use crate::testbed::{Testbed, until};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// No request of a node takes longer: the API server may be frozen.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the node is to be.
pub struct NodeOptions {
    pub name: String,
    /// Binds pods that have no node.
    pub schedules: bool,
    pub probe_period: Duration,
    /// Size of each claim's file system, MiB; none: as much as there is.
    pub disk_mib: Option<u64>,
    pub run: Runner,
}

impl NodeOptions {
    /// A node `node` that takes every pod and probes it four times a second.
    pub fn running(run: Runner) -> NodeOptions {
        NodeOptions {
            name: "node".to_owned(),
            schedules: true,
            probe_period: Duration::from_millis(250),
            disk_mib: None,
            run,
        }
    }
}

/// A running node; its pods are killed when it is dropped, and stay in the API as they were.
pub struct Node {
    shared: Arc<Shared>,
    // dropped after the pods have ended
    runtime: Runtime,
}

struct Shared {
    options: NodeOptions,
    client: kube::Client,
    handle: tokio::runtime::Handle,
    network: Network,
    disks: Arc<Disks>,
    pods: Mutex<HashMap<String, Held>>,
    /// No pod is started any more.
    ended: AtomicBool,
}

struct Held {
    pod: Arc<RunningPod>,
    worker: JoinHandle<()>,
}

impl Node {
    /// Starts a node. Panics if pods can have no network here, see [`Network::possible`].
    pub fn start(plane: &ControlPlane, options: NodeOptions) -> Node {
        let runtime = Runtime::start();
        let client = runtime.client(&plane.admin());
        let disks = Arc::new(Disks::new(Testbed::get().new_folder("claims"), options.disk_mib));
        let shared = Arc::new(Shared {
            options,
            client,
            handle: runtime.handle.clone(),
            network: Network::start(),
            disks,
            pods: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        runtime.handle.spawn(watch_own(Arc::clone(&shared)));
        if shared.options.schedules {
            runtime.handle.spawn(schedule(Arc::clone(&shared)));
        }
        Node { shared, runtime }
    }

    /// The disks of its claims.
    pub fn disks(&self) -> &Disks {
        &self.shared.disks
    }

    /// The pod, if it runs here now.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<RunningPod>> {
        let key = format!("{namespace}/{name}");
        let pods = self.shared.pods.lock().expect("no panic while it is held");
        pods.values().find(|h| h.pod.key() == key && !h.worker.is_finished()).map(|h| Arc::clone(&h.pod))
    }

    /// The pod; waits until it runs here. After a recreation under the same name this is another one.
    pub fn pod(&self, namespace: &str, name: &str) -> Arc<RunningPod> {
        let mut found = None;
        until(&format!("pod {name} runs"), Duration::from_secs(60), || {
            found = self.find(namespace, name).filter(|pod| pod.pid().is_some());
            found.is_some()
        });
        found.expect("just found")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let pods: Vec<Held> = {
            let mut pods = self.shared.pods.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.shared.ended.store(true, Ordering::SeqCst);
            pods.drain().map(|(_, held)| held).collect()
        };
        pods.iter().for_each(|held| held.pod.order(Orders::Kill));
        for held in pods {
            let _ = held.worker.join();
        }
    }
}

/// Binds what nobody has bound.
async fn schedule(shared: Arc<Shared>) {
    let all: Api<Pod> = Api::all(shared.client.clone());
    let mut events = Box::pin(watcher::watcher(all, watcher::Config::default().fields("spec.nodeName=")));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => shared.bind(&pod).await,
            Ok(_) => {}
            // the API server is away: the watcher lists anew
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Starts what is bound here, and ends what is deleted.
async fn watch_own(shared: Arc<Shared>) {
    let all: Api<Pod> = Api::all(shared.client.clone());
    let own = format!("spec.nodeName={}", shared.options.name);
    let mut events = Box::pin(watcher::watcher(all, watcher::Config::default().fields(&own)));
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.extend(pod.metadata.uid.clone());
                shared.take(pod);
            }
            Ok(Event::InitDone) => shared.keep_only(&listed),
            Ok(Event::Apply(pod)) => shared.take(pod),
            Ok(Event::Delete(pod)) => shared.gone(pod.metadata.uid.as_deref().unwrap_or_default()),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

impl Shared {
    async fn bind(&self, pod: &Pod) {
        let (Some(namespace), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name) else { return };
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.options.name},
        });
        let body = serde_json::to_vec(&binding).expect("JSON");
        let request = hyper::Request::post(path).header("content-type", "application/json").body(body);
        // refused if somebody else was first or the pod is gone: either way nothing is left to do
        let _ = tokio::time::timeout(PATIENCE, self.client.request::<Value>(request.expect("a request"))).await;
    }

    fn take(self: &Arc<Self>, object: Pod) {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let mut pods = self.pods.lock().expect("no panic while it is held");
        if self.ended.load(Ordering::SeqCst) {
            return;
        }
        pods.retain(|other, held| *other == uid || !held.worker.is_finished());
        let deleting = object.metadata.deletion_timestamp.is_some();
        let held = pods.entry(uid).or_insert_with(|| self.hold(object.clone()));
        if deleting {
            let grace_s = object.metadata.deletion_grace_period_seconds.and_then(|s| u64::try_from(s).ok());
            held.pod.order(Orders::Terminate { grace: Duration::from_secs(grace_s.unwrap_or(30)) });
        }
    }

    fn hold(self: &Arc<Self>, object: Pod) -> Held {
        let name = object.metadata.name.clone().unwrap_or_default();
        let pod = Arc::new(RunningPod::new(&object, self.network.place(&name), Arc::clone(&self.disks)));
        let (shared, own) = (Arc::clone(self), Arc::clone(&pod));
        let run = move || work(&own, &object, &shared.options.run, shared.options.probe_period, &*shared);
        let worker = std::thread::Builder::new().name(name).spawn(run).expect("a thread");
        Held { pod, worker }
    }

    fn gone(&self, uid: &str) {
        let mut pods = self.pods.lock().expect("no panic while it is held");
        if let Some(held) = pods.remove(uid) {
            held.pod.order(Orders::Kill);
        }
    }

    fn keep_only(&self, listed: &HashSet<String>) {
        let mut pods = self.pods.lock().expect("no panic while it is held");
        for (_, held) in pods.extract_if(|uid, _| !listed.contains(uid)) {
            held.pod.order(Orders::Kill);
        }
    }

    /// Waits for a request of a worker thread, for as long as one may take.
    fn wait<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Option<Result<T, kube::Error>> {
        self.handle.block_on(async { tokio::time::timeout(PATIENCE, request).await }).ok()
    }

    fn api(&self, pod: &RunningPod) -> (Api<Pod>, String) {
        let (namespace, name) = pod.key().split_once('/').expect("a key has both");
        (Api::namespaced(self.client.clone(), namespace), name.to_owned())
    }
}

impl Report for Shared {
    fn status(&self, pod: &RunningPod, status: &Value) -> bool {
        let (api, name) = self.api(pod);
        // a pod of the same name may have followed
        let mut patch = status.clone();
        patch["metadata"] = json!({"uid": pod.uid()});
        match self.wait(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))) {
            Some(Err(kube::Error::Api(refusal))) => [404, 409, 422].contains(&refusal.code),
            Some(Ok(_)) => true,
            _ => false,
        }
    }

    fn remove(&self, pod: &RunningPod) -> bool {
        let (api, name) = self.api(pod);
        let own = Preconditions { uid: Some(pod.uid().to_owned()), resource_version: None };
        let how = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(own), ..DeleteParams::default() };
        match self.wait(api.delete(&name, &how)) {
            Some(Err(kube::Error::Api(refusal))) => [404, 409].contains(&refusal.code),
            Some(Ok(_)) => true,
            _ => false,
        }
    }
}
