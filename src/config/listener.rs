//! `[[listener]]`: from a table of the file to a [`ListenerConfig`].

use std::net::SocketAddr;
use std::time::Duration;

use super::model::*;
use super::network::Network;
use super::routes;
use super::section::{Section, find_word, unknown_word};

pub(super) const LISTEN_EXAMPLE: &str = "an IP address and a port, as in \"127.0.0.1:6446\" or \"[::]:6446\"";
/// A century in milliseconds is a slip; nobody waits a day for a handshake.
pub(super) const DAY_MS: u64 = 86_400_000;
/// More connections than this no process has descriptors for.
pub(super) const CONNECTIONS_MAX: u64 = 1_000_000;

pub(super) const MODES: &[(&str, ListenerMode)] =
    &[("split", ListenerMode::Split), ("primary", ListenerMode::Primary), ("followers", ListenerMode::Followers)];
pub(super) const TLS_MODES: &[(&str, ClientTlsMode)] = &[
    ("disabled", ClientTlsMode::Disabled),
    ("preferred", ClientTlsMode::Preferred),
    ("required", ClientTlsMode::Required),
    ("verify_ca", ClientTlsMode::VerifyCa),
    ("verify_identity", ClientTlsMode::VerifyIdentity),
];
pub(super) const PROXY_PROTOCOLS: &[(&str, ProxyProtocol)] =
    &[("off", ProxyProtocol::Off), ("optional", ProxyProtocol::Optional), ("required", ProxyProtocol::Required)];
pub(super) const FALLBACKS: &[(&str, ReadFallback)] =
    &[("primary", ReadFallback::Primary), ("hold", ReadFallback::Hold), ("error", ReadFallback::Error)];
pub(super) const SHARINGS: &[(&str, Sharing)] = &[("off", Sharing::Off), ("transaction", Sharing::Transaction)];
pub(super) const CONSISTENCIES: &[(&str, Consistency)] =
    &[("eventual", Consistency::Eventual), ("session", Consistency::Session), ("strong", Consistency::Strong)];
pub(super) const SOURCES: &[(&str, AccountSource)] =
    &[("pass-through", AccountSource::PassThrough), ("server", AccountSource::Server), ("file", AccountSource::File)];
const COMPRESSIONS: &[(&str, usize)] = &[("zlib", 0), ("zstd", 1), ("none", 2)];

/// Reads one `[[listener]]`. `None` if what has no default is missing; then a problem has been reported.
pub(super) fn read(section: &Section) -> Option<ListenerConfig> {
    let name = read_name(section);
    let listen = section.parsed::<SocketAddr>("listen", LISTEN_EXAMPLE);
    if !section.has("listen") {
        section.missing("listen", LISTEN_EXAMPLE);
    }
    let routes = routes::read(section);
    // What follows is read even if these are missing, so that its problems are reported too.
    let anywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut listener = ListenerConfig::new(name.clone().unwrap_or_default(), listen.unwrap_or(anywhere), String::new());
    let known_routes = routes.is_some();
    listener.routes = routes.unwrap_or_default();
    read_routing(section, &mut listener);
    read_limits(section, &mut listener);
    read_proxy_protocol(section, &mut listener);
    read_accounts(section, &mut listener);
    listener.tls = read_tls(&section.section("tls"));
    section.done();
    if listener.routes.by.contains(&RouteBy::Sni) && listener.tls.mode == ClientTlsMode::Disabled {
        section.refuse("route", "\"sni\" is told in the TLS handshake: write [listener.tls] with cert and key");
    }
    (name.is_some() && listen.is_some() && known_routes).then_some(listener)
}

