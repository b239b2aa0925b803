//! KILL by the id that a client knows, whichever server runs its statement.
mod proxy;
mod testbed;

use proxy::{Client, Options, Proxy, SOON};
use testbed::{Flavor, ReplicaSet, Server, SetOptions, until};

fn start(options: SetOptions) -> (ReplicaSet, Proxy) {
    let set = ReplicaSet::start(options);
    set.source().sql("CREATE TABLE app.t(id INT PRIMARY KEY); INSERT INTO app.t VALUES (1),(2)");
    set.wait_synced();
    let proxy = Proxy::start(Options::servers(set.servers().iter().map(Server::addr)));
    let follower = set.server(1).one("SELECT @@server_id");
    let mut reader = proxy.client();
    until("reads go to the follower", SOON, || reader.one("SELECT @@server_id") == follower);
    (set, proxy)
}

fn running(server: &Server, text: &str) -> usize {
    let sql = format!("SELECT id FROM information_schema.processlist WHERE user<>'root' AND info LIKE '%{text}%'");
    server.sql(&sql).len()
}

fn wait_running(server: &Server, text: &str) {
    until(&format!("the server runs {text}"), SOON, || running(server, text) == 1);
}

fn connections(server: &Server) -> usize {
    let sql = "SELECT id FROM information_schema.processlist WHERE user IN ('app', 'two')";
    server.sql(sql).len()
}

/// Ends the connection `id` as the flavor's clients do without SQL.
fn process_kill(client: &mut Client, id: u32) -> Result<(), u16> {
    client.send(&[&[0x0C], &id.to_le_bytes()[..]].concat());
    client.read().map(drop).map_err(|fault| fault.code())
}

fn kills(flavor: Flavor, set: &ReplicaSet, proxy: &Proxy) {
    let (primary, follower) = (set.server(0), set.server(1));
    let mut killer = proxy.client();
    assert_eq!(killer.one("SELECT COUNT(*) FROM app.t"), "2");

    // The statement, on the follower and on the primary.
    let mut victim = proxy.client();
    for (sql, text, server) in [
        ("SELECT SLEEP(101) FROM app.t", "SLEEP(101)", follower),
        ("DELETE FROM app.t WHERE SLEEP(102)", "SLEEP(102)", primary),
    ] {
        victim.send_query(sql);
        wait_running(server, text);
        killer.query(&format!("KILL QUERY {}", victim.id)).expect("the right to kill one's own");
        let fault = victim.drain().1.expect_err("interrupted");
        assert_eq!(fault.state(), (1317, "70100"), "{fault:?}");
        victim.sequence = 0;
        assert_eq!(victim.one("SELECT 1"), "1", "the session lives");
    }
    // Nothing runs: nothing is killed.
    killer.query(&format!("KILL QUERY {}", victim.id)).expect("it is there");
    assert_eq!(victim.one("SELECT 2"), "2");

    // The connection, in the middle of a statement on either, and idle: none is run again elsewhere.
    for (sql, text, server) in [
        ("SELECT SLEEP(103) FROM app.t", "SLEEP(103)", follower),
        ("DELETE FROM app.t WHERE SLEEP(104)", "SLEEP(104)", primary),
    ] {
        let mut victim = proxy.client();
        victim.send_query(sql);
        wait_running(server, text);
        killer.query(&format!("KILL {}", victim.id)).expect("the right to kill one's own");
        victim.wait_closed();
        until("it runs nowhere", SOON, || running(primary, text) + running(follower, text) == 0);
    }
    killer.query(&format!("KILL CONNECTION {}", victim.id)).expect("the right to kill one's own");
    victim.wait_closed();

    // Idle, and a statement comes just then: it is not run on another connection.
    let attempts = (0..300).map(|n| std::time::Duration::from_micros(n % 30 * 50));
    let survived = attempts.filter(|pause| {
        let mut victim = proxy.client();
        victim.query("DO 1").expect("an answer");
        let kill = format!("KILL {}", victim.id);
        std::thread::scope(|scope| {
            let killed = scope.spawn(|| killer.query(&kill).expect("the right to kill one's own"));
            std::thread::sleep(*pause);
            let answered = victim.try_send(b"\x03DO SLEEP(1)").is_ok() && victim.read().is_ok();
            killed.join().expect("no panic");
            answered
        })
    });
    assert_eq!(survived.count(), 0, "statements that outlived the KILL of their connection");

    // One that does not read what it asked for.
    let mut victim = proxy.client();
    victim.send_query(
        "SELECT a.id, REPEAT('x', 100000) FROM app.t a, app.t b, app.t c, app.t d, app.t e, app.t f, app.t g, app.t h",
    );
    victim.read().expect("the head of the result");
    let asked = "SELECT state FROM information_schema.processlist WHERE info LIKE '%app.t h'";
    until("the server waits for the reader", SOON, || {
        follower.sql(asked).iter().any(|row| ["Sending to client", "Writing to net"].contains(&row[0].as_str()))
    });
    let before = proxy.sessions();
    killer.query(&format!("KILL {}", victim.id)).expect("the right to kill one's own");
    until("its session is gone", SOON, || proxy.sessions() == before - 1);

    // By the id that the primary knows.
    let mut victim = proxy.client();
    let id = victim.one("SELECT CONNECTION_ID()");
    killer.query(&format!("KILL {id}")).expect("the right to kill one's own");
    victim.wait_closed();

    // One's own.
    let mut victim = proxy.client();
    let fault = victim.query(&format!("KILL {}", victim.id)).expect_err("interrupted");
    assert_eq!(fault.code(), if flavor == Flavor::MariaDb { 1927 } else { 1317 }, "each server's own word");
    victim.wait_closed();

    // The server's word on ids that are not there, and on rights.
    for id in [1_073_900_000, 999_999] {
        assert_eq!(killer.query(&format!("KILL {id}")).expect_err("nobody").code(), 1094);
    }
    let mut victim = proxy.client();
    assert_eq!(victim.one("SELECT COUNT(*) FROM app.t"), "2");
    let mut stranger = Client::login(proxy.port(), "two", "two").expect("a login");
    for sql in ["KILL", "KILL QUERY"] {
        victim.send_query("SELECT SLEEP(1) FROM app.t");
        wait_running(follower, "SLEEP(1)");
        assert_eq!(stranger.query(&format!("{sql} {}", victim.id)).expect_err("no right").code(), 1095);
        victim.read().expect("the head of the result");
        assert_eq!(victim.drain(), (3, Ok(())), "not interrupted");
        victim.sequence = 0;
    }
    if flavor == Flavor::MariaDb {
        assert_eq!(process_kill(&mut stranger, victim.id), Err(1095));
        assert_eq!(victim.one("SELECT 3"), "3");
        assert_eq!(process_kill(&mut killer, victim.id), Ok(()));
        victim.wait_closed();
    } else {
        // 9.7 does not have the command any more.
        assert_eq!(process_kill(&mut killer, 999_999), Err(1047));
        drop(victim);
    }
    drop((killer, stranger));
    until("no session is left", SOON, || proxy.sessions() == 0);
    until("no connection is left", SOON, || connections(primary) + connections(follower) == 0);
}

#[test]
fn kill_on_mysql() {
    let (set, proxy) = start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    kills(Flavor::MySql, &set, &proxy);
}

#[test]
fn kill_on_mariadb() {
    let (set, proxy) = start(SetOptions::mariadb());
    kills(Flavor::MariaDb, &set, &proxy);
}
