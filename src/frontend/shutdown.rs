//! How sessions end when the proxy does.
//!
//! ```text
//!   Serving ──SIGTERM, grace──► Closing ─────────deadline────────► Ending ───────transactions───────► cut
//!   clients     /readyz 503,    no clients come; who sends         who is between                     whatever
//!   come and go   clients still nothing for `idle` between         transactions is closed             it does
//!                 come          transactions is closed             at once
//! ```
//! A closed session is closed without a word. Real servers announce a shutdown by error 1053, but client pools take a
//! connection that is found closed for what it is, silently, while an unasked packet is an answer to what they send next:
//! some report it to the application instead of connecting again. Only between transactions and only after `idle`: pools
//! that trust a connection unseen do so when it was in use a moment ago.

use super::signal::Signal;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The steps of a shutdown as sessions see them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Raised when no more clients are accepted.
    pub closing: Signal,
    /// Raised when every session has to end at its next transaction boundary.
    pub ending: Signal,
    idle: Arc<std::sync::OnceLock<Duration>>,
}

impl Shutdown {
    /// No more clients come; sessions may be idle for `idle`.
    pub fn close(&self, idle: Duration) {
        let _ = self.idle.set(idle);
        self.closing.cancel();
    }

    /// Once closing: ends when a session that is between transactions has to. Cancel safe.
    pub fn farewell(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let idle = self.idle.get().copied().unwrap_or_default();
        let ending = self.ending.clone();
        Box::pin(async move {
            let _ = tokio::time::timeout(idle, ending.cancelled()).await;
        })
    }
}
