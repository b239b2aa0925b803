//! How long clients are without a primary: kills and switchovers of a whole cluster, as clients see them.
//!
//! Few clients, each writing a row and waiting 5 ms. Nothing is asked of the API server between a fault and the first write
//! behind it: kubectl alone takes more of two cores than the failover does.

use super::bed::{Bed, SOON};
use super::proxy::{Client, Proxy};
use super::testbed::until;
use super::{alone, proxy_of};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CLIENTS: u64 = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// One write of a client: when it was sent and answered, and the error number if it failed.
#[derive(Clone, Copy, Debug)]
struct Write {
    client: u64,
    n: u64,
    sent: Instant,
    answered: Instant,
    code: Option<u16>,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    writes: Mutex<Vec<Write>>,
}

/// The clients.
struct Writers {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(port: u16) -> Self {
        let seen = Arc::new(Seen::default());
        let one = |number| {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || write_on(port, number, &seen))
        };
        Self { threads: (0..CLIENTS).map(one).collect(), seen }
    }

    fn writes(&self) -> Vec<Write> {
        self.seen.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until each has had `more` writes acknowledged that were sent after `since`.
    fn wait_more(&self, since: Instant, more: usize) {
        until("all clients go on", SOON, || {
            let writes = self.writes();
            let done = writes.iter().filter(|w| w.sent > since && w.code.is_none());
            (0..CLIENTS).all(|client| done.clone().filter(|w| w.client == client).count() >= more)
        });
    }

    fn stop(self) -> Vec<Write> {
        self.seen.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no client panics"));
        self.seen.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn write_on(port: u16, number: u64, seen: &Seen) {
    let log_in = || Client::login(port, "app", "app").expect("a login");
    let mut client = log_in();
    for n in 1.. {
        if seen.stop.load(Ordering::Relaxed) {
            return;
        }
        let sent = Instant::now();
        let sql = format!("INSERT INTO app.`load`(client, n, server) VALUES ({number}, {n}, @@server_id)");
        let code = client.query(&sql).err().map(|fault| fault.code());
        let write = Write { client: number, n, sent, answered: Instant::now(), code };
        seen.writes.lock().unwrap_or_else(PoisonError::into_inner).push(write);
        if code == Some(0) {
            client = log_in();
        }
        std::thread::sleep(PAUSE);
    }
}

/// A fault: when it came, who was the primary, and when all clients had gone on behind it.
struct Round {
    began: Instant,
    ended: Instant,
    /// `@@server_id` of the primary before.
    server: String,
    /// What the reconciler did meanwhile, and when it began.
    log: String,
}

/// Rounds of one kind.
struct Rounds<'a> {
    bed: &'a Bed,
    proxy: &'a Proxy,
    writers: &'a Writers,
}

impl Rounds<'_> {
    /// Waits until all is well, does `begin` to the primary, and waits until the clients write elsewhere.
    fn round(&self, begin: impl FnOnce(&str)) -> Round {
        self.bed.wait_whole("db");
        self.writers.wait_more(Instant::now(), 10);
        let (primary, term) = (self.bed.primary("db"), self.proxy.metric("holdfast_term", &[]));
        let server = self.bed.sql("db", &primary, "SELECT @@server_id")[0][0].clone();
        let read = self.bed.log().len();
        let (began, at) = (Instant::now(), Timestamp::now());
        begin(&primary);
        until("the proxy has another primary", SOON, || self.proxy.metric("holdfast_term", &[]) > term);
        self.writers.wait_more(Instant::now(), 10);
        Round { began, ended: Instant::now(), server, log: format!("{at} it begins\n{}", &self.bed.log()[read..]) }
    }
}

/// Milliseconds: median and worst.
fn figures(mut all: Vec<Duration>) -> String {
    all.sort();
    let ms = |at: usize| all[at].as_millis();
    format!("median {} ms, worst {} ms of {}", ms(all.len() / 2), ms(all.len() - 1), all.len())
}

