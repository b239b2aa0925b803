//! Tells the reconciler when the primary looks lost, so that it looks at once and not at its next tick.
//!
//! Why: clients notice first. It is a hint and nothing more: the reconciler believes what it sees itself, and a proxy that is
//! cut off from a healthy primary only makes it look. A task of its own, beside the data path and beside the topology's one
//! writer: neither ever waits for it. What it refuses: to tell more than ten times a second, or to wait for an answer longer than
//! one.
//!
//! Several reconcilers may stand behind the name, of which one leads: all of its addresses are told.

use super::handle::TopologyHandle;
use super::snapshot::Topology;
use super::suspicion::Suspicion;
use crate::metrics;
use crate::types::Address;
use futures_util::future::join_all;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;

/// Between two times, milliseconds: a connection that somebody kills is no news twice.
const GAP_MS: u64 = 100;
/// The same while nothing changes: the word may have been lost, or have come to a reconciler that leads no more.
const AGAIN_MS: u64 = 1000;
/// From the name's resolution to the answer.
const DEADLINE: Duration = Duration::from_millis(1000);
/// Addresses behind the name that are told.
const ADDRESSES_MAX: usize = 8;

/// Who keeps a cluster, and what it is called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciler {
    /// Its admin port.
    pub address: Address,
    /// The cluster.
    pub cluster: Arc<str>,
    /// Where it is, if that is known.
    pub namespace: Option<Arc<str>>,
}

/// Tells it for as long as there are settings; without a reconciler among them nothing is told.
pub(super) async fn run(topology: TopologyHandle, mut settings: watch::Receiver<Option<Reconciler>>) {
    let mut changed = topology.changed();
    let (mut rhythm, mut last) = (Rhythm::default(), Told::Heard);
    loop {
        changed.mark_unchanged();
        let reconciler = settings.borrow_and_update().clone();
        let due_ms = rhythm.due_ms(reconciler.is_some() && looks_lost(&topology.load()), topology.now_ms());
        tokio::select! {
            () = sleep_until(&topology, due_ms) => {
                let Some(reconciler) = reconciler else { continue };
                rhythm.told(topology.now_ms());
                let told = tell(&reconciler).await;
                note(&topology.load(), &reconciler, told, last);
                last = told;
            }
            _ = changed.changed() => {}
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn sleep_until(topology: &TopologyHandle, due_ms: Option<u64>) {
    let Some(due_ms) = due_ms else { return std::future::pending().await };
    tokio::time::sleep(Duration::from_millis(due_ms.saturating_sub(topology.now_ms()))).await;
}

/// \[pure\] There was a primary, and something speaks against it.
fn looks_lost(topology: &Topology) -> bool {
    topology.last_primary.is_some() && (topology.primary.is_none() || topology.doubt)
}

/// \[pure\] When to tell.
#[derive(Default)]
struct Rhythm {
    told_ms: Option<u64>,
    /// What is wrong now has been told.
    lasts: bool,
}

impl Rhythm {
    /// When the next time is due; never while nothing looks lost.
    fn due_ms(&mut self, lost: bool, now_ms: u64) -> Option<u64> {
        self.lasts &= lost;
        let gap_ms = if self.lasts { AGAIN_MS } else { GAP_MS };
        lost.then(|| self.told_ms.map_or(now_ms, |told_ms| now_ms.max(told_ms + gap_ms)))
    }

    fn told(&mut self, now_ms: u64) {
        (self.told_ms, self.lasts) = (Some(now_ms), true);
    }
}

/// What became of it; of several answers the first in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// It looks.
    Heard,
    /// It keeps no such cluster.
    Unknown,
    /// Whoever was reached does not lead.
    NotLeading,
    /// Nobody was reached, or it was no reconciler.
    Failed,
}

impl Told {
    fn as_str(self) -> &'static str {
        match self {
            Self::Heard => "heard",
            Self::Unknown => "unknown",
            Self::NotLeading => "not_leading",
            Self::Failed => "failed",
        }
    }

    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::ACCEPTED => Self::Heard,
            StatusCode::NOT_FOUND => Self::Unknown,
            StatusCode::SERVICE_UNAVAILABLE => Self::NotLeading,
            _ => Self::Failed,
        }
    }
}

/// Counts it; a person is told when it begins to fail and when that is over.
fn note(topology: &Topology, reconciler: &Reconciler, told: Told, last: Told) {
    let (cluster, result) = (&topology.cluster, told.as_str());
    metrics::nudge(&cluster.0, result);
    let reconciler = &reconciler.address;
    if told != last {
        tracing::info!(%cluster, %reconciler, result, "told the reconciler that the primary looks lost");
    } else {
        tracing::debug!(%cluster, %reconciler, result, "told the reconciler that the primary looks lost");
    }
}

async fn tell(reconciler: &Reconciler) -> Told {
    let began = Instant::now();
    let name = (&*reconciler.address.host, reconciler.address.port);
    let found = match tokio::time::timeout(DEADLINE, lookup_host(name)).await {
        Ok(Ok(found)) => found.take(ADDRESSES_MAX).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    let one = async |address| {
        let left = DEADLINE.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, post(address, reconciler)).await {
            Ok(Ok(status)) => Told::of(status),
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "the reconciler can't be told");
                Told::Failed
            }
            Err(_) => Told::Failed,
        }
    };
    join_all(found.into_iter().map(one)).await.into_iter().min().unwrap_or(Told::Failed)
}

