//! Makes what belongs to a cluster, and makes it again when somebody changes it: accounts first, then everything else.

use super::objects::{self, RESTARTED, metadata, owned, secret_name};
use super::place::{annotation, delete_pod};
use super::progress::Progress;
use super::rollout::{self, Chore, PodView};
use super::volumes::{self, Volumes};
use super::{LEAVING, Shared, conf, operations, tell};
use crate::accounts::Credential;
use crate::reconciler::accounts::{ACCOUNTS, ADMIN, REPLICATION, user};
use crate::reconciler::death;
use crate::reconciler::external::ExternalAccount;
use crate::reconciler::resource::{MysqlCluster, Storage, TopologyKind, UpdateStrategy};
use crate::reconciler::server::{Access, Replication};
use crate::tls::{BackendTls, SslMode, TlsFiles};
use crate::topology::kubernetes::{PodFacts, Preset, pod::Pod};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, ObjectMeta, Patch, PatchParams,
    PostParams,
};
use kube::runtime::events::EventType;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Limit of one look at a server.
const DEADLINE: Duration = Duration::from_secs(1);
/// What nobody is known to have changed is applied again after this.
const AGAIN: Duration = Duration::from_secs(60);
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
    NoAccount(String, String),
    /// No random numbers, or no TLS.
    #[error("{0}")]
    Local(String),
}

fn at(what: &str) -> impl FnOnce(kube::Error) -> UpkeepError {
    let what = what.to_owned();
    move |error| UpkeepError::Api { what, error: Box::new(error) }
}

/// As whom the members are asked. The Secret of an own cluster is made if it is not there, missing keys are added, and nothing
/// is ever changed; another operator's is read.
pub async fn accounts(shared: &Shared, cluster: &MysqlCluster) -> Result<Access, UpkeepError> {
    let is_external = cluster.spec.topology == TopologyKind::External;
    let account = foreign_account(cluster);
    let name = accounts_name(cluster);
    let secrets: Api<Secret> = Api::namespaced(shared.client.clone(), &shared.namespace);
    let found = secrets.get_opt(&name).await.map_err(at(&name))?;
    let mut passwords: BTreeMap<String, Vec<u8>> = found
        .iter()
        .flat_map(|secret| secret.data.iter().flatten())
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect();
    if !is_external {
        let mut missing = BTreeMap::new();
        for account in ACCOUNTS.iter().filter(|account| !passwords.contains_key(account.key)) {
            missing.insert(account.key.to_owned(), password()?);
        }
        if !missing.is_empty() {
            write_accounts(&secrets, cluster, &name, (found, &missing)).await?;
            passwords.extend(missing.into_iter().map(|(key, password)| (key, password.into_bytes())));
        }
    }
    let password =
        |key: &str| passwords.get(key).cloned().ok_or_else(|| UpkeepError::NoAccount(name.clone(), key.to_owned()));
    let (asks, key) = account.map_or((user(ADMIN), ADMIN), |account| (&*account.user, &*account.key));
    let replication = if is_external { Vec::new() } else { password(REPLICATION)? };
    let tls =
        BackendTls::backend(SslMode::Preferred, TlsFiles::default()).map_err(|e| UpkeepError::Local(e.to_string()))?;
    Ok(Access {
        user: asks.into(),
        credential: Credential::password(Zeroizing::new(password(key)?)),
        tls: Arc::new(tls),
        replication: Replication {
            user: user(REPLICATION).into(),
            password: String::from_utf8_lossy(&replication).into(),
            certified: cluster.spec.tls.mtls,
        },
        deadline: DEADLINE,
    })
}

fn foreign_account(cluster: &MysqlCluster) -> Option<&ExternalAccount> {
    cluster.spec.external.as_ref()?.account.as_ref()
}

fn accounts_name(cluster: &MysqlCluster) -> String {
    let own = || secret_name(cluster.metadata.name.as_deref().unwrap_or_default());
    foreign_account(cluster).map_or_else(own, |account| account.secret_name.clone())
}

/// Which version of the accounts' Secret there is; `None`: it is gone.
pub async fn account_version(shared: &Shared, cluster: &MysqlCluster) -> Result<Option<String>, UpkeepError> {
    let secrets: Api<Secret> = Api::namespaced(shared.client.clone(), &shared.namespace);
    let name = accounts_name(cluster);
    let found = secrets.get_opt(&name).await.map_err(at(&name))?;
    Ok(found.and_then(|secret| secret.metadata.resource_version))
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
    done.map_err(at(name))?;
    death::behind(format_args!("accounts {name}"));
    Ok(())
}

