//! `holdfast check`: every value a configuration resolves to, as TOML that could be loaded again.
//!
//! Why TOML: the operator compares it with the file line by line, and a test can load it, which proves that no key is
//! left out. Passwords are `***`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::model::*;
use super::section::word_of;
use super::{LOG_FORMATS, cluster, kubernetes, listener, routes};

/// The whole configuration with every effective value, as TOML; passwords are `***`.
pub fn describe(config: &Config) -> String {
    let mut text = String::new();
    for (i, section) in sections(config).iter().enumerate() {
        if i > 0 && !section.header.contains('.') {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", section.header);
        for (key, value) in &section.entries {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
    text
}

/// Every value by its path: `listener.app.tls.mode` → `"preferred"`.
pub(super) fn values(config: &Config) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for section in sections(config) {
        for (key, value) in section.entries {
            values.insert(format!("{}.{key}", section.path), value);
        }
    }
    values
}

struct Entries {
    /// `[listener.tls]`
    header: String,
    /// `listener.app.tls`
    path: String,
    entries: Vec<(Cow<'static, str>, String)>,
}

impl Entries {
    fn new(header: &str, path: impl Into<String>) -> Self {
        Self { header: header.to_owned(), path: path.into(), entries: Vec::new() }
    }

    fn plain(&mut self, key: &'static str, value: impl ToString) {
        self.entries.push((key.into(), value.to_string()));
    }

    fn limit(&mut self, key: &'static str, value: Option<u32>) {
        self.plain(key, value.unwrap_or(0));
    }

    fn millis(&mut self, key: &'static str, value: Duration) {
        self.plain(key, value.as_millis());
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.plain(key, quoted(value));
    }

    fn optional(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn texts(&mut self, key: &'static str, values: impl IntoIterator<Item = String>) {
        let values: Vec<String> = values.into_iter().map(|value| quoted(&value)).collect();
        self.plain(key, format_args!("[{}]", values.join(", ")));
    }

    fn path(&mut self, key: &'static str, value: Option<&Path>) {
        if let Some(path) = value {
            // What the relative path of the file became must not depend on where this text is loaded from.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            self.text(key, &path.to_string_lossy());
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn sections(config: &Config) -> Vec<Entries> {
    let mut proxy = Entries::new("[proxy]", "proxy");
    proxy.plain("workers", config.proxy.workers);
    let shutdown = &config.proxy.shutdown;
    proxy.millis("shutdown_grace_ms", shutdown.grace);
    proxy.millis("shutdown_idle_ms", shutdown.idle);
    proxy.millis("shutdown_deadline_ms", shutdown.deadline);
    proxy.millis("shutdown_transactions_ms", shutdown.transactions);
    proxy.plain("max_connections", config.proxy.max_connections);
    let mut log = Entries::new("[log]", "log");
    log.text("format", word_of(LOG_FORMATS, &config.log.format));
    log.text("level", &config.log.level);
    let mut all = vec![proxy, log];
    if let Some(admin) = &config.admin {
        let mut section = Entries::new("[admin]", "admin");
        section.text("listen", &admin.listen.to_string());
        all.push(section);
    }
    for listener in &config.listeners {
        all.push(of_listener(listener));
        all.push(of_client_tls(listener));
        all.extend(of_maps(listener));
    }
    for cluster in &config.clusters {
        all.extend(of_cluster(cluster));
    }
    all.extend(config.discoveries.iter().flat_map(of_discovery));
    all
}

fn of_listener(config: &ListenerConfig) -> Entries {
    let mut section = Entries::new("[[listener]]", format!("listener.{}", config.name));
    section.text("name", &config.name);
    section.text("listen", &config.listen.to_string());
    of_routes(&config.routes, &mut section);
    section.text("mode", word_of(listener::MODES, &config.mode));
    section.text("read_fallback", word_of(listener::FALLBACKS, &config.read_fallback));
    section.plain("exactly_once", config.exactly_once);
    section.text("sharing", word_of(listener::SHARINGS, &config.sharing));
    section.plain("transaction_replay_bytes", config.transaction_replay_bytes);
    section.text("consistency", word_of(listener::CONSISTENCIES, &config.consistency));
    section.millis("consistency_wait_ms", config.consistency_wait);
    section.millis("max_lag_ms", config.max_lag.unwrap_or_default());
    // Where they are absent the cluster's apply, whichever it is.
    if let Some(most) = config.hold_max {
        section.millis("hold_ms_max", most);
    }
    if let Some(most) = config.hold_statements_max {
        section.plain("hold_statements_max", most);
    }
    section.plain("max_connections", config.max_connections);
    section.limit("max_connections_per_user", config.max_connections_per_user);
    section.millis("handshake_timeout_ms", config.handshake_timeout);
    section.millis("idle_timeout_ms", config.idle_timeout.unwrap_or_default());
    section.text("proxy_protocol", word_of(listener::PROXY_PROTOCOLS, &config.proxy_protocol));
    section.texts("trusted_networks", config.trusted_networks.iter().map(ToString::to_string));
    let sources = config.account_source.iter().map(|source| word_of(listener::SOURCES, source).to_owned());
    section.texts("account_source", sources);
    section.path("account_file", config.account_file.as_deref());
    let compression = config.compression;
    let offered = [("zlib", compression.zlib), ("zstd", compression.zstd), ("none", compression.none)];
    section.texts("compression", offered.into_iter().filter(|(_, on)| *on).map(|(word, _)| word.to_owned()));
    if let Some(version) = &config.server_version {
        section.text("server_version", version);
    }
    section.plain("statement_buffer_bytes", config.statement_buffer_bytes);
    section.limit("login_failures_per_address", config.login_failures.per_address);
    section.millis("login_failure_delay_ms", config.login_failures.delay);
    section.plain("login_failure_addresses_max", config.login_failures.addresses_max);
    section
}

fn of_routes(config: &Routes, section: &mut Entries) {
    if !config.by.is_empty() {
        section.texts("route", config.by.iter().map(|rule| word_of(routes::WORDS, rule).to_owned()));
    }
    if let Some(cluster) = &config.default {
        section.text(if config.by.is_empty() { "cluster" } else { "default_cluster" }, cluster);
    }
}

/// `[listener.sni]` and `[listener.schema]`, where there are any.
fn of_maps(config: &ListenerConfig) -> Vec<Entries> {
    let of = |key: &str, map: &BTreeMap<String, String>| {
        let mut section = Entries::new(&format!("[listener.{key}]"), format!("listener.{}.{key}", config.name));
        let quote = |(name, cluster): (&String, &String)| (Cow::Owned(quoted(name)), quoted(cluster));
        section.entries = map.iter().map(quote).collect();
        section
    };
    let maps = [of("sni", &config.routes.sni), of("schema", &config.routes.schema)];
    maps.into_iter().filter(|map| !map.entries.is_empty()).collect()
}

fn of_client_tls(config: &ListenerConfig) -> Entries {
    let mut section = Entries::new("[listener.tls]", format!("listener.{}.tls", config.name));
    section.text("mode", word_of(listener::TLS_MODES, &config.tls.mode));
    section.path("cert", config.tls.cert.as_deref());
    section.path("key", config.tls.key.as_deref());
    section.path("client_ca", config.tls.client_ca.as_deref());
    section
}

fn of_cluster(config: &ClusterConfig) -> Vec<Entries> {
    let path = format!("cluster.{}", config.name);
    let mut section = Entries::new("[[cluster]]", path.clone());
    section.text("name", &config.name);
    of_source(&config.source, &mut section);
    of_any_cluster("cluster", config, section)
}

fn of_discovery(config: &DiscoveryConfig) -> Vec<Entries> {
    let mut section = Entries::new("[[discovery]]", format!("discovery.{}", config.name));
    section.text("name", &config.name);
    pods(&config.kubernetes, &mut section);
    section.plain("clusters_max", config.clusters_max);
    let custom = config.kubernetes.custom.as_ref();
    let custom = custom.map(|custom| of_custom("discovery", custom, &format!("{}.custom", section.path)));
    of_any_cluster("discovery", &config.template, section).into_iter().chain(custom).collect()
}

/// What a cluster has, written or discovered.
fn of_any_cluster(kind: &str, config: &ClusterConfig, mut section: Entries) -> Vec<Entries> {
    let path = section.path.clone();
    section.plain("required", config.required);
    section.text("kind", word_of(cluster::KINDS, &config.kind));
    section.millis("hold_ms_max", config.hold_max);
    section.plain("hold_statements_max", config.hold_statements_max);
    section.plain("hold_bytes_max", config.hold_bytes_max);
    section.millis("probe_interval_ms", config.probe_interval);
    section.millis("probe_doubt_interval_ms", config.probe_doubt_interval);
    section.millis("probe_timeout_ms", config.probe_timeout);
    section.millis("connect_timeout_ms", config.connect_timeout);
    section.millis("drain_deadline_ms", config.drain_deadline);
    section.millis("silence_ms_max", config.silence_max);
    section.millis("accept_lost_writes_after_ms", config.accept_lost_writes_after.unwrap_or_default());
    section.optional("reconciler", config.reconciler.as_ref().map(ToString::to_string).as_deref());
    section.limit("backend_connections_max", config.backend_connections_max);
    section.plain("backend_logins_max", config.backend_logins_max);
    section.plain("shared_connections_max", config.shared.connections_max);
    section.plain("shared_connections_min", config.shared.connections_min);
    section.millis("shared_idle_ms_max", config.shared.idle_max);
    section.millis("shared_lifetime_ms_max", config.shared.lifetime_max.unwrap_or_default());
    section.plain("shared_statements_max", config.shared.statements_max);
    section.plain("accounts_max", config.accounts_max);
    section.plain("account_ttl_s", config.account_ttl.as_secs());
    let mut account = Entries::new(&format!("[{kind}.account]"), format!("{path}.account"));
    account.text("user", &config.account.user);
    account.text("password", &config.account.password.to_string());
    let mut tls = Entries::new(&format!("[{kind}.tls]"), format!("{path}.tls"));
    tls.text("mode", word_of(cluster::SSL_MODES, &config.tls.mode));
    tls.path("ca", config.tls.ca.as_deref());
    tls.path("cert", config.tls.cert.as_deref());
    tls.path("key", config.tls.key.as_deref());
    let mut all = vec![section, account, tls];
    if let Source::Kubernetes(kubernetes) = &config.source {
        all.extend(of_kubernetes(kubernetes, &format!("{path}.kubernetes")));
    }
    all
}

fn of_kubernetes(config: &KubernetesConfig, path: &str) -> Vec<Entries> {
    let mut section = Entries::new("[cluster.kubernetes]", path);
    pods(config, &mut section);
    let custom =
        config.custom.as_ref().map(|custom| of_custom("cluster.kubernetes", custom, &format!("{path}.custom")));
    std::iter::once(section).chain(custom).collect()
}

fn pods(config: &KubernetesConfig, section: &mut Entries) {
    section.text("preset", config.preset.as_str());
    if !config.namespaces.is_empty() {
        section.texts("namespaces", config.namespaces.iter().cloned());
    }
    section.optional("cluster", config.cluster.as_deref());
    section.optional("component", config.component.as_deref());
    section.optional("selector", config.selector.as_deref());
    if let Some(port) = config.port {
        section.plain("port", port);
    }
    section.path("kubeconfig", config.kubeconfig.as_deref());
    section.optional("context", config.context.as_deref());
}

fn of_custom(under: &str, config: &CustomPreset, path: &str) -> Entries {
    let mut section = Entries::new(&format!("[{under}.custom]"), path);
    section.text("selector", &config.selector);
    section.optional("cluster_label", config.cluster_label.as_deref());
    section.text("role_label", &config.role_label);
    section.texts("primary", config.primary.iter().cloned());
    section.texts("follower", config.follower.iter().cloned());
    section.texts("learner", config.learner.iter().cloned());
    section.text("unlabelled", word_of(kubernetes::UNLABELLED, &config.unlabelled));
    section.optional("healthy", config.healthy.as_ref().map(|(key, value)| format!("{key}={value}")).as_deref());
    section.optional("term_annotation", config.term_annotation.as_deref());
    section
}

fn of_source(source: &Source, section: &mut Entries) {
    match source {
        Source::Static { servers } => {
            let server = |server: &StaticServer| {
                let role = server.role.map(|role| format!("role = {}, ", quoted(word_of(cluster::ROLES, &role))));
                let (address, role) = (quoted(&server.address.to_string()), role.unwrap_or_default());
                format!("{{ address = {address}, {role}weight = {} }}", server.weight)
            };
            let servers: Vec<String> = servers.iter().map(server).collect();
            section.text("source", "static");
            section.plain("servers", format_args!("[{}]", servers.join(", ")));
        }
        Source::Members { seeds } => {
            section.text("source", "members");
            section.texts("seeds", seeds.iter().map(ToString::to_string));
        }
        Source::Kubernetes(_) => section.text("source", "kubernetes"),
    }
}
