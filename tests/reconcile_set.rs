//! The reconciler over semi-sync sets of real servers, without Kubernetes: each row of its table that real servers can be
//! brought to, and a proxy with clients in front while primaries die.

mod proxy;
mod reconciler;
mod testbed;

use proxy::{Load, Options, Outcome, Proxy, TABLE};
use reconciler::{Reconciler, SOON, servers};
use testbed::{Server, until};

fn proxy_of(servers: &[Server]) -> Proxy {
    Proxy::start(Options::servers(servers.iter().map(Server::addr)))
}

/// Every acknowledged write is on the server.
fn nothing_lost(outcome: &Outcome, server: &Server) {
    for row in server.sql("SELECT client, COUNT(*), MAX(n) FROM app.`load` GROUP BY client ORDER BY client") {
        let (client, there): (usize, u64) = (row[0].parse().expect("a number"), row[1].parse().expect("a number"));
        assert!(
            there >= outcome.writes[client],
            "client {client}: {} acknowledged, {there} there",
            outcome.writes[client]
        );
    }
    let there: u64 = server.one("SELECT COUNT(*) FROM app.`load`").parse().expect("a number");
    let unknown = outcome.troubles.iter().filter(|t| t.write).count() as u64;
    let acknowledged: u64 = outcome.writes.iter().sum();
    assert!((acknowledged..=acknowledged + unknown).contains(&there), "{acknowledged} and {unknown}? but {there}");
}

/// The one writable server, if there is exactly one.
fn writable(servers: &[Server]) -> Vec<usize> {
    let is = |server: &Server| server.running() && server.one("SELECT @@read_only") == "0";
    (0..servers.len()).filter(|i| is(&servers[*i])).collect()
}

#[test]
fn new_servers_become_a_set() {
    let servers = servers(3, "new", &[]);
    let reconciler = Reconciler::start(&servers, "");
    assert_eq!(reconciler.wait_ready(&servers), 0);
    assert_eq!(reconciler.term(), 1);
    let settings = "SELECT @@rpl_semi_sync_source_enabled, @@rpl_semi_sync_source_wait_for_replica_count, \
         @@rpl_semi_sync_source_timeout";
    assert_eq!(servers[0].sql(settings), [["1", "1", "1000000000000000000"]]);
    servers[0].sql("CREATE TABLE app.t(n INT PRIMARY KEY); INSERT INTO app.t VALUES (1)");
    reconciler.wait_ready(&servers);

    // Killed and started again it goes on where it was, and changes nothing.
    reconciler.kill9();
    reconciler.run();
    until("it looks again", SOON, || reconciler.log().matches("the cluster").count() >= 2);
    assert_eq!((reconciler.wait_ready(&servers), reconciler.term()), (0, 1));

    // Row 5 and 6: a replica that somebody opens is fenced, one that is stopped or led astray is pointed right.
    servers[1].sql("SET GLOBAL super_read_only=OFF; SET GLOBAL read_only=OFF");
    until("it is fenced", SOON, || writable(&servers) == [0]);
    servers[1].sql("STOP REPLICA");
    servers[2].sql("STOP REPLICA; RESET REPLICA ALL");
    reconciler.wait_ready(&servers);

    // Row 4: a primary that somebody closes, or that is started again at once, is opened again.
    servers[0].sql("SET GLOBAL super_read_only=ON");
    reconciler.wait_ready(&servers);
    servers[0].kill9();
    servers[0].start_again();
    let primary = reconciler.wait_ready(&servers);
    assert_eq!(writable(&servers), [primary]);
}

/// Waits until another than `old` is the primary and all the others that run follow it.
fn wait_other(reconciler: &Reconciler, servers: &[Server], old: usize) -> usize {
    let mut new = old;
    until("another one takes over", SOON, || {
        new = reconciler.primary().unwrap_or(old);
        new != old && servers[new].running() && servers[new].one("SELECT @@read_only") == "0"
    });
    new
}

