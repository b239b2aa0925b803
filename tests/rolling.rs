//! Two proxies behind a balancer are replaced one after the other, as a Deployment rolls: pooled clients see no error.
//!
//! The balancer is HAProxy, which asks each proxy's /readyz; the clients are pools as applications use them, with the
//! settings that the README names: a longest life of a connection below `shutdown_deadline_ms`.
#![allow(clippy::unwrap_used, reason = "a test")]

mod proxy;
mod testbed;

use mysql_async::prelude::Queryable;
use mysql_async::{OptsBuilder, Pool, PoolConstraints, PoolOpts, TxOpts};
use proxy::{Options, Proxy, SOON};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testbed::{HaProxy, HaProxyOptions, ReplicaSet, SetOptions, until};

const SHUTDOWN: &str =
    "shutdown_grace_ms = 1000\nshutdown_idle_ms = 1000\nshutdown_deadline_ms = 8000\nshutdown_transactions_ms = 3000";
/// Below `shutdown_deadline_ms` less `shutdown_grace_ms`.
const LIFE_MAX: Duration = Duration::from_secs(4);
const CLIENTS: usize = 24;

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    reads: AtomicU64,
    writes: AtomicU64,
    transactions: AtomicU64,
    longest_ms: AtomicU64,
    errors: Mutex<Vec<String>>,
}

impl Seen {
    fn done(&self) -> u64 {
        [&self.reads, &self.writes, &self.transactions].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn error(&self, what: &str, error: &mysql_async::Error) {
        self.errors.lock().unwrap().push(format!("{what}: {error}"));
    }
}

/// One of an application's threads: takes a connection from the pool for each piece of work. Some are always at it, some
/// now and then, so that there are busy connections and idle ones.
async fn client(pool: Pool, number: usize, seen: Arc<Seen>) {
    let pause = Duration::from_millis([1, 5, 20, 100, 700, 2500][number % 6]);
    let mut n = 0_u64;
    while !seen.stop.load(Ordering::Relaxed) {
        n += 1;
        let began = Instant::now();
        let (what, count, done) = match n % 3 {
            0 => ("read", &seen.reads, read(&pool).await),
            1 => ("write", &seen.writes, write(&pool, number, n).await),
            _ => ("transaction", &seen.transactions, transaction(&pool, number, n).await),
        };
        seen.longest_ms.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
        match done {
            Ok(()) => drop(count.fetch_add(1, Ordering::Relaxed)),
            Err(error) => seen.error(what, &error),
        }
        tokio::time::sleep(pause).await;
    }
}

async fn read(pool: &Pool) -> mysql_async::Result<()> {
    pool.get_conn().await?.query_drop("SELECT COUNT(*) FROM app.roll").await
}

async fn write(pool: &Pool, client: usize, n: u64) -> mysql_async::Result<()> {
    pool.get_conn().await?.exec_drop("INSERT INTO app.roll VALUES (?, ?)", (client, n)).await
}

async fn transaction(pool: &Pool, client: usize, n: u64) -> mysql_async::Result<()> {
    let mut transaction = pool.start_transaction(TxOpts::default()).await?;
    transaction.query_drop(format!("INSERT INTO app.roll VALUES ({client}, {n})")).await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    transaction.query_drop("SELECT 1").await?;
    transaction.commit().await
}

fn load(port: u16, seen: &Arc<Seen>) -> std::thread::JoinHandle<()> {
    let seen = Arc::clone(seen);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let pool = PoolOpts::new()
                .with_constraints(PoolConstraints::new(CLIENTS, CLIENTS).unwrap())
                .with_abs_conn_ttl(Some(LIFE_MAX))
                .with_reset_connection(false);
            let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port).prefer_socket(false);
            let pool = Pool::new(options.user(Some("app")).pass(Some("app")).pool_opts(pool));
            let all = (0..CLIENTS).map(|n| tokio::task::spawn_local(client(pool.clone(), n, Arc::clone(&seen))));
            for task in all.collect::<Vec<_>>() {
                task.await.unwrap();
            }
            pool.disconnect().await.unwrap();
        });
    })
}

#[test]
fn pooled_clients_see_no_error_while_two_proxies_are_replaced() {
    let set = ReplicaSet::start(SetOptions::asynchronous());
    set.source().sql("CREATE TABLE app.roll(client INT, n BIGINT, PRIMARY KEY(client, n))");
    set.wait_synced();
    let servers: Vec<_> = set.servers().iter().map(|server| server.addr()).collect();
    let proxies = [0, 1].map(|_| Proxy::start(Options::servers(servers.clone()).proxy(SHUTDOWN)));
    let mut options =
        HaProxyOptions::to(&proxies.each_ref().map(|p| format!("127.0.0.1:{}", p.port()).parse().unwrap()));
    options.readiness = proxies.iter().map(Proxy::admin_port).collect();
    let balancer = HaProxy::start(&options);
    let seen = Arc::new(Seen::default());
    let clients = load(balancer.port(), &seen);
    until("both proxies have clients", SOON, || proxies.iter().all(|p| p.sessions() >= 4) && seen.done() > 200);

    for round in 0..2 {
        for (n, proxy) in proxies.iter().enumerate() {
            let sessions = proxy.sessions();
            let began = Instant::now();
            proxy.signal("TERM");
            assert_eq!(proxy.wait_exit(SOON).code(), Some(0));
            println!("round {round}, proxy {n}: {sessions} sessions, ended after {} ms", began.elapsed().as_millis());
            assert!(!proxy.log().contains("the remaining sessions are cut"));
            proxy.start_again();
            let before = seen.done();
            until("it has clients again", SOON, || proxy.sessions() >= 4 && seen.done() > before + 100);
        }
    }

    seen.stop.store(true, Ordering::Relaxed);
    clients.join().unwrap();
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (writes, transactions) = (count(&seen.writes), count(&seen.transactions));
    println!(
        "{} reads, {writes} writes, {transactions} transactions, the longest {} ms",
        count(&seen.reads),
        count(&seen.longest_ms)
    );
    assert_eq!(*seen.errors.lock().unwrap(), Vec::<String>::new());
    // Both kinds of connections were there: those the pools ended in their time, and those that were closed idle.
    for end in ["end=\"quit\"", "end=\"shutdown\""] {
        assert!(proxies.iter().any(|proxy| proxy.log().contains(end)), "{end}");
    }
    assert_eq!(set.source().one("SELECT COUNT(*) FROM app.roll"), (writes + transactions).to_string());
}
