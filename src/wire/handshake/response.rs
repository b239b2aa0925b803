//! HandshakeResponse41 and SSLRequest: the client's answer to the greeting.

use super::attributes::plugin_and_attributes;
use crate::wire::Malformed;
use crate::wire::capabilities::Capabilities as C;
use crate::wire::lenenc::{Reader, put_lenenc_bytes};
use bytes::{BufMut, Bytes, BytesMut};
use zeroize::Zeroizing;

/// Payload bytes of an SSLRequest: the first four fields of the response and nothing else.
pub const SSL_REQUEST_BYTES: usize = 32;

/// The client's answer ("Protocol::HandshakeResponse41").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeResponse<'a> {
    /// What the client can do and wants.
    pub capabilities: C,
    /// Largest packet the client takes, bytes; 0 where it doesn't say.
    pub max_packet_size: u32,
    /// The client's collation, cut to a byte by the protocol.
    pub collation: u8,
    /// Account name.
    pub user: &'a [u8],
    /// The first answer to the challenge, made by `plugin`.
    pub auth: &'a [u8],
    /// Initial schema.
    pub database: Option<&'a [u8]>,
    /// The plugin that made `auth`; empty where the client knows none by name.
    pub plugin: &'a [u8],
    /// Connection attributes: raw pairs of length-encoded strings, without the length of all.
    pub attributes: &'a [u8],
    /// Level for zstd, 1 ..= 22, 0 if the client has not asked for it.
    pub zstd_level: u8,
}

/// Capabilities, packet size and collation: what both packets begin with.
fn head(reader: &mut Reader<'_>) -> Result<(C, u32, u8), Malformed> {
    // HandshakeResponse320 has two bytes of flags and never PROTOCOL_41.
    if u32::from(reader.rest().get(1).copied().unwrap_or(0)) << 8 & C::PROTOCOL_41.low() == 0 {
        return Err(Malformed("the client speaks the protocol from before MySQL 4.1"));
    }
    let bits = reader.u32()?;
    let max_packet_size = reader.u32()?;
    let collation = reader.u8()?;
    reader.take(19)?;
    let extended = reader.u32()?;
    let extended = if bits & C::LONG_PASSWORD.low() == 0 { extended } else { 0 };
    Ok((C::from_parts(bits, extended), max_packet_size, collation))
}

/// The capabilities of an SSLRequest: a packet of exactly its length with SSL set. `None` if it is something else.
pub fn ssl_request(payload: &[u8]) -> Result<Option<C>, Malformed> {
    let (capabilities, ..) = head(&mut Reader::new(payload))?;
    Ok((payload.len() == SSL_REQUEST_BYTES && capabilities.has(C::SSL)).then_some(capabilities))
}

