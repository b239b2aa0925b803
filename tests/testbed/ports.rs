//! Ports that no other test takes at the same time.
//!
//! Why not port 0: the kernel hands out ephemeral ports (from 32768 on), which any outgoing connection may hold at the
//! moment a killed server wants its port back. So ports come from below, each guarded by a lock file that the kernel
//! releases when its process dies; a port that something else listens on is passed over.

use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port of 127.0.0.1, ours until dropped. Nothing listens on it yet.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a free port. Panics if the range is exhausted.
    pub fn take() -> Port {
        // where the next search begins: spread by process, so that parallel ones rarely try the same
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let range = range();
        let size = u32::from(range.end() - range.start()) + 1;
        let spread = std::process::id().wrapping_mul(97);
        let locks = super::testbed_root().join("ports");
        fs::create_dir_all(&locks).expect("the testbed's folder is writable");
        for _ in 0..size {
            let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(spread).wrapping_rem(size);
            let number = range.start() + u16::try_from(step).expect("the range has 16 bits");
            let lock = File::create(locks.join(number.to_string())).expect("a lock file");
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port { number, _lock: lock };
            }
        }
        panic!("no port free in {range:?}: widen HOLDFAST_TESTBED_PORTS");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

fn range() -> RangeInclusive<u16> {
    let Ok(text) = std::env::var("HOLDFAST_TESTBED_PORTS") else {
        return 11000..=31999;
    };
    text.split_once('-')
        .and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?))
        .filter(|r| !r.is_empty() && *r.end() < 32768)
        .unwrap_or_else(|| panic!("HOLDFAST_TESTBED_PORTS={text}: want FIRST-LAST, both below 32768"))
}
