//! Read your writes: followers that are held back by half a second, many clients that write and read at once what they
//! wrote; with `eventual` they read what is old, with `session` and `strong` never. Real sets and a real group.
//!
//! `HOLDFAST_PAIRS`: writes with a read behind each, in each of the tests; 4,000 if it is not said.
mod proxy;
mod testbed;

use proxy::{Client, Fault, Options, Proxy, SOON};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use testbed::{Flavor, Group, GroupOptions, ReplicaSet, Server, SetOptions, until};

const CLIENTS: usize = 16;
const TABLE: &str = "CREATE TABLE app.pairs(client INT PRIMARY KEY, n INT)";

fn pairs() -> usize {
    std::env::var("HOLDFAST_PAIRS").map_or(4_000, |pairs| pairs.parse().expect("a number"))
}

/// What came of pairs of a write and a read.
#[derive(Debug, Default)]
struct Told {
    stale: usize,
    /// Reads that a follower answered.
    of_followers: usize,
    errors: usize,
}

/// One client's number of the proxy's first listener, and who reads what it writes.
struct Pair {
    writer: Client,
    reader: Option<Client>,
    number: usize,
    written: usize,
    acknowledged: usize,
    primary: String,
}

impl Pair {
    /// Answers the number that was read and the server that answered.
    fn once(&mut self) -> Result<(usize, String), Fault> {
        self.written += 1;
        let (number, n) = (self.number, self.written);
        self.writer.query(&format!("REPLACE INTO app.pairs VALUES ({number}, {n})"))?;
        self.acknowledged = n;
        let reader = self.reader.as_mut().unwrap_or(&mut self.writer);
        let rows = reader.query(&format!("SELECT n, @@server_id FROM app.pairs WHERE client={number}"))?;
        let read = rows.first().map_or(0, |row| row[0].parse().expect("a number"));
        Ok((read, rows.first().map_or_else(String::new, |row| row[1].clone())))
    }

    fn many(mut self, count: usize, goes_on: impl Fn(usize) -> bool) -> Told {
        let mut told = Told::default();
        let mut done = 0;
        while done < count || goes_on(done) {
            match self.once() {
                Ok((read, server)) => {
                    told.stale += usize::from(read < self.acknowledged);
                    told.of_followers += usize::from(server != self.primary);
                }
                // The primary went with a write's answer.
                Err(fault) if fault.code() != 0 => told.errors += 1,
                Err(fault) => panic!("{fault:?}"),
            }
            done += 1;
        }
        told
    }
}

/// Many clients at once; `reader`: what another client that reads says first, if one is to.
fn run(proxy: &Proxy, primary: &Server, first: &str, reader: Option<&str>, count: usize) -> Told {
    run_while(proxy, primary, (first, reader), count, |_| false)
}

fn run_while(
    proxy: &Proxy,
    primary: &Server,
    (first, reader): (&str, Option<&str>),
    count: usize,
    goes_on: impl Fn(usize) -> bool + Sync,
) -> Told {
    let primary = primary.one("SELECT @@server_id");
    let goes_on = &goes_on;
    let all = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = |says: &str| {
                    let mut client = proxy.client();
                    client.query(says).expect("it is understood");
                    client
                };
                let (writer, reader) = (client(first), reader.map(client));
                let pair = Pair { writer, reader, number, written: 0, acknowledged: 0, primary: primary.clone() };
                scope.spawn(move || pair.many(count.div_ceil(CLIENTS), goes_on))
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("no client is lost")).collect::<Vec<_>>()
    });
    primary_cleared(proxy);
    all.into_iter().fold(Told::default(), |sum, one| Told {
        stale: sum.stale + one.stale,
        of_followers: sum.of_followers + one.of_followers,
        errors: sum.errors + one.errors,
    })
}

/// The next clients begin with 1 again.
fn primary_cleared(proxy: &Proxy) {
    proxy.client().query("DELETE FROM app.pairs").expect("cleared");
}

