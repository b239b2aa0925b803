//! The compressed protocol: packets inside compressed frames ("Compression", "Protocol::CompressedPacket").
//!
//! A frame has seven bytes of header: length of what follows (3), its own sequence number (1), length before compression
//! (3), which is 0 where the frame is stored as it is. What the frames hold, joined, is the stream of ordinary packets;
//! packets and frames begin and end independently. Frames shorter than [`STORED_BELOW`] are stored.
//!
//! Frames are decoded piece by piece, so a frame that unpacks to 16 MiB costs no more memory than one piece; one that
//! unpacks to more or less than it says is malformed. Encoders are the thread's, not the connection's: they are large,
//! and every frame is complete in itself.

use super::Malformed;
use super::packet::FRAME_MAX;
use bytes::{Buf, BufMut, BytesMut};
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::RefCell;
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

/// Bytes of a frame's header.
pub const HEADER: usize = 7;
/// Below this many bytes a frame is stored: compressing would cost more than it saves (MySQL's MIN_COMPRESS_LENGTH).
pub const STORED_BELOW: usize = 50;
/// zstd windows taken, as a power of two: no frame is longer than 16 MiB, so none needs more.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;
/// Highest zstd level used, whatever the client asks for: a level costs the proxy's time and memory, not the client's.
const ZSTD_LEVEL_MAX: u8 = 9;
/// MySQL's default zlib level.
const ZLIB_LEVEL: u32 = 6;
/// Bytes unpacked at once.
const PIECE: usize = 64 * 1024;

/// How frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// zlib, CLIENT_COMPRESS.
    Zlib,
    /// zstd, CLIENT_ZSTD_COMPRESSION_ALGORITHM.
    Zstd {
        /// The level the client asked for, 1 ..= 22.
        level: u8,
    },
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow.
    pub length: usize,
    /// Sequence number, counted from 0 at each command.
    pub sequence: u8,
    /// Bytes before compression, 0 if the frame is stored.
    pub plain_length: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`, if seven bytes are there.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, sequence, x, y, z, ..] = *bytes else { return None };
        let number = |a, b, c| u32::from_le_bytes([a, b, c, 0]) as usize;
        Some(Self { length: number(a, b, c), sequence, plain_length: number(x, y, z) })
    }

    /// Appends the seven bytes.
    pub fn put(self, out: &mut BytesMut) {
        out.put_uint_le(self.length as u64, 3);
        out.put_u8(self.sequence);
        out.put_uint_le(self.plain_length as u64, 3);
    }
}

/// The compressed side of one connection.
pub struct Compression {
    algorithm: Algorithm,
    /// The next frame's number, ours or the peer's: the two sides count on from each other.
    sequence: u8,
    frame: Frame,
}

/// What is being decoded.
///
/// ```text
/// Between ──► Stored ──► Between
///         └─► Packed ──► Between
/// ```
enum Frame {
    Between,
    Stored { left: usize },
    Packed { left: usize, plain_left: usize, decoder: Decoder },
}

enum Decoder {
    Zlib(Box<Decompress>),
    Zstd(Box<ZstdDecoder<'static>>),
}

impl Compression {
    /// Nothing has been sent or received compressed yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, sequence: 0, frame: Frame::Between }
    }

    /// True if a frame has begun and not ended.
    pub fn is_inside_frame(&self) -> bool {
        !matches!(self.frame, Frame::Between)
    }

