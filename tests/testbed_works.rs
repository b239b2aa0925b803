//! The testbed itself: every kind of server starts, breaks and recovers.
mod testbed;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testbed::{
    Cable, Flavor, Group, GroupOptions, HaProxy, HaProxyOptions, Port, ReplicaSet, Router, Server, ServerOptions,
    SetOptions, Testbed, query, until,
};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_server_keeps_its_data_over_kill9_and_its_silence_is_real() {
    let server = Server::start(ServerOptions::mysql().with("max_allowed_packet=32M"));
    assert_eq!(server.one("SELECT @@max_allowed_packet"), "33554432");
    server.sql("CREATE TABLE app.t(id INT PRIMARY KEY, v TEXT); INSERT INTO app.t VALUES (1, 'a\tb\\nc')");
    let before = server.pid();

    server.kill9();
    assert!(!server.running());
    assert!(server.try_sql("SELECT 1").is_err());
    server.start_again();

    assert_ne!(server.pid(), before);
    assert_eq!(server.sql("SELECT * FROM app.t"), [["1", "a\tb\nc"]]);
    server.freeze();
    assert!(server.frozen() && server.running());
    let begin = Instant::now();
    assert!(server.try_sql("SELECT 1").is_err());
    assert!(begin.elapsed() > Duration::from_secs(4), "the client waited");
    server.thaw();
    assert_eq!(server.one("SELECT 1"), "1");
    server.restart();
    assert_eq!(server.one("SELECT COUNT(*) FROM app.t"), "1");
}

#[test]
fn a_server_that_dies_at_start_says_why() {
    let Err(error) = Server::try_start(ServerOptions::mysql().with("no_such_option=1")) else {
        panic!("started with an unknown option");
    };
    assert!(error.0.contains("no_such_option"), "{error}");
    let Err(error) = Server::try_start(ServerOptions::mariadb().with("no_such_option=1")) else {
        panic!("started with an unknown option");
    };
    assert!(error.0.contains("no_such_option"), "{error}");
}

/// Between fork and exec a process has its parent's command line, or none: looked at then, it was taken for dead.
#[test]
fn a_server_that_takes_long_to_become_its_program_is_not_taken_for_dead() {
    let (folder, port) = (Testbed::get().new_folder("slow-exec"), Port::take());
    let script = r#"
        set -euo pipefail
        . tests/testbed/lib.sh
        load_env
        trap 'kill -9 "$(cat "$0/1/started")" 2> "$0/killed" || true' EXIT
        setsid() { sleep 1; exec setsid "$@"; }
        node_start mysql "$0/1" "$1"
        cp "$0/1/pid" "$0/1/started"
        node_wait "$0/1" "$1"
        pid=$(node_pid "$0/1")
        [ "$pid" = "$(bash -c '. tests/testbed/lib.sh; node_pid "$0"' "$0/1")" ] || die "another shell does not see it"
        (trap 'node_pid "$0/1" > "$0/seen"' EXIT; exit 130) || [ -s "$0/seen" ] || die "a trap does not see it"
        node_stop "$0/1"
        for other in "$pid" $$ 1; do
          echo "$other" > "$0/1/pid"
          if node_pid "$0/1"; then die "$other is no server"; fi
        done
    "#;
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).arg(&folder).arg(port.number().to_string());
    let ran = bash.output().expect("bash");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn accounts_are_accepted_and_refused_as_they_should() {
    let mysql = Server::start(ServerOptions::mysql().named("accounts").auto_tls());
    let mariadb = Server::start(ServerOptions::mariadb());
    for server in [&mysql, &mariadb] {
        let login = |user: &str, password: &str| server.sql_as(user, password, "SELECT 1");
        for user in ["app", "repl", "holdfast", "tlsonly"] {
            assert!(login(user, user).is_ok(), "{user}");
        }
        assert_eq!(login("empty", ""), Ok(vec![vec!["1".to_owned()]]));
        for (user, password, code) in [
            ("expired", "expired", "1820"),
            ("app", "wrong", "1045"),
            ("nobody", "", "1045"),
            ("x509", "x509", "1045"),
            ("elsewhere", "elsewhere", "1045"),
        ] {
            let error = login(user, password).expect_err(user);
            assert!(error.contains(code), "{user}: {error}");
        }
        let locked = login("locked", "locked").expect_err("locked");
        assert!(locked.contains("3118") || locked.contains("4151"), "{locked}");
    }
    assert!(mysql.tls().ca.exists() && mariadb.tls().ca.exists());
    for user in ["native", "ed25519"] {
        assert!(mariadb.sql_as(user, user, "SELECT 1").is_ok(), "{user}");
    }
    let probe = "SELECT COUNT(*) FROM performance_schema.replication_group_members";
    assert!(mysql.sql_as("holdfast", "holdfast", probe).is_ok());
}

#[test]
fn sets_switch_over_and_fail_over() {
    let semisync = ReplicaSet::start(SetOptions::semisync());
    let mariadb = ReplicaSet::start(SetOptions::mariadb());
    for set in [&semisync, &mariadb] {
        set.source().sql("CREATE TABLE app.t(id INT PRIMARY KEY); INSERT INTO app.t VALUES (1)");

        set.switchover(1);
        set.source().sql("INSERT INTO app.t VALUES (2)");
        set.wait_synced();
        assert_eq!(set.server(0).one("SELECT COUNT(*) FROM app.t"), "2");
        let refused = set.server(0).sql_as("repl", "repl", "INSERT INTO app.t VALUES (9)");
        assert!(refused.is_err());

        set.source().kill9();
        set.promote(0);
        set.source().sql("INSERT INTO app.t VALUES (3)");
        set.rejoin(1);
        assert_eq!(set.server(1).one("SELECT COUNT(*) FROM app.t"), "3");
        for replica in set.replicas() {
            assert_eq!(replica.one("SELECT @@read_only"), "1");
        }
    }
    let status = "SHOW STATUS LIKE 'Rpl_semi_sync_source_yes_tx'";
    assert_ne!(semisync.source().sql(status)[0][1], "0", "commits were acknowledged");
}

