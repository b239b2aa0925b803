//! The testbed for Kubernetes itself: the control plane is real, and so are the pods.
mod testbed;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use testbed::kubernetes::kubeblocks::{self, PodGroup};
use testbed::kubernetes::{
    ControlPlane, ControlPlaneOptions, Network, Node, NodeOptions, Program, Runner, RunningPod, Scope, is_ready,
    mysqld, pod_ip, program,
};
use testbed::{ServerOptions, until};

const SOON: Duration = Duration::from_secs(180);

#[test]
fn the_api_server_keeps_its_data_over_kill9() {
    let plane = ControlPlane::start();
    plane.namespace("db");
    assert!(plane.kubectl(&["get", "namespace", "db", "-o", "name"]).is_ok_and(|out| out == "namespace/db"));

    plane.kill_api();
    assert!(plane.run(plane.client().apiserver_version()).is_err());
    plane.start_api();

    let version = plane.run(plane.client().apiserver_version()).expect("it answers");
    assert_eq!(version.git_version, "v1.20.2");
    assert!(plane.kubectl(&["get", "namespace", "db"]).is_ok());
}

#[test]
fn users_may_do_what_they_were_granted_and_no_more() {
    let plane = ControlPlane::start();
    plane.namespace("db");
    let account = plane.service_account("db", "proxy");
    let user = plane.user("jane", &["people"]);
    let get = |config: &std::path::Path, what: &str| {
        let config = format!("--kubeconfig={}", config.display());
        plane.kubectl(&[&config, "-n", "db", "get", what])
    };
    for config in [&account, &user] {
        let refused = get(config, "pods").expect_err("nothing was granted");
        assert!(refused.contains("Forbidden"), "{refused}");
    }
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    plane.grant("system:serviceaccount:db:proxy", Scope::Namespace("db"), &rules);
    plane.grant("jane", Scope::Cluster, &rules);

    for config in [&account, &user] {
        until("the grant is known", SOON, || get(config, "pods").is_ok());
        assert!(get(config, "secrets").is_err());
    }
    plane.grant("jane", Scope::Cluster, &json!([]));
    until("the grant is gone", SOON, || get(&user, "pods").is_err());
}

#[test]
fn controllers_make_the_pods_that_a_node_runs() {
    let plane = ControlPlane::start_with(ControlPlaneOptions::with_controllers());
    // what the pods run is of no interest here
    let idle: Runner = Arc::new(|_, _| {
        let mut command = Command::new("sleep");
        command.arg("infinity");
        Program { command, ready: Box::new(|_| true) }
    });
    let node = Node::start(&plane, NodeOptions::running(idle));
    plane.apply(&json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "mysql", "namespace": "default"},
        "spec": {
            "replicas": 2, "serviceName": "mysql",
            "selector": {"matchLabels": {"app": "mysql"}},
            "template": {
                "metadata": {"labels": {"app": "mysql"}},
                "spec": {"terminationGracePeriodSeconds": 5, "containers": [{"name": "mysql", "image": "mysql"}]},
            },
        },
    }));
    plane.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "mysql", "namespace": "default"},
        "spec": {"selector": {"app": "mysql"}, "ports": [{"port": 3306, "protocol": "TCP"}]},
    }));
    // the second is made once the first is ready
    plane.wait_pod_ready("default", "mysql-1");
    let old = node.pod("default", "mysql-0");
    let endpoints = || {
        let shown = ["get", "endpoints", "mysql", "-o", "jsonpath={.subsets[*].addresses[*].ip}"];
        plane.kubectl(&shown).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    until("both are endpoints", SOON, || endpoints().len() == 2);

    plane.delete_pod("default", "mysql-0", None);

    until("its successor is ready", SOON, || {
        let pod = plane.pod("default", "mysql-0");
        pod.is_some_and(|pod| pod.metadata.uid.as_deref() != Some(old.uid()) && is_ready(&pod))
    });
    let new = node.pod("default", "mysql-0").ip().to_string();
    until("the endpoints have followed", SOON, || endpoints().len() == 2 && endpoints().contains(&new));
}

/// A pod with a claim, run by whoever the node says.
fn pod(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "mysql"}},
        "spec": {
            "terminationGracePeriodSeconds": 20,
            "containers": [{"name": "mysql", "image": "mysql"}],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{name}")}},
                {"name": "scratch", "emptyDir": {}},
            ],
        },
    })
}

/// Restarts of the pod's container, as the API tells.
fn restarts(pod: &Pod) -> i32 {
    pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()).map_or(0, |all| all[0].restart_count)
}

