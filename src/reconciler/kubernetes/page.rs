//! \[pure\] What the reconciler's admin port says of its clusters, for its status page: what stands in their status, no more.
//!
//! `GET /status.json` (times are Unix milliseconds, `null` what is not known; fields are added, never changed):
//!
//! | field | what |
//! | --- | --- |
//! | `reconciler` | `true`: the page shows the reconciler's parts, not the proxy's |
//! | `version`, `host`, `started_unix_ms`, `now_unix_ms` | this process |
//! | `leads` | false: another one keeps the clusters, and here are none |
//! | `verdict` | `{state: "ok" "warn" "bad", headline, problems: [{state, about, text}]}` |
//! | `clusters` | `{namespace, name, topology, replicas, phase, why, ready, available, primary, term, members, history}` |
//! | `clusters[].members` | `{name, role, state, errant, lag_s}` |
//! | `clusters[].history` | as of the proxy's clusters, with `proof: "why"`; `to` is null while a change is under way or was given up |

use crate::reconciler::resource::{Condition, MysqlCluster, MysqlClusterStatus, PrimaryChange};
use crate::status::{host, unix_ms};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::SystemTime;

/// The answer; `None` while another one leads.
pub fn to_json(clusters: Option<&[Arc<MysqlCluster>]>, started: SystemTime) -> Value {
    let kept = clusters.unwrap_or_default();
    json!({
        "reconciler": true,
        "version": env!("CARGO_PKG_VERSION"),
        "host": host(),
        "started_unix_ms": unix_ms(started),
        "now_unix_ms": unix_ms(SystemTime::now()),
        "leads": clusters.is_some(),
        "verdict": clusters.map_or_else(follows, verdict),
        "clusters": kept.iter().map(|cluster| of_cluster(cluster)).collect::<Vec<_>>(),
    })
}

fn follows() -> Value {
    let headline = "Another reconciler leads: its page tells of the clusters.";
    json!({ "state": "ok", "headline": headline, "problems": [] })
}

fn verdict(clusters: &[Arc<MysqlCluster>]) -> Value {
    let mut problems: Vec<Value> = Vec::new();
    let (mut dark, mut ill) = (0, 0);
    for cluster in clusters {
        let (ready, available) = (is(cluster, "Ready"), is(cluster, "Available"));
        dark += usize::from(!available);
        ill += usize::from(!ready);
        if !ready || !available {
            let why = condition(cluster, "Ready").map(|ready| ready.message.clone()).unwrap_or_default();
            let why = if why.is_empty() { phase(cluster) } else { why };
            let state = if available { "warn" } else { "bad" };
            problems.push(json!({ "state": state, "about": cluster.name_any(), "text": why }));
        }
    }
    let count = clusters.len();
    let (state, headline) = match (count, dark, ill) {
        (0, ..) => ("ok", "There is no MysqlCluster here.".to_owned()),
        (1, 0, 0) => ("ok", "All is well: the cluster is Ready.".to_owned()),
        (_, 0, 0) => ("ok", format!("All is well: all {count} clusters are Ready.")),
        (1, 0, _) => ("warn", "The primary takes writes, but the cluster is not Ready.".to_owned()),
        (1, ..) => ("bad", "The cluster has no primary that takes writes.".to_owned()),
        (_, 0, _) => ("warn", format!("All primaries take writes; {ill} of {count} clusters are not Ready.")),
        _ => ("bad", format!("{dark} of {count} clusters have no primary that takes writes.")),
    };
    json!({ "state": state, "headline": headline, "problems": problems })
}

fn condition<'a>(cluster: &'a MysqlCluster, kind: &str) -> Option<&'a Condition> {
    cluster.status.as_ref()?.conditions.iter().find(|condition| condition.kind == kind)
}

fn is(cluster: &MysqlCluster, kind: &str) -> bool {
    condition(cluster, kind).is_some_and(|condition| condition.status == "True")
}

fn phase(cluster: &MysqlCluster) -> String {
    cluster.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_else(|| "Creating".to_owned())
}

fn of_cluster(cluster: &MysqlCluster) -> Value {
    let nothing = MysqlClusterStatus::default();
    let status = cluster.status.as_ref().unwrap_or(&nothing);
    let members = status.members.iter().map(|member| {
        json!({ "name": member.name, "role": member.role, "state": member.state, "errant": member.errant,
            "lag_s": member.lag_seconds })
    });
    json!({
        "namespace": cluster.namespace(),
        "name": cluster.name_any(),
        "topology": cluster.spec.topology,
        "replicas": cluster.spec.replicas,
        "phase": phase(cluster),
        "why": condition(cluster, "Ready").map(|ready| &ready.message),
        "ready": is(cluster, "Ready"),
        "available": is(cluster, "Available"),
        "primary": status.primary,
        "term": status.term,
        "members": members.collect::<Vec<_>>(),
        "history": status.history.iter().map(of_change).collect::<Vec<_>>(),
    })
}

