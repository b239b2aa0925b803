//! Many sessions, few connections (`sharing = "transaction"`): what a session sees is what it would see on a connection of
//! its own. The model is just that: a private connection to the same server, told the same.
mod proxy;
mod sharing {
    pub mod chance;
    pub mod side;
    pub mod walk;
    pub mod words;
}
mod testbed;

use mysql_async::prelude::Queryable;
use mysql_async::{ChangeUserOpts, Conn, OptsBuilder};
use proxy::{Options, Proxy, sysbench};
use sharing::chance::seed;
use sharing::side::options;
use sharing::walk::walk;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::{ReplicaSet, Server, SetOptions};

fn front(sessions: usize, (mode, listener): (&'static str, &str), cluster: &str) -> (ReplicaSet, Proxy) {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let mut sql = String::from("GRANT ALL ON *.* TO app@'%'; CREATE ROLE reader; GRANT reader TO app@'%';");
    for side in ["s", "m"] {
        for n in 0..sessions {
            for half in ["a", "b"] {
                let schema = format!("{side}{n}{half}");
                sql += &format!(
                    "CREATE DATABASE {schema}; CREATE TABLE {schema}.t(id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(9), n INT); \
                     CREATE TABLE {schema}.u(id INT PRIMARY KEY AUTO_INCREMENT, last BIGINT); \
                     CREATE TRIGGER {schema}.g BEFORE INSERT ON {schema}.u FOR EACH ROW SET NEW.last = LAST_INSERT_ID(); \
                     INSERT INTO {schema}.t(v, n) VALUES ('{half}', 1), ('x', 2), ('y', 3);"
                );
            }
        }
    }
    set.server(0).sql(&sql);
    set.wait_synced();
    let options = Options::servers(set.servers().iter().map(Server::addr)).modes(&[mode]).cluster(cluster);
    let proxy = Proxy::start(options.listener(&format!("sharing = \"transaction\"\n{listener}")));
    (set, proxy)
}

/// Something else that it might be set to.
fn others(value: &str) -> Vec<String> {
    match (value, value.parse::<i64>()) {
        ("ON", _) => vec!["0".to_owned()],
        ("OFF", _) => vec!["1".to_owned()],
        (_, Ok(number)) => {
            [number + 1, number + 4096, number * 2, number / 2, number - 1].map(|n| n.to_string()).to_vec()
        }
        _ => [
            "latin1",
            "latin1_german1_ci",
            "'de_DE'",
            "'+03:00'",
            "'ANSI'",
            "MyISAM",
            "TREE",
            "'aes-256-cbc'",
            "'NO_GLOBAL'",
            "1",
            "''",
        ]
        .map(str::to_owned)
        .to_vec(),
    }
}

/// Whatever SET SESSION takes stays with its session and is taken along by it.
#[test]
fn no_variable_is_left_to_the_next_session() {
    let (set, proxy) = front(1, ("primary", ""), "shared_connections_max = 1");
    let mut model = proxy.client_of(set.server(0).port());
    let names =
        model.query("SELECT variable_name FROM performance_schema.session_variables ORDER BY 1").expect("names");
    // Workers take clients in turn: the first and the third share one connection.
    let (mut one, _other, mut next) = (proxy.client(), proxy.client(), proxy.client());
    let (mut tried, mut wrong) = (0, Vec::new());
    for row in &names {
        let name = &*row[0];
        // They say how the very next write is to be made, or are the proxy's own.
        if ["gtid_next", "session_track_system_variables", "session_track_gtids", "pseudo_thread_id"].contains(&name) {
            continue;
        }
        // These bind the session to its connection: nobody else gets it.
        let binds = [
            "timestamp",
            "rand_seed1",
            "rand_seed2",
            "insert_id",
            "sql_log_bin",
            "original_commit_timestamp",
            "profiling",
            "pseudo_replica_mode",
            "pseudo_slave_mode",
            "use_secondary_engine",
            "sql_auto_is_null",
        ];
        if binds.contains(&name) {
            continue;
        }
        let ask = format!("SELECT @@SESSION.{name}");
        let mut model = proxy.client_of(set.server(0).port());
        let Ok(at_login) = model.query(&ask) else { continue };
        let taken = others(&at_login[0][0]).into_iter().map(|value| format!("SET SESSION {name} = {value}"));
        let Some(set) = taken
            .into_iter()
            .find(|set| model.query(set).is_ok() && model.query(&ask).is_ok_and(|now| now != at_login))
        else {
            continue;
        };
        let mine = model.query(&ask).expect("its value");
        one.query(&set).unwrap_or_else(|fault| panic!("{set}: {fault:?}"));
        let seen = next.query(&ask).expect(&ask);
        if seen != at_login {
            wrong.push(format!("{seen:?} instead of {at_login:?} after another session's {set}"));
        }
        let seen = one.query(&ask).expect(&ask);
        if seen != mine {
            wrong.push(format!("{seen:?} instead of {mine:?} behind its own {set}"));
        }
        one.send(&[0x1F]);
        one.read().expect("COM_RESET_CONNECTION is answered");
        tried += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried > 80, "only {tried} of {} variables could be set", names.len());
}

fn model(sessions: usize, steps: usize, mode: &'static str, listener: &str) {
    let seed = seed();
    let (set, proxy) = front(sessions, (mode, listener), "shared_connections_max = 4\nshared_statements_max = 3");
    walk((proxy.port(), set.server(0).port()), sessions, (steps, mode), seed);
}

#[test]
fn a_session_on_the_primary_is_as_on_a_connection_of_its_own() {
    model(10, 400, "primary", "");
}

#[test]
fn a_session_that_reads_from_followers_is_as_on_a_connection_of_its_own() {
    model(8, 300, "split", "consistency = \"session\"\nconsistency_wait_ms = 2000");
}

fn alone<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

#[test]
fn a_changed_user_shares_with_nobody_but_his_own() {
    let (_set, proxy) = front(1, ("primary", ""), "shared_connections_max = 1");
    alone(async {
        let connect = async || Conn::new(options(proxy.port(), "s0a")).await.expect("a login");
        // Workers take clients in turn: the first and the third share one connection.
        let (mut one, _other, mut next) = (connect().await, connect().await, connect().await);
        let root = ChangeUserOpts::new().with_user(Some("root".to_owned())).with_pass(Some(String::new()));
        one.change_user(root).await.expect("another user");
        for _ in 0..3 {
            for (connection, user) in [(&mut one, "root@%"), (&mut next, "app@%")] {
                let who: Option<String> = connection.query_first("SELECT CURRENT_USER()").await.expect("an answer");
                assert_eq!(who.as_deref(), Some(user));
            }
        }
    });
}

#[test]
fn a_session_that_ends_leaves_its_connection_to_the_next() {
    let (_set, proxy) = front(1, ("primary", ""), "shared_connections_max = 2");
    let ids: HashSet<String> = (0..8).map(|_| proxy.client().one("SELECT CONNECTION_ID()")).collect();
    assert_eq!(ids.len(), 2, "one for each worker: {ids:?}");
}

#[test]
fn clients_with_a_schema_and_without_one_do_not_cost_each_other_their_connections() {
    let (_set, proxy) = front(1, ("primary", ""), "shared_connections_max = 4");
    let mut ids = HashSet::new();
    alone(async {
        for n in 0..12 {
            let without = OptsBuilder::from_opts(options(proxy.port(), "s0a")).db_name(None::<String>);
            let options = if n / 2 % 2 == 0 { options(proxy.port(), "s0a") } else { without.into() };
            let mut connection = Conn::new(options).await.expect("a login");
            let id: Option<u64> = connection.query_first("SELECT CONNECTION_ID()").await.expect("an answer");
            let schema: Option<Option<String>> = connection.query_first("SELECT DATABASE()").await.expect("an answer");
            assert_eq!(schema.flatten().is_some(), n / 2 % 2 == 0);
            ids.insert(id);
            connection.disconnect().await.expect("a farewell");
        }
    });
    assert!(ids.len() <= 4, "one of each kind for each worker: {ids:?}");
}

/// Many threads of sysbench, and the model beside them, on so few connections that everybody waits for everybody.
fn crowd(threads: usize, connections: usize, seconds: u64) {
    let seed = seed();
    let cluster = format!("shared_connections_max = {connections}");
    let (set, proxy) = front(6, ("split", "consistency = \"session\""), &cluster);
    sysbench(proxy.port(), "oltp_read_write", &[], "prepare");
    set.wait_synced();
    let stop = AtomicBool::new(false);
    let ports = (proxy.port(), set.server(0).port());
    let most = std::thread::scope(|scope| {
        let models = scope.spawn(|| {
            let mut round = seed;
            while !stop.load(Ordering::Relaxed) {
                walk(ports, 6, (40, "split"), round);
                round = round.wrapping_add(2);
            }
        });
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE user='app'";
                most = set.servers().iter().map(|server| server.one(sql).parse().unwrap_or(0)).fold(most, usize::max);
            }
            most
        });
        let more =
            [format!("--threads={threads}"), format!("--time={seconds}"), "--mysql-ignore-errors=1213,1205".to_owned()];
        let told = sysbench(proxy.port(), "oltp_read_write", &more.each_ref().map(String::as_str), "run");
        let figures = told.lines().filter(|line| line.contains("transactions:") || line.contains("errors:"));
        println!(
            "{threads} threads on {connections} connections: {}",
            figures.map(str::trim).collect::<Vec<_>>().join(", ")
        );
        stop.store(true, Ordering::Relaxed);
        models.join().expect("the models agree");
        watch.join().expect("the servers answer")
    });
    // The models have a connection of their own each, on the primary.
    assert!(most <= connections + 6, "{most} connections of clients to one server");
}

#[test]
fn a_crowd_on_few_connections_gets_no_wrong_answer() {
    crowd(100, 16, 10);
}

#[test]
#[ignore = "takes ten minutes"]
fn a_thousand_sessions_on_32_connections_get_no_wrong_answer() {
    crowd(1_000, 32, std::env::var("HOLDFAST_CROWD_S").ok().and_then(|s| s.parse().ok()).unwrap_or(600));
}
