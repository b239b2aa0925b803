//! What goes wrong on either side of the proxy: a clear error where one can be read, no connection left behind on the
//! server, no session left behind in the proxy, and everybody else is served on.
mod proxy;
mod testbed;

use holdfast::tls::SslMode;
use holdfast::wire::capabilities::Capabilities;
use proxy::{Client, Options, Proxy, SOON, command, read_all, with_query};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use testbed::{Server, ServerOptions, until};

/// A million rows of 1 kB, made as they are sent.
const LONG: &str = "SELECT a.id, REPEAT('x', 1000) FROM app.t a, app.t b";
const UNKNOWN: (u16, &str) = (1105, "08007");
const ROLLED_BACK: (u16, &str) = (1213, "40001");
const CUT: (u16, &str) = (1159, "08S01");

fn server(name: &str) -> Server {
    let server = Server::start(ServerOptions::mysql().named(name));
    server.sql(
        "CREATE TABLE app.t(id INT PRIMARY KEY, v INT DEFAULT 0); SET SESSION cte_max_recursion_depth=1000; \
         INSERT INTO app.t(id) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1000) SELECT i FROM n",
    );
    server
}

/// Connections of the clients' account on the server.
fn connections(server: &Server) -> Vec<u64> {
    let rows = server.sql("SELECT id FROM performance_schema.processlist WHERE user='app' ORDER BY id");
    rows.iter().map(|row| row[0].parse().expect("an id")).collect()
}

/// Waits until the server runs `count` statements of the clients that contain `text`.
fn wait_running(server: &Server, text: &str, count: usize) {
    let sql = format!("SELECT COUNT(*) FROM performance_schema.processlist WHERE user='app' AND info LIKE '%{text}%'");
    until(&format!("the server runs {text}"), SOON, || server.one(&sql) == count.to_string());
}

/// Nothing is left of anybody but the bystander, who is served.
fn all_is_well(what: &str, server: &Server, proxy: &Proxy, bystander: &mut Client) {
    assert_eq!(bystander.one("SELECT 1"), "1", "{what}");
    until(&format!("no connection is left on the server: {what}"), SOON, || connections(server).len() == 1);
    until(&format!("no session is left in the proxy: {what}"), SOON, || proxy.sessions() == 1);
}

/// Five clients of every kind that a lost server can meet, in the middle of what they do.
struct Caught {
    idle: Client,
    read: Client,
    write: Client,
    transaction: Client,
    result: Client,
    forwarded: Vec<u8>,
}

impl Caught {
    fn in_the_act(server: &Server, proxy: &Proxy) -> Self {
        let mut clients = [(); 5].map(|()| proxy.client());
        for client in &mut clients {
            assert_eq!(client.one("SELECT 1"), "1");
        }
        let [idle, mut read, mut write, mut transaction, mut result] = clients;
        read.send_query("SELECT SLEEP(3), 'caught'");
        write.send_query("UPDATE app.t SET v=v+SLEEP(30) WHERE id=1");
        transaction.query("BEGIN").expect("a transaction");
        transaction.query("UPDATE app.t SET v=77 WHERE id=2").expect("a write");
        result.send_query(LONG);
        let forwarded = result.read().expect("the head of the result");
        wait_running(server, "caught", 1);
        wait_running(server, "SLEEP(30)", 1);
        Self { idle, read, write, transaction, result, forwarded }
    }

