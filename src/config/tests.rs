//! What a configuration is read as, from its file and the environment.

mod kubernetes;
mod refusals;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

const MINIMAL: &str = r#"
[[listener]]
name = "app"
listen = "127.0.0.1:6446"
cluster = "main"

[[cluster]]
name = "main"
source = "static"
servers = [{ address = "db-0" }]
[cluster.account]
user = "holdfast"
password = "secret"
"#;

/// An environment.
type Pairs<'a> = &'a [(&'a str, &'a str)];

fn none() -> std::iter::Empty<(String, String)> {
    std::iter::empty()
}

fn env(pairs: Pairs) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    owned.into_iter()
}

/// The text an operator reads of a refusal.
fn refusal(text: &str, pairs: Pairs) -> String {
    match parse(text, "holdfast.toml", env(pairs)) {
        Ok(_) => String::from("(accepted)"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_minimal_file_has_the_defaults() {
    let config = parse(MINIMAL, "holdfast.toml", none()).unwrap();
    let server = StaticServer { address: "db-0:3306".parse().unwrap(), role: None, weight: 1 };
    let account = AccountConfig { user: "holdfast".to_owned(), password: Secret::new("secret") };
    let expected = Config {
        proxy: ProxyConfig::default(),
        log: LogConfig::default(),
        admin: None,
        listeners: vec![ListenerConfig::new("app", "127.0.0.1:6446".parse().unwrap(), "main")],
        clusters: vec![ClusterConfig::new("main", Source::Static { servers: vec![server] }, account)],
        discoveries: Vec::new(),
    };
    assert_eq!(config, expected);
    assert!(!format!("{config:#?}").contains("secret"));
    assert_eq!(config.cluster("main").unwrap().name, "main");
}

#[test]
fn a_discovery_makes_clusters_known_that_are_not_in_the_file() {
    let text = r#"
[[listener]]
name = "app"
listen = "127.0.0.1:6446"
route = ["User", "schema"]
default_cluster = "not-found-yet"
schema = { "in voices" = "billing" }
[[discovery]]
name = "all"
preset = "moco"
account = { user = "holdfast", password = "secret" }
"#;
    let config = parse(text, "holdfast.toml", none()).unwrap();
    let routes = &config.listeners[0].routes;
    assert_eq!(routes.by, [RouteBy::User, RouteBy::Schema]);
    assert_eq!(routes.default.as_deref(), Some("not-found-yet"));
    assert_eq!(routes.schema["in voices"], "billing");
    assert!(!config.discoveries[0].template.required);
    assert!(config.clusters.is_empty());
    assert!(refusal(&text.replace("moco", "mocco"), &[]).contains("is not known"), "{text}");
}

#[test]
fn the_environment_overrides() {
    let pairs = [
        ("HOLDFAST__PROXY__WORKERS", "3"),
        ("HOLDFAST__LOG__FORMAT", "json"),
        ("HOLDFAST__ADMIN__LISTEN", "127.0.0.1:6060"),
        ("HOLDFAST__LISTENER__APP__IDLE_TIMEOUT_MS", "1500"),
        ("HOLDFAST__LISTENER__APP__COMPRESSION", "zstd, none"),
        ("HOLDFAST__CLUSTER__MAIN__SERVERS", "a,b:3307"),
        ("HOLDFAST__CLUSTER__MAIN__ACCOUNT__PASSWORD", "0x1"),
        ("HOLDFAST__CLUSTER__MAIN__TLS__MODE", "required"),
        ("HOLDFAST_SERVICE_HOST", "10.0.0.1"),
    ];
    let config = parse(MINIMAL, "holdfast.toml", env(&pairs)).unwrap();
    assert_eq!(config.proxy.workers, 3);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.admin.unwrap().listen.port(), 6060);
    let listener = &config.listeners[0];
    assert_eq!(listener.idle_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(listener.compression, Compression { zlib: false, zstd: true, none: true });
    let cluster = &config.clusters[0];
    assert_eq!(cluster.account.password.expose(), "0x1");
    assert_eq!(cluster.tls.mode, SslMode::Required);
    let Source::Static { servers } = &cluster.source else { panic!("{:?}", cluster.source) };
    let addresses: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    assert_eq!(addresses, ["a:3306", "b:3307"]);
}

#[test]
fn the_environment_is_refused_like_the_file() {
    let table = [
        ("HOLDFAST__PROXY__WORKRES", "3", "unknown key \"workres\" in [proxy]; the nearest known key is \"workers\""),
        ("HOLDFAST__PROXY__WORKERS", "many", "proxy.workers: write a whole number"),
        ("HOLDFAST__PRXY__WORKERS", "3", "unknown key \"prxy\" in the file; the nearest known key is \"proxy\""),
        ("HOLDFAST__LISTENER__AP__LISTEN", "x", "no [[listener]] is called AP (did you mean APP?): write \"APP\""),
        ("HOLDFAST__LISTENER__APP", "x", "write a key after the name"),
        ("HOLDFAST__LISTENER__APP__LISTEN", "6446", "\"6446\" is not one: write an IP address and a port"),
        ("HOLDFAST__LISTENER__APP__LISTEN__PORT", "6446", "\"listen\" has no keys"),
        ("HOLDFAST__LISTENER", "x", "write [[listener]] with double brackets"),
        ("HOLDFAST__PROXY", "x", "write a table [proxy], not a text"),
        ("HOLDFAST__CLUSTER__MAIN__SERVERS", "a,b c", "`b c` is not an address"),
        ("HOLDFAST__", "x", "unknown key \"\""),
    ];
    for (name, value, part) in table {
        let message = refusal(MINIMAL, &[(name, value)]);
        let found = message
            .lines()
            .any(|line| line.starts_with(&format!("environment variable {name}: ")) && line.contains(part));
        assert!(found, "{name}={value}\nexpected {part}\nfound    {message}");
    }
}

#[test]
fn a_password_comes_from_one_of_three_places() {
    let directory = temporary_directory("password");
    fs::write(directory.join("pw"), "from file\r\n").unwrap();
    let name = directory.join("holdfast.toml");
    let by_file = MINIMAL.replace("password = \"secret\"", "password_file = \"pw\"");
    let by_env = MINIMAL.replace("password = \"secret\"", "password_env = \"PW\"");
    let long = ("HOLDFAST__CLUSTER__MAIN__ACCOUNT__PASSWORD", "overridden");
    let short = ("HOLDFAST_CLUSTER_MAIN_ACCOUNT_PASSWORD", "overridden");
    let table: [(&str, Pairs, &str); 6] = [
        (MINIMAL, &[], "secret"),
        (&by_file, &[], "from file"),
        (&by_env, &[("PW", " kept as it is ")], " kept as it is "),
        (&by_file, &[long], "overridden"),
        (&by_env, &[short], "overridden"),
        (MINIMAL, &[("HOLDFAST__CLUSTER__MAIN__ACCOUNT__PASSWORD_FILE", "pw")], "from file"),
    ];
    for (text, pairs, expected) in table {
        fs::write(&name, text).unwrap();
        let config = load(&name, env(pairs)).unwrap();
        assert_eq!(config.clusters[0].account.password.expose(), expected);
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn names_are_written_in_capitals_in_variables() {
    let text = MINIMAL.replace("\"main\"", "\"db-1.eu\"");
    let pairs = [("HOLDFAST__CLUSTER__DB_1_EU__HOLD_MS_MAX", "7")];
    let config = parse(&text, "holdfast.toml", env(&pairs)).unwrap();
    assert_eq!(config.clusters[0].hold_max, Duration::from_millis(7));
    let two = format!("{text}\n[[cluster]]\nname = \"db.1.eu\"\nsource = \"static\"\nservers = []");
    assert!(refusal(&two, &pairs).contains("two of [[cluster]] are written DB_1_EU in a variable"));
}

#[test]
fn an_unreadable_file_says_why() {
    let directory = temporary_directory("unreadable");
    let absent = load(&directory.join("absent.toml"), none()).unwrap_err().to_string();
    assert!(absent.contains("absent.toml: cannot be read: No such file or directory"), "{absent}");
    let binary = directory.join("binary.toml");
    fs::write(&binary, b"\xff\xfe").unwrap();
    assert!(load(&binary, none()).unwrap_err().to_string().contains("is not UTF-8 text"));
    let large = directory.join("large.toml");
    fs::write(&large, " ".repeat((1 << 20) + 1)).unwrap();
    assert!(load(&large, none()).unwrap_err().to_string().contains("is larger than 1048576 bytes"));
    fs::remove_dir_all(directory).unwrap();
}

/// Made anew for one test; the process id keeps parallel runs apart.
fn temporary_directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("holdfast-config-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}
