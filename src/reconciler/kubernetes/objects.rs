//! \[pure\] What belongs to a cluster: StatefulSet, Services, ConfigMap, PodDisruptionBudget, as server-side apply wants them.
//!
//! Pods are replaced only by us (OnDelete), all may start at once (Parallel: after an outage they need each other), and none
//! has a shell script: `holdfast init` writes down what the server is to be, the server's own program initialises its data and
//! then runs.

use super::conf;
use crate::reconciler::resource::{MysqlCluster, TopologyKind};
use serde_json::{Value, json};

/// The label that makes a pod one of a cluster's.
pub const CLUSTER: &str = "holdfast.io/cluster";
/// On the template: changes when members are to restart.
pub const RESTARTED: &str = "holdfast.io/restarted";
/// On every object.
pub const BY: &str = "app.kubernetes.io/managed-by";
/// uid and gid of the servers, as the official images have them.
const SERVER: u32 = 999;

/// Name of the StatefulSet, and of the Service that leads to the primary.
pub fn set_name(cluster: &str) -> String {
    format!("{cluster}-mysql")
}

/// Name of a member's pod.
pub fn pod_name(cluster: &str, ordinal: u32) -> String {
    format!("{cluster}-mysql-{ordinal}")
}

/// Name of the Secret with the accounts.
pub fn secret_name(cluster: &str) -> String {
    format!("{cluster}-accounts")
}

/// Ordinal of a pod of this cluster by its name.
pub fn ordinal(cluster: &str, pod: &str) -> Option<u32> {
    pod.strip_prefix(cluster)?.strip_prefix("-mysql-")?.parse().ok()
}

/// Name of the option file, by its content, so that a change of it is a change of the pods.
pub fn config_name(cluster: &MysqlCluster) -> String {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    format!("{}-{:08x}", set_name(name), conf::hash(&conf::my_cnf(cluster)))
}

/// Everything but the Secret, with `replicas` pods that are initialised by this image of Holdfast.
pub fn owned(cluster: &MysqlCluster, image: &str, replicas: u32) -> Vec<Value> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let owned = Owned { cluster, name };
    let grouped = cluster.spec.topology == TopologyKind::Group;
    let group = json!([{ "name": "mysql", "port": 3306, "protocol": "TCP" }, { "name": "group", "port": 33061, "protocol": "TCP" }]);
    let one = json!([{ "name": "mysql", "port": 3306, "protocol": "TCP" }]);
    let all = json!({ CLUSTER: name });
    let role = |role: &str| json!({ CLUSTER: name, super::ROLE: role });
    vec![
        owned.object("v1", "ConfigMap", &config_name(cluster), json!({ "data": { "my.cnf": conf::my_cnf(cluster) } })),
        // Found before they are ready: they need each other to get there.
        owned.service(
            "-headless",
            json!({ "clusterIP": "None", "publishNotReadyAddresses": true, "selector": all,
            "ports": if grouped { group } else { one.clone() } }),
        ),
        owned.service("", json!({ "selector": role("primary"), "ports": one })),
        owned.service("-ro", json!({ "selector": role("follower"), "ports": one })),
        owned.object(
            "policy/v1",
            "PodDisruptionBudget",
            &set_name(name),
            json!({ "spec": { "maxUnavailable": 1, "selector": { "matchLabels": all } } }),
        ),
        owned.object("apps/v1", "StatefulSet", &set_name(name), json!({ "spec": owned.set(image, replicas) })),
    ]
}

struct Owned<'a> {
    cluster: &'a MysqlCluster,
    name: &'a str,
}

