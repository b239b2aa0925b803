//! Roles of real servers: proven, lost and proven again while the servers are killed, frozen, cut off and switched over.

#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod testbed;
mod topology {
    pub mod watch;
}

use holdfast::topology::{Hint, ServerEntry, Serving, Source, Topology};
use holdfast::types::{BackendId, Role};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use testbed::{Cable, Group, GroupOptions, ReplicaSet, Server, ServerOptions, SetOptions, until};
use tokio_util::sync::CancellationToken;
use topology::watch::{SOON, Watch, address, runtime};

fn ports<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Vec<u16> {
    servers.into_iter().map(Server::port).collect()
}

/// Watches the servers directly: when each was first seen writable (super_read_only=0), every 2 ms.
fn watch_writable(ports: Vec<u16>, stop: CancellationToken) -> std::thread::JoinHandle<HashMap<u16, Instant>> {
    std::thread::spawn(move || {
        runtime().block_on(async {
            use mysql_async::prelude::Queryable;
            let mut seen = HashMap::new();
            let mut open = Vec::new();
            for port in ports {
                let url = format!("mysql://root@127.0.0.1:{port}/");
                let options = mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(&url).unwrap());
                open.push((port, mysql_async::Conn::new(options.prefer_socket(false)).await.unwrap()));
            }
            while !stop.is_cancelled() {
                for (port, connection) in &mut open {
                    let answer = connection.query_first::<u8, _>("SELECT @@super_read_only").await;
                    if let Ok(Some(0)) = answer {
                        seen.entry(*port).or_insert_with(Instant::now);
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            seen
        })
    })
}

#[test]
fn a_group_whose_primary_is_killed() {
    let group = Group::start(GroupOptions::default());
    let watch = Watch::of_ports(&ports(group.members()));
    let old = group.primary();
    let before = watch.wait_primary(old.port());
    assert_eq!(before.term.0, 1);
    watch.wait("both others follow", |t| t.followers().count() == 2 && !t.doubt);
    assert_eq!(before.server.as_ref().unwrap().default_plugin.as_ref(), "caching_sha2_password");

    let stop = CancellationToken::new();
    let others = ports(group.members()).into_iter().filter(|port| *port != old.port()).collect();
    let direct = watch_writable(others, stop.clone());
    let killed = Instant::now();
    old.kill9();
    // A large process takes its time to die, and its sockets live until then.
    let dead = Instant::now();
    let lost = watch.wait("it is lost", |t| t.primary.is_none());
    let noticed = dead.elapsed();
    assert!(lost.followers().count() == 2, "followers serve on");
    let new = watch.wait("another is the primary", |t| t.primary.is_some());
    assert_eq!(new.term.0, 2);
    let port = new.primary().unwrap().address.port;
    let published = watch.primary_at(port, killed);
    until("it is seen writable directly", SOON, || {
        testbed::query(testbed::Flavor::MySql, port, "root", "", "SELECT @@super_read_only")
            .is_ok_and(|r| r[0][0] == "0")
    });
    stop.cancel();
    let writable = direct.join().unwrap()[&port];
    let behind = published.saturating_duration_since(writable);
    println!(
        "MEASURED kill -9: dead after {:?}, lost published at most {:?} later; writable directly after {:?}; primary published after {:?}, {:?} later",
        dead - killed,
        noticed,
        writable - killed,
        published - killed,
        behind
    );
    assert!(noticed < Duration::from_millis(500), "{noticed:?}");
    assert!(behind < Duration::from_millis(250), "{behind:?}");
    assert_eq!(watch.primaries(), [old.port(), port]);

    group.rejoin(group.members().iter().position(|m| m.port() == old.port()).unwrap());
    watch.wait("the old one follows", |t| t.followers().count() == 2 && !t.doubt);
    assert_eq!(watch.now().term.0, 2);
}

#[test]
fn a_frozen_group_primary_never_comes_back() {
    let group = Group::start(GroupOptions::default());
    let watch = Watch::of_ports(&ports(group.members()));
    let old = group.primary().port();
    watch.wait_primary(old);
    let server = group.members().iter().find(|m| m.port() == old).unwrap();
    server.freeze();
    watch.wait("another is the primary", |t| t.primary().is_some_and(|p| p.address.port != old));
    server.thaw();
    // It calls itself primary for seconds; wait until it has learned better, and look at all that was published.
    let state = "SELECT MEMBER_STATE, MEMBER_ROLE, @@super_read_only FROM performance_schema.replication_group_members \
                 WHERE MEMBER_ID = @@server_uuid";
    let mut claims = 0;
    until("it knows that it was expelled", SOON, || {
        let said = server.try_sql(state).unwrap_or_default();
        claims += usize::from(said.first().is_some_and(|row| row[..] == ["ONLINE", "PRIMARY", "0"]));
        said.first().is_some_and(|row| row[1] != "PRIMARY")
    });
    println!("MEASURED resumed primary: called itself ONLINE, PRIMARY, writable {claims} times (looked every 20 ms)");
    let primaries = watch.primaries();
    assert_eq!(primaries.len(), 2, "{primaries:?}");
    assert_eq!(watch.now().term.0, 2);
}

#[test]
fn a_group_told_by_its_seed() {
    let group = Group::start(GroupOptions::default());
    let seed = group.secondaries()[0].port();
    let watch = Watch::start(Source::Members { seeds: vec![address(seed)], weight: 5 }, "holdfast");
    let old = group.primary().port();
    watch.wait_primary(old);
    let all = watch.wait("all are known", |t| t.followers().count() == 2 && !t.doubt);
    assert_eq!(all.backends.len(), 3);
    assert!(all.backends.iter().all(|b| b.weight == 5));
    // Planned: the hint a session would give, then the new one.
    let new = (0..3).find(|i| group.member(*i).port() != old && group.member(*i).port() != seed).unwrap();
    let begin = Instant::now();
    group.set_as_primary(new);
    let port = group.member(new).port();
    watch.handle.suspect(all.primary.unwrap(), Hint::ReadOnly);
    watch.wait_primary(port);
    println!("MEASURED planned: {:?} from the call, of which the group took most", begin.elapsed());
    watch.wait("the old one follows", |t| t.followers().any(|f| f.address.port == old));
    assert_eq!(watch.primaries(), [old, port]);
}

#[test]
fn a_group_primary_cut_off_from_us_is_kept_in_doubt() {
    let group = Group::start(GroupOptions::default());
    let cables: Vec<Cable> = group.members().iter().map(|m| Cable::to(m.addr())).collect();
    let watch = Watch::of_ports(&cables.iter().map(Cable::port).collect::<Vec<_>>());
    let old = group.primary_index().unwrap();
    let port = cables[old].port();
    watch.wait_primary(port);
    cables[old].cut();
    let doubted = watch.wait("there is doubt", |t| t.doubt);
    assert_eq!(doubted.primary().map(|p| p.address.port), Some(port));
    // The others go on naming it for longer than an answer counts: it is slow, not dead.
    let age = watch.wait("its proof is old", |t| t.proof_age_ms(watch.handle.now_ms()).is_none_or(|age| age > 6000));
    assert_eq!(age.primary().map(|p| p.address.port), Some(port));
    assert!(age.primary_for_writes(watch.handle.now_ms(), 3000).is_none());
    cables[old].mend();
    let again = watch.wait("it is proven again", |t| !t.doubt);
    assert_eq!((again.primary().map(|p| p.address.port), again.term.0), (Some(port), 1));
}

#[test]
fn a_semisync_set_is_switched_over_and_fails_over() {
    let set = ReplicaSet::start(SetOptions::semisync());
    let watch = Watch::of_ports(&ports(set.servers()));
    let first = set.source().port();
    watch.wait_primary(first);
    let ready =
        watch.wait("both others follow without lag", |t| t.followers().filter(|f| f.lag_ms == Some(0)).count() == 2);
    assert_eq!(ready.term.0, 1);
    set.switchover(1);
    let second = set.source().port();
    assert_eq!(watch.wait_primary(second).term.0, 2);
    watch.wait("both others follow", |t| t.followers().count() == 2);

    let killed = Instant::now();
    set.source().kill9();
    watch.wait("it is lost", |t| t.primary.is_none());
    println!("MEASURED semi-sync kill -9: lost published after {:?}", killed.elapsed());
    set.promote(2);
    let opened = Instant::now();
    let third = set.source().port();
    assert_eq!(watch.wait_primary(third).term.0, 3);
    println!("MEASURED semi-sync: primary published {:?} after the end of the promotion", opened.elapsed());
}

#[test]
fn a_primary_that_comes_back_writable_is_stale_until_it_is_written() {
    // Nothing makes these servers read-only when they start, as on many a host.
    let server = ServerOptions::mysql().named("open").with("super-read-only=OFF").with("read-only=OFF");
    let set = ReplicaSet::start(SetOptions { replicas: 1, server, ..SetOptions::asynchronous() });
    let watch = Watch::of_ports(&ports(set.servers()));
    let (first, second) = (set.server(0).port(), set.server(1).port());
    watch.wait_primary(first);
    watch.wait("a writable replica follows", |t| t.followers().count() == 1);
    set.server(0).kill9();
    watch.wait("it is lost", |t| t.primary.is_none());
    set.promote(1);
    assert_eq!(watch.wait_primary(second).term.0, 2);
    set.server(0).start_again();
    watch.wait("the old one answers", |t| t.backends[0].evidence.contains("writable, and not proven"));
    assert_eq!(watch.primary(), Some(second));
    // A write of its own: now nobody can say which one is right.
    set.server(0).sql("CREATE TABLE app.written_by_mistake (id INT PRIMARY KEY)");
    let none = watch.wait("there is no primary", |t| t.primary.is_none());
    assert!(none.why.contains("more than one server can be written"), "{}", none.why);
    set.server(0).sql("SET GLOBAL super_read_only=ON");
    assert_eq!(watch.wait_primary(second).term.0, 2);
    assert_eq!(watch.primaries(), [first, second]);
}

#[test]
fn two_writable_servers_have_no_primary() {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let watch = Watch::of_ports(&ports(set.servers()));
    let first = set.source().port();
    watch.wait_primary(first);
    set.server(1).sql("STOP REPLICA; RESET REPLICA ALL; SET GLOBAL super_read_only=OFF; SET GLOBAL read_only=OFF");
    let none = watch.wait("there is no primary", |t| t.primary.is_none());
    assert!(none.why.contains("more than one"), "{}", none.why);
    assert!(none.doubt && none.followers().count() == 0);
    set.server(0).sql("SET GLOBAL super_read_only=ON");
    assert_eq!(watch.wait_primary(set.server(1).port()).term.0, 2);
}

#[test]
fn a_follower_that_stands_still_falls_behind() {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let watch = Watch::of_ports(&ports(set.servers()));
    let follower = set.server(1).port();
    let lag = |t: &Topology| t.followers().find(|f| f.address.port == follower).and_then(|f| f.lag_ms);
    watch.wait("it follows without lag", |t| lag(t) == Some(0));
    set.server(1).sql("STOP REPLICA SQL_THREAD");
    set.server(0).sql("CREATE TABLE app.late (id INT PRIMARY KEY)");
    watch.wait("it is behind", |t| lag(t).is_some_and(|lag| lag >= 2000));
    assert_eq!(watch.role(follower), Role::Follower);
    set.server(1).sql("START REPLICA SQL_THREAD");
    watch.wait("it has caught up", |t| lag(t) == Some(0));
}

#[test]
fn hints_bring_proof_and_killed_probes_bring_no_change() {
    let server = Server::start(ServerOptions::mysql());
    let watch = Watch::of_ports(&[server.port()]);
    let alone = watch.wait_primary(server.port());
    assert!(alone.backends[0].evidence.contains("only server"));
    for _ in 0..20 {
        let since = watch.handle.suspect(BackendId(0), Hint::ConnectionLost);
        let begin = Instant::now();
        let proven = runtime().block_on(watch.handle.primary_since(since, SOON)).unwrap();
        assert!(proven.proven_ms.unwrap() > since);
        assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    }
    // Somebody kills the prober's connection: it opens another one before it says anything.
    let of_prober = "SELECT COALESCE(GROUP_CONCAT(ID), '') FROM information_schema.processlist WHERE USER='holdfast'";
    for _ in 0..3 {
        let id = server.one(of_prober);
        assert!(!id.is_empty());
        server.sql(&format!("KILL {id}"));
        until("it has another connection", SOON, || {
            let now = server.one(of_prober);
            !now.is_empty() && now != id
        });
    }
    assert_eq!(watch.primaries(), [server.port()]);
    assert!(
        watch.history.lock().unwrap().iter().skip_while(|(_, t)| t.primary.is_none()).all(|(_, t)| t.primary.is_some())
    );
    server.kill9();
    watch.wait("it is lost", |t| t.primary.is_none());
    server.start_again();
    assert_eq!(watch.wait_primary(server.port()).term.0, 1);
    server.sql("SET GLOBAL offline_mode=ON");
    // The first refusal may be a connection that is closed in the middle of its login; then 3032 says why.
    watch.wait("offline_mode ends the role", |t| t.primary.is_none());
    watch.wait("it says why", |t| t.primary.is_none() && t.why.contains("offline"));
}

#[test]
fn an_account_without_rights_says_what_it_needs() {
    let server = Server::start(ServerOptions::mysql());
    server.sql("CREATE USER poor@'%' IDENTIFIED BY 'poor'");
    let watch = Watch::start(
        Source::Static { servers: vec![ServerEntry { address: address(server.port()), weight: 1, role_hint: None }] },
        "poor",
    );
    let said = watch.wait("it was refused", |t| t.backends[0].evidence.contains("SELECT ON performance_schema"));
    assert!(matches!(&said.backends[0].serving, Serving::No { reason } if reason.contains("performance_schema")));
    let wrong = Watch::start(
        Source::Static { servers: vec![ServerEntry { address: address(server.port()), weight: 1, role_hint: None }] },
        "nobody",
    );
    wrong.wait("the login was refused", |t| t.backends[0].evidence.contains("1045"));
}

#[test]
fn a_mariadb_pair_is_switched_over() {
    let set = ReplicaSet::start(SetOptions::mariadb());
    let watch = Watch::of_ports(&ports(set.servers()));
    let first = watch.wait_primary(set.source().port());
    watch.wait("the other follows without lag", |t| t.followers().filter(|f| f.lag_ms == Some(0)).count() == 1);
    let facade = first.server.clone().unwrap();
    assert!(facade.version.starts_with("5.5.5-10."), "{}", facade.version);
    set.switchover(1);
    assert_eq!(watch.wait_primary(set.source().port()).term.0, 2);
    watch.wait("the old one follows", |t| t.followers().count() == 1);
    // Both writable, neither following: nobody.
    set.server(0).sql("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=OFF");
    watch.wait("there is no primary", |t| t.primary.is_none());
}
