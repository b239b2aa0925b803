//! The failover figures of the README: one change of the primary after the other under 64 clients outside transactions, each
//! of them a run of `holdfast bench failover` that writes at the servers, too. What must hold does so in every run; medians
//! and worst are printed.
//!
//! `HOLDFAST_RUNS=20 cargo test --release --test bench_failover figures -- --ignored --nocapture --test-threads 1`, with the
//! end of a test's name in place of `figures` for one of them. `HOLDFAST_RUNS`: 20 if it is not said.

use crate::measurement::Bench;
use crate::proxy::{EXACTLY_ONCE, Options, Proxy, SOON};
use crate::testbed::kubernetes::kubeblocks::{self, PodGroup};
use crate::testbed::kubernetes::{ControlPlane, Node, NodeOptions};
use crate::testbed::{Group, GroupOptions, ReplicaSet, Server, SetOptions, until};
use holdfast::bench::report::{Report, Run, ms};
use std::net::SocketAddr;
use std::sync::Arc;

const CLIENTS: &str = "--clients-write 32 --clients-read 16 --clients-transaction 0 --clients-prepared 16 --clients-idle 4 \
     --before 3s --after 2s --direct-write";
/// For a command of ours in place of a trigger: says `go`, and waits until we have `done` it.
const HANDSHAKE: &str = "touch {dir}/go; until [ -e {dir}/done ]; do sleep 0.002; done";

/// May a client see an error?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Errors {
    /// `exactly_once`: none at all.
    Never,
    /// Only of what was in flight, and one that says so.
    InFlight,
}

/// All runs of one kind.
struct Figures {
    name: &'static str,
    errors: Errors,
    report: Option<Report>,
}

impl Figures {
    fn new(name: &'static str, errors: Errors) -> Self {
        Self { name, errors, report: None }
    }

    fn runs() -> usize {
        std::env::var("HOLDFAST_RUNS").map_or(20, |runs| runs.parse().expect("a number"))
    }

    /// One more run; `act` is what happens to the primary, where the measurement itself doesn't do it.
    fn measure(&mut self, port: u16, servers: &[SocketAddr], trigger: &str, act: Option<&mut dyn FnMut()>) -> Run {
        let signs = crate::testbed::Testbed::get().new_folder("figures-signs");
        let command = HANDSHAKE.replace("{dir}", &signs.display().to_string());
        let mut arguments: Vec<&str> = CLIENTS.split_whitespace().chain(["--trigger", trigger]).collect();
        if act.is_some() {
            arguments.extend(["--trigger-command", &command]);
        }
        if trigger == "freeze" {
            arguments.extend(["--freeze-for", "9s"]);
        }
        let mut bench = Bench::start_with("figures", port, servers, &arguments);
        if let Some(act) = act {
            until("the measurement says go", SOON, || signs.join("go").exists() || !bench.running());
            act();
            std::fs::write(signs.join("done"), "").expect("the folder is writable");
        }
        let (code, said) = bench.end();
        let mut report = bench.report();
        let run = report.runs[0].clone();
        self.check(code, &run, &said);
        match &mut self.report {
            None => self.report = Some(report),
            Some(all) => all.runs.append(&mut report.runs),
        }
        self.tell_run(&run);
        run
    }

    fn check(&self, code: i32, run: &Run, said: &str) {
        assert_eq!(code, 0, "{}: {said}", self.name);
        assert!(run.verdict.is_clean() && run.verdict.acknowledged > 100, "{}: {:?}\n{said}", self.name, run.verdict);
        let writable = run.events.writable_us.expect("another one became writable");
        for class in &run.classes {
            assert_eq!(class.reconnects, 0, "{}: {class:?}\n{said}", self.name);
            match self.errors {
                Errors::Never => assert_eq!(class.errors, 0, "{}: {:?}\n{said}", self.name, class.error_kinds),
                Errors::InFlight => {
                    assert!(class.errors <= u64::from(class.clients), "{}: {class:?}\n{said}", self.name);
                    let honest =
                        |(code, state): (u16, &str)| matches!((code, state), (1105, "08007") | (1159, "08S01"));
                    for kind in &class.error_kinds {
                        assert!(honest((kind.code, &kind.state)) && kind.last_began_us < writable, "{kind:?}\n{said}");
                    }
                }
            }
        }
    }

