//! Read your writes: a read that must see what its session has committed (`consistency = "session"`).
//!
//! ```text
//!  the follower's connection ──known to have it? by the last probe, or an earlier read──► read there
//!        │ no: wait on it, `consistency_wait_ms` at most ──it has it──► read there
//!        └ no ──► the primary; a new one is asked first whether it has it
//! ```
//!
//! What the session has committed is told by the primary's own session tracking (`session_track_gtids`, MariaDB's
//! `last_gtid`). What it doesn't tell of (a statement that failed halfway, an answer that was lost, a client that turned
//! tracking off) is replaced by all that the primary has, asked for before the next read that may go to a follower.
//!
//! A new primary that lacks something: what a group has acknowledged is on its way there, and is waited for like a primary.
//! In a set nobody else can send it: it was lost with the old primary, and is forgotten.

use super::checkout::Unavailable;
use super::request::{Attempt, Request};
use super::{ClientSession, End};
use crate::backend::BringError;
use crate::classify::{Classified, Flags, Flavor};
use crate::metrics;
use crate::relay::Said;
use crate::routing::{self, Freshness};
use crate::session::{Slot, read_gtids};
use crate::topology::Hint;
use crate::types::{Consistency, Gtids};
use crate::wire::command::Answer;
use crate::wire::err::ErrPacket;
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// A follower that did not come up in time is not waited for again for so many times as long: in vain a client waits a
/// sixth of its time at most.
const AGAIN: u32 = 5;
/// A server that should have answered at once, or at the end of a wait, gets so much longer.
const GRACE: Duration = Duration::from_secs(1);
/// What MySQL's and MariaDB's servers have, unless it is longer than the proxy takes.
const ALL: [&str; 2] = [
    "SELECT IF(LENGTH(@@GLOBAL.gtid_executed) <= 32768, @@GLOBAL.gtid_executed, NULL)",
    "SELECT IF(LENGTH(@@GLOBAL.gtid_current_pos) <= 32768, @@GLOBAL.gtid_current_pos, NULL)",
];
/// ER_WRONG_VALUE_FOR_VAR.
const WRONG_VALUE: u16 = 1231;

/// What is known of the follower's connection, told by its epoch.
#[derive(Default)]
pub(super) struct Fresh {
    /// It has what the session had committed at this version.
    known: (u64, u64),
    /// It did not come up in time: it is not waited for before.
    late: Option<(u64, Instant)>,
}

impl ClientSession {
    /// A read that must be fresh is about to run on the connection in `slot`, which is checked out. Answers the slot to
    /// use, checked out as well.
    #[inline]
    pub(super) async fn freshen(&mut self, slot: Slot, deadline: Instant) -> Result<Slot, Unavailable> {
        if self.session.written.is_nothing() {
            return Ok(slot);
        }
        let epoch = self.follower.as_ref().map_or(0, |follower| follower.epoch);
        if slot == Slot::Follower && self.fresh.known == (epoch, self.session.written.version()) {
            self.met(metrics::Freshness::Known);
            return Ok(slot);
        }
        Box::pin(self.freshen_slowly(slot, deadline)).await
    }

    fn met(&self, how: metrics::Freshness) {
        self.around.inside.stats.fresh(how);
    }

    async fn freshen_slowly(&mut self, mut slot: Slot, deadline: Instant) -> Result<Slot, Unavailable> {
        if self.session.written.is_unknown() {
            self.checkout(Slot::Primary, deadline).await?;
            self.learn_written(deadline).await?;
            if !self.session.written.is_unknown() {
                slot = self.checkout(slot, deadline).await?;
            }
        }
        if slot == Slot::Follower
            && let Some(how) = self.ask_follower().await?
        {
            self.met(how);
            return Ok(slot);
        }
        let slot = self.checkout(Slot::Primary, deadline).await?;
        self.settle_written(deadline).await?;
        self.met(metrics::Freshness::Primary);
        Ok(slot)
    }

