//! Logging in through the proxy's login, with real clients and real servers.
//!
//! The port under test lets clients in and then moves bytes between them and the server their login was proven on; all
//! that routes statements is left out.
#![allow(clippy::unwrap_used, reason = "a test")]

mod login {
    pub mod door;
    pub mod identity;
}
mod testbed;

use holdfast::accounts::{AccountFile, AccountsConfig, Sealer};
use holdfast::config::ProxyProtocol;
use holdfast::frontend::login::LoginError;
use holdfast::tls::SslMode;
use login::door::{Door, DoorOptions, mariadb, mysql};
use login::identity::identity;
use mysql_async::prelude::Queryable;
use mysql_async::{ChangeUserOpts, OptsBuilder, SslOpts};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testbed::{Server, ServerOptions, Testbed};

const WHO: &str = "SELECT CURRENT_USER()";
const TLS: &[&str] = &["--ssl-mode=REQUIRED"];
const RSA: &[&str] = &["--ssl-mode=DISABLED", "--get-server-public-key"];

#[test]
fn accounts_of_mysql_log_in_cold_and_warm_with_tls_and_without() {
    let server = Server::start(ServerOptions::mysql().named("login"));
    for backend_tls in [true, false] {
        for way in [TLS, RSA] {
            let door = Door::open(&server, DoorOptions { backend_tls, ..DoorOptions::default() });
            server.sql("FLUSH PRIVILEGES");
            for round in ["cold", "warm", "warm again"] {
                assert_eq!(mysql(&door, "app", "app", way, WHO), Ok("app@%".to_owned()), "{round} {way:?}");
            }
            assert_eq!(door.accounts().cached(), 1);
            // The server's own cache is cold, ours is warm: the server gets the password that was kept.
            server.sql("FLUSH PRIVILEGES");
            assert_eq!(mysql(&door, "app", "app", way, WHO), Ok("app@%".to_owned()));
            // Ours is warm: the client needs neither key nor tunnel.
            assert_eq!(mysql(&door, "app", "app", &["--ssl-mode=DISABLED"], WHO), Ok("app@%".to_owned()));
        }
    }
}

#[test]
fn refusals_are_the_servers_own() {
    let server = Server::start(ServerOptions::mysql().named("refused"));
    let door = Door::open(&server, DoorOptions::default());
    for (user, password) in [
        ("app", "wrong"),
        ("app", ""),
        ("nobody", "x"),
        ("nobody", ""),
        ("locked", "locked"),
        ("elsewhere", "elsewhere"),
        ("empty", "x"),
    ] {
        for way in [TLS, RSA] {
            let through = mysql(&door, user, password, way, WHO).expect_err(user);
            let direct = mysql(&server, user, password, way, WHO).expect_err(user);
            assert_eq!(through, direct, "{user} {way:?}");
        }
    }
    assert_eq!(door.accounts().cached(), 0);
    for way in [TLS, RSA] {
        assert_eq!(mysql(&door, "empty", "", way, WHO), Ok("empty@%".to_owned()));
        // The CLI can handle it and is let into the sandbox; in batch mode servers refuse it at the login.
        let expired = mysql(&door, "expired", "expired", way, WHO).expect_err("expired");
        assert_eq!(expired, mysql(&server, "expired", "expired", way, WHO).expect_err("expired"));
    }
    // A schema that does not exist is no reason to forget a password.
    assert!(mysql(&door, "app", "app", TLS, WHO).is_ok());
    let missing = mysql(&door, "app", "app", &["--ssl-mode=DISABLED", "--database=nowhere"], WHO);
    assert!(missing.expect_err("nowhere").contains("1049"));
    assert_eq!(door.accounts().cached(), 1);
}

#[test]
fn a_rotated_password_works_at_once_and_the_old_one_no_more() {
    let server = Server::start(ServerOptions::mysql().named("rotated"));
    server.sql("CREATE USER turn@'%' IDENTIFIED BY 'one'");
    let door = Door::open(&server, DoorOptions::default());
    let login = |password: &str| mysql(&door, "turn", password, RSA, WHO);
    assert!(login("one").is_ok());
    assert!(login("one").is_ok());
    server.sql("ALTER USER turn@'%' IDENTIFIED BY 'two'");
    assert!(login("one").expect_err("old").contains("1045"));
    assert_eq!(door.accounts().cached(), 0, "the refused password is forgotten");
    assert!(login("two").is_ok());
    assert!(login("two").is_ok());
    // Two passwords at once, both remembered.
    server.sql("ALTER USER turn@'%' IDENTIFIED BY 'three' RETAIN CURRENT PASSWORD");
    for password in ["two", "three", "two", "three"] {
        assert!(login(password).is_ok(), "{password}");
    }
    assert!(mysql(&door, "turn", "two", &["--ssl-mode=DISABLED"], WHO).is_ok());
    assert!(mysql(&door, "turn", "three", &["--ssl-mode=DISABLED"], WHO).is_ok());
}