    fn tell_run(&self, run: &Run) {
        let e = &run.events;
        let or_none = |us: Option<u64>| us.map_or("-".to_owned(), ms);
        println!(
            "{} {}: elected {}, writable {}, first write {} behind it and {} behind the servers' own; {} errors, {} unknown",
            self.name,
            self.report.as_ref().map_or(0, |report| report.runs.len()),
            or_none(e.elected_us.zip(e.trigger_us).map(|(at, from)| at.saturating_sub(from))),
            or_none(e.election_us()),
            or_none(e.after_election_us().map(|(least, _)| least)),
            or_none(e.behind_direct_us()),
            run.errors(|_| true),
            unknown(run),
        );
    }

    fn tell(&self) {
        let report = self.report.as_ref().expect("there were runs");
        let spread = |figure: &dyn Fn(&Run) -> Option<u64>| {
            report.spread(figure).map_or("-".to_owned(), |(median, worst)| format!("{} / {}", ms(median), ms(worst)))
        };
        let since = |at: Option<u64>, from: Option<u64>| Some(at?.saturating_sub(from?));
        println!(
            "\n{}: {} runs, median / worst\n\
             | the change: to the election | {} |\n| to writable | {} |\n| to the first write at the servers themselves | {} |\n\
             | to the first write through the port | {} |\n\
             | that behind writable (first seen) | {} |\n| behind writable (last seen not) | {} |\n| behind the servers' own | {} |\n\
             | longest stall of a client | {} |\n| errors | {} |\n| acknowledged, lost, twice, unknown | {}, {}, {}, {} |\n",
            self.name,
            report.runs.len(),
            spread(&|run| since(run.events.elected_us, run.events.trigger_us)),
            spread(&|run| run.events.election_us()),
            spread(&|run| since(run.events.direct_write_us, run.events.trigger_us)),
            spread(&|run| run.events.time_to_first_write_us()),
            spread(&|run| Some(run.events.after_election_us()?.0)),
            spread(&|run| Some(run.events.after_election_us()?.1)),
            spread(&|run| run.events.behind_direct_us()),
            spread(&|run| Some(run.longest_us())),
            report.total(|run| run.errors(|_| true)),
            report.total(|run| run.verdict.acknowledged),
            report.total(|run| run.verdict.lost),
            report.total(|run| run.verdict.duplicated),
            report.total(unknown),
        );
    }
}

fn unknown(run: &Run) -> u64 {
    run.verdict.unknown_applied + run.verdict.unknown_not_applied
}

fn addresses(servers: &[Server]) -> Vec<SocketAddr> {
    servers.iter().map(Server::addr).collect()
}

fn options(mut options: Options, errors: Errors) -> Options {
    // What tests read in the log costs time that nobody else spends.
    options.level = Some("info");
    let listener = if errors == Errors::Never { "exactly_once = true" } else { "" };
    options.listener(listener).cluster("hold_ms_max = 60000")
}

/// A group on loopback, its primary killed, frozen or moved; who was killed or frozen is let in again before the next.
fn of_a_group(name: &'static str, trigger: &str, errors: Errors) {
    let group = Group::start(GroupOptions::default());
    group.primary().sql(EXACTLY_ONCE);
    let proxy = Proxy::start(options(Options::group([group.member(0).addr()]), errors));
    if errors == Errors::Never {
        proxy.wait_witnesses(3);
    }
    let mut figures = Figures::new(name, errors);
    for _ in 0..Figures::runs() {
        let old = group.wait_primary();
        until("the proxy reads from both others", SOON, || {
            proxy.http("/topology").expect("it answers").1.matches("\"follower\"").count() >= 2
        });
        figures.measure(proxy.port(), &addresses(group.members()), trigger, None);
        if trigger != "switch" {
            group.rejoin(old);
        }
        group.wait_online(3);
    }
    figures.tell();
}

#[test]
#[ignore = "measures: ten minutes"]
fn figures_of_a_group_killed() {
    of_a_group("group, kill -9", "kill", Errors::Never);
}

#[test]
#[ignore = "measures: six minutes"]
fn figures_of_a_group_switched() {
    of_a_group("group, switch", "switch", Errors::Never);
}

#[test]
#[ignore = "measures: ten minutes"]
fn figures_of_a_group_frozen() {
    of_a_group("group, SIGSTOP", "freeze", Errors::Never);
}