    /// Has the follower all that is needed, or gets it in time?
    async fn ask_follower(&mut self) -> Result<Option<metrics::Freshness>, Unavailable> {
        let wait = self.around.inside.gate.listener.config.consistency_wait;
        let version = self.session.written.version();
        let (Some(needed), Some(follower)) = (self.session.written.gtids(), self.follower.as_ref()) else {
            return Ok(None);
        };
        let epoch = follower.epoch;
        let freshness = {
            let topology = self.cluster().topology.load();
            topology.backend(follower.backend).map_or(Freshness::Late, |seen| routing::freshness(seen, needed, wait))
        };
        let not_yet = self.fresh.late.is_some_and(|(late, until)| late == epoch && Instant::now() < until);
        match freshness {
            Freshness::Known => {
                self.fresh.known = (epoch, version);
                Ok(Some(metrics::Freshness::Known))
            }
            Freshness::Late => Ok(None),
            Freshness::Perhaps if not_yet => Ok(None),
            Freshness::Perhaps => {
                let sql = wait_for(needed, wait);
                let answer = self.ask(Slot::Follower, &sql, wait + GRACE).await?;
                if answer.as_deref() == Some(b"0") {
                    self.fresh.known = (epoch, version);
                    return Ok(Some(metrics::Freshness::Waited));
                }
                self.fresh.late = Some((epoch, Instant::now() + wait * AGAIN));
                Ok(None)
            }
        }
    }

    /// Asks the primary for all it has, where nobody has told what the session committed.
    async fn learn_written(&mut self, deadline: Instant) -> Result<(), Unavailable> {
        let Some(term) = self.primary.as_ref().map(|primary| primary.term) else { return Ok(()) };
        if self.has_gtids()
            && let Some(all) = self.ask_all(deadline).await?
        {
            self.session.written.learned(all, term);
        }
        Ok(())
    }

    /// A primary of another term is asked whether it has what the session needs. What will never come is forgotten.
    async fn settle_written(&mut self, deadline: Instant) -> Result<(), Unavailable> {
        let Some(term) = self.primary.as_ref().map(|primary| primary.term) else { return Ok(()) };
        if !self.session.written.is_unsettled(term) {
            return Ok(());
        }
        let Some(needed) = self.session.written.gtids() else { return Ok(()) };
        let grouped = self.cluster().topology.load().grouped;
        let wait = match grouped {
            true => deadline.saturating_duration_since(Instant::now()),
            false => self.around.inside.gate.listener.config.consistency_wait,
        };
        if let Gtids::MySql(_) = needed {
            let sql = wait_for(needed, wait);
            if self.ask(Slot::Primary, &sql, wait + GRACE).await?.as_deref() == Some(b"0") {
                self.session.written.found_on(term);
                return Ok(());
            }
        }
        if let Some(all) = self.ask_all(deadline).await?
            && self.session.written.settle(&all, term)
        {
            let session = self.handle.id.0;
            tracing::info!(session, term = term.0, "what this session wrote was lost with the old primary");
        }
        Ok(())
    }

    async fn ask_all(&mut self, deadline: Instant) -> Result<Option<Gtids>, Unavailable> {
        let mariadb = self.is_mariadb();
        let limit = deadline.saturating_duration_since(Instant::now()) + GRACE;
        let answer = self.ask(Slot::Primary, ALL[usize::from(mariadb)], limit).await?;
        Ok(answer.and_then(|text| read_gtids(&text, mariadb)))
    }