/// 32 hexadecimal digits.
fn password() -> Result<String, UpkeepError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| UpkeepError::Local(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Upkeep of one cluster.
pub struct Upkeep {
    shared: Arc<Shared>,
    name: String,
    /// What was applied last, and when.
    applied: Option<(u32, Instant)>,
    /// For how many replicas no claim is left over.
    swept: Option<u32>,
    /// Beside which option file there is no other.
    options: Option<String>,
    /// Storage that could not be had, why, and when that was said.
    refused: Option<(Storage, String, Instant)>,
}

impl Upkeep {
    /// Nothing is known yet.
    pub fn new(shared: Arc<Shared>, name: &str) -> Self {
        Self { shared, name: name.to_owned(), applied: None, swept: None, options: None, refused: None }
    }

    /// One look, and what follows from it. Nothing is made of a spec that is refused.
    pub async fn round(&mut self, cluster: &MysqlCluster) -> Result<(), UpkeepError> {
        if cluster.spec.topology == TopologyKind::External {
            operations::work(&self.shared, cluster, &[]).await.map_err(at("operations"))?;
        }
        if cluster.spec.topology == TopologyKind::External || !tell::problems(cluster).is_empty() {
            self.say(cluster, None, "");
            return Ok(());
        }
        let sets: Api<StatefulSet> = Api::namespaced(self.shared.client.clone(), &self.shared.namespace);
        let name = objects::set_name(&self.name);
        let set = sets.get_opt(&name).await.map_err(at(&name))?;
        let views = self.views(cluster, set.as_ref());
        let now = set.as_ref().and_then(|set| set.spec.as_ref()?.replicas).and_then(|n| u32::try_from(n).ok());
        if set.as_ref().is_some_and(|set| set.metadata.deletion_timestamp.is_some()) {
            // It comes again, around the pods that are left of it.
            return Ok(());
        }
        let pods =
            views.iter().filter_map(|pod| objects::ordinal(&self.name, &pod.name)).max().map_or(0, |top| top + 1);
        let replicas = rollout::replicas(cluster, now.unwrap_or(pods), &views);
        self.apply_all(&volumes::as_it_is(cluster, set.as_ref()), replicas).await?;
        // Only once the StatefulSet's controller has seen what was applied is a pod's revision to be trusted.
        let is_seen = set.as_ref().is_some_and(|set| {
            set.status.as_ref().is_some_and(|status| status.observed_generation == set.metadata.generation)
        });
        let settled = is_seen && replicas == cluster.spec.replicas && now == Some(replicas);
        let volumes = self.grow(cluster, set.as_ref(), settled && views.len() == replicas as usize).await?;
        let is_still = settled && volumes != Volumes::Growing;
        let outdated = views.iter().filter(|pod| !pod.current).count();
        match volumes {
            Volumes::Refused(why) => self.say(cluster, Some("VolumesRefused"), &why),
            Volumes::Growing => self.say(cluster, Some("VolumesGrow"), "volumes are to be larger"),
            Volumes::Fit if !settled || views.len() != replicas as usize => {
                self.say(cluster, Some("Scaling"), "pods are yet to come or to go");
            }
            Volumes::Fit if outdated > 0 => {
                self.say(cluster, Some("RollingOut"), &format!("{outdated} pods are yet to be replaced"));
            }
            Volumes::Fit => self.say(cluster, Some(Progress::DONE), ""),
        }
        if is_still {
            self.sweep(replicas, &views).await?;
            match rollout::next(cluster, &views) {
                Some(chore) => self.do_chore(&chore).await?,
                None if views.iter().all(|pod| pod.current) => self.sweep_options(cluster).await?,
                None => {}
            }
        }
        operations::work(&self.shared, cluster, &views).await.map_err(at("its operations"))
    }

    /// Says how far the objects are; a volume that can't grow is an Event, too.
    fn say(&self, cluster: &MysqlCluster, reason: Option<&'static str>, message: &str) {
        let progress = Progress { generation: cluster.metadata.generation, reason, message: message.to_owned() };
        if self.shared.progress.say(&self.name, progress) && reason == Some("VolumesRefused") {
            tracing::warn!(cluster = self.name, why = message, "its volumes stay as they are");
            self.shared.event(&self.name, EventType::Warning, ("VolumesRefused", "Grow"), message.to_owned());
        }
    }

    /// Volumes, as far as their StatefulSet is not as the spec wants it; what was refused is tried again after a while.
    async fn grow(
        &mut self,
        cluster: &MysqlCluster,
        set: Option<&StatefulSet>,
        settled: bool,
    ) -> Result<Volumes, UpkeepError> {
        let Some(set) = set else { return Ok(Volumes::Fit) };
        if let Some((storage, why, at)) = &self.refused
            && *storage == cluster.spec.storage
            && at.elapsed() < AGAIN
        {
            return Ok(Volumes::Refused(why.clone()));
        }
        let volumes = volumes::grow(&self.shared, cluster, set, settled).await.map_err(at("its volumes"))?;
        self.refused = match &volumes {
            Volumes::Refused(why) => Some((cluster.spec.storage.clone(), why.clone(), Instant::now())),
            Volumes::Fit | Volumes::Growing => None,
        };
        Ok(volumes)
    }

    fn views(&self, cluster: &MysqlCluster, set: Option<&StatefulSet>) -> Vec<PodView> {
        let rules = Preset::Holdfast.rules();
        let revision = set.and_then(|set| set.status.as_ref()?.update_revision.clone());
        let restart = operations::restart(&self.shared, &self.name);
        let by_itself = cluster.spec.update_strategy == UpdateStrategy::PrimaryLast;
        let restarted = cluster.metadata.annotations.as_ref().and_then(|all| all.get(RESTARTED)).map(String::as_str);
        let is_own =
            |pod: &Pod| pod.metadata.name.as_ref().is_some_and(|pod| objects::ordinal(&self.name, pod).is_some());
        let view = |pod: &Pod| {
            let facts = PodFacts::read(pod, &rules)?;
            let its = pod.metadata.labels.as_ref().and_then(|labels| labels.get("controller-revision-hash"));
            let is_updated = !by_itself || revision.is_none() || its == revision.as_ref();
            let is_asked = restart.as_deref() == Some(&*facts.uid) || annotation(pod, RESTARTED) != restarted;
            Some(PodView {
                name: facts.name.to_string(),
                label: facts.label,
                state: facts.state,
                uid: facts.uid.to_string(),
                current: is_updated && !is_asked,
                leaving: annotation(pod, LEAVING).is_some(),
            })
        };
        self.shared.pods.all(is_own).iter().filter_map(|pod| view(pod)).collect()
    }

    async fn apply_all(&mut self, cluster: &MysqlCluster, replicas: u32) -> Result<(), UpkeepError> {
        let all = owned(cluster, &self.shared.image, replicas);
        let hash = conf::hash(&Value::from(all.clone()).to_string());
        if self.applied.is_some_and(|(applied, at)| applied == hash && at.elapsed() < AGAIN) {
            return Ok(());
        }
        for object in all {
            apply(&self.shared, object).await?;
        }
        self.applied = Some((hash, Instant::now()));
        Ok(())
    }

    async fn do_chore(&self, chore: &Chore) -> Result<(), UpkeepError> {
        let (Chore::Leave(name) | Chore::Stay(name) | Chore::Replace(name)) = chore;
        let Some(pod) = self.shared.pods.find(name) else { return Ok(()) };
        tracing::info!(cluster = self.name, ?chore, "its pods are not as they are wanted");
        let pods = self.shared.pods_api();
        let mark = match chore {
            Chore::Replace(_) => {
                delete_pod(&pods, &pod, None).await.map_err(at(name))?;
                death::behind(format_args!("replace {name}"));
                return Ok(());
            }
            Chore::Leave(_) => Some("update"),
            Chore::Stay(_) => None,
        };
        let patch = json!({ "metadata": { "uid": pod.metadata.uid, "annotations": { LEAVING: mark } } });
        pods.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(at(name))?;
        death::behind(format_args!("mark {name} {mark:?}"));
        Ok(())
    }

    /// Deletes the claims of ordinals that are gone; that of ordinal 0 never.
    async fn sweep(&mut self, replicas: u32, views: &[PodView]) -> Result<(), UpkeepError> {
        if self.swept == Some(replicas) || views.len() > replicas as usize {
            return Ok(());
        }
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.shared.client.clone(), &self.shared.namespace);
        let own = format!("{}={},{}=holdfast", objects::CLUSTER, self.name, objects::BY);
        let listed = claims.list(&ListParams::default().labels(&own)).await.map_err(at("its claims"))?;
        for claim in listed.items.iter().filter_map(|claim| claim.metadata.name.as_deref()) {
            let ordinal = claim.strip_prefix("data-").and_then(|pod| objects::ordinal(&self.name, pod));
            if ordinal.is_some_and(|ordinal| ordinal != 0 && ordinal >= replicas) {
                tracing::info!(cluster = self.name, claim, "its member is gone");
                claims.delete(claim, &DeleteParams::default()).await.map_err(at(claim))?;
                death::behind(format_args!("delete claim {claim}"));
            }
        }
        self.swept = Some(replicas);
        Ok(())
    }

    /// Deletes the option files that no pod has any more.
    async fn sweep_options(&mut self, cluster: &MysqlCluster) -> Result<(), UpkeepError> {
        let now = objects::config_name(cluster);
        if self.options.as_ref() == Some(&now) {
            return Ok(());
        }
        let maps: Api<ConfigMap> = Api::namespaced(self.shared.client.clone(), &self.shared.namespace);
        let own = format!("{}={},{}=holdfast", objects::CLUSTER, self.name, objects::BY);
        let listed = maps.list(&ListParams::default().labels(&own)).await.map_err(at("its ConfigMaps"))?;
        for map in listed.items.iter().filter_map(|map| map.metadata.name.as_deref()).filter(|map| *map != now) {
            maps.delete(map, &DeleteParams::default()).await.map_err(at(map))?;
            death::behind(format_args!("delete options {map}"));
        }
        self.options = Some(now);
        Ok(())
    }
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
    .map_err(at(&what))?;
    death::behind(format_args!("apply {what}"));
    Ok(())
}

async fn try_apply(shared: &Shared, name: &str, object: &Value) -> Result<(), kube::Error> {
    let word = |key: &str| object[key].as_str().unwrap_or_default();
    let (group, version) = word("apiVersion").rsplit_once('/').unwrap_or(("", word("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, word("kind")));
    let api: Api<DynamicObject> = Api::namespaced_with(shared.client.clone(), &shared.namespace, &resource);
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await.map(drop)
}
