//! What goes wrong, and that it ends: at most one server is ill at a time, so that a majority can always decide; a
//! connection may break and labels may lie whenever they like.

use super::server::Life;
use super::world::{Event, LinkState, Time, World};

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// kill -9, and a restart later.
    Kill(Which),
    /// SIGSTOP, and SIGCONT later.
    Freeze(Which),
    /// Cut off from the proxy, the other servers, or both.
    Isolate(Which),
    /// A planned change of the primary.
    SwitchOver,
    /// One connection breaks somewhere in an answer; its server lives.
    Break,
    /// A follower falls behind.
    Slow,
    /// Labels that lie for a while.
    Labels,
    /// Labels follow the roles again.
    Relabel,
    Restart(usize),
    Resume(usize),
    Heal(usize),
    Recover(usize),
}

#[derive(Clone, Copy, Debug)]
pub enum Which {
    Primary,
    Follower,
}

/// After this, nothing new goes wrong (µs).
pub const UNTIL: Time = 3_000_000;

/// Chooses the faults of a seed.
pub fn plan(w: &mut World) {
    for _ in 0..w.rng.between(2, 5) {
        let time = w.rng.between(300_000, UNTIL);
        let which = if w.rng.percent(75) { Which::Primary } else { Which::Follower };
        let fault = match w.rng.below(100) {
            0..35 => Fault::Kill(which),
            35..55 => Fault::Freeze(which),
            55..70 => Fault::Isolate(which),
            70..85 => Fault::SwitchOver,
            85..93 => Fault::Slow,
            _ => Fault::Labels,
        };
        w.at(time, Event::Fault(fault));
    }
    for _ in 0..w.rng.between(0, 12) {
        let time = w.rng.between(100_000, UNTIL);
        w.at(time, Event::Fault(Fault::Break));
    }
}

pub fn happen(w: &mut World, fault: Fault) {
    match fault {
        Fault::Kill(which) => {
            let Some(server) = victim(w, fault, which) else { return };
            kill(w, server);
            let back = w.truth.patience.1 + w.rng.between(100_000, 1_000_000);
            w.at(w.now + back, Event::Fault(Fault::Restart(server)));
        }
        Fault::Freeze(which) => {
            let Some(server) = victim(w, fault, which) else { return };
            w.servers[server].life = Life::Frozen;
            let back = w.rng.between(20_000, 2_500_000);
            w.at(w.now + back, Event::Fault(Fault::Resume(server)));
        }
        Fault::Isolate(which) => {
            let Some(server) = victim(w, fault, which) else { return };
            let how = w.rng.below(3);
            (w.servers[server].peers_cut, w.servers[server].proxy_cut) = (how != 0, how != 1);
            let back = w.rng.between(20_000, 2_500_000);
            w.at(w.now + back, Event::Fault(Fault::Heal(server)));
        }
        Fault::SwitchOver => switch_over(w, fault),
        Fault::Break => break_one(w),
        Fault::Slow => {
            let server = w.rng.below(3) as usize;
            w.servers[server].lag = (150_000, 700_000);
            let back = w.rng.between(300_000, 2_000_000);
            w.at(w.now + back, Event::Fault(Fault::Recover(server)));
        }
        Fault::Labels => {
            super::probes::lie(w);
            let back = w.rng.between(100_000, 1_500_000);
            w.at(w.now + back, Event::Fault(Fault::Relabel));
        }
        Fault::Relabel => super::probes::relabel(w),
        Fault::Restart(server) => restart(w, server),
        Fault::Resume(server) => {
            w.note(|| format!("server {server} resumes"));
            w.servers[server].life = Life::Up;
            w.release(server);
            w.at(w.now, Event::Decide { server });
            for id in decided(w, server) {
                w.at(w.now + 200, Event::Committed { server, id });
            }
        }
        Fault::Heal(server) => {
            w.note(|| format!("server {server} is heard again"));
            (w.servers[server].peers_cut, w.servers[server].proxy_cut) = (false, false);
            w.release(server);
        }
        Fault::Recover(server) => w.servers[server].lag = (100, 3_000),
    }
}

/// What a group has decided on and its frozen primary has not committed yet.
fn decided(w: &World, server: usize) -> Vec<usize> {
    if !w.truth.grouped {
        return Vec::new();
    }
    w.servers[server].commits.iter().filter_map(|c| c.txn).collect()
}

/// Whom it hits. Nobody, for now, while another server is ill or a change is under way.
fn victim(w: &mut World, fault: Fault, which: Which) -> Option<usize> {
    if !is_quiet(w) {
        if w.now < UNTIL {
            w.at(w.now + 150_000, Event::Fault(fault));
        }
        return None;
    }
    let primary = w.truth.primary;
    let server = match which {
        Which::Primary => primary,
        Which::Follower => (primary + 1 + w.rng.below(2) as usize) % 3,
    };
    w.note(|| format!("FAULT {fault:?} hits server {server}"));
    w.count("faults");
    Some(server)
}

/// Is everybody well and where he belongs?
pub fn is_quiet(w: &World) -> bool {
    let primary = w.truth.primary;
    let placed = |s: usize| match w.truth.grouped {
        true => w.truth.members.contains(&s),
        false => s == primary || w.servers[s].source == Some(primary),
    };
    let well = |s: usize| w.servers[s].is_well() && !w.servers[s].proxy_cut && placed(s);
    (0..3).all(well) && w.truth.rising.is_none() && w.truth.handing_over.is_none() && !w.servers[primary].read_only
}

fn kill(w: &mut World, server: usize) {
    w.servers[server].life = Life::Down;
    w.forget_stalled(server);
    let threads: Vec<u32> = w.servers[server].conns.keys().copied().collect();
    for thread in threads {
        w.drop_connection(server, thread);
    }
}

fn restart(w: &mut World, server: usize) {
    w.note(|| format!("server {server} starts again"));
    let lies = w.rng.percent(30);
    let host = &mut w.servers[server];
    host.life = Life::Up;
    host.commits.clear();
    // A set's server finds in its binary log what it had not answered; and its configuration may let it be writable.
    host.read_only = w.truth.grouped || !lies;
    if !w.truth.grouped {
        for id in host.binlog.clone() {
            host.apply(id, &w.txns[id]);
        }
    }
    host.view.members = vec![(server, holdfast::topology::report::MemberState::Offline, false)];
    host.view.id = 0;
}

fn switch_over(w: &mut World, fault: Fault) {
    let Some(from) = victim(w, fault, Which::Primary) else { return };
    let to = (from + 1 + w.rng.below(2) as usize) % 3;
    w.truth.handing_over = Some(to);
    w.servers[from].read_only = true;
    w.note(|| format!("switchover from {from} to {to}"));
}

fn break_one(w: &mut World) {
    let open = |link: &&usize| w.links[**link].state == LinkState::Open;
    let all: Vec<usize> = (0..w.links.len()).collect();
    let open: Vec<usize> = all.iter().filter(open).copied().collect();
    if open.is_empty() {
        return;
    }
    let link = w.rng.pick(&open);
    let (server, thread) = (w.links[link].server, w.links[link].thread);
    if w.servers[server].life == Life::Up && !w.servers[server].proxy_cut {
        w.note(|| format!("FAULT link {link} to server {server} breaks"));
        w.count("links broken");
        w.drop_connection(server, thread);
    }
}
