//! How servers become a cluster, in truth: what is committed, who is elected or promoted, who is fenced.
//!
//! ```text
//!  group:  commit ──a majority of the primary's own view hears it──► decided: every member will apply it ──► answered
//!          silent member ──► UNREACHABLE ──► expelled; the rest, a majority, elect ──► it notices, and joins again
//!  set:    commit ──► binary log ──a follower has received it──► answered (semi-sync, no timeout)
//!          silent primary ──► the follower that has received most applies it all ──► writable ──► the old one is fenced
//! ```
//!
//! A primary that was cut off or frozen goes on calling itself primary, writable, until it notices or is fenced.

use super::faults::Fault;
use super::packets;
use super::server::{self, Life, Pending, Row, Txn, TxnId, View};
use super::world::{Event, Time, World};
use holdfast::topology::report::MemberState;
use holdfast::types::GtidSet;
use std::collections::BTreeSet;

const GROUP: &str = "aaaaaaaa-0000-4000-8000-000000000000";

/// The cluster's own state, which no server sees whole.
pub struct Truth {
    pub grouped: bool,
    /// Who may decide alone: the group's primary, or whom the operator has appointed.
    pub primary: usize,
    /// The group's members, in its newest view.
    pub members: BTreeSet<usize>,
    pub view: u64,
    /// A new primary that has not applied everything yet.
    pub rising: Option<usize>,
    /// A planned change that waits for the old primary's last commits.
    pub handing_over: Option<usize>,
    /// µs of silence until a member is UNREACHABLE, and until it is expelled or deposed.
    pub patience: (Time, Time),
    /// µs until a member that was expelled notices, or an old primary is fenced.
    pub notice: Time,
}

pub fn uuid(server: usize) -> String {
    format!("bbbbbbbb-0000-4000-8000-00000000000{}", server + 1)
}

pub fn begin(w: &mut World) {
    if w.truth.grouped {
        install(w);
    }
    for server in 0..w.servers.len() {
        w.servers[server].source = (!w.truth.grouped && server != 0).then_some(0);
        w.servers[server].claimed_since = Some(0);
    }
    w.servers[0].read_only = false;
    w.at(20_000, Event::Step);
}

/// A connection asks for these rows to be committed.
pub fn commit(w: &mut World, server: usize, thread: u32, rows: Vec<Row>) {
    let tag = w.servers[server].conns.get(&thread).map_or_else(String::new, |conn| conn.tag.clone());
    w.servers[server].commits.push(Pending { thread, rows, tag, txn: None });
    if w.truth.grouped {
        let delay = w.rng.between(30, 400);
        return w.at(w.now + delay, Event::Decide { server });
    }
    let id = allocate(w, server, w.servers[server].commits.len() - 1);
    w.servers[server].binlog.push(id);
    ship(w, server);
}

/// Gives a pending commit its GTID.
fn allocate(w: &mut World, server: usize, index: usize) -> TxnId {
    let (thread, rows, tag) = {
        let pending = &w.servers[server].commits[index];
        (pending.thread, pending.rows.clone(), pending.tag.clone())
    };
    let source = if w.truth.grouped { GROUP.to_owned() } else { uuid(server) };
    let of_lane = |txn: &Txn| txn.tag == tag && txn.text.starts_with(&source);
    let here = &w.servers[server];
    let decided = here.commits.iter().filter_map(|c| c.txn.as_ref());
    let known = here.binlog.iter().chain(here.has.iter()).chain(here.received.iter()).chain(decided);
    let seen: BTreeSet<TxnId> = known.copied().filter(|id| of_lane(&w.txns[*id])).collect();
    let number = seen.len() + 1;
    let text = match tag.as_str() {
        "" => format!("{source}:{number}"),
        tag => format!("{source}:{tag}:{number}"),
    };
    let gtid: GtidSet = text.parse().expect("a GTID");
    w.check_accepted(server, thread, &rows);
    w.note(|| format!("server {server} thread {thread} gives {text} to {rows:?}"));
    w.txns.push(Txn { gtid, text, tag, rows });
    let id = w.txns.len() - 1;
    w.servers[server].commits[index].txn = Some(id);
    id
}

