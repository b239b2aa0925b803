//! Tables of what is refused, with lines and advice.

use super::*;

/// `(what is replaced in MINIMAL, by what, line of the refusal, part of its text)`
const REFUSED: &[(&str, &str, usize, &str)] = &[
    // syntax
    ("name = \"app\"", "name = \"app", 3, "not valid TOML"),
    ("name = \"app\"", "name = \"app\"\nname = \"b\"", 4, "not valid TOML: duplicate key"),
    ("[[cluster]]", "[[cluster]", 7, "not valid TOML"),
    // unknown keys
    ("listen =", "lisen =", 4, r#"unknown key "lisen" in [listener]; the nearest known key is "listen""#),
    ("user =", "usr =", 12, r#"unknown key "usr" in [cluster.account]; the nearest known key is "user""#),
    ("\n[[listener]]", "[[listner]]", 1, r#"unknown key "listner" in the file; the nearest known key is "listener""#),
    (
        "\n[[listener]]",
        "[proxy]\nthreads = 4\n[[listener]]",
        2,
        r#"unknown key "threads" in [proxy]; known keys: workers"#,
    ),
    (
        r#"{ address"#,
        r#"{ wieght = 2, address"#,
        10,
        r#"unknown key "wieght" in [cluster.servers]; the nearest known key is "weight""#,
    ),
    // types
    ("name = \"app\"", "name = 3", 3, "listener.name: write a text in quotes, not a number"),
    (
        "name = \"app\"",
        "name = \"app\"\nmax_connections = \"many\"",
        4,
        "listener.max_connections: write a whole number, not a text",
    ),
    (
        "name = \"app\"",
        "name = \"app\"\nmax_connections = 1.5",
        4,
        "write a whole number, not a number with a fraction",
    ),
    ("name = \"app\"", "name = \"app\"\ntrusted_networks = \"10.0.0.0/8\"", 4, "write a list in brackets, not a text"),
    (
        "name = \"app\"",
        "name = \"app\"\ncompression = [1]",
        4,
        "listener.compression: write a text in quotes, not a number",
    ),
    ("name = \"app\"", "name = \"app\"\ntls = \"required\"", 4, "write a table [listener.tls], not a text"),
    ("[[listener]]", "[listener]", 2, "write [[listener]] with double brackets, not a table"),
    ("\n[[listener]]", "[[proxy]]\n[[listener]]", 1, "there is only one: write [proxy], not [[proxy]]"),
    // values
    ("127.0.0.1:6446", "localhost:6446", 4, "write an IP address and a port, as in \"127.0.0.1:6446\""),
    ("name = \"app\"", "name = \"my app\"", 3, "\"my app\" is not a name: write letters and digits"),
    ("name = \"app\"", "name = \"a--b\"", 3, "is not a name"),
    (
        "name = \"app\"",
        "name = \"app\"\nmode = \"spilt\"",
        4,
        r#""spilt" is not known (did you mean "split"?): write "split", "primary" or "followers""#,
    ),
    ("name = \"app\"", "name = \"app\"\nmax_connections = 0", 4, "write a whole number from 1 to 1000000"),
    ("name = \"app\"", "name = \"app\"\nmax_connections = -1", 4, "write a whole number from 1 to 1000000"),
    (
        "name = \"app\"",
        "name = \"app\"\nmax_connections = 99999999999999999999",
        4,
        "write a whole number from 1 to 1000000",
    ),
    ("name = \"app\"", "name = \"app\"\ncompression = [\"zlib\", \"zstdd\"]", 4, r#"(did you mean "zstd"?)"#),
    ("name = \"app\"", "name = \"app\"\ncompression = []", 4, "nothing is left to offer"),
    ("name = \"app\"", "name = \"app\"\nserver_version = \"\"", 4, "1 to 60 visible ASCII characters"),
    (
        "source = ",
        "reconciler = \"reconciler\"\nsource = ",
        9,
        r#"cluster.reconciler: "reconciler" is not one: write host:port"#,
    ),
    (
        "source = ",
        "reconciler = \"http://reconciler:9090/\"\nsource = ",
        9,
        r#"cluster.reconciler: "http://reconciler:9090/" is not one: write host:port"#,
    ),
    ("db-0", "db 0", 10, "write \"host:port\""),
    ("{ address = \"db-0\" }", "", 10, "cluster.servers: write at least one"),
    ("\"db-0\" }", "\"db-0\", role = \"master\" }", 10, r#"write "primary" or "follower""#),
    ("\"db-0\" }", "\"db-0\" }, { address = \"db-0:3306\" }", 10, "db-0:3306 is written twice"),
    (
        "\"db-0\" }",
        "\"db-0\", role = \"primary\" }, { address = \"b\", role = \"primary\" }",
        10,
        "2 have role = \"primary\"",
    ),
    ("{ address = \"db-0\" }", "{ weight = 1 }", 10, "cluster.servers.address is missing"),
    ("\"holdfast\"", "\"\"", 12, "user name of 1 to 32"),
    ("\n[[listener]]", "[log]\nlevel = \"inof\"\n[[listener]]", 2, r#""inof" is not a level (did you mean "info"?)"#),
    ("\n[[listener]]", "[log]\nlevel = \"info,a=loud\"\n[[listener]]", 2, "cannot be read: write a level"),
    ("\n[[listener]]", "[log]\nformat = \"xml\"\n[[listener]]", 2, r#"write "text" or "json""#),
    ("\n[[listener]]", "[admin]\n[[listener]]", 1, "admin.listen is missing"),
    // what is missing
    ("name = \"app\"\n", "", 2, "listener.name is missing"),
    ("listen = \"127.0.0.1:6446\"\n", "", 2, "listener.listen is missing"),
    ("cluster = \"main\"\n", "", 2, "listener.cluster is missing"),
    (
        "source = \"static\"\n",
        "",
        7,
        "cluster.source is missing: write \"static\" with servers, \"members\" with seeds, or \"kubernetes\"",
    ),
    ("servers = [{ address = \"db-0\" }]\n", "", 7, "cluster.servers is missing"),
    ("user = \"holdfast\"\n", "", 11, "cluster.account.user is missing"),
    ("password = \"secret\"\n", "", 11, "cluster.account.password is missing: write password_file"),
    ("[cluster.account]\nuser = \"holdfast\"\npassword = \"secret\"\n", "", 7, "[cluster.account] is missing"),
    // contradictions
    (
        "cluster = \"main\"",
        "cluster = \"mian\"",
        5,
        r#"there is no [[cluster]] "mian" (did you mean "main"?): write "main""#,
    ),
    ("source = \"static\"", "source = \"kubernetes\"", 10, "cluster.servers: are found as pods"),
    (
        "source = \"static\"\nservers = [{ address = \"db-0\" }]",
        "source = \"kubernetes\"",
        7,
        "[cluster.kubernetes] is missing: write preset",
    ),
    (
        "source = \"static\"",
        "source = \"static\"\nkubernetes = { preset = \"moco\" }",
        10,
        "cluster.kubernetes: belongs to source = \"kubernetes\"",
    ),
    ("source = \"static\"", "source = \"members\"", 10, "belong to source = \"static\": write seeds"),
    (
        "source = \"static\"",
        "source = \"static\"\nseeds = [\"a\"]",
        10,
        "belong to source = \"members\": write servers",
    ),
    (
        "source = \"static\"\nservers = [{ address = \"db-0\" }]",
        "source = \"members\"\nseeds = []",
        10,
        "cluster.seeds: write at least one",
    ),
    (
        "source = \"static\"\nservers = [{ address = \"db-0\" }]",
        "source = \"members\"\nseeds = [\"a\", \"a:3306\"]",
        10,
        "a:3306 is written twice",
    ),
    (
        "source = \"static\"\nservers = [{ address = \"db-0\" }]",
        "source = \"members\"\nkind = \"async\"\nseeds = [\"a\"]",
        10,
        "only group replication tells its members",
    ),
    ("password =", "password_env = \"PW\"\npassword =", 14, "password_env is written too: the password has one place"),
    ("password =", "password_env =", 13, "the environment variable \"secret\" is not set"),
    ("password = \"secret\"", "password_file = \"no/such/file\"", 13, "no/such/file: No such file or directory"),
    ("password = \"secret\"", "password_file = \"/\"", 13, "/: is not a file"),
    ("name = \"app\"", "name = \"app\"\nproxy_protocol = \"required\"", 4, "no network is trusted to send a header"),
    ("name = \"app\"", "name = \"app\"\ntrusted_networks = [\"10.0.0.0/8\"]", 4, "proxy_protocol is off"),
    (
        "name = \"app\"",
        "name = \"app\"\nproxy_protocol = \"optional\"\ntrusted_networks = [\"10.1.2.3/8\"]",
        5,
        r#"bits are set beyond the prefix: write "10.0.0.0/8""#,
    ),
    ("name = \"app\"", "name = \"app\"\naccount_source = [\"file\"]", 4, "write account_file"),
    ("name = \"app\"", "name = \"app\"\naccount_source = []", 4, "write each source once, at least one"),
    ("name = \"app\"", "name = \"app\"\naccount_source = [\"server\", \"server\"]", 4, "write each source once"),
    ("name = \"app\"", "name = \"app\"\naccount_file = \"/etc/hostname\"", 4, "is not used: write account_source"),
    (
        "name = \"app\"",
        "name = \"app\"\nhandshake_timeout_ms = 500",
        2,
        "login_failure_delay_ms: must be shorter than handshake_timeout_ms",
    ),
    (
        "source = \"static\"",
        "source = \"static\"\nprobe_interval_ms = 50\nprobe_doubt_interval_ms = 60",
        11,
        "must not be longer than probe_interval_ms",
    ),
    ("cluster = \"main\"", "route = []", 5, "write each rule once, at least one"),
    ("cluster = \"main\"", "route = [\"user\", \"user\"]", 5, "write each rule once"),
    ("cluster = \"main\"", "route = [\"usr\"]", 5, "\"usr\" is not known (did you mean \"user\"?)"),
    ("cluster = \"main\"", "cluster = \"main\"\nroute = [\"user\"]", 5, "write default_cluster, or leave route out"),
    ("cluster = \"main\"", "default_cluster = \"main\"", 5, "belongs to a listener with route"),
    ("cluster = \"main\"", "route = [\"user\"]\ndefault_cluster = \"mian\"", 6, "there is no [[cluster]] \"mian\""),
    ("cluster = \"main\"", "route = [\"sni\"]", 5, "is told in the TLS handshake: write [listener.tls]"),
    ("cluster = \"main\"", "route = [\"user\"]\nschema = { a = \"main\" }", 6, "write \"schema\" in route"),
    (
        "cluster = \"main\"",
        "route = [\"schema\"]\n[listener.schema]\na = \"main\"\nb = \"man\"",
        8,
        "listener.schema.\"b\": there is no [[cluster]] \"man\" (did you mean \"main\"?)",
    ),
    ("cluster = \"main\"", "route = [\"schema\"]\nschema = { a = 1 }", 6, "listener.schema.a: write a text in quotes"),
    ("source = \"static\"", "source = \"static\"\nrequired = \"no\"", 10, "write true or false, not a text"),
    (
        "\n[[listener]]",
        "[[discovery]]\nname = \"d\"\npreset = \"kubeblock\"\n[[listener]]",
        3,
        "discovery.preset: \"kubeblock\" is not known (did you mean \"kubeblocks\"?): write",
    ),
    (
        "\n[[listener]]",
        "[[discovery]]\nname = \"d\"\npreset = \"moco\"\n[[listener]]",
        1,
        "[discovery.account] is missing",
    ),
    (
        "\n[[listener]]",
        "[[discovery]]\nname = \"d\"\npreset = \"moco\"\nnamespaces = [\"A\"]\n[[listener]]",
        4,
        "\"A\" is no namespace",
    ),
    (
        "\n[[listener]]",
        "[proxy]\nshutdown_grace_ms = 5\nshutdown_deadline_ms = 4\n[[listener]]",
        2,
        "must not be longer than shutdown_deadline_ms",
    ),
    ("[[cluster]]", "[listener.tls]\nmode = \"required\"\n[[cluster]]", 8, "write both, or mode = \"disabled\""),
    ("[[cluster]]", "[listener.tls]\nkey = \"/etc/hostname\"\n[[cluster]]", 8, "there is no cert"),
    ("[[cluster]]", "[listener.tls]\ncert = \"/etc/hostname\"\n[[cluster]]", 8, "holds no certificate"),
    ("[[cluster]]", "[listener.tls]\nkey = \"/etc/hostname\"\n[[cluster]]", 8, "holds no private key"),
    ("[[cluster]]", "[listener.tls]\nmode = \"verify_ca\"\n[[cluster]]", 8, "without client_ca"),
    (
        "[[cluster]]",
        "[listener.tls]\nclient_ca = \"/etc/hostname\"\n[[cluster]]",
        8,
        "only used in the modes \"verify_ca\"",
    ),
    (
        "password = \"secret\"",
        "password = \"secret\"\n[cluster.tls]\nmode = \"verify_ca\"",
        15,
        "cannot be verified without ca",
    ),
    ("password = \"secret\"", "password = \"secret\"\n[cluster.tls]\nmode = \"VERIFY\"", 15, r#""VERIFY_CA""#),
    (
        "password = \"secret\"",
        "password = \"secret\"\n[cluster.tls]\nmode = \"required\"\nca = \"/etc/hostname\"",
        16,
        "VERIFY_CA and VERIFY_IDENTITY: write one",
    ),
    (
        "password = \"secret\"",
        "password = \"secret\"\n[cluster.tls]\nmode = \"disabled\"\ncert = \"/etc/hostname\"",
        16,
        "not used with mode = \"DISABLED\"",
    ),
    ("\n[[listener]]", "[admin]\nlisten = \"0.0.0.0:6446\"\n[[listener]]", 5, "127.0.0.1:6446 is taken by [admin]"),
    (
        "[[cluster]]",
        "[[listener]]\nname = \"app\"\nlisten = \"[::1]:6446\"\ncluster = \"main\"\n[[cluster]]",
        8,
        "\"app\" is taken already",
    ),
];

#[test]
fn each_refusal_has_its_line_and_its_advice() {
    for (from, to, line, part) in REFUSED {
        assert!(MINIMAL.contains(from), "{from}");
        let message = refusal(&MINIMAL.replacen(from, to, 1), &[]);
        let start = format!("holdfast.toml:{line}: ");
        let found = message.lines().any(|one| one.starts_with(&start) && one.contains(part));
        assert!(found, "{to}\nexpected {start}…{part}\nfound    {message}");
        assert!(!message.contains("secret\"") || to.contains("password_env ="), "{message}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = MINIMAL
        .replace("name = \"app\"", "name = \"app\"\nmode = \"x\"\nmax_conections = 3")
        .replace("user", "usr")
        .replace("static", "dynamic");
    let message = refusal(&text, &[]);
    let lines: Vec<&str> = message.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(lines, [4, 5, 11, 13, 14].map(|line| format!("holdfast.toml:{line}")), "{message}");
}

#[test]
fn an_empty_file_says_what_to_write() {
    let message = refusal("", &[]);
    assert!(message.contains("holdfast.toml:1: listener is missing: write [[listener]]"), "{message}");
    assert!(message.contains("holdfast.toml:1: cluster is missing: write [[cluster]]"), "{message}");
}

#[test]
fn many_problems_are_cut() {
    let keys: String = (0..200).map(|i| format!("zz{i} = 1\n")).collect();
    let message = refusal(&format!("{keys}{MINIMAL}"), &[]);
    assert!(message.ends_with("and 150 more problems"), "{message}");
}
