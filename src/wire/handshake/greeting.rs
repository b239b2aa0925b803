//! HandshakeV10: the first packet of a connection, from the server.

use super::NONCE;
use crate::wire::Malformed;
use crate::wire::capabilities::Capabilities;
use crate::wire::lenenc::Reader;
use bytes::{BufMut, Bytes, BytesMut};
use std::borrow::Cow;

/// MariaDB puts this before its version, so that old replicas don't take 10 for 1; it is not part of the version.
const MARIADB_PREFIX: &[u8] = b"5.5.5-";

/// The server's greeting ("Protocol::HandshakeV10").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting<'a> {
    /// Version as on the wire, with MariaDB's `5.5.5-` if it is there.
    pub server_version: Cow<'a, [u8]>,
    /// Connection id.
    pub thread_id: u32,
    /// The challenge.
    pub nonce: [u8; NONCE],
    /// What the server can do; the extended half only from a MariaDB.
    pub capabilities: Capabilities,
    /// The server's default collation; ids above 255 are cut to a byte by the protocol.
    pub collation: u8,
    /// Status flags.
    pub status: u16,
    /// The default authentication plugin; empty where the server has none of them.
    pub plugin: Cow<'a, [u8]>,
}

impl<'a> Greeting<'a> {
    /// Reads a greeting. A server that is not one of protocol 10 and 4.1 is malformed.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != 10 {
            return Err(Malformed("the greeting is not of protocol version 10"));
        }
        let server_version = reader.nul_terminated()?;
        let thread_id = reader.u32()?;
        let mut nonce = [0; NONCE];
        nonce[..8].copy_from_slice(reader.take(8)?);
        reader.u8()?;
        let low = reader.u16()?;
        let collation = reader.u8()?;
        let status = reader.u16()?;
        let high = reader.u16()?;
        let nonce_bytes = reader.u8()?;
        reader.take(6)?;
        let extended = reader.u32()?;
        let bits = u32::from(low) | u32::from(high) << 16;
        let mariadb = bits & Capabilities::LONG_PASSWORD.low() == 0;
        let capabilities = Capabilities::from_parts(bits, if mariadb { extended } else { 0 });
        if !capabilities.has(Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION) {
            return Err(Malformed("the server does not speak the protocol of MySQL 4.1"));
        }
        // The second part is as long as the length byte says, but at least 13 with its closing zero byte.
        let rest = usize::from(nonce_bytes).saturating_sub(8).max(13);
        let second = reader.take(rest.min(reader.rest().len()))?;
        let second = second.get(..NONCE - 8).ok_or(Malformed("the greeting's challenge is too short"))?;
        nonce[8..].copy_from_slice(second);
        // Some servers leave out the closing zero byte.
        let plugin = if capabilities.has(Capabilities::PLUGIN_AUTH) {
            reader.rest().split(|b| *b == 0).next().unwrap_or_default()
        } else {
            &[]
        };
        Ok(Self {
            server_version: server_version.into(),
            thread_id,
            nonce,
            capabilities,
            collation,
            status,
            plugin: plugin.into(),
        })
    }

    /// The version without MariaDB's prefix, as text.
    pub fn version_text(&self) -> String {
        let version = self.server_version.strip_prefix(MARIADB_PREFIX).unwrap_or(&self.server_version);
        String::from_utf8_lossy(version).into_owned()
    }

    /// True when the server speaks MariaDB's dialect.
    pub fn is_mariadb(&self) -> bool {
        !self.capabilities.has(Capabilities::LONG_PASSWORD)
    }

    /// The payload of this greeting.
    pub fn payload(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.server_version.len() + self.plugin.len());
        let bits = self.capabilities.low();
        out.put_u8(10);
        out.put_slice(&self.server_version);
        out.put_u8(0);
        out.put_u32_le(self.thread_id);
        out.put_slice(&self.nonce[..8]);
        out.put_u8(0);
        out.put_u16_le(bits as u16);
        out.put_u8(self.collation);
        out.put_u16_le(self.status);
        out.put_u16_le((bits >> 16) as u16);
        out.put_u8(NONCE as u8 + 1);
        out.put_bytes(0, 6);
        out.put_u32_le(if self.is_mariadb() { self.capabilities.extended() } else { 0 });
        out.put_slice(&self.nonce[8..]);
        out.put_u8(0);
        out.put_slice(&self.plugin);
        out.put_u8(0);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(capabilities: Capabilities) -> Greeting<'static> {
        Greeting {
            server_version: b"5.5.5-10.11.14-MariaDB"[..].into(),
            thread_id: 77,
            nonce: *b"0123456789abcdefghij",
            capabilities,
            collation: 45,
            status: 2,
            plugin: b"mysql_native_password"[..].into(),
        }
    }

    #[test]
    fn greetings_come_back_as_they_went_and_truncated_ones_are_refused() {
        let packet = greeting(Capabilities::SERVED - Capabilities::LONG_PASSWORD);
        let payload = packet.payload();
        assert_eq!(Greeting::parse(&payload), Ok(packet.clone()));
        assert_eq!(packet.version_text(), "10.11.14-MariaDB");
        for n in 0..payload.len() - packet.plugin.len() - 2 {
            assert!(Greeting::parse(&payload[..n]).is_err(), "{n}");
        }
    }

    #[test]
    fn extended_flags_are_mariadbs_alone() {
        let payload = greeting(Capabilities::SERVED).payload();
        assert_eq!(Greeting::parse(&payload).unwrap().capabilities.extended(), 0);
    }
}