#[test]
fn an_async_replica_lags_and_catches_up() {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    set.server(1).sql("STOP REPLICA SQL_THREAD");
    set.source().sql("CREATE TABLE app.t(id INT PRIMARY KEY)");
    assert!(set.server(1).try_sql("SELECT * FROM app.t").is_err());
    set.server(1).sql("START REPLICA SQL_THREAD");
    set.wait_synced();
    assert!(set.server(1).try_sql("SELECT * FROM app.t").is_ok());
}

#[test]
fn a_group_elects_another_primary_and_routers_follow() {
    let group = Group::start(GroupOptions::default());
    let router = Router::start_metadata(&group);
    let plain = Router::start_static(&[group.member(0).addr(), group.member(1).addr()]);
    let through = |port| query(Flavor::MySql, port, "app", "app", "SELECT @@port");
    let is = |answer: Result<testbed::Rows, String>, server: &Server| {
        answer.is_ok_and(|rows| rows[0][0] == server.port().to_string())
    };
    assert_eq!(group.primary_index(), Some(0));
    assert!(is(through(router.rw_port()), group.member(0)));
    assert!(is(through(plain.rw_port()), group.member(0)));
    assert!(!is(through(router.ro_port()), group.member(0)));

    group.set_as_primary(2);
    assert_eq!(group.wait_primary(), 2);
    group.primary().sql("CREATE TABLE app.t(id INT PRIMARY KEY); INSERT INTO app.t VALUES (1)");

    group.member(2).kill9();
    let new = group.wait_new_primary(2);
    group.member(new).sql("INSERT INTO app.t VALUES (2)");
    until("the router follows", SOON, || is(through(router.rw_port()), group.member(new)));

    group.rejoin(2);
    group.wait_online(3);
    let count = || group.member(2).one("SELECT COUNT(*) FROM app.t");
    until("the member has all rows", SOON, || count() == "2");
}

#[test]
fn haproxy_passes_to_the_first_that_lives_and_a_cable_can_be_cut() {
    let servers = [0, 1].map(|i| Server::start(ServerOptions::mysql().named(format!("behind-{i}"))));
    let haproxy = HaProxy::start(&HaProxyOptions::to(&[servers[0].addr(), servers[1].addr()]));
    let port = |answer: Result<testbed::Rows, String>| answer.ok().map(|rows| rows[0][0].clone());
    let behind = || port(query(Flavor::MySql, haproxy.port(), "app", "app", "SELECT @@port"));
    assert_eq!(behind(), Some(servers[0].port().to_string()));
    servers[0].kill9();
    until("haproxy takes the second", SOON, || behind() == Some(servers[1].port().to_string()));

    let cable = Cable::to(servers[1].addr());
    let over = || query(Flavor::MySql, cable.port(), "app", "app", "SELECT 1");
    assert!(over().is_ok());
    cable.cut();
    assert!(over().is_err());
    cable.mend();
    assert!(over().is_ok());
}

#[test]
fn a_failed_test_keeps_its_logs_and_leaves_no_server() {
    let seen = std::sync::Mutex::new(None);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let server = Server::start(ServerOptions::mysql().named("kept"));
        *seen.lock().expect("only we lock it") = server.pid().map(|pid| (pid, server.dir().to_owned()));
        panic!("as a test does that fails");
    }));
    assert!(failed.is_err());
    let (pid, dir) = seen.into_inner().expect("only we lock it").expect("it ran");
    assert!(!dir.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let folder = dir.file_name().and_then(|n| n.to_str()).expect("a name");
    let kept = Testbed::get().root().join(format!("failed/{}-{folder}", std::process::id()));
    let log = std::fs::read_to_string(kept.join("err.log")).expect("the log was kept");
    assert!(log.contains("ready for connections"), "{log}");
    assert!(kept.join("my.cnf").exists());
    std::fs::remove_dir_all(kept).expect("ours to remove");
}

/// Not a test by itself: the process that the next one kills.
#[test]
#[ignore = "run by servers_die_with_a_killed_test_process"]
fn starts_a_server_and_waits() {
    let server = Server::start(ServerOptions::mysql().named("orphan"));
    println!("pid={}", server.pid().expect("it runs"));
    std::thread::park();
}

#[test]
fn servers_die_with_a_killed_test_process() {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(std::env::current_exe().expect("a test has a path"))
        .args(["--ignored", "--exact", "--nocapture", "starts_a_server_and_waits"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be run again");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let line = output.lines().map_while(Result::ok).find(|l| l.contains("pid="));
    let line = line.expect("the server started");
    let pid: u32 = line.rsplit('=').next().and_then(|p| p.trim().parse().ok()).expect("a number");
    let status = format!("/proc/{pid}/stat");
    assert!(std::fs::exists(&status).is_ok_and(|there| there));

    child.kill().expect("SIGKILL");
    child.wait().expect("it ended");

    // a zombie that nobody reaps yet is dead too
    until("the orphan is dead", SOON, || std::fs::read_to_string(&status).map_or(true, |s| s.contains(") Z")));
}
