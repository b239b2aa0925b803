//! The lane of a session's connection to the primary: taken before something is sent that may be committed, given back when
//! the connection goes. See [`crate::failover::lanes`].

use super::ClientSession;
use super::request::Attempt;
use crate::backend::BringError;
use crate::classify::{Class, Classified, Flags, Flavor};
use crate::failover::Lease;
use crate::session::Slot;
use crate::topology::Hint;
use std::time::{Duration, Instant};

/// How long the first write waits for the lanes to be claimed.
const CLAIM_WAIT: Duration = Duration::from_secs(2);
/// A session that got no lane goes without for so long.
const WITHOUT: Duration = Duration::from_secs(5);

/// The lane of a session's connection to the primary.
#[derive(Default)]
pub(super) struct Lane {
    wanted: bool,
    pub lease: Option<Lease>,
    /// None is asked for before.
    without_until: Option<Instant>,
}

impl Lane {
    /// Of a listener that wants `exactly_once`, or not.
    pub fn new(wanted: bool) -> Self {
        Self { wanted, ..Self::default() }
    }

    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Something is sent that may be committed.
    #[inline]
    pub fn begin(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.begin();
        }
    }

    /// It was answered, and these commits were told of.
    #[inline]
    pub fn answered(&mut self, committed: Vec<Box<[u8]>>) {
        if let Some(lease) = &mut self.lease {
            lease.answered(&committed);
        }
    }

    /// The connection is gone, or has forgotten its lane.
    pub fn leave(&mut self) {
        self.lease = None;
    }

    fn go_without(&mut self) {
        (self.lease, self.without_until) = (None, Some(Instant::now() + WITHOUT));
    }
}

impl ClientSession {
    /// Gives the connection to the primary a lane before something is sent that may be committed.
    pub(super) async fn ready_lane(&mut self, statement: Classified) -> Result<(), Attempt> {
        let reads = matches!(statement.class, Class::Read | Class::Diagnostics | Class::Set | Class::Use);
        let reads = reads || statement.flags.contains(Flags::DIAGNOSTICS);
        if reads || self.lane.lease.as_ref().is_some_and(Lease::is_good) || self.session.transaction().is_some() {
            return Ok(());
        }
        let waits = self.lane.without_until.is_some_and(|until| Instant::now() < until);
        if waits || self.session.steers_gtids() || matches!(self.session.dialect().flavor, Flavor::MariaDb { .. }) {
            return Ok(());
        }
        Box::pin(self.take_lane()).await
    }

    async fn take_lane(&mut self) -> Result<(), Attempt> {
        let Some((backend, thread)) = self.primary.as_ref().map(|c| (c.backend, c.thread_id)) else { return Ok(()) };
        self.waited = true;
        let had = self.lane.lease.take().is_some();
        let (lease, tag) = match self.cluster().lanes.clone().take(backend, thread, CLAIM_WAIT).await {
            Ok(lease) => {
                let tag = format!("AUTOMATIC:{}", lease.tag());
                (Some(lease), tag)
            }
            Err(reason) => {
                tracing::debug!(session = self.handle.id.0, %reason, "writes without a lane");
                (None, "AUTOMATIC".to_owned())
            }
        };
        if lease.is_none() {
            self.lane.go_without();
            if !had {
                return Ok(());
            }
        }
        let track = if self.session.wants_gtids() { "" } else { ", SESSION session_track_gtids=OWN_GTID" };
        let Some(connection) = self.primary.as_mut() else { return Ok(()) };
        match connection.statement(format!("SET SESSION gtid_next='{tag}'{track}")).await {
            Ok(_) => (connection.tracks_gtids, self.lane.lease) = (Some(true), lease),
            Err(BringError::Broken(_)) => {
                self.drop_connection(Slot::Primary, Some(Hint::ConnectionLost));
                return Err(Attempt::Again(Slot::Primary));
            }
            Err(error @ (BringError::Refused { .. } | BringError::Unwritable(_) | BringError::Foreign)) => {
                let user = String::from_utf8_lossy(&self.identity.user).into_owned();
                let grant = "GRANT TRANSACTION_GTID_TAG, REPLICATION_APPLIER ON *.* lets it";
                tracing::warn!(user, %error, grant, "exactly_once: this account can't have a lane");
                self.lane = Lane::new(false);
            }
        }
        Ok(())
    }
}