impl Owned<'_> {
    fn object(&self, version: &str, kind: &str, name: &str, body: Value) -> Value {
        let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": metadata(self.cluster, name) });
        merge(&mut object, body);
        object
    }

    fn service(&self, suffix: &str, spec: Value) -> Value {
        self.object("v1", "Service", &format!("{}{suffix}", set_name(self.name)), json!({ "spec": spec }))
    }

    fn set(&self, image: &str, replicas: u32) -> Value {
        let storage = &self.cluster.spec.storage;
        let mut claim =
            json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": storage.size } } });
        if let Some(class) = &storage.class {
            claim["storageClassName"] = json!(class);
        }
        let restarted = self.cluster.metadata.annotations.as_ref().and_then(|all| all.get(RESTARTED));
        let annotations = restarted.map(|when| json!({ RESTARTED: when })).unwrap_or_else(|| json!({}));
        json!({
            "replicas": replicas,
            "serviceName": format!("{}-headless", set_name(self.name)),
            "podManagementPolicy": "Parallel",
            "updateStrategy": { "type": "OnDelete" },
            "selector": { "matchLabels": { CLUSTER: self.name } },
            "template": {
                "metadata": { "labels": labels(self.name), "annotations": annotations },
                "spec": self.pod(image),
            },
            "volumeClaimTemplates": [{ "metadata": { "name": "data", "labels": labels(self.name) }, "spec": claim }],
        })
    }

    fn pod(&self, image: &str) -> Value {
        let spec = &self.cluster.spec;
        let server = spec.image.as_deref().unwrap_or_default();
        let uid = self.cluster.metadata.uid.as_deref().unwrap_or_default();
        let (data, run) = (mount("data", "/var/lib/mysql"), mount("run", "/run/holdfast"));
        let init = |name: &str, more: &[&str]| {
            let ids = conf::server_ids(uid).to_string();
            let common = [
                "init",
                "--server-ids",
                &ids,
                "--config",
                "/etc/holdfast/config/my.cnf",
                "--accounts",
                "/etc/holdfast/accounts",
                "--data",
                "/var/lib/mysql",
                "--run",
                "/run/holdfast",
            ];
            let mtls: &[&str] = if spec.tls.mtls { &["--mtls"] } else { &[] };
            let args: Vec<&str> = common.iter().chain(mtls).chain(more).copied().collect();
            json!({ "name": name, "image": image, "securityContext": closed(), "args": args,
                "env": [from("POD_NAME", "metadata.name"), from("POD_IP", "status.podIP")],
                "volumeMounts": [data, run, mount("config", "/etc/holdfast/config"), mount("accounts", "/etc/holdfast/accounts")] })
        };
        let mut pod = json!({
            "terminationGracePeriodSeconds": 60,
            "automountServiceAccountToken": false,
            "securityContext": { "runAsUser": SERVER, "runAsGroup": SERVER, "fsGroup": SERVER, "runAsNonRoot": true,
                "seccompProfile": { "type": "RuntimeDefault" } },
            "initContainers": [
                init("holdfast", &[]),
                { "name": "initialize", "image": server, "securityContext": closed(),
                  "command": ["mysqld", "--defaults-file=/run/holdfast/first.cnf"], "volumeMounts": [data, run] },
                init("finish", &["--finish"]),
            ],
            "containers": [{
                "name": "mysql", "image": server, "securityContext": closed(),
                "command": ["mysqld", "--defaults-file=/run/holdfast/my.cnf"],
                "ports": [{ "name": "mysql", "containerPort": 3306, "protocol": "TCP" }],
                "readinessProbe": { "tcpSocket": { "port": "mysql" }, "periodSeconds": 2, "failureThreshold": 2 },
                // The primary moves while this runs; SIGTERM would be quicker than that.
                "lifecycle": { "preStop": { "exec": { "command": ["sleep", "3"] } } },
                "volumeMounts": [data, run],
            }],
            "volumes": [
                { "name": "run", "emptyDir": { "medium": "Memory" } },
                { "name": "config", "configMap": { "name": config_name(self.cluster) } },
                { "name": "accounts", "secret": { "secretName": secret_name(self.name) } },
            ],
        });
        if let Some(resources) = &spec.resources {
            pod["containers"][0]["resources"] = resources.clone();
        }
        if let Some(secret) = &spec.tls.secret_name {
            let tls = mount("tls", "/etc/holdfast/tls");
            push(&mut pod["containers"][0]["volumeMounts"], tls.clone());
            push(&mut pod["initContainers"][1]["volumeMounts"], tls);
            push(&mut pod["volumes"], json!({ "name": "tls", "secret": { "secretName": secret, "defaultMode": 288 } }));
        }
        if let Some(Value::Object(scheduling)) = &spec.scheduling {
            let known = ["affinity", "tolerations", "topologySpreadConstraints", "nodeSelector", "priorityClassName"];
            let chosen = scheduling.iter().filter(|(key, _)| known.contains(&key.as_str()));
            merge(&mut pod, Value::Object(chosen.map(|(key, value)| (key.clone(), value.clone())).collect()));
        }
        pod
    }
}

/// Name, labels and owner of an object of this cluster.
pub fn metadata(cluster: &MysqlCluster, name: &str) -> Value {
    let owner = cluster.metadata.name.as_deref().unwrap_or_default();
    json!({
        "name": name, "namespace": cluster.metadata.namespace, "labels": labels(owner),
        "ownerReferences": [{ "apiVersion": "holdfast.io/v1alpha1", "kind": "MysqlCluster", "name": owner,
            "uid": cluster.metadata.uid, "controller": true, "blockOwnerDeletion": true }],
    })
}

fn labels(cluster: &str) -> Value {
    json!({ CLUSTER: cluster, BY: "holdfast", "app.kubernetes.io/name": "mysql", "app.kubernetes.io/instance": cluster })
}

fn mount(name: &str, path: &str) -> Value {
    json!({ "name": name, "mountPath": path })
}

fn from(name: &str, field: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": field } } })
}

fn closed() -> Value {
    json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } })
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    } else {
        debug_assert!(false, "both are objects");
    }
}

fn push(list: &mut Value, entry: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(entry);
    }
}