/// Whether a client in the test's own network is greeted.
fn reachable(pod: &RunningPod) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect_timeout(&pod.addr(), Duration::from_secs(1)) else {
        return false;
    };
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    stream.read_exact(&mut [0; 5]).is_ok()
}

#[test]
fn pods_run_and_the_api_tells_what_becomes_of_them() {
    let plane = ControlPlane::start();
    let node = Node::start(&plane, NodeOptions::running(mysqld(|_, _| ServerOptions::mysql())));
    plane.apply(&pod("db"));
    let seen = plane.wait_pod_ready("default", "db");
    let db = node.pod("default", "db");
    assert_eq!(pod_ip(&seen), Some(db.ip().to_string()));
    assert_eq!(restarts(&seen), 0);
    assert!(reachable(&db));
    assert_eq!(db.one("SELECT @@hostname"), Some("db".to_owned()));
    db.sql("CREATE TABLE app.t(id INT PRIMARY KEY); INSERT INTO app.t VALUES (1)");

    // a container that is killed is started again, on the pod's own address and data
    db.kill9();
    plane.wait_pod("default", "db", "was started again", |pod| restarts(pod) == 1 && is_ready(pod));
    assert_eq!(db.one("SELECT COUNT(*) FROM app.t"), Some("1".to_owned()));

    // a frozen one answers no probe
    db.freeze();
    plane.wait_pod("default", "db", "is unready", |pod| !is_ready(pod));
    db.thaw();
    plane.wait_pod_ready("default", "db");

    // cut off it is alive, and out of reach
    db.network().cut_off();
    assert!(!reachable(&db));
    assert_eq!(db.one("SELECT 1"), Some("1".to_owned()));
    db.network().join();
    until("the pod is back", SOON, || reachable(&db));

    // killed and not started again
    db.restart(false);
    db.kill9();
    plane.wait_pod("default", "db", "is down", |pod| !is_ready(pod));
    assert_eq!(db.pid(), None);
    db.restart(true);
    plane.wait_pod("default", "db", "was started again", |pod| restarts(pod) == 2 && is_ready(pod));

    // deleted: it ends by SIGTERM within the grace period, then leaves the API; its successor has the claim
    let log = db.folder().join("err.log");
    plane.delete_pod("default", "db", None);
    let leaving = plane.pod("default", "db").expect("it takes mysqld a while to end");
    assert!(leaving.metadata.deletion_timestamp.is_some());
    let mut last = String::new();
    until("the pod is gone", SOON, || {
        last = std::fs::read_to_string(&log).unwrap_or(std::mem::take(&mut last));
        plane.pod("default", "db").is_none()
    });
    assert!(last.contains("Shutdown complete"), "{last}");
    plane.apply(&pod("db"));
    let seen = plane.wait_pod_ready("default", "db");
    let again = node.pod("default", "db");
    assert_ne!(pod_ip(&seen), Some(db.ip().to_string()));
    assert_eq!(pod_ip(&seen), Some(again.ip().to_string()));
    assert_eq!(again.one("SELECT COUNT(*) FROM app.t"), Some("1".to_owned()));
    assert!(!reachable(&db));

    // one that does not heed SIGTERM is killed when its grace is over
    again.freeze();
    plane.delete_pod("default", "db", Some(1));
    plane.wait_pod_gone("default", "db");
}

#[test]
fn a_node_goes_on_while_the_api_server_is_away() {
    let plane = ControlPlane::start();
    let node = Node::start(&plane, NodeOptions::running(mysqld(|_, _| ServerOptions::mysql())));
    plane.apply(&pod("db"));
    plane.wait_pod_ready("default", "db");
    let db = node.pod("default", "db");
    plane.kill_api();
    db.kill9();
    until("the pod runs again", SOON, || db.ready() && db.restarts() == 1);
    assert!(reachable(&db));

    plane.start_api();

    plane.wait_pod("default", "db", "tells of it", |pod| restarts(pod) == 1 && is_ready(pod));
    plane.delete_pod("default", "db", Some(5));
    plane.wait_pod_gone("default", "db");
}

