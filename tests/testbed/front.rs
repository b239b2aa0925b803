//! What others put in front of MySQL: MySQL Router and HAProxy, to compare with.

use super::{Daemon, Flavor, Group, Port, StartError, Testbed, here, query};
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const CLUSTER: &str = "c0000000-0000-4000-8000-000000000001";

/// A running MySQL Router. Signals and logs: see [`Daemon`].
#[derive(Debug)]
pub struct Router {
    daemon: Daemon,
    rw: Port,
    ro: Port,
    third: Port,
}

impl Deref for Router {
    type Target = Daemon;
    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl Router {
    /// Plain destinations, no failover by role: Router knows only who answers.
    pub fn start_static(destinations: &[SocketAddr]) -> Router {
        let router = Router::new();
        let bed = Testbed::get();
        let (dir, tls) = (router.dir().display(), bed.tls());
        let mut text = format!(
            "[DEFAULT]\nplugin_folder={}\nlogging_folder=\nruntime_folder={dir}\ndata_folder={dir}\n\
             client_ssl_mode=PREFERRED\nclient_ssl_cert={}\nclient_ssl_key={}\nserver_ssl_mode=PREFERRED\n\
             max_connect_errors=1000000\nmax_total_connections=20000\nmax_idle_server_connections=64\n[logger]\nlevel=INFO\n",
            bed.path("router", "MYSQLROUTER_PLUGINS").display(),
            tls.server_cert.display(),
            tls.server_key.display(),
        );
        let list: Vec<String> = destinations.iter().map(SocketAddr::to_string).collect();
        for (name, port, strategy, more) in [
            ("rw", &router.rw, "first-available", ""),
            ("ro", &router.ro, "round-robin", ""),
            ("shared", &router.third, "first-available", "connection_sharing=1\nconnection_sharing_delay=1\n"),
        ] {
            text.push_str(&format!(
                "[routing:{name}]\nbind_address=127.0.0.1\nbind_port={}\nprotocol=classic\n\
                 max_connections=20000\ndestinations={}\nrouting_strategy={strategy}\n{more}",
                port.number(),
                list.join(","),
            ));
        }
        router.serve(&text).unwrap_or_else(|e| panic!("{e}"));
        router
    }

    /// Follows the group through the metadata schema, which is made in the group by hand (see router-metadata.sql).
    pub fn start_metadata(group: &Group) -> Router {
        let router = Router::new();
        let primary = group.primary();
        let schema = fs::read_to_string(here().join("router-metadata.sql")).expect("the schema is there");
        primary.sql(&schema);
        primary.sql(&format!(
            "USE mysql_innodb_cluster_metadata; \
             REPLACE INTO clusters VALUES ('{CLUSTER}','test',@@group_replication_group_name,'{{}}','{{}}'); \
             REPLACE INTO instances(cluster_id,address,uuid,attributes) SELECT '{CLUSTER}', \
             CONCAT(MEMBER_HOST,':',MEMBER_PORT), MEMBER_ID, '{{}}' FROM performance_schema.replication_group_members"
        ));
        let written = bootstrap(&router, primary.port()).unwrap_or_else(|e| panic!("{e}"));
        let text = fs::read_to_string(written).expect("the bootstrap wrote its configuration");
        let text = router.with_own_ports(&text);
        router.serve(&text).unwrap_or_else(|e| panic!("{e}"));
        router
    }

    fn new() -> Router {
        Router { daemon: Daemon::new("router"), rw: Port::take(), ro: Port::take(), third: Port::take() }
    }

    /// Static: the first destination that answers. Metadata: the primary.
    pub fn rw_port(&self) -> u16 {
        self.rw.number()
    }

    /// Static: all destinations in turn. Metadata: the secondaries.
    pub fn ro_port(&self) -> u16 {
        self.ro.number()
    }

    /// Static: as `rw_port`, with connection sharing. Metadata: read/write splitting.
    pub fn third_port(&self) -> u16 {
        self.third.number()
    }

    /// The bootstrapped configuration with ports that are reserved for us, without the X protocol (no server speaks it).
    fn with_own_ports(&self, text: &str) -> String {
        let mut section = "";
        let mut out = String::new();
        for line in text.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let port = match section {
                "[routing:bootstrap_rw]" => self.rw_port(),
                "[routing:bootstrap_ro]" => self.ro_port(),
                "[routing:bootstrap_rw_split]" => self.third_port(),
                s if s.starts_with("[routing:bootstrap_x_") => continue,
                _ => 0,
            };
            match line.starts_with("bind_port=") {
                true => out.push_str(&format!("bind_port={port}\n")),
                false => out.push_str(&format!("{line}\n")),
            }
        }
        out
    }

