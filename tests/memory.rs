//! Memory stays bounded: many idle clients, values and results far larger than any buffer, a client that reads slowly.
//!
//! `HOLDFAST_TEST_IDLE` says how many idle clients (default 5000, or 1000 where so many files can't
//! be open; each keeps a connection to the server).
mod proxy;
mod testbed;

use holdfast::accounts::Credential;
use holdfast::backend::{ConnectTarget, Connected, LoginRequest, connect, query_text};
use holdfast::tls::{BackendTls, SslMode, TlsFiles};
use holdfast::wire::capabilities::Capabilities;
use proxy::{Options, Proxy, SOON};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testbed::{Server, ServerOptions, until};
use zeroize::Zeroizing;

/// Far below what any of these would take if it were held at once; generous for allocators.
const GROWTH_MAX_KIB: u64 = 16 * 1024;
/// Memory of one idle session and its connection to the server, at most. A debug build's futures are large.
const IDLE_MAX_KIB: u64 = 32;
const CONCURRENT_LOGINS: usize = 32;
const PLAIN: &str = "tls = { mode = \"DISABLED\" }";

async fn log_in(port: u16) -> Connected {
    let target = ConnectTarget {
        address: format!("127.0.0.1:{port}").parse().expect("an address"),
        tls: Arc::new(BackendTls::backend(SslMode::Disabled, TlsFiles::default()).expect("no files")),
        connect_timeout: Duration::from_secs(60),
    };
    let credential = Credential::password(Zeroizing::new(b"app".to_vec()));
    let login = LoginRequest {
        user: b"app",
        credential: &credential,
        database: None,
        collation: 45,
        capabilities: Capabilities::OWN,
        attributes: &[],
        max_packet_size: 1 << 24,
    };
    connect(&target, &login).await.unwrap_or_else(|e| panic!("no login: {e}"))
}

async fn log_in_many(port: u16, count: usize) -> Vec<Connected> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let batch = CONCURRENT_LOGINS.min(count - all.len());
        let tasks: Vec<_> = (0..batch).map(|_| tokio::task::spawn_local(log_in(port))).collect();
        for task in tasks {
            all.push(task.await.expect("a login"));
        }
    }
    all
}

/// For clients that each have a connection here and one to the server.
fn files_for(count: usize) -> usize {
    2 * count + 1000
}

fn raise_open_files(files: usize) -> bool {
    let mut prlimit = Command::new("prlimit");
    prlimit.args([format!("--pid={}", std::process::id()), format!("--nofile={files}")]);
    prlimit.status().is_ok_and(|status| status.success())
}

#[test]
fn idle_clients_cost_little_and_slow_nobody() {
    let asked: Option<usize> = std::env::var("HOLDFAST_TEST_IDLE").ok().and_then(|n| n.parse().ok());
    let counts = asked.map_or(vec![5000, 1000], |count| vec![count]);
    let fits = counts.into_iter().find(|count| raise_open_files(files_for(*count)));
    let count = fits.expect("the limit of open files cannot be raised: set HOLDFAST_TEST_IDLE");
    let files = files_for(count);
    let options = ServerOptions::mysql().named("idle").max_connections(u32::try_from(count).expect("few") + 100);
    let server = Server::start(
        options
            .with(format!("open-files-limit={}", 2 * count + 2000))
            .with("back-log=1000")
            .with("thread-stack=131072"),
    );
    assert_eq!(server.one("SELECT @@max_connections"), (count + 100).to_string(), "the server has room");
    let proxy = Proxy::start(Options {
        files_max: u32::try_from(files).ok(),
        ..Options::servers([server.addr()]).cluster(PLAIN).cluster("account_ttl_s = 3600")
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tasks = tokio::task::LocalSet::new();
    let warm = tasks.block_on(&runtime, log_in_many(proxy.port(), 20));
    let before = proxy.rss_kib();
    let began = Instant::now();

    let mut clients = tasks.block_on(&runtime, log_in_many(proxy.port(), count - warm.len()));

    let took = began.elapsed();
    assert_eq!(proxy.sessions(), count as u64);
    let grown = proxy.rss_kib().saturating_sub(before);
    let each = 1024.0 * grown as f64 / clients.len() as f64;
    println!("{count} idle clients: logged in in {took:?}, memory +{grown} KiB, {each:.0} bytes each");
    assert!(grown <= IDLE_MAX_KIB * clients.len() as u64, "{grown} KiB for {count} idle clients");

    // All of them are served, then all are idle again and the memory is as it was.
    let began = Instant::now();
    tasks.block_on(&runtime, async {
        for client in &mut clients {
            let rows = query_text(&mut client.channel, client.capabilities, "SELECT 1", 1000).await.expect("a row");
            assert_eq!(rows[0][0].as_deref(), Some(&b"1"[..]));
        }
    });
    let after = proxy.rss_kib().saturating_sub(before);
    println!("one query each: {:?}, memory then +{after} KiB", began.elapsed());
    assert!(after <= IDLE_MAX_KIB * clients.len() as u64, "{after} KiB after a query each");

    drop((clients, warm));
    until("all are gone", Duration::from_secs(60), || proxy.sessions() == 0);
    let left = "SELECT id FROM performance_schema.processlist WHERE user='app'";
    until("none is left on the server", Duration::from_secs(60), || server.sql(left).is_empty());
}

/// The most that the proxy's memory has grown since `before`, KiB.
fn growth(proxy: &Proxy, before: u64) -> u64 {
    proxy.rss_peak_kib().saturating_sub(before)
}

#[test]
fn large_values_and_results_pass_through() {
    let server = Server::start(ServerOptions::mysql().named("large").with("max_allowed_packet=64M"));
    server.sql(
        "CREATE TABLE app.t(id INT PRIMARY KEY, v LONGBLOB); SET SESSION cte_max_recursion_depth=1000; \
         CREATE TABLE app.k(id INT PRIMARY KEY); \
         INSERT INTO app.k WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1000) SELECT i FROM n",
    );
    let proxy = Proxy::start(Options::servers([server.addr()]));
    let mut client = proxy.client();
    assert_eq!(client.one("SELECT 1"), "1");

    proxy.reset_rss_peak();
    let before = proxy.rss_kib();
    const BLOB: usize = 20_000_000;
    let text = "b".repeat(BLOB);
    client.query(&format!("INSERT INTO app.t VALUES (1, '{text}')")).expect("a write");
    assert!(client.one("SELECT v FROM app.t WHERE id=1") == text, "what went in comes out");
    let grown = growth(&proxy, before);
    println!("a blob of 20 MB in and out: memory +{grown} KiB");
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB for a blob of 20 MB");

    // A million rows of 120 bytes to a client that stops ever and again.
    proxy.reset_rss_peak();
    let before = proxy.rss_kib();
    let began = Instant::now();
    client.send_query("SELECT a.id, REPEAT('r', 110) FROM app.k a, app.k b");
    let mut rows = 0_u64;
    for _ in 0..3 {
        client.read().expect("the head of the result");
    }
    loop {
        let packet = client.read().expect("a row or the end");
        if packet[0] == 0xFE {
            break;
        }
        rows += 1;
        if rows.is_multiple_of(20_000) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let grown = growth(&proxy, before);
    println!("{rows} rows to a slow reader: {:?}, memory +{grown} KiB", began.elapsed());
    assert_eq!(rows, 1_000_000);
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB for a result of 120 MB");
    client.sequence = 0;
    assert_eq!(client.one("SELECT 1"), "1");
    drop(client);
    until("nobody is left", SOON, || proxy.sessions() == 0);
}
