//! Getting the connection a statement needs: the kept one if it still serves, else a new one, else a held wait.
//!
//! The primary's connection is only used while the topology says the same server is the primary in the same term; a
//! follower's while that follower serves reads and is not too far behind. Losing a connection tells the session what went
//! with it.

use super::hold::Waiting;
use super::share::NoConnection;
use super::{ClientSession, End};
use crate::backend::{BringError, ConnectError};
use crate::config::ReadFallback;
use crate::error::{ClientError, ErrorKind};
use crate::metrics;
use crate::routing::{self, Mode, Turn, is_drained};
use crate::session::{Pin, Slot};
use crate::topology::{Backend, Hint, Topology};
use crate::types::BackendId;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// How long a server that would not let us connect is left alone, if the topology says nothing new meanwhile.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);

/// Why there is no connection for a statement.
pub(super) enum Unavailable {
    /// The proxy's own error; the session goes on.
    Error(ClientError),
    /// The server's refusal, word for word; the session goes on.
    Refused(Bytes),
    /// The session ends.
    End(End),
}

impl From<End> for Unavailable {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl ClientSession {
    /// Makes sure that a connection for `slot` is there, brought to the session's state. Answers the slot to use, which is
    /// the primary's where no follower qualifies and the listener says so.
    #[inline]
    pub(super) async fn checkout(&mut self, slot: Slot, deadline: Instant) -> Result<Slot, Unavailable> {
        if self.is_ready(slot) {
            return Ok(slot);
        }
        Box::pin(self.checkout_slowly(slot, deadline)).await
    }

    /// True if the kept connection can take the next statement as it is.
    #[inline]
    pub(super) fn is_ready(&mut self, slot: Slot) -> bool {
        let serves = {
            let topology = self.cluster().topology.load();
            match slot {
                Slot::Primary => {
                    self.primary.as_ref().is_some_and(|c| {
                        topology.primary == Some(c.backend) && topology.term == c.term && !topology.doubt
                    }) && (topology.accepting || self.is_bound(slot))
                }
                Slot::Follower => self.follower.as_ref().is_some_and(|c| self.serves_reads(&topology, c.backend)),
            }
        };
        let Self { session, primary, follower, inserts, .. } = self;
        let connection = match slot {
            Slot::Primary => primary,
            Slot::Follower => follower,
        };
        serves && connection.as_mut().is_some_and(|c| c.channel.is_quiet() && c.matches(session, slot, *inserts))
    }

    async fn checkout_slowly(&mut self, slot: Slot, deadline: Instant) -> Result<Slot, Unavailable> {
        let result = match slot {
            Slot::Primary => self.checkout_primary(deadline).await,
            Slot::Follower => self.checkout_follower(deadline).await,
        };
        self.standby = None;
        if let Some(Waiting { hold, .. }) = self.waiting.take() {
            match &result {
                Ok(_) | Err(Unavailable::Refused(_)) => hold.release(),
                Err(Unavailable::Error(_)) => hold.time_out(),
                Err(Unavailable::End(_)) => drop(hold),
            }
        }
        result
    }

    async fn checkout_primary(&mut self, deadline: Instant) -> Result<Slot, Unavailable> {
        loop {
            let mut changed = self.cluster().topology.changed();
            changed.mark_unchanged();
            let topology = self.cluster().topology.snapshot();
            let quiet = self.primary.as_mut().is_none_or(|c| c.channel.is_quiet());
            let kept = self.primary.as_ref().map(|c| (c.backend, c.term));
            let proven = self.cluster().primary_of(&topology);
            let turn = match quiet {
                true => routing::primary(&topology, proven, kept, self.is_bound(Slot::Primary)),
                false => Turn::Leave,
            };
            if matches!(turn, Turn::Keep | Turn::Connect(_)) && self.let_others_ahead().await {
                continue;
            }
            let (term, primary) = match turn {
                Turn::Leave => {
                    self.lose(Slot::Primary, quiet)?;
                    continue;
                }
                Turn::Keep => match self.bring(Slot::Primary).await? {
                    true => return Ok(Slot::Primary),
                    false => continue,
                },
                Turn::Wait => {
                    self.stand_by();
                    self.hold(&mut changed, deadline).await?;
                    continue;
                }
                Turn::Connect(primary) => (topology.term, primary),
            };
            if self.adopt(primary.id, term) || self.take_standby(primary.id, term, deadline).await {
                continue;
            }
            match self.connect(Slot::Primary, primary, term, deadline).await {
                Ok(()) => {}
                Err(NoConnection::End(end)) => return Err(Unavailable::End(end)),
                Err(NoConnection::Error(ConnectError::Refused(err))) if !is_passing(&err) => {
                    return Err(Unavailable::Refused(err));
                }
                Err(NoConnection::Error(error)) => self.failed(primary, &error, &mut changed, deadline).await?,
            }
        }
    }

