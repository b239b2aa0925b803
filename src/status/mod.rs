//! What the proxy knows of itself, gathered for a person: the JSON behind the status page.
//!
//! Data flows one way: topology's snapshots → [`recorder`] → [`history`] → here → the admin port. Nothing in here decides
//! anything, and nothing else reads it. It is gathered when somebody asks, costs the data path nothing, and never blocks
//! for longer than a lock is held.
//!
//! `GET /status.json` (times are Unix milliseconds, `null` what is not known; fields are added, never changed):
//!
//! | field | what |
//! | --- | --- |
//! | `version`, `host`, `started_unix_ms`, `now_unix_ms` | this process |
//! | `verdict` | `{state: "ok" "warn" "bad", headline, problems: [{state, about, text}]}`: see [`verdict`] |
//! | `ready`, `reasons` | as `/readyz` |
//! | `configuration` | `{file, state, text, at_unix_ms}`; state: `current`, `refused` or `needs restart` |
//! | `clusters` | the objects of `/topology`, each with `traffic`, `hold` and `history`, and `queries` for each server |
//! | `clusters[].traffic` | `{primary: {class: n}, follower: {class: n}}`: commands answered so far |
//! | `clusters[].hold` | `{now, since_ms, entered, longest_ms, max}`: statements that wait for a primary |
//! | `clusters[].history` | see [`history::History::to_json`] |
//! | `clusters[].certificate_end_unix_ms` | of the certificate the proxy shows its servers |
//! | `clusters[].source_trouble` | why its pods are not watched |
//! | `listeners` | `{name, address, cluster, mode, sessions, sessions_max, tls, certificate_end_unix_ms, logins: {ok, refused, failed}}` |

pub mod history;
pub mod recorder;
pub mod verdict;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::config::watch::{FileState, LastRead};
use crate::config::{ClientTlsMode, ListenerMode, Routes};
use crate::frontend::gate::Listener;
use crate::frontend::shared::Cluster;
use crate::metrics;
use recorder::SharedHistory;
use verdict::{ClusterFacts, Facts, ListenerFacts};

/// Where the answer comes from.
pub struct Sources {
    /// Every cluster, and what the recorder has noted of it.
    pub clusters: Vec<(Arc<Cluster>, SharedHistory)>,
    /// Every listener.
    pub listeners: Vec<Arc<Listener>>,
    /// As `/readyz`.
    pub ready: bool,
    /// As `/readyz`.
    pub reasons: Vec<String>,
    /// The configuration file.
    pub file: PathBuf,
    /// What became of it when it was read last.
    pub read: Arc<LastRead>,
    /// When the process began.
    pub started: SystemTime,
}

/// The answer.
pub fn to_json(sources: &Sources) -> Value {
    let counted = Counted::read();
    let clusters: Vec<Value> = sources.clusters.iter().map(|(c, history)| of_cluster(c, history, &counted)).collect();
    let verdict = verdict::judge(&facts(sources));
    let read = &sources.read;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "host": host(),
        "started_unix_ms": unix_ms(sources.started),
        "now_unix_ms": unix_ms(SystemTime::now()),
        "verdict": verdict.to_json(),
        "ready": sources.ready,
        "reasons": sources.reasons,
        "configuration": {
            "file": sources.file.display().to_string(),
            "state": read.state.as_str(),
            "text": read.text,
            "at_unix_ms": unix_ms(read.at),
        },
        "clusters": clusters,
        "listeners": sources.listeners.iter().map(|l| of_listener(l, &counted)).collect::<Vec<_>>(),
    })
}

/// Milliseconds since 1970.
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The pod's name in Kubernetes, the host's elsewhere.
pub fn host() -> String {
    let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).or_else(kernel).unwrap_or_default().trim().to_owned()
}

/// What metrics have counted, looked up by name.
struct Counted {
    /// Cluster → target → class → commands.
    traffic: HashMap<String, Map<String, Value>>,
    /// Cluster and server → commands.
    servers: HashMap<(String, String), u64>,
    /// Listener → result → logins.
    logins: HashMap<String, Map<String, Value>>,
}

