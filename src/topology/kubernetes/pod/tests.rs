//! The exact labels of each operator, as pods carry them, and what is read from them.

use super::*;
use crate::topology::kubernetes::preset::Preset;
use serde_json::{Value, json};

/// A ready pod as the API server sends it, with the given metadata.
fn pod(metadata: &Value) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": { "containers": [
            { "name": "mysql", "image": "mysql", "ports": [
                { "name": "mysql", "containerPort": 3307, "protocol": "TCP" },
                { "name": "metrics", "containerPort": 9104 },
            ] },
            { "name": "sidecar", "image": "x" },
        ], "nodeName": "node-1" },
        "status": {
            "phase": "Running",
            "podIP": "10.1.2.3",
            "podIPs": [{ "ip": "10.1.2.3" }],
            "conditions": [
                { "type": "Initialized", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
                { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            ],
            "containerStatuses": [
                { "name": "mysql", "ready": true, "restartCount": 2, "image": "", "imageID": "" },
                { "name": "sidecar", "ready": true, "restartCount": 1, "image": "", "imageID": "" },
            ],
        },
    }))
    .unwrap()
}

fn named(name: &str, labels: &Value) -> Pod {
    pod(&json!({ "name": name, "namespace": "shop", "uid": "u-1", "labels": labels }))
}

fn read(preset: Preset, name: &str, labels: &Value) -> Option<PodFacts> {
    PodFacts::read(&named(name, labels), &preset.rules())
}

#[test]
fn the_labels_of_each_operator() {
    use Label::{Follower, Learner, None as Nothing, Primary};
    let kubeblocks = |role: &str| {
        let mut labels = json!({
            "app.kubernetes.io/managed-by": "kubeblocks",
            "app.kubernetes.io/instance": "orders",
            "apps.kubeblocks.io/component-name": "mysql",
            "apps.kubeblocks.io/cluster-uid": "0b6a",
        });
        if !role.is_empty() {
            labels["kubeblocks.io/role"] = role.into();
        }
        labels
    };
    let with = |base: &Value, key: &str, value: &str| {
        let mut labels = base.clone();
        labels[key] = value.into();
        labels
    };
    let innodb = json!({ "component": "mysqld", "mysql.oracle.com/cluster": "orders", "tier": "mysql" });
    let innodb_role = |role: &str| with(&innodb, "mysql.oracle.com/cluster-role", role);
    let v1alpha1 = json!({ "v1alpha1.mysql.oracle.com/cluster": "orders" });
    let bitpoke = json!({
        "app.kubernetes.io/name": "mysql", "mysql.presslabs.org/cluster": "orders", "healthy": "yes",
    });
    let moco = json!({ "app.kubernetes.io/name": "mysql", "app.kubernetes.io/instance": "orders" });
    let percona = json!({ "app.kubernetes.io/component": "database", "app.kubernetes.io/instance": "orders" });
    let holdfast = json!({ "holdfast.io/cluster": "orders" });
    let (oracle_role, moco_role) = ("v1alpha1.mysql.oracle.com/role", "moco.cybozu.com/role");
    for (preset, labels, label, unlabelled_reads) in [
        (Preset::Kubeblocks, kubeblocks("primary"), Primary, false),
        (Preset::Kubeblocks, kubeblocks("leader"), Primary, false),
        (Preset::Kubeblocks, kubeblocks("Leader"), Primary, false),
        (Preset::Kubeblocks, kubeblocks("secondary"), Follower, false),
        (Preset::Kubeblocks, kubeblocks("follower"), Follower, false),
        (Preset::Kubeblocks, kubeblocks("learner"), Learner, false),
        (Preset::Kubeblocks, kubeblocks("candidate"), Nothing, false),
        (Preset::Kubeblocks, kubeblocks(""), Nothing, false),
        (Preset::InnodbCluster, innodb_role("PRIMARY"), Primary, false),
        (Preset::InnodbCluster, innodb_role("SECONDARY"), Follower, false),
        (Preset::InnodbCluster, innodb.clone(), Nothing, false),
        (Preset::InnodbCluster, with(&innodb, "mysql.oracle.com/instance-type", "read-replica"), Follower, false),
        (Preset::InnodbCluster, with(&innodb, "mysql.oracle.com/instance-type", "group-member"), Nothing, false),
        (Preset::OracleV1alpha1, with(&v1alpha1, oracle_role, "primary"), Primary, true),
        (Preset::OracleV1alpha1, with(&v1alpha1, oracle_role, "secondary"), Follower, true),
        (Preset::Bitpoke, with(&bitpoke, "role", "master"), Primary, true),
        (Preset::Bitpoke, with(&bitpoke, "role", "replica"), Follower, true),
        (Preset::Moco, with(&moco, moco_role, "primary"), Primary, false),
        (Preset::Moco, with(&moco, moco_role, "replica"), Follower, false),
        (Preset::Moco, moco.clone(), Nothing, false),
        (Preset::Percona, with(&percona, "mysql.percona.com/primary", "true"), Primary, true),
        (Preset::Percona, percona.clone(), Nothing, true),
        (Preset::Holdfast, with(&holdfast, "holdfast.io/role", "primary"), Primary, true),
        (Preset::Holdfast, with(&holdfast, "holdfast.io/role", "follower"), Follower, true),
    ] {
        let facts = read(preset, "orders-mysql-1", &labels).unwrap_or_else(|| panic!("{preset:?} {labels}"));
        assert_eq!((facts.label, facts.unlabelled_reads), (label, unlabelled_reads), "{preset:?} {labels}");
        assert_eq!((&*facts.group.cluster, facts.state), ("orders", PodState::Ready), "{preset:?} {labels}");
        assert_eq!(facts.address.unwrap().to_string(), "10.1.2.3:3307");
        assert_eq!((&*facts.name, &*facts.uid, facts.restarts), ("orders-mysql-1", "u-1", 3));
    }
    assert_eq!(read(Preset::Kubeblocks, "a", &kubeblocks("")).unwrap().group.to_string(), "shop/orders/mysql");
    for (name, label) in [("mysql-0", Primary), ("mysql-1", Follower), ("mysql-10", Follower), ("mysql", Nothing)] {
        assert_eq!(read(Preset::Statefulset, name, &json!({ "app": "mysql" })).unwrap().label, label, "{name}");
    }
}