    async fn checkout_follower(&mut self, deadline: Instant) -> Result<Slot, Unavailable> {
        let in_transaction = self.session.transaction() == Some(Slot::Follower);
        let mut tried: Vec<BackendId> = Vec::new();
        loop {
            let kept = self.follower.as_mut().map(|c| (c.backend, c.channel.is_quiet()));
            if let Some((backend, quiet)) = kept {
                let serves = {
                    let topology = self.cluster().topology.load();
                    let open = in_transaction && !is_drained(topology.backend(backend));
                    quiet && (open || self.serves_reads(&topology, backend)) && !tried.contains(&backend)
                };
                if !serves {
                    self.lose(Slot::Follower, quiet)?;
                    continue;
                }
                if self.bring(Slot::Follower).await? {
                    return Ok(Slot::Follower);
                }
                if self.session.pins().contains(Pin::Variable) && self.mode == Mode::Split {
                    return self.checkout_primary(deadline).await;
                }
                tried.push(backend);
                continue;
            }
            let mut changed = self.cluster().topology.changed();
            changed.mark_unchanged();
            let Some((follower, term)) = self.around.inside.gate.choose_follower(&tried) else {
                match self.fallback() {
                    ReadFallback::Primary => {
                        metrics::read_fallback(&self.cluster().name.0);
                        return self.checkout_primary(deadline).await;
                    }
                    ReadFallback::Error => return Err(no_follower()),
                    ReadFallback::Hold => {
                        self.hold(&mut changed, deadline).await?;
                        tried.clear();
                        continue;
                    }
                }
            };
            if let Err(none) = self.connect(Slot::Follower, &follower, term, deadline).await {
                let error = match none {
                    NoConnection::End(end) => return Err(Unavailable::End(end)),
                    NoConnection::Error(error) => error,
                };
                tracing::debug!(server = %follower.address, %error, "follower takes no connection");
                if matches!(error, ConnectError::Overtaken) {
                    continue;
                }
                if !matches!(error, ConnectError::Refused(_)) {
                    self.cluster().topology.suspect(follower.id, Hint::ConnectFailed);
                }
                tried.push(follower.id);
            }
        }
    }

    fn fallback(&self) -> ReadFallback {
        self.around.inside.gate.listener.config.read_fallback
    }

    #[inline]
    fn serves_reads(&self, topology: &Topology, backend: BackendId) -> bool {
        routing::serves_reads(topology, backend, self.around.inside.gate.listener.config.max_lag)
    }

    /// A server would not let us in: says so to the topology and waits for news of it.
    async fn failed(
        &mut self,
        backend: &Backend,
        error: &ConnectError,
        changed: &mut tokio::sync::watch::Receiver<u64>,
        deadline: Instant,
    ) -> Result<(), Unavailable> {
        match error {
            ConnectError::Overtaken => return Ok(()),
            ConnectError::Unreachable(_) | ConnectError::Timeout(_) | ConnectError::Refused(_) => {}
            ConnectError::Exhausted(message) => {
                return Err(Unavailable::Error(ClientError::new(ErrorKind::NoBackend, message.clone())));
            }
            ConnectError::CredentialInsufficient
            | ConnectError::Tls(_)
            | ConnectError::Protocol(_)
            | ConnectError::UnsupportedPlugin(_)
            | ConnectError::Insecure(_) => {
                let message = format!("holdfast: no login to {}: {error}", backend.address);
                return Err(Unavailable::Error(ClientError::new(ErrorKind::NoBackend, message)));
            }
        }
        tracing::debug!(server = %backend.address, %error, "primary takes no connection");
        self.cluster().topology.suspect(backend.id, Hint::ConnectFailed);
        let again = deadline.min(Instant::now() + CONNECT_AGAIN);
        match self.hold(changed, again).await {
            Err(Unavailable::Error(e)) if e.kind == ErrorKind::NoBackend && Instant::now() < deadline => Ok(()),
            other => other,
        }
    }