/// The group decides on what waits at `server`, if that has a majority of its own view.
pub fn decide(w: &mut World, server: usize) {
    let host = &w.servers[server];
    if host.life != Life::Up || host.commits.iter().all(|c| c.txn.is_some()) {
        return;
    }
    let view = host.view.id;
    let hears = |m: &usize| *m == server || (w.servers[*m].is_well() && w.servers[*m].view.id == view);
    let members: Vec<usize> = host.view.members.iter().map(|(m, ..)| *m).collect();
    let hearing = members.iter().filter(|m| hears(m)).count();
    if host.peers_cut || hearing * 2 <= members.len() || view != w.truth.view {
        return w.at(w.now + 20_000, Event::Decide { server });
    }
    for index in 0..w.servers[server].commits.len() {
        if w.servers[server].commits[index].txn.is_some() {
            continue;
        }
        let id = allocate(w, server, index);
        let others = members.iter().copied().filter(|m| *m != server && w.truth.members.contains(m));
        for member in others.collect::<Vec<_>>() {
            receive(w, member, id);
        }
        let delay = w.rng.between(20, 600);
        w.at(w.now + delay, Event::Committed { server, id });
    }
}

fn receive(w: &mut World, member: usize, id: TxnId) {
    let host = &mut w.servers[member];
    if host.has.contains(&id) || host.received.contains(&id) {
        return;
    }
    host.received.push_back(id);
    host.ever_received = host.ever_received.union(&w.txns[id].gtid);
    if host.received.len() == 1 {
        let (low, high) = host.lag;
        let delay = w.rng.between(low, high);
        w.at(w.now + delay, Event::Apply { server: member });
    }
}

/// A follower applies the next transaction that it has received.
pub fn apply(w: &mut World, server: usize) {
    if w.servers[server].life != Life::Up {
        return;
    }
    let Some(id) = w.servers[server].received.pop_front() else { return };
    w.servers[server].apply(id, &w.txns[id]);
    if !w.servers[server].received.is_empty() {
        let (low, high) = w.servers[server].lag;
        let delay = w.rng.between(low, high) / 4;
        w.at(w.now + delay, Event::Apply { server });
    }
}

/// A transaction is committed where it was sent, and answered.
pub fn done(w: &mut World, server: usize, id: TxnId) {
    let host = &mut w.servers[server];
    let Some(index) = host.commits.iter().position(|c| c.txn == Some(id)) else { return };
    if host.life != Life::Up {
        return;
    }
    let pending = host.commits.remove(index);
    host.apply(id, &w.txns[id]);
    server::committed(w, server, pending.thread, Ok(Some(id)));
}

/// Every follower of `server` gets what it lacks of its binary log.
fn ship(w: &mut World, server: usize) {
    for follower in 0..w.servers.len() {
        if w.servers[follower].source == Some(server) {
            let delay = w.rng.between(50, 500);
            w.at(w.now + delay, Event::Ship { from: server, to: follower });
        }
    }
}

pub fn arrived(w: &mut World, from: usize, to: usize) {
    let linked = w.servers[from].is_well() && w.servers[to].is_well() && w.servers[to].source == Some(from);
    if !linked {
        return;
    }
    for id in w.servers[from].binlog.clone() {
        receive(w, to, id);
    }
    let acknowledged: Vec<TxnId> = w.servers[from].commits.iter().filter_map(|c| c.txn).collect();
    for id in acknowledged {
        let delay = w.rng.between(30, 400);
        w.at(w.now + delay, Event::Committed { server: from, id });
    }
}

