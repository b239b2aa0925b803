//! Waiting for the client: its next bytes, or a reason to stop waiting.

use super::{ClientSession, End, Incoming};
use bytes::Buf;
use std::future::poll_fn;
use std::task::Poll;

impl ClientSession {
    /// Reads until `n` bytes of input are there; meanwhile a kill, a shutdown at a transaction boundary, or a client that
    /// sends nothing for the idle timeout ends the session.
    pub(super) async fn fill_to(&mut self, n: usize) -> Result<(), End> {
        while self.client.input.len() < n {
            match self.around.inside.gate.listener.config.idle_timeout {
                None => self.fill().await?,
                Some(limit) => tokio::time::timeout(limit, self.fill()).await.map_err(|_| End::Idle)??,
            }
        }
        Ok(())
    }

    pub(super) async fn fill(&mut self) -> Result<(), End> {
        loop {
            let count = self.handle.nudge.count();
            if self.nudged != (count, false) {
                Box::pin(self.leave(count)).await;
            }
            if self.account.is_some() {
                self.handle.set_idle(self.has_spare());
            }
            if self.fill_once().await? {
                self.handle.set_idle(false);
                return Ok(());
            }
        }
    }

    /// Waits for the client; false if the session has to look after its servers first.
    async fn fill_once(&mut self) -> Result<bool, End> {
        let Self { client, session, stop, kill, gone, around, primary, follower, handle, nudged, .. } = self;
        // Between transactions a shutdown ends the session; inside one it may finish, until the deadline's kill.
        let may_stop = session.transaction().is_none() && client.input.is_empty();
        let mut farewell = None;
        poll_fn(|cx| {
            match client.poll_fill(cx, usize::MAX) {
                Poll::Ready(Ok(1..)) => return Poll::Ready(Ok(true)),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::ClientGone)),
                Poll::Pending => {}
            }
            if kill.poll(cx).is_ready() {
                return Poll::Ready(Err(End::Killed));
            }
            if may_stop && stop.poll(cx).is_ready() {
                let farewell = farewell.get_or_insert_with(|| around.shutdown.farewell());
                if farewell.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(End::Shutdown));
                }
            }
            if gone.poll(cx).is_ready() {
                // The client is told at its next statement; the servers are left at once.
                (*primary, *follower) = (None, None);
            }
            if handle.nudge.poll(cx, nudged.0) {
                return Poll::Ready(Ok(false));
            }
            Poll::Pending
        })
        .await
    }

    /// Takes the command off the input without sending it anywhere.
    pub(super) async fn skip(&mut self, incoming: Incoming) -> Result<(), End> {
        let mut left = incoming.length;
        loop {
            let n = left.min(self.client.input.len());
            self.client.input.advance(n);
            left -= n;
            if left == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }
}
