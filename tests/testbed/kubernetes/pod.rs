//! One pod that runs: its process, and what the node writes about it into the API.
//!
//! ```text
//!             bound          process ends, restartPolicy Always
//!   (watched) ─────▶ Running ◀──────────────┐
//!                     │   └─────────────────┘
//!                     │ deletionTimestamp: preStop, then SIGTERM; grace over: SIGKILL
//!                     ▼
//!                Terminating ──────▶ deleted with grace 0 ──▶ (gone)
//! ```
//!
//! Unlike a kubelet it starts a container again at once, however often it ended, and runs one container per pod.

use super::disks::Disks;
use super::network::Place;
use super::objects::pod_key;
use super::program::{Probe, Runner, Sandbox, socket};
use crate::testbed::server::query_at;
use crate::testbed::{Daemon, Flavor, Rows, until};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A pod of a [`super::Node`], for the test to break.
pub struct RunningPod {
    key: String,
    uid: String,
    place: Place,
    daemon: Daemon,
    sandbox: Sandbox,
    restarts: AtomicU32,
    restart: AtomicBool,
    ready: AtomicBool,
    /// Set once: what the API said last that matters to the process.
    orders: Mutex<Orders>,
}

/// What is to become of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orders {
    /// Keep it running.
    Run,
    /// SIGTERM, and SIGKILL after the grace period.
    Terminate { grace: Duration },
    /// It is gone from the API, or the node ends.
    Kill,
}

impl RunningPod {
    pub(super) fn new(pod: &Pod, place: Place, disks: Arc<Disks>) -> RunningPod {
        let daemon = Daemon::new(pod.metadata.name.as_deref().unwrap_or("pod"));
        let folder = daemon.dir().to_owned();
        let sandbox = Sandbox { ip: place.ip(), volumes: folder.join("volumes"), folder, disks };
        let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.clone());
        RunningPod {
            key: pod_key(pod),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            place,
            daemon,
            sandbox,
            restarts: AtomicU32::new(0),
            restart: AtomicBool::new(policy.as_deref() != Some("Never")),
            ready: AtomicBool::new(false),
            orders: Mutex::new(Orders::Run),
        }
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.place.ip()
    }

    /// Where its mysqld listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((self.ip(), 3306))
    }

    /// `NAMESPACE/NAME`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its uid in the API.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Its network, to cut and join.
    pub fn network(&self) -> &Place {
        &self.place
    }

    /// Its folder: logs, option file, volumes that are no claims.
    pub fn folder(&self) -> PathBuf {
        self.daemon.dir().to_owned()
    }

    /// Its process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// How often its container was started again.
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::SeqCst)
    }

    /// Whether its probe answered last.
    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// Whether the container is started again when it ends; as the pod's restartPolicy says, otherwise.
    pub fn restart(&self, yes: bool) {
        self.restart.store(yes, Ordering::SeqCst);
    }

    /// `kill -9`, and waits until that process is gone. The node starts another unless told not to.
    pub fn kill9(&self) {
        let pid = self.pid();
        self.daemon.signal("KILL");
        until("the process is gone", Duration::from_secs(10), || self.pid() != pid);
    }

    /// SIGSTOP: alive for the kernel, silent for everybody.
    pub fn freeze(&self) {
        self.daemon.freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.daemon.thaw();
    }

    /// Runs SQL as root, through the server's socket file: the pod may be cut off. The error is the client's message.
    pub fn try_sql(&self, sql: &str) -> Result<Rows, String> {
        self.try_sql_as(("root", ""), sql)
    }

    /// The same with another user and password.
    pub fn try_sql_as(&self, login: (&str, &str), sql: &str) -> Result<Rows, String> {
        let pid = self.pid().ok_or_else(|| format!("{} does not run", self.key))?;
        let at = format!("--socket={}", socket(pid).display());
        query_at(Flavor::MySql, &[at], login, sql)
    }

    /// The same; panics with the error.
    pub fn sql(&self, sql: &str) -> Rows {
        self.try_sql(sql).unwrap_or_else(|e| panic!("{}: {e}\nin: {sql}", self.key))
    }

    /// The first value of the first row, if there is one.
    pub fn one(&self, sql: &str) -> Option<String> {
        self.try_sql(sql).ok()?.into_iter().next()?.into_iter().next()
    }

    /// How often its server has said that there is no room left on its disk (OS error 28).
    pub fn disk_full(&self) -> usize {
        let log = std::fs::read(self.daemon.dir().join("out.log")).unwrap_or_default();
        let says =
            |line: &&str| ["errno 28", "Errcode: 28", "No space left on device"].iter().any(|w| line.contains(w));
        String::from_utf8_lossy(&log).lines().filter(says).count()
    }

    /// The last errors in its logs.
    pub fn errors(&self) -> String {
        self.daemon.errors()
    }

    pub(super) fn order(&self, new: Orders) {
        let mut orders = self.orders.lock().expect("no panic while it is held");
        // what the API says after the node has ended, or of a pod that is gone, counts no more
        if *orders != Orders::Kill {
            *orders = new;
        }
    }

    fn orders(&self) -> Orders {
        *self.orders.lock().expect("no panic while it is held")
    }
}