fn errors(writes: &[Write], rounds: &[Round]) -> HashMap<u16, usize> {
    let mut codes = HashMap::new();
    let within = |w: &&Write| rounds.iter().any(|round| w.answered > round.began && w.sent < round.ended);
    for code in writes.iter().filter(within).filter_map(|w| w.code) {
        *codes.entry(code).or_default() += 1;
    }
    codes
}

/// As many kills and as many switchovers as HOLDFAST_ROUNDS says, 10 if it says nothing; prints what they cost.
fn measure(bed: &Bed, topology: &str, proxy: &Proxy) {
    let rounds: usize = std::env::var("HOLDFAST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10);
    let writers = Writers::start(proxy.port());
    let all = Rounds { bed, proxy, writers: &writers };
    let kills: Vec<Round> = (0..rounds).map(|_| all.round(|primary| bed.pod(primary).kill9())).collect();
    let switch =
        |n: usize| all.round(|_| bed.ask(&format!("move-{n}"), &json!({ "cluster": "db", "type": "Switchover" })));
    let switches: Vec<Round> = (0..rounds).map(switch).collect();
    bed.wait_whole("db");
    let writes = writers.stop();
    let servers: HashMap<(String, String), String> = bed
        .sql("db", &bed.primary("db"), "SELECT client, n, server FROM app.`load`")
        .into_iter()
        .map(|row| ((row[0].clone(), row[1].clone()), row[2].clone()))
        .collect();
    let server = |w: &Write| servers.get(&(w.client.to_string(), w.n.to_string()));

    let first = |round: &Round| {
        let elsewhere = |w: &&Write| w.code.is_none() && w.answered > round.began && server(w) != Some(&round.server);
        let first = writes.iter().filter(elsewhere).map(|w| w.answered).min().expect("all clients went on");
        first - round.began
    };
    let stall = |round: &Round| {
        let within = writes.iter().filter(|w| w.answered > round.began && w.sent < round.ended);
        within.map(|w| w.answered - w.sent).max().expect("all clients went on")
    };
    let lost = writes.iter().filter(|w| w.code.is_none() && server(w).is_none()).count();
    let show = |what: &str, rounds: &[Round], took: &dyn Fn(&Round) -> Duration| {
        let mut all: Vec<&Round> = rounds.iter().collect();
        all.sort_by_key(|round| took(round));
        for (word, round) in [("median", all[all.len() / 2]), ("slowest", all[all.len() - 1])] {
            println!("{topology}, the {word} {what}, {} ms:\n{}", took(round).as_millis(), round.log);
        }
    };
    show("kill", &kills, &first);
    show("switchover", &switches, &stall);
    println!(
        "{topology}: kill -9 to the first acknowledged write: {}; errors {:?}",
        figures(kills.iter().map(first).collect()),
        errors(&writes, &kills)
    );
    println!(
        "{topology}: switchover, longest stall of a client: {}; errors {:?}",
        figures(switches.iter().map(stall).collect()),
        errors(&writes, &switches)
    );
    println!(
        "{topology}: {} writes acknowledged, {lost} lost; told the reconciler {} times, which looked sooner {} times",
        writes.iter().filter(|w| w.code.is_none()).count(),
        proxy.metric("holdfast_nudges_total", &["result=\"heard\""]),
        bed.metric("holdfast_reconciler_nudged_looks_total", &["cluster=\"db\""]),
    );
    assert_eq!(lost, 0, "every acknowledged write is there");
    assert_eq!(errors(&writes, &switches), HashMap::new(), "nobody notices a switchover");
}

fn medians_of(topology: &str) {
    let _alone = alone();
    let bed = Bed::start();
    bed.create("db", &json!({ "topology": topology, "autoReclone": true }));
    bed.wait_ready("db");
    let proxy = proxy_of(&bed, "db");
    measure(&bed, topology, &proxy);
}

/// `cargo test --release --test reconcile_kubernetes medians -- --include-ignored --nocapture`
#[test]
#[ignore = "some minutes; HOLDFAST_ROUNDS says how many rounds"]
fn medians_of_a_set() {
    medians_of("semisync");
}

/// The same.
#[test]
#[ignore = "some minutes; HOLDFAST_ROUNDS says how many rounds"]
fn medians_of_a_group() {
    medians_of("group");
}