/// Holds followers back: what they are to apply waits half a second, again and again, for as long as `work` runs. Between
/// they may catch up for a second.
fn held_back<T>(primary: &Server, followers: &[&Server], work: impl FnOnce() -> T) -> T {
    let (stop, held) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for follower in followers {
            scope.spawn(move || {
                let (have, wait) = match follower.flavor() {
                    Flavor::MySql => ("@@gtid_executed", "WAIT_FOR_EXECUTED_GTID_SET"),
                    Flavor::MariaDb => ("@@gtid_binlog_pos", "MASTER_GTID_WAIT"),
                };
                while !stop.load(Ordering::Relaxed) {
                    held.fetch_add(1, Ordering::Relaxed);
                    // Reads go on under it.
                    follower.sql("FLUSH TABLES WITH READ LOCK; SELECT SLEEP(0.5); UNLOCK TABLES");
                    let all = primary.one(&format!("SELECT {have}")).replace('\n', "");
                    follower.sql(&format!("SELECT {wait}('{all}', 1)"));
                }
            });
        }
        until("they are held back", SOON, || held.load(Ordering::Relaxed) >= followers.len());
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn by(proxy: &Proxy, how: &str) -> u64 {
    proxy.metric("holdfast_session_reads_total", &[&format!("by=\"{how}\"")]) as u64
}

/// The three kinds of consistency in front of one cluster whose followers are held back.
fn three_kinds(proxy: &Proxy, primary: &Server, followers: &[&Server], wait_synced: impl Fn()) {
    primary.sql(TABLE);
    wait_synced();
    let few = pairs().div_ceil(10);
    let (own, strong, eventual, asked) = held_back(primary, followers, || {
        (
            run(proxy, primary, "DO 0", None, pairs()),
            run(proxy, primary, "DO 0", Some("SET @holdfast_consistency = 'strong'"), few),
            run(proxy, primary, "SET @holdfast_consistency = 'eventual'", None, pairs()),
            // A writer that nobody keeps track of until it is asked.
            run(proxy, primary, "SET @holdfast_consistency = 'session'", None, few),
        )
    });
    println!(
        "session {own:?} of {}; strong {strong:?}, by SET {asked:?} of {few} each; eventual {eventual:?}; known {}, waited \
         {}, primary {}",
        pairs(),
        by(proxy, "follower_known"),
        by(proxy, "waited"),
        by(proxy, "primary"),
    );
    assert_eq!((own.stale, own.errors), (0, 0));
    assert_eq!((strong.stale, strong.errors, strong.of_followers), (0, 0, 0));
    assert_eq!((asked.stale, asked.errors), (0, 0));
    assert!(eventual.stale > 0, "or nothing was proven");
    until("it is counted that no follower is waited for too long", SOON, || by(proxy, "primary") > 0);
    // Once they are near, followers answer.
    wait_synced();
    let near = run(proxy, primary, "DO 0", None, few);
    assert_eq!(near.stale, 0, "{near:?}");
    // Many writers may keep a follower busy; one does not.
    let (mut client, mut n, primary) = (proxy.client(), 1, primary.one("SELECT @@server_id"));
    until("a follower answers, and it is counted that one was waited for", SOON, || {
        n += 1;
        client.query(&format!("REPLACE INTO app.pairs VALUES (1, {n})")).expect("a write");
        let seen = client.one("SELECT CONCAT(n, ' ', @@server_id) FROM app.pairs WHERE client = 1");
        let (value, server) = seen.split_once(' ').expect("two");
        assert_eq!(value, n.to_string(), "its own write");
        server != primary && by(proxy, "waited") > 0
    });
    println!("near: {near:?}; known {}, waited {}", by(proxy, "follower_known"), by(proxy, "waited"));
    let mut client = proxy.client();
    client.query("REPLACE INTO app.pairs VALUES (1, 1)").expect("a write");
    let before = by(proxy, "follower_known");
    until("a probe knows of it", SOON, || {
        client.one("SELECT n FROM app.pairs WHERE client = 1");
        by(proxy, "follower_known") > before
    });
}

#[test]
fn an_asynchronous_set() {
    three_kinds_of_a_set(SetOptions::asynchronous());
}

#[test]
fn a_mariadb_set() {
    three_kinds_of_a_set(SetOptions::mariadb());
}

fn three_kinds_of_a_set(options: SetOptions) {
    let set = ReplicaSet::start(options);
    let servers = Options::servers(set.servers().iter().map(Server::addr));
    let proxy = Proxy::start(servers.listener("consistency = \"session\"\nmax_lag_ms = 0"));
    let followers: Vec<&Server> = set.replicas().collect();
    three_kinds(&proxy, set.server(0), &followers, || set.wait_synced());
}

#[test]
fn a_group_and_a_killed_primary() {
    let group = Group::start(GroupOptions::default());
    let seeds = Options::group(group.members().iter().map(Server::addr));
    let proxy = Proxy::start(seeds.listener("consistency = \"session\"\nmax_lag_ms = 0"));
    let synced = || {
        let all = group.primary().one("SELECT @@global.gtid_executed").replace('\n', "");
        for member in group.secondaries() {
            assert_eq!(member.one(&format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{all}', 60)")), "0");
        }
    };
    let old = group.primary_index().expect("a primary");
    three_kinds(&proxy, group.member(old), &group.secondaries(), synced);

    // The primary goes in the midst of it; sessions go on with the next.
    let (done, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let told = std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            run_while(&proxy, group.member(old), ("DO 0", None), pairs().div_ceil(10), |n| {
                done.fetch_max(n, Ordering::Relaxed);
                !over.load(Ordering::Relaxed)
            })
        });
        until("clients write", SOON, || done.load(Ordering::Relaxed) > 20);
        group.member(old).kill9();
        group.wait_new_primary(old);
        let now = done.load(Ordering::Relaxed);
        until("clients go on", SOON, || done.load(Ordering::Relaxed) > now + 20 || clients.is_finished());
        over.store(true, Ordering::Relaxed);
        clients.join().expect("no client is lost")
    });
    println!("kill -9: {told:?}");
    assert_eq!(told.stale, 0);
}

