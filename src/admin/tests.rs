//! Over a real socket, with a client that writes the bytes itself.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

struct Port {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    scrapes: Arc<AtomicUsize>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn open(limits: Limits) -> Port {
    open_with(limits, None).await
}

async fn open_with(limits: Limits, suspect: Option<suspect::Listener>) -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ready, scrapes) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (is_ready, count) = (Arc::clone(&ready), Arc::clone(&scrapes));
    let state = AdminState {
        ready: Arc::new(move || {
            let reasons = vec!["orders: no proven primary".to_owned(), "billing: no proven primary".to_owned()];
            let ready = is_ready.load(SeqCst);
            Readiness { ready, reasons: if ready { Vec::new() } else { reasons }, notes: Vec::new() }
        }),
        topology: Arc::new(|| json!({ "orders": { "term": 7 } })),
        status: Arc::new(|| json!({ "verdict": { "state": "ok" } })),
        prometheus: metrics::install(),
        before_scrape: Arc::new(move || {
            count.fetch_add(1, SeqCst);
        }),
        suspect,
    };
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve_within(listener, state, limits, shutdown.clone()));
    Port { address, ready, scrapes, shutdown, task }
}

/// Writes `bytes` and reads until the port closes. A reset after the answer counts as a close.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    read_all(&mut stream).await
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    exchange(address, format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn each_path() {
    let port = open(Limits::default()).await;
    let table = [
        ("GET", "/livez", "200 OK", "live\n"),
        ("GET", "/readyz", "200 OK", "ready\n"),
        ("GET", "/readyz?verbose", "200 OK", "ready\n"),
        ("GET", "/topology", "200 OK", "\"term\": 7"),
        ("GET", "/topology", "200 OK", "content-type: application/json"),
        ("GET", "/metrics", "200 OK", "holdfast_build_info{version="),
        ("GET", "/metrics", "200 OK", "content-type: text/plain; version=0.0.4"),
        ("GET", "/status.json", "200 OK", "\"state\": \"ok\""),
        ("GET", "/", "200 OK", "<!doctype html>"),
        ("GET", "/", "200 OK", "content-type: text/html; charset=utf-8"),
        ("HEAD", "/livez", "200 OK", "content-length: 5"),
        ("GET", "/nothing", "404 Not Found", "paths: /livez /readyz /metrics /topology /status.json /"),
        ("POST", "/livez", "405 Method Not Allowed", "allow: GET, HEAD"),
    ];
    for (method, path, status, part) in table {
        let answer = ask(port.address, method, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{method} {path}\n{answer}");
        assert!(answer.contains(part), "{method} {path}\n{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(port.scrapes.load(SeqCst), 2);
    let topology = ask(port.address, "GET", "/topology").await;
    let body = topology.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), json!({ "orders": { "term": 7 } }));
}

#[tokio::test]
async fn suspicions_are_told_to_whoever_listens() {
    let listener: suspect::Listener = Arc::new(|suspicion| match (suspicion.cluster, suspicion.namespace) {
        ("orders", None | Some("shop")) => suspect::Heard::Yes,
        ("away", _) => suspect::Heard::NotLeading,
        _ => suspect::Heard::NoSuchCluster,
    });
    let port = open_with(Limits::default(), Some(listener)).await;
    for (method, path, status) in [
        ("POST", "/suspect?cluster=orders", "202 Accepted"),
        ("POST", "/suspect?cluster=orders&namespace=shop", "202 Accepted"),
        ("POST", "/suspect?cluster=orders&namespace=other", "404 Not Found"),
        ("POST", "/suspect?cluster=away", "503 Service Unavailable"),
        ("POST", "/suspect", "400 Bad Request"),
        ("POST", "/suspect?cluster=a/b", "400 Bad Request"),
        ("GET", "/suspect?cluster=orders", "405 Method Not Allowed"),
        ("POST", "/livez", "405 Method Not Allowed"),
    ] {
        let answer = ask(port.address, method, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{method} {path}\n{answer}");
    }
    let deaf = open(Limits::default()).await;
    assert!(ask(deaf.address, "GET", "/suspect?cluster=orders").await.starts_with("HTTP/1.1 404 Not Found"));
}

#[tokio::test]
async fn not_ready_says_why() {
    let port = open(Limits::default()).await;
    port.ready.store(false, SeqCst);
    let answer = ask(port.address, "GET", "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot ready\norders: no proven primary\nbilling: no proven primary\n"), "{answer}");
    assert!(ask(port.address, "GET", "/livez").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn garbage_and_oversize_are_refused() {
    let port = open(Limits::default()).await;
    let garbage = exchange(port.address, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400 Bad Request"), "{garbage}");
    let long = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(64 << 10));
    let answer = exchange(port.address, long.as_bytes()).await;
    // The rest of the request is unread when the port closes, so the answer may be lost in a reset.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let body = b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n";
    assert!(exchange(port.address, body).await.starts_with("HTTP/1.1 200 OK"));
    assert!(ask(port.address, "GET", "/livez").await.ends_with("live\n"));
}

#[tokio::test]
async fn a_slow_head_is_cut_off() {
    let limits = Limits { head_timeout: Duration::from_millis(50), ..Limits::default() };
    let port = open(limits).await;
    for start in [&b""[..], b"GET /livez HTTP/1.1\r\nHost: x\r\nX"] {
        let since = Instant::now();
        let answer = exchange(port.address, start).await;
        assert!(!answer.contains("200 OK"), "{answer}");
        let waited = since.elapsed();
        assert!(waited >= Duration::from_millis(40) && waited < limits.total_timeout, "{waited:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_go_on_is_cut_off_in_the_end() {
    let limits = Limits { total_timeout: Duration::from_millis(50), ..Limits::default() };
    let port = open(limits).await;
    let since = Instant::now();
    exchange(port.address, b"GET").await;
    assert!(since.elapsed() < limits.head_timeout);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let limits = Limits { connections_max: 2, head_timeout: Duration::from_millis(300), ..Limits::default() };
    let port = open(limits).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        idle.push(TcpStream::connect(port.address).await.unwrap());
    }
    let since = Instant::now();
    let answer = ask(port.address, "GET", "/livez").await;
    assert!(answer.ends_with("live\n"), "{answer}");
    assert!(since.elapsed() >= Duration::from_millis(200), "it did not wait: {:?}", since.elapsed());
}

#[tokio::test]
async fn shutdown_ends_what_is_under_way() {
    let port = open(Limits::default()).await;
    let mut open_request = TcpStream::connect(port.address).await.unwrap();
    open_request.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    // A later connection is answered: so the earlier one has been accepted.
    assert!(ask(port.address, "GET", "/livez").await.ends_with("live\n"));
    port.shutdown.cancel();
    open_request.write_all(b"Host: x\r\n\r\n").await.unwrap();
    assert!(read_all(&mut open_request).await.ends_with("live\n"));
    tokio::time::timeout(Duration::from_secs(10), port.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(port.address).await.is_err());
}
