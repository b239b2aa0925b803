//! Who may log in and with what proof: credentials, the cache of verifiers, the RSA key, the sources of accounts.
//!
//! Nothing here decides that a login is good: that does a server, by accepting a real login. What is kept here only
//! spares clients the full exchange the next time, and recognizes clients that can't be asked for their password.

mod cache;
mod credential;
mod failures;
mod rsa;
mod sealed;
mod source;

pub use cache::Verifier;
pub use credential::Credential;
pub use failures::{Failures, Limits as FailureLimits};
pub use rsa::{KeyError, RsaKey, encrypt_password};
pub use sealed::{Sealer, SessionCredential};
pub use source::{AccountFile, SourceError, read_file, read_server};

use crate::backend::ConnectTarget;
use arc_swap::ArcSwap;
use cache::Cache;
use source::Verifiers;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A server that mismatched answers may be checked against afresh is asked at most this often.
const REREAD_MIN: Duration = Duration::from_secs(1);

/// Where accounts come from, and how long what was learned is believed.
#[derive(Clone)]
pub struct AccountsConfig {
    /// Accounts the sources don't have may log in too, proven by a server alone.
    pub pass_through: bool,
    /// mysql_native_password verifiers are read from a server with the service account.
    pub server: bool,
    /// An account file.
    pub file: Option<Arc<AccountFile>>,
    /// How long a proven password is remembered.
    pub lifetime: Duration,
    /// How long what a server told is believed.
    pub server_lifetime: Duration,
    /// Accounts remembered.
    pub entries_max: usize,
}

impl Default for AccountsConfig {
    fn default() -> Self {
        Self {
            pass_through: true,
            server: false,
            file: None,
            lifetime: Duration::from_secs(3600),
            server_lifetime: Duration::from_secs(60),
            entries_max: 10_000,
        }
    }
}

/// The account a server is asked with, and the server; `None` while there is none to ask.
pub type ServiceAccount = Box<dyn Fn() -> Option<(ConnectTarget, Vec<u8>, SessionCredential)> + Send + Sync>;

/// The accounts of one cluster, shared by all workers. Its locks are held for look-ups only, never across an await.
pub struct Accounts {
    config: AccountsConfig,
    /// Seals what is kept; the same for all clusters.
    pub sealer: Arc<Sealer>,
    cache: Mutex<Cache>,
    server: ArcSwap<(Option<Instant>, Verifiers)>,
    /// One reader of mysql.user at a time; the others wait for what it finds.
    reading: tokio::sync::Mutex<()>,
    service: Option<ServiceAccount>,
}

impl Accounts {
    /// Nothing is known yet but what the file says.
    pub fn new(config: AccountsConfig, sealer: Arc<Sealer>, service: Option<ServiceAccount>) -> Self {
        Self {
            cache: Mutex::new(Cache::new(config.entries_max, config.lifetime)),
            server: ArcSwap::from_pointee((None, Verifiers::new())),
            reading: tokio::sync::Mutex::new(()),
            service,
            sealer,
            config,
        }
    }

    /// How long a proven password is remembered, and how many accounts are.
    pub fn limits(&self) -> (Duration, usize) {
        (self.config.lifetime, self.config.entries_max)
    }

    fn in_file(&self, user: &[u8]) -> Option<Vec<Verifier>> {
        self.config.file.as_ref()?.find(user)
    }

    /// True if `user` may try to log in: pass-through admits everybody, else a source must know the account.
    pub fn admits(&self, user: &[u8]) -> bool {
        self.config.pass_through || self.is_listed(user) || self.in_file(user).is_some()
    }

    /// True if an answer of mysql_native_password that fits none of the verifiers of `user` is certainly wrong: the
    /// server's list has the account, or the file is the only source. (A remembered password may have been changed.)
    pub fn is_listed(&self, user: &[u8]) -> bool {
        self.server.load().1.contains_key(user) || (!self.config.pass_through && self.in_file(user).is_some())
    }

    /// Accounts in the cache of proven passwords.
    pub fn cached(&self) -> usize {
        self.cache().len()
    }

    /// What recognizes the passwords of `user`: proven ones, then the file's, then the server's as far as it was read.
    pub fn find(&self, user: &[u8]) -> Vec<Verifier> {
        let mut found = self.cache().find(user, Instant::now());
        found.extend(self.in_file(user).into_iter().flatten());
        found.extend(self.server.load().1.get(user).into_iter().flatten().cloned());
        found
    }

    /// Reads mysql.user again if what is known is older than its lifetime, or older than a second where `mismatched`:
    /// an answer did not fit, so a password may have changed. An unreachable server is no error: what is known stays.
    pub async fn refresh(&self, mismatched: bool) {
        let Some(service) = self.service.as_ref().filter(|_| self.config.server) else { return };
        let limit = if mismatched { REREAD_MIN } else { self.config.server_lifetime };
        let fresh = || self.server.load().0.is_some_and(|at| at.elapsed() < limit);
        if fresh() {
            return;
        }
        let _reading = self.reading.lock().await;
        if fresh() {
            return;
        }
        let Some((target, user, credential)) = service() else { return };
        match read_server(&target, &user, &credential.open()).await {
            Ok(verifiers) => self.server.store(Arc::new((Some(Instant::now()), verifiers))),
            Err(error) => {
                tracing::warn!(%error, server = %target.address, "accounts could not be read");
                // Not asked again at once; what is known stays.
                let known = self.server.load().1.clone();
                self.server.store(Arc::new((Some(Instant::now()), known)));
            }
        }
    }

    /// Remembers a credential a server has accepted. Only passwords are remembered: hashes came from here.
    pub fn proven(&self, user: &[u8], credential: &Credential) {
        let Some(password) = credential.password_bytes().filter(|password| !password.is_empty()) else { return };
        let verifier = source::of_password(password, &self.sealer);
        self.cache().insert(user, verifier, Instant::now());
    }

    /// Forgets a password a server has refused.
    pub fn refused(&self, user: &[u8], verifier: &Verifier) {
        self.cache().remove(user, verifier);
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Nothing in the cache panics half-way; a poisoned lock is as good as another.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
