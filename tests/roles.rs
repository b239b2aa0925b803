//! Who does what: reads on followers, writes on the proven primary and nowhere else, also while the primary changes.
mod proxy;
mod testbed;

use proxy::{Client, Load, Options, Outcome, Proxy, SOON, TABLE, Trouble};
use std::collections::HashSet;
use testbed::{Group, GroupOptions, ReplicaSet, Rows, Server, SetOptions, until};

const CLIENTS: usize = 16;
/// A function that writes, in a view, where no proxy sees it.
const HIDDEN: &str = "CREATE TABLE app.hidden(n INT PRIMARY KEY AUTO_INCREMENT, a BIGINT);
    CREATE FUNCTION app.f() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO app.hidden(a) VALUES (@@server_id); RETURN 1; END;
    CREATE SQL SECURITY INVOKER VIEW app.looks_harmless AS SELECT app.f() AS a";

/// Moves a group's primary as operators do, with a limit for what is open: until then what begins is refused with 4094.
fn switch_with_a_limit(group: &Group, (old, new): (usize, usize)) {
    let (old, uuid) = (group.member(old), group.member(new).uuid());
    let mut holder = Client::login(old.port(), "app", "app").expect("a login");
    holder.query("BEGIN").expect("a transaction");
    holder.query("INSERT INTO app.hidden(a) VALUES (0)").expect("which keeps the group waiting");
    let refused = "SELECT SUM(sum_error_raised) FROM performance_schema.events_errors_summary_global_by_error \
         WHERE error_number=4094";
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| old.sql(&format!("SELECT group_replication_set_as_primary('{uuid}', 3)")));
        until("statements are refused", SOON, || old.one(refused) != "0");
        moving.join().expect("it has moved");
    });
}

/// SQL with a compound statement: the command line client would end it at its first semicolon.
fn setup(client: &mut Client, sql: &str) {
    for statement in sql.split(";\n") {
        client.query(statement).unwrap_or_else(|e| panic!("{e:?} in {statement}"));
    }
}

fn id(server: &Server) -> String {
    server.port().to_string()
}

fn read_servers(proxy: &Proxy, sessions: usize) -> HashSet<String> {
    let mut clients: Vec<Client> = (0..sessions).map(|_| proxy.client()).collect();
    clients.iter_mut().map(|client| client.one("SELECT @@server_id")).collect()
}

fn all_ids<'s>(servers: impl IntoIterator<Item = &'s Server>) -> HashSet<String> {
    servers.into_iter().map(id).collect()
}

/// Statements of that kind that `app` has tried on the server (its own `Com_` counters also count what it replicates).
fn tried(server: &Server, kind: &str) -> u64 {
    let table = "performance_schema.events_statements_summary_by_user_by_event_name";
    let count = server.one(&format!(
        "SELECT COALESCE(SUM(count_star), 0) FROM {table} WHERE user='app' AND event_name='statement/sql/{kind}'"
    ));
    count.parse().expect("a number")
}

/// All acknowledged writes are there, none twice (the key sees to that), and each ran on one of `servers`.
fn nothing_lost(outcome: &Outcome, server: &Server, servers: &HashSet<String>) {
    let rows: Rows = server.sql("SELECT client, COUNT(*) FROM app.`load` GROUP BY client ORDER BY client");
    let unknown: u64 = outcome.troubles.iter().filter(|t| t.write && t.code == 1105).count() as u64;
    let there: u64 = rows.iter().map(|row| row[1].parse::<u64>().expect("a number")).sum();
    let acknowledged: u64 = outcome.writes.iter().sum();
    assert!((acknowledged..=acknowledged + unknown).contains(&there), "{acknowledged} and {unknown}? but {there}");
    for (client, row) in rows.iter().enumerate() {
        let there: u64 = row[1].parse().expect("a number");
        assert!(there >= outcome.writes[client], "client {client}: {} writes, {there} there", outcome.writes[client]);
    }
    let ran: HashSet<String> =
        server.sql("SELECT DISTINCT server FROM app.`load`").into_iter().map(|mut row| row.swap_remove(0)).collect();
    assert_eq!(&ran, servers);
}