impl Counted {
    fn read() -> Self {
        let value = |labels: &metrics::Labels, name: &str| {
            labels.iter().find(|(key, _)| *key == name).map_or_else(String::new, |(_, value)| value.clone())
        };
        let mut traffic: HashMap<String, Map<String, Value>> = HashMap::new();
        for (labels, count) in metrics::queries() {
            let of_cluster = traffic.entry(value(&labels, "cluster")).or_default();
            let of_target = of_cluster.entry(value(&labels, "target")).or_insert_with(|| json!({}));
            // Several listeners of a cluster count apart.
            let class = value(&labels, "class");
            let so_far = of_target[&class].as_u64().unwrap_or(0);
            of_target[class] = json!(so_far + count);
        }
        let mut logins: HashMap<String, Map<String, Value>> = HashMap::new();
        for (labels, count) in metrics::logins() {
            let of_listener = logins.entry(value(&labels, "listener")).or_default();
            let so_far = of_listener.entry(value(&labels, "result")).or_insert_with(|| json!(0));
            *so_far = json!(so_far.as_u64().unwrap_or(0) + count);
        }
        let servers = metrics::backend_queries();
        let servers = servers.iter().map(|(l, count)| ((value(l, "cluster"), value(l, "backend")), *count)).collect();
        Self { traffic, servers, logins }
    }
}

fn of_cluster(cluster: &Cluster, history: &SharedHistory, counted: &Counted) -> Value {
    let mut value = cluster.topology.to_json(&cluster.all_connections());
    let name = cluster.name.to_string();
    for server in value["backends"].as_array_mut().into_iter().flatten() {
        let address = server["address"].as_str().unwrap_or_default().to_owned();
        server["queries"] = json!(counted.servers.get(&(name.clone(), address)).copied().unwrap_or(0));
    }
    let counts = cluster.holds.counts();
    value["hold"] = json!({
        "now": counts.held,
        "since_ms": counts.since.map(|since| since.elapsed().as_millis() as u64),
        "entered": counts.entered,
        "longest_ms": counts.longest.as_millis() as u64,
        "max": cluster.config.hold_statements_max,
    });
    value["traffic"] = json!(counted.traffic.get(&name));
    value["history"] = recorder::lock(history).to_json();
    value["certificate_end_unix_ms"] = json!(cluster.tls.not_after().map(unix_ms));
    value
}

fn of_listener(listener: &Listener, counted: &Counted) -> Value {
    let config = &listener.config;
    let logins = counted.logins.get(&config.name);
    let of = |result| logins.and_then(|results| results.get(result)).cloned().unwrap_or_else(|| json!(0));
    json!({
        "name": config.name,
        "address": config.listen.to_string(),
        "cluster": leads_to(&config.routes),
        "mode": match config.mode {
            ListenerMode::Split => "split",
            ListenerMode::Primary => "primary",
            ListenerMode::Followers => "followers",
        },
        "sessions": listener.sessions(),
        "sessions_max": config.max_connections,
        "tls": match config.tls.mode {
            ClientTlsMode::Disabled => "disabled",
            ClientTlsMode::Preferred => "preferred",
            ClientTlsMode::Required => "required",
            ClientTlsMode::VerifyCa => "verify_ca",
            ClientTlsMode::VerifyIdentity => "verify_identity",
        },
        "certificate_end_unix_ms": listener.tls.not_after().map(unix_ms),
        "logins": { "ok": of("ok"), "refused": of("refused"), "failed": of("failed") },
    })
}

/// In words, where a listener's logins lead.
fn leads_to(routes: &Routes) -> String {
    let default = routes.default.clone();
    if routes.by.is_empty() {
        return default.unwrap_or_default();
    }
    let words: Vec<&str> = routes.by.iter().map(|by| by.as_str()).collect();
    let other = default.map(|cluster| format!(", else {cluster}")).unwrap_or_default();
    format!("by {}{other}", words.join(", "))
}

fn facts(sources: &Sources) -> Facts {
    let clusters = sources.clusters.iter().map(|(cluster, _)| {
        let topology = cluster.topology.snapshot();
        let reading = sources.listeners.iter().filter(|l| {
            let routes = &l.config.routes;
            !routes.by.is_empty() || routes.default.as_ref() == Some(&cluster.config.name)
        });
        ClusterFacts {
            proof_age_ms: topology.proof_age_ms(cluster.topology.now_ms()),
            topology,
            held: cluster.holds.held(),
            max_lag: reading.filter_map(|l| l.config.max_lag).min(),
            certificate_end: cluster.tls.not_after(),
            source_trouble: cluster.topology.source_trouble(),
        }
    });
    let listeners = sources.listeners.iter().map(|listener| ListenerFacts {
        name: listener.config.name.clone(),
        sessions: listener.sessions(),
        sessions_max: listener.config.max_connections,
        certificate_end: listener.tls.not_after(),
    });
    Facts {
        now: SystemTime::now(),
        ready: sources.ready,
        reasons: sources.reasons.clone(),
        file: (sources.read.state != FileState::Current).then(|| sources.read.as_ref().clone()),
        clusters: clusters.collect(),
        listeners: listeners.collect(),
    }
}
