//! Where the time of a failover goes: the servers, the API and the proxy are each asked, all the time, until each has told
//! of the new primary.

use crate::clients::unix_ms;
use crate::proxy::Proxy;
use crate::testbed::kubernetes::{ControlPlane, kubeblocks::ROLE};
use crate::testbed::until;
use kube::api::ListParams;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(200);
/// Between two questions to a server; the answers take their time too.
const PERIOD: Duration = Duration::from_millis(5);

/// When each was first seen, milliseconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// A server other than the old primary calls itself the group's primary.
    pub elected: Option<u64>,
    /// Such a server can be written.
    pub writable: Option<u64>,
    /// The proxy has proven it: when, and its address.
    pub proven: Option<(u64, String)>,
    /// A pod other than the old primary's is labelled as the primary.
    pub labelled: Option<u64>,
}

/// Whom to watch.
pub struct Watched {
    pub plane: Arc<ControlPlane>,
    pub namespace: String,
    pub proxy: Arc<Proxy>,
    /// Pod and address of the primary that is about to be lost.
    pub old: (String, SocketAddr),
    pub others: Vec<SocketAddr>,
}

/// Three threads that look.
pub struct Timeline {
    stop: Arc<AtomicBool>,
    marks: Arc<Mutex<Marks>>,
    threads: Vec<JoinHandle<()>>,
}

impl Timeline {
    pub fn start(watched: Watched) -> Self {
        let (stop, marks) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Marks::default())));
        let watched = Arc::new(watched);
        let look = |how: fn(&Watched, &AtomicBool, &Mutex<Marks>)| {
            let (watched, stop, marks) = (Arc::clone(&watched), Arc::clone(&stop), Arc::clone(&marks));
            std::thread::spawn(move || how(&watched, &stop, &marks))
        };
        Self { threads: vec![look(ask_servers), look(ask_proxy), look(ask_api)], stop, marks }
    }

    /// Waits until the proxy has proven the new primary; its address.
    pub fn wait_proven(&self) -> String {
        until("the proxy has proven another primary", SOON, || self.now().proven.is_some());
        self.now().proven.unwrap().1
    }

    /// Waits for all that is still missing.
    pub fn wait_all(&self) -> Marks {
        until("all have told of the new primary", SOON, || {
            let now = self.now();
            now.elected.is_some() && now.writable.is_some() && now.proven.is_some() && now.labelled.is_some()
        });
        self.now()
    }

    fn now(&self) -> Marks {
        self.marks.lock().unwrap().clone()
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

fn ask_servers(watched: &Watched, stop: &AtomicBool, marks: &Mutex<Marks>) {
    use mysql_async::prelude::Queryable;
    const ROLE_AND_FENCE: &str = "SELECT MEMBER_ROLE = 'PRIMARY' AND MEMBER_STATE = 'ONLINE', @@super_read_only \
                                  FROM performance_schema.replication_group_members WHERE MEMBER_ID = @@server_uuid";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut open = Vec::new();
        for address in &watched.others {
            let options = mysql_async::OptsBuilder::default().ip_or_hostname(address.ip().to_string());
            let options = options.tcp_port(address.port()).user(Some("root")).prefer_socket(false);
            open.push(mysql_async::Conn::new(options).await.unwrap());
        }
        while !stop.load(Ordering::Relaxed) && marks.lock().unwrap().writable.is_none() {
            for connection in &mut open {
                let answer: Result<Option<(bool, bool)>, _> = connection.query_first(ROLE_AND_FENCE).await;
                if let Ok(Some((true, fenced))) = answer {
                    let mut marks = marks.lock().unwrap();
                    marks.elected.get_or_insert_with(unix_ms);
                    if !fenced {
                        marks.writable.get_or_insert_with(unix_ms);
                    }
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    });
}

fn ask_proxy(watched: &Watched, stop: &AtomicBool, marks: &Mutex<Marks>) {
    let old = watched.old.1.to_string();
    while !stop.load(Ordering::Relaxed) {
        let (_, body) = watched.proxy.http("/topology").unwrap();
        let topology = serde_json::from_str::<Value>(&body).unwrap()["clusters"][0].clone();
        if let Some(primary) = topology["primary"].as_str().filter(|primary| *primary != old) {
            marks.lock().unwrap().proven = Some((topology["since_unix_ms"].as_u64().unwrap(), primary.to_owned()));
            return;
        }
        std::thread::sleep(PERIOD);
    }
}

/// The API server may be away.
fn ask_api(watched: &Watched, stop: &AtomicBool, marks: &Mutex<Marks>) {
    let pods = watched.plane.pods(&watched.namespace);
    let selector = ListParams::default().labels(&format!("{ROLE}=primary"));
    while !stop.load(Ordering::Relaxed) {
        let answer =
            watched.plane.run(async { tokio::time::timeout(Duration::from_secs(1), pods.list(&selector)).await });
        let labelled = answer.ok().and_then(Result::ok).into_iter().flat_map(|list| list.items);
        if labelled.into_iter().any(|pod| pod.metadata.name.as_ref() != Some(&watched.old.0)) {
            marks.lock().unwrap().labelled = Some(unix_ms());
            return;
        }
        std::thread::sleep(PERIOD * 2);
    }
}
