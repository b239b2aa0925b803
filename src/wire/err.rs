//! ERR packets: error number, SQLSTATE, message ("ERR_Packet").

use super::Malformed;
use super::lenenc::Reader;
use crate::error::ClientError;
use bytes::{BufMut, Bytes, BytesMut};

/// First byte of an ERR packet.
pub const HEADER: u8 = 0xFF;

/// An ERR packet, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrPacket<'a> {
    /// Error number.
    pub code: u16,
    /// SQLSTATE; `HY000` where the packet has none (before the handshake).
    pub state: [u8; 5],
    /// The message, in the connection's character set.
    pub message: &'a [u8],
}

impl<'a> ErrPacket<'a> {
    /// Reads the payload of an ERR packet, with or without SQLSTATE.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != HEADER {
            return Err(Malformed("not an ERR packet"));
        }
        let code = reader.u16()?;
        if reader.rest().first() != Some(&b'#') {
            return Ok(Self { code, state: *b"HY000", message: reader.rest() });
        }
        reader.u8()?;
        let state = reader.array()?;
        Ok(Self { code, state, message: reader.rest() })
    }

    /// The payload of this packet, with SQLSTATE.
    pub fn payload(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(9 + self.message.len());
        out.put_u8(HEADER);
        out.put_u16_le(self.code);
        out.put_u8(b'#');
        out.put_slice(&self.state);
        out.put_slice(self.message);
        out.freeze()
    }
}

/// The payload of the ERR packet for an error of the proxy's own.
pub fn client_error(error: &ClientError) -> Bytes {
    let (code, state) = error.kind.code();
    ErrPacket { code, state: *state, message: error.message.as_bytes() }.payload()
}

/// The same for an ERR packet that stands in the greeting's place: before CLIENT_PROTOCOL_41 is agreed on there is no
/// SQLSTATE, and clients take one for part of the message.
pub fn early_error(error: &ClientError) -> Bytes {
    let mut out = BytesMut::with_capacity(3 + error.message.len());
    out.put_u8(HEADER);
    out.put_u16_le(error.kind.code().0);
    out.put_slice(error.message.as_bytes());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back_as_they_went_and_truncated_ones_are_refused() {
        let packet = ErrPacket { code: 1045, state: *b"28000", message: b"Access denied" };
        let payload = packet.payload();
        assert_eq!(ErrPacket::parse(&payload), Ok(packet));
        for n in 0..9 {
            assert!(ErrPacket::parse(&payload[..n]).is_err() || n == 3, "{n}");
        }
        let early = ErrPacket::parse(b"\xff\x10\x04Too many connections").unwrap();
        assert_eq!((early.code, early.state, early.message), (1040, *b"HY000", &b"Too many connections"[..]));
    }
}
