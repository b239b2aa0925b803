//! Every file in config/ loads, what `holdfast check` prints of it loads to the same, and reference.toml is complete.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast::config::{
    AccountConfig, ClusterConfig, Config, DiscoveryConfig, KubernetesConfig, ListenerConfig, LogConfig, ProxyConfig,
    Secret, Source, StaticServer, check, load, parse, parse_and_list_keys,
};
use holdfast::topology::kubernetes::Preset;

const EXAMPLES: [&str; 10] =
    ["async", "discovery", "group", "kubernetes", "mariadb", "minimal", "multi-listener", "reference", "routed", "tls"];

/// A copy of config/ with the files its examples name, removed on drop.
struct Mounted(PathBuf);

impl Mounted {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("holdfast-examples-{name}-{}", std::process::id()));
        fs::create_dir_all(directory.join("tls")).unwrap();
        fs::create_dir_all(directory.join("secrets")).unwrap();
        for cluster in ["orders", "main", "maria", "billing", "shops"] {
            fs::write(directory.join(format!("secrets/{cluster}-password")), format!("of {cluster}\n")).unwrap();
        }
        let made = rcgen::generate_simple_self_signed(["proxy.example.net".to_owned()]).unwrap();
        for file in ["proxy.crt", "clients-ca.crt", "servers-ca.crt"] {
            fs::write(directory.join("tls").join(file), made.cert.pem()).unwrap();
        }
        fs::write(directory.join("tls/proxy.key"), made.signing_key.serialize_pem()).unwrap();
        for example in files() {
            fs::copy(&example, directory.join(example.file_name().unwrap())).unwrap();
        }
        Self(directory)
    }

    fn load(&self, example: &str) -> Config {
        load(&self.0.join(format!("{example}.toml")), env()).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn env() -> impl Iterator<Item = (String, String)> {
    [("SHOP_PASSWORD".to_owned(), "of shop".to_owned())].into_iter()
}

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

#[test]
fn every_file_in_the_directory_is_an_example_that_loads() {
    let names: Vec<String> = files().iter().map(|path| path.file_stem().unwrap().display().to_string()).collect();
    assert_eq!(names, EXAMPLES);
    let mounted = Mounted::new("load");
    for example in EXAMPLES {
        mounted.load(example);
    }
}

#[test]
fn what_check_prints_loads_to_the_same_configuration() {
    let mounted = Mounted::new("describe");
    // In which no value is the default, so that none can be left out or taken for another.
    fs::write(mounted.0.join("every-key.toml"), include_str!("../fuzz/corpus/config/every-key")).unwrap();
    for example in EXAMPLES.iter().chain(&["every-key"]) {
        let config = mounted.load(example);
        let text = check::describe(&config);
        let mut again = parse(&text, "described.toml", env()).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(!text.contains("change-me") && !text.contains("of "), "{text}");
        let templates = again.discoveries.iter_mut().map(|discovery| &mut discovery.template);
        let originals = config.clusters.iter().chain(config.discoveries.iter().map(|discovery| &discovery.template));
        for (cluster, original) in again.clusters.iter_mut().chain(templates).zip(originals) {
            assert_eq!(cluster.account.password.expose(), "***", "{text}");
            cluster.account.password = original.account.password.clone();
        }
        assert_eq!(again, config, "{text}");
    }
}

#[test]
fn the_reference_has_the_defaults() {
    let config = Mounted::new("defaults").load("reference");
    let server = StaticServer { address: "db-0".parse().unwrap(), role: None, weight: 1 };
    let account = AccountConfig { user: "holdfast".to_owned(), password: Secret::new("change-me") };
    let expected = Config {
        proxy: ProxyConfig::default(),
        log: LogConfig::default(),
        admin: None,
        listeners: vec![ListenerConfig::new("app", "127.0.0.1:6446".parse().unwrap(), "main")],
        clusters: vec![ClusterConfig::new("main", Source::Static { servers: vec![server] }, account.clone())],
        discoveries: vec![DiscoveryConfig {
            name: "shops".to_owned(),
            clusters_max: 200,
            kubernetes: KubernetesConfig::new(Preset::Kubeblocks),
            template: ClusterConfig {
                required: false,
                ..ClusterConfig::new("shops", Source::Static { servers: Vec::new() }, account)
            },
        }],
    };
    assert_eq!(config, expected);
}

/// Every key the parser asks for stands in the reference, on its own or behind `#`; and nothing stands there, behind `#`
/// either, that the parser does not ask for.
#[test]
fn the_reference_has_every_key() {
    let text = include_str!("../config/reference.toml");
    let (config, known) = parse_and_list_keys(text, "reference.toml", env());
    config.unwrap_or_else(|error| panic!("{error}"));
    let mut sections: BTreeSet<String> = ["proxy", "log", "admin", "listener"].map(str::to_owned).into();
    sections.extend(["tls", "sni", "schema"].map(|table| format!("listener.{table}")));
    for kind in ["cluster", "discovery"] {
        sections.extend([kind.to_owned(), format!("{kind}.account"), format!("{kind}.tls")]);
    }
    sections.extend(["cluster.kubernetes", "cluster.kubernetes.custom", "discovery.custom"].map(str::to_owned));
    let written: BTreeSet<String> = written_keys(text);
    let known: BTreeSet<String> = known.difference(&sections).cloned().collect();
    assert_eq!(written, known);
}

fn written_keys(text: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.split_once(" = ") {
            if !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                continue;
            }
            keys.insert(format!("{section}.{key}"));
            if let Some(inner) = value.strip_prefix("[{ ") {
                for pair in inner.trim_end_matches(" }]").split(", ") {
                    keys.insert(format!("{section}.{key}.{}", pair.split(" = ").next().unwrap()));
                }
            }
        }
    }
    keys
}