/// The name of a listener or cluster: a metric label, and part of an environment variable's name.
pub(super) fn read_name(section: &Section) -> Option<String> {
    const NAME_LENGTH_MAX: usize = 63;
    const ADVICE: &str = "letters and digits with single \"-\", \"_\" or \".\" between them, at most 63";
    let Some(name) = section.text("name") else {
        if !section.has("name") {
            section.missing("name", ADVICE);
        }
        return None;
    };
    let well_formed = name.split(['-', '_', '.']).all(|part| {
        let plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        plain && !part.is_empty()
    });
    if !well_formed || name.len() > NAME_LENGTH_MAX {
        section.refuse("name", format_args!("{} is not a name: write {ADVICE}", super::words::shown(name)));
        return None;
    }
    Some(name.to_owned())
}

fn read_routing(section: &Section, listener: &mut ListenerConfig) {
    set(section.choice("mode", MODES), &mut listener.mode);
    set(section.choice("read_fallback", FALLBACKS), &mut listener.read_fallback);
    section.flag("exactly_once", &mut listener.exactly_once);
    set(section.choice("sharing", SHARINGS), &mut listener.sharing);
    section.count("transaction_replay_bytes", 0..=(1 << 30), &mut listener.transaction_replay_bytes);
    set(section.choice("consistency", CONSISTENCIES), &mut listener.consistency);
    section.millis("consistency_wait_ms", 0..=60_000, &mut listener.consistency_wait);
    if listener.mode == ListenerMode::Followers && listener.consistency != Consistency::Eventual {
        let advice = "cannot be had where everything goes to followers: write mode = \"split\", or leave it out";
        section.refuse("consistency", advice);
    }
    section.millis_limit("max_lag_ms", DAY_MS, &mut listener.max_lag);
    if let Some(most) = section.number("hold_ms_max", 0..=3_600_000) {
        listener.hold_max = Some(Duration::from_millis(most));
    }
    if let Some(Ok(most)) = section.number("hold_statements_max", 0..=CONNECTIONS_MAX).map(usize::try_from) {
        listener.hold_statements_max = Some(most);
    }
    section.count("statement_buffer_bytes", 1024..=(1 << 30), &mut listener.statement_buffer_bytes);
    let Some(words) = section
        .list("compression", |text| find_word(COMPRESSIONS, text).ok_or_else(|| unknown_word(COMPRESSIONS, text)))
    else {
        return;
    };
    listener.compression = Compression { zlib: words.contains(&0), zstd: words.contains(&1), none: words.contains(&2) };
    if words.is_empty() {
        section.refuse("compression", "nothing is left to offer: write at least one of \"zlib\", \"zstd\", \"none\"");
    }
}

fn read_limits(section: &Section, listener: &mut ListenerConfig) {
    section.count("max_connections", 1..=CONNECTIONS_MAX, &mut listener.max_connections);
    section.limit("max_connections_per_user", CONNECTIONS_MAX, &mut listener.max_connections_per_user);
    section.millis("handshake_timeout_ms", 100..=600_000, &mut listener.handshake_timeout);
    section.millis_limit("idle_timeout_ms", 365 * DAY_MS, &mut listener.idle_timeout);
    let failures = &mut listener.login_failures;
    section.limit("login_failures_per_address", CONNECTIONS_MAX, &mut failures.per_address);
    section.millis("login_failure_delay_ms", 0..=60_000, &mut failures.delay);
    section.count("login_failure_addresses_max", 1..=CONNECTIONS_MAX, &mut failures.addresses_max);
    if failures.per_address.is_some() && failures.delay >= listener.handshake_timeout {
        let advice = "must be shorter than handshake_timeout_ms, or a delayed client never reads its answer";
        section.refuse("login_failure_delay_ms", advice);
    }
}

