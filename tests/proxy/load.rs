//! Many clients of another make (mysql_async) that write and read, each on one connection for as long as it lasts.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the clients write to: `app.load`. `place` is where in the order of all writes: whoever takes over counts on from where
/// the one before it was.
pub const TABLE: &str = "CREATE TABLE app.`load`(client INT, n INT, server BIGINT, place BIGINT AUTO_INCREMENT, \
     PRIMARY KEY(client, n), KEY(place)) ENGINE=InnoDB";

/// Something that a client was told and had not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub client: u64,
    pub write: bool,
    /// Error number; 0 if the connection was lost.
    pub code: u16,
    pub text: String,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    writes: Vec<AtomicU64>,
    reads: Vec<AtomicU64>,
    troubles: Mutex<Vec<Trouble>>,
    longest_ms: AtomicU64,
}

/// Running clients.
pub struct Load {
    seen: Arc<Seen>,
    thread: JoinHandle<()>,
}

/// What came of it.
pub struct Outcome {
    /// Writes acknowledged, by client.
    pub writes: Vec<u64>,
    pub troubles: Vec<Trouble>,
    /// The longest that a statement took.
    pub longest: Duration,
}

impl Load {
    /// Starts clients of `port` as `app`, and waits until each has written.
    pub fn start(port: u16, clients: usize) -> Self {
        let count = || (0..clients).map(|_| AtomicU64::new(0)).collect();
        let seen = Arc::new(Seen { writes: count(), reads: count(), ..Seen::default() });
        let shared = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, async {
                let all = (0..clients).map(|n| tokio::task::spawn_local(client(port, n, Arc::clone(&shared))));
                for task in all.collect::<Vec<_>>() {
                    task.await.expect("no client panics");
                }
            });
        });
        let load = Self { seen, thread };
        load.wait_more(3);
        load
    }

    /// Waits until each client has written and read `more` times more, without an error between.
    pub fn wait_more(&self, more: u64) {
        let now = |counts: &[AtomicU64]| counts.iter().map(|c| c.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let (writes, reads) = (now(&self.seen.writes), now(&self.seen.reads));
        let ahead = |counts: &[AtomicU64], before: &[u64]| now(counts).iter().zip(before).all(|(n, b)| *n >= b + more);
        crate::testbed::until("all clients go on", Duration::from_secs(60), || {
            assert!(!self.thread.is_finished(), "the clients ended: {:?}", self.seen.troubles.lock());
            ahead(&self.seen.writes, &writes) && ahead(&self.seen.reads, &reads)
        });
    }

    /// Writes acknowledged until now, by client.
    pub fn writes(&self) -> Vec<u64> {
        self.seen.writes.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// How often a client was told something that it had not asked for.
    pub fn troubles(&self) -> usize {
        self.seen.troubles.lock().expect("nobody panicked").len()
    }

    /// Lets all finish what they do.
    pub fn stop(self) -> Outcome {
        self.seen.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no client panics");
        let seen = &self.seen;
        Outcome {
            writes: seen.writes.iter().map(|c| c.load(Ordering::Relaxed)).collect(),
            troubles: seen.troubles.lock().expect("nobody panicked").clone(),
            longest: Duration::from_millis(seen.longest_ms.load(Ordering::Relaxed)),
        }
    }
}

impl Outcome {
    /// Error numbers and how often they came, for writes and for reads.
    pub fn codes(&self) -> HashMap<(bool, u16), usize> {
        let mut codes = HashMap::new();
        for trouble in &self.troubles {
            *codes.entry((trouble.write, trouble.code)).or_default() += 1;
        }
        codes
    }
}

async fn client(port: u16, number: usize, seen: Arc<Seen>) {
    // a socket named by the server would lead past the proxy
    let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port).user(Some("app")).pass(Some("app"));
    let mut connection = Conn::new(options.prefer_socket(false)).await.expect("a login");
    let mut n = 0;
    while !seen.stop.load(Ordering::Relaxed) {
        n += 1;
        let write = format!("INSERT INTO app.`load`(client, n, server) VALUES ({number}, {n}, @@server_id)");
        for (write, sql, count) in
            [(true, write.as_str(), &seen.writes), (false, "SELECT COUNT(*) FROM app.`load`", &seen.reads)]
        {
            let began = Instant::now();
            let result = connection.query_drop(sql).await;
            seen.longest_ms.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
            let Err(error) = result else {
                count[number].fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let (code, text) = match &error {
                Error::Server(e) => (e.code, format!("{} {}", e.state, e.message)),
                other => (0, other.to_string()),
            };
            let trouble = Trouble { client: number as u64, write, code, text };
            seen.troubles.lock().expect("nobody panicked").push(trouble);
            if code == 0 {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = connection.disconnect().await;
}
