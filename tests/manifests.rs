//! What is in deploy/kubernetes and deploy/helm, as users apply it: every manifest passes a server-side dry run on a real API
//! server, every configuration in them is one the proxy takes, every alert and every panel asks for metrics that exist, and
//! the pods are what hardened clusters admit.
//!
//! The API server is 1.20. What it cannot know is listed in [`ELSEWHERE`]; what it knows under an older version is sent as
//! that ([`OLDER`]), so that its fields are checked all the same.

#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod testbed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use holdfast::config;
use serde_json::{Value, json};
use testbed::Testbed;
use testbed::kubernetes::ControlPlane;
use testbed::until;

const SOON: std::time::Duration = std::time::Duration::from_secs(60);

/// Custom resources of the Prometheus operator and of cert-manager.
const ELSEWHERE: &[&str] = &["ServiceMonitor", "PrometheusRule", "Certificate"];
/// API versions that came after 1.20, and those of the same shape before.
const OLDER: &[(&str, &str)] = &[("policy/v1", "policy/v1beta1"), ("autoscaling/v2", "autoscaling/v2beta2")];
const PRESETS: [&str; 8] =
    ["kubeblocks", "innodbcluster", "oracle-v1alpha1", "bitpoke", "moco", "percona", "statefulset", "holdfast"];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn run(command: &mut Command) -> Result<String, String> {
    let out = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

/// What `kubectl kustomize` makes of a folder of deploy/kubernetes.
fn kustomize(folder: &str) -> Vec<Value> {
    let kubectl = Testbed::get().path("kubernetes", "KUBECTL");
    let text = run(Command::new(kubectl).arg("kustomize").arg(deploy().join("kubernetes").join(folder)));
    documents(&text.unwrap_or_else(|e| panic!("{folder}: {e}")))
}

/// What `helm template app deploy/helm/holdfast -n databases` makes of these values.
fn helm(values: &Value) -> Result<Vec<Value>, String> {
    let library = Testbed::get().path("helm", "HELM_LIBRARY");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/helm.py");
    let chart = deploy().join("helm/holdfast");
    let mut command = Command::new("python3");
    command.arg(script).arg(library).arg("template").arg(chart).args(["app", "databases", &values.to_string()]);
    run(&mut command).map(|text| documents(&text))
}

fn documents(yaml: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// Values that reach every branch of the chart.
fn values() -> Vec<(&'static str, Value)> {
    let account = json!({ "user": "holdfast", "secretName": "orders-account", "key": "password" });
    let presets: Vec<Value> = (3306..)
        .zip(PRESETS)
        .map(|(port, preset)| json!({ "name": preset, "preset": preset, "cluster": "c", "account": account, "port": port }))
        .collect();
    let certificate =
        json!({ "create": true, "issuerRef": { "name": "ca", "kind": "Issuer" }, "dnsNames": ["db.example.org"] });
    let monitoring = json!({
        "serviceMonitor": { "enabled": true, "labels": { "release": "prometheus" } },
        "rules": { "enabled": true },
        "dashboard": { "enabled": true },
    });
    let own = std::fs::read_to_string(deploy().join("kubernetes/base/holdfast.toml")).unwrap();
    vec![
        ("defaults", json!({})),
        ("every preset", json!({ "clusters": presets })),
        (
            "everything on",
            json!({ "tls": { "certificate": certificate }, "monitoring": monitoring, "podAnnotations": { "a": "b" } }),
        ),
        (
            "everything off",
            json!({
                "autoscaling": { "enabled": false }, "podDisruptionBudget": { "enabled": false },
                "networkPolicy": { "enabled": false }, "rbac": { "create": false },
                "serviceAccount": { "create": false, "name": "mine" }, "preStopSeconds": 0,
            }),
        ),
        (
            "other namespaces and TLS",
            json!({
                "clusters": [{
                    "name": "orders", "preset": "kubeblocks", "cluster": "orders", "component": "mysql",
                    "namespaces": ["one", "two"], "account": account, "port": 3306, "mode": "primary", "caSecretName": "orders-ca",
                    "reconciler": "holdfast-reconciler.one:9090",
                }],
                "tls": { "secretName": "port-tls", "mode": "required" },
            }),
        ),
        ("cluster wide", json!({ "rbac": { "clusterWide": true } })),
        (
            "a configuration of one's own",
            json!({ "config": own.replace("/account/", "/secrets/holdfast-account/"), "secrets": ["holdfast-account"], "ports": { "app": 3306 } }),
        ),
    ]
}

/// Everything there is, with a name for messages.
fn all() -> &'static [(String, Vec<Value>)] {
    static ALL: LazyLock<Vec<(String, Vec<Value>)>> = LazyLock::new(make_all);
    &ALL
}

fn make_all() -> Vec<(String, Vec<Value>)> {
    let overlays = PRESETS.iter().map(|preset| format!("overlays/{preset}"));
    let folders = overlays.chain(["base".to_owned(), "monitoring".to_owned()]);
    let charts = values()
        .into_iter()
        .map(|(name, values)| (format!("helm, {name}"), helm(&values).unwrap_or_else(|e| panic!("{name}: {e}"))));
    folders.map(|folder| (folder.clone(), kustomize(&folder))).chain(charts).collect()
}

fn kind(document: &Value) -> &str {
    document["kind"].as_str().unwrap()
}

#[test]
fn everything_passes_a_dry_run() {
    let plane = ControlPlane::start();
    plane.kubectl(&["apply", "--validate=false", "-f", &deploy().join("crds").display().to_string()]).unwrap();
    until("the kinds are served", SOON, || plane.kubectl(&["get", "myc"]).is_ok());
    for namespace in ["databases", "one", "two"] {
        plane.namespace(namespace);
    }
    let (mut passed, mut skipped) = (0, Vec::new());
    let kept = ["reconciler", "clusters/standalone", "clusters/semisync", "clusters/group", "clusters/external"];
    let kept = kept.map(|folder| (folder.to_owned(), kustomize(folder)));
    for (name, documents) in all().iter().chain(&kept) {
        let mut wanted: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for document in documents {
            if ELSEWHERE.contains(&kind(document)) {
                skipped.push(kind(document).to_owned());
                continue;
            }
            let mut document = document.clone();
            if let Some((_, older)) = OLDER.iter().find(|(newer, _)| document["apiVersion"] == *newer) {
                document["apiVersion"] = json!(older);
            }
            let namespace = document["metadata"]["namespace"].as_str().unwrap_or("databases").to_owned();
            wanted.entry(namespace).or_default().push(document);
        }
        for (namespace, documents) in wanted {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": documents });
            // kubectl looks at the fields' names too, which the server drops in silence.
            let arguments = ["apply", "--dry-run=server", "--validate=true", "-n", &namespace, "-f", "-"];
            let said = plane.kubectl_with(&arguments, &list.to_string());
            let said = said.unwrap_or_else(|e| panic!("{name}: {e}\n{list:#}"));
            assert_eq!(said.matches("server dry run").count(), documents.len(), "{name}: {said}");
            passed += documents.len();
        }
    }
    skipped.sort();
    skipped.dedup();
    println!("{passed} manifests passed a server-side dry run; not known to this server: {}", skipped.join(", "));
    assert_eq!(skipped, ["Certificate", "PrometheusRule", "ServiceMonitor"]);
    // And the check can fail, whatever is right beside it.
    let right = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" } });
    let wrong = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "x" }, "spec": { "prots": [] } });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [right, wrong] });
    plane.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &list.to_string()).unwrap_err();
}