    /// Appends `plain` to `out` as frames; each is complete in itself.
    pub fn encode(&mut self, plain: &[u8], out: &mut BytesMut) {
        for part in plain.chunks(FRAME_MAX) {
            let start = out.len();
            out.reserve(HEADER + part.len());
            out.put_bytes(0, HEADER);
            let packed = part.len() >= STORED_BELOW && pack(self.algorithm, part, out);
            if !packed {
                out.truncate(start + HEADER);
                out.put_slice(part);
            }
            let length = out.len() - start - HEADER;
            let header = Header { length, sequence: self.sequence, plain_length: if packed { part.len() } else { 0 } };
            let mut bytes = BytesMut::with_capacity(HEADER);
            header.put(&mut bytes);
            out[start..start + HEADER].copy_from_slice(&bytes);
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    /// Unpacks what is in `raw` into `out`, at most about `limit` bytes (one piece of 64 KiB if less), and takes it out of
    /// `raw`. Answers how many bytes were unpacked: 0 if more of `raw` is needed. After an error the connection is lost.
    pub fn decode(&mut self, raw: &mut BytesMut, out: &mut BytesMut, limit: usize) -> Result<usize, Malformed> {
        let before = out.len();
        while out.len() - before < limit {
            match &mut self.frame {
                Frame::Between => {
                    let Some(header) = Header::read(raw) else { break };
                    raw.advance(HEADER);
                    self.sequence = header.sequence.wrapping_add(1);
                    self.frame = Frame::begin(header, self.algorithm)?;
                }
                Frame::Stored { left } => {
                    let n = (*left).min(raw.len()).min(limit - (out.len() - before));
                    if n == 0 && *left > 0 {
                        break;
                    }
                    out.extend_from_slice(&raw[..n]);
                    raw.advance(n);
                    *left -= n;
                    if *left == 0 {
                        self.frame = Frame::Between;
                    }
                }
                Frame::Packed { left, plain_left, decoder } => {
                    let (used, made) = decoder.piece(&raw[..raw.len().min(*left)], *plain_left, out)?;
                    raw.advance(used);
                    *left -= used;
                    *plain_left -= made;
                    if *left == 0 && *plain_left == 0 {
                        self.frame = Frame::Between;
                    } else if used == 0 && made == 0 {
                        if *left == 0 || !raw.is_empty() {
                            return Err(Malformed("a compressed frame has another length than it says"));
                        }
                        break;
                    }
                }
            }
        }
        Ok(out.len() - before)
    }
}

impl Frame {
    fn begin(header: Header, algorithm: Algorithm) -> Result<Self, Malformed> {
        if header.plain_length == 0 {
            return Ok(if header.length == 0 { Self::Between } else { Self::Stored { left: header.length } });
        }
        let decoder = match algorithm {
            Algorithm::Zlib => Decoder::Zlib(Box::new(Decompress::new(true))),
            Algorithm::Zstd { .. } => {
                let mut decoder = ZstdDecoder::new().map_err(|_| Malformed("zstd is not to be had"))?;
                let limited = decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX));
                limited.map_err(|_| Malformed("zstd is not to be had"))?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self::Packed { left: header.length, plain_left: header.plain_length, decoder })
    }
}

impl Decoder {
    /// Unpacks a piece of `raw` into `out`: how many bytes were used and made. More than `plain_left` is malformed.
    fn piece(&mut self, raw: &[u8], plain_left: usize, out: &mut BytesMut) -> Result<(usize, usize), Malformed> {
        // One byte more than is due shows a frame that holds more than it says.
        let room = PIECE.min(plain_left + 1);
        let start = out.len();
        out.resize(start + room, 0);
        let (used, made) = match self {
            Self::Zlib(decoder) => {
                let (used, made) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(raw, &mut out[start..], FlushDecompress::None);
                if status.is_err() {
                    return Err(Malformed("a compressed frame is no zlib stream"));
                }
                debug_assert!(matches!(status, Ok(Status::Ok | Status::BufError | Status::StreamEnd)));
                ((decoder.total_in() - used) as usize, (decoder.total_out() - made) as usize)
            }
            Self::Zstd(decoder) => {
                let mut input = InBuffer::around(raw);
                let mut output = OutBuffer::around(&mut out[start..]);
                let status = decoder.run(&mut input, &mut output);
                status.map_err(|_| Malformed("a compressed frame is no zstd stream"))?;
                (input.pos(), output.pos())
            }
        };
        out.truncate(start + made);
        if made > plain_left {
            return Err(Malformed("a compressed frame has another length than it says"));
        }
        Ok((used, made))
    }
}

thread_local! {
    static ZLIB: RefCell<Compress> = RefCell::new(Compress::new(flate2::Compression::new(ZLIB_LEVEL), true));
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// Appends `plain` packed; `false` (with nothing appended) where that makes it no shorter.
fn pack(algorithm: Algorithm, plain: &[u8], out: &mut BytesMut) -> bool {
    let start = out.len();
    // With less room than the worst case takes, zstd's encoder fails and stays in the middle of its frame.
    out.resize(start + zstd::zstd_safe::compress_bound(plain.len()).max(plain.len()), 0);
    let made = match algorithm {
        Algorithm::Zlib => ZLIB.with_borrow_mut(|encoder| {
            encoder.reset();
            let status = encoder.compress(plain, &mut out[start..], FlushCompress::Finish);
            matches!(status, Ok(Status::StreamEnd)).then(|| encoder.total_out() as usize)
        }),
        Algorithm::Zstd { level } => ZSTD.with_borrow_mut(|encoder| {
            let made = pack_zstd(encoder, i32::from(level.clamp(1, ZSTD_LEVEL_MAX)), plain, &mut out[start..]);
            if made.is_none() {
                *encoder = None;
            }
            made
        }),
    };
    let made = made.filter(|made| *made < plain.len());
    out.truncate(start + made.unwrap_or(0));
    made.is_some()
}

fn pack_zstd(
    encoder: &mut Option<zstd::bulk::Compressor<'static>>,
    level: i32,
    plain: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    if encoder.is_none() {
        *encoder = zstd::bulk::Compressor::new(level).ok();
    }
    let encoder = encoder.as_mut()?;
    encoder.set_compression_level(level).ok()?;
    encoder.compress_to_buffer(plain, out).ok()
}

#[cfg(test)]
mod tests;
