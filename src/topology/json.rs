//! \[pure\] A snapshot as the admin port shows it under /topology.

use super::snapshot::Topology;
use crate::types::BackendId;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The snapshot as JSON: `{cluster, version, term, primary, accepting, doubt, proof_age_ms, since_unix_ms, why, server,
/// conflicts: [{kind, evidence}], backends: [{id, address, role, serving, reason, weight, lag_ms, evidence, server_uuid,
/// server_id, version, connections, pod, namespace, label, label_term, pod_state}]}`; the last five are null where servers are no pods.
/// `connections`: open connections per backend; those not in it count as 0.
pub fn to_json(topology: &Topology, now_ms: u64, connections: &HashMap<BackendId, u64>) -> Value {
    let backends = topology.backends.iter().map(|backend| {
        let pod = backend.pod.as_deref();
        json!({
            "id": backend.id.0,
            "address": backend.address.to_string(),
            "role": backend.role.as_str(),
            "serving": backend.serving.as_str(),
            "reason": backend.serving.reason(),
            "weight": backend.weight,
            "lag_ms": backend.lag_ms,
            "evidence": &*backend.evidence,
            "server_uuid": backend.server_uuid.as_deref(),
            "server_id": backend.server_id,
            "version": backend.version.as_deref(),
            "connections": connections.get(&backend.id).copied().unwrap_or(0),
            "pod": pod.map(|pod| &*pod.name),
            "namespace": pod.map(|pod| &*pod.group.namespace),
            "label": pod.map(|pod| pod.label.as_str()),
            "label_term": pod.and_then(|pod| pod.term).map(|term| term.number),
            "pod_state": pod.map(|pod| pod.state.as_str()),
        })
    });
    let conflicts = topology.conflicts.iter().map(|c| json!({ "kind": c.kind.as_str(), "evidence": &*c.evidence }));
    json!({
        "cluster": topology.cluster.to_string(),
        "version": topology.version,
        "term": topology.term.0,
        "primary": topology.primary().map(|primary| primary.address.to_string()),
        "accepting": topology.accepting,
        "doubt": topology.doubt,
        "proof_age_ms": topology.proof_age_ms(now_ms),
        "since_unix_ms": topology.since_unix_ms,
        "why": &*topology.why,
        "server": topology.server.as_ref().map(|server| &*server.version),
        "conflicts": conflicts.collect::<Vec<_>>(),
        "backends": backends.collect::<Vec<_>>(),
    })
}
