//! One reconciler at a time: a Lease, held by whoever renews it.
//!
//! It keeps two reconcilers from working against each other and is no fence: a reconciler that was frozen and goes on writes
//! with an old resourceVersion and is refused (see `place`).

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::{Duration, Instant};

/// Its name.
pub const NAME: &str = "holdfast-reconciler";
/// Between two renewals; also the limit of one.
pub const RENEW: Duration = Duration::from_secs(2);
/// Whoever has not renewed it for so long stops: well before another may begin.
pub const GIVE_UP: Duration = Duration::from_secs(7);
/// Whoever has not been seen to renew it for so long has lost it.
const EXPIRY: Duration = Duration::from_secs(10);

/// The Lease as one candidate sees it.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// The version that was seen last, and since when: clocks of other machines count for nothing.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    /// Somebody who wants to lead.
    pub fn new(api: Api<Lease>, identity: String) -> Self {
        Self { api, identity, seen: None }
    }

    /// Takes or renews it; false while another holds it.
    pub async fn try_hold(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let lease = self.written(None);
            return settled(self.api.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => self.seen.insert((version, Instant::now())).1,
        };
        if !holder.is_empty() && holder != self.identity && since.elapsed() < EXPIRY {
            return Ok(false);
        }
        let lease = self.written(Some(lease));
        settled(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// Lets the next one take it at once.
    pub async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = None;
            self.api.replace(NAME, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    fn written(&self, before: Option<Lease>) -> Lease {
        let (metadata, spec) = before.map_or_else(
            || (ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() }, LeaseSpec::default()),
            |lease| (lease.metadata, lease.spec.unwrap_or_default()),
        );
        let is_new = spec.holder_identity.as_ref() != Some(&self.identity);
        let now = Some(MicroTime(Timestamp::now()));
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(EXPIRY.as_secs() as i32),
            acquire_time: if is_new { now.clone() } else { spec.acquire_time },
            lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(is_new)),
            renew_time: now,
            ..spec
        };
        Lease { metadata, spec: Some(spec) }
    }
}

/// A conflict means that another was quicker.
fn settled(done: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match done {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
