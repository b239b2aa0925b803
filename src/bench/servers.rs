//! The servers behind the port, asked directly: who is the primary, and when the new one can be written.
//!
//! One connection per server, asked again 5 ms after each answer. The question writes nothing: a server is writable when
//! it is not read-only and, if it is in a group, calls itself its ONLINE primary.

use super::client::{Client, Target, text};
use super::error::BenchError;
use super::fault::Fault;
use super::report::{Agreement, Change, ServerReport, ServerState};
use crate::types::Address;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Between an answer and the next question.
const PERIOD: Duration = Duration::from_millis(5);
/// A server that does not answer within this is away.
const SILENCE: Duration = Duration::from_millis(500);
/// Before a server that could not be reached is tried again.
const AWAY: Duration = Duration::from_millis(20);
/// Changes kept of each server.
const CHANGES_MAX: usize = 1000;

/// The last column: no row, no group.
const MYSQL: &str = "SELECT @@global.server_id, @@global.read_only OR @@global.super_read_only, @@global.server_uuid, \
     (SELECT CONCAT(MEMBER_STATE, '/', MEMBER_ROLE) FROM performance_schema.replication_group_members \
     WHERE MEMBER_ID = @@global.server_uuid)";
/// MariaDB 12 has words for degrees of read_only.
const MARIADB: &str = "SELECT @@global.server_id, @@global.read_only NOT IN ('0', 'OFF'), '', NULL";

/// One server.
#[derive(Clone)]
pub struct Server {
    /// How to reach it.
    pub target: Target,
    /// Its server_id, by which written rows name their writer.
    pub id: u64,
    /// Its server_uuid; empty for MariaDB.
    pub uuid: String,
    /// It is in a group.
    pub in_group: bool,
    /// In its group it was ONLINE when it was asked; true without a group.
    pub is_online: bool,
}

impl Server {
    /// Its address.
    pub fn address(&self) -> &Address {
        &self.target.address
    }

    /// Asks a server who it is, and what it is now.
    pub async fn identify(target: Target) -> Result<(Self, ServerState), BenchError> {
        match ask_once(&target).await {
            Ok(answer) => {
                let state = answer.state();
                let in_group = answer.member.is_some();
                let is_online = answer.member.is_none_or(|member| member.starts_with("ONLINE/"));
                Ok((Self { target, id: answer.id, uuid: answer.uuid, in_group, is_online }, state))
            }
            Err(fault) => Err(BenchError::Server { address: target.address, what: "asking it about itself", fault }),
        }
    }

    /// What it is now.
    pub async fn state(&self) -> ServerState {
        let target = Target { statement_timeout: SILENCE * 4, ..self.target.clone() };
        ask_once(&target).await.map_or(ServerState::Away, |answer| answer.state())
    }
}

async fn ask_once(target: &Target) -> Result<Answer, Fault> {
    let mut link = Client::open(target, None).await?;
    ask(&mut link).await
}

struct Answer {
    id: u64,
    uuid: String,
    read_only: bool,
    /// Its state and role in its group, if it is in one.
    member: Option<String>,
}

impl Answer {
    fn state(&self) -> ServerState {
        match (self.read_only, self.member.as_deref()) {
            (false, None | Some("ONLINE/PRIMARY")) => ServerState::Writable,
            (true, Some("ONLINE/PRIMARY")) => ServerState::Elected,
            _ => ServerState::Follower,
        }
    }
}

async fn ask(link: &mut Client) -> Result<Answer, Fault> {
    let rows = link.query(if link.is_mysql { MYSQL } else { MARIADB }).await?;
    let row = rows.first().ok_or_else(|| Fault::lost("no row"))?;
    // A server that has the plugin and is in no group has one row: OFFLINE, without role.
    let member = text(row, 3).filter(|member| !member.starts_with("OFFLINE"));
    let read_only = text(row, 1).as_deref() != Some("0");
    let id = text(row, 0).and_then(|id| id.parse().ok()).unwrap_or(0);
    Ok(Answer { id, uuid: text(row, 2).unwrap_or_default(), read_only, member })
}

/// What a server has been since the start of the run.
#[derive(Clone, Debug, Default)]
pub struct Log {
    changes: Vec<Change>,
    /// When the last question that is answered was asked.
    asked_us: u64,
}

impl Log {
    fn note(&mut self, state: ServerState, asked_us: u64, at_us: u64) {
        let same = self.changes.last().is_some_and(|last| last.state == state);
        if !same && self.changes.len() < CHANGES_MAX {
            self.changes.push(Change { at_us, not_before_us: self.asked_us, state });
        }
        self.asked_us = asked_us;
    }
}

/// Shared by the watching tasks and who reads their logs.
pub type Logs = Rc<RefCell<Vec<Log>>>;

