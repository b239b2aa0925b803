//! One connection as bytes: plain or TLS, compressed or not, with a read buffer that is only held while it holds bytes.
//!
//! Both walks' sockets are [`Channel`]s: the client's and the backends'. A channel that waits with nothing read yet
//! gives its buffer back to the worker's pool, so an idle session costs no buffer. It knows packets only as far as the
//! login and the proxy's own small queries need them ([`Channel::read_packet`]); the data path scans [`Channel::input`]
//! in place. It decides nothing and never retries.

mod compressed;
mod pool;

use crate::wire::compress::Algorithm;
use crate::wire::packet::{self, HEADER, Header};
use bytes::{Buf, BufMut, BytesMut};
use compressed::Compressed;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A write up to this many bytes is tried before anything else.
const WRITE_AT_ONCE: usize = 16 * 1024;

/// The socket under a channel.
pub enum Io {
    /// TCP as it is.
    Plain(TcpStream),
    /// TLS, either role.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// Why a packet could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The peer closed the connection; `clean` when that was between two packets.
    #[error("connection closed by the peer")]
    Closed {
        /// No byte of a packet had arrived.
        clean: bool,
    },
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The packet is longer than the caller takes (bytes).
    #[error("packet longer than {limit} bytes")]
    TooLong {
        /// The caller's limit in bytes.
        limit: usize,
    },
    /// The sequence number is not the next one.
    #[error("packet out of order: expected {expected}, got {got}")]
    OutOfOrder {
        /// The number that was due.
        expected: u8,
        /// The number that came.
        got: u8,
    },
}

/// A connection with its read buffer.
pub struct Channel {
    io: Io,
    /// Bytes read from the peer and not consumed yet.
    pub input: BytesMut,
    /// Bytes read (after TLS), since the start.
    pub bytes_in: u64,
    /// Bytes written (before TLS), since the start.
    pub bytes_out: u64,
    /// The last read filled all the room it had: the next may have more.
    busy: bool,
    /// The last read left room: the next finds nothing, most likely.
    drained: bool,
    /// Present from [`Channel::compress`] on.
    compressed: Option<Box<Compressed>>,
}

impl Channel {
    /// A channel over `io` that has read nothing yet.
    pub fn new(io: Io) -> Self {
        Self { io, input: BytesMut::new(), bytes_in: 0, bytes_out: 0, busy: false, drained: false, compressed: None }
    }

    /// The socket, for TLS upgrades and addresses.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// From here on everything in both directions is in compressed frames, which [`Channel::input`] and what is written
    /// don't show. Nothing must have been read ahead.
    pub fn compress(&mut self, algorithm: Algorithm) {
        self.compressed = Some(Box::new(Compressed::new(algorithm)));
    }

    /// True after [`Channel::compress`]. The sequence numbers of packets mean nothing then, as both sides' servers and
    /// clients see it: the frames have their own.
    pub fn is_compressed(&self) -> bool {
        self.compressed.is_some()
    }

    /// Takes the channel apart: the socket and what was read but not consumed.
    pub fn into_parts(self) -> (Io, BytesMut) {
        (self.io, self.input)
    }

