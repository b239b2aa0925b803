//! The reconciler under test: the real binary over a list of real servers that nobody else has set up.
#![allow(dead_code, reason = "each test crate uses some of it")]

use crate::testbed::{Daemon, Port, Server, ServerOptions, metric, until};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// How long a test waits for what should happen soon.
pub const SOON: Duration = Duration::from_secs(90);

/// Servers as their image would boot them: read-only, receiving nothing, in nobody's set.
pub fn servers(n: usize, name: &str) -> Vec<Server> {
    let semisync = ["plugin-load-add=semisync_source.so".to_owned(), "plugin-load-add=semisync_replica.so".to_owned()];
    start((0..n).map(|i| (format!("{name}-{i}"), semisync.to_vec())).collect())
}

/// Servers set up for one group that nobody has founded yet, and the ports on which they will talk to each other.
pub fn group_servers(n: usize) -> (Vec<Server>, Vec<Port>) {
    let ports: Vec<Port> = (0..n).map(|_| Port::take()).collect();
    let seeds: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{}", port.number())).collect();
    let name = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("Linux has /proc");
    let options = |i: usize| {
        let options = [
            "plugin-load-add=group_replication.so".to_owned(),
            format!("loose-group_replication_group_name={}", name.trim()),
            format!("loose-group_replication_local_address={}", seeds[i]),
            format!("loose-group_replication_group_seeds={}", seeds.join(",")),
            "loose-group_replication_start_on_boot=OFF".to_owned(),
            "loose-group_replication_recovery_get_public_key=ON".to_owned(),
            "loose-group_replication_recovery_use_ssl=ON".to_owned(),
            "loose-group_replication_message_cache_size=128M".to_owned(),
            "loose-group_replication_member_expel_timeout=0".to_owned(),
            "loose-group_replication_autorejoin_tries=0".to_owned(),
        ];
        (format!("grouped-{i}"), options.to_vec())
    };
    (start((0..n).map(options).collect()), ports)
}

fn start(all: Vec<(String, Vec<String>)>) -> Vec<Server> {
    let own =
        ["super-read-only=ON", "skip-replica-start=ON", "relay-log-recovery=OFF", "plugin-load-add=mysql_clone.so"];
    let options = |(name, more): (String, Vec<String>)| {
        let options = ServerOptions::mysql().named(name);
        let options = own.iter().fold(options, |options, option| options.with(*option));
        more.into_iter().fold(options, ServerOptions::with)
    };
    std::thread::scope(|scope| {
        let starts: Vec<_> = all.into_iter().map(|one| scope.spawn(move || Server::start(options(one)))).collect();
        starts.into_iter().map(|start| start.join().expect("it starts")).collect()
    })
}

/// A running reconciler.
pub struct Reconciler {
    daemon: Daemon,
    port: Port,
}

impl Reconciler {
    /// Starts one for these servers, called db-0, db-1, …; `more` are lines for `[cluster]`.
    pub fn start(servers: &[Server], more: &str) -> Self {
        let (daemon, port) = (Daemon::new("reconciler"), Port::take());
        let member =
            |(i, server): (usize, &Server)| format!("{{ name = \"db-{i}\", address = \"{}\" }}", server.addr());
        let members: Vec<String> = servers.iter().enumerate().map(member).collect();
        let text = format!(
            "log = \"info\"\nlisten = \"127.0.0.1:{}\"\n[cluster]\nrecord = \"record.json\"\nmembers = [{}]\n{more}\n\
             [account]\nuser = \"root\"\npassword = \"\"\n[replication]\nuser = \"repl\"\npassword = \"repl\"\n",
            port.number(),
            members.join(", ")
        );
        std::fs::write(daemon.dir().join("reconcile.toml"), text).expect("the folder is writable");
        let reconciler = Self { daemon, port };
        reconciler.run();
        reconciler
    }

