//! OK packets, and the OK that stands where EOF stood ("OK_Packet").

use super::Malformed;
use super::lenenc::{Reader, put_lenenc};
use bytes::{BufMut, Bytes, BytesMut};

/// First byte of an OK packet.
pub const HEADER: u8 = 0x00;
/// First byte of an EOF packet, and of the OK packet that replaces it under DEPRECATE_EOF.
pub const EOF: u8 = 0xFE;

/// An OK packet of a connection with PROTOCOL_41, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OkPacket<'a> {
    /// [`HEADER`], or [`EOF`] at the end of a result.
    pub header: u8,
    /// Affected rows.
    pub affected_rows: u64,
    /// The last AUTO_INCREMENT value, 0 if none.
    pub last_insert_id: u64,
    /// Status flags (`SERVER_STATUS_…`).
    pub status: u16,
    /// Number of warnings.
    pub warnings: u16,
    /// What follows: the info text and, with SESSION_TRACK, the session state changes.
    pub tail: &'a [u8],
}

impl<'a> OkPacket<'a> {
    /// Reads the payload of an OK packet.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let header = reader.u8()?;
        if header != HEADER && header != EOF {
            return Err(Malformed("not an OK packet"));
        }
        Ok(Self {
            header,
            affected_rows: reader.lenenc()?,
            last_insert_id: reader.lenenc()?,
            status: reader.u16()?,
            warnings: reader.u16()?,
            tail: reader.rest(),
        })
    }

    /// The payload of this packet.
    pub fn payload(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(23 + self.tail.len());
        out.put_u8(self.header);
        put_lenenc(&mut out, self.affected_rows);
        put_lenenc(&mut out, self.last_insert_id);
        out.put_u16_le(self.status);
        out.put_u16_le(self.warnings);
        out.put_slice(self.tail);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back_as_they_went_and_truncated_ones_are_refused() {
        let packet =
            OkPacket { header: 0, affected_rows: 300, last_insert_id: 1 << 40, status: 2, warnings: 1, tail: b"" };
        let payload = packet.payload();
        assert_eq!(OkPacket::parse(&payload), Ok(packet));
        for n in 0..payload.len() {
            assert!(OkPacket::parse(&payload[..n]).is_err(), "{n}");
        }
    }
}
