//! Configuration: a TOML file and the environment become a validated [`Config`].
//!
//! Why a reader of our own between `toml` and the structs: an operator who writes three mistakes reads all three at
//! once, each with its line, what is wrong and what to write instead; a derived deserializer stops at the first.
//! What is refused: unknown keys, values out of range, files that cannot be read, and settings that contradict each
//! other. A [`Config`] that exists is valid; nobody checks it again. Every key with its default stands in
//! `config/reference.toml`.
//!
//! Reading order: `tree` (TOML with lines), `env` (overrides), `section` (one table), `listener`, `routes`,
//! `cluster` and `discovery` (the rules), [`model`](self) (the result), [`check`] (print it), [`watch`] (reload it).

pub mod check;
mod cluster;
mod discovery;
mod env;
mod error;
mod files;
mod kubernetes;
mod listener;
mod model;
mod network;
mod routes;
mod secret;
mod section;
#[cfg(test)]
mod tests;
mod tree;
pub mod watch;
mod words;

pub use env::variable_name;
pub use error::{At, ConfigError, Problem};
pub use model::*;
pub use network::Network;
pub use secret::Secret;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use section::{Context, Section};
use words::{nearest, one_of, shown};

/// The largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Reads and checks a file. Paths in it are relative to its own directory.
///
/// # Errors
/// Everything that is wrong with it; `Display` is the text for the operator.
pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let unreadable = |why| ConfigError::Unreadable { file: path.to_owned(), why };
    let text = files::read_text(path, FILE_BYTES_MAX).map_err(unreadable)?;
    parse(&text, &path.display().to_string(), env)
}

/// Checks a configuration's text. `file_name` begins each line of an error, and its directory is where relative paths
/// start.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, file_name: &str, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    parse_and_list_keys(text, file_name, env).0
}

/// The process's environment for [`load`], without variables that are not UTF-8 (on which `std::env::vars` panics).
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// [`parse`], and every key that the parser knows in the sections it met, as `listener.tls.mode`: what keeps
/// config/reference.toml complete.
pub fn parse_and_list_keys(
    text: &str,
    file_name: &str,
    env: impl Iterator<Item = (String, String)>,
) -> (Result<Config, ConfigError>, BTreeSet<String>) {
    let invalid = |problems| ConfigError::Invalid { file: file_name.to_owned(), problems };
    let mut root = match tree::parse(text) {
        Ok(root) => root,
        Err(problems) => return (Err(invalid(problems)), BTreeSet::new()),
    };
    let directory = Path::new(file_name).parent().map(PathBuf::from).unwrap_or_default();
    let mut env: Vec<(String, String)> = env.collect();
    env.sort();
    let cx = Context::new(directory, env);
    env::apply(&mut root, &cx);
    let config = read(&Section::root(&cx, &root));
    let (problems, known) = cx.finish();
    match config {
        Some(config) if problems.is_empty() => (Ok(config), known),
        _ => (Err(invalid(problems)), known),
    }
}

fn read(root: &Section) -> Option<Config> {
    let proxy = read_proxy(&root.section("proxy"));
    let log = read_log(&root.section("log"));
    let admin = read_admin(&root.section("admin"));
    let listener_sections = root.sections("listener");
    let cluster_sections = root.sections("cluster");
    if !root.has("listener") {
        root.missing("listener", "[[listener]] with name, listen and cluster");
    }
    let discovery_sections = root.sections("discovery");
    if !root.has("cluster") && !root.has("discovery") {
        root.missing("cluster", "[[cluster]] with name, source and [cluster.account]");
    }
    let listeners: Vec<_> = listener_sections.iter().map(listener::read).collect();
    let clusters: Vec<_> = cluster_sections.iter().map(cluster::read).collect();
    let discoveries: Vec<_> = discovery_sections.iter().map(discovery::read).collect();
    root.done();
    for sections in [&listener_sections, &cluster_sections, &discovery_sections] {
        check_names(sections);
    }
    if discovery_sections.is_empty() {
        routes::check(&listener_sections, &cluster_sections);
    }
    check_addresses(root, &listener_sections);
    Some(Config {
        proxy,
        log,
        admin,
        listeners: listeners.into_iter().collect::<Option<_>>()?,
        clusters: clusters.into_iter().collect::<Option<_>>()?,
        discoveries: discoveries.into_iter().collect::<Option<_>>()?,
    })
}

