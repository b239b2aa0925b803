//! What happens to a group in pods, and what clients see of it: a real API server, pods that are real servers of a group of
//! three, labelled as KubeBlocks labels them, a real proxy that takes roles from them, and clients that never stop.
//!
//! After each event: no acknowledged write is lost, what failed was not written, errors are those of what was in flight,
//! every client goes on on its connection, reads are on the followers. Each event prints a line that says where the time
//! went.
#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod proxy;
mod testbed;

#[path = "kubernetes_failover/clients.rs"]
mod clients;
#[path = "kubernetes_failover/timeline.rs"]
mod timeline;

use clients::{Clients, Done, End, Kind, errors, unix_ms};
use proxy::{Options, Proxy};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use testbed::kubernetes::kubeblocks::{self, PodGroup};
use testbed::kubernetes::{ControlPlane, Node, NodeOptions};
use testbed::until;
use timeline::{Marks, Timeline, Watched};

const SOON: Duration = Duration::from_secs(200);
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);

struct Bed {
    clients: Clients,
    proxy: Arc<Proxy>,
    group: PodGroup,
    _node: Arc<Node>,
    plane: Arc<ControlPlane>,
}

impl Bed {
    fn start() -> Self {
        let plane = Arc::new(ControlPlane::start());
        let node = Arc::new(Node::start(&plane, NodeOptions::running(kubeblocks::runner())));
        let group = PodGroup::start(&plane, &node, "db", "main");
        group.member(0).sql(clients::TABLE);
        let file = plane.kubeconfig();
        let pods = format!(
            "kubeconfig = \"{}\", namespace = \"db\", preset = \"kubeblocks\", component = \"mysql\"",
            file.display()
        );
        // Longer than any of the events, so that a client that is answered too early is an error here.
        let proxy = Arc::new(Proxy::start(Options::pods(&pods).cluster("hold_ms_max = 50000")));
        // the command line client, and the first login of all
        assert_eq!(proxy.sql("SELECT 1"), Ok(vec![vec!["1".to_owned()]]));
        let clients = Clients::start(proxy.port());
        let bed = Self { clients, proxy, group, _node: node, plane };
        bed.wait_well(0);
        bed
    }

    fn topology(&self) -> Value {
        let (_, body) = self.proxy.http("/topology").unwrap();
        serde_json::from_str::<Value>(&body).unwrap()["clusters"][0].clone()
    }