    /// Brings a kept connection to the session's state; false if it was dropped or can't be used for this.
    async fn bring(&mut self, slot: Slot) -> Result<bool, Unavailable> {
        if let Some(source) = self.session.variables.collation_unknown()
            && source != slot
        {
            self.ask_collation(source).await;
        }
        let Self { session, primary, follower, inserts, .. } = self;
        let connection = match slot {
            Slot::Primary => primary,
            Slot::Follower => follower,
        };
        let Some(connection) = connection.as_mut() else { return Ok(false) };
        if connection.matches(session, slot, *inserts) {
            return Ok(true);
        }
        match connection.bring(session, slot, *inserts).await {
            Ok(()) => Ok(true),
            Err(BringError::Broken(_)) => {
                self.lose(slot, false)?;
                Ok(false)
            }
            Err(BringError::Foreign) => {
                self.drop_connection(slot, None);
                Ok(false)
            }
            Err(error @ (BringError::Refused { .. } | BringError::Unwritable(_))) => match slot {
                Slot::Follower => {
                    tracing::debug!(%error, "reads stay on the primary");
                    self.session.pin(Pin::Variable);
                    Ok(false)
                }
                Slot::Primary => {
                    let message = format!("holdfast: the new primary does not take this session's state: {error}");
                    Err(Unavailable::Error(ClientError::new(ErrorKind::SessionStateLost, message)))
                }
            },
        }
    }

    /// SET NAMES may have changed collation_connection on `source` without saying so.
    pub(super) async fn ask_collation(&mut self, source: Slot) {
        let asked = match self.slot(source) {
            Some(connection) => connection.collation().await.ok(),
            None => None,
        };
        match asked {
            Some(value) => {
                self.session.variables.set(source, b"collation_connection", &value);
                let Self { session, primary, follower, .. } = self;
                let connection = match source {
                    Slot::Primary => primary,
                    Slot::Follower => follower,
                };
                if let Some(connection) = connection {
                    connection.is_current(session, source);
                }
            }
            None => self.session.pin(Pin::Variable),
        }
    }

    /// Drops the connection in `slot` between statements and says what that means: an error inside a transaction, the
    /// session's end if it held what can't be rebuilt, else nothing. `quiet`: the connection itself was alive.
    pub(super) fn lose(&mut self, slot: Slot, quiet: bool) -> Result<(), Unavailable> {
        // A statement that came just as its connection was killed is not run on another one.
        if !quiet && self.is_killed() {
            return Err(Unavailable::End(End::Killed));
        }
        let lost_transaction = self.drop_connection(slot, (!quiet).then_some(Hint::ConnectionLost));
        if slot == Slot::Primary
            && let Some(pin) = self.session.pins().lost_with_connection()
        {
            let message = format!(
                "holdfast: the primary changed and took this session's state ({}) along; reconnect",
                pin.as_str()
            );
            tracing::info!(session = self.handle.id.0, pin = pin.as_str(), "session state lost with the primary");
            return Err(Unavailable::Error(ClientError::new(ErrorKind::SessionStateLost, message)));
        }
        if lost_transaction {
            return Err(Unavailable::Error(transaction_lost()));
        }
        Ok(())
    }

    /// Drops the connection in `slot`; answers whether a transaction was open on it.
    pub(super) fn drop_connection(&mut self, slot: Slot, hint: Option<Hint>) -> bool {
        if let Some(connection) = self.slot(slot).take() {
            if slot == Slot::Primary {
                self.left = Some((connection.backend, connection.term));
            }
            if let Some(hint) = hint {
                self.cluster().topology.suspect(connection.backend, hint);
            }
        }
        self.handle.set_connection(slot.index(), None);
        if slot == Slot::Primary {
            self.marked = None;
        }
        self.session.lost(slot)
    }
}

/// What a client inside a transaction is told when its server is gone.
pub(super) fn transaction_lost() -> ClientError {
    let message = "holdfast: the server went away and the transaction was rolled back; restart the transaction";
    ClientError::new(ErrorKind::TransactionLost, message)
}

fn no_follower() -> Unavailable {
    let message = "holdfast: no follower is near enough to serve this read; retry, or set read_fallback = \"primary\"";
    Unavailable::Error(ClientError::new(ErrorKind::NoBackend, message))
}

/// ERRs by which a server says "not now" rather than "not you": shutting down (1053), offline mode (3032), too many
/// connections (1040).
fn is_passing(err: &[u8]) -> bool {
    matches!(crate::relay::read_err(err).0, 1053 | 3032 | 1040)
}