fn read_proxy_protocol(section: &Section, listener: &mut ListenerConfig) {
    set(section.choice("proxy_protocol", PROXY_PROTOCOLS), &mut listener.proxy_protocol);
    if let Some(networks) = section.list("trusted_networks", read_network) {
        listener.trusted_networks = networks;
    }
    let advice = "write trusted_networks = [\"10.0.0.0/8\"] with your balancers' addresses and proxy_protocol = \
                  \"required\" or \"optional\", or neither";
    match (listener.proxy_protocol, listener.trusted_networks.is_empty()) {
        (ProxyProtocol::Off, true) | (ProxyProtocol::Optional | ProxyProtocol::Required, false) => {}
        (ProxyProtocol::Off, false) => {
            section.refuse("trusted_networks", format_args!("proxy_protocol is off: {advice}"));
        }
        (ProxyProtocol::Optional | ProxyProtocol::Required, true) => {
            section.refuse("proxy_protocol", format_args!("no network is trusted to send a header: {advice}"));
        }
    }
}

fn read_network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|why| format!("{}: {why}", super::words::shown(text)))
}

fn read_accounts(section: &Section, listener: &mut ListenerConfig) {
    let words =
        section.list("account_source", |text| find_word(SOURCES, text).ok_or_else(|| unknown_word(SOURCES, text)));
    if let Some(sources) = words {
        let repeated = sources.iter().enumerate().any(|(i, source)| sources[..i].contains(source));
        if sources.is_empty() || repeated {
            section.refuse("account_source", "write each source once, at least one, as in [\"pass-through\"]");
        }
        listener.account_source = sources;
    }
    listener.account_file = section.file("account_file");
    let uses_file = listener.account_source.contains(&AccountSource::File);
    if uses_file && !section.has("account_file") {
        section.refuse("account_source", "has \"file\": write account_file = \"…\" too");
    }
    if !uses_file && section.has("account_file") {
        let advice = "is not used: write account_source = [\"pass-through\", \"file\"], or leave it out";
        section.refuse("account_file", advice);
    }
    if let Some(version) = section.text("server_version") {
        if version.is_empty() || version.len() > 60 || !version.bytes().all(|byte| byte.is_ascii_graphic()) {
            section.refuse("server_version", "write 1 to 60 visible ASCII characters, as in \"8.4.5\"");
        }
        listener.server_version = Some(version.to_owned());
    }
}

fn read_tls(section: &Section) -> ClientTlsConfig {
    let written = section.choice("mode", TLS_MODES);
    let has_cert = section.has("cert");
    let default = if has_cert { ClientTlsMode::Preferred } else { ClientTlsMode::Disabled };
    let mode = written.unwrap_or(default);
    let tls = ClientTlsConfig {
        mode,
        cert: section.certificates("cert"),
        key: section.private_key("key"),
        client_ca: section.certificates("client_ca"),
    };
    check_pair(section);
    // A mode that could not be read says nothing about what belongs to it.
    if written.is_some() || !section.has("mode") {
        let verifies = mode >= ClientTlsMode::VerifyCa;
        if mode != ClientTlsMode::Disabled && !has_cert {
            section.refuse(
                "mode",
                "clients cannot be offered TLS without cert and key: write both, or mode = \"disabled\"",
            );
        }
        if mode == ClientTlsMode::Disabled && has_cert {
            section.refuse(
                "mode",
                "is disabled and there is a cert: write mode = \"preferred\", or leave cert and key out",
            );
        }
        if verifies && !section.has("client_ca") {
            section.refuse(
                "mode",
                "client certificates cannot be verified without client_ca: write client_ca = \"….pem\"",
            );
        }
        if !verifies && section.has("client_ca") {
            let advice = "is only used in the modes \"verify_ca\" and \"verify_identity\": write one of them";
            section.refuse("client_ca", advice);
        }
    }
    section.done();
    tls
}

/// `cert` and `key` belong together.
pub(super) fn check_pair(section: &Section) {
    match (section.has("cert"), section.has("key")) {
        (true, false) => section.refuse("cert", "there is no key: write key = \"….pem\" too"),
        (false, true) => section.refuse("key", "there is no cert: write cert = \"….pem\" too"),
        (true, true) | (false, false) => {}
    }
}

/// Takes a value over if there is one.
pub(super) fn set<T>(value: Option<T>, into: &mut T) {
    if let Some(value) = value {
        *into = value;
    }
}