    /// Reads more bytes into [`Channel::input`]: as many as are there, at most one buffer. Answers how many; 0 means the
    /// peer has closed. Cancel safe.
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, usize::MAX)).await
    }

    /// Like [`Channel::fill`], but never reads past `limit` bytes more. Used before a TLS upgrade, where the bytes behind
    /// the packet belong to TLS. Cancel safe.
    pub async fn fill_at_most(&mut self, limit: usize) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, limit)).await
    }

    /// Poll form of [`Channel::fill_at_most`].
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        if let Some(compressed) = &mut self.compressed {
            return compressed.poll_fill(&mut self.io, &mut self.input, &mut self.bytes_in, cx);
        }
        if self.drained {
            self.drained = false;
            // Without a buffer, which would only be given back.
            if let Io::Plain(io) = &self.io {
                ready!(io.poll_read_ready(cx))?;
            }
        }
        let room = self.input.capacity() - self.input.len();
        if room < pool::READ_MIN || self.busy && self.input.is_empty() && room < pool::BUFFER_MAX {
            pool::make_room(&mut self.input, self.busy);
        }
        let room = self.input.capacity() - self.input.len();
        let result = {
            let mut target = (&mut self.input).limit(limit);
            tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut target)
        };
        if self.input.is_empty() {
            pool::give_back(&mut self.input);
        }
        let n = ready!(result)?;
        self.busy = n == room;
        self.drained = n < room.min(limit);
        self.bytes_in += n as u64;
        Poll::Ready(Ok(n))
    }

    /// Writes all of `bytes` and flushes. Not cancel safe.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(compressed) = &mut self.compressed {
            let frames = compressed.encode(bytes);
            self.io.write_all(&frames).await?;
        } else {
            let n = self.try_write(bytes)?;
            if n < bytes.len() {
                self.io.write_all(&bytes[n..]).await?;
            }
        }
        self.bytes_out += bytes.len() as u64;
        if let Io::Tls(io) = &mut self.io {
            io.flush().await?;
        }
        Ok(())
    }

    /// Writes what the socket takes at once, nearly always all of it, without registering for more. Long writes go the
    /// long way: there the runtime learns from a partial one that the socket is full.
    #[inline]
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.io {
            Io::Plain(io) if bytes.len() <= WRITE_AT_ONCE => match io.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                written => written,
            },
            Io::Plain(_) | Io::Tls(_) => Ok(0),
        }
    }

    /// Writes `payload` as one packet with `sequence`, which is advanced. Not cancel safe.
    pub async fn write_packet(&mut self, sequence: &mut u8, payload: &[u8]) -> io::Result<()> {
        let mut out = BytesMut::with_capacity(payload.len() + HEADER);
        packet::write_packet(&mut out, sequence, payload);
        self.write_all(&out).await
    }

    /// Reads one whole packet (joined from its frames) of at most `limit` bytes, checks that its sequence number is
    /// `sequence` and advances it. With `exact`, no byte behind the packet is read. Cancel safe only between packets.
    pub async fn read_packet(&mut self, sequence: &mut u8, limit: usize, exact: bool) -> Result<BytesMut, PacketError> {
        let mut payload = BytesMut::new();
        loop {
            self.fill_to(HEADER, exact, payload.is_empty()).await?;
            let header = Header::read(&self.input).ok_or(PacketError::Closed { clean: false })?;
            // Compressed, the frames' numbers count; servers and clients set the packets' by them at each flush.
            if header.sequence != *sequence && self.compressed.is_none() {
                return Err(PacketError::OutOfOrder { expected: *sequence, got: header.sequence });
            }
            if payload.len() + header.length > limit {
                return Err(PacketError::TooLong { limit });
            }
            self.fill_to(HEADER + header.length, exact, false).await?;
            *sequence = header.sequence.wrapping_add(1);
            self.input.advance(HEADER);
            let frame = self.input.split_to(header.length);
            if payload.is_empty() && header.length < packet::FRAME_MAX {
                return Ok(frame);
            }
            payload.extend_from_slice(&frame);
            if header.length < packet::FRAME_MAX {
                return Ok(payload);
            }
        }
    }

    /// Fills until `input` holds at least `n` bytes.
    async fn fill_to(&mut self, n: usize, exact: bool, between_packets: bool) -> Result<(), PacketError> {
        while self.input.len() < n {
            let limit = if exact { n - self.input.len() } else { usize::MAX };
            if self.fill_at_most(limit).await? == 0 {
                return Err(PacketError::Closed { clean: between_packets && self.input.is_empty() });
            }
        }
        Ok(())
    }

    /// Gives an empty read buffer back to the pool.
    pub fn release(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            pool::give_back(&mut self.input);
        }
    }

    /// Ready(true) when the peer has gone, Ready(false) when it has sent something. A plain socket is only peeked at, and
    /// only when it has become readable since the last read; TLS has to read to tell a farewell from data, which then
    /// stands in [`Channel::input`] behind what was there.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Io::Plain(io) = &self.io else {
            return self.poll_fill(cx, usize::MAX).map(|read| !matches!(read, Ok(1..)));
        };
        let mut byte = [0];
        let mut target = ReadBuf::new(&mut byte);
        match ready!(io.poll_peek(cx, &mut target)) {
            Ok(n) => Poll::Ready(n == 0),
            Err(_) => Poll::Ready(true),
        }
    }

    /// True if nothing has arrived while nobody was waiting: no close, no error, no unasked-for packet. Costs no system
    /// call unless the socket has become readable.
    pub fn is_quiet(&mut self) -> bool {
        let socket = match &self.io {
            Io::Plain(io) => io,
            Io::Tls(io) => io.get_ref().0,
        };
        // What the runtime knows of the socket, without waiting for more.
        match socket.try_io(Interest::READABLE, || Ok(())) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.input.is_empty(),
            Err(_) => false,
            // Readiness may be stale, and TLS has records of its own: only a read tells.
            Ok(()) => {
                let mut cx = Context::from_waker(std::task::Waker::noop());
                self.input.is_empty() && self.poll_fill(&mut cx, usize::MAX).is_pending()
            }
        }
    }

    /// Closes the sending side (TLS: with close_notify), ignoring a peer that is gone already.
    pub async fn shutdown(&mut self) {
        let _ = self.io.shutdown().await;
    }
}