    /// What each of them must see once the server is gone, and that they can go on when it is there again.
    fn see(mut self) {
        assert_eq!(self.idle.one("SELECT 2"), "2", "an idle session never notices");
        self.read.read().expect("the read is run again");
        let (packets, end) = self.read.drain();
        assert_eq!((packets, end), (3, Ok(())), "two columns and a row");

        assert_eq!(self.write.read().expect_err("lost").state(), UNKNOWN);
        assert_eq!(self.write.one("SELECT 3"), "3");

        let fault = self.transaction.query("SELECT 1").expect_err("rolled back");
        assert_eq!(fault.state(), ROLLED_BACK);
        assert_eq!(self.transaction.one("SELECT v FROM app.t WHERE id=2"), "0", "usable, and rolled back it is");
        self.transaction.query("UPDATE app.t SET v=1 WHERE id=3").expect("autocommit again");
        assert_eq!(self.idle.one("SELECT v FROM app.t WHERE id=3"), "1");
        self.idle.query("UPDATE app.t SET v=0 WHERE id=3").expect("a write");

        assert_eq!(self.forwarded, [2], "two columns");
        let (packets, end) = self.result.drain();
        assert!(packets > 100, "rows came through before the error: {packets}");
        assert_eq!(end.expect_err("cut").state(), CUT);
        assert_eq!(self.result.one("SELECT 4"), "4", "the session lives");
    }
}

#[test]
fn connections_killed_on_the_server() {
    let server = server("killed");
    let proxy = Proxy::start(Options::servers([server.addr()]));
    let mut bystander = proxy.client();
    let spared = connections(&server)[0];
    let caught = Caught::in_the_act(&server, &proxy);
    for id in connections(&server).into_iter().filter(|id| *id != spared) {
        server.sql(&format!("KILL {id}"));
    }
    caught.see();
    all_is_well("KILL on the server", &server, &proxy, &mut bystander);

    // In a transaction with a statement in flight: rolled back for certain, unless it is the COMMIT.
    let mut client = proxy.client();
    client.query("BEGIN").expect("a transaction");
    client.send_query("UPDATE app.t SET v=SLEEP(30) WHERE id=5");
    wait_running(&server, "SLEEP(30)", 1);
    let id = *connections(&server).last().expect("it is there");
    server.sql(&format!("KILL {id}"));
    assert_eq!(client.read().expect_err("rolled back").state(), ROLLED_BACK);
    assert_eq!(client.one("SELECT 1"), "1");

    // What can't be rebuilt: the client is told and has to connect again.
    client.query("CREATE TEMPORARY TABLE app.mine(a INT)").expect("a temporary table");
    let id = *connections(&server).last().expect("it is there");
    server.sql(&format!("KILL {id}"));
    let fault = client.query("SELECT * FROM app.mine").expect_err("the table went with the connection");
    assert_eq!(fault.state(), (3169, "HY000"));
    client.wait_closed();
    all_is_well("state lost", &server, &proxy, &mut bystander);
}

#[test]
fn a_server_killed_with_kill_9_and_back_again() {
    let server = server("kill9");
    let proxy = Proxy::start(Options::servers([server.addr()]));
    let impatient = Proxy::start(Options::servers([server.addr()]).cluster("hold_ms_max = 1000"));
    let mut bystander = proxy.client();
    let mut first_use = impatient.client();
    let caught = Caught::in_the_act(&server, &proxy);

    server.kill9();

    // Refused connections: the session lives, only the statement and the login fail, after the time to hold.
    let began = Instant::now();
    let fault = first_use.query("UPDATE app.t SET v=9 WHERE id=9").expect_err("there is no server");
    assert_eq!(fault.state(), (2003, "HY000"), "{fault:?}");
    assert!(began.elapsed() >= Duration::from_millis(900), "it was held");
    let fault = first_use.query("SELECT 1").expect_err("there is no server");
    assert_eq!(fault.code(), 2003);
    let refused = Client::login(impatient.port(), "app", "app").err().expect("there is no server").to_string();
    assert!(refused.contains("2003"), "{refused}");
    assert_eq!(impatient.http("/readyz").expect("an answer").0, 503);
    assert_eq!(impatient.http("/livez").expect("an answer").0, 200);

    server.start_again();
    caught.see();
    assert_eq!(bystander.one("SELECT v FROM app.t WHERE id=9"), "0", "not executed, as was said");
    until("the impatient one has the server back", SOON, || impatient.http("/readyz").is_ok_and(|r| r.0 == 200));
    assert_eq!(first_use.one("SELECT 5"), "5");
    drop(first_use);
    until("the impatient proxy is empty", SOON, || impatient.sessions() == 0);
    all_is_well("kill -9", &server, &proxy, &mut bystander);
}

