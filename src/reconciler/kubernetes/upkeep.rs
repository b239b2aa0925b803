//! Makes what belongs to a cluster, and makes it again when somebody changes it: accounts first, then everything else.

use super::objects::{self, metadata, owned, secret_name};
use super::{Shared, tell};
use crate::accounts::Credential;
use crate::reconciler::accounts::{ACCOUNTS, ADMIN, REPLICATION, user};
use crate::reconciler::resource::{MysqlCluster, TopologyKind};
use crate::reconciler::server::{Access, Replication};
use crate::tls::{BackendTls, SslMode, TlsFiles};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Limit of one look at a server.
const DEADLINE: Duration = Duration::from_secs(1);
/// Who writes the fields of objects; the status has no manager of its own.
const MANAGER: &str = "holdfast";

/// Why something could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The API server refused or did not answer.
    #[error("{what}: {error}")]
    Api { what: String, error: Box<kube::Error> },
    /// The Secret lacks an account that somebody else should have put there.
    #[error("the Secret {0} has no key {1}")]
    NoAccount(String, &'static str),
    /// No random numbers, or no TLS.
    #[error("{0}")]
    Local(String),
}

fn at(what: &str) -> impl FnOnce(kube::Error) -> UpkeepError {
    let what = what.to_owned();
    move |error| UpkeepError::Api { what, error: Box::new(error) }
}

/// The accounts' passwords: the Secret is made if it is not there, missing keys are added, and nothing is ever changed.
pub async fn accounts(shared: &Shared, cluster: &MysqlCluster) -> Result<Access, UpkeepError> {
    let name = secret_name(cluster.metadata.name.as_deref().unwrap_or_default());
    let secrets: Api<Secret> = Api::namespaced(shared.client.clone(), &shared.namespace);
    let found = secrets.get_opt(&name).await.map_err(at(&name))?;
    let mut passwords: BTreeMap<String, Vec<u8>> = found
        .iter()
        .flat_map(|secret| secret.data.iter().flatten())
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect();
    let mut missing = BTreeMap::new();
    for account in ACCOUNTS.iter().filter(|account| !passwords.contains_key(account.key)) {
        missing.insert(account.key.to_owned(), password()?);
    }
    if cluster.spec.topology != TopologyKind::External && !missing.is_empty() {
        write_accounts(&secrets, cluster, &name, (found, &missing)).await?;
        passwords.extend(missing.into_iter().map(|(key, password)| (key, password.into_bytes())));
    }
    let password =
        |key: &'static str| passwords.get(key).cloned().ok_or_else(|| UpkeepError::NoAccount(name.clone(), key));
    let external = cluster.spec.topology == TopologyKind::External;
    let replication = if external { Vec::new() } else { password(REPLICATION)? };
    let tls =
        BackendTls::backend(SslMode::Preferred, TlsFiles::default()).map_err(|e| UpkeepError::Local(e.to_string()))?;
    Ok(Access {
        user: user(ADMIN).into(),
        credential: Credential::password(Zeroizing::new(password(ADMIN)?)),
        tls: Arc::new(tls),
        replication: Replication {
            user: user(REPLICATION).into(),
            password: String::from_utf8_lossy(&replication).into(),
        },
        deadline: DEADLINE,
    })
}

async fn write_accounts(
    secrets: &Api<Secret>,
    cluster: &MysqlCluster,
    name: &str,
    (found, missing): (Option<Secret>, &BTreeMap<String, String>),
) -> Result<(), UpkeepError> {
    let string_data = Some(missing.clone());
    let done = match found {
        // With its resourceVersion: whoever was quicker has made passwords that must stay.
        Some(secret) => secrets.replace(name, &PostParams::default(), &Secret { string_data, ..secret }).await,
        None => {
            let metadata: ObjectMeta = serde_json::from_value(metadata(cluster, name)).unwrap_or_default();
            secrets.create(&PostParams::default(), &Secret { metadata, string_data, ..Secret::default() }).await
        }
    };
    done.map(drop).map_err(at(name))
}

/// 32 hexadecimal digits.
fn password() -> Result<String, UpkeepError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| UpkeepError::Local(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes all objects as they should be; nothing is made of a spec that is refused.
pub async fn objects(shared: &Shared, cluster: &MysqlCluster, replicas: u32) -> Result<(), UpkeepError> {
    if cluster.spec.topology == TopologyKind::External || !tell::problems(cluster).is_empty() {
        return Ok(());
    }
    for object in owned(cluster, &shared.image, replicas) {
        apply(shared, object).await?;
    }
    Ok(())
}

async fn apply(shared: &Shared, mut object: Value) -> Result<(), UpkeepError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let what = format!("{} {name}", object["kind"].as_str().unwrap_or_default());
    match try_apply(shared, &name, &object).await {
        // Before 1.21.
        Err(kube::Error::Api(refusal)) if refusal.code == 404 && object["apiVersion"] == "policy/v1" => {
            object["apiVersion"] = "policy/v1beta1".into();
            try_apply(shared, &name, &object).await
        }
        done => done,
    }
    .map_err(at(&what))
}

async fn try_apply(shared: &Shared, name: &str, object: &Value) -> Result<(), kube::Error> {
    let word = |key: &str| object[key].as_str().unwrap_or_default();
    let (group, version) = word("apiVersion").rsplit_once('/').unwrap_or(("", word("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, word("kind")));
    let api: Api<DynamicObject> = Api::namespaced_with(shared.client.clone(), &shared.namespace, &resource);
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await.map(drop)
}

/// How many pods the StatefulSet is to have now.
pub fn replicas(shared: &Shared, cluster: &MysqlCluster) -> u32 {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let wanted = cluster.spec.replicas;
    let status = cluster.status.clone().unwrap_or_default();
    let highest = |pod: &Option<String>| {
        pod.as_ref().and_then(|pod| objects::ordinal(name, pod)).map_or(0, |ordinal| ordinal + 1)
    };
    let _ = shared;
    // The primary moves to one that stays first.
    wanted.max(highest(&status.primary)).max(highest(&status.target_primary))
}