#[test]
fn killed_primaries_lose_no_acknowledged_write() {
    let servers = servers(3, "killed", &[]);
    let reconciler = Reconciler::start(&servers, "auto_reclone = true");
    let mut primary = reconciler.wait_ready(&servers);
    let proxy = proxy_of(&servers);
    proxy.client().query(TABLE).expect("a table");
    let load = Load::start(proxy.port(), 8);
    for round in 0..5 {
        load.wait_more(20);
        servers[primary].kill9();
        let new = wait_other(&reconciler, &servers, primary);
        load.wait_more(5);
        // Back as it booted, with commits perhaps that nobody has ever heard of: pointed right, or cloned.
        bring_back(&reconciler, &servers, primary);
        let terms = reconciler.term();
        assert!(terms >= round + 2, "term {terms} after {round} failovers");
        primary = reconciler.wait_ready(&servers);
        assert_eq!(primary, new);
    }
    let outcome = load.stop();
    println!("5 x kill -9: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    reconciler.wait_ready(&servers);
    servers.iter().for_each(|server| nothing_lost(&outcome, server));
}

/// Starts a server that was killed, and again as often as a clone sends it down, until all follow.
fn bring_back(reconciler: &Reconciler, servers: &[Server], index: usize) {
    servers[index].start_again();
    let uuid = servers[index].datadir().join("auto.cnf");
    until("it follows", SOON, || {
        if !servers[index].running() {
            let _ = std::fs::remove_file(&uuid);
            servers[index].start_again();
        }
        let primary = reconciler.primary().expect("a primary");
        let follows =
            "SELECT COUNT(*) FROM performance_schema.replication_connection_status WHERE SERVICE_STATE = 'ON'";
        primary != index && servers[index].try_sql(follows).is_ok_and(|rows| rows[0][0] == "1")
    });
}

#[test]
fn a_frozen_primary_is_replaced_and_fenced_when_it_resumes() {
    let servers = servers(3, "frozen", &[]);
    let reconciler = Reconciler::start(&servers, "auto_reclone = true");
    let primary = reconciler.wait_ready(&servers);
    let proxy = proxy_of(&servers);
    proxy.client().query(TABLE).expect("a table");
    let load = Load::start(proxy.port(), 4);
    load.wait_more(10);
    servers[primary].freeze();
    let new = wait_other(&reconciler, &servers, primary);
    load.wait_more(10);
    servers[primary].thaw();
    // It still calls itself writable, and has clients whose commits wait: none of them may be told that they are committed.
    until("it is fenced", SOON, || servers[primary].running() && writable(&servers) == [new]);
    load.wait_more(10);
    bring_back_if_down(&reconciler, &servers, primary);
    let outcome = load.stop();
    println!("SIGSTOP, SIGCONT: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    assert_eq!(reconciler.wait_ready(&servers), new);
    servers.iter().for_each(|server| nothing_lost(&outcome, server));
}

fn bring_back_if_down(reconciler: &Reconciler, servers: &[Server], index: usize) {
    let uuid = servers[index].datadir().join("auto.cnf");
    until("it follows", SOON, || {
        if !servers[index].running() {
            let _ = std::fs::remove_file(&uuid);
            servers[index].start_again();
        }
        let _ = reconciler;
        let follows =
            "SELECT COUNT(*) FROM performance_schema.replication_connection_status WHERE SERVICE_STATE = 'ON'";
        servers[index].try_sql(follows).is_ok_and(|rows| rows[0][0] == "1")
    });
}

#[test]
fn switchovers_under_load_are_not_noticed() {
    let servers = servers(3, "switched", &[]);
    let reconciler = Reconciler::start(&servers, "");
    let mut primary = reconciler.wait_ready(&servers);
    let proxy = proxy_of(&servers);
    proxy.client().query(TABLE).expect("a table");
    let load = Load::start(proxy.port(), 8);
    for _ in 0..6 {
        load.wait_more(10);
        let next = (primary + 1) % 3;
        reconciler.switch(next);
        until("it takes over", SOON, || reconciler.primary() == Some(next) && writable(&servers) == [next]);
        primary = next;
    }
    load.wait_more(10);
    let outcome = load.stop();
    println!("6 switchovers: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    assert_eq!(outcome.troubles, [], "no client notices a switchover");
    assert_eq!(reconciler.wait_ready(&servers), primary);
    servers.iter().for_each(|server| nothing_lost(&outcome, server));
}

#[test]
fn too_few_to_prove_it_and_all_down() {
    let servers = servers(3, "few", &[]);
    let reconciler = Reconciler::start(&servers, "");
    let primary = reconciler.wait_ready(&servers);
    servers[primary].sql("CREATE TABLE app.t(n INT PRIMARY KEY); INSERT INTO app.t VALUES (1)");
    reconciler.wait_ready(&servers);
    let [one, other] = [(primary + 1) % 3, (primary + 2) % 3];

    // One replica alone proves nothing: nobody is opened, and the reason is said.
    servers[other].kill9();
    servers[primary].kill9();
    reconciler.wait_log("1 more of the other members must answer");
    assert!(writable(&servers).is_empty());
    // Both together do.
    servers[other].start_again();
    let new = wait_other(&reconciler, &servers, primary);
    assert!(new == one || new == other);
    servers[primary].start_again();
    reconciler.wait_ready(&servers);

    // All down, and back in whatever order.
    servers.iter().for_each(|server| server.kill9());
    reconciler.wait_log("no member answers");
    servers.iter().for_each(Server::start_again);
    let primary = reconciler.wait_ready(&servers);
    assert_eq!(servers[primary].one("SELECT COUNT(*) FROM app.t"), "1");
}

#[test]
fn errant_and_empty_servers() {
    let all = servers(3, "errant", &[]);
    let reconciler = Reconciler::start(&all, "");
    let primary = reconciler.wait_ready(&all);
    all[primary].sql("CREATE TABLE app.t(n INT PRIMARY KEY); INSERT INTO app.t VALUES (1)");
    reconciler.wait_ready(&all);
    let errant = (primary + 1) % 3;

    // A write of its own: it stops receiving and is left to a person.
    all[errant].sql("SET GLOBAL super_read_only=OFF; INSERT INTO app.t VALUES (100)");
    reconciler.wait_log("it has transactions that the primary never had");
    let off = "SELECT COUNT(*) FROM performance_schema.replication_connection_status WHERE SERVICE_STATE <> 'OFF'";
    until("it receives nothing", SOON, || all[errant].one(off) == "0");
    until("it is closed", SOON, || all[errant].one("SELECT @@super_read_only") == "1");
    assert_eq!(all[primary].one("SELECT COUNT(*) FROM app.t"), "1");

    // With autoReclone its data go.
    drop(reconciler);
    let reconciler = Reconciler::start(&all, "auto_reclone = true");
    bring_back_if_down(&reconciler, &all, errant);
    reconciler.wait_ready(&all);
    assert_eq!(all[errant].one("SELECT COUNT(*) FROM app.t"), "1");

    // An empty server, which the primary could not bring up to date any more, either.
    all[primary]
        .sql("INSERT INTO app.t VALUES (2); FLUSH BINARY LOGS; PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY");
    all[errant].sql("SET GLOBAL super_read_only=OFF; STOP REPLICA; RESET REPLICA ALL; RESET BINARY LOGS AND GTIDS");
    bring_back_if_down(&reconciler, &all, errant);
    reconciler.wait_ready(&all);
    assert_eq!(all[errant].one("SELECT COUNT(*) FROM app.t"), "2");
}
