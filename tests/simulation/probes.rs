//! The proxy's eyes: questions to each server, their answers as reports, and the writer that draws snapshots of them with
//! the crate's own [`Picture`].

use super::cluster::uuid;
use super::server::Life;
use super::world::{Event, Setup, Time, World};
use holdfast::topology::kubernetes::{Group, Label, PodFacts, PodState};
use holdfast::topology::picture::Picture;
use holdfast::topology::proof::Now;
use holdfast::topology::report::{
    Channel, Failure, FailureKind, GroupView, Member, Observation, Receiver, Report, ServerGreeting,
};
use holdfast::topology::snapshot::Flavor;
use holdfast::topology::{Limits, ServerEntry, Source};
use holdfast::types::{Address, BackendId, ClusterName};
use std::sync::Arc;

/// Between questions: while all is well, and in doubt (µs).
const INTERVAL: Time = 300_000;
const DOUBT_INTERVAL: Time = 20_000;
/// How long an answer is waited for (µs).
const TIMEOUT: Time = 300_000;

/// One server's prober: one question at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prober {
    pub asking: Option<Time>,
    planned: Time,
}

fn address(server: usize) -> Address {
    format!("10.0.0.{}:3306", server + 1).parse().expect("an address")
}

pub fn begin(setup: &Setup) -> (Picture, Vec<Prober>) {
    let entry = |server| ServerEntry { address: address(server), weight: 1, role_hint: None };
    let source = match setup.pods {
        true => Source::Pods,
        false => Source::Static { servers: (0..3).map(entry).collect() },
    };
    let limits = Limits { answer_ms_max: 1_500, drain_ms: 1_000, lag_sample_ms: 50, ..Limits::default() };
    let now = Now { ms: 0, unix_ms: 0 };
    (Picture::new(ClusterName::from("simulated"), source, limits, now), vec![Prober::default(); 3])
}

/// Asks a server, and plans the next question.
pub fn ask(w: &mut World, server: usize) {
    if w.probers[server].planned == w.now {
        ask_now(w, server);
        let interval = if w.topology.doubt { DOUBT_INTERVAL } else { INTERVAL };
        plan(w, server, interval);
    }
}

fn plan(w: &mut World, server: usize, interval: Time) {
    w.probers[server].planned = w.now + interval;
    w.at(w.now + interval, Event::Ask { server });
}

fn ask_now(w: &mut World, server: usize) {
    if w.probers[server].asking.is_none() {
        w.probers[server].asking = Some(w.now);
        let delay = w.rng.between(50, 400);
        w.at(w.now + delay, Event::Asked { server, asked: w.now });
        w.at(w.now + TIMEOUT, Event::Unanswered { server, asked: w.now });
    }
}

/// Asks all of them now: something speaks against one.
pub fn wake(w: &mut World) {
    for server in 0..3 {
        ask_now(w, server);
        plan(w, server, DOUBT_INTERVAL);
    }
}

/// A hint against a server; answers since when answers count.
pub fn suspect(w: &mut World, backend: BackendId) -> u64 {
    let at_ms = w.now_ms();
    w.picture.suspect(backend, at_ms);
    wake(w);
    w.at(w.now, Event::Round);
    at_ms
}

pub fn asked(w: &mut World, server: usize, asked: Time) {
    let host = &w.servers[server];
    match host.life {
        Life::Frozen => {}
        Life::Up if host.proxy_cut => {}
        Life::Down => observe(w, server, asked, Err(FailureKind::Gone)),
        Life::Up => {
            let report = Box::new(report(w, server));
            let delay = w.rng.between(50, 400);
            w.at(w.now + delay, Event::Answered { server, asked, report });
        }
    }
}

pub fn answered(w: &mut World, server: usize, asked: Time, report: Report) {
    if w.probers[server].asking == Some(asked) {
        observe(w, server, asked, Ok(report));
    }
}

pub fn unanswered(w: &mut World, server: usize, asked: Time) {
    if w.probers[server].asking == Some(asked) {
        observe(w, server, asked, Err(FailureKind::Silent));
    }
}