impl<'a> HandshakeResponse<'a> {
    /// Reads a HandshakeResponse41; the older response is malformed, with a message that says so.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let (capabilities, max_packet_size, collation) = head(&mut reader)?;
        let user = reader.nul_terminated()?;
        let auth = if capabilities.has(C::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
            reader.lenenc_bytes()?
        } else if capabilities.has(C::SECURE_CONNECTION) {
            let n = reader.u8()?;
            reader.take(usize::from(n))?
        } else {
            reader.nul_terminated()?
        };
        // Old clients set these flags and then end the packet: what is missing is taken as empty, as servers do.
        let database = match capabilities.has(C::CONNECT_WITH_DB) && !reader.is_empty() {
            true => Some(reader.nul_terminated()?).filter(|name| !name.is_empty()),
            false => None,
        };
        let (plugin, attributes) = plugin_and_attributes(&mut reader, capabilities)?;
        let zstd_level = match capabilities.has(C::ZSTD_COMPRESSION_ALGORITHM) && !reader.is_empty() {
            true => reader.u8()?,
            false => 0,
        };
        Ok(Self { capabilities, max_packet_size, collation, user, auth, database, plugin, attributes, zstd_level })
    }

    /// The payload of an SSLRequest with this response's first fields.
    pub fn ssl_request_payload(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(SSL_REQUEST_BYTES);
        self.put_head(&mut out);
        out.freeze()
    }

    /// The payload of this response. `capabilities` decides which fields are there. It holds the answer to the
    /// challenge, which may be a password: wiped when dropped.
    pub fn payload(&self) -> Zeroizing<Vec<u8>> {
        let room = 64 + self.user.len() + self.auth.len() + self.attributes.len() + self.plugin.len();
        let mut out = BytesMut::with_capacity(room + self.database.map_or(0, <[u8]>::len));
        self.put_head(&mut out);
        out.put_slice(self.user);
        out.put_u8(0);
        if self.capabilities.has(C::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
            put_lenenc_bytes(&mut out, self.auth);
        } else {
            let auth = &self.auth[..self.auth.len().min(255)];
            out.put_u8(auth.len() as u8);
            out.put_slice(auth);
        }
        if self.capabilities.has(C::CONNECT_WITH_DB) {
            out.put_slice(self.database.unwrap_or_default());
            out.put_u8(0);
        }
        if self.capabilities.has(C::PLUGIN_AUTH) {
            out.put_slice(self.plugin);
            out.put_u8(0);
        }
        if self.capabilities.has(C::CONNECT_ATTRS) {
            put_lenenc_bytes(&mut out, self.attributes);
        }
        if self.capabilities.has(C::ZSTD_COMPRESSION_ALGORITHM) {
            out.put_u8(self.zstd_level);
        }
        // A sole owner's BytesMut becomes this Vec without a copy left behind.
        Zeroizing::new(out.into())
    }

    fn put_head(&self, out: &mut BytesMut) {
        out.put_u32_le(self.capabilities.low());
        out.put_u32_le(self.max_packet_size);
        out.put_u8(self.collation);
        out.put_bytes(0, 19);
        let mariadb = !self.capabilities.has(C::LONG_PASSWORD);
        out.put_u32_le(if mariadb { self.capabilities.extended() } else { 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(capabilities: C) -> HandshakeResponse<'static> {
        HandshakeResponse {
            capabilities,
            max_packet_size: 1 << 24,
            collation: 255,
            user: b"app",
            auth: &[9; 32],
            database: Some(b"orders"),
            plugin: b"caching_sha2_password",
            attributes: b"\x03_os\x05Linux",
            zstd_level: 3,
        }
    }

    #[test]
    fn responses_come_back_as_they_went_and_truncated_ones_never_panic() {
        for capabilities in [C::SERVED, C::SERVED - C::LONG_PASSWORD, C::SERVED - C::PLUGIN_AUTH_LENENC_CLIENT_DATA] {
            let packet = response(C(capabilities.0));
            let payload = packet.payload();
            let read = HandshakeResponse::parse(&payload).unwrap();
            assert_eq!(read.user, packet.user);
            assert_eq!((read.auth, read.database, read.plugin), (packet.auth, packet.database, packet.plugin));
            assert_eq!((read.attributes, read.zstd_level), (packet.attributes, 3));
            let extended = !capabilities.has(C::LONG_PASSWORD);
            assert_eq!(read.capabilities.extended() != 0, extended);
            for n in 0..payload.len() {
                let _ = HandshakeResponse::parse(&payload[..n]);
            }
            assert!(HandshakeResponse::parse(&payload[..40]).is_err());
        }
    }

    #[test]
    fn ssl_requests_and_the_old_response_are_told_apart() {
        let packet = response(C::SERVED);
        assert_eq!(packet.ssl_request_payload().len(), SSL_REQUEST_BYTES);
        assert!(ssl_request(&packet.ssl_request_payload()).unwrap().is_some());
        assert!(ssl_request(&packet.payload()).unwrap().is_none());
        let old = HandshakeResponse::parse(b"\x05\x20\x00\x00\x00app\0secret\0").unwrap_err();
        assert!(old.0.contains("4.1"));
    }
}
