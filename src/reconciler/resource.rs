//! The custom resources as Rust types: what a user asks for (spec) and what the reconciler says (status).
//!
//! `deploy/crds/` is generated from here and a test keeps it equal. What the API server can refuse it refuses by schema and
//! CEL rules, so that a bad spec never gets as far as the reconciler; API servers before 1.25 ignore CEL, so the reconciler
//! checks the same rules again ([`MysqlClusterSpec::problems`]).

#![allow(clippy::duplicated_attributes, reason = "printed columns have types of the same name")]

use super::external::External;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the members of a cluster keep the same data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TopologyKind {
    /// One server.
    Standalone,
    /// A source whose commits wait until enough replicas have them.
    #[default]
    Semisync,
    /// Group replication in single-primary mode.
    Group,
    /// Another operator's: observed, never changed.
    External,
}

/// What a commit waits for when replicas are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// For as many replicas as always: rather no commit than one that could be lost.
    #[default]
    Strict,
    /// For as many as there are, but for one at least.
    Preferred,
}

/// What replaces the pods after a change of image or configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateStrategy {
    /// Followers one by one, then a switchover, then the old primary.
    #[default]
    PrimaryLast,
    /// Nothing: whoever deletes a pod gets a new one.
    OnDelete,
}

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "holdfast.io",
    version = "v1alpha1",
    kind = "MysqlCluster",
    namespaced,
    status = "MysqlClusterStatus",
    shortname = "myc",
    category = "all",
    doc = "A MySQL cluster whose roles Holdfast keeps correct.",
    derive = "PartialEq",
    // Names become labels and the first part of a pod's host name.
    validation = Rule::new("size(self.metadata.name) <= 40").message("the name must have 40 characters at most"),
    printcolumn(json_path = ".spec.topology", name = "Topology", type_ = "string"),
    printcolumn(json_path = ".status.primary", name = "Primary", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type=='Ready')].status", name = "Ready", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type=='Healthy')].status", name = "Healthy", type_ = "string"),
    printcolumn(json_path = ".status.term", name = "Term", type_ = "integer"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[x_kube(
    validation = Rule::new("self.topology == oldSelf.topology").message("topology can't be changed"),
    validation = Rule::new("self.topology != 'standalone' || self.replicas == 1")
        .message("standalone has exactly one replica"),
    validation = Rule::new("self.topology != 'group' || self.replicas in [1, 3, 5, 7, 9]")
        .message("a group has 1, 3, 5, 7 or 9 replicas"),
    validation = Rule::new("self.topology == 'external' || has(self.image)").message("image is missing"),
    validation = Rule::new("self.tls.mtls == oldSelf.tls.mtls").message("tls.mtls can't be changed"),
    validation = Rule::new("!self.tls.mtls || has(self.tls.secretName)").message("tls.mtls needs tls.secretName"),
    validation = Rule::new("self.topology == 'external' || !has(self.external)")
        .message("external belongs to the topology external"),
    validation = Rule::new("!has(self.fenced) || size(self.fenced) < 10").message("at most 9 members can be fenced")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MysqlClusterSpec {
    /// standalone, semisync, group or external.
    #[serde(default)]
    pub topology: TopologyKind,
    /// Members.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: u32,
    /// Container image of the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Volume of each member.
    #[serde(default)]
    pub storage: Storage,
    /// Requests and limits of each server's container, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub resources: Option<serde_json::Value>,
    /// Options of the servers, without dashes; those that Holdfast depends on can't be set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mysql_conf: BTreeMap<String, String>,
    /// Certificates of the servers.
    #[serde(default)]
    pub tls: Tls,
    /// What a commit waits for when replicas are missing (semisync).
    #[serde(default)]
    pub durability: Durability,
    /// Throw away the data of a member that has transactions the others don't, and clone it anew.
    #[serde(default)]
    pub auto_reclone: bool,
    /// A follower further behind loses its label, seconds; 0: never.
    #[serde(default)]
    pub max_lag_seconds: u32,
    /// How long the primary must be away before another takes over.
    #[serde(default)]
    #[schemars(range(max = 3600))]
    pub failover_delay_seconds: u32,
    /// How a change of image or configuration reaches the pods.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// Affinity, tolerations and topology spread of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub scheduling: Option<serde_json::Value>,
    /// Members that are kept from all traffic, by pod name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fenced: Vec<String>,
    /// Whose pods they are, and as whom they are asked (external).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// Volume of each member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// Its size.
    #[serde(default = "ten_gib")]
    pub size: String,
    /// Its storage class; the cluster's default where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// Certificates of the servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// A Secret with tls.crt, tls.key and ca.crt; self-signed where none is given. With `mtls` the certificate must be good for
    /// clients, too (extended key usage).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Members prove themselves to each other by certificate, too; from the beginning or never.
    #[serde(default)]
    pub mtls: bool,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: ten_gib(), class: None }
    }
}

fn three() -> u32 {
    3
}

fn ten_gib() -> String {
    "10Gi".to_owned()
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// What the reconciler found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MysqlClusterStatus {
    /// One word for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The member that takes writes, or is being opened for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The member that is to take writes; differs from `primary` while the primary changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_primary: Option<String>,
    /// Counts changes of the primary.
    #[serde(default)]
    pub term: u64,
    /// Replicas that a commit waits for, as it was last set (semisync).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acks: Option<u32>,
    /// What each member is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
    /// The last change of the primary that came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<PrimaryChange>,
    /// The last changes of the primary, the newest first; one without `tookMs` is under way, or was given up for the one above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PrimaryChange>,
    /// `metadata.generation` that was read and applied, or refused; the condition RolledOut says whether all pods have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Available, Healthy, FailoverInProgress, RolledOut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One member as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its pod.
    pub name: String,
    /// primary, follower or unknown.
    pub role: String,
    /// One word, or the reason of the trouble.
    pub state: String,
    /// `server_uuid`: another one means other data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_uuid: Option<String>,
    /// What it has executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid_executed: Option<String>,
    /// What it has and the primary never had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errant: Option<String>,
    /// How far it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<u64>,
}

/// One change of the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrimaryChange {
    /// The term that was claimed for it.
    #[serde(default)]
    pub term: u64,
    /// The primary before; none: it was the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The primary since; the one before, if it could not be replaced.
    pub to: String,
    /// Since when nobody took writes; if the one before still did, when the change was decided. RFC 3339.
    pub at: String,
    /// Why.
    pub reason: String,
    /// From then to the new primary's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

/// A condition as Kubernetes has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// One word.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// Since when, RFC 3339.
    pub last_transition_time: String,
}