#[test]
fn the_cleartext_plugin_is_for_tls_only() {
    let server = Server::start(ServerOptions::mysql().named("clear"));
    let door = Door::open(&server, DoorOptions::default());
    let clear = ["--enable-cleartext-plugin", "--default-auth=mysql_clear_password"];
    let tls = [TLS, &clear[..]].concat();
    assert_eq!(mysql(&door, "app", "app", &tls, WHO), Ok("app@%".to_owned()));
    let plain = [RSA, &clear[..]].concat();
    // Without TLS the client is asked to use caching_sha2_password instead.
    assert_eq!(mysql(&door, "app", "app", &plain, WHO), Ok("app@%".to_owned()));
}

#[test]
fn clients_speak_compressed() {
    let server = Server::start(ServerOptions::mysql().named("compressed"));
    let door = Door::open(&server, DoorOptions::default());
    for algorithm in ["zlib", "zstd"] {
        for way in [TLS, RSA] {
            let compressed = format!("--compression-algorithms={algorithm}");
            let options = [way, &[&compressed, "--max-allowed-packet=64M"]].concat();
            let login = |sql: &str| mysql(&door, "app", "app", &options, sql);
            // Only this algorithm is allowed: a proxy that did not compress would be refused.
            assert_eq!(login(WHO), Ok("app@%".to_owned()), "{algorithm}");
            for length in [10, 49, 50, 5_000, 300_000, 17_000_000, 34_000_000] {
                let through = login(&format!("SELECT REPEAT('ab', {length} DIV 2)")).unwrap();
                assert_eq!(through.len(), length / 2 * 2, "{algorithm}");
                assert!(through.bytes().step_by(2).all(|b| b == b'a'));
            }
            // And the way up: a statement that is longer than any buffer.
            let long = format!("SELECT LENGTH('{}')", "Holdfast ".repeat(10_000));
            assert_eq!(login(&long), Ok("90000".to_owned()), "{algorithm}");
        }
    }
}

#[test]
fn accounts_of_mariadb_log_in_by_each_source() {
    let server = Server::start(ServerOptions::mariadb().named("login-mariadb"));
    let folder = Testbed::get().new_folder("login-accounts");
    let file = folder.join("accounts");
    let hash = server.one("SELECT authentication_string FROM mysql.user WHERE user = 'native'");
    std::fs::write(&file, format!("# accounts\napp:app\n\nnative:{hash}\n")).unwrap();
    let from_server = AccountsConfig { server: true, ..AccountsConfig::default() };
    let file = AccountFile::open(file, Sealer::new().unwrap()).unwrap();
    let from_file = AccountsConfig { file: Some(file.into()), pass_through: false, ..AccountsConfig::default() };
    for (name, accounts) in [("server", from_server), ("file", from_file)] {
        let options = || DoorOptions { backend_tls: false, accounts: accounts.clone(), ..DoorOptions::default() };
        let door = Door::open(&server, options());
        for user in ["app", "native"] {
            let through = mariadb(&door, user, user, &[], "SELECT CURRENT_USER()");
            assert_eq!(through, Ok(format!("{user}@%")), "{name}");
        }
        for (user, password) in [("app", "wrong"), ("native", "wrong"), ("native", "")] {
            let through = mariadb(&door, user, password, &[], WHO).expect_err(user);
            assert_eq!(through, mariadb(&server, user, password, &[], WHO).expect_err(user), "{name} {user}");
        }
    }
}

#[test]
fn a_file_without_pass_through_lets_nobody_else_in() {
    let server = Server::start(ServerOptions::mysql().named("file"));
    let file = Testbed::get().new_folder("login-file").join("accounts");
    std::fs::write(&file, "repl:repl\n").unwrap();
    let known = Arc::new(AccountFile::open(file.clone(), Sealer::new().unwrap()).unwrap());
    let accounts = AccountsConfig { file: Some(known.clone()), pass_through: false, ..AccountsConfig::default() };
    let door = Door::open(&server, DoorOptions { accounts, ..DoorOptions::default() });
    // Known from the file: not even the first login needs a tunnel or a key.
    assert!(mysql(&door, "repl", "repl", &["--ssl-mode=DISABLED"], WHO).is_ok());
    let refused = mysql(&door, "app", "app", TLS, WHO).expect_err("not in the file");
    assert!(refused.contains("1045"), "{refused}");
    std::fs::write(&file, "repl:repl\napp:app\n").unwrap();
    known.reload().unwrap();
    assert!(mysql(&door, "app", "app", TLS, WHO).is_ok());
    std::fs::write(&file, "no colon\n").unwrap();
    let error = known.reload().unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
    assert!(mysql(&door, "app", "app", TLS, WHO).is_ok());
}