/// Every 20 ms: what members and operator notice.
pub fn step(w: &mut World) {
    for server in 0..w.servers.len() {
        let well = w.servers[server].is_well();
        let silent = w.servers[server].silent_since;
        if well == silent.is_some() {
            w.servers[server].silent_since = if well { None } else { Some(w.now) };
            w.servers[server].back_since = w.now;
        }
        if w.servers[server].life == Life::Up && w.servers[server].claimed_since.is_none() && w.rng.percent(20) {
            w.servers[server].claimed_since = Some(w.now);
        }
        if well && !w.servers[server].received.is_empty() {
            apply(w, server);
        }
    }
    if w.truth.grouped {
        step_group(w)
    } else {
        step_set(w)
    }
    if let Some(to) = w.truth.rising
        && w.servers[to].is_well()
        && w.servers[to].received.is_empty()
    {
        w.truth.rising = None;
        w.servers[to].read_only = false;
        w.note(|| format!("server {to} is writable"));
    }
    w.at(w.now + 20_000, Event::Step);
}

fn silent_for(w: &World, server: usize) -> Time {
    w.servers[server].silent_since.map_or(0, |since| w.now - since)
}

fn step_group(w: &mut World) {
    let members: Vec<usize> = w.truth.members.iter().copied().collect();
    let well: Vec<usize> = members.iter().copied().filter(|m| w.servers[*m].is_well()).collect();
    let gone: Vec<usize> = members.iter().copied().filter(|m| silent_for(w, *m) > w.truth.patience.1).collect();
    if well.len() * 2 > members.len() && !gone.is_empty() {
        w.truth.members.retain(|m| !gone.contains(m));
        if gone.contains(&w.truth.primary) {
            let next = w.rng.pick(&well);
            rise(w, next);
        }
        install(w);
    }
    // Whom each one sees.
    for server in members {
        let newest = w.truth.members.contains(&server) && w.servers[server].view.id != w.truth.view;
        if newest && w.servers[server].is_well() {
            w.servers[server].view = newest_view(w);
        }
        let mine = w.servers[server].peers_cut;
        let view = &w.servers[server].view;
        let seen = view.members.iter().map(|(m, state, primary)| {
            let unheard = *m != server && (mine || silent_for(w, *m) > w.truth.patience.0);
            let gone = unheard && silent_for(w, if mine { server } else { *m }) > w.truth.patience.0;
            let state = match (gone, state) {
                (true, _) => MemberState::Unreachable,
                (false, MemberState::Unreachable) => MemberState::Online,
                (false, state) => *state,
            };
            (*m, state, *primary)
        });
        let members = seen.collect();
        if w.servers[server].life == Life::Up {
            w.servers[server].view.members = members;
        }
    }
    for server in 0..w.servers.len() {
        let outside = !w.truth.members.contains(&server) && w.servers[server].is_well();
        let waited = w.now - w.servers[server].back_since;
        if outside && waited > w.truth.notice {
            notice(w, server);
        }
        if outside && waited > w.truth.notice + 300_000 && w.truth.rising.is_none() {
            clone(w, server);
            w.truth.members.insert(server);
            install(w);
        }
    }
    hand_over(w);
}

/// The newest view reaches its members.
fn install(w: &mut World) {
    w.truth.view += 1;
    let view = newest_view(w);
    for member in w.truth.members.clone() {
        if w.servers[member].is_well() {
            w.servers[member].view = view.clone();
        }
    }
    w.note(|| format!("view {view:?}"));
}

fn newest_view(w: &World) -> View {
    let entry = |m: &usize| (*m, MemberState::Online, *m == w.truth.primary);
    View { id: w.truth.view, members: w.truth.members.iter().map(entry).collect() }
}

/// A member finds out that its group has gone on without it, or an old primary that it is fenced: what waits fails.
fn notice(w: &mut World, server: usize) {
    if !w.servers[server].read_only || !w.servers[server].commits.is_empty() {
        w.note(|| format!("server {server} is fenced"));
    }
    w.servers[server].read_only = true;
    if w.truth.grouped {
        w.servers[server].view = View { id: 0, members: vec![(server, MemberState::Error, false)] };
    }
    for pending in std::mem::take(&mut w.servers[server].commits) {
        let refusal = packets::err(3100, b"HY000", "Error on observer while running replication hook 'before_commit'.");
        server::committed(w, server, pending.thread, Err(refusal));
    }
}

