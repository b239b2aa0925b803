//! Roles from Kubernetes: a real API server, real servers, and pods that say of them what operators' pods say, true or not.
//!
//! The pods here are objects only; each points at a server of the testbed (address and container port), so that labels can
//! be late, stale or wrong at will.
#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod proxy;
mod testbed;

use proxy::{Options, Proxy};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::kubernetes::ControlPlane;
use testbed::{ReplicaSet, Server, SetOptions, until};

const SOON: Duration = Duration::from_secs(90);

/// Pods of one namespace in front of servers.
struct Pods<'a> {
    plane: &'a ControlPlane,
    namespace: &'a str,
}

impl<'a> Pods<'a> {
    fn new(plane: &'a ControlPlane, namespace: &'a str) -> Self {
        plane.namespace(namespace);
        Self { plane, namespace }
    }

    /// A ready pod whose server is `server`.
    fn create(&self, name: &str, server: &Server, labels: &Value) {
        self.plane.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": self.namespace, "labels": labels },
            "spec": { "containers": [{ "name": "mysql", "image": "mysql", "ports": [
                { "name": "mysql", "containerPort": server.port() },
            ] }] },
        }));
        self.plane.set_status(self.namespace, name, "127.0.0.1", true);
    }

    fn label(&self, name: &str, key: &str, value: Option<&str>) {
        self.plane.relabel(self.namespace, name, &[(key, value)]);
    }

    fn annotate(&self, name: &str, key: &str, value: Option<&str>) {
        self.plane.annotate(self.namespace, name, &[(key, value)]);
    }

    /// A proxy that watches them as the inside of `kubernetes = { … }` says.
    fn options(&self, inside: &str) -> Options {
        let (file, namespace) = (self.plane.kubeconfig(), self.namespace);
        Options::pods(&format!("kubeconfig = \"{}\", namespace = \"{namespace}\", {inside}", file.display()))
    }
}

fn topology(proxy: &Proxy) -> Value {
    let (_, body) = proxy.http("/topology").unwrap();
    serde_json::from_str::<Value>(&body).unwrap()["clusters"][0].clone()
}

/// The line of one pod in /topology.
fn line(proxy: &Proxy, pod: &str) -> Value {
    let topology = topology(proxy);
    let lines = topology["backends"].as_array().unwrap();
    lines.iter().find(|line| line["pod"] == pod).cloned().unwrap_or(Value::Null)
}

/// What a pod's line says, soon.
fn wait_line(proxy: &Proxy, pod: &str, wanted: &[(&str, Value)]) {
    let mut last = Value::Null;
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until(&format!("pod {pod} is {wanted:?}"), SOON, || {
            last = line(proxy, pod);
            wanted.iter().all(|(key, value)| last[key] == *value)
        });
    }));
    assert!(seen.is_ok(), "{last:#}\n{:#}\n{}", topology(proxy), proxy.log());
}

fn wait_conflict(proxy: &Proxy, kind: Option<&str>) {
    until(&format!("conflict {kind:?}"), SOON, || {
        let conflicts = topology(proxy)["conflicts"].clone();
        match kind {
            Some(kind) => conflicts.as_array().unwrap().iter().any(|conflict| conflict["kind"] == kind),
            None => conflicts == json!([]),
        }
    });
}

/// Writes through the proxy and says on which server that happened.
fn writes_to(proxy: &Proxy) -> u16 {
    let mut client = proxy.client();
    client.query("INSERT INTO app.w VALUES (@@port)").unwrap();
    client.one("/* holdfast:primary */ SELECT @@port").parse().unwrap()
}

fn set() -> ReplicaSet {
    let set = ReplicaSet::start(SetOptions::asynchronous());
    set.source().sql("CREATE TABLE app.w(port INT)");
    set.wait_synced();
    set
}

