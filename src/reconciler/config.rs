//! The file of `holdfast reconcile` without Kubernetes: members, accounts, where the record is kept.

use super::place::Listed;
use super::resource::{Durability, TopologyKind};
use super::server::{Access, Replication};
use super::snapshot::{MemberName, Wishes};
use crate::accounts::Credential;
use crate::config::LogConfig;
use crate::tls::{BackendTls, SslMode, TlsFiles};
use crate::types::Address;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The largest file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// As many as a MysqlCluster may have.
const MEMBERS_MAX: usize = 9;

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    /// It is not TOML, or not this TOML.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// It contradicts itself.
    #[error("{0}")]
    Wrong(String),
    /// The certificates.
    #[error("{0}")]
    Tls(#[from] crate::tls::TlsError),
}

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    cluster: Cluster,
    account: Account,
    replication: Account,
    /// `level` as for the proxy.
    #[serde(default = "info")]
    log: String,
    /// The admin port, if there is to be one.
    #[serde(default)]
    listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    #[serde(default)]
    topology: TopologyKind,
    members: Vec<ListedMember>,
    /// File of the record, beside the configuration.
    record: PathBuf,
    #[serde(default)]
    durability: Durability,
    #[serde(default)]
    auto_reclone: bool,
    #[serde(default)]
    failover_delay_ms: u64,
    /// Limit of one look at a server.
    #[serde(default = "second")]
    deadline_ms: u64,
    /// A CA file: servers are verified by it; otherwise encrypted where they can, and not verified.
    #[serde(default)]
    tls_ca: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedMember {
    name: String,
    address: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    user: String,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    password_env: Option<String>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("user", &self.user).finish_non_exhaustive()
    }
}

fn info() -> String {
    "info".to_owned()
}

fn second() -> u64 {
    1000
}

impl Account {
    fn password(&self) -> Result<String, FileError> {
        match (&self.password, &self.password_env) {
            (Some(password), None) => Ok(password.clone()),
            (None, Some(name)) => std::env::var(name).map_err(|error| FileError::Wrong(format!("{name}: {error}"))),
            _ => Err(FileError::Wrong(format!("account {}: one of password and password_env", self.user))),
        }
    }
}

impl File {
    /// Reads and checks it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Err(FileError::Wrong(format!("longer than {FILE_BYTES_MAX} bytes")));
        }
        let mut file: Self = toml::from_str(&std::fs::read_to_string(path)?)?;
        let members = &file.cluster.members;
        let n = members.len();
        if !(1..=MEMBERS_MAX).contains(&n) {
            return Err(FileError::Wrong(format!("{n} members: there must be 1 to {MEMBERS_MAX}")));
        }
        if let Some(twice) = members.iter().enumerate().find(|(i, m)| members[..*i].iter().any(|o| o.name == m.name)) {
            return Err(FileError::Wrong(format!("two members are called {}", twice.1.name)));
        }
        file.members()?;
        let home = path.parent().unwrap_or(Path::new(""));
        file.cluster.record = home.join(&file.cluster.record);
        file.cluster.tls_ca = file.cluster.tls_ca.map(|ca| home.join(ca));
        Ok(file)
    }

    fn members(&self) -> Result<Vec<(MemberName, Address)>, FileError> {
        let member = |listed: &ListedMember| {
            let address = listed.address.parse().map_err(|error: crate::types::AddressError| error.to_string());
            Ok((MemberName::from(&*listed.name), address.map_err(FileError::Wrong)?))
        };
        self.cluster.members.iter().map(member).collect()
    }

    /// How to log.
    pub fn log(&self) -> LogConfig {
        LogConfig { level: self.log.clone(), ..LogConfig::default() }
    }

    /// Where its admin port listens, if it has one.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// Where its cluster is written down.
    ///
    /// # Errors
    /// What [`File::load`] has checked already.
    pub fn place(&self) -> Result<Listed, FileError> {
        let wishes = Wishes {
            topology: self.cluster.topology,
            durability: self.cluster.durability,
            auto_reclone: self.cluster.auto_reclone,
            failover_delay_ms: self.cluster.failover_delay_ms,
            max_lag_ms: 0,
            switchover: None,
            force: false,
            reclone: None,
        };
        Ok(Listed::new(wishes, self.members()?, &self.cluster.record))
    }

    /// Who logs in to the servers.
    ///
    /// # Errors
    /// Certificates or passwords that can't be read.
    pub fn access(&self) -> Result<Access, FileError> {
        let mode = if self.cluster.tls_ca.is_some() { SslMode::VerifyCa } else { SslMode::Preferred };
        let files = TlsFiles { ca: self.cluster.tls_ca.clone(), ..TlsFiles::default() };
        let password = Zeroizing::new(self.account.password()?.into_bytes());
        let credential = if password.is_empty() { Credential::empty() } else { Credential::password(password) };
        let replication = &self.replication;
        Ok(Access {
            user: self.account.user.as_str().into(),
            credential,
            tls: Arc::new(BackendTls::backend(mode, files)?),
            replication: Replication {
                user: replication.user.as_str().into(),
                password: replication.password()?.into(),
                certified: false,
            },
            deadline: Duration::from_millis(self.cluster.deadline_ms.max(10)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<File, FileError> {
        let path = std::env::temp_dir().join(format!("holdfast-reconcile-{}-{}.toml", std::process::id(), text.len()));
        std::fs::write(&path, text).expect("a file");
        let file = File::load(&path);
        std::fs::remove_file(&path).expect("it was there");
        file
    }

    #[test]
    fn the_example_loads_and_mistakes_are_named() {
        let example = include_str!("../../deploy/reconcile.toml");
        let file = load(example).expect("the example is right");
        assert_eq!(file.members().expect("addresses").len(), 3);
        assert!(file.access().is_err_and(|e| e.to_string().contains("HOLDFAST_ADMIN_PASSWORD")));
        assert!(!format!("{file:?}").contains("HOLDFAST_"), "no password, nor where it is");
        for (from, to, words) in [
            ("db-1\"", "db-0\"", "two members are called db-0"),
            ("10.0.0.10:3306", "10.0.0.10:0", "is not an address"),
            ("auto_reclone", "autoReclone", "unknown field `autoReclone`"),
            ("semisync\"\nmembers", "ring\"\nmembers", "unknown variant `ring`"),
        ] {
            let error = load(&example.replace(from, to)).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