#[test]
fn a_proxy_without_any_server_says_so() {
    let port = testbed::Port::take();
    let nowhere = format!("127.0.0.1:{}", port.number()).parse().expect("an address");
    let proxy = Proxy::launch(Options::servers([nowhere]).cluster("hold_ms_max = 500"));
    let (status, body) = proxy.http("/readyz").expect("an answer");
    assert_eq!(status, 503);
    assert!(body.contains("no proven primary"), "{body}");
    let refused = Client::login(proxy.port(), "app", "app").err().expect("there is no server").to_string();
    assert!(refused.contains("2003") && refused.contains("no server of cluster main"), "{refused}");
    until("no session is left", SOON, || proxy.sessions() == 0);
}

#[test]
fn a_frozen_server_is_waited_for() {
    let server = server("frozen");
    let proxy = Proxy::start(Options::servers([server.addr()]));
    let mut bystander = proxy.client();
    let mut read = proxy.client();
    let mut write = proxy.client();
    assert_eq!(read.one("SELECT 1"), "1");

    server.freeze();
    read.send_query("SELECT 'thawed'");
    write.send_query("UPDATE app.t SET v=v+1 WHERE id=1");
    // The prober has noticed: it can't ask.
    until("the proxy doubts the server", SOON, || proxy.http("/readyz").is_ok_and(|r| r.0 == 503));
    server.thaw();

    read.read().expect("an answer");
    assert_eq!(read.drain(), (2, Ok(())));
    write.read().expect("OK");
    assert_eq!(bystander.one("SELECT v FROM app.t WHERE id=1"), "1", "executed once");
    drop((read, write));
    all_is_well("frozen", &server, &proxy, &mut bystander);
}

#[test]
fn clients_that_vanish() {
    let server = server("vanish");
    let proxy = Proxy::start(Options::servers([server.addr()]).tls("preferred"));
    let mut bystander = proxy.client();

    let mut client = proxy.client();
    client.send_query(LONG);
    client.read().expect("the head of the result");
    drop(client);
    all_is_well("vanished mid-result", &server, &proxy, &mut bystander);

    // While the server thinks: nothing was forwarded, so it is noticed before the answer is there.
    let mut client = proxy.client();
    client.send_query("SELECT SLEEP(100)");
    wait_running(&server, "SLEEP(100)", 1);
    drop(client);
    all_is_well("vanished while the server was busy", &server, &proxy, &mut bystander);

    let tls = || Client::login_with(proxy.port(), "app", "app", SslMode::Required, Capabilities::OWN).expect("a login");
    let mut client = tls();
    client.send_query("SELECT SLEEP(101)");
    wait_running(&server, "SLEEP(101)", 1);
    drop(client);
    all_is_well("vanished while the server was busy, TLS", &server, &proxy, &mut bystander);

    let mut client = proxy.client();
    client.query("BEGIN").expect("a transaction");
    client.query("UPDATE app.t SET v=5 WHERE id=1").expect("a write");
    drop(client);
    all_is_well("vanished in a transaction", &server, &proxy, &mut bystander);
    assert_eq!(bystander.one("SELECT v FROM app.t WHERE id=1"), "0");

    let mut client = proxy.client();
    let whole = with_query("UPDATE app.t SET v=6 WHERE id=1");
    client.write(&whole[..20]).expect("half a command");
    drop(client);
    all_is_well("half a command", &server, &proxy, &mut bystander);
    let mut client = proxy.client();
    // 2 MiB announced, over the buffer: it is on its way to the server already
    let mut half = vec![0, 0, 0x20, 0, 3];
    half.extend_from_slice(b"UPDATE app.t SET v=6 WHERE id=1 -- ");
    half.resize(1 << 20, b' ');
    client.write(&half).expect("half a command");
    drop(client);
    all_is_well("half a long command", &server, &proxy, &mut bystander);
    assert_eq!(bystander.one("SELECT v FROM app.t WHERE id=1"), "0", "half a command is none");

    // A statement that waits for a server is given up with its client.
    let mut client = proxy.client();
    server.kill9();
    client.send_query("UPDATE app.t SET v=7 WHERE id=1");
    until("the proxy has no server", SOON, || proxy.http("/readyz").is_ok_and(|r| r.0 == 503));
    drop(client);
    until("the held statement is gone with its client", SOON, || proxy.sessions() == 1);
    server.start_again();
    all_is_well("vanished while held", &server, &proxy, &mut bystander);
    assert_eq!(bystander.one("SELECT v FROM app.t WHERE id=1"), "0");
}