fn of_change(change: &PrimaryChange) -> Value {
    let at: Option<Timestamp> = change.at.parse().ok();
    let at = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    let ended = at.zip(change.took_ms).map(|(at, took_ms)| at + took_ms);
    json!({
        "from": change.from,
        "lost_unix_ms": at.filter(|_| change.from.is_some()),
        "to": ended.map(|_| &change.to),
        "proven_unix_ms": ended,
        "proof": "why",
        "why_proven": change.reason,
        "ms": change.took_ms,
        "term": change.term,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, ready: &str, available: &str, history: Value) -> Arc<MysqlCluster> {
        let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status, "reason": "x", "message": "db-1: behind", "lastTransitionTime": "" });
        let all = json!({
            "apiVersion": "holdfast.io/v1alpha1", "kind": "MysqlCluster",
            "metadata": { "name": name, "namespace": "shop" }, "spec": { "image": "mysql" },
            "status": { "term": 2, "primary": "db-1", "history": history,
                "conditions": [condition("Ready", ready), condition("Available", available)] },
        });
        Arc::new(serde_json::from_value(all).expect("a MysqlCluster"))
    }

    #[test]
    fn changes_are_told_as_the_proxy_tells_its_own() {
        let history = json!([
            { "term": 3, "from": "db-1", "to": "db-0", "at": "1970-01-01T00:00:09Z", "reason": "asked for" },
            { "term": 2, "from": "db-0", "to": "db-1", "at": "1970-01-01T00:00:05.5Z", "reason": "lost", "tookMs": 300 },
            { "term": 1, "to": "db-0", "at": "1970-01-01T00:00:01Z", "reason": "the first", "tookMs": 20 },
        ]);
        let all = to_json(Some(&[cluster("db", "True", "True", history)]), SystemTime::now());
        let told = |n: usize| {
            let change = &all["clusters"][0]["history"][n];
            ["term", "from", "lost_unix_ms", "to", "proven_unix_ms", "ms", "why_proven"].map(|key| change[key].clone())
        };
        let null = Value::Null;
        assert_eq!(
            told(0),
            [json!(3), json!("db-1"), json!(9000), null.clone(), null.clone(), null.clone(), json!("asked for")]
        );
        assert_eq!(
            told(1),
            [json!(2), json!("db-0"), json!(5500), json!("db-1"), json!(5800), json!(300), json!("lost")]
        );
        assert_eq!(told(2), [json!(1), null.clone(), null, json!("db-0"), json!(1020), json!(20), json!("the first")]);
    }

    #[test]
    fn the_verdict_is_that_of_the_worst() {
        let of = |all: &[(&str, &str)]| {
            let all: Vec<_> = all.iter().map(|(ready, available)| cluster("db", ready, available, json!([]))).collect();
            let told = to_json(Some(&all), SystemTime::now())["verdict"].take();
            (
                told["state"].clone(),
                told["headline"].as_str().map(str::to_owned),
                told["problems"].as_array().map(Vec::len),
            )
        };
        for (all, state, words, problems) in [
            (&[][..], "ok", "no MysqlCluster", 0),
            (&[("True", "True")], "ok", "the cluster is Ready", 0),
            (&[("True", "True"), ("True", "True")], "ok", "all 2 clusters", 0),
            (&[("True", "True"), ("False", "True")], "warn", "1 of 2 clusters are not Ready", 1),
            (&[("False", "True")], "warn", "the cluster is not Ready", 1),
            (&[("False", "False")], "bad", "The cluster has no primary", 1),
            (&[("False", "True"), ("False", "False")], "bad", "1 of 2 clusters have no primary", 2),
        ] {
            let told = of(all);
            assert_eq!((&told.0, told.2), (&json!(state), Some(problems)), "{told:?}");
            assert!(told.1.as_ref().is_some_and(|headline| headline.contains(words)), "{told:?}");
        }
        let follower = to_json(None, SystemTime::now());
        assert_eq!((&follower["leads"], &follower["verdict"]["state"]), (&json!(false), &json!("ok")));
    }
}