    /// The one value of a question of the proxy's own; none if the server has no answer, and then its connection goes.
    async fn ask(&mut self, slot: Slot, sql: &str, limit: Duration) -> Result<Option<Bytes>, Unavailable> {
        let Self { primary, follower, kill, handle, .. } = self;
        let Some(connection) = (match slot {
            Slot::Primary => primary.as_mut(),
            Slot::Follower => follower.as_mut(),
        }) else {
            return Ok(None);
        };
        let (index, mine) = (slot.index(), handle.raw_connection(slot.index()));
        let answer = {
            let mut asked = pin!(tokio::time::timeout(limit, connection.row(sql.as_bytes())));
            poll_fn(|cx| {
                if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
                    return Poll::Ready(Ok(answer.ok().and_then(Result::ok)));
                }
                if handle.nudge.poll_cut(cx, index, mine) {
                    return Poll::Ready(Ok(None));
                }
                kill.poll(cx).map(|()| Err(End::Killed))
            })
            .await
        };
        match answer {
            Ok(Some(row)) => Ok(row.into_iter().next().flatten()),
            Ok(None) => {
                self.lose(slot, false)?;
                Ok(None)
            }
            Err(end) => Err(Unavailable::End(end)),
        }
    }

    /// Has the primary say what is committed, before something is sent that may be, or a transaction is opened.
    pub(super) async fn ready_tracking(&mut self, statement: Classified) -> Result<(), Attempt> {
        let open = self.session.transaction().is_some();
        // Whoever asks for the last ROW_COUNT() must not get that of our SET.
        let asks = statement.flags.contains(Flags::DIAGNOSTICS);
        let matters =
            statement.may_commit(open) || (self.exactly_once && (statement.opens() || !self.session.autocommit()));
        let goes_by_it = self.exactly_once || self.keeps_track();
        if asks || !matters || !goes_by_it || self.is_mariadb() || open {
            return Ok(());
        }
        if self.exactly_once {
            self.ready_marks().await?;
            if !self.keeps_track() {
                return Ok(());
            }
        }
        let asked = self.primary.as_ref().is_none_or(|connection| connection.tracks_gtids.is_some());
        if asked || self.session.wants_gtids() || self.session.steers_gtids() {
            return Ok(());
        }
        let Some(connection) = self.primary.as_mut() else { return Ok(()) };
        match connection.statement("SET SESSION session_track_gtids=OWN_GTID").await {
            Ok(_) => connection.tracks_gtids = Some(true),
            Err(BringError::Broken(_)) => {
                self.drop_connection(Slot::Primary, Some(Hint::ConnectionLost));
                return Err(Attempt::Again(Slot::Primary));
            }
            Err(error @ (BringError::Refused { .. } | BringError::Unwritable(_) | BringError::Foreign)) => {
                tracing::debug!(session = self.handle.id.0, %error, "GTIDs are not tracked");
                connection.tracks_gtids = Some(false);
            }
        }
        Ok(())
    }

    /// Has the primary tell of commits, and finds out whether they may be marked.
    async fn ready_marks(&mut self) -> Result<(), Attempt> {
        let Some(connection) = self.primary.as_mut().filter(|connection| connection.marks.is_none()) else {
            return Ok(());
        };
        let track = if self.session.wants_gtids() { "" } else { "SESSION session_track_gtids=OWN_GTID, " };
        match connection
            .statement(format!(
                "SET {track}SESSION original_commit_timestamp=DEFAULT, SESSION original_server_version=DEFAULT"
            ))
            .await
        {
            Ok(_) => (connection.tracks_gtids, connection.marks) = (Some(true), Some(true)),
            Err(BringError::Broken(_)) => {
                self.drop_connection(Slot::Primary, Some(Hint::ConnectionLost));
                return Err(Attempt::Again(Slot::Primary));
            }
            Err(error @ (BringError::Refused { .. } | BringError::Unwritable(_) | BringError::Foreign)) => {
                connection.marks = Some(false);
                let user = String::from_utf8_lossy(&self.identity.user).into_owned();
                let grant = "GRANT REPLICATION_APPLIER ON *.* lets it, with MySQL 8.0.14 or later";
                tracing::warn!(user, %error, grant, "exactly_once: this account can't mark its commits");
            }
        }
        Ok(())
    }

    /// Does the session's own reading go by what it has committed, by default?
    #[inline]
    fn keeps_track(&self) -> bool {
        let listener = self.around.inside.gate.listener.config.consistency;
        self.session.consistency().unwrap_or(listener) == Consistency::Session
    }

    /// True if the client would be told of GTIDs it has not asked for.
    #[inline]
    pub(super) fn hides_gtids(&self, slot: Slot) -> bool {
        slot == Slot::Primary
            && self.primary.as_ref().is_some_and(|connection| connection.tracks_gtids == Some(true))
            && !self.session.wants_gtids()
    }

    /// The primary has answered: what it told of commits goes to its connection's trace, and to what the session's reads
    /// must see.
    /// `was_open`: a transaction was.
    #[inline]
    pub(super) fn answered(&mut self, request: &Request, was_open: bool, said: &Said) {
        let committed = self.session.take_committed();
        if !committed.is_empty() || (request.statement.may_commit(was_open) && request.answer != Answer::Prepared) {
            self.note_written(&committed, said);
        }
        if self.exactly_once {
            self.marked = None;
            let hides = request.statement.may_commit(was_open) && self.hides_commits(request.statement, said);
            if let Some(connection) = self.primary.as_mut() {
                connection.trace.answered(&committed, hides);
            }
        }
    }

    /// May it have committed something without telling? An ERR and a plain EOF tell of nothing.
    fn hides_commits(&self, statement: Classified, said: &Said) -> bool {
        said.plain_eof || !self.is_told() || (said.errno.is_some() && !statement.commits_all_or_nothing())
    }

    fn note_written(&mut self, committed: &[Box<[u8]>], said: &Said) {
        let mariadb = self.is_mariadb();
        let told = self.keeps_track() && self.is_told() && self.has_gtids();
        let unlogged = self.session.is_unlogged();
        let written = &mut self.session.written;
        if unlogged {
            return written.keep_to_primary();
        }
        // A plain EOF tells of nothing, and neither does an ERR: something may have been committed before it.
        if !told || said.errno.is_some() || said.plain_eof {
            return written.lose_track();
        }
        let term = self.primary.as_ref().map_or_else(Default::default, |primary| primary.term);
        committed.iter().for_each(|report| written.committed(report, mariadb, term));
    }

    /// Does the primary tell of each commit?
    pub(super) fn is_told(&self) -> bool {
        let tracks = self.primary.as_ref().is_some_and(|connection| connection.tracks_gtids == Some(true));
        self.is_mariadb() || ((tracks || self.session.wants_gtids()) && !self.session.steers_gtids())
    }

    /// Does the primary give GTIDs at all?
    fn has_gtids(&self) -> bool {
        let topology = self.cluster().topology.load();
        let primary = self.primary.as_ref().and_then(|connection| topology.backend(connection.backend));
        // MySQL's are not shown unless gtid_mode is on; a MariaDB without a binary log shows an empty position.
        primary.and_then(|seen| seen.gtids.as_ref()).is_some_and(|gtids| !self.is_mariadb() || !gtids.is_empty())
    }

    pub(super) fn is_mariadb(&self) -> bool {
        matches!(self.session.dialect().flavor, Flavor::MariaDb { .. })
    }

    /// Refuses a SET of `@holdfast_consistency` that is not understood: it would be taken by the server and have no effect.
    pub(super) async fn refuse_consistency(&mut self, request: &Request) -> Result<Said, End> {
        self.skip(request.incoming).await?;
        let message =
            "holdfast: write SET @holdfast_consistency = 'eventual', 'session', 'strong' or NULL, and nothing else";
        let err = ErrPacket { code: WRONG_VALUE, state: *b"42000", message: message.as_bytes() };
        self.reply(&err.payload(), 1).await?;
        Ok(super::execute::failed())
    }
}

/// True if a SET of `@holdfast_consistency` is not understood.
#[inline]
pub(super) fn is_not_understood(statement: Classified) -> bool {
    statement.flags.contains(Flags::CONSISTENCY | Flags::IMPURE)
}

/// Waits until a server has `needed`: 0 when it has.
fn wait_for(needed: &Gtids, wait: Duration) -> String {
    let function = match needed {
        Gtids::MySql(_) => "WAIT_FOR_EXECUTED_GTID_SET",
        Gtids::MariaDb(_) => "MASTER_GTID_WAIT",
    };
    // With a limit of 0 MySQL waits for ever.
    let seconds = wait.max(Duration::from_millis(1)).as_secs_f64();
    format!("SELECT {function}('{needed}', {seconds:.3})")
}