/// Whatever commits, its session sees it, while the followers apply nothing at all.
#[test]
fn every_kind_of_commit_counts() {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let servers = Options::servers(set.servers().iter().map(Server::addr));
    let proxy = Proxy::start(servers.listener("consistency = \"session\"\nmax_lag_ms = 0"));
    let mut direct = Client::login(set.server(0).port(), "app", "app").expect("a login");
    for sql in [
        "CREATE TABLE app.t(id INT PRIMARY KEY AUTO_INCREMENT, v INT) ENGINE=InnoDB",
        "CREATE TABLE app.m(id INT PRIMARY KEY) ENGINE=MyISAM",
        "CREATE FUNCTION app.writes() RETURNS INT DETERMINISTIC BEGIN INSERT INTO app.t VALUES (); RETURN 1; END",
        "CREATE PROCEDURE app.fails() BEGIN INSERT INTO app.t VALUES (); SIGNAL SQLSTATE '45000'; END",
    ] {
        direct.query(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
    set.wait_synced();
    set.server(1).sql("STOP REPLICA SQL_THREAD");
    let count = "SELECT (SELECT COUNT(*) FROM app.t) + (SELECT COUNT(*) FROM app.m)";
    let before: usize = set.server(0).one(count).parse().expect("a number");
    let insert = "INSERT INTO app.t VALUES ()";
    let kinds: &[(&[&str], usize)] = &[
        (&[insert], 1),
        (&["BEGIN", insert, insert, "COMMIT"], 2),
        (&["BEGIN", insert, "BEGIN", "ROLLBACK"], 1),
        (&["SET autocommit=0", insert, "SET autocommit=1"], 1),
        (&["BEGIN", insert, "CREATE TABLE app.x(id INT)", "DROP TABLE app.x"], 1),
        (&["XA START 'a'", insert, "XA END 'a'", "XA PREPARE 'a'", "XA COMMIT 'a'"], 1),
        (&["INSERT INTO app.m VALUES (1), (2), (1)"], 2),
        (&["SELECT app.writes()"], 1),
        (&["SET session_track_gtids=OWN_GTID", insert], 1),
        (&["SET session_track_gtids=OFF", insert], 1),
        (&["CALL app.fails()"], 1),
    ];
    let mut there = before;
    for (steps, more) in kinds {
        // With EOF packets and without.
        let mut client = proxy.client();
        for sql in *steps {
            let _ = client.query(sql);
        }
        there += more;
        client.query("SET @unpinned = 1").expect("set");
        assert_eq!(client.one(count), there.to_string(), "{steps:?}");
        assert_ne!(set.server(1).one(count), there.to_string(), "the follower is held back");
    }
    // Nothing of it is seen by a client that did not ask.
    let mut client = proxy.client();
    client.send_query("INSERT INTO app.m VALUES (100)");
    assert_eq!(client.read().expect("OK"), [0, 1, 0, 2, 0, 0, 0]);
    // A session that has written nothing reads from the follower; one that did says how fresh it wants to read.
    let mut idle = proxy.client();
    let (old, new) = (set.server(1).one(count), set.server(0).one(count));
    assert_eq!(idle.one(count), old);
    assert_eq!(idle.one(&format!("/* holdfast:strong */ {count}")), new);
    assert_eq!(client.one(&format!("/* holdfast:eventual */ {count}")), old);
    assert_eq!(client.one(count), new);
    client.query("SET @holdfast_consistency = 'eventual'").expect("understood");
    assert_eq!(client.one(count), old);
    assert_eq!(client.one(&format!("/* holdfast:session */ {count}")), new);
    assert_eq!(client.one("SELECT @holdfast_consistency"), "eventual", "the server knows it, too");
    assert_eq!(proxy.metric("holdfast_pinned_sessions", &["reason=\"user_variable\""]), 0.0);
    let fault = client.query("SET @holdfast_consistency = 'sesion'").expect_err("a slip");
    assert_eq!(fault.state(), (1231, "42000"));
    client.query("SET @holdfast_consistency = NULL").expect("understood");
    assert_eq!(client.one(count), new);
}

/// What was lost with the old primary is waited for by nobody.
#[test]
fn a_lost_write_is_forgotten() {
    let set = ReplicaSet::start(SetOptions::asynchronous());
    let servers = Options::servers(set.servers().iter().map(Server::addr)).cluster("accept_lost_writes_after_ms = 500");
    let proxy = Proxy::start(servers.listener("consistency = \"session\"\nmax_lag_ms = 0"));
    set.server(0).sql(TABLE);
    set.wait_synced();
    let mut client = proxy.client();
    client.query("REPLACE INTO app.pairs VALUES (1, 1)").expect("a write");
    set.wait_synced();
    set.replicas().for_each(|replica| drop(replica.sql("STOP REPLICA IO_THREAD")));
    client.query("REPLACE INTO app.pairs VALUES (1, 2)").expect("a write that is lost");
    assert_eq!(client.one("SELECT n FROM app.pairs"), "2");
    set.server(0).kill9();
    set.promote(1);
    until("the loss is accepted", SOON, || client.query("SELECT n FROM app.pairs").is_ok_and(|rows| rows[0][0] == "1"));
    proxy.wait_log("what this session wrote was lost with the old primary");
    client.query("REPLACE INTO app.pairs VALUES (1, 3)").expect("a write on the new primary");
    set.wait_synced();
    let of_followers = || by(&proxy, "follower_known") + by(&proxy, "waited");
    let before = of_followers();
    assert_eq!(client.one("SELECT n FROM app.pairs"), "3");
    until("it reads from a follower", SOON, || {
        assert_eq!(client.one("SELECT n FROM app.pairs"), "3");
        of_followers() > before
    });
}