/// The ERR packet at the end of `bytes`: its number and message. None if there is none.
fn told(bytes: &[u8]) -> Option<(u16, String)> {
    let at = bytes.windows(3).rposition(|w| w[0] == 0xFF && w[1..] != [0xFF, 0xFF])?;
    let code = u16::from_le_bytes([bytes[at + 1], bytes[at + 2]]);
    Some((code, String::from_utf8_lossy(&bytes[at + 3..]).into_owned()))
}

#[test]
fn what_does_not_speak_the_protocol() {
    let server = server("garbage");
    let proxy = Proxy::start(
        Options::servers([server.addr()]).listener("handshake_timeout_ms = 1000\nlogin_failure_delay_ms = 100"),
    );
    let tls_only = Proxy::start(Options::servers([server.addr()]).tls("required"));
    let mut bystander = proxy.client();
    let connect = |port: u16| TcpStream::connect(("127.0.0.1", port)).expect("the port is open");

    let hello = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    for (what, bytes, code) in [
        ("HTTP", &b"GET / HTTP/1.1\r\nHost: db\r\n\r\n"[..], 1156),
        ("a ClientHello", &hello[..], 1156),
        ("noise", &[0x9C, 0xA1, 0x00, 0xE1, 0x77, 0xFE, 0xFF, 0x00, 0x12, 0x13][..], 1156),
        ("an empty packet", &[0, 0, 0, 1][..], 1043),
        ("a packet too long for a login", &[0xFF, 0xFF, 0xFF, 1, 0][..], 1043),
    ] {
        let mut socket = connect(proxy.port());
        socket.write_all(bytes).expect("it is taken");
        let answer = read_all(&mut socket, SOON);
        let (told, message) = told(&answer).unwrap_or_else(|| panic!("{what}: no error in {answer:?}"));
        assert_eq!(told, code, "{what}: {message}");
        all_is_well(what, &server, &proxy, &mut bystander);
    }

    // Nothing at all, half a packet, and a peer that closes in the middle.
    let mut silent = connect(proxy.port());
    let began = Instant::now();
    read_all(&mut silent, SOON);
    assert!(began.elapsed() >= Duration::from_millis(900), "it had its time");
    proxy.wait_log("did not log in within");
    let mut half = connect(proxy.port());
    half.write_all(&[50, 0, 0, 1, 0x8D]).expect("it is taken");
    read_all(&mut half, SOON);
    drop(connect(proxy.port()));
    all_is_well("no login", &server, &proxy, &mut bystander);

    // TLS where there is none, and none where it is required.
    let error = Client::login_with(proxy.port(), "app", "app", SslMode::Required, Capabilities::OWN);
    assert!(error.err().expect("no TLS here").to_string().contains("TLS"));
    let error = Client::login(tls_only.port(), "app", "app").err().expect("TLS is required").to_string();
    assert!(error.contains("3159"), "{error}");
    let mut plain = connect(tls_only.port());
    plain.write_all(&hello).expect("it is taken");
    assert_eq!(told(&read_all(&mut plain, SOON)).map(|t| t.0), Some(1156), "TLS before the greeting is read");
    until("no session is left", SOON, || tls_only.sessions() == 0);
    all_is_well("TLS", &server, &proxy, &mut bystander);
}

