//! Objects in the API as a test, or the operator it plays, handles them.

use super::ControlPlane;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use std::time::Duration;

/// `NAMESPACE/NAME`.
pub fn pod_key(pod: &Pod) -> String {
    let field = |f: &Option<String>| f.clone().unwrap_or_default();
    format!("{}/{}", field(&pod.metadata.namespace), field(&pod.metadata.name))
}

/// Whether its Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Its address, once it has one.
pub fn pod_ip(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.pod_ip.clone()
}

impl ControlPlane {
    /// The pods of a namespace.
    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client(), namespace)
    }

    /// Creates the object, or makes it as given (server-side apply, forced). Panics with the API's message.
    pub fn apply(&self, object: &Value) {
        self.try_apply(object).unwrap_or_else(|e| panic!("apply failed: {e}\n{object:#}"));
    }

    /// The same, with the API's message as an error.
    pub fn try_apply(&self, object: &Value) -> Result<(), kube::Error> {
        let dynamic: DynamicObject = serde_json::from_value(object.clone()).expect("an object has type and metadata");
        let types = dynamic.types.as_ref().expect("apiVersion and kind");
        let (group, version) = types.api_version.rsplit_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        let name = dynamic.metadata.name.clone().expect("a name");
        let api: Api<DynamicObject> = match &dynamic.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &resource),
            None => Api::all_with(self.client(), &resource),
        };
        let how = PatchParams::apply("testbed").force();
        self.run(api.patch(&name, &how, &Patch::Apply(object))).map(drop)
    }

    /// Makes a namespace, if there is none of that name.
    pub fn namespace(&self, name: &str) {
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    }

    /// The pod as it is now, if there is one of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Pod> {
        self.run(self.pods(namespace).get_opt(name)).unwrap_or_else(|e| panic!("pod {name}: {e}"))
    }

    /// Sets labels of a pod; `None` takes one away.
    pub fn relabel(&self, namespace: &str, name: &str, labels: &[(&str, Option<&str>)]) {
        self.patch_metadata(namespace, name, "labels", labels);
    }

    /// Sets annotations of a pod; `None` takes one away.
    pub fn annotate(&self, namespace: &str, name: &str, annotations: &[(&str, Option<&str>)]) {
        self.patch_metadata(namespace, name, "annotations", annotations);
    }

    fn patch_metadata(&self, namespace: &str, name: &str, field: &str, values: &[(&str, Option<&str>)]) {
        let values: serde_json::Map<String, Value> =
            values.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.try_patch(namespace, name, &json!({"metadata": {field: values}})).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Merges `patch` into a pod; the reason if that failed or took more than 3 s.
    pub fn try_patch(&self, namespace: &str, name: &str, patch: &Value) -> Result<(), String> {
        let (pods, how, patch) = (self.pods(namespace), PatchParams::default(), Patch::Merge(patch));
        let answer = self.run(async {
            let request = pods.patch(name, &how, &patch);
            tokio::time::timeout(Duration::from_secs(3), request).await
        });
        match answer {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(format!("pod {name}: {e}")),
            Err(_) => Err(format!("pod {name}: no answer from the API")),
        }
    }

    /// Writes the status of a pod that no [`super::Node`] runs: its address and whether it is ready.
    pub fn set_status(&self, namespace: &str, name: &str, ip: &str, ready: bool) {
        let word = if ready { "True" } else { "False" };
        let status = json!({"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": word}, {"type": "ContainersReady", "status": word}],
        }});
        self.run(self.pods(namespace).patch_status(name, &PatchParams::default(), &Patch::Merge(&status)))
            .unwrap_or_else(|e| panic!("status of pod {name}: {e}"));
    }

    /// Asks for the pod's deletion and returns at once. A bound pod stays until its node has ended it; `Some(0)` removes it
    /// from the API at once.
    pub fn delete_pod(&self, namespace: &str, name: &str, grace_s: Option<u32>) {
        let how = DeleteParams { grace_period_seconds: grace_s, ..DeleteParams::default() };
        self.run(self.pods(namespace).delete(name, &how)).unwrap_or_else(|e| panic!("pod {name}: {e}"));
    }

    /// Waits until the pod is as wanted, and returns it so.
    pub fn wait_pod(&self, namespace: &str, name: &str, what: &str, mut wanted: impl FnMut(&Pod) -> bool) -> Pod {
        let mut seen = None;
        super::until(&format!("pod {name} {what}"), Duration::from_secs(60), || {
            seen = self.pod(namespace, name);
            seen.as_ref().is_some_and(&mut wanted)
        });
        seen.expect("just seen")
    }

    /// Waits until the pod is ready.
    pub fn wait_pod_ready(&self, namespace: &str, name: &str) -> Pod {
        self.wait_pod(namespace, name, "is ready", is_ready)
    }

    /// Waits until there is no pod of that name.
    pub fn wait_pod_gone(&self, namespace: &str, name: &str) {
        super::until(&format!("pod {name} is gone"), Duration::from_secs(60), || self.pod(namespace, name).is_none());
    }
}