#[test]
fn the_file_without_defaults_has_every_key() {
    let written = written_keys(include_str!("../fuzz/corpus/config/every-key"));
    // These are in other examples: what names files, and the source and the passwords that exclude the one chosen.
    let elsewhere = [
        "listener.cluster",
        "listener.account_file",
        "listener.tls.mode",
        "listener.tls.cert",
        "listener.tls.key",
        "listener.tls.client_ca",
        "cluster.seeds",
        "cluster.tls.ca",
        "cluster.tls.cert",
        "cluster.tls.key",
        "cluster.account.password_file",
        "cluster.account.password_env",
        "discovery.namespace",
        "discovery.component",
        "discovery.port",
        "discovery.kubeconfig",
        "discovery.context",
        "discovery.accept_lost_writes_after_ms",
        "discovery.custom.selector",
        "discovery.custom.cluster_label",
        "discovery.custom.role_label",
        "discovery.custom.primary",
        "discovery.custom.follower",
        "discovery.custom.learner",
        "discovery.custom.unlabelled",
        "discovery.custom.healthy",
        "discovery.custom.term_annotation",
        "discovery.tls.ca",
        "discovery.tls.cert",
        "discovery.tls.key",
        "discovery.account.password_file",
        "discovery.account.password_env",
    ];
    let reference = written_keys(include_str!("../config/reference.toml"));
    let missing = reference.difference(&written).map(String::as_str);
    // All of [cluster.kubernetes] stands in the configuration's own tests.
    let missing: BTreeSet<&str> = missing.filter(|key| !key.starts_with("cluster.kubernetes.")).collect();
    assert_eq!(missing, BTreeSet::from(elsewhere));
}

#[test]
fn the_examples_differ_where_they_say() {
    let mounted = Mounted::new("differ");
    let passwords: Vec<String> = ["group", "async", "mariadb"]
        .map(|example| mounted.load(example).clusters[0].account.password.expose().to_owned())
        .into();
    assert_eq!(passwords, ["of orders", "of shop", "of maria"]);
    assert!(matches!(mounted.load("group").clusters[0].source, Source::Members { .. }));
    assert_eq!(mounted.load("multi-listener").listeners.len(), 4);
    let kubernetes = mounted.load("kubernetes");
    assert!(kubernetes.clusters.iter().all(|cluster| matches!(cluster.source, Source::Kubernetes(_))));
    let tls = mounted.load("tls");
    assert_eq!(tls.listeners[0].tls.key, Some(mounted.0.join("tls/proxy.key")));
}
