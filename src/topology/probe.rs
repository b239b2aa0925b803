//! One task per server that asks it about itself, on one connection that stays open.
//!
//! Slowly while all is well, at short intervals while there is doubt, at once when woken or when the connection ends. It decides nothing: it says when
//! it asked and what came back. A connection that breaks is opened again within the same question, because somebody may
//! have killed just this one (KILL, wait_timeout); only if that fails, too, is the server called gone.

use super::ask::{Asker, connect_failure};
use super::report::{Failure, FailureKind, Observation, Report, ServerGreeting};
use super::settings::TopologySettings;
use super::snapshot::Flavor;
use crate::accounts::Credential;
use crate::backend::{ConnectError, ConnectTarget, Connected, LoginRequest, connect};
use crate::types::{Address, BackendId};
use crate::wire::capabilities::Capabilities;
use crate::wire::err::ErrPacket;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How fast to ask; shared by all probers of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Between an answer and the next question.
    pub(super) interval: Duration,
    /// Counts the calls to ask at once.
    pub(super) wakes: u64,
    /// The last moment at which somebody doubted a server: somebody waits for answers to questions from after it.
    pub(super) doubted_ms: Option<u64>,
}

impl Pace {
    /// How long after an answer to a question from `asked_ms` the next one is due. Whether a question from the doubt's own
    /// millisecond was asked before it or after it nobody can tell, so it owes another one.
    fn after(&self, asked_ms: u64, owed: Duration) -> Duration {
        if self.doubted_ms.is_some_and(|doubted| asked_ms <= doubted) { owed.min(self.interval) } else { self.interval }
    }
}

/// One server's prober.
pub(super) struct Prober {
    pub(super) id: BackendId,
    pub(super) address: Address,
    pub(super) settings: Arc<TopologySettings>,
    /// The password before the configured one, for servers that don't know the new one yet.
    pub(super) retired: Option<Credential>,
    pub(super) pace: watch::Receiver<Pace>,
    pub(super) answers: mpsc::Sender<Observation>,
    pub(super) epoch: Instant,
    pub(super) stop: CancellationToken,
}

impl Prober {
    /// Asks until told to stop. Each question ends within the probe's timeout.
    pub(super) async fn run(self) {
        let stop = self.stop.clone();
        // Cancelling in the middle of a question is fine here: its connection is dropped with it.
        stop.run_until_cancelled(self.ask_for_ever()).await;
    }

    async fn ask_for_ever(mut self) {
        let mut asker = None;
        loop {
            let asked_ms = self.epoch.elapsed().as_millis() as u64;
            let wakes = self.pace.borrow_and_update().wakes;
            let outcome = self.question(&mut asker).await;
            // Whoever refuses us goes on refusing: don't log in fifty times a second.
            let barred = matches!(&outcome, Err(failure) if failure.kind == FailureKind::Barred);
            let least = if barred { self.settings.probe.lasting_interval } else { Duration::ZERO };
            if self.answers.send(Observation { backend: self.id, asked_ms, outcome }).await.is_err() {
                return;
            }
            self.pause(&mut asker, (asked_ms, wakes), least).await;
        }
    }

