//! What the clients talk to: servers, a proxy in front of them, and a port that waits for the followers.

use super::scenario::{Client, Scenario, Script, clients, here};
use super::testbed::{Flavor, Group, GroupOptions, Port, ReplicaSet, Server, SetOptions, Testbed, query, until};
use mysql_async::prelude::Queryable;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest a client may take for all its scenarios.
const PATIENCE: &str = "900";

/// The set of servers of one suite.
pub struct Bed {
    servers: Servers,
    sync: u16,
    folder: PathBuf,
    unknown_users: Vec<(String, String)>,
}

enum Servers {
    Group(Group),
    Set(ReplicaSet),
}

/// Where a client is sent.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    Server,
    Port(&'a Proxy),
}

/// On a busy machine SERVER_QUERY_WAS_SLOW would tell the two apart.
const NEVER_SLOW: &str = "long_query_time=3600";

impl Bed {
    /// A group of three, or a MariaDB source with a replica.
    pub fn start(flavor: Flavor) -> Bed {
        let servers = match flavor {
            Flavor::MySql => {
                let mut options = GroupOptions::default();
                options.server = options.server.with("max_allowed_packet=64M").with(NEVER_SLOW);
                Servers::Group(Group::start(options))
            }
            Flavor::MariaDb => {
                let mut options = SetOptions::mariadb();
                // Rows, not statements: `i = i + ?` with a DOUBLE is logged as text with an integer in it, and the replica
                // comes to another number at the lowest BIGINT.
                options.server =
                    options.server.with("max_allowed_packet=64M").with(NEVER_SLOW).with("binlog_format=ROW");
                Servers::Set(ReplicaSet::start(options))
            }
        };
        let folder = Testbed::get().new_folder("clients");
        let rows: String = (1..=5).map(|i| format!("{i},line {i} ünï\n")).collect();
        fs::write(folder.join("infile.csv"), rows).expect("the folder is writable");
        let mut bed = Bed { servers, sync: 0, folder, unknown_users: Vec::new() };
        bed.unknown_users = bed.choose_unknown_users();
        bed.sync = serve_sync(flavor, bed.primary().port(), bed.all().iter().map(|s| s.port()).collect());
        bed
    }

    pub fn flavor(&self) -> Flavor {
        self.primary().flavor()
    }

    /// For names of the scenarios that no account has, those to use instead.
    pub fn unknown_users(&self) -> &[(String, String)] {
        &self.unknown_users
    }

    /// MySQL asks a name that it does not know for an answer of a plugin that it draws at random, once per process and name.
    /// Not every client has every plugin, and what it says then would differ by chance: these names have drawn the default.
    fn choose_unknown_users(&self) -> Vec<(String, String)> {
        if self.flavor() == Flavor::MariaDb {
            return Vec::new();
        }
        let drawn = |name: &&str| {
            let candidates = ('a'..='z').map(|c| format!("{name}_{c}"));
            let other = candidates.into_iter().find(|name| draws_default_plugin(self.primary().port(), name));
            (
                (*name).to_owned(),
                other.unwrap_or_else(|| panic!("of 26 names like {name} none drew the default plugin")),
            )
        };
        let all: Vec<_> = ["nobody_here", "nobody_else", "elsewhere"].iter().map(drawn).collect();
        // known, but not from here
        let (_, name) = &all[2];
        self.primary().sql(&format!("CREATE USER {name}@'192.0.2.1' IDENTIFIED BY 'elsewhere'"));
        all
    }

    pub fn sync_port(&self) -> u16 {
        self.sync
    }

    /// A file of the client's, for LOCAL INFILE.
    pub fn infile(&self) -> PathBuf {
        self.folder.join("infile.csv")
    }

    pub fn port_of(&self, place: Place<'_>) -> u16 {
        match place {
            Place::Server => self.primary().port(),
            Place::Port(proxy) => proxy.port.number(),
        }
    }

