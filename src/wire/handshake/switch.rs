//! AuthSwitchRequest and AuthMoreData: what a server sends between the answer to its greeting and OK or ERR.

use super::NONCE;
use crate::wire::Malformed;
use crate::wire::lenenc::Reader;
use bytes::{BufMut, Bytes, BytesMut};

/// First byte of an AuthSwitchRequest.
pub const SWITCH: u8 = 0xFE;
/// First byte of an AuthMoreData packet.
pub const MORE_DATA: u8 = 0x01;

/// The server wants another plugin ("Protocol::AuthSwitchRequest").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthSwitch<'a> {
    /// Name of the plugin; `mysql_old_password` where the packet names none.
    pub plugin: &'a [u8],
    /// The plugin's challenge, without a closing zero byte.
    pub data: &'a [u8],
}

impl<'a> AuthSwitch<'a> {
    /// Reads an AuthSwitchRequest.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != SWITCH {
            return Err(Malformed("not an AuthSwitchRequest"));
        }
        if reader.is_empty() {
            return Ok(Self { plugin: b"mysql_old_password", data: &[] });
        }
        let plugin = reader.nul_terminated()?;
        let data = reader.rest();
        Ok(Self { plugin, data: data.strip_suffix(&[0]).filter(|d| d.len() % 4 == 0).unwrap_or(data) })
    }

    /// The payload of this packet.
    pub fn payload(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(3 + self.plugin.len() + NONCE);
        out.put_u8(SWITCH);
        out.put_slice(self.plugin);
        out.put_u8(0);
        out.put_slice(self.data);
        out.put_u8(0);
        out.freeze()
    }
}

/// The payload of an AuthMoreData packet.
pub fn auth_more_data(data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + data.len());
    out.put_u8(MORE_DATA);
    out.put_slice(data);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_come_back_as_they_went() {
        for (plugin, data) in [(&b"mysql_native_password"[..], &[7; 20][..]), (b"client_ed25519", &[0; 32])] {
            let packet = AuthSwitch { plugin, data };
            assert_eq!(AuthSwitch::parse(&packet.payload()), Ok(packet));
        }
        let bare = AuthSwitch::parse(b"\xfeclient_ed25519\x00\x01\x02\x00\x00").unwrap();
        assert_eq!(bare.data, b"\x01\x02\x00\x00", "a challenge that ends in zero is not cut");
        assert_eq!(AuthSwitch::parse(b"\xfe").unwrap().plugin, b"mysql_old_password");
        assert!(AuthSwitch::parse(b"\xfeabc").is_err());
    }
}