    /// Starts it (again).
    pub fn run(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(["reconcile", "-c"]).arg(self.daemon.dir().join("reconcile.toml"));
        self.daemon.run(&command).unwrap_or_else(|e| panic!("{e}"));
    }

    /// `kill -9`.
    pub fn kill9(&self) {
        self.daemon.kill9();
    }

    /// Where its admin port is.
    pub fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Sum of its samples of that name.
    pub fn metric(&self, name: &str) -> f64 {
        metric(self.port.number(), name, &[])
    }

    /// What was written down.
    pub fn record(&self) -> Value {
        let bytes = std::fs::read(self.daemon.dir().join("record.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// The index of the recorded primary, if it is not about to change.
    pub fn primary(&self) -> Option<usize> {
        let record = self.record();
        let primary = record["primary"].as_str()?;
        (record["targetPrimary"] == primary).then(|| primary.trim_start_matches("db-").parse().ok()).flatten()
    }

    /// Its term.
    pub fn term(&self) -> u64 {
        self.record()["term"].as_u64().unwrap_or(0)
    }

    /// Asks for a switchover to that server.
    pub fn switch(&self, index: usize) {
        let file = self.daemon.dir().join("record.json.switchover");
        std::fs::write(file, format!("db-{index}")).expect("the folder is writable");
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.daemon.dir().join("out.log")).unwrap_or_default()).into_owned()
    }

    /// Waits until the log has `words` more than `before` times.
    pub fn wait_log(&self, words: &str) {
        until(&format!("the log says {words:?}"), SOON, || self.log().contains(words));
    }

    /// Waits until one server is writable and all others follow it and have what it has; the index of the primary.
    pub fn wait_ready(&self, servers: &[Server]) -> usize {
        self.wait_ready_while(servers, || {})
    }

    /// The same with a supervisor: servers that don't run are started again, as a clone wants it.
    pub fn wait_ready_supervised(&self, servers: &[Server]) -> usize {
        let supervise = || servers.iter().filter(|server| !server.running()).for_each(Server::start_again);
        self.wait_ready_while(servers, supervise)
    }

    fn wait_ready_while(&self, servers: &[Server], supervise: impl Fn()) -> usize {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut primary = 0;
            until("the cluster is ready", SOON, || {
                supervise();
                let ready = self.ready(servers);
                primary = ready.unwrap_or(primary);
                ready.is_some()
            });
            primary
        }));
        result.unwrap_or_else(|_| panic!("not ready: {}\n{}", self.record(), self.log()))
    }

    fn ready(&self, servers: &[Server]) -> Option<usize> {
        let primary = self.primary()?;
        let flags = "SELECT CONCAT(@@super_read_only, @@read_only, @@offline_mode)";
        let semisync = "SHOW STATUS LIKE 'Rpl_semi_sync_source_clients'";
        let source = &servers[primary];
        let executed = source.try_sql("SELECT @@gtid_executed").ok()?;
        let wanted = source.port().to_string();
        for (i, server) in servers.iter().enumerate() {
            let flags = server.running().then(|| server.try_sql(flags).ok()).flatten()?;
            if i == primary {
                (flags[0][0] == "000").then_some(())?;
                continue;
            }
            (flags[0][0] == "110").then_some(())?;
            let follows = "SELECT c.PORT, s.SERVICE_STATE FROM performance_schema.replication_connection_configuration c \
                 JOIN performance_schema.replication_connection_status s USING (CHANNEL_NAME) WHERE CHANNEL_NAME = ''";
            (server.try_sql(follows).ok()? == [[wanted.clone(), "ON".to_owned()]]).then_some(())?;
            let has = format!("SELECT GTID_SUBSET('{}', @@gtid_executed)", executed[0][0].replace('\n', ""));
            (server.try_sql(&has).ok()?[0][0] == "1").then_some(())?;
        }
        let clients = if servers.len() > 1 { source.try_sql(semisync).ok()?[0][1].clone() } else { "0".to_owned() };
        (clients == (servers.len() - 1).to_string()).then_some(primary)
    }
}