#[test]
fn a_pod_that_names_no_cluster_is_nobodys() {
    for preset in [Preset::Kubeblocks, Preset::InnodbCluster, Preset::Moco, Preset::Holdfast, Preset::Statefulset] {
        assert_eq!(read(preset, "db-0", &json!({ "role": "primary" })), None, "{preset:?}");
    }
    assert_eq!(read(Preset::Kubeblocks, "db-0", &json!({ "app.kubernetes.io/instance": "orders" })), None);
}

#[test]
fn where_in_its_life_a_pod_is() {
    let of = |change: &dyn Fn(&mut Value)| {
        let labels = json!({ "mysql.presslabs.org/cluster": "orders", "healthy": "yes", "role": "replica" });
        let mut value = serde_json::to_value(named("orders-0", &labels)).unwrap();
        change(&mut value);
        PodFacts::read(&serde_json::from_value(value).unwrap(), &Preset::Bitpoke.rules()).unwrap()
    };
    let unready = |pod: &mut Value| pod["status"]["conditions"][1]["status"] = "False".into();
    let deleted = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let cordoned = |pod: &mut Value| pod["metadata"]["annotations"] = json!({ "holdfast.io/cordon": "true" });
    assert_eq!(of(&|_| {}).state, PodState::Ready);
    assert_eq!(of(&unready).state, PodState::Unready);
    assert_eq!(of(&|pod| pod["status"]["conditions"] = json!([])).state, PodState::Unready);
    assert_eq!(of(&|pod| pod["metadata"]["labels"]["healthy"] = "no".into()).state, PodState::Unhealthy);
    assert_eq!(of(&cordoned).state, PodState::Cordoned);
    let other = |pod: &mut Value| pod["metadata"]["annotations"] = json!({ "holdfast.io/cordon": "false" });
    assert_eq!(of(&other).state, PodState::Ready);
    assert_eq!(of(&|pod| (unready(pod), deleted(pod)).1).state, PodState::Deleting);
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(of(&|pod| pod["status"]["phase"] = phase.into()).address, None, "{phase}");
    }
    for ip in [json!(null), json!(""), json!("nowhere")] {
        assert_eq!(of(&|pod| pod["status"]["podIP"] = ip.clone()).address, None, "{ip}");
    }
    let six = of(&|pod| pod["status"]["podIP"] = "fd00::7".into());
    assert_eq!(six.address.unwrap().to_string(), "[fd00::7]:3307");
    let bare = of(&|pod| pod["spec"]["containers"] = json!([]));
    assert_eq!(bare.address.unwrap().port, 3306);
}

#[test]
fn the_order_of_primaries() {
    let version = "apps.kubeblocks.io/last-role-authoritative-version";
    let labels = json!({ "app.kubernetes.io/instance": "o", "apps.kubeblocks.io/component-name": "m",
        "holdfast.io/cluster": "o" });
    for (preset, annotation, value, term) in [
        (Preset::Kubeblocks, version, "1767225600000000", Some((1_767_225_600_000_000, false))),
        (Preset::Kubeblocks, "holdfast.io/term", "7", None),
        (Preset::Holdfast, "holdfast.io/term", "7", Some((7, true))),
        (Preset::Holdfast, "holdfast.io/term", "seven", None),
        (Preset::Holdfast, "holdfast.io/term", "-1", None),
    ] {
        let metadata = json!({ "name": "p", "labels": labels, "annotations": { annotation: value } });
        let facts = PodFacts::read(&pod(&metadata), &preset.rules()).unwrap();
        assert_eq!(facts.term.map(|term| (term.number, term.ahead)), term, "{preset:?} {value}");
    }
}
