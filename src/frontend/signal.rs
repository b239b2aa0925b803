//! A cancellation that every command asks for: one load while nothing has happened.
//!
//! A token's own question takes its lock, and the shutdown's token is every worker's; waiting for it takes another. A
//! [`Signal`] keeps a flag beside the token, and a [`Watch`] stays registered from one wait to the next.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Raised once, by anybody; seen by all its clones.
#[derive(Clone, Debug, Default)]
pub struct Signal {
    raised: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Signal {
    /// One that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises it.
    pub fn cancel(&self) {
        // The flag first: whom the token wakes must see it.
        self.raised.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Has it been raised?
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Waits until it is raised. Cancel safe.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// The token that is cancelled with it, for rooms that know no signals.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// A watch for one task.
    pub fn watch(&self) -> Watch {
        Watch { signal: self.clone(), wait: Box::pin(self.token.clone().cancelled_owned()), registered: None }
    }
}

/// One task's watch over a [`Signal`], to be polled again and again.
#[derive(Debug)]
pub struct Watch {
    signal: Signal,
    wait: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The waker that the signal will wake.
    registered: Option<Waker>,
}

impl Watch {
    /// Ready once the signal is raised.
    #[inline]
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.signal.is_cancelled() {
            return Poll::Ready(());
        }
        if self.registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.registered = Some(cx.waker().clone());
        self.wait.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_watch_is_woken_however_often_it_was_polled_before_and_by_whom() {
        let signal = Signal::new();
        let mut watch = signal.watch();
        let (first, second) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        for woken in [&first, &second] {
            let waker = Waker::from(Arc::clone(woken));
            let mut cx = Context::from_waker(&waker);
            assert!(watch.poll(&mut cx).is_pending());
            assert!(watch.poll(&mut cx).is_pending());
        }
        signal.cancel();
        assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
        assert!(watch.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn a_signal_raised_while_nobody_waited_is_seen_at_the_next_wait() {
        let signal = Signal::new();
        let mut watch = signal.watch();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(watch.poll(&mut cx).is_pending());
        signal.clone().cancel();
        assert!(signal.is_cancelled() && watch.poll(&mut cx).is_ready());
    }
}