#[test]
fn a_group_that_switches_over_and_loses_its_primary() {
    let group = Group::start(GroupOptions::default());
    let proxy = Proxy::start(Options::group([group.member(2).addr()]));
    let mut client = proxy.client();
    setup(&mut client, HIDDEN);
    client.query(TABLE).expect("a table");

    // Reads on both followers, writes on the primary.
    let followers = all_ids(group.secondaries());
    until("reads are seen on both followers", SOON, || read_servers(&proxy, 6) == followers);
    let before: Vec<u64> = group.secondaries().iter().map(|s| tried(s, "insert")).collect();
    let load = Load::start(proxy.port(), CLIENTS);
    load.wait_more(5);
    let after: Vec<u64> = group.secondaries().iter().map(|s| tried(s, "insert")).collect();
    assert_eq!(before, after, "no write was tried on a follower");
    assert!(proxy.metric("holdfast_queries_total", &["class=\"read\"", "follower"]) > 0.0);

    // What only looks like a read is refused by the follower and run on the primary.
    for _ in 0..3 {
        assert_eq!(client.one("SELECT a FROM app.looks_harmless"), "1");
    }
    assert_eq!(group.member(0).sql("SELECT DISTINCT a FROM app.hidden"), [[id(group.member(0))]]);
    assert_eq!(group.member(0).one("SELECT COUNT(*) FROM app.hidden"), "3");
    assert!(proxy.metric("holdfast_reruns_total", &["follower_refused"]) >= 3.0);

    // Planned: nobody notices.
    switch_with_a_limit(&group, (0, 2));
    load.wait_more(5);
    group.set_as_primary(1);
    load.wait_more(5);
    let outcome = load.stop();
    println!("switchover of a group: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    assert_eq!(outcome.troubles, [], "no client notices a switchover");
    nothing_lost(&outcome, group.member(1), &all_ids(group.members()));
    group.member(1).sql("TRUNCATE app.`load`");

    // Unplanned: only what was in flight fails, and says that it does not know.
    let load = Load::start(proxy.port(), CLIENTS);
    group.member(1).kill9();
    let new = group.wait_new_primary(1);
    load.wait_more(5);
    let outcome = load.stop();
    println!("kill -9 of a group's primary: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    let only_unknown = |t: &Trouble| t.write && t.code == 1105 && t.text.starts_with("08007");
    assert!(outcome.troubles.iter().all(only_unknown), "{:?}", outcome.troubles);
    for number in 0..CLIENTS as u64 {
        let of = outcome.troubles.iter().filter(|t| t.client == number).count();
        assert!(of <= 1, "client {number} had more than one statement in flight");
    }
    nothing_lost(&outcome, group.member(new), &all_ids([group.member(1), group.member(new)]));
    assert_eq!(client.one("SELECT 1"), "1");
}

#[test]
fn an_async_set_switched_by_hand_and_two_that_are_writable() {
    let set = ReplicaSet::start(SetOptions::asynchronous());
    let proxy = Proxy::start(Options::servers(set.servers().iter().map(Server::addr)));
    let mut client = proxy.client();
    client.query(TABLE).expect("a table");
    set.wait_synced();
    until("reads are seen on both followers", SOON, || read_servers(&proxy, 6) == all_ids(set.replicas()));

    let load = Load::start(proxy.port(), CLIENTS);
    set.switchover(1);
    load.wait_more(5);
    let outcome = load.stop();
    println!("switchover of an asynchronous set: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    assert_eq!(outcome.troubles, [], "no client notices a switchover");
    nothing_lost(&outcome, set.server(1), &all_ids([set.server(0), set.server(1)]));
    let followers = all_ids(set.replicas());
    until("reads go to the new followers", SOON, || read_servers(&proxy, 6) == followers);

    // The old primary stands alone and can be written: nobody can tell whose writes count, so nobody gets any.
    client.query("CREATE TABLE app.w(id INT PRIMARY KEY, server BIGINT)").expect("a table");
    set.wait_synced();
    let detached = "STOP REPLICA; RESET REPLICA ALL; SET GLOBAL super_read_only=OFF; SET GLOBAL read_only=OFF";
    let before: Vec<u64> = set.servers().iter().map(|s| tried(s, "insert")).collect();
    set.server(0).sql(detached);
    until("there is no proven primary", SOON, || proxy.http("/readyz").is_ok_and(|r| r.0 == 503));
    let (_, body) = proxy.http("/readyz").expect("an answer");
    println!("two writable servers: {}", body.replace('\n', " "));
    client.send_query("INSERT INTO app.w VALUES (100, @@server_id)");
    until("the write is held", SOON, || proxy.metric("holdfast_holding", &[]) == 1.0);
    for server in set.servers() {
        assert_eq!(server.one("SELECT COUNT(*) FROM app.w WHERE id=100"), "0");
    }
    set.server(0).sql("SET GLOBAL super_read_only=ON");
    client.read().expect("the write goes on");
    assert_eq!(set.server(1).sql("SELECT server FROM app.w WHERE id=100"), [[id(set.server(1))]]);
    let after: Vec<u64> = set.servers().iter().map(|s| tried(s, "insert")).collect();
    assert_eq!(after, [before[0], before[1] + 1, before[2]], "no write was tried anywhere else");
    assert_eq!(before[2], 0, "the third has never been the primary");
}

#[test]
fn a_session_that_reads_from_the_new_primary_is_there_already() {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let proxy = Proxy::start(Options::servers(set.servers().iter().map(Server::addr)));
    let mut client = proxy.client();
    client.query("CREATE TABLE app.t(a INT PRIMARY KEY)").expect("a table");
    set.wait_synced();
    until("it reads from the follower", SOON, || client.one("SELECT @@server_id") == id(set.server(1)));
    let connections = || set.server(1).sql("SELECT id FROM information_schema.processlist WHERE user='app'");
    let before = connections();
    assert_eq!(before.len(), 1);
    client.query("SET SESSION sql_mode='ANSI_QUOTES', autocommit=0").expect("its state");
    set.switchover(1);
    client.query("INSERT INTO \"app\".\"t\" VALUES (1)").expect("a write, as the session reads");
    assert_eq!(set.server(1).one("SELECT COUNT(*) FROM app.t"), "0", "autocommit is off there, too");
    client.query("COMMIT").expect("committed");
    assert_eq!(set.server(1).one("SELECT COUNT(*) FROM app.t"), "1");
    assert_eq!(connections(), before, "no other login");
}

/// It keeps its connections and says nothing on them; nobody takes it for anything but slow at first.
#[test]
fn a_read_on_a_frozen_follower_is_run_elsewhere() {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let servers = Options::servers(set.servers().iter().map(Server::addr));
    let proxy = Proxy::start(servers.cluster("silence_ms_max = 1000\nprobe_timeout_ms = 300"));
    let mut client = proxy.client();
    until("it reads from the follower", SOON, || client.one("SELECT @@server_id") == id(set.server(1)));
    let read = "SELECT @@server_id, SLEEP(IF(@@read_only, 3, 0))";
    let asleep = "SELECT COUNT(*) FROM information_schema.processlist WHERE user='app' AND info LIKE '%SLEEP(IF%'";
    let rows = std::thread::scope(|scope| {
        let reading = scope.spawn(|| client.query(read));
        until("the follower runs it", SOON, || set.server(1).one(asleep) == "1");
        set.server(1).freeze();
        reading.join().expect("it does not panic").expect("an answer while the follower is frozen")
    });
    assert_eq!(rows[0][0], id(set.server(0)));
    set.server(1).thaw();
    until("it reads from the follower again", SOON, || client.one("SELECT @@server_id") == id(set.server(1)));
}

/// The proxy hears of the fence from the server's refusal, or knows of it and does not even ask.
#[test]
fn a_transaction_on_a_fenced_primary_is_to_be_begun_again() {
    for known in [false, true] {
        let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
        let servers = Options::servers(set.servers().iter().map(Server::addr));
        let proxy = Proxy::start(if known { servers } else { servers.cluster("probe_interval_ms = 60_000") });
        let mut client = proxy.client();
        client.query(TABLE).expect("a table");
        set.wait_synced();
        client.query("BEGIN").expect("a transaction");
        assert_eq!(client.one("SELECT @@server_id"), id(set.server(0)));
        set.server(0).sql("SET GLOBAL super_read_only=ON");
        let before = tried(set.server(0), "insert");
        if known {
            until("the proxy knows of no primary", SOON, || proxy.metric("holdfast_has_primary", &[]) == 0.0);
            client.send_query("INSERT INTO app.`load` VALUES (1, 1, 1)");
            until("the statement waits", SOON, || proxy.metric("holdfast_holding", &[]) == 1.0);
        } else {
            client.send_query("INSERT INTO app.`load` VALUES (1, 1, 1)");
            until("the old primary has refused it", SOON, || tried(set.server(0), "insert") > before);
        }
        set.switchover(1);
        let fault = client.read().expect_err("the transaction is lost");
        assert_eq!(fault.state(), (1213, "40001"));
        // That the primary moved back is learned from a refusal only, and from a question of that very millisecond.
        set.switchover(0);
        let mut other = proxy.client();
        other.query("INSERT INTO app.`load`(client, n) VALUES (2, 2)").expect("written where the primary is again");
        client.query("BEGIN").expect("a transaction");
        assert_eq!(client.one("SELECT @@server_id"), id(set.server(0)));
        client.query("ROLLBACK").expect("the connection is usable");
    }
}

#[test]
fn a_statement_under_way_on_a_deposed_primary_gets_its_answer() {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let proxy = Proxy::start(Options::servers(set.servers().iter().map(Server::addr)));
    let (mut holder, mut waiter) = (proxy.client(), proxy.client());
    assert_eq!(holder.one("SELECT GET_LOCK('under way', 0)"), "1");
    waiter.send_query("SELECT GET_LOCK('under way', 60) INTO @got");
    let waits = "SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE lock_status='PENDING'";
    until("one waits for the other", SOON, || set.server(0).one(waits) == "1");
    // The holder's idle connection is cut with the change, and with it goes the lock: on the old primary, after the change.
    set.switchover(1);
    assert_eq!(waiter.read().expect("the old primary still says how it ended")[0], 0, "OK");
    assert_eq!(holder.query("DO 1").expect_err("its lock is lost").state().0, 3169);
}

#[test]
fn mariadb_splits_and_catches_hidden_writes() {
    let set = ReplicaSet::start(SetOptions::mariadb());
    let proxy = Proxy::start(Options::servers(set.servers().iter().map(Server::addr)));
    let mut client = proxy.client();
    setup(&mut client, HIDDEN);
    set.source().sql("GRANT SELECT, INSERT, EXECUTE ON app.* TO native@'%'");
    set.wait_synced();
    let followers = all_ids(set.replicas());
    until("reads are seen on the follower", SOON, || read_servers(&proxy, 3) == followers);
    // An account that may write on a read-only server would not be refused there.
    let mut native = Client::login(proxy.port(), "native", "native").expect("a login");
    assert_eq!(native.one("SELECT @@server_id"), id(set.server(1)));
    assert_eq!(native.one("SELECT a FROM app.looks_harmless"), "1");
    set.wait_synced();
    for server in set.servers() {
        assert_eq!(server.sql("SELECT a FROM app.hidden"), [[id(set.server(0))]], "once, on the primary");
    }
}

/// Clients that read on elsewhere go back to a follower that is there again, without an error and without a login of theirs.
#[test]
fn readers_go_back_to_a_follower_that_has_come_back() {
    let set = ReplicaSet::start(SetOptions { replicas: 2, ..SetOptions::asynchronous() });
    for more in ["", "sharing = \"transaction\""] {
        let proxy = Proxy::start(Options::servers(set.servers().iter().map(Server::addr)).listener(more));
        let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
        let mut on = |server: &Server| {
            let id = id(server);
            clients.iter_mut().filter_map(|client| (client.one("SELECT @@server_id") == id).then_some(())).count()
        };
        let (stays, goes) = (set.server(1), set.server(2));
        until("both followers are read from", SOON, || on(goes) > 0 && on(stays) > 0);
        goes.kill9();
        until("all read from the other", SOON, || on(stays) == 20);
        goes.start_again();
        until("half of them are back", SOON, || on(goes) >= 8);
    }
}