#[test]
fn a_rotated_native_password_is_read_from_the_server_at_once() {
    let server = Server::start(ServerOptions::mariadb().named("rotated-mariadb"));
    let accounts = AccountsConfig { server: true, ..AccountsConfig::default() };
    let door = Door::open(&server, DoorOptions { backend_tls: false, accounts, ..DoorOptions::default() });
    let login = |password: &str| mariadb(&door, "native", password, &[], WHO);
    assert!(login("native").is_ok());
    server.sql("SET PASSWORD FOR native@'%' = PASSWORD('other')");
    // What is known may be a second old.
    let start = Instant::now();
    while login("other").is_err() {
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    assert!(login("native").expect_err("old").contains("1045"));
}

#[test]
fn mariadb_clients_log_in_by_password_and_compress() {
    let server = Server::start(ServerOptions::mariadb().named("mariadb-password"));
    let door = Door::open(&server, DoorOptions { backend_tls: false, ..DoorOptions::default() });
    // Pass-through alone: the account's verifier is not known, so the client is asked for its password, inside TLS.
    let options = ["--ssl", "--compress"];
    for user in ["app", "native", "ed25519"] {
        assert_eq!(mariadb(&door, user, user, &options, WHO), Ok(format!("{user}@%")));
        // From then on its hash is known.
        assert_eq!(mariadb(&door, user, user, &["--skip-ssl"], WHO), Ok(format!("{user}@%")));
    }
    assert!(mariadb(&door, "app", "wrong", &options, WHO).expect_err("wrong").contains("1045"));
}

#[test]
fn modes_of_tls_are_kept() {
    let server = Server::start(ServerOptions::mysql().named("modes"));
    let files = Testbed::get().tls();
    let (cert, key) =
        (format!("--ssl-cert={}", files.client_cert.display()), format!("--ssl-key={}", files.client_key.display()));
    let with_cert = [TLS[0], &cert, &key];
    let open = |mode| Door::open(&server, DoorOptions { mode, ..DoorOptions::default() });
    let login = |door: &Door, user: &str, options: &[&str]| mysql(door, user, user, options, WHO);

    let door = open(SslMode::Disabled);
    assert!(login(&door, "app", TLS).expect_err("no TLS").contains("SSL"));
    assert!(login(&door, "app", RSA).is_ok());

    let door = open(SslMode::Required);
    assert!(login(&door, "app", TLS).is_ok());
    let plain = login(&door, "app", RSA).expect_err("TLS is required");
    assert!(plain.contains("3159"), "{plain}");
    assert!(matches!(door.next_error(), LoginError::Denied(_)));

    let door = open(SslMode::VerifyCa);
    assert!(login(&door, "app", &with_cert).is_ok());
    assert!(login(&door, "app", TLS).is_err());
    assert!(matches!(door.next_error(), LoginError::Tls(_)));

    let folder = Testbed::get().new_folder("login-identity");
    let (tls, cert, key) = identity(&folder, "app");
    let mine = [TLS[0], &cert, &key];
    let door =
        Door::open(&server, DoorOptions { mode: SslMode::VerifyIdentity, tls: Some(tls), ..DoorOptions::default() });
    assert!(login(&door, "app", &mine).is_ok());
    let other = login(&door, "repl", &mine).expect_err("the certificate is another's");
    assert!(other.contains("common name"), "{other}");
    assert!(login(&door, "app", &with_cert).is_err(), "signed by another CA");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let version = format!("--tls-version={version}");
        assert!(login(&open(SslMode::Preferred), "app", &[TLS[0], &version]).is_ok(), "{version}");
    }
}

#[test]
fn an_expired_password_can_be_changed_through_the_port() {
    let server = Server::start(ServerOptions::mysql().named("expired"));
    let door = Door::open(&server, DoorOptions::default());
    let sandbox = [TLS[0], "--connect-expired-password"];
    let login = |password: &str, sql: &str| mysql(&door, "expired", password, &sandbox, sql);
    assert!(login("expired", WHO).expect_err("sandbox").contains("1820"));
    login("expired", "ALTER USER USER() IDENTIFIED BY 'fresh'").unwrap();
    assert_eq!(login("fresh", WHO), Ok("expired@%".to_owned()));
    assert!(login("expired", WHO).expect_err("old").contains("1045"));
}

