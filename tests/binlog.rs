//! Replicas and mysqlbinlog read the primary's binary log through the proxy.
mod proxy;
mod testbed;

use proxy::{Options, Proxy, SOON};
use std::path::Path;
use std::process::Command;
use testbed::{ReplicaSet, Server, ServerOptions, SetOptions, Testbed, until};

fn start(tls: &str) -> (ReplicaSet, Proxy) {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::semisync() });
    set.source().sql("CREATE TABLE app.t(id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)");
    set.wait_synced();
    let options = Options::servers(set.servers().iter().map(Server::addr)).modes(&["split", "primary"]);
    // Not what a shutdown has to wait for: see below.
    let options = if tls.is_empty() { options } else { options.tls(tls) };
    let proxy = Proxy::start(options.proxy("shutdown_deadline_ms = 600000"));
    (set, proxy)
}

fn dumps(server: &Server) -> usize {
    server.sql("SELECT id FROM performance_schema.processlist WHERE command LIKE 'Binlog Dump%'").len()
}

fn status(server: &Server, name: &str) -> u64 {
    server.sql(&format!("SHOW GLOBAL STATUS LIKE '{name}'"))[0][1].parse().expect("a number")
}

/// Copies a binary log through `port` as mysqlbinlog does; its bytes.
fn copy(port: u16, file: &str, into: &Path) -> Vec<u8> {
    let bed = Testbed::get();
    let mut command = Command::new("timeout");
    command.arg("60").arg(bed.path("mysql", "MYSQLBINLOG")).arg("--no-defaults");
    let plugins = bed.path("mysql", "MYSQL_PLUGINS");
    if plugins.is_dir() {
        command.arg(format!("--plugin-dir={}", plugins.display()));
    }
    let out = command
        .args(["--read-from-remote-server", "--raw", "--host=127.0.0.1", "--user=repl", "--get-server-public-key"])
        .arg(format!("--port={port}"))
        .arg(format!("--result-file={}/", into.display()))
        .arg(file)
        .env("MYSQL_PWD", "repl")
        .output()
        .expect("mysqlbinlog runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    std::fs::read(into.join(file)).expect("the copy is there")
}

#[test]
fn mysqlbinlog_copies_byte_for_byte() {
    let (set, proxy) = start("");
    // an event of more than one frame, too
    set.source().sql("SET SESSION cte_max_recursion_depth=10000; INSERT INTO app.t(v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000) SELECT REPEAT('x', 100) FROM n");
    set.source().sql("INSERT INTO app.t(v) VALUES (REPEAT('y', 20000000))");
    set.wait_synced();
    let file = set.source().sql("SHOW BINARY LOG STATUS")[0][0].clone();
    // a finished file does not change under our hands
    set.source().sql("FLUSH BINARY LOGS");
    let original = std::fs::read(set.source().datadir().join(&file)).expect("the log is there");
    assert!(original.len() > 20_000_000);
    let before = dumps(set.source());
    for mode in ["primary", "split"] {
        let folder = Testbed::get().new_folder(mode);
        let copied = copy(proxy.port_of(mode), &file, &folder);
        assert!(copied == original, "{mode}: {} bytes copied of {}", copied.len(), original.len());
    }
    until("no session is left", SOON, || proxy.sessions() == 0);
    until("no dump is left", SOON, || dumps(set.source()) == before);
}

#[test]
fn a_replica_follows_through_the_proxy_semi_synchronously() {
    // a replica of 9.7 asks for TLS unless it is told not to
    let (set, proxy) = start("preferred");
    let replica = Server::start(
        ServerOptions::mysql()
            .named("through")
            .with("super-read-only=ON")
            .with("plugin-load-add=semisync_replica.so")
            .with("loose-rpl_semi_sync_replica_enabled=ON"),
    );
    let source = set.source();
    for mode in ["split", "primary"] {
        replica.sql(&format!(
            "STOP REPLICA; CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, SOURCE_USER='repl', \
             SOURCE_PASSWORD='repl', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1; START REPLICA",
            proxy.port_of(mode)
        ));
        let sees =
            || replica.sql("SELECT source_uuid, service_state FROM performance_schema.replication_connection_status");
        until("the replica is connected", SOON, || sees().iter().any(|row| row[1] == "ON" && !row[0].is_empty()));
        assert_eq!(sees()[0][0], source.uuid(), "{mode}: it must know who its source is");
        until("the source counts it", SOON, || status(source, "Rpl_semi_sync_source_clients") == 2);

        // Alone, it must be the one that acknowledges.
        set.server(1).sql("STOP REPLICA");
        let (yes, no) = (status(source, "Rpl_semi_sync_source_yes_tx"), status(source, "Rpl_semi_sync_source_no_tx"));
        for _ in 0..20 {
            source.sql("INSERT INTO app.t(v) VALUES ('seen')");
        }
        source.sql("INSERT INTO app.t(v) VALUES (REPEAT('z', 17000000))");
        assert_eq!(status(source, "Rpl_semi_sync_source_yes_tx"), yes + 21, "{mode}");
        assert_eq!(status(source, "Rpl_semi_sync_source_no_tx"), no, "{mode}");
        set.server(1).sql("START REPLICA");
        until("the other is back", SOON, || status(source, "Rpl_semi_sync_source_clients") == 2);
        let all = source.one("SELECT @@gtid_executed").replace('\n', "");
        assert_eq!(replica.one(&format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{all}', 30)")), "0", "{mode}");
    }
    let count = "SELECT COUNT(*), SUM(LENGTH(v)) FROM app.t";
    assert_eq!(replica.sql(count), source.sql(count));

    // A replica has no transaction to finish: the proxy does not wait for it.
    proxy.signal("TERM");
    assert_eq!(proxy.wait_exit(SOON).code(), Some(0));
    // a dump notices only when it has something to send
    until("the source has let it go", SOON, || {
        source.sql("INSERT INTO app.t(v) VALUES ('noticed')");
        dumps(source) == 1
    });
}