#[test]
#[ignore = "measures: ten minutes"]
fn figures_of_a_group_killed_without_exactly_once() {
    of_a_group("group, kill -9, exactly_once off", "kill", Errors::InFlight);
}

/// In pods with addresses and labels of their own, so that the primary's network can be cut: nothing is answered, nothing
/// refused.
#[test]
#[ignore = "measures: ten minutes"]
fn figures_of_a_group_cut() {
    let plane = Arc::new(ControlPlane::start());
    let node = Arc::new(Node::start(&plane, NodeOptions::running(kubeblocks::runner())));
    let group = PodGroup::start(&plane, &node, "db", "main");
    group.member(0).sql(EXACTLY_ONCE);
    let file = plane.kubeconfig();
    let pods = format!(
        "kubeconfig = \"{}\", namespace = \"db\", preset = \"kubeblocks\", component = \"mysql\"",
        file.display()
    );
    let proxy = Proxy::start(options(Options::pods(&pods), Errors::Never));
    proxy.wait_witnesses(3);
    let mut figures = Figures::new("group, network cut", Errors::Never);
    for _ in 0..Figures::runs() {
        let old = group.wait_primary(None);
        group.wait_online(3);
        until("the label is right", SOON, || group.labelled_primary() == Some(old));
        let servers: Vec<SocketAddr> = (0..3).map(|index| group.member(index).addr()).collect();
        let cut = group.member(old);
        figures.measure(proxy.port(), &servers, "isolate", Some(&mut || cut.network().cut_off()));
        cut.network().join();
        group.wait_online(3);
    }
    figures.tell();
}

/// A source with two semi-synchronous replicas, promoted by hand: the one that has received more, once it has applied that.
#[test]
#[ignore = "measures: ten minutes"]
fn figures_of_a_set_killed() {
    let mut figures = Figures::new("semi-sync set, kill -9, promoted by hand", Errors::Never);
    for _ in 0..Figures::runs() {
        // What the old one has alone is nobody's business here: each time another set.
        let set = ReplicaSet::start(SetOptions::semisync());
        set.source().sql(EXACTLY_ONCE);
        let proxy = Proxy::start(options(Options::servers(addresses(set.servers())), Errors::Never));
        proxy.wait_witnesses(3);
        let mut kill_and_promote = || {
            set.server(0).kill9();
            set.promote(candidate(&set, [1, 2]));
        };
        figures.measure(proxy.port(), &addresses(set.servers()), "command", Some(&mut kill_and_promote));
    }
    figures.tell();
}

#[test]
#[ignore = "measures: five minutes"]
fn figures_of_a_set_switched() {
    let set = ReplicaSet::start(SetOptions::semisync());
    set.source().sql(EXACTLY_ONCE);
    let proxy = Proxy::start(options(Options::servers(addresses(set.servers())), Errors::Never));
    proxy.wait_witnesses(3);
    let mut figures = Figures::new("semi-sync set, switched by hand", Errors::Never);
    for _ in 0..Figures::runs() {
        let next = (set.source_index() + 1) % 3;
        let mut switch = || set.switchover(next);
        figures.measure(proxy.port(), &addresses(set.servers()), "command", Some(&mut switch));
        set.wait_synced();
    }
    figures.tell();
}

/// Who has received all that the other has, and has applied it; neither receives any more.
fn candidate(set: &ReplicaSet, [a, b]: [usize; 2]) -> usize {
    let status = "performance_schema.replication_connection_status WHERE channel_name=''";
    for index in [a, b] {
        let state = format!("SELECT service_state FROM {status}");
        until("it has noticed", SOON, || set.server(index).one(&state) != "ON");
    }
    let received = |index: usize| {
        let all = format!("SELECT CONCAT(@@global.gtid_executed, ',', received_transaction_set) FROM {status}");
        set.server(index).one(&all).replace("\\n", "").replace('\n', "")
    };
    let (of_a, of_b) = (received(a), received(b));
    let chosen = if set.server(a).one(&format!("SELECT GTID_SUBSET('{of_b}', '{of_a}')")) == "1" { a } else { b };
    let applied = format!("SELECT GTID_SUBSET(received_transaction_set, @@global.gtid_executed) FROM {status}");
    until("all that was received is applied", SOON, || set.server(chosen).one(&applied) == "1");
    chosen
}
