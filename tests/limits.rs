//! Every limit of the configuration, reached: what is over it is refused with an error that says so, or goes another way;
//! what is under it goes on.
mod proxy;
mod testbed;

use holdfast::backend::ConnectError;
use proxy::{Client, Fault, Options, Proxy, SOON, command};
use std::time::{Duration, Instant};
use testbed::{Server, ServerOptions, until};

fn refused(login: Result<Client, ConnectError>) -> String {
    login.err().expect("over the limit").to_string()
}

fn connections(server: &Server) -> usize {
    server.sql("SELECT id FROM performance_schema.processlist WHERE user='app'").len()
}

#[test]
fn connections_of_listener_user_process_and_server() {
    let server = Server::start(ServerOptions::mysql().named("connections"));
    let login =
        |proxy: &Proxy, mode: &str, user: &str, password: &str| Client::login(proxy.port_of(mode), user, password);
    let limits = "max_connections = 3\nmax_connections_per_user = 2";
    let proxy = Proxy::start(Options::servers([server.addr()]).listener(limits));
    let two = [login(&proxy, "split", "app", "app"), login(&proxy, "split", "app", "app")].map(Result::unwrap);
    let error = refused(login(&proxy, "split", "app", "app"));
    assert!(error.contains("1203 (42000)") && error.contains("max_connections_per_user"), "{error}");
    until("the refused one is gone", SOON, || proxy.sessions() == 2);
    let third = login(&proxy, "split", "root", "").expect("another user");
    let error = refused(login(&proxy, "split", "root", ""));
    assert!(error.contains("1040 (HY000)"), "{error}");
    assert!(proxy.metric("holdfast_client_connections_refused_total", &["max_connections"]) >= 1.0);
    drop((two, third));
    until("all are gone", SOON, || proxy.sessions() == 0);
    login(&proxy, "split", "app", "app").expect("there is room again");

    let all = Options::servers([server.addr()]).modes(&["split", "primary"]).proxy("max_connections = 2");
    let proxy = Proxy::start(all);
    let both = [login(&proxy, "split", "app", "app"), login(&proxy, "primary", "app", "app")].map(Result::unwrap);
    let error = refused(login(&proxy, "primary", "app", "app"));
    assert!(error.contains("1040 (HY000)"), "{error}");
    drop(both);
    until("all are gone", SOON, || proxy.sessions() == 0);
    login(&proxy, "primary", "app", "app").expect("there is room again");

    let proxy = Proxy::start(Options::servers([server.addr()]).cluster("backend_connections_max = 2"));
    let both = [(); 2].map(|()| proxy.client());
    let error = refused(login(&proxy, "split", "app", "app"));
    assert!(error.contains("2003") && error.contains("backend_connections_max"), "{error}");
    drop(both);
    until("all are gone", SOON, || proxy.sessions() == 0 && connections(&server) == 0);
    assert_eq!(proxy.client().one("SELECT 1"), "1");
}

#[test]
fn statements_beyond_the_buffer_are_streamed() {
    let server = Server::start(ServerOptions::mysql().named("streamed"));
    server.sql("CREATE TABLE app.t(id INT PRIMARY KEY, v MEDIUMTEXT)");
    let proxy = Proxy::start(Options::servers([server.addr()]).listener("statement_buffer_bytes = 4096"));
    let mut client = proxy.client();
    for (id, length) in [(1, 3000), (2, 4060), (3, 4096), (4, 5000), (5, 300_000)] {
        let text = "x".repeat(length);
        client.query(&format!("INSERT INTO app.t VALUES ({id}, '{text}')")).expect("a write");
        let same = client.one(&format!("SELECT v='{text}' FROM app.t WHERE id={id}"));
        assert_eq!(same, "1", "{length}");
    }
    client.query("BEGIN").expect("a transaction");
    let text = "y".repeat(10_000);
    client.query(&format!("UPDATE app.t SET v='{text}' WHERE id=1")).expect("a write");
    client.query("ROLLBACK").expect("rolled back");
    assert_eq!(client.one("SELECT v=REPEAT('x', 3000) FROM app.t WHERE id=1"), "1");
    let fault = client.query(&format!("SELECT no_such_column, '{text}'")).expect_err("the server's error");
    assert_eq!(fault.code(), 1054);
    // Prepared, executed twice; the text was too long to keep.
    let sql = format!("SELECT LENGTH('{text}')");
    client.send(&[b"\x16", sql.as_bytes()].concat());
    let id = client.read().expect("prepared")[1..5].to_vec();
    client.read().expect("its column");
    for _ in 0..2 {
        client.send(&[b"\x17", &id[..], &[0, 1, 0, 0, 0]].concat());
        client.read().expect("the head of the result");
        assert_eq!(client.drain(), (2, Ok(())));
    }
}