    /// Waits until the next question is due: the interval over, whatever it becomes meanwhile but not under `least`, a new
    /// wake, or the server closing the connection, which is how the death of an idle server shows at once.
    async fn pause(&mut self, asker: &mut Option<Asker>, (asked_ms, wakes): (u64, u64), least: Duration) {
        let answered = tokio::time::Instant::now();
        let owed = self.settings.probe.wake_gap();
        loop {
            let pace = *self.pace.borrow_and_update();
            if pace.wakes != wakes {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(answered + pace.after(asked_ms, owed).max(least)) => return,
                () = ended(asker) => {
                    // A server that closes whatever we open must not keep us busy.
                    tokio::time::sleep_until(answered + self.settings.probe.doubt_interval).await;
                    return;
                }
                changed = self.pace.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn question(&self, asker: &mut Option<Asker>) -> Result<Report, Failure> {
        let limit = self.settings.probe.timeout;
        // Taken out while it is in use: whatever interrupts the question also closes the connection.
        let mut used = asker.take();
        let answer = tokio::time::timeout(limit, self.try_question(&mut used)).await;
        match answer {
            Ok(result) => {
                *asker = used.filter(|_| result.is_ok());
                result
            }
            Err(_) => Err(Failure { kind: FailureKind::Silent, text: format!("no answer within {limit:?}").into() }),
        }
    }

    async fn try_question(&self, used: &mut Option<Asker>) -> Result<Report, Failure> {
        if let Some(asker) = used {
            match asker.ask().await {
                Err(failure) if failure.kind == FailureKind::Gone => *used = None,
                answered => return answered,
            }
        }
        let asker = used.insert(self.open().await?);
        asker.prepare().await?;
        asker.ask().await
    }

    async fn open(&self) -> Result<Asker, Failure> {
        let mut login = self.log_in(&self.settings.account.credential).await;
        if let (Err(error), Some(retired)) = (&login, &self.retired)
            && is_wrong_password(error)
            && let Ok(connected) = self.log_in(retired).await
        {
            let (cluster, backend) = (&self.settings.cluster, &self.address);
            tracing::warn!(%cluster, %backend, "the server does not know the account's new password yet; used the old one");
            login = Ok(connected);
        }
        let connected = login.map_err(|error| connect_failure(&error))?;
        let greeting = Arc::new(greeting(&connected));
        Ok(Asker {
            channel: connected.channel,
            capabilities: connected.capabilities,
            greeting,
            group_configured: false,
            limit: self.settings.probe.answer_bytes_max,
        })
    }

    async fn log_in(&self, credential: &Credential) -> Result<Connected, ConnectError> {
        let settings = &self.settings;
        let target = ConnectTarget {
            address: self.address.clone(),
            tls: settings.tls.clone(),
            connect_timeout: settings.probe.timeout,
        };
        connect(&target, &LoginRequest::own(&settings.account.user, credential)).await
    }
}

/// ER_ACCESS_DENIED_ERROR.
fn is_wrong_password(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Refused(packet) if ErrPacket::parse(packet).is_ok_and(|error| error.code == 1045))
}

/// Waits until an idle connection is closed, and drops it; for ever if there is none. A server says nothing unasked but
/// why it closes. Cancel safe.
async fn ended(asker: &mut Option<Asker>) {
    match asker {
        Some(open) => drop(open.channel.fill().await),
        None => std::future::pending().await,
    }
    *asker = None;
}

fn greeting(connected: &Connected) -> ServerGreeting {
    // MariaDB leaves this flag clear; MySQL always sets it.
    let mysql = connected.server_capabilities.has(Capabilities::LONG_PASSWORD);
    ServerGreeting {
        version: connected.server_version.clone(),
        flavor: if mysql { Flavor::MySql } else { Flavor::MariaDb },
        capabilities: connected.server_capabilities.0,
        collation: connected.server_collation,
        plugin: String::from_utf8_lossy(&connected.server_plugin).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_from_before_a_doubt_or_from_its_millisecond_owes_another() {
        let (slow, fast, owed) = (Duration::from_secs(1), Duration::from_millis(1), Duration::from_millis(2));
        for (interval, doubted_ms, asked_ms, expected) in [
            (slow, None, 0, slow),
            (slow, Some(7), 6, owed),
            (slow, Some(7), 7, owed),
            (slow, Some(7), 8, slow),
            (fast, Some(7), 7, fast),
        ] {
            let pace = Pace { interval, wakes: 0, doubted_ms };
            assert_eq!(pace.after(asked_ms, owed), expected, "{pace:?} {asked_ms}");
        }
    }
}