#[test]
fn commands_out_of_order_and_malformed() {
    let server = server("order");
    let proxy = Proxy::start(Options::servers([server.addr()]));
    let mut bystander = proxy.client();
    assert_eq!(bystander.one("SELECT 1"), "1");

    for (what, bytes, code) in [
        ("out of order", vec![1, 0, 0, 1, 0x0E], 1156),
        ("an execute without an id", command(&[0x17, 1, 0]), 1835),
        ("long data without an id", command(&[0x18, 1]), 1835),
    ] {
        let mut client = proxy.client();
        client.write(&bytes).expect("it is taken");
        client.sequence = 1;
        let fault = client.read().expect_err(what);
        assert_eq!(fault.code(), code, "{what}: {fault:?}");
        client.wait_closed();
        all_is_well(what, &server, &proxy, &mut bystander);
    }
    for (what, bytes, code) in [
        ("a command nobody knows", command(&[0x55]), 1047),
        ("an empty packet", vec![0, 0, 0, 0], 1047),
        ("a statement nobody prepared", command(&[0x17, 9, 9, 0, 0, 0, 1, 0, 0, 0]), 1243),
    ] {
        let mut client = proxy.client();
        client.write(&bytes).expect("it is taken");
        client.sequence = 1;
        assert_eq!(client.read().expect_err(what).code(), code, "{what}");
        client.sequence = 0;
        assert_eq!(client.one("SELECT 7"), "7", "{what}: the session goes on");
        drop(client);
        all_is_well(what, &server, &proxy, &mut bystander);
    }
    // Two commands in one write are answered in turn.
    let mut client = proxy.client();
    client.write(&[command(&[0x0E]), command(&[0x0E])].concat()).expect("it is taken");
    client.sequence = 1;
    client.read().expect("OK");
    client.sequence = 1;
    client.read().expect("OK");
}

/// Some clients answer a request for a file that they can't open with nothing, and go on with their next command.
#[test]
fn a_file_out_of_order() {
    let loads = Capabilities::OWN | Capabilities::LOCAL_FILES;
    for options in [ServerOptions::mysql(), ServerOptions::mariadb()] {
        let server = Server::start(options.named("infile").with("local_infile=ON"));
        server.sql("CREATE TABLE app.f(line TEXT)");
        let proxy = Proxy::start(Options::servers([server.addr()]));
        let mut bystander = proxy.client();
        assert_eq!(bystander.one("SELECT 1"), "1");
        for (what, before) in [("instead of the file", 0), ("in the middle of it", 3)] {
            let mut client = Client::login_with(proxy.port(), "app", "app", SslMode::Disabled, loads).unwrap();
            client.send_query("LOAD DATA LOCAL INFILE 'f' INTO TABLE app.f");
            assert_eq!(client.read().unwrap(), b"\xFBf");
            (0..before).for_each(|n| client.send_more(format!("{n}\n").as_bytes()));
            let expected = client.sequence;
            client.write(&with_query("SELECT 1")).unwrap();
            client.sequence = expected;
            let fault = client.read().expect_err(what);
            assert_eq!(fault.state(), (1156, "08S01"), "{what}: {fault:?}");
            client.wait_closed();
            let left = "SELECT id FROM information_schema.processlist WHERE user = 'app'";
            until(&format!("no connection is left: {what}"), SOON, || server.sql(left).len() == 1);
            until(&format!("no session is left: {what}"), SOON, || proxy.sessions() == 1);
        }
        // In order: all of it, past the number's turn.
        let mut client = Client::login_with(proxy.port(), "app", "app", SslMode::Disabled, loads).unwrap();
        server.sql("TRUNCATE app.f");
        client.send_query("LOAD DATA LOCAL INFILE 'f' INTO TABLE app.f");
        client.read().unwrap();
        (0..300).for_each(|n| client.send_more(format!("{n}\n").as_bytes()));
        client.send_more(b"");
        client.read().unwrap();
        assert_eq!(client.one("SELECT COUNT(*) FROM app.f"), "300");
    }
}