/// What one operator's pods look like.
struct Operator {
    preset: &'static str,
    /// More of `[cluster.kubernetes]`.
    more: &'static str,
    labels: Value,
    /// Key and values of the role: primary's, follower's.
    role: &'static str,
    values: [Option<&'static str>; 2],
    /// A follower without its label gets no reads.
    strict: bool,
}

fn operators() -> Vec<Operator> {
    let of = |preset, more, labels, role, primary, follower, strict| Operator {
        preset,
        more,
        labels,
        role,
        values: [Some(primary), follower],
        strict,
    };
    let kubeblocks = json!({
        "app.kubernetes.io/managed-by": "kubeblocks", "app.kubernetes.io/instance": "main",
        "apps.kubeblocks.io/component-name": "mysql",
    });
    let innodb = json!({ "component": "mysqld", "mysql.oracle.com/cluster": "main", "tier": "mysql" });
    let v1alpha1 = json!({ "v1alpha1.mysql.oracle.com/cluster": "main" });
    let bitpoke = json!({ "app.kubernetes.io/name": "mysql", "mysql.presslabs.org/cluster": "main", "healthy": "yes" });
    let moco = json!({ "app.kubernetes.io/name": "mysql", "app.kubernetes.io/instance": "main" });
    let percona = json!({ "app.kubernetes.io/component": "database", "app.kubernetes.io/instance": "main" });
    let custom = "selector = \"db=own\", role_label = \"own/role\", primary = [\"w\"], follower = [\"r\"]";
    let custom: &str = Box::leak(format!("custom = {{ {custom} }}").into_boxed_str());
    vec![
        of("kubeblocks", "component = \"mysql\"", kubeblocks, "kubeblocks.io/role", "leader", Some("follower"), true),
        of("innodbcluster", "", innodb, "mysql.oracle.com/cluster-role", "PRIMARY", Some("SECONDARY"), true),
        of("oracle-v1alpha1", "", v1alpha1, "v1alpha1.mysql.oracle.com/role", "primary", Some("secondary"), false),
        of("bitpoke", "", bitpoke, "role", "master", Some("replica"), false),
        of("moco", "", moco, "moco.cybozu.com/role", "primary", Some("replica"), true),
        of("percona", "", percona, "mysql.percona.com/primary", "true", None, false),
        of(
            "holdfast",
            "",
            json!({ "holdfast.io/cluster": "main" }),
            "holdfast.io/role",
            "primary",
            Some("follower"),
            false,
        ),
        of("custom", custom, json!({ "db": "own" }), "own/role", "w", Some("r"), true),
    ]
}

/// Each operator's labels as they should be, on the wrong pod, on two pods, missing on one and missing on all: writes go to
/// the one server that can be written, which obeying the label alone would have missed.
#[test]
fn every_preset_by_its_exact_labels() {
    let (set, plane) = (set(), ControlPlane::start());
    for operator in operators() {
        let Operator { preset, more, labels, role, values: [primary, follower], strict } = operator;
        let pods = Pods::new(&plane, preset);
        let names = ["db-0", "db-1", "db-2"];
        for (name, server) in names.iter().zip(set.servers()) {
            pods.create(name, server, &labels);
            pods.label(name, role, follower);
        }
        pods.label("db-0", role, primary);
        let proxy = Proxy::start(pods.options(&format!("preset = \"{preset}\", {more}")));
        let right = set.source().port();
        let unlabelled = if follower.is_some() { "follower" } else { "none" };
        wait_line(&proxy, "db-0", &[("role", json!("primary")), ("label", json!("primary"))]);
        for name in ["db-1", "db-2"] {
            let wanted = [("role", json!("follower")), ("label", json!(unlabelled)), ("serving", json!("yes"))];
            wait_line(&proxy, name, &wanted);
        }
        assert_eq!(writes_to(&proxy), right, "{preset}");

        // On two pods.
        pods.label("db-1", role, primary);
        wait_conflict(&proxy, Some("two_labels"));
        assert_eq!(writes_to(&proxy), right, "{preset}");
        // On the wrong one only.
        pods.label("db-0", role, follower);
        wait_conflict(&proxy, Some("label_elsewhere"));
        wait_line(&proxy, "db-1", &[("label", json!("primary")), ("role", json!("follower"))]);
        assert_eq!(writes_to(&proxy), right, "{preset}");
        // Right again, but one follower has lost its label.
        pods.label("db-0", role, primary);
        pods.label("db-1", role, follower);
        pods.label("db-2", role, None);
        wait_conflict(&proxy, None);
        let serves = if strict { "no" } else { "yes" };
        wait_line(&proxy, "db-2", &[("label", json!("none")), ("serving", json!(serves))]);
        // All gone: the operator is down.
        names.iter().for_each(|name| pods.label(name, role, None));
        wait_conflict(&proxy, Some("no_label"));
        wait_line(&proxy, "db-1", &[("label", json!("none")), ("serving", json!("yes"))]);
        assert_eq!(writes_to(&proxy), right, "{preset}");
        let told = proxy.metric("holdfast_topology_conflicts_total", &["kind=\"two_labels\""]);
        assert!(told >= 1.0, "{preset}: {}", proxy.http("/metrics").unwrap().1);
    }
}

/// The tutorial's StatefulSet: ordinal 0 is called the primary for ever, also when it is not.
#[test]
fn an_ordinal_is_a_label_too() {
    let (set, plane) = (set(), ControlPlane::start());
    let pods = Pods::new(&plane, "tutorial");
    for (i, server) in set.servers().iter().enumerate() {
        pods.create(&format!("mysql-{i}"), server, &json!({ "app": "mysql" }));
    }
    let proxy = Proxy::start(pods.options("preset = \"statefulset\""));
    wait_line(&proxy, "mysql-0", &[("role", json!("primary")), ("label", json!("primary"))]);
    set.switchover(1);
    wait_line(&proxy, "mysql-1", &[("role", json!("primary")), ("label", json!("follower"))]);
    assert_eq!(writes_to(&proxy), set.server(1).port());
}

/// The API server is killed, then the primary; the new one takes the writes by proof alone.
#[test]
fn the_api_server_is_away_during_a_failover() {
    let (set, plane) = (set(), ControlPlane::start());
    let pods = Pods::new(&plane, "shop");
    for (i, server) in set.servers().iter().enumerate() {
        let role = if i == 0 { "primary" } else { "follower" };
        let labels = json!({ "holdfast.io/cluster": "main", "holdfast.io/role": role });
        pods.create(&format!("db-{i}"), server, &labels);
    }
    let proxy = Proxy::start(pods.options("preset = \"holdfast\""));
    wait_line(&proxy, "db-1", &[("serving", json!("yes"))]);
    plane.kill_api();
    until("the watch is down", SOON, || proxy.metric("holdfast_kubernetes_watch_up", &[]) == 0.0);
    let (status, body) = proxy.http("/readyz").unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("have not been watched for") && body.contains("what was known of them stays"), "{body}");

