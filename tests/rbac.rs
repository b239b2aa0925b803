//! The rights that deploy/ gives the proxy are the least that it can do with: each verb is taken away in turn, on a real API
//! server, and something breaks that the proxy can name; with all of them back it goes on by itself.
#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod proxy;
mod testbed;

use proxy::{Options, Proxy};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use testbed::kubernetes::ControlPlane;
use testbed::{Server, ServerOptions, until};

const SOON: Duration = Duration::from_secs(90);
const NAMESPACE: &str = "shop";
/// What deploy/kubernetes calls the ServiceAccount.
const USER: &str = "system:serviceaccount:shop:holdfast";
const ROLE: &str = "holdfast.io/role";

/// A manifest of deploy/kubernetes/base, put into the test's namespace as kustomize would.
fn manifest(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes/base").join(file);
    let mut manifest: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    manifest["metadata"]["namespace"] = json!(NAMESPACE);
    manifest
}

/// A control plane with one pod, in front of a server, and with the rights of the manifests.
struct Bed {
    plane: ControlPlane,
    account: PathBuf,
    _server: Server,
}

impl Bed {
    fn start() -> Self {
        let (server, plane) = (Server::start(ServerOptions::mysql().named("rights")), ControlPlane::start());
        plane.namespace(NAMESPACE);
        plane.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "db-0", "namespace": NAMESPACE, "labels": { "holdfast.io/cluster": "main" } },
            "spec": { "containers": [{ "name": "mysql", "image": "mysql", "ports": [
                { "name": "mysql", "containerPort": server.port() },
            ] }] },
        }));
        plane.set_status(NAMESPACE, "db-0", "127.0.0.1", true);
        for file in ["serviceaccount.yaml", "role.yaml", "rolebinding.yaml"] {
            plane.apply(&manifest(file));
        }
        let account = plane.service_account(NAMESPACE, "holdfast");
        Self { plane, account, _server: server }
    }

    /// A proxy with that account, started now: as in the manifests, it is not told the namespace.
    fn proxy(&self) -> Proxy {
        Proxy::launch(Options::pods(&format!("kubeconfig = \"{}\", preset = \"holdfast\"", self.account.display())))
    }

    /// The Role's only rule has these verbs from now on.
    fn grant(&self, verbs: &[String]) {
        let mut role = manifest("role.yaml");
        role["rules"][0]["verbs"] = json!(verbs);
        self.plane.apply(&role);
    }

    fn label(&self, role: &str) {
        self.plane.relabel(NAMESPACE, "db-0", &[(ROLE, Some(role))]);
    }

    fn may(&self, verb: &str, resource: &str, namespace: &str) -> bool {
        self.plane.kubectl(&["auth", "can-i", verb, resource, "-n", namespace, "--as", USER]).is_ok()
    }
}

/// The verbs of the Role, which has one rule for one resource.
fn verbs() -> Vec<String> {
    let mut role = manifest("role.yaml");
    let verbs = role["rules"][0]["verbs"].take();
    assert_eq!(role["rules"], json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": null }]));
    serde_json::from_value(verbs).unwrap()
}

fn readyz(proxy: &Proxy) -> (u16, String) {
    proxy.http("/readyz").unwrap()
}

fn backends(proxy: &Proxy) -> Vec<Value> {
    let (_, body) = proxy.http("/topology").unwrap();
    let mut topology: Value = serde_json::from_str(&body).unwrap();
    serde_json::from_value(topology["clusters"][0]["backends"].take()).unwrap()
}

fn wait_label(proxy: &Proxy, label: &str) {
    until(&format!("the label is {label}"), SOON, || backends(proxy).iter().any(|pod| pod["label"] == label));
}

/// Waits until /readyz and the log name the missing right.
fn wait_missing(proxy: &Proxy, verb: &str) {
    let words = format!("the right to {verb} pods in namespace {NAMESPACE} is missing");
    until(&words, SOON, || readyz(proxy).1.contains(&words));
    assert!(proxy.log().contains(&words), "{}", proxy.log());
    assert_eq!(proxy.metric("holdfast_kubernetes_watch_up", &[]), 0.0);
}

/// Waits until the API server has refused it twice more.
fn wait_refused_twice(proxy: &Proxy) {
    let refused = || proxy.metric("holdfast_kubernetes_watch_errors_total", &["kind=\"forbidden\""]);
    let before = refused();
    until("it is refused twice more", SOON, || refused() >= before + 2.0);
}

/// Without `list` nothing is known of any pod.
fn breaks_without_list(proxy: &Proxy) {
    wait_missing(proxy, "list");
    let (status, body) = readyz(proxy);
    assert_eq!(status, 503, "{body}");
    assert!(backends(proxy).is_empty(), "{:?}", backends(proxy));
}

/// Without `watch` what there was is known, and stays as it was.
fn breaks_without_watch(bed: &Bed, proxy: &Proxy) {
    wait_missing(proxy, "watch");
    until("the pods that were listed serve", SOON, || readyz(proxy).0 == 200);
    wait_label(proxy, "follower");
    bed.label("primary");
    wait_refused_twice(proxy);
    assert_eq!(backends(proxy)[0]["label"], "follower");
}

#[test]
fn each_right_is_needed_and_no_other_is_given() {
    let (bed, verbs) = (Bed::start(), verbs());
    for (verb, resource, namespace, may) in [
        ("list", "pods", NAMESPACE, true),
        ("watch", "pods", NAMESPACE, true),
        ("get", "pods", NAMESPACE, false),
        ("patch", "pods", NAMESPACE, false),
        ("list", "secrets", NAMESPACE, false),
        ("list", "pods", "default", false),
    ] {
        assert_eq!(bed.may(verb, resource, namespace), may, "{verb} {resource} in {namespace}");
    }

    // With exactly these rights all is well.
    bed.label("primary");
    let proxy = bed.proxy();
    wait_label(&proxy, "primary");
    until("it is ready", SOON, || readyz(&proxy) == (200, "ready\n".to_owned()));
    bed.label("follower");
    wait_label(&proxy, "follower");
    assert!(!proxy.log().contains("is missing"), "{}", proxy.log());
    drop(proxy);

    for verb in &verbs {
        bed.label("follower");
        let others: Vec<String> = verbs.iter().filter(|other| *other != verb).cloned().collect();
        bed.grant(&others);
        let proxy = bed.proxy();
        match verb.as_str() {
            "list" => breaks_without_list(&proxy),
            "watch" => breaks_without_watch(&bed, &proxy),
            other => panic!("the Role gives {other}, and nothing says what for"),
        }
        // And with it the same process is well again.
        bed.grant(&verbs);
        until("it is ready", SOON, || readyz(&proxy) == (200, "ready\n".to_owned()));
        proxy.wait_log("pods are watched again");
        for label in ["primary", "follower"] {
            bed.label(label);
            wait_label(&proxy, label);
        }
    }
}
