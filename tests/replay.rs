//! Transactions that lose their primary: run again on the new one where nobody can tell the difference, else 1213.
mod proxy;
mod testbed;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use proxy::{Client, EXACTLY_ONCE, Fault, Options, Proxy, SOON};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use testbed::{Group, GroupOptions, ReplicaSet, Server, SetOptions, until};

const CLIENTS: usize = 16;
const TABLES: &str = "CREATE TABLE app.t(id INT PRIMARY KEY AUTO_INCREMENT, v INT); \
     CREATE TABLE app.child(t INT PRIMARY KEY); INSERT INTO app.t VALUES (1, 10), (2, 20)";

fn start(listener: &str) -> (ReplicaSet, Proxy) {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    set.server(0).sql(&format!("{EXACTLY_ONCE}; {TABLES}"));
    set.wait_synced();
    let proxy = Proxy::start(Options::servers(set.servers().iter().map(Server::addr)).listener(listener));
    (set, proxy)
}

fn all(client: &mut Client, statements: &[&str]) {
    for sql in statements {
        client.query(sql).unwrap_or_else(|fault| panic!("{sql}: {fault:?}"));
    }
}

fn replays(proxy: &Proxy, result: &str) -> u64 {
    proxy.metric("holdfast_replays_total", &[&format!("result=\"{result}\"")]) as u64
}

fn id(server: &Server) -> String {
    server.port().to_string()
}

/// The other server becomes the primary, and the proxy knows it.
fn switch<'s>(set: &'s ReplicaSet, proxy: &Proxy) -> &'s Server {
    set.switchover(1 - set.source_index());
    let primary = serde_json::json!(set.source().addr().to_string());
    until("the proxy knows the new primary", SOON, || {
        let (_, body) = proxy.http("/topology").expect("an answer");
        serde_json::from_str::<serde_json::Value>(&body).is_ok_and(|t| t["clusters"][0]["primary"] == primary)
    });
    set.source()
}

#[test]
fn a_transaction_goes_on_on_another_primary() {
    let (set, proxy) = start("");
    let mut client = proxy.client();
    // Between two statements.
    all(
        &mut client,
        &["INSERT INTO app.t(v) VALUES (5)", "BEGIN", "INSERT INTO app.child(t) VALUES (LAST_INSERT_ID())"],
    );
    all(&mut client, &["UPDATE app.t SET v = v + 1 WHERE id = 1"]);
    assert_eq!(client.one("SELECT v FROM app.t WHERE id = 1"), "11");
    let new = switch(&set, &proxy);
    assert_eq!(client.one("SELECT v FROM app.t WHERE id = 1"), "11", "its own write is still there");
    assert_eq!(new.one("SELECT v FROM app.t WHERE id = 1"), "10", "and not committed");
    all(&mut client, &["COMMIT"]);
    assert_eq!(new.one("SELECT v FROM app.t WHERE id = 1"), "11", "once");
    assert_eq!(new.one("SELECT t FROM app.child"), "3", "the insert id of before the transaction");
    assert_eq!((replays(&proxy, "same"), replays(&proxy, "different")), (1, 0));
    all(&mut client, &["INSERT INTO app.t(v) VALUES (6)"]);
    switch(&set, &proxy);
    until("it is on the new primary", SOON, || client.one("SELECT @@port FOR UPDATE") == id(set.source()));
    assert_eq!(client.one("SELECT LAST_INSERT_ID()"), "4", "also outside of a transaction");

    // In the middle of a statement, with autocommit off, when the primary dies.
    all(&mut client, &["SET autocommit=0", "UPDATE app.t SET v = v + 1 WHERE id = 2"]);
    client.send_query("UPDATE app.t SET v = v + 100 WHERE id = 2 AND SLEEP(2) = 0");
    let running = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(2)%' AND user='app'";
    until("it runs", SOON, || set.source().one(running) == "1");
    set.wait_synced();
    let (old, new) = (set.source_index(), 1 - set.source_index());
    set.server(old).kill9();
    set.promote(new);
    assert_eq!(client.read().expect("run again")[..2], [0, 1], "one row");
    all(&mut client, &["COMMIT", "SET autocommit=1"]);
    assert_eq!(set.server(new).one("SELECT v FROM app.t WHERE id = 2"), "121");
    assert_eq!((replays(&proxy, "same"), replays(&proxy, "different")), (2, 0));
}