    set.source().kill9();
    set.promote(1);
    wait_line(&proxy, "db-1", &[("role", json!("primary"))]);
    assert_eq!(writes_to(&proxy), set.server(1).port());
    assert_eq!(topology(&proxy)["backends"].as_array().unwrap().len(), 3);

    plane.start_api();
    until("the watch is up", SOON, || proxy.metric("holdfast_kubernetes_watch_up", &[]) == 1.0);
    pods.label("db-1", "holdfast.io/role", Some("primary"));
    pods.label("db-0", "holdfast.io/role", Some("follower"));
    wait_line(&proxy, "db-1", &[("label", json!("primary"))]);
    plane.delete_pod("shop", "db-0", Some(0));
    until("the dead pod is dropped", SOON, || line(&proxy, "db-0").is_null());
    assert_eq!(proxy.http("/readyz").unwrap().1, "ready\n");
}

/// A pod under the same name, and the API server away while it came.
#[test]
fn pods_come_go_and_come_back_elsewhere() {
    let (set, plane) = (set(), ControlPlane::start());
    let pods = Pods::new(&plane, "shop");
    let labels = |role: &str| json!({ "holdfast.io/cluster": "main", "holdfast.io/role": role });
    pods.create("db-0", set.server(0), &labels("primary"));
    pods.create("db-1", set.server(1), &labels("follower"));
    let proxy = Proxy::start(pods.options("preset = \"holdfast\""));
    wait_line(&proxy, "db-1", &[("serving", json!("yes"))]);
    plane.delete_pod("shop", "db-1", Some(0));
    until("it is gone", SOON, || line(&proxy, "db-1").is_null());
    plane.wait_pod_gone("shop", "db-1");
    pods.create("db-1", set.server(2), &labels("follower"));
    let there = json!(format!("127.0.0.1:{}", set.server(2).port()));
    wait_line(&proxy, "db-1", &[("serving", json!("yes")), ("address", there)]);
    // Another cluster's pod is none of ours.
    pods.create("other-0", set.server(1), &json!({ "holdfast.io/cluster": "other", "holdfast.io/role": "primary" }));
    pods.label("db-1", "holdfast.io/role", Some("primary"));
    wait_line(&proxy, "db-1", &[("label", json!("primary"))]);
    assert!(line(&proxy, "other-0").is_null());
    assert_eq!(writes_to(&proxy), set.server(0).port());
}