#[test]
fn the_chart_refuses_what_it_does_not_know() {
    let wrong = [
        json!({ "replica": 2 }),
        json!({ "replicas": "two" }),
        json!({ "clusters": [{ "name": "a", "preset": "oracle", "account": { "user": "u", "secretName": "s", "key": "k" }, "port": 3306 }] }),
        json!({ "clusters": [{ "name": "a", "preset": "moco", "account": { "user": "u", "secretName": "s", "key": "k" }, "port": 306 }] }),
        json!({ "image": { "repository": "" } }),
        json!({ "clusters": [{ "name": "a", "preset": "moco", "account": { "user": "u", "secretName": "s", "key": "k" }, "port": 3306, "reconciler": "r" }] }),
    ];
    for values in wrong {
        let error = helm(&values).unwrap_err();
        assert!(error.contains("helm: holdfast:"), "{values}: {error}");
    }
}

/// The files that a pod has mounted, under another root.
fn mounted(pod: &Value, root: &Path) {
    for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
        let folder = root.join(mount["mountPath"].as_str().unwrap().trim_start_matches('/'));
        std::fs::create_dir_all(&folder).unwrap();
        let files = Testbed::get().tls();
        for (name, from) in [("tls.crt", files.server_cert), ("tls.key", files.server_key), ("ca.crt", files.ca)] {
            std::fs::copy(from, folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("password"), "secret").unwrap();
    }
}

