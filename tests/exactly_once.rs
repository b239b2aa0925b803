//! `exactly_once`: nobody has to guess whether a write was executed, however its answer was lost. Real servers that are
//! killed, and connections that are killed at random moments, most of them around a COMMIT.
mod proxy;
mod testbed;

use proxy::{Client, Fault, Load, Options, Outcome, Proxy, SOON, TABLE};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::{Group, GroupOptions, ReplicaSet, Server, SetOptions, until};

const CLIENTS: usize = 64;
/// Connections killed in one run.
const KILLS: usize = 500;
const GRANT: &str = "GRANT TRANSACTION_GTID_TAG, REPLICATION_APPLIER ON *.* TO app@'%'";

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

/// A lane for this client's next write; before, the claim may still be on its way.
fn wait_lanes(proxy: &Proxy, server: &Server) {
    let mut client = proxy.client();
    until("writes are under a lane", SOON, || {
        client.query("INSERT INTO app.tagged VALUES (NULL)").expect("a write");
        server.one("SELECT @@global.gtid_executed LIKE '%:holdfast_%'") == "1"
    });
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

/// The same with as few connections as can be: a lane goes with its connection from session to session.
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
    group.primary().sql(&format!("{GRANT}; CREATE TABLE app.tagged(id INT PRIMARY KEY AUTO_INCREMENT); {TABLE}"));
    wait_lanes(&proxy, group.primary());
    let load = Load::start(proxy.port(), CLIENTS);
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
    // The set of tags is bounded by the connections that wrote at the same time.
    let tags: HashSet<String> = group
        .member(new)
        .one("SELECT @@global.gtid_executed")
        .split([':', ','])
        .filter(|part| part.starts_with("holdfast_"))
        .map(str::to_owned)
        .collect();
    assert!(tags.len() <= CLIENTS + 1, "{tags:?}");
}

/// The same where a person, or somebody's operator, promotes a replica: what it has received is all that counts.
#[test]
fn a_promotion_costs_nobody_an_error() {
    // With two replicas a person may promote the one that has not received all: then the proxy waits for a better one.
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::semisync() });
    let proxy = proxy_of(Options::servers(set.servers().iter().map(Server::addr)));
    set.server(0).sql(&format!("{GRANT}; CREATE TABLE app.tagged(id INT PRIMARY KEY AUTO_INCREMENT); {TABLE}"));
    wait_lanes(&proxy, set.server(0));
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
    let tables = "CREATE TABLE app.tagged(id INT PRIMARY KEY AUTO_INCREMENT); CREATE TABLE app.w(id INT PRIMARY KEY)";
    set.server(0).sql(&format!("{GRANT}; {tables}"));
    wait_lanes(&proxy, set.server(0));
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
    let account = "CREATE USER modest@'%' IDENTIFIED BY 'modest'; GRANT SELECT, INSERT ON app.* TO modest@'%'";
    set.server(0).sql(&format!("CREATE TABLE app.w(id INT PRIMARY KEY); {account}"));
    set.wait_synced();
    let mut client = Client::login(proxy.port(), "modest", "modest").expect("a login");
    client.query("INSERT INTO app.w VALUES (1)").expect("a write without a lane");
    proxy.wait_log("GRANT TRANSACTION_GTID_TAG, REPLICATION_APPLIER ON *.* lets it");
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
    set.server(0).sql(&format!("{GRANT}; CREATE TABLE app.tagged(id INT PRIMARY KEY AUTO_INCREMENT); {table}"));
    wait_lanes(&proxy, set.server(0));
    let mut client = proxy.client();
    client.query("INSERT INTO app.tagged VALUES (NULL)").expect("a write under a lane");
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

/// Two proxies never write under the same tags; one that comes after another has ended uses the tags of that one again.
#[test]
fn proxies_share_no_lane_and_use_those_of_the_gone_again() {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let options = || Options::servers(set.servers().iter().map(Server::addr));
    set.server(0).sql(&format!("{GRANT}; CREATE TABLE app.tagged(id INT PRIMARY KEY AUTO_INCREMENT)"));
    set.wait_synced();
    let blocks = || {
        let executed = set.server(0).one("SELECT @@global.gtid_executed");
        let tags = executed.split([':', ',']).filter_map(|part| part.strip_prefix("holdfast_")?.split_once('_'));
        tags.map(|(block, _)| block.to_owned()).collect::<HashSet<_>>()
    };
    let write =
        |proxy: &Proxy| proxy.client().query("INSERT INTO app.tagged VALUES (NULL)").map(drop).expect("a write");
    let first = proxy_of(options());
    wait_lanes(&first, set.server(0));
    let mut stays = first.client();
    stays.query("INSERT INTO app.tagged VALUES (NULL)").expect("a write");
    assert_eq!(blocks(), HashSet::from(["0".to_owned()]));
    let second = proxy_of(options());
    until("the second has tags of its own", SOON, || {
        write(&second);
        blocks().contains("1")
    });
    drop((stays, first));
    let third = proxy_of(options());
    let used = || set.server(0).one("SELECT GTID_SUBTRACT(@@global.gtid_executed, '') LIKE '%holdfast_2_%'");
    let of_block = || {
        let executed = set.server(0).one("SELECT @@global.gtid_executed");
        executed.split(":holdfast_0_").skip(1).map(str::to_owned).collect::<String>()
    };
    let before = of_block();
    until("the third uses those of the first again", SOON, || {
        write(&third);
        of_block() != before
    });
    assert_eq!((used().as_str(), blocks().len()), ("0", 2), "and no others");
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
    assert!(text.contains("writable, gtid_mode=ON") && text.contains("read-only, gtid_mode=ON"), "{text}");
    let why = "can't have exactly_once (MySQL 8.3 or later, and GRANT TRANSACTION_GTID_TAG, REPLICATION_APPLIER";
    assert!(text.contains(why) && text.contains("6038"), "{text}");
    set.server(0).sql("GRANT TRANSACTION_GTID_TAG, REPLICATION_APPLIER ON *.* TO modest@'%'");
    set.wait_synced();
    let (code, text) = check("modest", "modest");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("modest can have exactly_once"), "{text}");
    let (code, text) = check("modest", "wrong");
    assert!(code == Some(1) && text.contains("modest can't log in: error 1045: Access denied"), "{text}");
    assert_eq!(set.server(0).one("SELECT @@global.gtid_executed LIKE '%holdfast_check%'"), "0", "nothing was written");
}