/// Gets the primary's data instead of its own.
fn clone(w: &mut World, server: usize) {
    let donor = w.truth.primary;
    let threads: Vec<u32> = w.servers[server].conns.keys().copied().collect();
    for thread in threads {
        w.drop_connection(server, thread);
    }
    let (rows, has, gtids, received, binlog) = {
        let donor = &w.servers[donor];
        (donor.rows.clone(), donor.has.clone(), donor.gtids.clone(), donor.received.clone(), donor.binlog.clone())
    };
    let unapplied: Vec<TxnId> = w.servers[donor].commits.iter().filter_map(|c| c.txn).collect();
    let host = &mut w.servers[server];
    (host.rows, host.has, host.gtids, host.received) = (rows, has, gtids, received);
    host.binlog = binlog.into_iter().filter(|id| host.has.contains(id)).collect();
    host.ever_received = host.received.iter().fold(GtidSet::default(), |all, id| all.union(&w.txns[*id].gtid));
    host.commits.clear();
    host.read_only = true;
    for id in unapplied {
        receive(w, server, id);
    }
    w.note(|| format!("server {server} is a clone of {donor}"));
}

fn rise(w: &mut World, to: usize) {
    w.note(|| format!("server {to} is to be the primary"));
    w.truth.primary = to;
    w.truth.rising = Some(to);
    let late = w.rng.between(10_000, 800_000);
    w.at(w.now + late, Event::Fault(Fault::Relabel));
}

fn step_set(w: &mut World) {
    let old = w.truth.primary;
    if silent_for(w, old) > w.truth.patience.1 && w.truth.rising.is_none() {
        let candidates = (0..w.servers.len()).filter(|s| *s != old && w.servers[*s].is_well());
        let best = candidates.max_by_key(|s| w.servers[*s].has.len() + w.servers[*s].received.len());
        if let Some(best) = best {
            w.truth.handing_over = None;
            appoint(w, best);
        }
    }
    for server in 0..w.servers.len() {
        let primary = w.truth.primary;
        let waited = w.now - w.servers[server].back_since;
        if server == primary || !w.servers[server].is_well() || waited < w.truth.notice {
            continue;
        }
        if w.servers[server].source != Some(primary) && w.truth.rising.is_none() {
            notice(w, server);
            clone(w, server);
            w.servers[server].source = Some(primary);
        }
        w.at(w.now + 200, Event::Ship { from: primary, to: server });
    }
    hand_over(w);
}

/// Followers obey the new primary, which stops following.
fn appoint(w: &mut World, to: usize) {
    let old = w.truth.primary;
    rise(w, to);
    for server in 0..w.servers.len() {
        if server != to && server != old && w.servers[server].is_well() {
            w.servers[server].source = Some(to);
        }
    }
    w.servers[to].source = None;
}

/// A planned change: the old primary takes nothing new; once its last commits are done and received, the next one rises.
fn hand_over(w: &mut World) {
    let Some(to) = w.truth.handing_over else { return };
    let old = w.truth.primary;
    if to == old || !w.servers[to].is_well() || !w.servers[old].is_well() || !w.truth.members.contains(&to) {
        w.truth.handing_over = None;
        w.servers[old].read_only = w.truth.rising == Some(old);
        return;
    }
    w.servers[old].read_only = true;
    let idle = w.servers[old].commits.is_empty();
    let there = w.servers[old].has.iter().all(|id| {
        let next = &w.servers[to];
        next.has.contains(id) || next.received.contains(id)
    });
    if idle && there {
        w.truth.handing_over = None;
        if w.truth.grouped {
            rise(w, to);
            install(w);
        } else {
            appoint(w, to);
            w.servers[old].source = Some(to);
        }
    }
}
