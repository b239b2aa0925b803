//! The reconciler on a real API server: MysqlClusters become StatefulSets whose pods are real servers, initialised by the
//! program itself, behind a real proxy that finds them by their labels.
#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod proxy;
mod testbed;

#[path = "reconcile_kubernetes/bed.rs"]
mod bed;

use bed::Bed;
use serde_json::json;

#[test]
fn clusters_get_ready() {
    let bed = Bed::start();
    bed.create("alone", &json!({ "topology": "standalone", "replicas": 1 }));
    bed.create("set", &json!({ "topology": "semisync" }));
    bed.wait_ready("alone");
    bed.wait_ready("set");
}
