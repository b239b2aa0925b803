//! How a transaction gets from its client to every server, and who must have heard of it before it is answered.

use super::{GROUP, uuid};
use crate::simulation::server::{self, Life, Pending, Row, Txn, TxnId};
use crate::simulation::world::{Event, World};
use holdfast::types::GtidSet;
use std::collections::BTreeSet;

/// A connection asks for these rows to be committed.
pub fn commit(w: &mut World, server: usize, thread: u32, rows: Vec<Row>) {
    let stamp = w.servers[server].conns.get_mut(&thread).and_then(|conn| conn.stamp.take());
    w.servers[server].commits.push(Pending { thread, rows, stamp, txn: None });
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
    let (thread, rows, stamp) = {
        let pending = &w.servers[server].commits[index];
        (pending.thread, pending.rows.clone(), pending.stamp)
    };
    let source = if w.truth.grouped { GROUP.to_owned() } else { uuid(server) };
    let of_source = |txn: &Txn| txn.text.starts_with(&source);
    let here = &w.servers[server];
    let decided = here.commits.iter().filter_map(|c| c.txn.as_ref());
    let known = here.binlog.iter().chain(here.has.iter()).chain(here.received.iter()).chain(decided);
    let seen: BTreeSet<TxnId> = known.copied().filter(|id| of_source(&w.txns[*id])).collect();
    let number = seen.len() + 1;
    let text = format!("{source}:{number}");
    let gtid: GtidSet = text.parse().expect("a GTID");
    w.check_accepted(server, thread, &rows);
    w.note(|| format!("server {server} thread {thread} gives {text} to {rows:?}"));
    w.txns.push(Txn { gtid, text, origin: server, stamp, rows });
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

pub(super) fn receive(w: &mut World, member: usize, id: TxnId) {
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
