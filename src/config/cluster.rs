//! `[[cluster]]`: from a table of the file to a [`ClusterConfig`].

use std::time::Duration;

use super::error::At;
use super::kubernetes;
use super::listener::{CONNECTIONS_MAX, DAY_MS, check_pair, read_name, set};
use super::model::*;
use super::secret::Secret;
use super::section::Section;
use super::words::shown;
use crate::types::Address;

pub(super) const ROLES: &[(&str, RoleHint)] = &[("primary", RoleHint::Primary), ("follower", RoleHint::Follower)];
pub(super) const KINDS: &[(&str, ClusterKind)] =
    &[("auto", ClusterKind::Auto), ("group", ClusterKind::Group), ("async", ClusterKind::Async)];
pub(super) const SSL_MODES: &[(&str, SslMode)] = &[
    ("DISABLED", SslMode::Disabled),
    ("PREFERRED", SslMode::Preferred),
    ("REQUIRED", SslMode::Required),
    ("VERIFY_CA", SslMode::VerifyCa),
    ("VERIFY_IDENTITY", SslMode::VerifyIdentity),
];
const SOURCES: &[(&str, SourceWord)] =
    &[("static", SourceWord::Static), ("members", SourceWord::Members), ("kubernetes", SourceWord::Kubernetes)];

#[derive(Clone, Copy)]
enum SourceWord {
    Static,
    Members,
    Kubernetes,
}

/// Reads one `[[cluster]]`. `None` if what has no default is missing; then a problem has been reported.
pub(super) fn read(section: &Section) -> Option<ClusterConfig> {
    let name = read_name(section);
    let source = read_source(section);
    let account = read_account(&section.section("account"));
    // What follows is read even if these are missing, so that its problems are reported too.
    let nothing = Source::Members { seeds: Vec::new() };
    let nobody = AccountConfig { user: String::new(), password: Secret::default() };
    let (known_source, known_account) = (source.is_some(), account.is_some());
    let mut cluster =
        ClusterConfig::new(name.clone().unwrap_or_default(), source.unwrap_or(nothing), account.unwrap_or(nobody));
    section.flag("required", &mut cluster.required);
    read_kind(section, &mut cluster, known_source);
    read_limits(section, &mut cluster);
    cluster.tls = read_tls(&section.section("tls"));
    section.done();
    (name.is_some() && known_source && known_account).then_some(cluster)
}

/// Reads what a `[[discovery]]` says of each of its clusters: all but name and source.
pub(super) fn read_template(section: &Section, name: &str) -> Option<ClusterConfig> {
    let account = read_account(&section.section("account"));
    let known_account = account.is_some();
    let nobody = AccountConfig { user: String::new(), password: Secret::default() };
    let mut cluster = ClusterConfig::new(name, Source::Static { servers: Vec::new() }, account.unwrap_or(nobody));
    cluster.required = false;
    section.flag("required", &mut cluster.required);
    read_kind(section, &mut cluster, false);
    read_limits(section, &mut cluster);
    cluster.tls = read_tls(&section.section("tls"));
    known_account.then_some(cluster)
}

fn read_source(section: &Section) -> Option<Source> {
    let word = section.choice("source", SOURCES);
    let servers = read_servers(section);
    let seeds = read_seeds(section);
    let pods_section = section.section("kubernetes");
    let pods = kubernetes::read(&pods_section);
    if !section.has("source") {
        let ways = "\"static\" with servers, \"members\" with seeds, or \"kubernetes\" with [cluster.kubernetes]";
        section.missing("source", ways);
    }
    let word = word?;
    if !matches!(word, SourceWord::Kubernetes) && section.has("kubernetes") {
        section.refuse("kubernetes", "belongs to source = \"kubernetes\": write that, or leave the table out");
    }
    match word {
        SourceWord::Static => {
            if section.has("seeds") {
                section.refuse("seeds", "belong to source = \"members\": write servers = [{ address = \"…\" }]");
            }
            if !section.has("servers") {
                section.missing("servers", "servers = [{ address = \"db-0:3306\" }]");
            }
            servers.filter(|servers| !servers.is_empty()).map(|servers| Source::Static { servers })
        }
        SourceWord::Members => {
            if section.has("servers") {
                section.refuse("servers", "belong to source = \"static\": write seeds = [\"db-0:3306\"]");
            }
            if !section.has("seeds") {
                section.missing("seeds", "seeds = [\"db-0:3306\", \"db-1:3306\"]");
            }
            seeds.filter(|seeds| !seeds.is_empty()).map(|seeds| Source::Members { seeds })
        }
        SourceWord::Kubernetes => {
            for key in ["servers", "seeds"].into_iter().filter(|key| section.has(key)) {
                section.refuse(key, "are found as pods with source = \"kubernetes\": leave them out");
            }
            if !pods_section.is_present() {
                pods_section.missing_table("preset = \"innodbcluster\", or whose pods these are");
            }
            pods.map(|pods| Source::Kubernetes(Box::new(pods)))
        }
    }
}