/// Where a pod's worker reports.
pub(super) trait Report {
    /// Writes the pod's status; false if that must be tried again.
    fn status(&self, pod: &RunningPod, status: &Value) -> bool;
    /// Removes the pod from the API; false if that must be tried again.
    fn remove(&self, pod: &RunningPod) -> bool;
}

/// Runs the pod to its end. A thread of its own does this. Then nothing of it is left, though a test may still hold it.
pub(super) fn work(pod: &RunningPod, object: &Pod, run: &Runner, probe_period: Duration, report: &impl Report) {
    live(pod, object, run, probe_period, report);
    if pod.daemon.try_signal("KILL") {
        pod.daemon.wait_exit(Duration::from_secs(10));
    }
    pod.place.leave();
}

fn live(pod: &RunningPod, object: &Pod, run: &Runner, probe_period: Duration, report: &impl Report) {
    let mut probe: Option<Probe> = None;
    let mut life = Life::new(object);
    let mut next_probe = Instant::now();
    let mut end: Option<Ending> = None;
    let mut next_report = Instant::now();
    loop {
        let running = pod.daemon.running();
        match pod.orders() {
            Orders::Kill => return,
            Orders::Terminate { grace } => end.get_or_insert_with(|| Ending::begin(pod, object, grace)).go_on(pod),
            Orders::Run if !running && (probe.is_none() || pod.restart.load(Ordering::SeqCst)) => {
                if probe.is_some() {
                    pod.ready.store(false, Ordering::SeqCst);
                    pod.restarts.fetch_add(1, Ordering::SeqCst);
                }
                let program = run(object, &pod.sandbox);
                pod.daemon.run(&pod.place.inside(&program.command)).unwrap_or_else(|e| panic!("{e}"));
                probe = Some(program.ready);
                life.started();
                next_probe = Instant::now();
            }
            Orders::Run => {}
        }
        let pid = pod.pid();
        if pid.is_none() {
            life.update(false, false);
        } else if Instant::now() >= next_probe {
            let ready = pid.zip(probe.as_ref()).is_some_and(|(pid, probe)| probe(pid));
            life.update(true, ready);
            next_probe = Instant::now() + probe_period;
        }
        pod.ready.store(life.ready, Ordering::SeqCst);
        if pid.is_none() && end.is_some() {
            if report.remove(pod) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        } else if life.unreported && Instant::now() >= next_report {
            life.unreported = !report.status(pod, &life.status(pod));
            next_report = Instant::now() + Duration::from_millis(if life.unreported { 200 } else { 0 });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The end of a pod that was deleted.
struct Ending {
    kill_at: Instant,
    /// The preStop command, while it runs.
    hook: Option<Daemon>,
    told: bool,
}

impl Ending {
    /// The grace period begins. A preStop hook's program is the test's own, run in the pod's namespaces.
    fn begin(pod: &RunningPod, object: &Pod, grace: Duration) -> Ending {
        let container = object.spec.as_ref().and_then(|s| s.containers.first());
        let hook = container.and_then(|c| c.lifecycle.as_ref()?.pre_stop.as_ref()?.exec.as_ref()?.command.clone());
        let hook = hook.filter(|_| pod.daemon.running() && !grace.is_zero()).map(|words| {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            let daemon = Daemon::new("pre-stop");
            daemon.run(&pod.place.inside(&command)).unwrap_or_else(|e| panic!("{e}"));
            daemon
        });
        Ending { kill_at: Instant::now() + grace, hook, told: false }
    }

    fn go_on(&mut self, pod: &RunningPod) {
        if Instant::now() >= self.kill_at {
            pod.daemon.try_signal("KILL");
        } else if !self.told && self.hook.as_ref().is_none_or(|hook| !hook.running()) {
            self.told = true;
            pod.daemon.try_signal("TERM");
        }
    }
}

/// What the status tells, and whether the API knows it.
struct Life {
    container: String,
    restart_policy_never: bool,
    running: bool,
    ready: bool,
    since: Timestamp,
    changed: Timestamp,
    unreported: bool,
}

impl Life {
    fn new(object: &Pod) -> Life {
        let containers = object.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
        Life {
            container: containers.first().map(|c| c.name.clone()).unwrap_or_default(),
            restart_policy_never: object.spec.as_ref().is_some_and(|s| s.restart_policy.as_deref() == Some("Never")),
            running: false,
            ready: false,
            since: Timestamp::now(),
            changed: Timestamp::now(),
            unreported: false,
        }
    }

    fn started(&mut self) {
        (self.running, self.ready, self.since, self.unreported) = (true, false, Timestamp::now(), true);
    }

    fn update(&mut self, running: bool, ready: bool) {
        if (running, ready) != (self.running, self.ready) {
            if ready != self.ready {
                self.changed = Timestamp::now();
            }
            (self.running, self.ready, self.unreported) = (running, ready, true);
        }
    }

    /// As a kubelet writes it (core/v1 PodStatus).
    fn status(&self, pod: &RunningPod) -> Value {
        let ready = if self.ready { "True" } else { "False" };
        let time = |t: &Timestamp| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |name: &str, status: &str| json!({"type": name, "status": status, "lastTransitionTime": time(&self.changed)});
        let state = match (self.running, self.restart_policy_never) {
            (true, _) => json!({"running": {"startedAt": time(&self.since)}, "waiting": null, "terminated": null}),
            (false, false) => json!({"waiting": {"reason": "CrashLoopBackOff"}, "running": null, "terminated": null}),
            (false, true) => {
                json!({"terminated": {"exitCode": 1, "reason": "Error"}, "running": null, "waiting": null})
            }
        };
        let phase = if !self.running && self.restart_policy_never { "Failed" } else { "Running" };
        let ip = pod.ip().to_string();
        json!({"status": {
            "phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": ip_of_host(pod.ip()), "startTime": time(&self.since),
            "conditions": [
                condition("Initialized", "True"), condition("PodScheduled", "True"),
                condition("Ready", ready), condition("ContainersReady", ready),
            ],
            "containerStatuses": [{
                "name": self.container, "image": "none", "imageID": "none", "ready": self.ready, "started": self.running,
                "restartCount": pod.restarts(), "state": state,
            }],
        }})
    }
}

fn ip_of_host(pod: Ipv4Addr) -> String {
    let [a, b, c, _] = pod.octets();
    Ipv4Addr::new(a, b, c, 1).to_string()
}
