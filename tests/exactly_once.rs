//! `exactly_once`: nobody has to guess whether a write was executed, however its answer was lost. Real servers that are
//! killed, and connections that are killed at random moments, most of them around a COMMIT.
mod proxy;
mod testbed;

use proxy::{Client, EXACTLY_ONCE, Fault, Load, Options, Outcome, Proxy, SOON, TABLE};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::{Group, GroupOptions, ReplicaSet, Server, SetOptions, until};

const CLIENTS: usize = 64;
/// Connections killed in one run.
const KILLS: usize = 500;

fn proxy_of(mut options: Options) -> Proxy {
    options.listener += "\nexactly_once = true";
    Proxy::start(options)
}

/// A source with a replica, and a proxy in front.
fn pair() -> (ReplicaSet, Proxy) {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let proxy = proxy_of(Options::servers(set.servers().iter().map(Server::addr)));
    (set, proxy)
}

/// All that was acknowledged is there, and nothing that was not.
fn exactly(outcome: &Outcome, server: &Server) {
    assert_eq!(outcome.troubles, [], "no client sees an error");
    for (client, writes) in outcome.writes.iter().enumerate() {
        let there = server.one(&format!("SELECT COUNT(*) FROM app.`load` WHERE client={client}"));
        assert_eq!(there, writes.to_string(), "client {client}");
    }
}

#[test]
fn a_killed_primary_costs_nobody_an_error() {
    kill_a_primary(|group| proxy_of(Options::group(group)));
}

/// The same with as few connections as can be: what one has committed goes with it from session to session.
#[test]
fn a_killed_primary_costs_nobody_an_error_where_connections_are_shared() {
    kill_a_primary(|group| {
        let options = Options::group(group).cluster("shared_connections_max = 12");
        proxy_of(options.listener("sharing = \"transaction\"\nconsistency = \"session\""))
    });
}

fn kill_a_primary(proxy_of: impl FnOnce(Vec<SocketAddr>) -> Proxy) {
    let group = Group::start(GroupOptions::default());
    let proxy = proxy_of(group.members().iter().map(Server::addr).collect());
    group.primary().sql(&format!("{EXACTLY_ONCE}; {TABLE}"));
    proxy.wait_witnesses(3);
    let load = Load::start(proxy.port(), CLIENTS);
    load.wait_more(5);
    let old = group.primary_index().expect("a primary");
    group.member(old).kill9();
    let new = group.wait_new_primary(old);
    load.wait_more(5);
    let outcome = load.stop();
    let verdicts = |verdict| proxy.metric("holdfast_verdicts_total", &[&format!("verdict=\"{verdict}\"")]);
    println!(
        "kill -9 under {CLIENTS} clients: {:?}; longest wait {:?}; committed {}, not committed {}, unknown {}",
        outcome.codes(),
        outcome.longest,
        verdicts("committed") as u64,
        verdicts("not_committed") as u64,
        verdicts("unknown") as u64,
    );
    exactly(&outcome, group.member(new));
    refused(&group, &proxy);
    comes_back(&group, &proxy, old);
}

/// What the group will not have is said at once, in its own words; its primary is there and would not have it again.
fn refused(group: &Group, proxy: &Proxy) {
    group.primary().sql("SET GLOBAL group_replication_transaction_size_limit = 100000");
    let mut client = proxy.client();
    client.query("CREATE TABLE IF NOT EXISTS app.large (a INT AUTO_INCREMENT PRIMARY KEY, b LONGTEXT)").expect("taken");
    let fault = client.query("INSERT INTO app.large (b) SELECT REPEAT('x', 300000)").expect_err("too large");
    // ER_RUN_HOOK_ERROR
    assert_eq!(fault.state(), (3100, "HY000"), "{fault:?}");
    assert_eq!(client.one("SELECT COUNT(*) FROM app.large"), "0");
    client.query("INSERT INTO app.large (b) VALUES ('small')").expect("taken");
    group.primary().sql("SET GLOBAL group_replication_transaction_size_limit = DEFAULT");
}