#[test]
fn every_configuration_is_one_the_proxy_takes() {
    let mut seen = 0;
    for (name, documents) in all().iter().filter(|(name, _)| name != "monitoring") {
        let config =
            documents.iter().find_map(|d| d["data"]["holdfast.toml"].as_str()).unwrap_or_else(|| panic!("{name}"));
        let deployment = documents.iter().find(|d| kind(d) == "Deployment").unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let root = Testbed::get().new_folder("pod");
        mounted(pod, &root);
        let text = config.replace("/etc/holdfast/", &format!("{}/etc/holdfast/", root.display()));
        let config = config::parse(&text, "holdfast.toml", std::iter::empty())
            .unwrap_or_else(|e| panic!("{name}: {e}\n{config}"));

        // Each listener's port is a port of the container, which the Service leads to; so is the admin port.
        let container = &pod["containers"][0];
        let ports: Vec<_> =
            container["ports"].as_array().unwrap().iter().map(|p| p["containerPort"].as_u64().unwrap()).collect();
        for listener in &config.listeners {
            assert!(ports.contains(&u64::from(listener.listen.port())), "{name}: {}", listener.listen);
        }
        assert!(ports.contains(&u64::from(config.admin.unwrap().listen.port())), "{name}");
        // Everything that follows a deletion has its time.
        let sleep = container["lifecycle"]["preStop"]["exec"]["command"][1].as_str().map_or(0, |s| s.parse().unwrap());
        let shutdown = config.proxy.shutdown;
        let needs = sleep + (shutdown.deadline + shutdown.transactions).as_secs();
        let has = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(has > needs, "{name}: {has} s of grace for {needs} s of work");
        seen += 1;
    }
    assert_eq!(seen, PRESETS.len() + 1 + values().len());
}

/// What of these is of that kind and called so.
fn named<'a>(documents: &'a [Value], wanted: &str, name: &str) -> &'a Value {
    let found = documents.iter().find(|d| kind(d) == wanted && d["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {wanted} {name}"))
}

/// From the proxy's configuration over both network policies to the reconciler's port.
#[test]
fn a_proxy_of_our_own_clusters_reaches_the_reconciler_it_tells() {
    let kept = kustomize("reconciler");
    let reconciler = &named(&kept, "Deployment", "holdfast-reconciler")["spec"]["template"];
    let container = &reconciler["spec"]["containers"][0];
    let (service, inside) =
        (named(&kept, "Service", "holdfast-reconciler"), named(&kept, "NetworkPolicy", "holdfast-reconciler"));
    for folder in ["clusters/standalone", "clusters/semisync", "clusters/group"] {
        let documents = kustomize(folder);
        let proxy = &named(&documents, "Deployment", "holdfast")["spec"]["template"];
        let root = Testbed::get().new_folder("told");
        mounted(&proxy["spec"], &root);
        let text = named(&documents, "ConfigMap", "holdfast")["data"]["holdfast.toml"].as_str().unwrap();
        let text = text.replace("/etc/holdfast/", &format!("{}/etc/holdfast/", root.display()));
        let env = proxy["spec"]["containers"][0]["env"].as_array().unwrap().iter();
        let env = env.filter_map(|e| Some((e["name"].as_str()?.to_owned(), e["value"].as_str()?.to_owned())));
        let config = config::parse(&text, "holdfast.toml", env).unwrap_or_else(|e| panic!("{folder}: {e}"));

        let told = config.clusters[0].reconciler.clone().unwrap_or_else(|| panic!("{folder}: nobody is told"));
        assert_eq!(service["metadata"]["name"], *told.host, "{folder}");
        assert_eq!(service["spec"]["clusterIP"], "None", "the name leads to all of them");
        assert_eq!(service["spec"]["selector"], reconciler["metadata"]["labels"], "{folder}");
        let port = &service["spec"]["ports"][0];
        assert_eq!((&port["port"], &port["targetPort"]), (&json!(told.port), &container["ports"][0]["name"]));
        assert_eq!(container["ports"][0]["containerPort"], told.port, "no proxy between: the pod's own port");
        let listens = format!("0.0.0.0:{}", told.port);
        assert!(container["args"].as_array().unwrap().contains(&json!(listens)), "{container}");

        let out = named(&documents, "NetworkPolicy", "holdfast")["spec"]["egress"].as_array().unwrap();
        let rule = out.iter().find(|rule| rule["ports"][0]["port"] == told.port).unwrap();
        assert_eq!(rule["to"][0]["podSelector"]["matchLabels"], reconciler["metadata"]["labels"], "{folder}");
        let rule = &inside["spec"]["ingress"][0];
        assert_eq!(rule["from"][0]["podSelector"]["matchLabels"], proxy["metadata"]["labels"], "{folder}");
        assert_eq!(rule["ports"][0]["port"], port["targetPort"], "{folder}");
    }
}