    fn primary(&self) -> &Server {
        match &self.servers {
            Servers::Group(group) => group.member(0),
            Servers::Set(set) => set.source(),
        }
    }

    fn all(&self) -> &[Server] {
        match &self.servers {
            Servers::Group(group) => group.members(),
            Servers::Set(set) => set.servers(),
        }
    }

    /// The schema of the suite, empty, on all servers.
    pub fn fresh_databases(&self) {
        self.primary().sql("DROP DATABASE IF EXISTS suite; CREATE DATABASE suite");
        let _ =
            TcpStream::connect(("127.0.0.1", self.sync)).and_then(|mut s| std::io::copy(&mut s, &mut std::io::sink()));
    }

    /// Empties what the servers remember of passwords, and the schema. LOCAL: a replica must write no event of its own.
    pub fn forget_logins(&self) {
        self.fresh_databases();
        self.all().iter().for_each(|s| drop(s.sql("FLUSH LOCAL PRIVILEGES")));
    }

    /// Lets servers and proxy see the accounts' passwords once, over TLS.
    pub fn warm_logins(&self, proxy: &Proxy) {
        for (user, password) in [("app", "app"), ("empty", ""), ("tlsonly", "tlsonly")] {
            for port in self.all().iter().map(Server::port).chain([proxy.port.number()]) {
                query(self.flavor(), port, user, password, "SELECT 1")
                    .unwrap_or_else(|e| panic!("{user} on {port}: {e}"));
            }
        }
    }

    /// A new proxy in front of the servers for that client, which has seen no password yet.
    pub fn proxy(&self, client: Client) -> Proxy {
        let (port, tls, folder) = (Port::take(), Testbed::get().tls(), Testbed::get().new_folder("proxy"));
        // Without TLS this client only answers challenges: asked for a password it sends it in the clear, which is not taken.
        let only_answers = client == Client::Connector && self.flavor() == Flavor::MariaDb;
        let source = if only_answers { ", \"server\"" } else { "" };
        let mut config = format!(
            "[[listener]]\nname = \"app\"\nlisten = \"127.0.0.1:{}\"\ncluster = \"main\"\nmode = \"split\"\n\
             account_source = [\"pass-through\"{source}]\n[listener.tls]\nmode = \"preferred\"\ncert = {:?}\nkey = {:?}\n[[cluster]]\nname = \"main\"\n",
            port.number(),
            tls.server_cert,
            tls.server_key
        );
        let addresses: Vec<String> = self.all().iter().map(|s| s.addr().to_string()).collect();
        match &self.servers {
            Servers::Group(_) => {
                let _ = writeln!(config, "source = \"members\"\nkind = \"group\"\nseeds = {addresses:?}");
            }
            Servers::Set(_) => {
                let servers: Vec<String> = addresses.iter().map(|a| format!("{{ address = {a:?} }}")).collect();
                let _ = writeln!(config, "source = \"static\"\nkind = \"async\"\nservers = [{}]", servers.join(", "));
            }
        }
        let account = if only_answers { "accounts" } else { "holdfast" };
        let _ = writeln!(config, "[cluster.account]\nuser = \"{account}\"\npassword = \"{account}\"");
        fs::write(folder.join("proxy.toml"), config).expect("the folder is writable");
        let log = File::create(folder.join("proxy.log")).expect("the folder is writable");
        let child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["proxy", "-c"])
            .arg(folder.join("proxy.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the proxy starts");
        let proxy = Proxy { port, child, folder };
        // an account that no scenario uses, so that the caches stay as cold as they are
        until("the proxy serves reads and writes", Duration::from_secs(20), || {
            query(self.flavor(), proxy.port.number(), "repl", "repl", "DO 1; SELECT 1").is_ok()
        });
        proxy
    }
}