/// Cordoned: nothing new, what is open goes on until the deadline, and then it is cut, idle or in the middle of a statement.
#[test]
fn a_cordoned_primary_ends_what_is_open_and_takes_nothing_new() {
    let (set, plane) = (set(), ControlPlane::start());
    let pods = Pods::new(&plane, "shop");
    for (i, server) in set.servers().iter().enumerate() {
        pods.create(&format!("db-{i}"), server, &json!({ "holdfast.io/cluster": "main" }));
    }
    let options = pods.options("preset = \"holdfast\"").cluster("drain_deadline_ms = 4000\nhold_ms_max = 60000");
    let proxy = Proxy::start(options.modes(&["primary"]).listener("transaction_replay_bytes = 0"));
    let source = set.source();
    let (mut quick, mut idle, mut busy, mut fresh) = (proxy.client(), proxy.client(), proxy.client(), proxy.client());
    for client in [&mut quick, &mut idle, &mut busy] {
        client.query("BEGIN").unwrap();
        client.query("INSERT INTO app.w VALUES (7)").unwrap();
    }
    fresh.query("SELECT 1").unwrap();
    let connections = || source.one("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app'");
    until("four are there", SOON, || connections() == "4");

    pods.annotate("db-0", "holdfast.io/cordon", Some("true"));
    wait_line(&proxy, "db-0", &[("serving", json!("draining")), ("role", json!("primary"))]);
    // The one without a transaction has left; the others go on.
    until("the idle one has left", SOON, || connections() == "3");
    quick.query("INSERT INTO app.w VALUES (8)").unwrap();
    quick.query("COMMIT").unwrap();
    until("the finished one has left", SOON, || connections() == "2");
    busy.send_query("SELECT SLEEP(600)");
    fresh.send_query("INSERT INTO app.w VALUES (9)");
    // At the deadline both are cut: the one that says nothing, and the one that waits.
    until("they are cut", SOON, || connections() == "0");
    assert_eq!(busy.read().unwrap_err().code(), 1213);
    assert_eq!(idle.query("INSERT INTO app.w VALUES (10)").unwrap_err().code(), 1213);
    wait_line(&proxy, "db-0", &[("serving", json!("drained"))]);
    assert_eq!(source.one("SELECT GROUP_CONCAT(port ORDER BY port) FROM app.w"), "7,8");
    // And open again: the one that waited goes on.
    pods.annotate("db-0", "holdfast.io/cordon", None);
    fresh.read().unwrap();
    assert_eq!(source.one("SELECT GROUP_CONCAT(port ORDER BY port) FROM app.w"), "7,8,9");
}

/// Followers that are cordoned, unready or deleted get no reads; a primary that is unready goes on.
#[test]
fn reads_leave_pods_that_go() {
    let (set, plane) = (set(), ControlPlane::start());
    let pods = Pods::new(&plane, "shop");
    for (i, server) in set.servers().iter().enumerate() {
        pods.create(&format!("db-{i}"), server, &json!({ "holdfast.io/cluster": "main" }));
    }
    let proxy = Proxy::start(pods.options("preset = \"holdfast\"").cluster("drain_deadline_ms = 500"));
    let serving = |pod: &str, word: &str| wait_line(&proxy, pod, &[("serving", json!(word))]);
    let reads_from = || proxy.client().one("SELECT @@port").parse::<u16>().unwrap();
    ["db-0", "db-1", "db-2"].iter().for_each(|pod| serving(pod, "yes"));
    plane.set_status("shop", "db-1", "127.0.0.1", false);
    serving("db-1", "drained");
    (0..8).for_each(|_| assert_eq!(reads_from(), set.server(2).port()));
    pods.annotate("db-2", "holdfast.io/cordon", Some("true"));
    serving("db-2", "drained");
    (0..8).for_each(|_| assert_eq!(reads_from(), set.server(0).port()));
    plane.set_status("shop", "db-0", "127.0.0.1", false);
    wait_line(&proxy, "db-0", &[("pod_state", json!("not ready")), ("serving", json!("yes"))]);
    assert_eq!(writes_to(&proxy), set.server(0).port());
    plane.set_status("shop", "db-1", "127.0.0.1", true);
    serving("db-1", "yes");
    (0..8).for_each(|_| assert_eq!(reads_from(), set.server(1).port()));
}

/// Two writable servers: the term decides, and nothing else does.
#[test]
fn two_writable_servers_and_a_term() {
    let (set, plane) = (set(), ControlPlane::start());
    let pods = Pods::new(&plane, "shop");
    for (i, server) in set.servers().iter().enumerate().take(2) {
        let labels = json!({ "holdfast.io/cluster": "main", "holdfast.io/role": "primary" });
        pods.create(&format!("db-{i}"), server, &labels);
        pods.annotate(&format!("db-{i}"), "holdfast.io/term", Some("6"));
    }
    let proxy = Proxy::start(pods.options("preset = \"holdfast\"").cluster("hold_ms_max = 500"));
    let mut client = proxy.client();
    set.promote(1);
    wait_conflict(&proxy, Some("two_writable"));
    let refused = client.query("INSERT INTO app.w VALUES (1)").unwrap_err();
    assert!(format!("{refused:?}").contains("no proven primary"), "{refused:?}");
    pods.annotate("db-1", "holdfast.io/term", Some("7"));
    wait_line(&proxy, "db-1", &[("role", json!("primary")), ("label_term", json!(7))]);
    wait_conflict(&proxy, Some("old_term"));
    assert_eq!(writes_to(&proxy), set.server(1).port());
}
