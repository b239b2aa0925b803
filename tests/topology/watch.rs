//! A topology that is watched: every snapshot that it has published.

use crate::testbed::until;
use holdfast::accounts::Credential;
use holdfast::tls::BackendTls;
use holdfast::topology::{
    Account, Limits, ProbeSettings, ServerEntry, Source, Topology, TopologyHandle, TopologySettings, spawn,
};
use holdfast::types::{Address, Role};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How long is waited for what should happen soon.
pub const SOON: Duration = Duration::from_secs(90);

/// Every version that was published, and when.
pub type History = Arc<Mutex<Vec<(Instant, Arc<Topology>)>>>;

/// A topology under test on a runtime of its own, with everything it published.
pub struct Watch {
    pub handle: TopologyHandle,
    pub history: History,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    pub fn of_ports(ports: &[u16]) -> Self {
        let entry = |port: &u16| ServerEntry { address: address(*port), weight: 1, role_hint: None };
        Self::start(Source::Static { servers: ports.iter().map(entry).collect() }, "holdfast")
    }

    pub fn start(source: Source, user: &str) -> Self {
        let stop = CancellationToken::new();
        let history = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let (until, seen, settings) = (stop.clone(), history.clone(), settings(source, user));
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let handle = spawn(settings, until.clone());
                sender.send(handle.clone()).unwrap();
                until.run_until_cancelled(record(handle, seen)).await;
            });
        });
        let handle = receiver.recv().unwrap();
        Self { handle, history, stop, thread: Some(thread) }
    }

    pub fn now(&self) -> Arc<Topology> {
        self.handle.snapshot()
    }

    /// Port of the primary.
    pub fn primary(&self) -> Option<u16> {
        self.now().primary().map(|primary| primary.address.port)
    }

    pub fn wait_primary(&self, port: u16) -> Arc<Topology> {
        self.wait(&format!("{port} is the primary"), |topology| {
            topology.primary().is_some_and(|primary| primary.address.port == port)
        })
    }

    pub fn wait(&self, what: &str, condition: impl Fn(&Topology) -> bool) -> Arc<Topology> {
        let end = Instant::now() + SOON;
        loop {
            let now = self.now();
            if condition(&now) {
                return now;
            }
            assert!(Instant::now() < end, "in vain until {what}: {:#}", self.handle.to_json(&HashMap::new()));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ports that were primary, in order.
    pub fn primaries(&self) -> Vec<u16> {
        let history = self.history.lock().unwrap();
        let mut ports: Vec<u16> = history.iter().filter_map(|(_, t)| t.primary().map(|p| p.address.port)).collect();
        ports.dedup();
        ports
    }

    /// When `port` was first published as the primary after `since`.
    pub fn primary_at(&self, port: u16, since: Instant) -> Instant {
        let is = |t: &Topology| t.primary().is_some_and(|p| p.address.port == port);
        let mut first = None;
        // What is to be seen already is written down a moment later.
        until("it is in the history", SOON, || {
            let history = self.history.lock().unwrap();
            first = history.iter().find(|(at, t)| *at > since && is(t)).map(|(at, _)| *at);
            first.is_some()
        });
        first.unwrap()
    }

    pub fn role(&self, port: u16) -> Role {
        let now = self.now();
        now.backends.iter().find(|b| b.address.port == port).map_or(Role::Unknown, |b| b.role)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Notes every version that is published.
async fn record(handle: TopologyHandle, history: History) {
    let mut changed = handle.changed();
    loop {
        history.lock().unwrap().push((Instant::now(), handle.snapshot()));
        changed.changed().await.unwrap();
    }
}

pub fn address(port: u16) -> Address {
    Address { host: "127.0.0.1".into(), port }
}

fn settings(source: Source, user: &str) -> TopologySettings {
    TopologySettings {
        cluster: "test".into(),
        source,
        pods: None,
        account: Account { user: user.into(), credential: Credential::password(user.as_bytes().to_vec().into()) },
        tls: Arc::new(BackendTls::disabled()),
        probe: ProbeSettings::default(),
        limits: Limits::default(),
        reconciler: None,
    }
}