    fn conflicts(&self) -> Vec<String> {
        let topology = self.topology();
        let conflicts = topology["conflicts"].as_array().unwrap().iter();
        conflicts.map(|conflict| conflict["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// Index of the primary that the proxy has proven.
    fn primary(&self) -> usize {
        let address = self.topology()["primary"].as_str().unwrap().to_owned();
        self.index(&address)
    }

    fn index(&self, address: &str) -> usize {
        let is = |i: &usize| self.group.member(*i).addr().to_string() == address;
        (0..3).find(is).unwrap_or_else(|| panic!("{address} is no member: {:#}", self.topology()))
    }

    /// The primary, whatever `act` does to it, is followed by another; where the time went, once all know.
    fn fails_over(&self, event: &str, act: impl FnOnce(usize)) -> Failover<'_> {
        let old = self.primary();
        let others = (0..3).filter(|i| *i != old && self.in_group(*i));
        let timeline = Timeline::start(Watched {
            plane: Arc::clone(&self.plane),
            namespace: self.group.namespace().to_owned(),
            proxy: Arc::clone(&self.proxy),
            old: (self.group.pod_name(old), self.group.member(old).addr()),
            others: others.map(|i| self.group.member(i).addr()).collect(),
        });
        self.clients.wait_going_on();
        let began_ms = unix_ms();
        act(old);
        let new = self.index(&timeline.wait_proven());
        assert_ne!(new, old, "{event}");
        self.clients.wait_going_on();
        self.check();
        Failover { bed: self, event: event.to_owned(), old, new, began_ms, ended_ms: unix_ms(), timeline }
    }

    fn in_group(&self, index: usize) -> bool {
        let lines = self.topology();
        let address = self.group.member(index).addr().to_string();
        lines["backends"].as_array().unwrap().iter().any(|b| b["address"] == address && b["serving"] == "yes")
    }

    /// The proxy serves all three, the label is right, clients write to the primary and read from the others.
    fn wait_well(&self, primary: usize) {
        self.wait_all_serve();
        until("the label is right", SOON, || self.group.labelled_primary() == Some(primary));
        until("the proxy agrees with the labels", SOON, || self.conflicts().is_empty());
        assert_eq!(self.primary(), primary);
        self.wait_reads_on_followers(primary);
        self.clients.wait_going_on();
        self.check();
    }

    /// The proxy has seen that all three members are ONLINE.
    fn wait_all_serve(&self) {
        let mut last = Value::Null;
        let well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("the proxy serves all three", SOON, || {
                last = self.topology();
                let backends = last["backends"].as_array().unwrap();
                backends.len() == 3 && backends.iter().all(|b| b["serving"] == "yes" && b["role"] != "unknown")
            });
        }));
        assert!(well.is_ok(), "{last:#}");
    }

    /// Those who read already read from followers; those who come are given each of them.
    fn wait_reads_on_followers(&self, primary: usize) {
        let followers: Vec<String> = (0..3).filter(|i| *i != primary).map(|i| self.group.pod_name(i)).collect();
        self.clients.wait_reads_on(&followers);
        followers.iter().for_each(|follower| self.wait_read_from(follower));
    }

    /// Waits until a new session reads from that pod. The sessions stay meanwhile: each new one is given the follower that
    /// has the fewest, which need not be this one at first.
    fn wait_read_from(&self, pod: &str) {
        let mut sessions = Vec::new();
        until(&format!("a new session reads from {pod}"), SOON, || {
            if sessions.len() == 50 {
                sessions.clear();
            }
            let mut client = self.proxy.client();
            let server = client.one("SELECT @@hostname");
            sessions.push(client);
            server == pod
        });
    }

    fn check(&self) {
        let primary = self.group.member(self.primary());
        self.clients.check(|| rows(primary.sql("SELECT client, n FROM app.acked")));
    }

    /// Keys of what was written on that pod.
    fn written_on(&self, pod: &str) -> HashSet<(usize, u64)> {
        let primary = self.group.member(self.primary());
        rows(primary.sql(&format!("SELECT client, n FROM app.acked WHERE server = '{pod}'")))
    }
}

fn rows(rows: Vec<Vec<String>>) -> HashSet<(usize, u64)> {
    rows.iter().map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap())).collect()
}

/// An event that moved the primary, and its line.
struct Failover<'a> {
    bed: &'a Bed,
    event: String,
    old: usize,
    new: usize,
    began_ms: u64,
    /// When all clients had gone on.
    ended_ms: u64,
    timeline: Timeline,
}

impl Failover<'_> {
    /// Prints where the time went, once the label has moved too.
    fn tell(self) -> usize {
        let marks = self.timeline.wait_all();
        let on_new = self.bed.written_on(&self.bed.group.pod_name(self.new));
        let mut done = self.bed.clients.since(self.began_ms);
        done.retain(|d| d.began_ms <= self.ended_ms);
        let write = |d: &&Done| matches!(d.end, End::Acknowledged) && on_new.contains(&d.row);
        let first = done.iter().find(write).expect("the new primary is written").ended_ms;
        println!(
            "{}: first write {} ms after it; {}; errors: {}; longest: {}",
            self.event,
            first - self.began_ms,
            parts(&marks, self.began_ms, first),
            errors(&done),
            longest(&done)
        );
        self.new
    }
}

/// The way from the event to the first write, in parts.
fn parts(marks: &Marks, began: u64, first: u64) -> String {
    let (elected, writable, labelled) = (marks.elected.unwrap(), marks.writable.unwrap(), marks.labelled.unwrap());
    let proven = marks.proven.as_ref().unwrap().0;
    let span = |from: u64, to: u64| to as i64 - from as i64;
    format!(
        "election {} ms, until writable {:+} ms, until proven {:+} ms, until the first answer {:+} ms (label: {} ms)",
        span(began, elected),
        span(elected, writable),
        span(writable, proven),
        span(proven, first),
        span(began, labelled)
    )
}

fn longest(done: &[Done]) -> String {
    let of = |kind: Kind| done.iter().filter(|d| d.kind == kind).map(|d| d.ended_ms - d.began_ms).max().unwrap_or(0);
    format!("write {} ms, read {} ms", of(Kind::Write), of(Kind::Read))
}