fn read_proxy(section: &Section) -> ProxyConfig {
    let mut proxy = ProxyConfig::default();
    section.count("workers", 0..=1024, &mut proxy.workers);
    let shutdown = &mut proxy.shutdown;
    section.millis("shutdown_grace_ms", 0..=600_000, &mut shutdown.grace);
    section.millis("shutdown_idle_ms", 0..=600_000, &mut shutdown.idle);
    section.millis("shutdown_deadline_ms", 0..=86_400_000, &mut shutdown.deadline);
    section.millis("shutdown_transactions_ms", 0..=3_600_000, &mut shutdown.transactions);
    if shutdown.grace > shutdown.deadline {
        section.refuse("shutdown_grace_ms", "must not be longer than shutdown_deadline_ms, which begins with it");
    }
    section.count("max_connections", 1..=listener::CONNECTIONS_MAX, &mut proxy.max_connections);
    section.done();
    proxy
}

fn read_log(section: &Section) -> LogConfig {
    let mut log = LogConfig::default();
    listener::set(section.choice("format", LOG_FORMATS), &mut log.format);
    if let Some(level) = section.text("level") {
        if let Err(why) = check_level(level) {
            section.refuse("level", why);
        }
        log.level = level.to_owned();
    }
    section.done();
    log
}

/// A level, or directives `target=level`. A bare word that is no level would be read as a target at level TRACE, which
/// nobody means who writes `inof`.
fn check_level(level: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    const ADVICE: &str = "or directives as in \"info,holdfast::topology=debug\"";
    for directive in level.split(',').map(str::trim) {
        let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive));
        if !is_level && !directive.contains('=') {
            let meant = nearest(directive, LEVELS).map(|word| format!(" (did you mean \"{word}\"?)"));
            let (text, meant) = (shown(directive), meant.unwrap_or_default());
            return Err(format!("{text} is not a level{meant}: write {}, {ADVICE}", one_of(LEVELS)));
        }
    }
    match tracing_subscriber::EnvFilter::builder().parse(level) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{} cannot be read: write a level, {ADVICE}", shown(level))),
    }
}

fn read_admin(section: &Section) -> Option<AdminConfig> {
    let listen = section.parsed::<SocketAddr>("listen", listener::LISTEN_EXAMPLE);
    if section.is_present() && !section.has("listen") {
        section.missing("listen", listener::LISTEN_EXAMPLE);
    }
    section.done();
    listen.map(|listen| AdminConfig { listen })
}

fn check_names(sections: &[Section]) {
    let mut seen: Vec<&str> = Vec::new();
    for section in sections {
        let Some(name) = section.peek("name") else { continue };
        if seen.contains(&name) {
            section.refuse("name", format_args!("{} is taken already: write another", shown(name)));
        }
        seen.push(name);
    }
}

/// No two may listen on the same port. The operating system would not always say so: with SO_REUSEPORT both succeed.
fn check_addresses(root: &Section, listeners: &[Section]) {
    let admin = root.section("admin");
    let mut seen: Vec<(SocketAddr, String)> = Vec::new();
    for section in std::iter::once(&admin).chain(listeners) {
        let Some(Ok(address)) = section.peek("listen").map(str::parse::<SocketAddr>) else { continue };
        if let Some((_, other)) = seen.iter().find(|(other, _)| overlap(*other, address)) {
            section.refuse("listen", format_args!("{address} is taken by {other}: write another port"));
        }
        let name =
            section.peek("name").map_or_else(|| "[admin]".to_owned(), |name| format!("listener {}", shown(name)));
        seen.push((address, name));
    }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    let same_family = a.is_ipv4() == b.is_ipv4();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || everywhere && same_family)
}