/// What a MysqlOperation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    /// The primary moves, with nothing lost.
    Switchover,
    /// Another member takes over although the primary is silent.
    Failover,
    /// Members restart, the primary last.
    Restart,
    /// A member's data is replaced by a copy.
    Reclone,
}

/// One thing to do once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "holdfast.io",
    version = "v1alpha1",
    kind = "MysqlOperation",
    namespaced,
    status = "MysqlOperationStatus",
    shortname = "myo",
    doc = "One thing to do with a MysqlCluster, once.",
    derive = "PartialEq",
    printcolumn(json_path = ".spec.cluster", name = "Cluster", type_ = "string"),
    printcolumn(json_path = ".spec.type", name = "Type", type_ = "string"),
    printcolumn(json_path = ".spec.target", name = "Target", type_ = "string"),
    printcolumn(json_path = ".status.phase", name = "Phase", type_ = "string"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("an operation can't be changed: make another one"),
    validation = Rule::new("self.type != 'Reclone' || has(self.target)").message("Reclone needs a target")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MysqlOperationSpec {
    /// Name of the MysqlCluster, in the same namespace.
    #[schemars(length(min = 1))]
    pub cluster: String,
    /// What to do.
    #[serde(rename = "type")]
    pub kind: OperationKind,
    /// With which member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Even if it can't be shown that nothing is lost.
    #[serde(default)]
    pub force: bool,
}

/// How far an operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MysqlOperationStatus {
    /// Pending, Running, Complete or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What was done when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<OperationStep>,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The cluster's term when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_term: Option<u64>,
    /// What its target was when it began: its server_uuid, or the uid of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_uuid: Option<String>,
}