#[test]
fn repeated_failures_are_slowed_and_a_success_is_not_far() {
    let server = Server::start(ServerOptions::mysql().named("slowed"));
    let door = Door::open(&server, DoorOptions::default());
    let timed = |password: &str| {
        let start = Instant::now();
        (mysql(&door, "app", password, TLS, WHO).is_ok(), start.elapsed())
    };
    for _ in 0..15 {
        assert!(!timed("wrong").0);
    }
    let (_, slow) = timed("wrong");
    assert!(slow >= Duration::from_millis(500), "{slow:?}");
    // Each success halves the count: two bring it below the limit.
    assert!(timed("app").0 && timed("app").0);
    let delay = door.delay();
    assert_eq!(delay, Duration::ZERO);
}

#[test]
fn users_are_changed_on_an_open_connection() {
    let server = Server::start(ServerOptions::mysql().named("change"));
    let door = Door::open(&server, DoorOptions::default());
    let opts = |tls: bool| {
        let ssl = SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true);
        OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(door.number())
            .user(Some("app"))
            .pass(Some("app"))
            .ssl_opts(tls.then_some(ssl))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for tls in [true, false] {
            let mut client = mysql_async::Conn::new(opts(tls)).await.unwrap();
            for user in ["repl", "app", "repl", "empty"] {
                let password = if user == "empty" { "" } else { user };
                let to = ChangeUserOpts::new().with_user(Some(user.into())).with_pass(Some(password.into()));
                client.change_user(to).await.unwrap();
                let now: Option<String> = client.query_first(WHO).await.unwrap();
                assert_eq!(now, Some(format!("{user}@%")));
            }
            let to = ChangeUserOpts::new().with_user(Some("app".into())).with_pass(Some("wrong".into()));
            let refused = client.change_user(to).await.unwrap_err().to_string();
            assert!(refused.contains("1045"), "{refused}");
        }
    });
}

/// Sends `bytes` after the greeting and reads until the other side closes: what it said.
fn raw(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut greeting = [0; 4];
    socket.read_exact(&mut greeting).unwrap();
    let mut greeting = vec![0; usize::from(greeting[0])];
    socket.read_exact(&mut greeting).unwrap();
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

#[test]
fn peers_that_speak_something_else_get_the_servers_own_error() {
    let server = Server::start(ServerOptions::mysql().named("garbage"));
    let door = Door::open(&server, DoorOptions::default());
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 40]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &hello, b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 3306\r\n"] {
        assert_eq!(raw(door.number(), bytes), raw(server.port(), bytes));
        assert!(matches!(door.next_error(), LoginError::Protocol(_)));
    }
    let old = b"\x0d\x00\x00\x01\x05\x20\x00\x00\x00app\x00x\x00\x00\x00";
    let answer = raw(door.number(), old);
    assert_eq!(answer[5..7], 1043u16.to_le_bytes());
    assert!(matches!(door.next_error(), LoginError::Protocol(_)));
}

#[test]
fn half_packets_and_silence_end_with_the_timeout() {
    let server = Server::start(ServerOptions::mysql().named("silence"));
    let door = Door::open(&server, DoorOptions { timeout: Duration::from_millis(300), ..DoorOptions::default() });
    for bytes in [&b""[..], b"\x20\x00", b"\x20\x00\x00\x01\x85\xa6"] {
        let start = Instant::now();
        assert_eq!(raw(door.number(), bytes), b"");
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(matches!(door.next_error(), LoginError::Timeout(_)));
    }
    let gone = TcpStream::connect(("127.0.0.1", door.number())).unwrap();
    drop(gone);
    assert!(matches!(door.next_error(), LoginError::Gone(_)));
}

#[test]
fn a_load_balancers_header_is_read_where_it_is_believed() {
    let server = Server::start(ServerOptions::mysql().named("proxied"));
    for proxy_protocol in [ProxyProtocol::Optional, ProxyProtocol::Required] {
        let door = Door::open(&server, DoorOptions { proxy_protocol, ..DoorOptions::default() });
        let direct = mysql(&door, "app", "app", TLS, WHO);
        assert_eq!(direct.is_ok(), proxy_protocol == ProxyProtocol::Optional, "{direct:?}");
        for header in [
            &b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 3306\r\n"[..],
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\x00\x02\x01\x0a\0\0\x01\x13\x88\x0c\xea",
            b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\x00",
        ] {
            let balancer = login::door::Balancer::to(door.number(), header);
            for way in [TLS, RSA] {
                assert_eq!(mysql(&balancer, "app", "app", way, WHO), Ok("app@%".to_owned()));
            }
        }
    }
}
