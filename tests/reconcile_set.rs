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