#[test]
fn a_client_that_would_see_another_answer_is_told_that_its_transaction_is_lost() {
    let (set, proxy) = start("");
    let mut client = proxy.client();
    let lost = |client: &mut Client, sql: &str| -> Fault { client.query(sql).expect_err("the transaction is lost") };
    // Somebody else has changed what it read.
    all(&mut client, &["BEGIN", "SELECT v FROM app.t WHERE id = 1"]);
    set.source().sql("UPDATE app.t SET v = 99 WHERE id = 1");
    let new = switch(&set, &proxy);
    assert_eq!(lost(&mut client, "UPDATE app.t SET v = 1 WHERE id = 2").state(), (1213, "40001"));
    assert_eq!(client.one("SELECT v FROM app.t WHERE id = 2"), "20", "the connection is usable");
    assert_eq!((replays(&proxy, "same"), replays(&proxy, "different")), (0, 1));

    // Somebody has killed it: not to see it run again.
    all(&mut client, &["BEGIN", "UPDATE app.t SET v = 77 WHERE id = 1"]);
    for row in new.sql("SELECT id FROM information_schema.processlist WHERE user='app'") {
        let _ = new.try_sql(&format!("KILL {}", row[0]));
    }
    assert_eq!(lost(&mut client, "SELECT 1").state(), (1213, "40001"));

    // An answer that is never the same, and what can't be repeated.
    for spoiler in ["SELECT CONNECTION_ID(), UUID()", "SET @@session.max_error_count=10", "USE app"] {
        all(&mut client, &["BEGIN", "UPDATE app.t SET v = 77 WHERE id = 1", spoiler]);
        let new = switch(&set, &proxy);
        assert_eq!(lost(&mut client, "COMMIT").state(), (1213, "40001"), "{spoiler}");
        assert_eq!(new.one("SELECT v FROM app.t WHERE id = 1"), "99", "{spoiler}");
    }
    // What SET TRANSACTION said of this transaction is not said again.
    all(
        &mut client,
        &["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN", "UPDATE app.t SET v = 77 WHERE id = 1"],
    );
    switch(&set, &proxy);
    assert_eq!(lost(&mut client, "SELECT 1").state(), (1213, "40001"));
    assert_eq!(replays(&proxy, "same"), 0);
}

#[test]
fn the_limit_and_the_switch() {
    for (listener, on) in [("transaction_replay_bytes = 2000", true), ("transaction_replay_bytes = 0", false)] {
        let (set, proxy) = start(listener);
        let mut client = proxy.client();
        let long = format!("UPDATE app.t SET v = 5 WHERE id = 1 AND '{}' <> ''", "x".repeat(2000));
        if on {
            all(&mut client, &["BEGIN", "UPDATE app.t SET v = 5 WHERE id = 2"]);
            switch(&set, &proxy);
            all(&mut client, &["COMMIT"]);
            assert_eq!(replays(&proxy, "same"), 1, "small enough");
        }
        all(&mut client, &["BEGIN", &long]);
        switch(&set, &proxy);
        assert_eq!(client.query("SELECT 1").expect_err("too long").state(), (1213, "40001"));
        assert_eq!(client.one("SELECT v FROM app.t WHERE id = 1"), "10");
    }
}

/// Prepared statements in a transaction, their types told only once, through a group's failover, and the COMMIT itself.
#[test]
fn prepared_statements_and_a_commit_in_flight_survive_a_failover() {
    let group = Group::start(GroupOptions::default());
    group.primary().sql(&format!("{EXACTLY_ONCE}; {TABLES}; CREATE TABLE app.w(id INT PRIMARY KEY, v BIGINT)"));
    let options = Options::group(group.members().iter().map(Server::addr)).listener("exactly_once = true");
    let proxy = Proxy::start(options);
    proxy.wait_witnesses(3);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let more = |n| {
        let before = done.load(Ordering::Relaxed);
        until("the clients go on", SOON, || done.load(Ordering::Relaxed) >= before + n);
    };
    let (committed, lost) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let all = (0..CLIENTS).map(|number| transactions(proxy.port(), number, &stop, &done));
            runtime.block_on(futures_util::future::join_all(all))
        });
        more(CLIENTS as u64);
        let old = group.primary_index().expect("a primary");
        group.member(old).kill9();
        group.wait_new_primary(old);
        more(CLIENTS as u64 * 4);
        stop.store(true, Ordering::Relaxed);
        let told = clients.join().expect("no client panics");
        let committed: Vec<usize> = told.iter().flat_map(|(ids, _)| ids.iter().copied()).collect();
        (committed, told.iter().map(|(_, lost)| lost).sum::<usize>())
    });
    let new = group.members().iter().find(|m| m.try_sql("SELECT 1").is_ok()).expect("a member that lives");
    let there: usize = new.one("SELECT COUNT(*) FROM app.w").parse().expect("a number");
    println!(
        "{} transactions committed, {lost} lost (1213); run again: {} the same, {} different, {} failed; there: {there}",
        committed.len(),
        replays(&proxy, "same"),
        replays(&proxy, "different"),
        replays(&proxy, "failed"),
    );
    assert_eq!(there, committed.len() * 2, "two rows of each, and of no other");
    assert!(replays(&proxy, "same") >= 1);
}

/// Ids of committed transactions, and how many ended in 1213.
async fn transactions(port: u16, number: usize, stop: &AtomicBool, progress: &AtomicU64) -> (Vec<usize>, usize) {
    let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port).user(Some("app")).pass(Some("app"));
    let mut connection = Conn::new(options.prefer_socket(false)).await.expect("a login");
    let (mut done, mut lost) = (Vec::new(), 0);
    let insert = connection.prep("INSERT INTO app.w VALUES (?, ?)").await.expect("prepared");
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = number * 1_000_000 + n * 2;
        let run = async {
            connection.query_drop("BEGIN").await?;
            connection.exec_drop(&insert, (id, 1)).await?;
            let seen: Option<i64> = connection.exec_first("SELECT v FROM app.w WHERE id = ?", (id,)).await?;
            assert_eq!(seen, Some(1));
            connection.exec_drop(&insert, (id + 1, 2)).await?;
            connection.query_drop("COMMIT").await
        };
        match run.await {
            Ok(()) => {
                done.push(id);
                progress.fetch_add(1, Ordering::Relaxed);
            }
            Err(mysql_async::Error::Server(error)) if error.code == 1213 => lost += 1,
            Err(error) => panic!("{number}/{n}: {error}"),
        }
    }
    let _ = connection.disconnect().await;
    (done, lost)
}