/// Nothing that the proxy does keeps the killed one out while clients write.
fn comes_back(group: &Group, proxy: &Proxy, old: usize) {
    group.primary().sql("TRUNCATE app.`load`");
    let load = Load::start(proxy.port(), 4);
    group.member(old).start_again();
    group.rejoin(old);
    let outcome = load.stop();
    exactly(&outcome, group.primary());
    let rows = "SELECT COUNT(*) FROM app.`load`";
    until("it has what the others have", SOON, || group.member(old).one(rows) == group.primary().one(rows));
}

/// The same where a person, or somebody's operator, promotes a replica: what it has received is all that counts.
#[test]
fn a_promotion_costs_nobody_an_error() {
    // With two replicas a person may promote the one that has not received all: then the proxy waits for a better one.
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::semisync() });
    let proxy = proxy_of(Options::servers(set.servers().iter().map(Server::addr)));
    set.server(0).sql(&format!("{EXACTLY_ONCE}; {TABLE}"));
    proxy.wait_witnesses(2);
    let load = Load::start(proxy.port(), CLIENTS);
    set.server(0).kill9();
    // What was acknowledged has been received, and may not have been applied yet: a promotion throws the rest away.
    let received = "SELECT GTID_SUBSET(received_transaction_set, @@global.gtid_executed) FROM \
         performance_schema.replication_connection_status WHERE channel_name = ''";
    until("all that was received is applied", SOON, || set.server(1).one(received) == "1");
    set.promote(1);
    load.wait_more(5);
    let outcome = load.stop();
    println!("kill -9 and promotion under {CLIENTS} clients: {:?}; longest {:?}", outcome.codes(), outcome.longest);
    exactly(&outcome, set.server(1));
}

/// Kills connections of `app` on the server, any at any time.
fn killer(server: &Server, stop: &AtomicBool) -> usize {
    let mut killed = 0;
    while killed < KILLS && !stop.load(Ordering::Relaxed) {
        let sql = "SELECT id FROM information_schema.processlist WHERE user='app' AND command<>'Sleep'";
        for id in server.sql(sql) {
            killed += usize::from(server.try_sql(&format!("KILL {}", id[0])).is_ok());
        }
    }
    killed
}

/// One client's writes: each outside a transaction, or in one with a COMMIT of its own. Answers the ids it was told of as
/// written, and those it was told were rolled back.
fn writes(mut client: Client, number: usize, stop: &AtomicBool) -> (Vec<usize>, Vec<usize>) {
    let (mut done, mut rolled_back) = (Vec::new(), Vec::new());
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = number * 1_000_000 + n;
        let insert = format!("INSERT INTO app.w VALUES ({id})");
        let transaction = n % 2 == 1;
        let mut steps = vec![insert.as_str()];
        if transaction {
            steps = vec!["BEGIN", &insert, "COMMIT"];
        }
        let failed = steps.iter().find_map(|sql| client.query(sql).err());
        match failed {
            None => done.push(id),
            Some(fault) if transaction && fault.state() == (1213, "40001") => rolled_back.push(id),
            Some(fault) => panic!("{id}: {fault:?}"),
        }
    }
    (done, rolled_back)
}

#[test]
fn every_verdict_is_right() {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::semisync() });
    let proxy = proxy_of(Options::servers(set.servers().iter().map(Server::addr)));
    set.server(0).sql(&format!("{EXACTLY_ONCE}; CREATE TABLE app.w(id INT PRIMARY KEY)"));
    proxy.wait_witnesses(2);
    let stop = AtomicBool::new(false);
    let (killed, told) = std::thread::scope(|scope| {
        let clients = (0..8).map(|number| {
            let (client, stop) = (proxy.client(), &stop);
            scope.spawn(move || writes(client, number, stop))
        });
        let clients: Vec<_> = clients.collect();
        let killed = killer(set.server(0), &stop);
        stop.store(true, Ordering::Relaxed);
        (killed, clients.into_iter().map(|c| c.join().expect("no error")).collect::<Vec<_>>())
    });
    let there: HashSet<usize> =
        set.server(0).sql("SELECT id FROM app.w").iter().map(|row| row[0].parse().expect("a number")).collect();
    let done: Vec<usize> = told.iter().flat_map(|(done, _)| done.iter().copied()).collect();
    let rolled_back: Vec<usize> = told.iter().flat_map(|(_, back)| back.iter().copied()).collect();
    let verdicts = |verdict| proxy.metric("holdfast_verdicts_total", &[&format!("verdict=\"{verdict}\"")]);
    println!(
        "{killed} connections killed, {} writes acknowledged, {} rolled back; committed {}, not committed {}, unknown {}",
        done.len(),
        rolled_back.len(),
        verdicts("committed") as u64,
        verdicts("not_committed") as u64,
        verdicts("unknown") as u64,
    );
    for id in &done {
        assert!(there.contains(id), "{id} was acknowledged and is lost");
    }
    for id in &rolled_back {
        assert!(!there.contains(id), "{id} was said to be rolled back and is there");
    }
    assert_eq!(there.len(), done.len(), "nothing else was written");
    assert!(killed >= KILLS && verdicts("unknown") == 0.0);
}