#[test]
fn packets_around_16_mib_both_ways() {
    let server = Server::start(ServerOptions::mysql().named("packets").with("max_allowed_packet=64M"));
    server.sql("CREATE TABLE app.t(id INT PRIMARY KEY, v LONGTEXT)");
    let proxy = Proxy::start(Options::servers([server.addr()]));
    let mut client = proxy.client();
    const MIB_16: usize = 1 << 24;
    for (id, size) in [MIB_16 - 2, MIB_16 - 1, MIB_16, MIB_16 + 1, 20_000_000].into_iter().enumerate() {
        let frame = format!("INSERT INTO app.t VALUES ({id}, '')");
        let length = size - 1 - frame.len();
        let sql = format!("INSERT INTO app.t VALUES ({id}, '{}')", "x".repeat(length));
        assert_eq!(1 + sql.len(), size);
        client.query(&sql).expect("a write");
        let same = client.one(&format!("SELECT v=REPEAT('x', {length}) FROM app.t WHERE id={id}"));
        assert_eq!(same, "1", "in: {size}");

        // a row of one value: the value and its length's length
        let length = size - if size - 4 < MIB_16 { 4 } else { 9 };
        client.send_query(&format!("SELECT REPEAT('y', {length})"));
        client.read().expect("the head");
        client.read().expect("the column");
        let row = client.read().expect("the row");
        assert_eq!(row.len(), size, "out");
        assert!(row[row.len() - length..].iter().all(|b| *b == b'y'), "out: {size}");
        client.read().expect("the end");
        assert_eq!(client.one("SELECT 'in step'"), "in step");
    }
}

#[test]
fn the_servers_own_limit_reaches_the_client() {
    let server = Server::start(ServerOptions::mysql().named("allowed").with("max_allowed_packet=1M"));
    server.sql("CREATE TABLE app.t(id INT PRIMARY KEY, v LONGTEXT)");
    let streamed = Proxy::start(Options::servers([server.addr()]));
    let held = Proxy::start(Options::servers([server.addr()]).listener("statement_buffer_bytes = 33554432"));
    for (way, proxy) in [("streamed", &streamed), ("held", &held)] {
        for head in ["INSERT INTO app.t VALUES (1, '", "SELECT LENGTH('"] {
            for size in [1_100_000, 20_000_000] {
                let mut client = proxy.client();
                let sql = format!("{head}{}')", "x".repeat(size));
                // The server stops reading and closes: a client on its own connection may not get all of it written.
                let _ = client.try_send(&[b"\x03", sql.as_bytes()].concat());
                // it has read one frame, however many there were to be
                client.sequence = 1;
                let fault = client.read().expect_err("too large");
                assert!(matches!(fault, Fault::Error(1153, ..)), "{way}, {head}, {size}: {fault:?}");
            }
        }
        until("no session is left", SOON, || proxy.sessions() == 0);
        assert_eq!(proxy.client().one("SELECT COUNT(*) FROM app.t"), "0");
    }
    until("no connection is left", SOON, || connections(&server) == 0);
}

#[test]
fn held_statements_in_number_and_time() {
    let server = Server::start(ServerOptions::mysql().named("held"));
    let proxy = Proxy::start(Options::servers([server.addr()]).cluster("hold_statements_max = 2\nhold_ms_max = 3000"));
    let [mut first, mut second, mut third] = [(); 3].map(|()| proxy.client());
    server.kill9();
    until("the proxy has no server", SOON, || proxy.http("/readyz").is_ok_and(|r| r.0 == 503));

    let began = Instant::now();
    for client in [&mut first, &mut second] {
        client.send_query("DELETE FROM mysql.user WHERE 1=0");
    }
    until("two are held", SOON, || proxy.metric("holdfast_holding", &[]) == 2.0);
    let fault = third.query("SELECT 1").expect_err("the hold is full");
    assert_eq!(fault.state(), (1041, "HY000"), "{fault:?}");
    assert!(began.elapsed() < Duration::from_millis(2900), "at once");
    for client in [&mut first, &mut second] {
        let fault = client.read().expect_err("held in vain");
        assert_eq!(fault.state(), (2003, "HY000"), "{fault:?}");
    }
    assert!(began.elapsed() >= Duration::from_millis(2900), "they had their time");
    assert!(proxy.metric("holdfast_hold_ends_total", &["timed_out"]) >= 2.0);

    second.send_query("SELECT 4");
    until("one is held", SOON, || proxy.metric("holdfast_holding", &[]) == 1.0);
    drop(second);
    until("it is gone with its client", SOON, || proxy.metric("holdfast_holding", &[]) == 0.0);
    server.start_again();
    for client in [&mut first, &mut third] {
        until("it goes on", SOON, || client.query("SELECT 5").is_ok());
    }
}

