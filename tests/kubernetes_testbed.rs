//! The testbed for Kubernetes itself: the control plane is real, and so are the pods.
mod testbed;

use serde_json::json;
use testbed::kubernetes::{ControlPlane, ControlPlaneOptions, Scope};

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
        testbed::until("the grant is known", std::time::Duration::from_secs(10), || get(config, "pods").is_ok());
        assert!(get(config, "secrets").is_err());
    }
    plane.grant("jane", Scope::Cluster, &json!([]));
    testbed::until("the grant is gone", std::time::Duration::from_secs(10), || get(&user, "pods").is_err());
}

#[test]
fn controllers_make_the_pods_of_a_stateful_set() {
    let plane = ControlPlane::start_with(ControlPlaneOptions::with_controllers());
    plane.apply(&json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "mysql", "namespace": "default"},
        "spec": {
            "replicas": 2, "serviceName": "mysql", "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "mysql"}},
            "template": {
                "metadata": {"labels": {"app": "mysql"}},
                "spec": {"containers": [{"name": "mysql", "image": "mysql"}]},
            },
        },
    }));
    for name in ["mysql-0", "mysql-1"] {
        let pod = plane.wait_pod("default", name, "is made", |_| true);
        assert_eq!(pod.metadata.labels.expect("labels")["app"], "mysql");
    }
}
