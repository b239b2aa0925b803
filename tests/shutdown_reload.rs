//! The proxy's own comings and goings: SIGTERM drops nothing that may finish, and a new configuration or certificate
//! needs no restart.
mod proxy;
mod testbed;

use holdfast::backend::ConnectError;
use proxy::{Client, Options, Proxy, SOON};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use testbed::{Server, ServerOptions, Testbed, until};

fn server(name: &str) -> Server {
    let server = Server::start(ServerOptions::mysql().named(name));
    server.sql("CREATE TABLE app.t(id INT PRIMARY KEY, v INT DEFAULT 0); INSERT INTO app.t(id) VALUES (1),(2)");
    server
}

fn wait_running(server: &Server, text: &str) {
    let sql = format!("SELECT id FROM performance_schema.processlist WHERE user='app' AND info LIKE '%{text}%'");
    until(&format!("the server runs {text}"), SOON, || server.sql(&sql).len() == 1);
}

fn connections(server: &Server) -> usize {
    server.sql("SELECT id FROM performance_schema.processlist WHERE user='app'").len()
}

#[test]
fn sigterm_lets_finish_what_may_finish() {
    let server = server("term");
    let proxy = Proxy::start(Options { json: true, ..Options::servers([server.addr()]) });
    let mut idle = proxy.client();
    let mut busy = proxy.client();
    let mut transaction = proxy.client();
    assert_eq!(idle.one("SELECT 1"), "1");
    transaction.query("BEGIN").expect("a transaction");
    transaction.query("UPDATE app.t SET v=1 WHERE id=1").expect("a write");
    busy.send_query("UPDATE app.t SET v=SLEEP(2)+2 WHERE id=2");
    wait_running(&server, "SLEEP(2)");

    proxy.signal("TERM");

    until("not ready", SOON, || proxy.http("/readyz").is_ok_and(|(status, _)| status == 503));
    let (_, body) = proxy.http("/readyz").expect("an answer");
    assert!(body.contains("shutting down"), "{body}");
    assert_eq!(proxy.http("/livez").expect("an answer").0, 200);
    until("the port is closed", SOON, || TcpStream::connect(("127.0.0.1", proxy.port())).is_err());
    idle.wait_closed();
    transaction.query("UPDATE app.t SET v=v+10 WHERE id=1").expect("the transaction goes on");
    busy.read().expect("the statement in flight is answered");
    busy.wait_closed();
    assert!(proxy.running(), "it waits for the transaction");
    transaction.query("COMMIT").expect("the transaction is committed");
    transaction.wait_closed();

    assert_eq!(proxy.wait_exit(SOON).code(), Some(0));
    assert_eq!(server.sql("SELECT v FROM app.t ORDER BY id"), [["11"], ["2"]]);
    until("no connection is left", SOON, || connections(&server) == 0);
    let log = proxy.log();
    assert!(log.lines().count() > 5);
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
        assert!(line["message"].is_string() && line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
}

#[test]
fn the_deadline_cuts_who_stays() {
    let server = server("deadline");
    let proxy = Proxy::start(
        Options::servers([server.addr()])
            .proxy("shutdown_grace_ms = 0\nshutdown_deadline_ms = 1000\nshutdown_transactions_ms = 500"),
    );
    let mut stays = proxy.client();
    let mut busy = proxy.client();
    stays.query("BEGIN").expect("a transaction");
    stays.query("UPDATE app.t SET v=1 WHERE id=1").expect("a write");
    busy.send_query("SELECT SLEEP(100)");
    wait_running(&server, "SLEEP(100)");
    let began = Instant::now();

    proxy.signal("TERM");

    stays.wait_closed();
    assert!(began.elapsed() >= Duration::from_millis(1400), "it had its time");
    busy.wait_closed();
    assert_eq!(proxy.wait_exit(SOON).code(), Some(0));
    proxy.wait_log("the remaining sessions are cut");
    until("the server's connections are gone", SOON, || connections(&server) == 0);
    assert_eq!(server.one("SELECT v FROM app.t WHERE id=1"), "0", "rolled back");
}

#[test]
fn a_new_configuration_takes_effect_and_a_bad_one_none() {
    let server = server("reload");
    let proxy = Proxy::start(Options::servers([server.addr()]).listener("max_connections = 1"));
    let refused = || matches!(Client::login(proxy.port(), "app", "app"), Err(ConnectError::Refused(_)));
    let mut first = proxy.client();
    assert!(refused());

    // On SIGHUP.
    let wider = proxy.text().replace("max_connections = 1", "max_connections = 2");
    proxy.write(&wider);
    proxy.signal("HUP");
    let mut second = None;
    until("the new limit holds", SOON, || {
        second = Client::login(proxy.port(), "app", "app").ok();
        second.is_some()
    });
    assert!(refused(), "two and no more");

    // A bad file changes nothing; the log says where and why.
    let bad = wider.replace("max_connections = 2", "max_connectons = 5");
    let line = 1 + bad.lines().position(|l| l.contains("max_connectons")).expect("it is there");
    proxy.write(&bad);
    proxy.signal("HUP");
    proxy.wait_log(&format!("holdfast.toml:{line}:"));
    proxy.wait_log("max_connections");
    assert!(refused());
    assert_eq!(first.one("SELECT 1"), "1");
    assert!(proxy.metric("holdfast_config_reloads_total", &["failed"]) >= 1.0);

    // What needs a restart changes nothing either, not even the rest of the file.
    let moved = wider.replace("max_connections = 2", "max_connections = 5").replace("workers = 2", "workers = 1");
    proxy.write(&moved);
    proxy.wait_log("proxy.workers");
    assert!(refused());

    // On a change of the file alone; a lower limit leaves those who are in alone.
    proxy.write(&wider.replace("max_connections = 2", "max_connections = 3"));
    until("the new limit holds", SOON, || !refused());
    until("the trial is gone", SOON, || proxy.sessions() == 2);
    proxy.write(&proxy.text());
    until("the old limit holds again", SOON, refused);
    assert_eq!(first.one("SELECT 2"), "2");
    drop(second);
    until("the second is gone", SOON, || proxy.sessions() == 1);
    assert!(refused(), "one and no more");
}

#[test]
fn certificates_are_taken_over_when_their_files_change() {
    let server = server("certificates");
    let files = Testbed::get().tls();
    let dir = Testbed::get().new_folder("certificates");
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::copy(&files.server_cert, &cert).expect("copied");
    std::fs::copy(&files.server_key, &key).expect("copied");
    let tls = format!("tls = {{ mode = \"preferred\", cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    let proxy = Proxy::start(Options::servers([server.addr()]).listener(&tls));
    let mut before = Client::login_trusting(proxy.port(), &files.ca).expect("signed by the CA");

    // Half of the change: the certificate does not fit the key, the old pair stays.
    let new = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("made");
    std::fs::write(&cert, new.cert.pem()).expect("written");
    proxy.wait_log("certificates not taken over");
    Client::login_trusting(proxy.port(), &files.ca).expect("the old one is still shown");

    std::fs::write(&key, new.signing_key.serialize_pem()).expect("written");
    until("the new certificate is shown", SOON, || Client::login_trusting(proxy.port(), &cert).is_ok());
    let old = Client::login_trusting(proxy.port(), &files.ca).err().expect("not signed by the CA any more");
    assert!(matches!(old, ConnectError::Tls(_)), "{old}");
    assert_eq!(before.one("SELECT 1"), "1", "who is in stays in");
}