fn read_seeds(section: &Section) -> Option<Vec<Address>> {
    let seeds = section.list("seeds", str::parse::<Address>)?;
    if seeds.is_empty() {
        section.refuse("seeds", "write at least one, as in [\"db-0:3306\"]");
    }
    let places = seeds.iter().map(|seed| (section.place("seeds"), seed));
    refuse_repeated(section, places);
    Some(seeds)
}

/// `servers`: tables, or by environment addresses with commas.
fn read_servers(section: &Section) -> Option<Vec<StaticServer>> {
    if matches!(section.place("servers"), At::Env(_)) && section.has("servers") {
        let addresses = section.list("servers", str::parse::<Address>)?;
        let server = |address| StaticServer { address, role: None, weight: 1 };
        let servers: Vec<_> = addresses.into_iter().map(server).collect();
        refuse_repeated(section, servers.iter().map(|server| (section.place("servers"), &server.address)));
        return Some(servers);
    }
    let entries = section.sections("servers");
    if !section.has("servers") {
        return None;
    }
    if entries.is_empty() {
        section.refuse("servers", "write at least one, as in [{ address = \"db-0:3306\" }]");
    }
    let read: Vec<_> = entries.iter().filter_map(|entry| Some((entry.at.clone(), read_server(entry)?))).collect();
    refuse_repeated(section, read.iter().map(|(at, server)| (at.clone(), &server.address)));
    let servers: Vec<StaticServer> = read.into_iter().map(|(_, server)| server).collect();
    let primaries = servers.iter().filter(|server| server.role == Some(RoleHint::Primary)).count();
    if primaries > 1 {
        let advice = format!("{primaries} have role = \"primary\": a cluster has one; leave the others' role out");
        section.refuse("servers", advice);
    }
    Some(servers)
}

fn read_server(entry: &Section) -> Option<StaticServer> {
    let address = entry.parsed::<Address>("address", "\"host:port\", or \"host\" for port 3306");
    if !entry.has("address") {
        entry.missing("address", "address = \"db-0:3306\"");
    }
    let role = entry.choice("role", ROLES);
    let mut weight = 1;
    entry.count("weight", 0..=1000, &mut weight);
    entry.done();
    Some(StaticServer { address: address?, role, weight })
}

fn refuse_repeated<'a>(section: &Section, addresses: impl Iterator<Item = (At, &'a Address)>) {
    let mut seen: Vec<&Address> = Vec::new();
    for (at, address) in addresses {
        if seen.contains(&address) {
            section.cx.refuse(&at, format!("{address} is written twice: leave one out"));
        }
        seen.push(address);
    }
}

fn read_account(section: &Section) -> Option<AccountConfig> {
    const WAYS: &str = "password_file = \"/path\", password_env = \"VARIABLE\" or password = \"…\"";
    let user = section.text("user");
    if user.is_some_and(|user| user.is_empty() || user.chars().count() > 32) {
        section.refuse("user", "write a user name of 1 to 32 characters");
    }
    let plain = section.text("password").map(Secret::new);
    let file = section.password_file("password_file");
    let env = read_password_env(section);
    let written = ["password", "password_file", "password_env"].into_iter().filter(|key| section.has(key));
    let written: Vec<&str> = written.collect();
    if !section.is_present() {
        section.missing_table(format_args!("the proxy's own account: user and {WAYS}"));
        return None;
    }
    if !section.has("user") {
        section.missing("user", "the name of the proxy's own account on the servers");
    }
    match written.as_slice() {
        [] => section.missing("password", WAYS),
        [_] => {}
        [first, others @ ..] => {
            section.refuse(first, format_args!("{} is written too: the password has one place", others.join(" and ")));
        }
    }
    section.done();
    Some(AccountConfig { user: user?.to_owned(), password: plain.or(file).or(env)? })
}

fn read_password_env(section: &Section) -> Option<Secret> {
    let name = section.text("password_env")?;
    let found = section.cx.env.iter().find(|(variable, _)| variable == name);
    if found.is_none() {
        section.refuse("password_env", format_args!("the environment variable {} is not set", shown(name)));
    }
    found.map(|(_, value)| Secret::new(value.as_str()))
}

