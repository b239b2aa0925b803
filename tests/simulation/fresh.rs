//! The shell where reads must see what their session has written.

use super::shell::{Said, Shell, Unavailable};
use super::world::Time;
use holdfast::classify::Classified;
use holdfast::routing::{self, Freshness};
use holdfast::session::{Slot, read_gtids};
use holdfast::types::{Consistency, Gtids};
use holdfast::wire::command::Answer;
use std::time::Duration;

/// How long a follower is waited for.
const WAIT: Duration = Duration::from_millis(100);
const ALL: &str = "SELECT IF(LENGTH(@@GLOBAL.gtid_executed) <= 32768, @@GLOBAL.gtid_executed, NULL)";

impl Shell {
    pub async fn freshen(&mut self, mut slot: Slot, deadline: Time) -> Result<Slot, Unavailable> {
        if self.session.written.is_nothing() {
            return Ok(slot);
        }
        let epoch = self.slots[1].as_ref().map_or(0, |conn| conn.epoch);
        if slot == Slot::Follower && self.fresh == (epoch, self.session.written.version()) {
            return Ok(slot);
        }
        if self.session.written.is_unknown() {
            self.checkout(Slot::Primary, deadline).await?;
            self.learn().await?;
            if !self.session.written.is_unknown() {
                slot = self.checkout(slot, deadline).await?;
            }
        }
        if slot == Slot::Follower && self.ask_follower().await? {
            return Ok(slot);
        }
        let slot = self.checkout(Slot::Primary, deadline).await?;
        self.settle(deadline).await?;
        Ok(slot)
    }

    /// Has the follower all that is needed, or gets it in time?
    async fn ask_follower(&mut self) -> Result<bool, Unavailable> {
        let version = self.session.written.version();
        let (Some(needed), Some(follower)) = (self.session.written.gtids(), self.slots[1].as_ref()) else {
            return Ok(false);
        };
        let epoch = follower.epoch;
        let topology = self.w.borrow().topology.clone();
        let seen = topology.backend(follower.backend);
        match seen.map_or(Freshness::Late, |seen| routing::freshness(seen, needed, WAIT)) {
            Freshness::Known => {}
            Freshness::Late => return Ok(false),
            Freshness::Perhaps => {
                let sql = wait_for(needed, WAIT);
                match self.value(Slot::Follower, &sql).await.as_deref() {
                    Some("0") => {}
                    Some(_) => return Ok(false),
                    None => {
                        self.lose(Slot::Follower, false)?;
                        return Ok(false);
                    }
                }
            }
        }
        self.fresh = (epoch, version);
        Ok(true)
    }

    /// Asks the primary for all it has, where nobody has told what the session committed.
    async fn learn(&mut self) -> Result<(), Unavailable> {
        let Some(term) = self.slots[0].as_ref().map(|conn| conn.term) else { return Ok(()) };
        if let Some(all) = self.ask_all().await? {
            self.session.written.learned(all, term);
        }
        Ok(())
    }

    /// A primary of another term is asked whether it has what the session needs.
    async fn settle(&mut self, deadline: Time) -> Result<(), Unavailable> {
        let Some(term) = self.slots[0].as_ref().map(|conn| conn.term) else { return Ok(()) };
        if !self.session.written.is_unsettled(term) {
            return Ok(());
        }
        let Some(needed) = self.session.written.gtids() else { return Ok(()) };
        let (grouped, now) = {
            let world = self.w.borrow();
            (world.topology.grouped, world.now)
        };
        let wait = if grouped { Duration::from_micros(deadline.saturating_sub(now)) } else { WAIT };
        let sql = wait_for(needed, wait);
        match self.value(Slot::Primary, &sql).await.as_deref() {
            Some("0") => self.session.written.found_on(term),
            Some(_) => {
                if let Some(all) = self.ask_all().await?
                    && self.session.written.settle(&all, term)
                {
                    self.w.borrow().count("writes given up");
                }
            }
            None => self.lose(Slot::Primary, false)?,
        }
        Ok(())
    }

    async fn ask_all(&mut self) -> Result<Option<Gtids>, Unavailable> {
        match self.value(Slot::Primary, ALL).await {
            Some(text) => Ok(read_gtids(text.as_bytes(), false)),
            None => {
                self.lose(Slot::Primary, false)?;
                Ok(None)
            }
        }
    }

    fn keeps_track(&self) -> bool {
        self.session.consistency().unwrap_or(self.w.borrow().setup.consistency) == Consistency::Session
    }

    /// Has the primary say what is committed. False: the connection broke.
    pub async fn ready_tracking(&mut self, statement: Classified) -> bool {
        let open = self.session.transaction().is_some();
        let asked = self.slots[0].as_ref().is_none_or(|conn| conn.tracks_gtids);
        if !self.keeps_track() || !statement.may_commit(open) || open || asked {
            return true;
        }
        if self.statement(Slot::Primary, "SET SESSION session_track_gtids=OWN_GTID").await.is_err() {
            self.drop_connection(Slot::Primary, true);
            return false;
        }
        if let Some(conn) = self.conn(Slot::Primary) {
            conn.tracks_gtids = true;
        }
        true
    }

    /// The primary has answered: what it told of commits goes to its trace, and to what the session's reads must see.
    pub fn answered(&mut self, statement: Classified, answer: Answer, was_open: bool, said: &Said) {
        let committed = self.session.take_committed();
        if !committed.is_empty() || (statement.may_commit(was_open) && answer != Answer::Prepared) {
            let told = self.keeps_track() && self.slots[0].as_ref().is_some_and(|conn| conn.tracks_gtids);
            let term = self.slots[0].as_ref().map_or_else(Default::default, |conn| conn.term);
            let written = &mut self.session.written;
            match told && said.errno.is_none() && !said.plain_eof {
                true => committed.iter().for_each(|report| written.committed(report, false, term)),
                false => written.lose_track(),
            }
        }
        let told = self.slots[0].as_ref().is_some_and(|conn| conn.tracks_gtids);
        let hides = said.plain_eof || !told || (said.errno.is_some() && !statement.commits_all_or_nothing());
        self.commits_answered(&committed, statement.may_commit(was_open) && hides);
    }
}

fn wait_for(needed: &Gtids, wait: Duration) -> String {
    let seconds = wait.max(Duration::from_millis(1)).as_secs_f64();
    format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{needed}', {seconds:.3})")
}