#[test]
fn a_group_in_pods_is_labelled_after_its_own_roles() {
    let plane = Arc::new(ControlPlane::start());
    let node = Arc::new(Node::start(&plane, NodeOptions::running(kubeblocks::runner())));
    let group = PodGroup::start(&plane, &node, "db", "shop");
    assert_eq!(group.primary_index(), Some(0));
    assert_eq!(group.labelled_primary(), Some(0));
    group.member(0).sql("CREATE TABLE app.t(id INT PRIMARY KEY); INSERT INTO app.t VALUES (1)");

    // by hand: a label that lies stays as long as the operator is away
    group.operator_labels(false);
    group.set_as_primary(1);
    assert_eq!(group.wait_primary(Some(0)), 1);
    assert_eq!(group.labelled_primary(), Some(0));
    group.operator_labels(true);
    until("the label has moved", SOON, || group.labelled_primary() == Some(1));

    // the primary is killed, started again by the node and let in by the operator
    group.member(1).kill9();
    let third = group.wait_primary(Some(1));
    until("the label has moved", SOON, || group.labelled_primary() == Some(third));
    group.wait_online(3);

    // a member is recreated under another address
    let other = (0..3).find(|i| *i != third).expect("three members");
    let old = group.member(other).ip();
    group.recreate(other, 20);
    group.wait_online(3);
    assert_ne!(group.member(other).ip(), old);
    let rows = || group.member(other).one("SELECT COUNT(*) FROM app.t");
    until("it has the data", SOON, || rows() == Some("1".to_owned()));

    // the primary is cut off: the others go on without it, and it still believes in itself for a while
    let cut = group.member(third);
    cut.network().cut_off();
    let fourth = group.wait_primary(Some(third));
    assert_ne!(fourth, third);
    cut.network().join();
    group.wait_online(3);
    until("one label says primary", SOON, || group.labelled_primary() == Some(fourth));
}

/// Not a test by itself: the process that the next one kills.
#[test]
#[ignore = "run by the_network_of_pods_dies_with_a_killed_test_process"]
fn makes_a_network_and_waits() {
    let network = Network::start();
    let place = network.place("orphan");
    println!("uplink={} ip={}", network.uplink(), place.ip());
    std::thread::park();
}

#[test]
fn the_network_of_pods_dies_with_a_killed_test_process() {
    let mut child = Command::new(std::env::current_exe().expect("a test has a path"))
        .args(["--ignored", "--exact", "--nocapture", "makes_a_network_and_waits"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be run again");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let line = output.lines().map_while(Result::ok).find(|l| l.contains("uplink=")).expect("the network is there");
    let uplink = line.split(['=', ' ']).find(|word| word.starts_with("hfpods")).expect("its name");
    let there = || {
        let shown = Command::new("ip").args(["link", "show", uplink]).output();
        shown.is_ok_and(|out| out.status.success())
    };
    assert!(there());

    child.kill().expect("SIGKILL");
    child.wait().expect("it ended");

    until("the network is gone", SOON, || !there());
}

#[test]
fn probes_and_hooks_are_taken_from_the_pod() {
    let plane = ControlPlane::start();
    let marks = testbed::Testbed::get().new_folder("marks");
    // a web server of one line: the page is there once the folder has it
    let runner: Runner = Arc::new(|pod, sandbox| {
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "8080", "--directory"]).arg(sandbox.volume(pod, "site"));
        Program { command, ready: program::as_specified(pod, sandbox.ip) }
    });
    let node = Node::start(&plane, NodeOptions::running(runner));
    let stopping = marks.join("stopping");
    plane.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "containers": [{
                "name": "web", "image": "web", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}},
                "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", format!("hostname > {}", stopping.display())]}}},
            }],
            "volumes": [{"name": "site", "emptyDir": {}}],
        },
    }));
    let web = node.pod("default", "web");
    plane.wait_pod("default", "web", "runs", |pod| pod_ip(pod).is_some() && !is_ready(pod));
    std::fs::write(web.folder().join("volumes/site/readyz"), "yes").expect("the volume is there");
    plane.wait_pod_ready("default", "web");

    plane.delete_pod("default", "web", None);

    plane.wait_pod_gone("default", "web");
    assert_eq!(std::fs::read_to_string(stopping).expect("the hook ran").trim(), "web");
    assert_eq!(web.pid(), None);
}

#[test]
fn a_pod_that_is_removed_by_force_is_gone_for_those_who_hold_it_too() {
    let plane = ControlPlane::start();
    let node = Node::start(&plane, NodeOptions::running(mysqld(|_, _| ServerOptions::mysql())));
    plane.apply(&pod("db"));
    plane.wait_pod_ready("default", "db");
    let db = node.pod("default", "db");

    plane.delete_pod("default", "db", Some(0));

    until("its process is gone", SOON, || db.pid().is_none());
    until("so is its address", SOON, || {
        let error =
            std::net::TcpStream::connect_timeout(&db.addr(), Duration::from_secs(10)).expect_err("nobody is there");
        error.kind() == std::io::ErrorKind::HostUnreachable
    });
}
