//! The custom resources of deploy/crds on a real API server: taken, with their columns, and with bad specs refused. The API
//! server is 1.20 and knows no CEL: those rules are checked on the schema itself and again by the reconciler.

#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod testbed;

use serde_json::{Value, json};
use testbed::kubernetes::ControlPlane;
use testbed::until;

fn cluster(name: &str, spec: &Value) -> String {
    json!({ "apiVersion": "holdfast.io/v1alpha1", "kind": "MysqlCluster", "metadata": { "name": name }, "spec": spec })
        .to_string()
}

#[test]
fn the_api_server_takes_the_custom_resources_and_refuses_bad_ones() {
    let plane = ControlPlane::start();
    plane.namespace("databases");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/crds");
    plane.kubectl(&["apply", "--validate=false", "-f", folder]).unwrap_or_else(|e| panic!("{e}"));
    let create = |text: &str| plane.kubectl_with(&["-n", "databases", "create", "-f", "-"], text);
    let mut last = String::new();
    until("the kind is served", std::time::Duration::from_secs(60), || {
        let made = create(&cluster("orders", &json!({ "image": "mysql:9.7", "topology": "semisync" })));
        last = format!("{made:?}");
        made.is_ok() || last.contains("already exists")
    });
    let listed = plane.kubectl(&["-n", "databases", "get", "myc"]).unwrap_or_else(|e| panic!("{e}\n{last}"));
    for column in ["TOPOLOGY", "PRIMARY", "READY", "HEALTHY", "TERM", "AGE"] {
        assert!(listed.contains(column), "{listed}");
    }
    let stored = plane.kubectl(&["-n", "databases", "get", "myc", "orders", "-o", "json"]).unwrap();
    let stored: Value = serde_json::from_str(&stored).unwrap();
    assert_eq!((&stored["spec"]["replicas"], &stored["spec"]["durability"]), (&json!(3), &json!("strict")));

    for (spec, words) in [
        (json!({ "image": "x", "topology": "ring" }), "topology"),
        (json!({ "image": "x", "replicas": 10 }), "replicas"),
        (json!({ "image": "x", "replicas": "three" }), "replicas"),
        (json!({ "image": "x", "failoverDelaySeconds": 4000 }), "failoverDelaySeconds"),
    ] {
        let refused = create(&cluster("bad", &spec)).expect_err("a bad spec");
        assert!(refused.contains(words), "{refused}");
    }
    let operation = |kind: &str| {
        json!({ "apiVersion": "holdfast.io/v1alpha1", "kind": "MysqlOperation", "metadata": { "name": "move" },
            "spec": { "cluster": "orders", "type": kind, "target": "orders-mysql-1" } })
        .to_string()
    };
    assert!(create(&operation("Explode")).is_err_and(|e| e.contains("type")));
    create(&operation("Switchover")).unwrap_or_else(|e| panic!("{e}"));
}
