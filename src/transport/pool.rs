//! The worker's read buffers: a thread's own stack of them, bounded.
//!
//! A buffer is taken when a socket is polled for reading and given back when nothing came, so only sessions with bytes in
//! hand hold one.

use bytes::BytesMut;
use std::cell::RefCell;

/// Bytes of a fresh buffer.
const BUFFER: usize = 16 * 1024;
/// A read that has less room than this gets more first.
pub(super) const READ_MIN: usize = 4 * 1024;
/// The largest buffer a channel grows to by reading; a packet that must be whole may still grow it further.
pub(super) const BUFFER_MAX: usize = 128 * 1024;
/// Idle buffers a worker keeps.
const POOLED_MAX: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Gives `input` room for another read: a pooled buffer if it is empty, else a larger one; a large one at once for a
/// `busy` connection, whose last read filled its buffer.
pub(super) fn make_room(input: &mut BytesMut, busy: bool) {
    if busy && input.is_empty() {
        input.reserve(BUFFER_MAX);
        return;
    }
    if input.capacity() == 0 {
        *input = POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(BUFFER));
        return;
    }
    input.reserve(if input.len() < BUFFER_MAX { BUFFER.max(input.len()) } else { BUFFER_MAX });
}

/// Gives an empty buffer back to the pool.
pub(super) fn give_back(input: &mut BytesMut) {
    let mut buffer = std::mem::take(input);
    buffer.clear();
    // Reclaims the front that was consumed; true only when this is the buffer's only handle.
    if buffer.capacity() < BUFFER && !buffer.try_reclaim(BUFFER) {
        return;
    }
    // Large ones are for results in progress, not for keeping.
    if buffer.capacity() > 2 * BUFFER {
        return;
    }
    POOL.with_borrow_mut(|pool| {
        if pool.len() < POOLED_MAX {
            pool.push(buffer);
        }
    });
}
