//! COM_CHANGE_USER: a login on a connection that is already there.

use super::attributes::plugin_and_attributes;
use crate::wire::Malformed;
use crate::wire::capabilities::Capabilities as C;
use crate::wire::lenenc::{Reader, put_lenenc_bytes};
use bytes::{BufMut, BytesMut};
use zeroize::Zeroizing;

/// The command byte.
const COM_CHANGE_USER: u8 = 0x11;

/// The payload of COM_CHANGE_USER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeUser<'a> {
    /// Account name.
    pub user: &'a [u8],
    /// The answer to the challenge of the greeting (or of the last exchange), made by `plugin`.
    pub auth: &'a [u8],
    /// Schema; `None` where it is empty.
    pub database: Option<&'a [u8]>,
    /// Collation, `None` where the packet ends before it: the server's default then.
    pub collation: Option<u16>,
    /// The plugin that made `auth`; empty where the client names none.
    pub plugin: &'a [u8],
    /// Connection attributes: raw pairs of length-encoded strings, without the length of all.
    pub attributes: &'a [u8],
}

impl<'a> ChangeUser<'a> {
    /// Reads the payload, command byte included, as a connection with `capabilities` sends it.
    pub fn parse(payload: &'a [u8], capabilities: C) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != COM_CHANGE_USER {
            return Err(Malformed("not a COM_CHANGE_USER"));
        }
        let user = reader.nul_terminated()?;
        let n = reader.u8()?;
        let auth = reader.take(usize::from(n))?;
        let database = Some(reader.nul_terminated()?).filter(|name| !name.is_empty());
        let collation = if reader.is_empty() { None } else { Some(reader.u16()?) };
        let (plugin, attributes) = plugin_and_attributes(&mut reader, capabilities)?;
        Ok(Self { user, auth, database, collation, plugin, attributes })
    }

    /// The payload for a connection with `capabilities`; wiped when dropped.
    pub fn payload(&self, capabilities: C) -> Zeroizing<Vec<u8>> {
        let mut out = BytesMut::with_capacity(
            32 + self.user.len() + self.auth.len() + self.plugin.len() + self.attributes.len() + 256,
        );
        let auth = &self.auth[..self.auth.len().min(255)];
        out.put_u8(COM_CHANGE_USER);
        out.put_slice(self.user);
        out.put_u8(0);
        out.put_u8(auth.len() as u8);
        out.put_slice(auth);
        out.put_slice(self.database.unwrap_or_default());
        out.put_u8(0);
        out.put_u16_le(self.collation.unwrap_or_default());
        if capabilities.has(C::PLUGIN_AUTH) {
            out.put_slice(self.plugin);
            out.put_u8(0);
        }
        if capabilities.has(C::CONNECT_ATTRS) {
            put_lenenc_bytes(&mut out, self.attributes);
        }
        Zeroizing::new(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back_as_they_went_and_truncated_ones_never_panic() {
        let packet = ChangeUser {
            user: b"app",
            auth: &[1; 20],
            database: Some(b"orders"),
            collation: Some(255),
            plugin: b"mysql_native_password",
            attributes: b"\x01a\x01b",
        };
        let payload = packet.payload(C::SERVED);
        assert_eq!(ChangeUser::parse(&payload, C::SERVED), Ok(packet));
        for n in 0..payload.len() {
            let _ = ChangeUser::parse(&payload[..n], C::SERVED);
        }
    }
}
