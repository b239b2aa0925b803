//! A source and its replicas: asynchronous or semi-synchronous MySQL, or MariaDB; all with GTIDs.
//!
//! Every server begins read-only, as an operator would have it, and only the source is made writable: a source that was
//! killed and comes back does not take writes until somebody says so.

use super::{Flavor, Port, Server, ServerOptions, until};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// What the set is to be.
#[derive(Debug, Clone)]
pub struct SetOptions {
    pub replicas: usize,
    /// MySQL only: a commit waits for one replica to have it.
    pub semisync: bool,
    /// After this the source gives up waiting and goes on asynchronously.
    pub semisync_timeout_ms: u64,
    pub server: ServerOptions,
}

impl SetOptions {
    /// A MySQL source with two asynchronous replicas.
    pub fn asynchronous() -> Self {
        SetOptions {
            replicas: 2,
            semisync: false,
            semisync_timeout_ms: 10_000,
            server: ServerOptions::mysql().named("async"),
        }
    }

    /// A MySQL source with two semi-synchronous replicas, waiting for one of them up to 10 s.
    pub fn semisync() -> Self {
        SetOptions { semisync: true, server: ServerOptions::mysql().named("semisync"), ..SetOptions::asynchronous() }
    }

    /// A MariaDB source with one replica.
    pub fn mariadb() -> Self {
        SetOptions { replicas: 1, server: ServerOptions::mariadb().named("mariadb-set"), ..SetOptions::asynchronous() }
    }
}

/// A running set; [`Server`]s are told apart by index, 0 being the first source.
#[derive(Debug)]
pub struct ReplicaSet {
    servers: Vec<Server>,
    source: AtomicUsize,
    semisync: bool,
}

impl ReplicaSet {
    /// Starts the servers at once, makes the first the source, and waits until all replicas follow it.
    pub fn start(options: SetOptions) -> ReplicaSet {
        let semisync = options.semisync;
        assert!(!semisync || options.server.flavor == Flavor::MySql, "semi-sync sets are MySQL's");
        let servers = (0..=options.replicas)
            .map(|i| Server::launch(server_options(&options, i), Port::take()))
            .collect::<Result<Vec<_>, _>>()
            .unwrap_or_else(|e| panic!("{e}"));
        for server in &servers {
            server.wait_ready().unwrap_or_else(|e| panic!("{e}"));
        }
        let set = ReplicaSet { servers, source: AtomicUsize::new(0), semisync };
        set.open(0);
        (1..set.servers.len()).for_each(|i| set.follow(i));
        set.wait_synced();
        set
    }

    /// All servers, in the order of their indices.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server of that index.
    pub fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// Index of the current source.
    pub fn source_index(&self) -> usize {
        self.source.load(Ordering::SeqCst)
    }

    /// The current source.
    pub fn source(&self) -> &Server {
        self.server(self.source_index())
    }

    /// All but the source.
    pub fn replicas(&self) -> impl Iterator<Item = &Server> {
        let source = self.source_index();
        let others = self.servers.iter().enumerate();
        others.filter(move |(i, _)| *i != source).map(|(_, s)| s)
    }

    /// Planned: the source turns read-only, the server `index` catches up and takes over, the others follow it.
    pub fn switchover(&self, index: usize) {
        let old = self.source_index();
        if old == index {
            return;
        }
        self.close(old);
        self.catch_up(index);
        self.promote(index);
        self.follow(old);
    }

    /// Unplanned: the server `index` becomes the source as it is; replicas that run follow it, the old source is left alone.
    pub fn promote(&self, index: usize) {
        let old = self.source.swap(index, Ordering::SeqCst);
        self.server(index).sql(match self.flavor() {
            Flavor::MySql => "STOP REPLICA; RESET REPLICA ALL",
            Flavor::MariaDb => "STOP SLAVE; RESET SLAVE ALL",
        });
        self.open(index);
        for (i, server) in self.servers.iter().enumerate() {
            if i != index && i != old && server.running() && !server.frozen() {
                self.follow(i);
            }
        }
    }