/// Why nobody has answered, for the log.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error("{0}")]
    Connect(#[from] std::io::Error),
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
}

async fn post(address: SocketAddr, reconciler: &Reconciler) -> Result<StatusCode, NotTold> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let suspicion = Suspicion { cluster: &reconciler.cluster, namespace: reconciler.namespace.as_deref() };
    let request =
        Request::post(suspicion.to_string()).header(HOST, reconciler.address.to_string()).body(Empty::<Bytes>::new())?;
    // The sender goes with the answer, and with it the connection.
    let answer = async move { sender.send_request(request).await.map(|response| response.status()) };
    let (answer, _) = tokio::join!(answer, connection);
    Ok(answer?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::suspect::{Heard, Listener};
    use crate::topology::LastPrimary;
    use crate::types::BackendId;
    use std::sync::Mutex;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    /// A snapshot with a primary that is proven, in doubt or gone.
    fn topology(version: u64, primary: bool, doubt: bool, before: bool) -> Topology {
        let id = BackendId(1);
        let last_primary = before.then(|| LastPrimary { id, server_uuid: "a".into() });
        let primary = primary.then_some(id);
        Topology { version, primary, doubt, last_primary, ..Topology::empty("main".into()) }
    }

    #[test]
    fn a_primary_looks_lost_once_there_was_one() {
        for (primary, doubt, before, lost) in [
            (true, false, true, false),
            (true, true, true, true),
            (false, true, true, true),
            // Nobody has found one yet: there is nothing that the reconciler does not see as well.
            (false, true, false, false),
        ] {
            assert_eq!(looks_lost(&topology(1, primary, doubt, before)), lost, "{primary} {doubt} {before}");
        }
    }

    #[test]
    fn the_first_word_goes_at_once_and_the_next_ones_wait() {
        let mut rhythm = Rhythm::default();
        for (now_ms, lost, due_ms) in [
            (5, false, None),
            (10, true, Some(10)),
            // Told at 10: it lasts.
            (11, true, Some(1010)),
            (400, true, Some(1010)),
            // It was nothing; the next time is another one, but not at once.
            (410, false, None),
            (411, true, Some(411)),
            (412, false, None),
            (413, true, Some(511)),
            (600, true, Some(600)),
        ] {
            let due = rhythm.due_ms(lost, now_ms);
            assert_eq!(due, due_ms, "at {now_ms}");
            if due == Some(now_ms) {
                rhythm.told(now_ms);
            }
        }
    }

    #[test]
    fn of_several_answers_the_best_counts() {
        let answers = [500, 503, 404, 202].map(|code| Told::of(StatusCode::from_u16(code).expect("a status")));
        assert_eq!(answers, [Told::Failed, Told::NotLeading, Told::Unknown, Told::Heard]);
        for n in 0..answers.len() {
            assert_eq!(answers[..=n].iter().min(), Some(&answers[n]));
        }
    }

    /// A reconciler's port that writes down what it hears.
    async fn reconciler(stop: &CancellationToken) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = port.local_addr().expect("its address");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        let suspect: Listener = Arc::new(move |suspicion| {
            all.lock().expect("nobody panics").push(format!("{suspicion:?}"));
            Heard::Yes
        });
        let nothing = || serde_json::Value::Null;
        let state = crate::admin::AdminState {
            ready: Arc::new(|| crate::admin::Readiness { ready: true, reasons: Vec::new(), notes: Vec::new() }),
            topology: Arc::new(nothing),
            status: Arc::new(nothing),
            prometheus: metrics::install(),
            before_scrape: Arc::new(|| {}),
            suspect: Some(suspect),
        };
        tokio::spawn(crate::admin::serve(port, state, stop.clone()));
        (address, heard)
    }

    #[tokio::test]
    async fn a_lost_primary_is_told_to_whoever_is_configured() {
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        let (address, heard) = reconciler(&stop).await;
        let to = |address: SocketAddr| Reconciler {
            address: address.to_string().parse().expect("an address"),
            cluster: "orders".into(),
            namespace: Some("shop".into()),
        };
        let heard = || heard.lock().expect("nobody panics").clone();
        assert_eq!(tell(&to(address)).await, Told::Heard);
        assert_eq!(heard(), [r#"Suspicion { cluster: "orders", namespace: Some("shop") }"#]);
        // Nobody listens any more where this was.
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address");
        assert_eq!(tell(&to(gone)).await, Told::Failed);

        // The task says nothing while all is well, nor without a reconciler, and then what has become wrong meanwhile.
        let (topology, _commands) = TopologyHandle::new(self::topology(1, true, false, true), Instant::now());
        let (settings, receiver) = watch::channel(Some(to(address)));
        let task = tokio::spawn(run(topology.clone(), receiver));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        settings.send_replace(None);
        topology.publish(Arc::new(self::topology(2, false, true, true)));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(heard().len(), 1);
        settings.send_replace(Some(to(address)));
        while heard().len() < 2 {
            tokio::task::yield_now().await;
        }
        drop(settings);
        task.await.expect("it ends with the settings");
    }
}
