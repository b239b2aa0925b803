//! Witnesses: the servers of one cluster, asked what became of a COMMIT whose answer was lost.
//!
//! A transaction stands in the binary log of every server that has it with the `server_id` of the server it was committed on
//! and the time and version of that (`original_commit_timestamp`, `original_server_version`), which whoever commits may set: a
//! session does when it sends what may be committed, to a time with its connection's id in the last digits, and to a version
//! that there is not, as nobody else does. So a transaction is known wherever it is. A task per server
//! ([`super::witness`]) notes every second where the log stands, and reads it from there on when somebody is in doubt.
//!
//! Why not GTIDs with a tag per connection: a member that joins a group while such are committed numbers them differently
//! from the others (MySQL 9.7.4), and fails on rows that it has already.

use super::verdict::{Seen, Verdict, verdict};
use crate::accounts::Credential;
use crate::session::Trace;
use crate::tls::BackendTls;
use crate::types::BackendId;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};

/// Questions that may wait for a server.
pub(super) const QUESTIONS_MAX: usize = 4096;
/// How long between two looks for what has not ended yet.
const AGAIN: Duration = Duration::from_millis(5);

/// The proxy's own way to the servers.
pub struct Access {
    /// Account name. It needs REPLICATION CLIENT and REPLICATION SLAVE.
    pub user: String,
    /// Its password.
    pub credential: Credential,
    /// TLS towards the servers.
    pub tls: Arc<BackendTls>,
    /// Limit for a connection.
    pub timeout: Duration,
}

/// The servers of one cluster as witnesses.
pub struct Witnesses {
    access: ArcSwap<Access>,
    asks: Mutex<HashMap<BackendId, mpsc::Sender<Question>>>,
    /// Raised by the first who may need them: no server is asked anything before.
    wanted: watch::Sender<bool>,
}

/// A statement whose answer was lost.
#[derive(Clone, Debug)]
pub struct InDoubt {
    /// What its connection committed before.
    pub trace: Trace,
    /// The server it was sent to.
    pub backend: BackendId,
    /// Its `server_id`.
    pub server_id: u32,
    /// The connection's id there.
    pub thread: u32,
    /// The time that it was to be committed with, see [`stamp`].
    pub committed_us: u64,
    /// When it was sent.
    pub began: Instant,
}

/// What a server is asked.
pub(super) struct Question {
    pub server_id: u32,
    pub thread: u32,
    pub committed_us: u64,
    pub began: Instant,
    /// It is the server that the statement was sent to.
    pub own: bool,
    pub answer: oneshot::Sender<Looked>,
}

/// What it answers.
pub(super) enum Looked {
    /// The connection is still there.
    Alive,
    /// Nobody knows where the log stood when the statement began, or it can't be read from there.
    Unmarked,
    /// This is to be seen.
    Seen(Seen),
}

/// A version that no server has: by that it is known that a commit is marked, and the time no accident of another's.
const NO_PATCH: u32 = 99;

/// The version that a commit on a server of this version is marked with, as a number: `9.7.4-2` gives 90799.
pub fn marked_version(version: &str) -> Option<u32> {
    let mut parts = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next()?, parts.next()?);
    Some(major * 10_000 + minor * 100 + NO_PATCH)
}

/// Is it the version of a marked commit?
pub fn is_marked(version: u32) -> bool {
    version % 100 == NO_PATCH
}

/// The time, in microseconds since 1970, that a connection with this id commits with now: so near to the true one that nobody
/// who measures how far replicas are behind will miss the difference (65 ms at most). Another connection of the same server
/// has another, unless 65,536 were opened between the two.
pub fn stamp(now: SystemTime, thread: u32) -> u64 {
    const OWN: u64 = 0xFFFF;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    (now & !OWN) | (u64::from(thread) & OWN)
}

impl Witnesses {
    /// Nobody is asked anything yet.
    pub fn new(access: Access) -> Arc<Self> {
        let (asks, wanted) = (Mutex::default(), watch::Sender::new(false));
        Arc::new(Self { access: ArcSwap::from_pointee(access), asks, wanted })
    }

    /// Takes over another account or other certificates for connections from now on.
    pub fn set_access(&self, access: Access) {
        self.access.store(Arc::new(access));
    }

    pub(super) fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// Verdicts will be asked for.
    pub fn want(&self) {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
    }

    /// Waits until they will be. Cancel safe.
    pub(super) async fn wanted(&self) {
        // Fails only when the sender is gone, which is ours.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted).await;
    }

    /// Where a server's questions go, while it can be asked.
    pub(super) fn set_ask(&self, backend: BackendId, ask: Option<mpsc::Sender<Question>>) {
        match ask {
            Some(ask) => drop(self.lock().insert(backend, ask)),
            None => drop(self.lock().remove(&backend)),
        }
    }

    /// What became of it, now that `primary` is the proven primary. `None`: that one can't be asked; another may be proven.
    /// Where it is the statement's own server, its connection must have ended there, which is waited for until `deadline`.
    pub async fn verdict(&self, doubt: &InDoubt, primary: BackendId, deadline: Instant) -> Option<Verdict> {
        let own = primary == doubt.backend;
        loop {
            let looked = tokio::time::timeout_at(deadline.into(), self.look(doubt, primary, own)).await.ok()??;
            let late = match looked {
                Looked::Unmarked => {
                    return Some(Verdict::Unknown("the log from when the statement began is not to be had"));
                }
                Looked::Alive => "the statement is still under way",
                Looked::Seen(seen) => match verdict(&doubt.trace, &seen) {
                    Some(verdict) => return Some(verdict),
                    None => "the new primary has received more than it has applied",
                },
            };
            if Instant::now() >= deadline {
                return Some(Verdict::Unknown(late));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn look(&self, doubt: &InDoubt, primary: BackendId, own: bool) -> Option<Looked> {
        let ask = self.lock().get(&primary).cloned()?;
        let (answer, answered) = oneshot::channel();
        let InDoubt { server_id, thread, committed_us, began, .. } = *doubt;
        ask.send(Question { server_id, thread, committed_us, began, own, answer }).await.ok()?;
        answered.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BackendId, mpsc::Sender<Question>>> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_version_that_there_is_not() {
        assert_eq!(marked_version("9.7.4-2"), Some(90_799));
        assert_eq!(marked_version("8.0.46"), Some(80_099));
        assert_eq!(marked_version("MySQL"), None);
        assert!(is_marked(90_799) && !is_marked(90_704) && !is_marked(0));
    }

    #[test]
    fn a_stamp_is_near_the_time_and_has_the_connection_in_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_314_023_950_898);
        let stamp = stamp(now, 0x0003_1234);
        assert_eq!(stamp & 0xFFFF, 0x1234);
        assert!(stamp.abs_diff(1_795_314_023_950_898) < 65_536);
    }
}
