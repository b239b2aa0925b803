//! From the configuration's words to the rooms' own: topology settings, accounts, TLS.

use super::pods;
use crate::accounts::{AccountFile, AccountsConfig, Credential, Sealer};
use crate::config::{AccountSource, ClientTlsMode, ClusterConfig, ListenerConfig, RoleHint, Source};
use crate::frontend::ledger::Ledger;
use crate::tls::{self, BackendTls, ListenerTls, TlsFiles};
use crate::topology::{self, kubernetes::Hub};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What the topology of a cluster is told.
pub(super) fn topology_settings(
    config: &ClusterConfig,
    tls: &Arc<BackendTls>,
    hub: &Hub,
) -> topology::TopologySettings {
    let source = match &config.source {
        Source::Static { servers } => topology::Source::Static {
            servers: servers
                .iter()
                .map(|server| topology::ServerEntry {
                    address: server.address.clone(),
                    weight: server.weight,
                    role_hint: server.role.map(|role| match role {
                        RoleHint::Primary => topology::RoleHint::Primary,
                        RoleHint::Follower => topology::RoleHint::Follower,
                    }),
                })
                .collect(),
        },
        Source::Members { seeds } => topology::Source::Members { seeds: seeds.clone(), weight: 1 },
        Source::Kubernetes(_) => topology::Source::Pods,
    };
    topology::TopologySettings {
        cluster: config.name.as_str().into(),
        source,
        pods: pods::feed(hub, config),
        account: topology::Account { user: config.account.user.as_str().into(), credential: password(config) },
        tls: Arc::clone(tls),
        probe: topology::ProbeSettings {
            interval: config.probe_interval,
            doubt_interval: config.probe_doubt_interval,
            timeout: config.probe_timeout,
            ..topology::ProbeSettings::default()
        },
        limits: topology::Limits {
            drain_ms: config.drain_deadline.as_millis() as u64,
            silence_ms: config.silence_max.as_millis() as u64,
            accept_lost_ms: config.accept_lost_writes_after.map(|after| after.as_millis() as u64),
            answer_ms_max: (2 * (config.probe_interval + config.probe_timeout)).as_millis() as u64,
            ..topology::Limits::default()
        },
        reconciler: pods::reconciler(config),
    }
}

pub(super) fn password(config: &ClusterConfig) -> Credential {
    Credential::password(Zeroizing::new(config.account.password.expose().as_bytes().to_vec()))
}

/// The accounts behind a listener.
pub(super) fn ledger(listener: &ListenerConfig, sealer: &Arc<Sealer>) -> Result<Ledger> {
    let has = |source| listener.account_source.contains(&source);
    let open = |path: &PathBuf| AccountFile::open(path.clone(), Arc::clone(sealer)).map(Arc::new);
    let file = listener.account_file.as_ref().map(open).transpose().context("account sources")?;
    let config = AccountsConfig {
        pass_through: has(AccountSource::PassThrough),
        server: has(AccountSource::Server),
        file,
        ..AccountsConfig::default()
    };
    Ok(Ledger::new(config, Arc::clone(sealer)))
}

/// TLS towards a cluster's servers. Blocking.
pub(super) fn backend_tls(config: &ClusterConfig) -> Result<BackendTls> {
    let files = TlsFiles { cert: config.tls.cert.clone(), key: config.tls.key.clone(), ca: config.tls.ca.clone() };
    BackendTls::backend(config.tls.mode, files).with_context(|| format!("cluster {}: TLS", config.name))
}

/// TLS towards a listener's clients. Blocking.
pub(super) fn listener_tls(config: &ListenerConfig) -> Result<ListenerTls> {
    let mode = match config.tls.mode {
        ClientTlsMode::Disabled => tls::SslMode::Disabled,
        ClientTlsMode::Preferred => tls::SslMode::Preferred,
        ClientTlsMode::Required => tls::SslMode::Required,
        ClientTlsMode::VerifyCa => tls::SslMode::VerifyCa,
        ClientTlsMode::VerifyIdentity => tls::SslMode::VerifyIdentity,
    };
    let files =
        TlsFiles { cert: config.tls.cert.clone(), key: config.tls.key.clone(), ca: config.tls.client_ca.clone() };
    ListenerTls::listener(mode, files).with_context(|| format!("listener {}: TLS", config.name))
}
