//! The compressed side of a channel: frames are read whole or in part and unpacked into the channel's input.

use super::Io;
use super::pool;
use crate::wire::compress::{Algorithm, Compression};
use bytes::BytesMut;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Bytes unpacked at one fill; what a frame holds beyond that stays packed.
const UNPACKED_MAX: usize = 128 * 1024;

/// Frames that were read and not unpacked yet.
pub(super) struct Compressed {
    compression: Compression,
    raw: BytesMut,
}

impl Compressed {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self { compression: Compression::new(algorithm), raw: BytesMut::new() }
    }

    /// `plain` as frames.
    pub(super) fn encode(&mut self, plain: &[u8]) -> BytesMut {
        let mut frames = BytesMut::new();
        self.compression.encode(plain, &mut frames);
        frames
    }

    /// Unpacks what is there, or reads until something can be unpacked; answers how many bytes were. 0 means the peer has
    /// closed between two frames.
    pub(super) fn poll_fill(
        &mut self,
        io: &mut Io,
        input: &mut BytesMut,
        bytes_in: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let unpacked = self.compression.decode(&mut self.raw, input, UNPACKED_MAX);
            if self.raw.is_empty() {
                pool::give_back(&mut self.raw);
            }
            let unpacked = unpacked.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if unpacked > 0 {
                return Poll::Ready(Ok(unpacked));
            }
            if input.is_empty() {
                pool::give_back(input);
            }
            if self.raw.capacity() - self.raw.len() < pool::READ_MIN {
                pool::make_room(&mut self.raw, false);
            }
            let result = tokio_util::io::poll_read_buf(Pin::new(&mut *io), cx, &mut self.raw);
            if self.raw.is_empty() {
                pool::give_back(&mut self.raw);
            }
            let n = ready!(result)?;
            *bytes_in += n as u64;
            if n == 0 {
                let between = self.raw.is_empty() && !self.compression.is_inside_frame();
                return Poll::Ready(if between { Ok(0) } else { Err(io::ErrorKind::UnexpectedEof.into()) });
            }
        }
    }
}
