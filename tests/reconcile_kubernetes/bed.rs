//! A control plane with the custom resources, a node that runs pods as they are specified, and a reconciler.
#![allow(dead_code, reason = "not every test needs all of it")]

use crate::testbed::kubernetes::{ControlPlane, ControlPlaneOptions, Node, NodeOptions, RunningPod, specified};
use crate::testbed::{Daemon, Port, Rows, http, metric, until};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(90);
/// mysqld itself looks only once a minute whether there is room again, and may do so several times in one start of a group.
const LATER: Duration = Duration::from_secs(240);
pub const NAMESPACE: &str = "shop";
const HOLDFAST: &str = env!("CARGO_BIN_EXE_holdfast");

pub struct Bed {
    reconciler: Daemon,
    port: Port,
    node: Node,
    account: PathBuf,
    pub plane: Arc<ControlPlane>,
}

impl Bed {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// The same with disks of so many MiB.
    pub fn start_with(disk_mib: Option<u64>) -> Self {
        let plane = Arc::new(ControlPlane::start_with(ControlPlaneOptions::with_controllers()));
        plane.namespace(NAMESPACE);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/crds");
        plane.kubectl(&["apply", "--validate=false", "-f", folder]).unwrap();
        until("the kinds are served", SOON, || plane.kubectl(&["-n", NAMESPACE, "get", "myc,myo"]).is_ok());
        // With the rights that deploy/ gives it, and no others.
        ["role.yaml", "rolebinding.yaml"].iter().for_each(|file| plane.apply(&manifest(file)));
        let account = plane.service_account(NAMESPACE, "holdfast-reconciler");
        let node =
            Node::start(&plane, NodeOptions { disk_mib, ..NodeOptions::running(specified::runner(&plane, HOLDFAST)) });
        let bed = Self { reconciler: Daemon::new("reconciler"), port: Port::take(), node, account, plane };
        bed.run_reconciler();
        bed
    }

    /// Whether it may list and watch pods; returns once the API server says so.
    pub fn may_see_pods(&self, yes: bool) {
        let mut role = manifest("role.yaml");
        let rules = role["rules"].as_array_mut().unwrap();
        let pods = rules.iter_mut().find(|rule| rule["resources"] == json!(["pods"])).unwrap();
        if !yes {
            pods["verbs"].as_array_mut().unwrap().retain(|verb| verb != "list" && verb != "watch");
        }
        self.plane.apply(&role);
        let user = format!("--as=system:serviceaccount:{NAMESPACE}:holdfast-reconciler");
        let may = || self.plane.kubectl(&["auth", "can-i", "list", "pods", "-n", NAMESPACE, &user]).is_ok();
        until("its rights have changed", SOON, || may() == yes);
    }

    /// Starts the reconciler (again).
    pub fn run_reconciler(&self) {
        self.run(Command::new(HOLDFAST));
    }

    /// One that dies behind each step that the file does not list yet.
    pub fn run_mortal_reconciler(&self, file: &Path) {
        let mut command = Command::new(HOLDFAST);
        command.env("HOLDFAST_DIE_BEHIND", file);
        self.run(command);
    }

    /// Is it alive?
    pub fn reconciler_runs(&self) -> bool {
        self.reconciler.running()
    }

    fn run(&self, mut command: Command) {
        command.args(["reconcile", "--namespace", NAMESPACE, "--identity", "test", "--kubeconfig"]);
        command.arg(&self.account);
        command.arg(format!("--listen={}", self.admin()));
        self.reconciler.run(&command).unwrap();
    }

    /// Where its admin port is.
    pub fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Its metrics.
    pub fn metrics(&self) -> String {
        http(self.port.number(), "GET /metrics").unwrap().1
    }

