//! Volumes that are to be larger.
//!
//! ```text
//! the spec asks for more ──▶ each smaller claim is patched ──▶ the StatefulSet is deleted, its pods stay (orphans)
//!        │                          │ refused: said, tried again                            │
//!        └─ for less, or for another class: refused, said             the next look makes it anew, with the new
//!                                                                     template; it adopts the pods as they are
//! ```
//!
//! A StatefulSet's template of claims can't be changed, hence the detour. Until it is made anew everything else is applied with
//! the template that it has: nothing waits for a volume.

use super::{Shared, conf, objects};
use crate::reconciler::death;
use crate::reconciler::resource::{MysqlCluster, Storage};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use serde_json::json;

/// How far the volumes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volumes {
    /// As they are wanted.
    Fit,
    /// On their way.
    Growing,
    /// Never, unless something else changes: why.
    Refused(String),
}

/// The cluster with the storage that its StatefulSet has: what can be applied.
pub fn as_it_is(cluster: &MysqlCluster, set: Option<&StatefulSet>) -> MysqlCluster {
    let mut same = cluster.clone();
    if let Some(storage) = set.and_then(template) {
        same.spec.storage = storage;
    }
    same
}

/// The storage in a StatefulSet's template.
fn template(set: &StatefulSet) -> Option<Storage> {
    let claim = set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?.spec.as_ref()?;
    let size = claim.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone();
    Some(Storage { size, class: claim.storage_class_name.clone() })
}

/// \[pure\] What can't be, if anything can't.
fn refusal(wanted: &Storage, now: &Storage) -> Option<String> {
    if wanted.class.is_some() && wanted.class != now.class {
        return Some("storage.class can't be changed: volumes stay in the class they were made in".to_owned());
    }
    let is_less = conf::quantity(&wanted.size) < conf::quantity(&now.size);
    is_less.then(|| format!("storage.size can't become less: the volumes have {}", now.size))
}

/// Takes the volumes a step further. Without `settled` the StatefulSet is left alone: its number of pods is in motion.
pub async fn grow(
    shared: &Shared,
    cluster: &MysqlCluster,
    set: &StatefulSet,
    settled: bool,
) -> Result<Volumes, kube::Error> {
    let (wanted, Some(now)) = (&cluster.spec.storage, template(set)) else { return Ok(Volumes::Fit) };
    if let Some(why) = refusal(wanted, &now) {
        return Ok(Volumes::Refused(why));
    }
    if conf::quantity(&wanted.size) == conf::quantity(&now.size) {
        return Ok(Volumes::Fit);
    }
    if let Some(why) = patch_claims(shared, cluster, &wanted.size).await? {
        return Ok(Volumes::Refused(why));
    }
    if settled {
        remake(shared, set).await?;
    }
    Ok(Volumes::Growing)
}

/// Asks for larger claims; why not, where that is refused.
async fn patch_claims(shared: &Shared, cluster: &MysqlCluster, size: &str) -> Result<Option<String>, kube::Error> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(shared.client.clone(), &shared.namespace);
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let own = format!("{}={name},{}=holdfast", objects::CLUSTER, objects::BY);
    for claim in claims.list(&ListParams::default().labels(&own)).await?.items {
        let asked: Option<&Quantity> = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.resources.as_ref()?.requests.as_ref())
            .and_then(|requests| requests.get("storage"));
        let is_small = asked.and_then(|asked| conf::quantity(&asked.0)) < conf::quantity(size);
        let Some(name) = claim.metadata.name.as_deref().filter(|_| is_small) else { continue };
        tracing::info!(cluster = cluster.metadata.name, claim = name, size, "its volume is to be larger");
        let patch = json!({ "metadata": { "uid": claim.metadata.uid }, "spec": { "resources": { "requests": { "storage": size } } } });
        match claims.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            // Forbidden: its class doesn't allow it. Invalid: it is not bound yet.
            Err(kube::Error::Api(refusal)) if [403, 422].contains(&refusal.code) => {
                return Ok(Some(format!("the volume of {name} can't become larger: {}", refusal.message)));
            }
            done => done?,
        };
        death::behind(format_args!("grow claim {name}"));
    }
    Ok(None)
}

/// Deletes the StatefulSet and leaves its pods where they are.
async fn remake(shared: &Shared, set: &StatefulSet) -> Result<(), kube::Error> {
    let sets: Api<StatefulSet> = Api::namespaced(shared.client.clone(), &shared.namespace);
    let name = set.metadata.name.as_deref().unwrap_or_default();
    tracing::info!(set = name, "is made anew around its pods, for its template of claims can't be changed");
    let how = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        preconditions: Some(Preconditions { uid: set.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    match sets.delete(name, &how).await {
        Err(kube::Error::Api(refusal)) if [404, 409].contains(&refusal.code) => Ok(()),
        done => done.map(drop),
    }?;
    death::behind(format_args!("remake {name}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_volumes_can_become() {
        let storage = |size: &str, class: Option<&str>| Storage { size: size.into(), class: class.map(str::to_owned) };
        let now = storage("10Gi", Some("fast"));
        for (size, class, wanted) in [
            ("10Gi", None, None),
            ("10240Mi", Some("fast"), None),
            ("10.5Gi", None, None),
            ("10G", None, Some("storage.size can't become less")),
            ("20Gi", Some("slow"), Some("storage.class can't be changed")),
        ] {
            let refused = refusal(&storage(size, class), &now).unwrap_or_default();
            assert_eq!(wanted.is_none(), refused.is_empty(), "{size} {class:?}: {refused}");
            assert!(refused.starts_with(wanted.unwrap_or_default()), "{size} {class:?}: {refused}");
        }
    }
}