/// A running proxy; ended when dropped.
pub struct Proxy {
    port: Port,
    child: Child,
    folder: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = fs::read_to_string(self.folder.join("proxy.log")).unwrap_or_default();
        if matches!(ended, Ok(Some(_))) || log.contains("panicked") {
            eprintln!("the proxy ended by itself or panicked; its log ends with:\n{}", tail(&log, 20));
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The clients' programs and what they need around them.
pub struct Programs {
    clients: PathBuf,
    mysql_plugins: PathBuf,
    mariadb_plugins: PathBuf,
}

/// Obtains the clients, once.
pub fn programs() -> Programs {
    let out = Command::new("bash").arg(here().join("setup.sh")).env("HOLDFAST_TESTBED", Testbed::get().root()).output();
    let out = out.expect("bash is needed to obtain the clients");
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "clients/setup.sh failed:\n{said}");
    let libraries = Testbed::get().root().join("parts/libmariadb/usr/lib");
    let triplet = fs::read_dir(&libraries).into_iter().flatten().flatten().map(|e| e.path().join("libmariadb3/plugin"));
    Programs {
        clients: clients(),
        mysql_plugins: Testbed::get().path("mysql", "MYSQL_PLUGINS"),
        mariadb_plugins: triplet.into_iter().find(|p| p.is_dir()).expect("Connector/C brings login plugins"),
    }
}

impl Programs {
    /// Runs a client on the script and returns its transcript.
    pub fn run(&self, client: Client, script: &Script, port: u16, tls: bool, bed: &Bed) -> String {
        if client.is_cli() {
            return script.scenarios.iter().map(|s| self.run_cli(client, s, port, tls, bed)).collect();
        }
        let file = bed.folder.join(format!("{}-{}", client.name(), script.name));
        fs::write(&file, script.text()).expect("the folder is writable");
        let mut command = Command::new("timeout");
        command.arg(PATIENCE);
        match client {
            Client::LibMysql => {
                command.arg(self.clients.join("client-mysqlclient")).env("HOLDFAST_PLUGINS", &self.mysql_plugins)
            }
            Client::LibMariadb => command.arg(self.clients.join("client-mariadb")),
            Client::Go => command.arg(self.clients.join("client-go")),
            Client::Node => command.arg("node").arg(here().join("client.js")),
            other => command.arg(self.clients.join("venv/bin/python")).arg(here().join("client.py")).arg(other.name()),
        };
        command.args(["127.0.0.1", &port.to_string(), "app", "app", if tls { "on" } else { "off" }]).arg(file);
        command
            .env("HOLDFAST_SYNC", bed.sync.to_string())
            // the order in which a Python set is printed
            .env("PYTHONHASHSEED", "0")
            .env("HOLDFAST_FILE", bed.infile())
            .env("MARIADB_PLUGIN_DIR", &self.mariadb_plugins)
            .env("NODE_PATH", self.clients.join("node/node_modules"));
        let out = command.output().expect("the client starts");
        let mut transcript = String::from_utf8_lossy(&out.stdout).into_owned();
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            let _ = writeln!(transcript, "\nthe client ended with {}:\n  {}", out.status, tail(&said, 10));
        }
        transcript
    }