    /// Sum of its samples of that name whose line has all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(self.port.number(), name, labels)
    }

    /// Says that a primary looks lost, as a proxy does; the status of the answer.
    pub fn suspect(&self, query: &str) -> u16 {
        http(self.port.number(), &format!("POST /suspect?{query}")).unwrap().0
    }

    /// Does it know of a cluster?
    pub fn knows_clusters(&self) -> bool {
        http(self.port.number(), "GET /status.json").is_ok() && self.page()["clusters"] != json!([])
    }

    /// What its status page is fed with.
    pub fn page(&self) -> Value {
        serde_json::from_str(&http(self.port.number(), "GET /status.json").unwrap().1).unwrap()
    }

    /// `kill -9` of the reconciler.
    pub fn kill_reconciler(&self) {
        if self.reconciler.running() {
            self.reconciler.kill9();
        }
    }

    /// SIGSTOP of the reconciler.
    pub fn freeze_reconciler(&self) {
        self.reconciler.freeze();
    }

    /// SIGCONT.
    pub fn thaw_reconciler(&self) {
        self.reconciler.thaw();
    }

    /// No room is left for this pod's data.
    pub fn fill(&self, pod: &str) {
        self.node.disks().fill(&format!("{NAMESPACE}/data-{pod}"));
    }

    /// There is room again.
    pub fn free(&self, pod: &str) {
        self.node.disks().free(&format!("{NAMESPACE}/data-{pod}"));
    }

    /// Makes a MysqlCluster with servers that are small; its spec.
    pub fn create(&self, name: &str, spec: &Value) -> Value {
        let mut spec = spec.clone();
        spec["image"] = json!("mysql:9.7");
        let small = json!({ "innodb-buffer-pool-size": "32M", "innodb-redo-log-capacity": "32M", "innodb-log-buffer-size": "4M",
            "table-open-cache": "400", "max-connections": "100", "sync-binlog": "0", "innodb-flush-log-at-trx-commit": "2" });
        let mut small = small;
        if spec["topology"] == "group" {
            small["loose-group_replication_message_cache_size"] = json!("128M");
        }
        if spec["mysqlConf"].is_null() {
            spec["mysqlConf"] = small;
        }
        self.apply(name, &spec);
        spec
    }

    /// The spec as given.
    pub fn apply(&self, name: &str, spec: &Value) {
        self.plane.apply(&json!({ "apiVersion": "holdfast.io/v1alpha1", "kind": "MysqlCluster",
            "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec }));
    }

    /// A volume of a storage class whose volumes may grow.
    pub fn volume(&self, name: &str, class: &str, size: &str) {
        self.plane
            .apply(&json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": class },
            "provisioner": "kubernetes.io/no-provisioner", "allowVolumeExpansion": true }));
        self.plane.apply(&json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": { "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "hostPath": { "path": "/nowhere" } } }));
    }

    /// A MysqlOperation.
    pub fn ask(&self, name: &str, spec: &Value) {
        self.plane.apply(&json!({ "apiVersion": "holdfast.io/v1alpha1", "kind": "MysqlOperation",
            "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec }));
    }

    pub fn object(&self, kind: &str, name: &str) -> Value {
        let text = self.plane.kubectl(&["-n", NAMESPACE, "get", kind, name, "-o", "json"]).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub fn status(&self, name: &str) -> Value {
        self.object("myc", name)["status"].clone()
    }

    pub fn condition(&self, name: &str, kind: &str) -> Value {
        let status = self.status(name);
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
    }

    /// Waits until it is Ready.
    pub fn wait_ready(&self, name: &str) {
        self.wait(name, "is Ready", || self.is_ready(name));
    }

    /// Waits until it is Ready and every server by its own word is what it should be.
    pub fn wait_whole(&self, name: &str) {
        self.wait_for((name, "is whole"), LATER, || self.is_whole(name));
    }

    /// Is it Ready, and is every server by its own word what it should be?
    pub fn is_whole(&self, name: &str) -> bool {
        let spec = self.object("myc", name)["spec"].clone();
        let (primary, pods) = (self.settled(name).unwrap_or_default(), self.pods(name));
        let all = pods.len() as u64 == spec["replicas"];
        all && pods.iter().all(|pod| self.is_right(name, pod, &primary, &spec)) && self.is_ready(name)
    }

    fn is_ready(&self, name: &str) -> bool {
        self.condition(name, "Ready")["status"] == "True"
    }

    /// Is the server what it should be: the only one that is writable, or one that receives and is read-only?
    fn is_right(&self, name: &str, pod: &str, primary: &str, spec: &Value) -> bool {
        let Some(running) = self.node.find(NAMESPACE, pod).filter(|running| running.ready()) else { return false };
        let flags = "SELECT CONCAT(@@super_read_only, @@read_only, @@offline_mode), \
             (SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE'), \
             (SELECT COUNT(*) FROM performance_schema.replication_connection_status WHERE SERVICE_STATE = 'ON' AND \
             CHANNEL_NAME = '')";
        let password = self.password(name, "root");
        let Ok(rows) = running.try_sql_as(("root", &password), flags) else { return false };
        let (flags, online, receives) = (&*rows[0][0], &*rows[0][1], &*rows[0][2]);
        let connected = match spec["topology"].as_str() {
            Some("group") => spec["replicas"] == online.parse::<u64>().unwrap(),
            _ => (receives == "1") == (pod != primary),
        };
        connected && flags == if pod == primary { "000" } else { "110" }
    }

    /// Waits for something of that cluster; says all that is known of it when that does not come.
    pub fn wait(&self, name: &str, what: &str, wanted: impl FnMut() -> bool) {
        self.wait_for((name, what), SOON, wanted);
    }

    /// The same with another patience.
    fn wait_for(&self, (name, what): (&str, &str), patience: Duration, wanted: impl FnMut() -> bool) {
        let done = catch_unwind(AssertUnwindSafe(|| until(&format!("{name} {what}"), patience, wanted)));
        let pods = || self.plane.kubectl(&["-n", NAMESPACE, "get", "pods", "--show-labels"]).unwrap_or_else(|e| e);
        assert!(done.is_ok(), "{name} {what}: not so\n{:#}\n{}\n{}", self.status(name), pods(), self.log());
    }

    /// What the reconciler has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Where it logs.
    pub fn log_file(&self) -> PathBuf {
        self.reconciler.dir().join("out.log")
    }

    /// Waits until the reconciler logs these words once more.
    pub fn wait_log(&self, words: &str) {
        let before = self.log().matches(words).count();
        until(&format!("the log says {words:?}"), SOON, || self.log().matches(words).count() > before);
    }

    /// The primary, if it is not about to change.
    pub fn settled(&self, name: &str) -> Option<String> {
        let status = self.status(name);
        let primary = status["primary"].as_str()?;
        (status["targetPrimary"] == primary).then(|| primary.to_owned())
    }

    pub fn primary(&self, name: &str) -> String {
        self.status(name)["primary"].as_str().unwrap_or_default().to_owned()
    }

    /// Names of the pods of a cluster.
    pub fn pods(&self, cluster: &str) -> Vec<String> {
        let label = format!("holdfast.io/cluster={cluster}");
        let names = self.plane.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", &label, "-o", "name"]).unwrap();
        names.lines().map(|line| line.trim_start_matches("pod/").to_owned()).collect()
    }

    /// How many of its pods are labelled as followers.
    pub fn followers(&self, cluster: &str) -> usize {
        let label = format!("holdfast.io/cluster={cluster},holdfast.io/role=follower");
        let names = self.plane.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", &label, "-o", "name"]).unwrap();
        names.lines().count()
    }

    pub fn pod(&self, name: &str) -> Arc<RunningPod> {
        self.node.pod(NAMESPACE, name)
    }

    /// The password of an account.
    pub fn password(&self, cluster: &str, key: &str) -> String {
        let path = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        let secret = format!("{cluster}-accounts");
        self.plane.kubectl(&["-n", NAMESPACE, "get", "secret", &secret, "-o", &path]).unwrap()
    }

    /// SQL as root on a pod; no rows while it is going or coming.
    pub fn sql(&self, cluster: &str, pod: &str, sql: &str) -> Rows {
        let password = self.password(cluster, "root");
        self.pod(pod).try_sql_as(("root", &password), sql).unwrap_or_else(|e| {
            eprintln!("{pod}: {e}\nin: {sql}");
            Rows::new()
        })
    }
}

/// A manifest of the reconciler's, put into the test's namespace as kustomize would.
fn manifest(file: &str) -> Value {
    let path = format!("{}/deploy/kubernetes/reconciler/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut manifest: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    manifest["metadata"]["namespace"] = json!(NAMESPACE);
    manifest
}
