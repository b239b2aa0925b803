//! Connection attributes: pairs of length-encoded strings.

use crate::wire::Malformed;
use crate::wire::capabilities::Capabilities as C;
use crate::wire::lenenc::{Reader, put_lenenc_bytes};
use bytes::BytesMut;

/// What a login and COM_CHANGE_USER have in common: the plugin's name, then the block of attributes. Either is missing, and
/// taken as empty, where the packet ends before it, whatever the flags say.
pub(super) fn plugin_and_attributes<'a>(
    reader: &mut Reader<'a>,
    capabilities: C,
) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    let plugin = match capabilities.has(C::PLUGIN_AUTH) && !reader.is_empty() {
        true => reader.nul_terminated()?,
        false => &[],
    };
    let attributes = match capabilities.has(C::CONNECT_ATTRS) && !reader.is_empty() {
        true => reader.lenenc_bytes()?,
        false => &[],
    };
    Ok((plugin, attributes))
}

/// Reads the pairs of a connection attribute block (without its length).
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(Reader<'a>);

impl<'a> Attributes<'a> {
    /// Starts at the first pair.
    pub fn new(block: &'a [u8]) -> Self {
        Self(Reader::new(block))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let pair = self.0.lenenc_bytes().and_then(|key| Ok((key, self.0.lenenc_bytes()?)));
        if pair.is_err() {
            self.0 = Reader::new(&[]);
        }
        Some(pair)
    }
}

/// Appends one pair.
pub fn put_attribute(out: &mut BytesMut, key: &[u8], value: &[u8]) {
    put_lenenc_bytes(out, key);
    put_lenenc_bytes(out, value);
}
