//! Packet framing: a 3-byte little-endian length, a sequence number, then the payload.
//!
//! A payload of exactly [`FRAME_MAX`] bytes continues in the next frame ("Sending More Than 16Mb").

use bytes::{BufMut, BytesMut};

/// Bytes before each frame's payload.
pub const HEADER: usize = 4;
/// The longest payload of one frame; a frame of this length is followed by another of the same packet.
pub const FRAME_MAX: usize = 0xFF_FFFF;

/// One frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Payload bytes of this frame, 0 ..= [`FRAME_MAX`].
    pub length: usize,
    /// Sequence number, counted from 0 at each command and wrapping at 255.
    pub sequence: u8,
}

impl Header {
    /// Reads the header at the start of `bytes`, if four bytes are there.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, sequence, ..] = *bytes else { return None };
        Some(Self { length: u32::from_le_bytes([a, b, c, 0]) as usize, sequence })
    }

    /// The four bytes of this header.
    #[inline]
    pub fn bytes(self) -> [u8; HEADER] {
        let [a, b, c, _] = (self.length as u32).to_le_bytes();
        [a, b, c, self.sequence]
    }
}

/// Appends `payload` as one packet (several frames past 16 MiB) and advances `sequence` past it.
pub fn write_packet(out: &mut BytesMut, sequence: &mut u8, mut payload: &[u8]) {
    loop {
        let length = payload.len().min(FRAME_MAX);
        out.reserve(HEADER + length);
        out.put_slice(&Header { length, sequence: *sequence }.bytes());
        out.put_slice(&payload[..length]);
        *sequence = sequence.wrapping_add(1);
        payload = &payload[length..];
        if length < FRAME_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_of_exactly_16_mib_less_one_is_closed_by_an_empty_frame() {
        let mut out = BytesMut::new();
        let mut sequence = 255;
        write_packet(&mut out, &mut sequence, &vec![7; FRAME_MAX]);
        assert_eq!(sequence, 1);
        assert_eq!(Header::read(&out), Some(Header { length: FRAME_MAX, sequence: 255 }));
        assert_eq!(Header::read(&out[HEADER + FRAME_MAX..]), Some(Header { length: 0, sequence: 0 }));
        assert_eq!(out.len(), 2 * HEADER + FRAME_MAX);
    }
}