#[test]
fn pods_are_what_a_hardened_cluster_admits() {
    for (name, documents) in all() {
        for deployment in documents.iter().filter(|d| kind(d) == "Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            let container = &pod["containers"][0];
            // The restricted profile of the Pod Security Standards.
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }), "{name}");
            // And beyond it.
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert!(container[probe]["httpGet"]["path"].is_string(), "{name}: {probe}");
            }
            for resource in ["cpu", "memory"] {
                assert!(container["resources"]["requests"][resource].is_string(), "{name}: {resource}");
            }
            let mounts = container["volumeMounts"].as_array().unwrap();
            assert!(mounts.iter().all(|m| m["subPath"].is_null() && m["readOnly"] == true), "{name}: {mounts:?}");
        }
        for role in documents.iter().filter(|d| kind(d).ends_with("Role")) {
            let least = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"] }]);
            assert_eq!(role["rules"], least, "{name}");
        }
    }
}

#[test]
fn the_chart_and_kustomize_have_the_same_alerts_and_dashboard() {
    let ours = kustomize("monitoring");
    let on = json!({ "monitoring": { "rules": { "enabled": true }, "dashboard": { "enabled": true } } });
    let theirs = helm(&on).unwrap();
    let rules = |all: &[Value]| all.iter().find(|d| kind(d) == "PrometheusRule").unwrap()["spec"].clone();
    let dashboard =
        |all: &[Value]| all.iter().find_map(|d| d["data"]["holdfast.json"].as_str().map(str::to_owned)).unwrap();
    assert_eq!(rules(&ours), rules(&theirs));
    assert_eq!(dashboard(&ours).trim(), dashboard(&theirs).trim());
}

/// Every PromQL expression of the alerts and of the dashboard, with the dashboard's variables filled in.
fn expressions() -> Vec<String> {
    let documents = kustomize("monitoring");
    let rules = documents.iter().find(|d| kind(d) == "PrometheusRule").unwrap();
    let alerts = rules["spec"]["groups"][0]["rules"].as_array().unwrap();
    let mut all: Vec<String> = alerts.iter().map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect();
    let dashboard = documents.iter().find_map(|d| d["data"]["holdfast.json"].as_str()).unwrap();
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    all.extend(targets.map(|target| target["expr"].as_str().unwrap().to_owned()));
    all.push(dashboard["annotations"]["list"][0]["expr"].as_str().unwrap().to_owned());
    assert!(all.len() > 30);
    let filled = |e: String| {
        e.replace("$__rate_interval", "5m")
            .replace("$__range", "1h")
            .replace("$namespace", ".*")
            .replace("$cluster", ".*")
    };
    all.into_iter().map(filled).collect()
}

#[test]
fn alerts_and_panels_ask_for_metrics_that_exist() {
    let source = include_str!("../src/metrics.rs");
    for expression in expressions() {
        let mut names = 0;
        for word in
            expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("holdfast_"))
        {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            assert!(source.contains(&format!("\"{base}\"")), "no metric {word}: {expression}");
            names += 1;
        }
        assert!(names > 0, "{expression}");
    }
}

fn promtool(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    run(Command::new(Testbed::get().path("prometheus", "PROMTOOL")).current_dir(folder).args(arguments))
}

#[test]
fn prometheus_takes_the_rules_and_the_panels() {
    let folder = Testbed::get().new_folder("promtool");
    let documents = kustomize("monitoring");
    let spec = &documents.iter().find(|d| kind(d) == "PrometheusRule").unwrap()["spec"];
    // JSON is YAML.
    std::fs::write(folder.join("alerts.yaml"), spec.to_string()).unwrap();
    promtool(&folder, &["check", "rules", "alerts.yaml"]).unwrap();
    let records: Vec<_> = expressions().iter().map(|expr| json!({ "record": "panel", "expr": expr })).collect();
    std::fs::write(folder.join("panels.yaml"), json!({ "groups": [{ "name": "p", "rules": records }] }).to_string())
        .unwrap();
    // Duplicate names are no matter here: each is only to be parsed.
    promtool(&folder, &["check", "rules", "--lint=none", "panels.yaml"]).unwrap();

    let tests =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests/alerts.yaml")).unwrap();
    std::fs::write(folder.join("tests.yaml"), tests).unwrap();
    let said = promtool(&folder, &["test", "rules", "tests.yaml"]);
    said.unwrap_or_else(|e| panic!("{e}"));
}
