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

mod commit;

use super::faults::Fault;
use super::packets;
use super::server::{self, Life, TxnId, View};
use super::world::{Event, Time, World};
use commit::receive;
pub use commit::{apply, arrived, commit, decide, done};
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
    }
    w.servers[0].read_only = false;
    w.at(20_000, Event::Step);
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