#[test]
fn without_the_grant_the_truth_is_unknown_and_said_once() {
    let (set, proxy) = pair();
    let account = "CREATE USER modest@'%' IDENTIFIED BY 'modest'; GRANT CREATE, SELECT, INSERT ON app.* TO modest@'%'";
    set.server(0).sql(&format!("CREATE TABLE app.w(id INT PRIMARY KEY); {account}"));
    set.wait_synced();
    let mut client = Client::login(proxy.port(), "modest", "modest").expect("a login");
    client.query("INSERT INTO app.w VALUES (1)").expect("a write");
    proxy.wait_log("exactly_once needs a binary log, and GRANT REPLICATION SLAVE");
    proxy.wait_log("GRANT REPLICATION_APPLIER ON *.* lets it");
    client.send_query("INSERT INTO app.w SELECT 2 FROM DUAL WHERE SLEEP(60) = 0");
    let running = "SELECT id FROM information_schema.processlist WHERE info LIKE 'INSERT INTO app.w SELECT%'";
    until("it runs", SOON, || !set.server(0).sql(running).is_empty());
    set.server(0).sql(&format!("KILL {}", set.server(0).one(running)));
    assert_eq!(client.read().expect_err("nobody knows").state(), (1105, "08007"));
    assert_eq!(client.one("SELECT 1"), "1", "the session lives");
}