fn observe(w: &mut World, server: usize, asked: Time, outcome: Result<Report, FailureKind>) {
    w.probers[server].asking = None;
    let outcome = outcome.map_err(|kind| Failure { kind, text: "no answer".into() });
    let backend = BackendId(server as u32);
    w.picture.observe(Observation { backend, asked_ms: asked / 1000, outcome });
    round(w);
}

fn report(w: &World, server: usize) -> Report {
    let host = &w.servers[server];
    let member = |(m, state, primary): &(usize, _, bool)| Member {
        uuid: uuid(*m).into(),
        address: Some(address(*m)),
        state: *state,
        primary: *primary,
    };
    let group = w.truth.grouped.then(|| GroupView { members: host.view.members.iter().map(member).collect() });
    let channel = |source: usize| Channel {
        source_uuid: Some(uuid(source).into()),
        source_server_id: Some(source as u32 + 1),
        source: Some(address(source)),
        receiver: if w.servers[source].is_well() && host.is_well() { Receiver::On } else { Receiver::Connecting },
    };
    Report {
        server_uuid: Some(uuid(server).into()),
        server_id: server as u32 + 1,
        read_only: host.read_only,
        offline: false,
        gtids: Some(host.gtids.clone()),
        group,
        channels: host.source.map(channel).into_iter().collect(),
        greeting: Arc::new(ServerGreeting {
            version: "9.7.4".into(),
            flavor: Flavor::MySql,
            capabilities: u64::MAX,
            collation: 45,
            plugin: "caching_sha2_password".into(),
        }),
    }
}

/// The writer's step: the next snapshot.
pub fn round(w: &mut World) {
    let now = Now { ms: w.now_ms(), unix_ms: 1_700_000_000_000 + w.now_ms() };
    let next = w.picture.round(now);
    let before = std::mem::replace(&mut w.topology, next);
    let next = w.topology.clone();
    if next.term < before.term {
        w.fail(format!("the term went back from {:?} to {:?}", before.term, next.term));
    }
    let primaries = next.backends.iter().filter(|b| b.role == holdfast::types::Role::Primary).count();
    if primaries != usize::from(next.primary.is_some()) {
        w.fail(format!("{primaries} primaries in one snapshot"));
    }
    if next.primary != before.primary || next.term != before.term {
        w.changed = w.now;
        w.note(|| format!("snapshot: term {} primary {:?}: {}", next.term.0, next.primary, next.why));
    }
    if let Some(proven) = next.primary_for_writes(w.now_ms(), super::checkout::DOUBT_MS_MAX) {
        w.last_proven.insert((proven.id, next.term), w.now);
    } else if let Some(proven) = before.primary_for_writes(w.now_ms(), super::checkout::DOUBT_MS_MAX) {
        w.last_proven.insert((proven.id, before.term), w.now);
    }
    if next.doubt && !before.doubt {
        wake(w);
    }
    w.ready.extend(0..w.tasks);
}

fn pod(server: usize, label: Label) -> Arc<PodFacts> {
    let name: Arc<str> = format!("db-{server}").into();
    let group = Group { namespace: "db".into(), cluster: "simulated".into(), component: "".into() };
    Arc::new(PodFacts {
        group,
        uid: format!("{name}-uid").into(),
        name,
        address: Some(address(server)),
        state: PodState::Ready,
        restarts: 0,
        label,
        unlabelled_reads: true,
        term: None,
    })
}

/// Labels as they should be: the primary's on the primary.
pub fn relabel(w: &mut World) {
    let primary = w.truth.primary;
    let label = |s| if s == primary { Label::Primary } else { Label::Follower };
    show(w, [label(0), label(1), label(2)]);
}

/// Labels that say anything.
pub fn lie(w: &mut World) {
    let labels = [(); 3].map(|()| w.rng.pick(&[Label::Primary, Label::Follower, Label::None]));
    w.note(|| format!("FAULT labels {labels:?}"));
    show(w, labels);
}

fn show(w: &mut World, labels: [Label; 3]) {
    if w.setup.pods {
        let pods: Vec<_> = labels.into_iter().enumerate().map(|(server, label)| pod(server, label)).collect();
        let now = Now { ms: w.now_ms(), unix_ms: 0 };
        if w.picture.follow_pods(&pods, now) {
            wake(w);
        }
    }
}
