//! What one listener knows of accounts, apart for each cluster behind it.
//!
//! Accounts live in the servers: the same name is somebody else at another cluster, and a cluster that comes back under an
//! old name begins with nothing. Only the account file, which is the listener's own, is the same for all.

use super::clusters::Clusters;
use super::shared::Cluster;
use crate::accounts::{Accounts, AccountsConfig, Credential, Sealer, ServiceAccount, SessionCredential, SourceError};
use crate::types::ClusterId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// The accounts behind one listener, apart for each cluster.
pub struct Ledger {
    config: AccountsConfig,
    sealer: Arc<Sealer>,
    by_cluster: Mutex<HashMap<ClusterId, Arc<Accounts>>>,
}

impl Ledger {
    /// What `config` says of sources holds for every cluster, its limits are each cluster's own.
    pub fn new(config: AccountsConfig, sealer: Arc<Sealer>) -> Self {
        Self { config, sealer, by_cluster: Mutex::default() }
    }

    /// The accounts of a cluster.
    pub fn of(&self, cluster: &Cluster, clusters: &Arc<Clusters>) -> Arc<Accounts> {
        let limits = (cluster.config.account_ttl, cluster.config.accounts_max);
        let mut by_cluster = self.by_cluster.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_cluster.get(&cluster.id).filter(|known| known.limits() == limits) {
            return Arc::clone(known);
        }
        // A cluster that has ended meanwhile is not entered again.
        let config = AccountsConfig { lifetime: limits.0, entries_max: limits.1, ..self.config.clone() };
        let service = service_account(cluster, clusters, &self.sealer);
        let accounts = Arc::new(Accounts::new(config, Arc::clone(&self.sealer), Some(service)));
        if !cluster.gone.is_cancelled() {
            by_cluster.insert(cluster.id, Arc::clone(&accounts));
        }
        accounts
    }

    /// Reads the account file again; on an error what was read before stays. Blocking.
    pub fn reload(&self) -> Result<(), SourceError> {
        self.config.file.as_ref().map_or(Ok(()), |file| file.reload())
    }

    /// Forgets the accounts of clusters that are served no more.
    pub fn forget_gone(&self, clusters: &Clusters) {
        let now = clusters.load();
        let mut by_cluster = self.by_cluster.lock().unwrap_or_else(PoisonError::into_inner);
        by_cluster.retain(|id, _| now.values().any(|cluster| cluster.id == *id));
    }
}

/// Asks the cluster's primary, whichever it is then, with the account that is configured then.
fn service_account(cluster: &Cluster, clusters: &Arc<Clusters>, sealer: &Arc<Sealer>) -> ServiceAccount {
    let (name, id) = (cluster.name.clone(), cluster.id);
    let (clusters, sealer) = (Arc::clone(clusters), Arc::clone(sealer));
    Box::new(move || {
        let cluster = clusters.find(&name.0).filter(|cluster| cluster.id == id)?;
        let (_, primary) = cluster.proven_primary();
        let account = &cluster.config.account;
        let password = Credential::password(Zeroizing::new(account.password.expose().as_bytes().to_vec()));
        let credential = SessionCredential::seal(&sealer, &password)?;
        Some((cluster.target(&primary?.address, true), account.user.as_bytes().to_vec(), credential))
    })
}