/// What the client sees of a write is what the server says of it, and nothing of the BEGIN and COMMIT around it.
#[test]
fn answers_are_those_of_the_write_alone() {
    let (set, proxy) = pair();
    let table = "CREATE TABLE app.t(id INT PRIMARY KEY AUTO_INCREMENT, v INT, UNIQUE(v))";
    set.server(0).sql(&format!("{EXACTLY_ONCE}; {table}"));
    proxy.wait_witnesses(2);
    let mut client = proxy.client();
    let ok = |client: &mut Client, sql: &str| -> Result<Vec<u8>, Fault> {
        client.send_query(sql);
        client.read()
    };
    let direct = |sql: &str| set.server(0).try_sql(sql);
    // OK: header, rows, insert id, status (autocommit, no transaction), warnings, text.
    assert_eq!(ok(&mut client, "INSERT INTO app.t(v) VALUES (1)").expect("OK"), [0, 1, 1, 2, 0, 0, 0]);
    assert_eq!(client.one("SELECT LAST_INSERT_ID()"), "1");
    let two = ok(&mut client, "INSERT INTO app.t(v) VALUES (2),(3)").expect("OK");
    assert_eq!(two[..7], [0, 2, 2, 2, 0, 0, 0]);
    assert!(two.ends_with(b"Records: 2  Duplicates: 0  Warnings: 0"), "{two:?}");
    assert_eq!(ok(&mut client, "UPDATE app.t SET v = v + 10").expect("OK")[..3], [0, 3, 0]);
    assert_eq!(ok(&mut client, "DELETE FROM app.t WHERE v = 99").expect("OK")[..3], [0, 0, 0]);
    // ERR: and nothing is left of it, no lock and no row.
    let fault = ok(&mut client, "INSERT INTO app.t(v) VALUES (20), (11)").expect_err("a duplicate");
    assert_eq!(fault.state(), (1062, "23000"));
    assert_eq!(direct("SELECT COUNT(*) FROM app.t WHERE v = 20").expect("rows"), [["0"]]);
    direct("SET SESSION innodb_lock_wait_timeout=1; UPDATE app.t SET v = 40 WHERE v = 11").expect("no lock is left");
    // A transaction is the client's own.
    client.query("BEGIN").expect("a transaction");
    assert_eq!(ok(&mut client, "INSERT INTO app.t(v) VALUES (50)").expect("OK")[3] & 1, 1, "in a transaction");
    assert_eq!(direct("SELECT COUNT(*) FROM app.t WHERE v = 50").expect("rows"), [["0"]]);
    client.query("ROLLBACK").expect("rolled back");
    assert_eq!(direct("SELECT COUNT(*) FROM app.t WHERE v = 50").expect("rows"), [["0"]]);
    // With autocommit off the first write opens one.
    client.query("SET autocommit=0").expect("set");
    ok(&mut client, "INSERT INTO app.t(v) VALUES (60)").expect("OK");
    assert_eq!(direct("SELECT COUNT(*) FROM app.t WHERE v = 60").expect("rows"), [["0"]]);
    client.query("COMMIT").expect("committed");
    client.query("SET autocommit=1").expect("set");
    // What is not logged has no GTID: it is sent as it is, and its outcome stays unknown if it is lost.
    client.query("SET sql_log_bin=0").expect("set");
    client.send_query("INSERT INTO app.t(v) SELECT 65 FROM DUAL WHERE SLEEP(60) = 0");
    let running = "SELECT id FROM information_schema.processlist WHERE info LIKE 'INSERT INTO app.t(v) SELECT 65%'";
    until("it runs", SOON, || !direct(running).expect("rows").is_empty());
    direct(&format!("KILL {}", direct(running).expect("rows")[0][0])).expect("killed");
    assert_eq!(client.read().expect_err("nobody knows").state(), (1105, "08007"));
    let mut client = proxy.client();
    // Tables that are locked stay so.
    client.query("LOCK TABLES app.t WRITE").expect("locked");
    ok(&mut client, "INSERT INTO app.t(v) VALUES (70)").expect("OK");
    let waits = "SET SESSION lock_wait_timeout=1; SELECT COUNT(*) FROM app.t";
    assert!(direct(waits).is_err(), "the lock is still held");
    client.query("UNLOCK TABLES").expect("unlocked");
    assert_eq!(direct("SELECT COUNT(*) FROM app.t WHERE v IN (60, 70)").expect("rows"), [["2"]]);
}

/// `holdfast check --connect` says before the first client does.
#[test]
fn a_check_tells_whose_account_can_have_it() {
    let (set, proxy) = pair();
    set.server(0).sql("CREATE USER modest@'%' IDENTIFIED BY 'modest'; GRANT SELECT, INSERT ON app.* TO modest@'%'");
    set.wait_synced();
    let check = |user: &str, password: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(["check", "--connect", "--user", user, "-c"]).arg(proxy.file());
        let output = command.env("HOLDFAST_CHECK_PASSWORD", password).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = check("modest", "modest");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("modest may not mark commits, so no exactly_once (GRANT REPLICATION_APPLIER"), "{text}");
    assert!(text.contains("writable, gtid_mode=ON") && text.contains("read-only, gtid_mode=ON"), "{text}");
    let why = "may not read the binary log, so no exactly_once (GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO holdfast@…";
    assert!(text.contains(why) && text.contains("1227"), "{text}");
    set.server(0).sql(&format!("{EXACTLY_ONCE}; {}", EXACTLY_ONCE.replace("app@", "modest@")));
    set.wait_synced();
    let (code, text) = check("modest", "modest");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("holdfast may read the binary log, for exactly_once"), "{text}");
    assert!(text.contains("modest may mark commits, for exactly_once"), "{text}");
    let (code, text) = check("modest", "wrong");
    assert!(code == Some(1) && text.contains("modest can't log in: error 1045: Access denied"), "{text}");
}
