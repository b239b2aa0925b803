//! The proxy under test: the real binary, a configuration of its own, its ports, its log and its numbers.
//!
//! Everything here blocks, as the testbed does. A proxy that does not start or does not answer panics with its log; one
//! that is dropped is killed. [`Client`] is a client that can be told to misbehave.
#![allow(dead_code, unused_imports, reason = "each test crate uses some of it")]

mod client;
mod load;
mod sysbench;

use crate::testbed::{Daemon, Flavor, Port, Rows, Testbed, exchange, http, metric, query, until};
pub use client::{Client, Fault, command, with_query};
pub use load::{Load, Outcome, TABLE, Trouble};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;
pub use sysbench::{ROWS, sysbench};

/// How long a test waits for what should happen at once.
pub const SOON: Duration = Duration::from_secs(60);
/// What the clients' account and the proxy's need for `exactly_once`.
pub const EXACTLY_ONCE: &str =
    "GRANT REPLICATION_APPLIER ON *.* TO app@'%'; GRANT REPLICATION SLAVE ON *.* TO holdfast@'%'";

/// What the proxy is to be. The texts are lines of TOML for the table they are named after.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub servers: Vec<SocketAddr>,
    /// The servers are seeds of a group.
    pub group: bool,
    /// The servers are pods: `[cluster.kubernetes]` as an inline table's inside.
    pub pods: Option<String>,
    pub proxy: String,
    pub listener: String,
    pub cluster: String,
    /// In place of `cluster = "main"` of the listeners.
    pub route: String,
    /// In place of user and password of `[cluster.account]`.
    pub account: String,
    /// Whole tables behind all others.
    pub more: String,
    /// One listener for each; `split` if there is none.
    pub modes: Vec<&'static str>,
    pub json: bool,
    /// How much it logs, if not all that tests read.
    pub level: Option<&'static str>,
    /// Limit of open files, if another than ours.
    pub files_max: Option<u32>,
}

impl Options {
    /// In front of these servers, roles by proof.
    pub fn servers(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { servers: servers.into_iter().collect(), ..Self::default() }
    }

    /// In front of a group, known by these seeds.
    pub fn group(seeds: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { group: true, ..Self::servers(seeds) }
    }

    /// In front of pods, as the inside of `kubernetes = { … }` says.
    pub fn pods(inside: &str) -> Self {
        Self { pods: Some(inside.to_owned()), ..Self::default() }
    }

    /// With lines for `[proxy]`.
    pub fn proxy(mut self, lines: &str) -> Self {
        self.proxy = format!("{}\n{lines}", self.proxy);
        self
    }

    /// With lines for `[[listener]]`.
    pub fn listener(mut self, lines: &str) -> Self {
        self.listener = format!("{}\n{lines}", self.listener);
        self
    }

    /// With lines for `[[cluster]]`.
    pub fn cluster(mut self, lines: &str) -> Self {
        self.cluster = format!("{}\n{lines}", self.cluster);
        self
    }

    /// With these lines for `[cluster.account]`.
    pub fn account(mut self, lines: &str) -> Self {
        self.account = lines.to_owned();
        self
    }

    /// With several clusters behind the listeners: these lines instead of `cluster = "main"`.
    pub fn route(mut self, lines: &str) -> Self {
        self.route = lines.to_owned();
        self
    }

    /// With one more cluster, of one server.
    pub fn and_cluster(mut self, name: &str, server: SocketAddr) -> Self {
        self.more += &cluster(name, server);
        self
    }