    /// Makes the server `index` a replica of the source, starting it first if it does not run, and waits until it has all.
    pub fn rejoin(&self, index: usize) {
        let server = self.server(index);
        if !server.running() {
            server.start_again();
        }
        self.close(index);
        self.follow(index);
        self.catch_up(index);
    }

    /// Waits until every replica that runs has all that the source has.
    pub fn wait_synced(&self) {
        let source = self.source_index();
        for (i, server) in self.servers.iter().enumerate() {
            if i != source && server.running() && !server.frozen() {
                self.catch_up(i);
            }
        }
    }

    fn flavor(&self) -> Flavor {
        self.servers[0].flavor()
    }

    /// Makes a server writable.
    fn open(&self, index: usize) {
        let server = self.server(index);
        match self.flavor() {
            Flavor::MySql => {
                if self.semisync {
                    server.sql("SET GLOBAL rpl_semi_sync_source_enabled=ON");
                }
                server.sql("SET GLOBAL super_read_only=OFF; SET GLOBAL read_only=OFF");
            }
            Flavor::MariaDb => drop(server.sql("SET GLOBAL read_only=OFF")),
        }
    }

    /// Makes a server read-only.
    fn close(&self, index: usize) {
        let server = self.server(index);
        match self.flavor() {
            Flavor::MySql => {
                server.sql("SET GLOBAL super_read_only=ON");
                if self.semisync {
                    server.sql("SET GLOBAL rpl_semi_sync_source_enabled=OFF");
                }
            }
            Flavor::MariaDb => drop(server.sql("SET GLOBAL read_only=ON")),
        }
    }

    /// Makes a server replicate from the source.
    fn follow(&self, index: usize) {
        let (server, port) = (self.server(index), self.source().port());
        match self.flavor() {
            Flavor::MySql => drop(server.sql(&format!(
                "STOP REPLICA; CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, \
                 SOURCE_USER='repl', SOURCE_PASSWORD='repl', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, \
                 SOURCE_CONNECT_RETRY=1; START REPLICA"
            ))),
            Flavor::MariaDb => {
                // the current position counts what a former source wrote itself as seen
                server.sql("STOP SLAVE; SET GLOBAL gtid_slave_pos=@@gtid_current_pos");
                server.sql(&format!(
                    "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', \
                     MASTER_PASSWORD='repl', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1; START SLAVE"
                ));
            }
        }
    }

    /// Waits until a replica has all that the source has now.
    fn catch_up(&self, index: usize) {
        let (have, wait) = match self.flavor() {
            Flavor::MySql => ("@@gtid_executed", "WAIT_FOR_EXECUTED_GTID_SET"),
            Flavor::MariaDb => ("@@gtid_binlog_pos", "MASTER_GTID_WAIT"),
        };
        let all = self.source().one(&format!("SELECT {have}")).replace('\n', "");
        let server = self.server(index);
        let answer = server.one(&format!("SELECT {wait}('{all}', {})", SOON.as_secs()));
        assert_eq!(answer, "0", "{} has not caught up with {all}: {}", server.name(), server.errors());
        if self.semisync {
            until("the source counts its semi-sync replicas", SOON, || {
                let status = "SHOW STATUS LIKE 'Rpl_semi_sync_source_clients'";
                self.source().sql(status)[0][1] != "0"
            });
        }
    }
}

fn server_options(set: &SetOptions, index: usize) -> ServerOptions {
    let own = set.server.options.clone();
    let mut options = set.server.clone();
    options.name = format!("{}-{index}", set.server.name);
    options.options = match set.server.flavor {
        Flavor::MySql => vec!["super-read-only=ON".to_owned()],
        Flavor::MariaDb => vec!["read-only=ON".to_owned()],
    };
    if set.semisync {
        options.options.extend([
            "plugin-load-add=semisync_source.so".to_owned(),
            "plugin-load-add=semisync_replica.so".to_owned(),
            "loose-rpl_semi_sync_replica_enabled=ON".to_owned(),
            format!("loose-rpl_semi_sync_source_timeout={}", set.semisync_timeout_ms),
        ]);
    }
    options.options.extend(own);
    options
}
