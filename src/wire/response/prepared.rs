//! What a server says of a statement that it has prepared.

use super::Shape;
use crate::wire::Malformed;
use crate::wire::lenenc::Reader;

/// The OK of COM_STMT_PREPARE ("COM_STMT_PREPARE_OK").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The backend's id of the statement.
    pub id: u32,
    /// Columns of its result.
    pub columns: u16,
    /// Parameters.
    pub parameters: u16,
    /// Definitions follow (always, without CLIENT_OPTIONAL_RESULTSET_METADATA).
    pub described: bool,
}

impl Prepared {
    /// Reads the payload.
    pub fn read(payload: &[u8], shape: Shape) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        reader.u8()?;
        let id = reader.u32()?;
        let columns = reader.u16()?;
        let parameters = reader.u16()?;
        let described = match shape.optional_metadata {
            true => {
                reader.take(3)?;
                reader.u8()? != 0
            }
            false => true,
        };
        Ok(Self { id, columns, parameters, described })
    }

    /// How many packets of definitions and EOFs follow.
    pub(super) fn definitions(&self, shape: Shape) -> u64 {
        if !self.described {
            return 0;
        }
        let group = |n: u16| match n {
            0 => 0,
            n => u64::from(n) + u64::from(!shape.deprecate_eof),
        };
        group(self.parameters) + group(self.columns)
    }
}
