//! What watching costs: 5,000 pods in 200 clusters on a real API server. Figures, not limits: nothing here fails for being
//! slow. `cargo test --test kubernetes_scale -- --ignored --nocapture`
//!
//! All pods but one are facts only (no address, so nobody asks them anything): measured are the watch and the clusters'
//! writers, not the probes. The one is in front of a real server, and its label is moved to see how soon that is known.
#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod proxy;
mod testbed;

use futures_util::{StreamExt, stream};
use holdfast::accounts::Credential;
use holdfast::tls::BackendTls;
use holdfast::topology::kubernetes::{Access, Hub, Label, Preset, Query, WatchKey};
use holdfast::topology::{Account, Limits, ProbeSettings, Source, TopologySettings, spawn};
use kube::api::{Api, Patch, PatchParams, PostParams};
use proxy::{Options, Proxy};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testbed::kubernetes::ControlPlane;
use testbed::{Server, ServerOptions, until};
use tokio_util::sync::CancellationToken;

const CLUSTERS: usize = 200;
const PODS_EACH: usize = 25;
const PATCHES: usize = 300;
const UPDATES: usize = 1000;
const AT_ONCE: usize = 16;
const NAMESPACE: &str = "scale";
/// Creating all of them takes a while.
const LONG: Duration = Duration::from_secs(300);
const REST: Duration = Duration::from_secs(10);
const ROLE: &str = "holdfast.io/role";

type Pods = Api<k8s_openapi::api::core::v1::Pod>;

/// A pod as large as an operator's, with its annotations.
fn pod(cluster: usize, ordinal: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("db{cluster}-{ordinal}"),
            "labels": { "holdfast.io/cluster": format!("db{cluster}"), ROLE: "follower" },
            "annotations": { "example.com/padding": "x".repeat(4096) },
        },
        "spec": { "containers": [{ "name": "mysql", "image": "mysql" }] },
    })
}

async fn create_all(pods: Pods) {
    let all = (0..CLUSTERS).flat_map(|cluster| (0..PODS_EACH).map(move |ordinal| pod(cluster, ordinal)));
    let create = |object: Value| {
        let pods = pods.clone();
        async move { pods.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.map(drop) }
    };
    stream::iter(all.map(create)).buffer_unordered(AT_ONCE).for_each(async |made| made.unwrap()).await;
}