/// Asks one server until it is cancelled, which it may be at any time.
pub async fn follow(server: Server, logs: Logs, index: usize, origin: Instant) {
    let now = || u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX);
    let target = Target { statement_timeout: SILENCE, ..server.target.clone() };
    let mut link = None;
    loop {
        let asked = now();
        let answer = match link.take() {
            Some(open) => next(open).await,
            None => match Client::open(&target, None).await {
                Ok(open) => next(open).await,
                Err(fault) => Err(fault),
            },
        };
        let (state, pause) = match answer {
            Ok((open, state)) => {
                link = Some(open);
                (state, PERIOD)
            }
            Err(_) => (ServerState::Away, AWAY),
        };
        logs.borrow_mut()[index].note(state, asked, now());
        tokio::time::sleep(pause).await;
    }
}

async fn next(mut link: Client) -> Result<(Client, ServerState), Fault> {
    let state = ask(&mut link).await?.state();
    Ok((link, state))
}

/// The first row that the servers' own clients could write after the trigger: who took it, and when.
pub type FirstRow = Rc<Cell<Option<u64>>>;

/// Writes a row to one server as soon as it takes one, and notes when that was if it is the first of all. Logs in at once,
/// begins with `trigger`. May be cancelled at any time.
pub async fn write_first(
    target: Target,
    database: String,
    mut trigger: watch::Receiver<bool>,
    first: FirstRow,
    origin: Instant,
) {
    let mut link = Client::open(&target, Some(&database)).await.ok();
    if trigger.wait_for(|pulled| *pulled).await.is_err() {
        return;
    }
    while first.get().is_none() {
        let answer = match link.as_mut() {
            Some(open) => open.query("INSERT INTO direct VALUES (@@global.server_id)").await,
            None => match Client::open(&target, Some(&database)).await {
                Ok(open) => {
                    link = Some(open);
                    continue;
                }
                Err(fault) => Err(fault),
            },
        };
        match answer {
            Ok(_) if first.get().is_none() => {
                first.set(Some(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX)));
            }
            Ok(_) => {}
            Err(fault) if fault.lost => link = None,
            Err(_) => {}
        }
        tokio::time::sleep(if link.is_some() { PERIOD } else { AWAY }).await;
    }
}

/// The change by which a server other than `old` became at least `state`, after `since`: its index and when.
pub fn became(logs: &[Log], old: Option<usize>, state: ServerState, since: u64) -> Option<(usize, Change)> {
    let fits = |change: &&Change| {
        change.at_us > since
            && match state {
                ServerState::Elected => matches!(change.state, ServerState::Elected | ServerState::Writable),
                other => change.state == other,
            }
    };
    let first = |(index, log): (usize, &Log)| log.changes.iter().find(fits).map(|change| (index, *change));
    let others = || logs.iter().enumerate().filter(|(index, _)| Some(*index) != old).filter_map(first);
    let earliest = |found: &(usize, Change)| found.1.at_us;
    // Where nobody else does, the old one may come back.
    others().min_by_key(earliest).or_else(|| first((old?, logs.get(old?)?)))
}

/// The logs as reports.
pub fn reports(servers: &[Server], logs: &[Log], agrees: &[Agreement]) -> Vec<ServerReport> {
    let each = servers.iter().zip(logs).zip(agrees);
    each.map(|((server, log), agrees)| ServerReport {
        address: server.address().to_string(),
        changes: log.changes.clone(),
        agrees: *agrees,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ServerState::{Away, Elected, Follower, Writable};

    fn log(states: &[(u64, ServerState)]) -> Log {
        let mut log = Log::default();
        states.iter().for_each(|(at, state)| log.note(*state, at.saturating_sub(1), *at));
        log
    }

    #[test]
    fn a_state_is_what_read_only_and_the_group_say_together() {
        for (read_only, member, state) in [
            (false, None, Writable),
            (true, None, Follower),
            (false, Some("ONLINE/PRIMARY"), Writable),
            (true, Some("ONLINE/PRIMARY"), Elected),
            (false, Some("ONLINE/SECONDARY"), Follower),
            (true, Some("RECOVERING/SECONDARY"), Follower),
            (false, Some("ERROR/"), Follower),
        ] {
            let answer = Answer { id: 1, uuid: String::new(), read_only, member: member.map(str::to_owned) };
            assert_eq!(answer.state(), state, "{read_only} {member:?}");
        }
    }

    #[test]
    fn the_new_primary_is_found_in_the_logs() {
        let logs = [
            log(&[(1, Writable), (10, Away), (90, Writable)]),
            log(&[(1, Follower), (30, Follower), (40, Elected), (50, Writable)]),
            log(&[(1, Follower), (60, Elected), (61, Follower)]),
        ];
        let writable = became(&logs, Some(0), Writable, 5).unwrap();
        assert_eq!((writable.0, writable.1.at_us, writable.1.not_before_us), (1, 50, 39));
        assert_eq!(became(&logs, Some(0), Elected, 5).unwrap().1.at_us, 40);
        assert_eq!(became(&logs, Some(0), Writable, 55), Some((0, logs[0].changes[2])), "the old one came back");
        assert_eq!(became(&logs[..1], Some(0), Writable, 95), None);
        assert_eq!(became(&logs, None, Writable, 5).unwrap().0, 1);
    }
}