    /// With a listener for each of these modes.
    pub fn modes(mut self, modes: &[&'static str]) -> Self {
        self.modes = modes.to_vec();
        self
    }

    /// With TLS offered to clients: the testbed's server certificate.
    pub fn tls(self, mode: &str) -> Self {
        let files = Testbed::get().tls();
        let (cert, key) = (files.server_cert.display(), files.server_key.display());
        self.listener(&format!("tls = {{ mode = \"{mode}\", cert = \"{cert}\", key = \"{key}\" }}"))
    }

    fn text(&self, ports: &[Port], admin: u16) -> String {
        let format = if self.json { "json" } else { "text" };
        let mut text = format!(
            "[proxy]\nworkers = 2\n{}\n[log]\nlevel = \"{}\"\nformat = \"{format}\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n",
            self.proxy,
            self.level.unwrap_or("debug"),
        );
        for (mode, port) in self.modes.iter().zip(ports) {
            text += &format!(
                "[[listener]]\nname = \"{mode}\"\nlisten = \"127.0.0.1:{}\"\n{}\nmode = \"{mode}\"\n{}\n",
                port.number(),
                if self.route.is_empty() { "cluster = \"main\"" } else { &self.route },
                self.listener
            );
        }
        let quoted = |form: fn(&SocketAddr) -> String| self.servers.iter().map(form).collect::<Vec<_>>().join(", ");
        let source = match (&self.pods, self.group) {
            (Some(pods), _) => format!("source = \"kubernetes\"\nkubernetes = {{ {pods} }}"),
            (None, true) => format!("source = \"members\"\nseeds = [{}]", quoted(|s| format!("\"{s}\""))),
            (None, false) => {
                format!("source = \"static\"\nservers = [{}]", quoted(|s| format!("{{ address = \"{s}\" }}")))
            }
        };
        let account =
            if self.account.is_empty() { "user = \"holdfast\"\npassword = \"holdfast\"" } else { &self.account };
        text + &format!("[[cluster]]\nname = \"main\"\n{source}\n{}\n[cluster.account]\n{account}\n", self.cluster)
            + &self.more
    }
}

/// A `[[cluster]]` of one server.
pub fn cluster(name: &str, server: SocketAddr) -> String {
    format!(
        "[[cluster]]\nname = \"{name}\"\nsource = \"static\"\nservers = [{{ address = \"{server}\" }}]\n\
         account = {{ user = \"holdfast\", password = \"holdfast\" }}\n"
    )
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    daemon: Daemon,
    ports: Vec<Port>,
    admin: Port,
    options: Options,
}

impl Proxy {
    /// Starts it and waits until it is ready: its cluster has a proven primary.
    pub fn start(options: Options) -> Self {
        let proxy = Self::launch(options);
        let mut last = String::new();
        let ready = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("the proxy is ready", SOON, || {
                assert!(proxy.daemon.running(), "the proxy ended");
                let (status, body) = proxy.http("/readyz").unwrap_or_default();
                last = body;
                status == 200
            });
        }));
        assert!(ready.is_ok(), "not ready: {last}\n{}", proxy.log());
        proxy
    }

    /// Starts it and waits until it listens.
    pub fn launch(mut options: Options) -> Self {
        if options.modes.is_empty() {
            options.modes.push("split");
        }
        let ports: Vec<Port> = options.modes.iter().map(|_| Port::take()).collect();
        let proxy = Self { daemon: Daemon::new("holdfast"), ports, admin: Port::take(), options };
        proxy.write(&proxy.text());
        proxy.run();
        until("the proxy listens", SOON, || {
            assert!(proxy.daemon.running(), "the proxy ended:\n{}", proxy.log());
            proxy.ports.iter().all(|p| proxy.log().contains(&format!("127.0.0.1:{}", p.number())))
        });
        proxy
    }

    /// Starts it anew after its end, on the same ports, and waits until it is ready.
    pub fn start_again(&self) {
        self.run();
        until("the proxy is ready again", SOON, || {
            assert!(self.daemon.running(), "the proxy ended:\n{}", self.log());
            self.http("/readyz").is_ok_and(|(status, _)| status == 200)
        });
    }

    fn run(&self) {
        let binary = env!("CARGO_BIN_EXE_holdfast");
        let mut run = Command::new(binary);
        if let Some(files) = self.options.files_max {
            run = Command::new("sh");
            run.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &files.to_string(), binary]);
        }
        run.args(["proxy", "-c"]).arg(self.file());
        self.daemon.run(&run).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Port of its admin pages.
    pub fn admin_port(&self) -> u16 {
        self.admin.number()
    }

    /// Port of the first listener.
    pub fn port(&self) -> u16 {
        self.ports[0].number()
    }

    /// Port of the listener of that mode.
    pub fn port_of(&self, mode: &str) -> u16 {
        let at = self.options.modes.iter().position(|m| *m == mode).expect("there is a listener of that mode");
        self.ports[at].number()
    }

    /// Its configuration as it was at the start.
    pub fn text(&self) -> String {
        self.options.text(&self.ports, self.admin.number())
    }

    /// Its configuration file.
    pub fn file(&self) -> PathBuf {
        self.daemon.dir().join("holdfast.toml")
    }

    /// A folder that goes with the proxy.
    pub fn dir(&self) -> PathBuf {
        self.daemon.dir().to_owned()
    }

    /// Replaces the configuration file, in one step.
    pub fn write(&self, text: &str) {
        let new = self.daemon.dir().join("new.toml");
        std::fs::write(&new, text).expect("the folder is writable");
        std::fs::rename(new, self.file()).expect("the folder is writable");
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.daemon.dir().join("out.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the log has `words`.
    pub fn wait_log(&self, words: &str) {
        until(&format!("the log says {words:?}"), SOON, || self.log().contains(words));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        self.daemon.signal(signal);
    }

    /// Whether it runs.
    pub fn running(&self) -> bool {
        self.daemon.running()
    }

    /// Waits until it has ended.
    pub fn wait_exit(&self, limit: Duration) -> ExitStatus {
        self.daemon.wait_exit(limit)
    }

    /// Memory it has in use, KiB (VmRSS).
    pub fn rss_kib(&self) -> u64 {
        self.kib("VmRSS:")
    }

    /// The most memory it has had in use since [`Proxy::reset_rss_peak`], KiB (VmHWM).
    pub fn rss_peak_kib(&self) -> u64 {
        self.kib("VmHWM:")
    }

    /// CPU time it has used, in steps of 10 ms.
    pub fn cpu(&self) -> Duration {
        let pid = self.daemon.pid().expect("the proxy runs");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        // Behind its name, which may have spaces: utime and stime, in ticks.
        let fields = stat.rsplit_once(')').expect("it has a name").1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Begins to look for the peak anew.
    pub fn reset_rss_peak(&self) {
        let pid = self.daemon.pid().expect("the proxy runs");
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("it is ours");
    }

    fn kib(&self, name: &str) -> u64 {
        let pid = self.daemon.pid().expect("the proxy runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("there is such a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Status line and headers of a page of the admin port.
    pub fn head(&self, path: &str) -> String {
        let text = exchange(self.admin_port(), &format!("GET {path}")).expect("the admin port answers");
        text.split("\r\n\r\n").next().unwrap_or_default().to_owned()
    }

    /// Status and body of a page of the admin port.
    pub fn http(&self, path: &str) -> std::io::Result<(u16, String)> {
        http(self.admin_port(), &format!("GET {path}"))
    }

    /// Sum of the samples of /metrics whose line begins with `name` and has all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(self.admin_port(), name, labels)
    }

    /// Waits until so many servers can say what became of a write (`exactly_once`, for which there must be a session).
    pub fn wait_witnesses(&self, servers: usize) {
        drop(self.client());
        until("the servers' logs are watched", SOON, || self.metric("holdfast_witnesses", &[]) as usize == servers);
    }

    /// Clients connected now.
    pub fn sessions(&self) -> u64 {
        self.metric("holdfast_client_sessions", &[]) as u64
    }

    /// A client of the first listener, as `app`.
    pub fn client(&self) -> Client {
        self.client_of(self.port())
    }

    /// A client of that port, as `app`.
    pub fn client_of(&self, port: u16) -> Client {
        Client::login(port, "app", "app").unwrap_or_else(|e| panic!("no login: {e}\n{}", self.log()))
    }

    /// Rows of the real command line client through the first listener, as `app`.
    pub fn sql(&self, sql: &str) -> Result<Rows, String> {
        query(Flavor::MySql, self.port(), "app", "app", sql)
    }
}

/// Reads what a socket sends until it is closed. Panics after `limit`.
pub fn read_all(socket: &mut TcpStream, limit: Duration) -> Vec<u8> {
    socket.set_read_timeout(Some(limit)).expect("a socket");
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        match socket.read(&mut part) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&part[..n]),
            // closed with something of ours unread
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("still open after {limit:?}: {error}"),
        }
    }
}