/// The label is moved to a follower by hand while the operator looks away: nobody writes there.
fn the_label_lies(bed: &Bed) {
    let (right, wrong) = (bed.primary(), (bed.primary() + 1) % 3);
    bed.group.operator_labels(false);
    bed.clients.wait_going_on();
    let began_ms = unix_ms();
    bed.group.set_role_label(wrong, Some("primary"));
    bed.group.set_role_label(right, Some("secondary"));
    until("the proxy tells of the label", SOON, || bed.conflicts() == ["label_elsewhere"]);
    let seen = unix_ms() - began_ms;
    // and many writes more, all under the label that lies
    (0..4).for_each(|_| bed.clients.wait_going_on());
    assert_eq!((bed.primary(), bed.group.labelled_primary()), (right, Some(wrong)));
    let done = bed.clients.since(began_ms);
    let writes = done.iter().filter(|d| d.kind != Kind::Read).count();
    println!(
        "label moved by hand: {writes} writes under it, all to the proven primary; told of after {seen} ms; errors: {}; longest: {}",
        errors(&done),
        longest(&done)
    );
    assert_eq!(errors(&done), "none");
    assert_eq!(bed.written_on(&bed.group.pod_name(wrong)), HashSet::new());
    bed.group.operator_labels(true);
    bed.wait_well(right);
}

/// A pod comes back under its name with another address: it is read from, and then it takes the writes.
fn comes_back_elsewhere(bed: &Bed, index: usize, old_address: &str) {
    let began_ms = unix_ms();
    let began = Instant::now();
    bed.group.create(index);
    let pod = bed.group.pod_name(index);
    bed.wait_read_from(&pod);
    let read = began.elapsed().as_millis();
    let done = bed.clients.since(began_ms);
    println!(
        "pod recreated under a new address: first read from it {read} ms after its creation; errors: {}; longest: {}",
        errors(&done),
        longest(&done)
    );
    assert_eq!(errors(&done), "none");
    bed.wait_well(bed.primary());
    assert!(!bed.topology().to_string().contains(old_address), "the former address is forgotten");
    let new = bed.fails_over("switchover to the new address", |_| bed.group.set_as_primary(index)).tell();
    assert_eq!(new, index);
    bed.wait_well(index);
}

/// One after the other: two control planes and six servers at a time are too much for two cores.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn what_befalls_a_group_in_pods() {
    let _alone = alone();
    let bed = Bed::start();
    the_label_lies(&bed);

    let killed = bed.fails_over("kill -9 of the primary", |old| bed.group.member(old).kill9()).tell();
    bed.wait_well(killed);

    let delete = |old| bed.plane.delete_pod("db", &bed.group.pod_name(old), Some(20));
    let address = bed.group.member(bed.primary()).addr().to_string();
    let deleted = bed.fails_over("deletion of the primary's pod", delete);
    let gone = deleted.old;
    deleted.tell();
    bed.plane.wait_pod_gone("db", &bed.group.pod_name(gone));
    comes_back_elsewhere(&bed, gone, &address);

    let cut = bed.group.member(bed.primary());
    let new = bed.fails_over("network cut of the primary", |_| cut.network().cut_off()).tell();
    cut.network().join();
    bed.wait_well(new);
}

#[test]
fn the_primary_dies_while_the_api_server_is_away() {
    let _alone = alone();
    let bed = Bed::start();
    let away = Instant::now();
    bed.plane.kill_api();
    until("the watch is down", SOON, || bed.proxy.metric("holdfast_kubernetes_watch_up", &[]) == 0.0);

    let failover = bed.fails_over("kill -9 while the API server is away", |old| bed.group.member(old).kill9());
    assert_eq!(bed.proxy.metric("holdfast_kubernetes_watch_up", &[]), 0.0);
    // The killed one was started again and let in: a follower by proof, under a label that still calls it the primary.
    bed.wait_all_serve();
    bed.wait_reads_on_followers(failover.new);
    until("the API server has been away for a minute", AWAY * 2, || {
        bed.clients.wait_going_on();
        away.elapsed() >= AWAY
    });
    assert_eq!(bed.primary(), failover.new);
    let (status, body) = bed.proxy.http("/readyz").unwrap();
    assert_eq!(status, 200, "{body}");

    bed.plane.start_api();
    let new = failover.tell();
    bed.wait_well(new);
}