    fn serve(&self, config: &str) -> Result<(), StartError> {
        let file = self.dir().join("router.conf");
        fs::write(&file, config).expect("the router's folder is writable");
        let mut command = Command::new(Testbed::get().path("router", "MYSQLROUTER"));
        command.arg(format!("--config={}", file.display()));
        self.run(&command)?;
        let answers = |port| query(Flavor::MySql, port, "app", "app", "SELECT 1").is_ok();
        let ports = [self.rw_port(), self.third_port()];
        wait_for(self, || ports.iter().all(|p| answers(*p)))
    }
}

/// Runs `mysqlrouter --bootstrap`; the path of the configuration it wrote.
fn bootstrap(router: &Router, primary_port: u16) -> Result<std::path::PathBuf, StartError> {
    let bed = Testbed::get();
    let boot = router.dir().join("boot");
    let mut command = Command::new(bed.path("router", "MYSQLROUTER"));
    command
        .args(["--bootstrap", &format!("root@127.0.0.1:{primary_port}"), "-d"])
        .arg(&boot)
        .args(["--name", &format!("r{}", router.rw_port()), "--force"])
        .arg(format!("--conf-base-port={}", router.rw_port()))
        .args(["--conf-bind-address=127.0.0.1", "--disable-rest"])
        // the machine's own name need not resolve
        .args(["--report-host", "127.0.0.1"])
        .args(["--account", "router", "--account-create", "never"])
        .arg(format!("--conf-set-option=DEFAULT.plugin_folder={}", bed.path("router", "MYSQLROUTER_PLUGINS").display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0) {
        command.arg("--user=root");
    }
    let failed = |e: std::io::Error| StartError(format!("router bootstrap: {e}"));
    let mut child = command.spawn().map_err(failed)?;
    // root's password and the router account's
    let mut passwords = child.stdin.take().expect("stdin is piped");
    passwords.write_all(b"\nrouter\n").map_err(failed)?;
    drop(passwords);
    let out = child.wait_with_output().map_err(failed)?;
    match out.status.success() {
        true => Ok(boot.join("mysqlrouter.conf")),
        false => Err(StartError(format!(
            "router bootstrap failed:\n{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        ))),
    }
}

/// How HAProxy is to be run.
#[derive(Debug, Clone)]
pub struct HaProxyOptions {
    /// Servers in order of preference: the next is used when those before it do not answer.
    pub servers: Vec<SocketAddr>,
    /// HTTP ports that say at /readyz whether each server is to get clients; then all who are get some, in turn.
    pub readiness: Vec<u16>,
    pub threads: u32,
    pub max_connections: u32,
}

impl HaProxyOptions {
    /// One thread, 4000 connections.
    pub fn to(servers: &[SocketAddr]) -> Self {
        HaProxyOptions { servers: servers.to_vec(), readiness: Vec::new(), threads: 1, max_connections: 4000 }
    }
}

/// A running HAProxy in TCP mode. Signals and logs: see [`Daemon`].
#[derive(Debug)]
pub struct HaProxy {
    daemon: Daemon,
    port: Port,
}

impl Deref for HaProxy {
    type Target = Daemon;
    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl HaProxy {
    /// Starts it and waits until it listens.
    pub fn start(options: &HaProxyOptions) -> HaProxy {
        HaProxy::try_start(options).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same, with the reasons as an error.
    pub fn try_start(options: &HaProxyOptions) -> Result<HaProxy, StartError> {
        let proxy = HaProxy { daemon: Daemon::new("haproxy"), port: Port::take() };
        let file = proxy.dir().join("haproxy.cfg");
        fs::write(&file, haproxy_config(options, proxy.port())).expect("its folder is writable");
        let mut command = Command::new(Testbed::get().path("haproxy", "HAPROXY"));
        command.arg("-db").arg("-f").arg(Path::new(&file));
        proxy.run(&command)?;
        wait_for(&proxy, || TcpStream::connect(("127.0.0.1", proxy.port())).is_ok())?;
        Ok(proxy)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }
}

fn haproxy_config(options: &HaProxyOptions, port: u16) -> String {
    let mut text = format!(
        "global\n  nbthread {}\n  maxconn {}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
         timeout server 1h\nlisten mysql\n  bind 127.0.0.1:{port}\n",
        options.threads, options.max_connections
    );
    if !options.readiness.is_empty() {
        text.push_str("  option httpchk GET /readyz\n");
    }
    for (i, server) in options.servers.iter().enumerate() {
        let check = match (options.readiness.get(i), i) {
            (Some(port), _) => format!("port {port} inter 100 fall 1 rise 1"),
            (None, 0) => "inter 500".to_owned(),
            (None, _) => "inter 500 backup".to_owned(),
        };
        text.push_str(&format!("  server s{i} {server} check {check}\n"));
    }
    text
}

fn wait_for(daemon: &Daemon, ready: impl Fn() -> bool) -> Result<(), StartError> {
    let begin = Instant::now();
    while begin.elapsed() < SOON {
        if !daemon.running() {
            return Err(daemon.failed("died at start; its log says:"));
        }
        if ready() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(daemon.failed("is not ready; its log says:"))
}