/// One step of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationStep {
    /// What.
    pub name: String,
    /// When, RFC 3339.
    pub at: String,
}

impl MysqlClusterSpec {
    /// What is wrong with it, where the API server doesn't say so itself.
    pub fn problems(&self) -> Vec<&'static str> {
        let one = self.topology == TopologyKind::Standalone && self.replicas != 1;
        let odd = self.topology == TopologyKind::Group && self.replicas.is_multiple_of(2);
        let own = self.topology != TopologyKind::External;
        let imageless = own && self.image.is_none();
        let rules = [
            (one, "standalone has exactly one replica"),
            (odd, "a group has 1, 3, 5, 7 or 9 replicas"),
            (imageless, "image is missing"),
            (!(1..=9).contains(&self.replicas), "replicas must be from 1 to 9"),
            (self.fenced.len() > 9, "at most 9 members can be fenced"),
            (self.tls.mtls && self.tls.secret_name.is_none(), "tls.mtls needs tls.secretName"),
            (own && self.external.is_some(), "external belongs to the topology external"),
        ];
        let external = self.external.iter().flat_map(External::problems);
        rules.into_iter().filter(|(broken, _)| *broken).map(|(_, words)| words).chain(external).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::CustomResourceExt;
    use serde_json::{Value, json};
    use std::path::Path;

    /// `deploy/crds/NAME.yaml` is what the types say. With HOLDFAST_WRITE_CRDS set it is written instead.
    #[test]
    fn the_manifests_are_generated_from_the_types() {
        for (file, crd) in [("mysqlclusters", MysqlCluster::crd()), ("mysqloperations", MysqlOperation::crd())] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("deploy/crds/{file}.yaml"));
            let wanted = serde_json::to_value(&crd).unwrap();
            if std::env::var_os("HOLDFAST_WRITE_CRDS").is_some() {
                let head = "# Generated from src/reconciler/resource.rs; a test says how when it differs.\n";
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, head.to_owned() + &serde_saphyr::to_string(&wanted).unwrap()).unwrap();
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let there: Value = serde_saphyr::from_str(&text).unwrap_or_default();
            let how = "HOLDFAST_WRITE_CRDS=1 cargo test --lib reconciler::resource";
            assert!(there == wanted, "{} differs from the types: run {how}", path.display());
        }
    }

    #[test]
    fn a_spec_has_safe_defaults_and_refuses_unknown_fields() {
        let spec: MysqlClusterSpec = serde_json::from_value(json!({ "image": "mysql:9.7" })).unwrap();
        assert_eq!((spec.topology, spec.replicas), (TopologyKind::Semisync, 3));
        assert_eq!((spec.durability, spec.auto_reclone), (Durability::Strict, false));
        assert_eq!(spec.problems(), Vec::<&str>::new());
        assert!(serde_json::from_value::<MysqlClusterSpec>(json!({ "image": "x", "replica": 2 })).is_err());
    }

    #[test]
    fn what_the_api_server_refuses_is_refused_here_too() {
        for (spec, problem) in [
            (json!({ "image": "x", "topology": "standalone" }), "standalone has exactly one replica"),
            (json!({ "image": "x", "topology": "group", "replicas": 2 }), "a group has 1, 3, 5, 7 or 9 replicas"),
            (json!({ "topology": "semisync" }), "image is missing"),
            (json!({ "image": "x", "replicas": 10 }), "replicas must be from 1 to 9"),
            (json!({ "image": "x", "tls": { "mtls": true } }), "tls.mtls needs tls.secretName"),
            (json!({ "image": "x", "external": {} }), "external belongs to the topology external"),
        ] {
            let parsed: MysqlClusterSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(parsed.problems(), [problem]);
        }
        let crd = serde_json::to_string(&MysqlCluster::crd()).unwrap();
        for message in
            ["standalone has exactly one replica", "a group has 1, 3, 5, 7 or 9 replicas", "image is missing"]
        {
            assert!(crd.contains(message), "{message}");
        }
    }
}
