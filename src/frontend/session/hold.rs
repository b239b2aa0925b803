//! A statement that no server takes now waits for the topology to change: bounded in time, in number, and by its client.

use super::checkout::Unavailable;
use super::{ClientSession, End};
use crate::error::{ClientError, ErrorKind};
use crate::failover::{Held, ramp};
use crate::frontend::prove::cluster_gone;
use crate::metrics;
use std::future::{Future, poll_fn};
use std::task::Poll;
use tokio::time::Instant;

/// One statement that waits, as its listener, its cluster and the metrics count it.
pub(super) struct Waiting {
    _listener: Held,
    held: Held,
    pub(super) hold: metrics::Hold,
    /// It has let those before it go ahead.
    yielded: bool,
}

impl ClientSession {
    /// Counts the statement at hand as one that waits; `None` if too many do.
    pub(super) fn enter_hold(&self) -> Option<Waiting> {
        let cluster = self.cluster();
        let _listener = self.around.inside.gate.listener.holds.enter(0)?;
        let held = cluster.holds.enter(self.client.input.len())?;
        Some(Waiting { _listener, held, hold: metrics::hold(&cluster.name.0), yielded: false })
    }

    /// The wait is over: lets those go ahead that came before. True if that took time, in which the primary may have changed.
    pub(super) async fn let_others_ahead(&mut self) -> bool {
        let Some(waiting) = self.waiting.as_mut().filter(|waiting| !waiting.yielded) else { return false };
        waiting.yielded = true;
        let delay = ramp(waiting.held.place);
        if delay.is_zero() {
            return false;
        }
        tokio::time::sleep(delay).await;
        true
    }

    /// Until when a statement that begins now may be held.
    pub(super) fn hold_deadline(&self) -> Instant {
        Instant::now() + self.around.inside.gate.hold_max()
    }

    /// Waits until the topology changes; ends with an error at the deadline, when the hold is full, or with the session.
    pub(super) async fn hold(
        &mut self,
        changed: &mut tokio::sync::watch::Receiver<u64>,
        deadline: Instant,
    ) -> Result<(), Unavailable> {
        let cluster = self.cluster().clone();
        if self.waiting.is_none() {
            let Some(waiting) = self.enter_hold() else {
                metrics::hold(&cluster.name.0).time_out();
                let message = format!(
                    "holdfast: cluster {} has no proven primary and {} statements wait already; retry later",
                    cluster.name,
                    cluster.holds.held()
                );
                return Err(Unavailable::Error(ClientError::new(ErrorKind::Limit, message)));
            };
            self.waiting = Some(waiting);
        }
        let waited = self.around.inside.gate.hold_max().as_millis();
        let Self { client, kill, gone, .. } = self;
        let mut watch_client = true;
        let mut news = std::pin::pin!(changed.changed());
        let mut late = std::pin::pin!(tokio::time::sleep_until(deadline));
        poll_fn(|cx| {
            if news.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if kill.poll(cx).is_ready() {
                return Poll::Ready(Err(Unavailable::End(End::Killed)));
            }
            if gone.poll(cx).is_ready() {
                return Poll::Ready(Err(Unavailable::Error(cluster_gone(&cluster))));
            }
            if watch_client {
                match client.poll_gone(cx) {
                    Poll::Ready(true) => return Poll::Ready(Err(Unavailable::End(End::ClientGone))),
                    Poll::Ready(false) => watch_client = false,
                    Poll::Pending => {}
                }
            }
            late.as_mut().poll(cx).map(|()| {
                let going = cluster.topology.load().primary().and_then(|p| p.serving.reason().map(str::to_owned));
                let why = match going {
                    Some(reason) => format!("the primary of cluster {} takes nothing new, {reason},", cluster.name),
                    None => format!("cluster {} has had no proven primary", cluster.name),
                };
                let message = format!("holdfast: {why} for {waited} ms; the statement was not executed, retry");
                Err(Unavailable::Error(ClientError::new(ErrorKind::NoBackend, message)))
            })
        })
        .await
    }
}