async fn relabel(pods: &Pods, name: &str, role: &str) {
    let patch = json!({ "metadata": { "labels": { ROLE: role } } });
    pods.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// Discovers the clusters of the namespace.
fn discovering(main: &Server, plane: &ControlPlane, namespace: &str) -> Proxy {
    let mut options = Options::servers([main.addr()]).route("route = [\"user\"]");
    let file = plane.kubeconfig();
    options.more = format!(
        "[[discovery]]\nname = \"all\"\npreset = \"holdfast\"\nkubeconfig = \"{}\"\nnamespace = \"{namespace}\"\n\
         account = {{ user = \"holdfast\", password = \"holdfast\" }}\n",
        file.display()
    );
    Proxy::launch(options)
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    eprintln!("{what}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms ({})", at(0.5), at(0.99), at(1.0), times.len());
}

#[test]
#[ignore = "a measurement of some minutes"]
fn five_thousand_pods_in_two_hundred_clusters() {
    let main = Server::start(ServerOptions::mysql().named("scale"));
    let plane = ControlPlane::start();
    [NAMESPACE, "empty"].iter().for_each(|name| plane.namespace(name));
    let pods = plane.pods(NAMESPACE);
    let begin = Instant::now();
    plane.run(create_all(pods.clone()));
    eprintln!("{} pods created in {:?}", CLUSTERS * PODS_EACH, begin.elapsed());

    let events = |proxy: &Proxy| proxy.metric("holdfast_kubernetes_watch_events_total", &["\"apply\""]);
    let settled = |proxy: &Proxy, clusters: usize| {
        until("all clusters are there", LONG, || proxy.metric("holdfast_clusters", &["discovered"]) == clusters as f64);
    };
    let empty = discovering(&main, &plane, "empty");
    until("it has looked", LONG, || empty.http("/readyz").is_ok_and(|(status, _)| status == 200));
    let begin = Instant::now();
    let full = discovering(&main, &plane, NAMESPACE);
    settled(&full, CLUSTERS);
    eprintln!("all clusters discovered {:?} after the start", begin.elapsed());
    let (rss, cpu) = (full.rss_kib(), full.cpu());
    eprintln!("VmRSS: {} KiB without pods, {rss} KiB with them; CPU of the start: {cpu:?}", empty.rss_kib());
    for (what, proxy) in [("without pods", &empty), ("with them", &full)] {
        let before = proxy.cpu();
        std::thread::sleep(REST);
        eprintln!("CPU at rest {what}: {:?} in {REST:?}", proxy.cpu() - before);
    }
    let (before, seen) = (full.cpu(), events(&full));
    plane.run(async {
        let one = |n: usize| {
            let pods = &pods;
            async move { relabel(pods, &format!("db{}-{}", n % CLUSTERS, n / CLUSTERS), "primary").await }
        };
        stream::iter((0..UPDATES).map(one)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    });
    until("all updates have arrived", LONG, || events(&full) >= seen + UPDATES as f64);
    eprintln!("CPU of {UPDATES} updates: {:?}; VmRSS {} KiB", full.cpu() - before, full.rss_kib());
    drop((empty, full));

    let measured = format!("db0-{}", PODS_EACH - 1);
    plane.set_status(NAMESPACE, &measured, "127.0.0.1", true);
    latency(&plane, pods, &measured, main.port());
}

/// From the PATCH until the cluster's feed has the label, and until the published snapshot has it, in this process.
fn latency(plane: &ControlPlane, pods: Pods, name: &str, port: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stop = CancellationToken::new();
    let access = Access { kubeconfig: Some(plane.kubeconfig()), context: None };
    let mut rules = Preset::Holdfast.rules();
    rules.port = Some(port);
    let watch =
        WatchKey { access, namespaces: vec![NAMESPACE.to_owned()], preset: Preset::Holdfast, rules, selector: None };
    let (answered, fed, published) = runtime.block_on(async {
        let hub = Hub::new(stop.clone());
        let feed = |n: usize| hub.pods(Query { watch: watch.clone(), cluster: format!("db{n}"), component: None });
        let settings = |n: usize| TopologySettings {
            cluster: format!("db{n}").as_str().into(),
            source: Source::Pods,
            pods: Some(feed(n)),
            account: Account { user: "holdfast".into(), credential: Credential::password(b"holdfast".to_vec().into()) },
            tls: Arc::new(BackendTls::disabled()),
            probe: ProbeSettings::default(),
            limits: Limits::default(),
            reconciler: None,
        };
        let topologies: Vec<_> = (0..CLUSTERS).map(|n| spawn(settings(n), stop.clone())).collect();
        let topology = &topologies[0];
        assert_eq!(hub.watches(), 1);
        let mut changes = topology.changed();
        let called = || topology.load().backends.iter().find_map(|backend| backend.pod.as_ref().map(|pod| pod.label));
        let proven = async {
            while topology.load().primary.is_none() {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LONG, proven).await.unwrap();
        let (mut answered, mut fed, mut published) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..PATCHES {
            let (role, label) = [("primary", Label::Primary), ("follower", Label::Follower)][n % 2];
            let mut feed = feed(0).pods;
            let begin = Instant::now();
            let patch = async {
                relabel(&pods, name, role).await;
                begin.elapsed()
            };
            let feed = async {
                feed.wait_for(|list| list.pods.iter().any(|pod| &*pod.name == name && pod.label == label))
                    .await
                    .unwrap();
                begin.elapsed()
            };
            let snapshot = async {
                while called() != Some(label) {
                    changes.changed().await.unwrap();
                }
                begin.elapsed()
            };
            let all = async { tokio::join!(patch, feed, snapshot) };
            let (patch, feed, snapshot) = tokio::time::timeout(LONG, all).await.unwrap();
            answered.push(patch);
            fed.push(feed);
            published.push(snapshot);
        }
        (answered, fed, published)
    });
    stop.cancel();
    report("label patch to the API server's answer", answered);
    report("label patch to the cluster's facts", fed);
    report("label patch to the published snapshot", published);
}