fn read_kind(section: &Section, cluster: &mut ClusterConfig, known_source: bool) {
    set(section.choice("kind", KINDS), &mut cluster.kind);
    let members = known_source && matches!(cluster.source, Source::Members { .. });
    if members && cluster.kind == ClusterKind::Async {
        let advice = "only group replication tells its members: write kind = \"group\", or source = \"static\"";
        section.refuse("kind", advice);
    }
}

fn read_limits(section: &Section, cluster: &mut ClusterConfig) {
    section.millis("hold_ms_max", 0..=3_600_000, &mut cluster.hold_max);
    section.count("hold_statements_max", 0..=CONNECTIONS_MAX, &mut cluster.hold_statements_max);
    section.count("hold_bytes_max", 0..=(1 << 40), &mut cluster.hold_bytes_max);
    section.millis("probe_interval_ms", 10..=60_000, &mut cluster.probe_interval);
    section.millis("probe_doubt_interval_ms", 5..=60_000, &mut cluster.probe_doubt_interval);
    section.millis("probe_timeout_ms", 10..=60_000, &mut cluster.probe_timeout);
    section.millis("connect_timeout_ms", 10..=60_000, &mut cluster.connect_timeout);
    section.millis("drain_deadline_ms", 0..=3_600_000, &mut cluster.drain_deadline);
    section.millis("silence_ms_max", 100..=3_600_000, &mut cluster.silence_max);
    section.millis_limit("accept_lost_writes_after_ms", 3_600_000, &mut cluster.accept_lost_writes_after);
    cluster.reconciler = read_reconciler(section);
    section.limit("backend_connections_max", CONNECTIONS_MAX, &mut cluster.backend_connections_max);
    section.count("backend_logins_max", 1..=100_000, &mut cluster.backend_logins_max);
    read_shared(section, &mut cluster.shared);
    section.count("accounts_max", 1..=CONNECTIONS_MAX, &mut cluster.accounts_max);
    if let Some(seconds) = section.number("account_ttl_s", 1..=31_536_000) {
        cluster.account_ttl = Duration::from_secs(seconds);
    }
    if cluster.probe_doubt_interval > cluster.probe_interval {
        let advice = "must not be longer than probe_interval_ms: doubt asks more often";
        section.refuse("probe_doubt_interval_ms", advice);
    }
}

/// Port and all: 3306 is nobody's admin port.
fn read_reconciler(section: &Section) -> Option<Address> {
    let text = section.text("reconciler")?;
    let address = text.parse::<Address>().ok().filter(|address| address.to_string() == text);
    if address.is_none() {
        let advice = "is not one: write host:port, as in \"holdfast-reconciler.databases:9090\"";
        section.refuse("reconciler", format_args!("{} {advice}", shown(text)));
    }
    address
}

fn read_shared(section: &Section, shared: &mut SharedConfig) {
    section.count("shared_connections_max", 1..=CONNECTIONS_MAX, &mut shared.connections_max);
    section.count("shared_connections_min", 0..=CONNECTIONS_MAX, &mut shared.connections_min);
    section.millis("shared_idle_ms_max", 100..=DAY_MS, &mut shared.idle_max);
    section.millis_limit("shared_lifetime_ms_max", 365 * DAY_MS, &mut shared.lifetime_max);
    section.count("shared_statements_max", 1..=16_382, &mut shared.statements_max);
    if shared.connections_min > shared.connections_max {
        match section.has("shared_connections_min") {
            true => section.refuse("shared_connections_min", "must not be more than shared_connections_max"),
            false => shared.connections_min = shared.connections_max,
        }
    }
}

fn read_tls(section: &Section) -> BackendTlsConfig {
    let written = section.choice("mode", SSL_MODES);
    let mode = written.unwrap_or_default();
    let tls = BackendTlsConfig {
        mode,
        ca: section.certificates("ca"),
        cert: section.certificates("cert"),
        key: section.private_key("key"),
    };
    check_pair(section);
    // A mode that could not be read says nothing about what belongs to it.
    if written.is_some() || !section.has("mode") {
        let verifies = mode.verifies();
        if verifies && !section.has("ca") {
            section.refuse("mode", "the servers' certificates cannot be verified without ca: write ca = \"….pem\"");
        }
        if !verifies && section.has("ca") {
            let advice = "is only used in the modes VERIFY_CA and VERIFY_IDENTITY: write one of them";
            section.refuse("ca", advice);
        }
        if mode == SslMode::Disabled && section.has("cert") {
            section.refuse("cert", "is not used with mode = \"DISABLED\": leave cert and key out");
        }
    }
    section.done();
    tls
}