/// A listener may hold fewer statements, and shorter, than its cluster; and a cluster counts their bytes.
#[test]
fn held_statements_of_one_listener_and_in_bytes() {
    let server = Server::start(ServerOptions::mysql().named("held-short"));
    let options = || Options::servers([server.addr()]);
    let short = Proxy::start(options().listener("hold_statements_max = 1\nhold_ms_max = 1000"));
    let small = Proxy::start(options().cluster("hold_bytes_max = 1000").listener("hold_ms_max = 60000"));
    let [mut first, mut second] = [(); 2].map(|()| short.client());
    let [mut brief, mut lengthy] = [(); 2].map(|()| small.client());
    server.kill9();
    for proxy in [&short, &small] {
        until("the proxy has no server", SOON, || proxy.http("/readyz").is_ok_and(|r| r.0 == 503));
    }

    let write = "DELETE FROM mysql.user WHERE 1=0";
    first.send_query(write);
    until("one is held", SOON, || short.metric("holdfast_holding", &[]) == 1.0);
    assert_eq!(second.query(write).expect_err("the listener's hold is full").state(), (1041, "HY000"));
    assert_eq!(first.read().expect_err("held for its listener's time").state(), (2003, "HY000"));

    brief.send_query(write);
    until("it is held", SOON, || small.metric("holdfast_holding", &[]) == 1.0);
    let long = format!("{write} /* {} */", "x".repeat(1000));
    assert_eq!(lengthy.query(&long).expect_err("too many bytes").state(), (1041, "HY000"));
    server.start_again();
    brief.read().expect("it goes on");
    until("so does the other", SOON, || lengthy.query(&long).is_ok());
}

#[test]
fn idle_clients_and_slow_ones() {
    let server = Server::start(ServerOptions::mysql().named("idle"));
    let proxy = Proxy::start(Options::servers([server.addr()]).listener("idle_timeout_ms = 1500"));
    let began = Instant::now();
    let mut idle = proxy.client();
    let mut half = proxy.client();
    let mut busy = proxy.client();
    half.write(&command(b"\x03SELECT 1")[..7]).expect("half a command");
    busy.send_query("SELECT SLEEP(3)");
    idle.wait_closed();
    assert!(began.elapsed() >= Duration::from_millis(1400), "it had its time");
    half.wait_closed();
    busy.read().expect("who waits for an answer is not idle");
    assert_eq!(busy.drain(), (2, Ok(())));
    drop(busy);
    until("nobody is left", SOON, || proxy.sessions() == 0 && connections(&server) == 0);
}

#[test]
fn prepared_statements_of_one_session() {
    const MAX: usize = 16_382;
    let server = Server::start(ServerOptions::mysql().named("prepared").with("max_prepared_stmt_count=1000000"));
    let proxy = Proxy::start(Options::servers([server.addr()]));
    let mut client = proxy.client();
    let prepare = command(b"\x16DO 1");
    let mut left = MAX;
    let mut last = Vec::new();
    while left > 0 {
        let batch = left.min(500);
        client.write(&prepare.repeat(batch)).expect("it is taken");
        for _ in 0..batch {
            client.sequence = 1;
            last = client.read().expect("prepared");
        }
        left -= batch;
    }
    client.send(b"\x16DO 1");
    let fault = client.read().expect_err("one too many");
    assert_eq!(fault.state(), (1461, "42000"), "{fault:?}");
    client.send(&[b"\x19", &last[1..5]].concat());
    client.send(b"\x16DO 1");
    client.read().expect("there is room again");
    drop(client);
    let count = "SELECT variable_value FROM performance_schema.global_status WHERE variable_name='Prepared_stmt_count'";
    until("the server has none left", SOON, || server.one(count) == "0");
}