    fn run_cli(&self, client: Client, scenario: &Scenario, port: u16, tls: bool, bed: &Bed) -> String {
        let wait = format!("\\! bash -c 'exec 3<>/dev/tcp/127.0.0.1/{}; cat <&3'\n", bed.sync);
        let Some((options, script)) = scenario.as_cli(client, &wait) else {
            return String::new();
        };
        let script = script.replace("${file}", &bed.infile().display().to_string());
        let input = bed.folder.join(format!("{}.sql", client.name()));
        fs::write(&input, script).expect("the folder is writable");
        let mut command = Command::new("timeout");
        command.arg(PATIENCE);
        match client {
            Client::MysqlCli => command.arg(Testbed::get().path("mysql", "MYSQL")).args([
                "--no-defaults",
                &format!("--plugin-dir={}", self.mysql_plugins.display()),
                "--system-command",
                "--commands",
                "--get-server-public-key",
                if tls { "--ssl-mode=REQUIRED" } else { "--ssl-mode=DISABLED" },
            ]),
            _ => command.arg(Testbed::get().path("mariadb", "MARIADB")).args([
                "--no-defaults",
                &format!("--plugin-dir={}", self.mariadb_plugins.display()),
                if tls { "--ssl" } else { "--skip-ssl" },
            ]),
        };
        command.args(["-h127.0.0.1", &format!("-P{port}"), "--force", "-vv", "--column-type-info", "--comments"]);
        command.args(["--default-character-set=utf8mb4", "--show-warnings", "--unbuffered"]);
        command.args(if options.is_empty() { client.usual_cli_options() } else { options });
        // errors and results in the order in which they came
        let both = File::create(bed.folder.join("cli.out")).expect("the folder is writable");
        let status = command
            .stdin(File::open(&input).expect("just written"))
            .stdout(both.try_clone().expect("a second handle"))
            .stderr(both)
            .status()
            .expect("the client starts");
        let said = fs::read(bed.folder.join("cli.out")).expect("just written");
        let mut transcript = format!("== {}\nscript\n", scenario.heading);
        for line in String::from_utf8_lossy(&said).lines() {
            match line {
                // the client's echo of a statement begins a step
                "--------------" => {}
                line if line.starts_with("mysql: [Warning]") => {}
                line => drop(writeln!(transcript, "  {line}")),
            }
        }
        let _ = writeln!(transcript, "  ended with {:?}", status.code());
        transcript
    }
}

/// Whether the server goes on with caching_sha2_password when that name logs in; otherwise it asks to switch.
fn draws_default_plugin(port: u16, name: &str) -> bool {
    let mut server = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    let mut header = [0; 4];
    server.read_exact(&mut header).expect("the greeting");
    let mut greeting = vec![0; usize::from(header[0])];
    server.read_exact(&mut greeting).expect("all of it");
    // PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH; an answer that fits no password
    let mut response = [&0x0008_8200_u32.to_le_bytes()[..], &(1_u32 << 24).to_le_bytes(), &[45], &[0; 23]].concat();
    response.extend([name.as_bytes(), &[0, 32], &[b'x'; 32], b"caching_sha2_password\0"].concat());
    let header = [u8::try_from(response.len()).expect("short"), 0, 0, 1];
    server.write_all(&[&header[..], &response].concat()).expect("the server reads");
    let mut first = [0; 5];
    server.read_exact(&mut first).expect("a packet");
    first[4] != 0xFE
}

/// Serves a port that closes each connection once all servers have what the primary has.
fn serve_sync(flavor: Flavor, primary: u16, all: Vec<u16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (have, wait) = match flavor {
            Flavor::MySql => ("SELECT @@global.gtid_executed", "WAIT_FOR_EXECUTED_GTID_SET"),
            Flavor::MariaDb => ("SELECT @@global.gtid_binlog_pos", "MASTER_GTID_WAIT"),
        };
        let mut connections = runtime.block_on(connect_all(&all));
        for client in listener.incoming().flatten() {
            runtime.block_on(async {
                let source = all.iter().position(|p| *p == primary).expect("the primary is one of all");
                let position: String =
                    connections[source].query_first(have).await.expect("a position").expect("one row");
                let sql = format!("SELECT {wait}('{}', 30)", position.replace('\n', ""));
                for (i, connection) in connections.iter_mut().enumerate().filter(|(i, _)| *i != source) {
                    let late: Option<i64> = connection.query_first(&sql).await.expect("it waits");
                    assert_eq!(late, Some(0), "the server on port {} stays behind", all[i]);
                }
            });
            drop(client);
        }
    });
    port
}

async fn connect_all(ports: &[u16]) -> Vec<mysql_async::Conn> {
    let mut connections = Vec::new();
    for port in ports {
        let options = mysql_async::OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(*port)
            .user(Some("root"))
            .prefer_socket(false);
        connections.push(mysql_async::Conn::new(options).await.expect("root may log in"));
    }
    connections
}
