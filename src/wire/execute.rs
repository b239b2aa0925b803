//! COM_STMT_EXECUTE: where its parameter types stand, and how to put them in where the client left them out.
//!
//! A client sends the types of its parameters once per statement (`new_params_bind_flag`); the server keeps them. A
//! backend connection that has not been told them needs them in the command ("COM_STMT_EXECUTE").

use super::Malformed;
use super::command::skip_value;
use super::lenenc::Reader;
use std::ops::Range;

/// Offset of the statement id in the payload of every COM_STMT_* command.
pub const STATEMENT_ID: Range<usize> = 1..5;
/// CURSOR_TYPE_* bits of the flags byte: any of them opens a cursor.
pub const CURSOR_TYPES: u8 = 0x07;
/// PARAMETER_COUNT_AVAILABLE.
const PARAMETER_COUNT_AVAILABLE: u8 = 0x08;

/// Where the types stand in an execute's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Offset of `new_params_bind_flag`.
    pub flag_at: usize,
    /// The types, if the flag is 1; they begin right behind it.
    pub types: Option<Range<usize>>,
}

/// The statement id of a COM_STMT_* payload.
pub fn statement_id(payload: &[u8]) -> Result<u32, Malformed> {
    let mut reader = Reader::new(payload);
    reader.u8()?;
    reader.u32()
}

/// Flags of an execute: cursor type and PARAMETER_COUNT_AVAILABLE.
pub fn flags(payload: &[u8]) -> Result<u8, Malformed> {
    let mut reader = Reader::new(payload);
    reader.take(5)?;
    reader.u8()
}

/// Finds the types in the payload of an execute of a statement with `parameters` parameters; `None` where it has no
/// parameters at all. The payload may be cut short behind the types.
pub fn binding(payload: &[u8], parameters: u16, query_attributes: bool) -> Result<Option<Binding>, Malformed> {
    let mut reader = Reader::new(payload);
    let at = |reader: &Reader<'_>| payload.len() - reader.rest().len();
    reader.take(5)?;
    let flags = reader.u8()?;
    reader.u32()?;
    let counted = query_attributes && flags & PARAMETER_COUNT_AVAILABLE != 0;
    let count = match counted {
        true => usize::try_from(reader.lenenc()?).map_err(|_| Malformed("too many parameters"))?,
        false => usize::from(parameters),
    };
    if count == 0 {
        return Ok(None);
    }
    reader.take(count.div_ceil(8))?;
    let flag_at = at(&reader);
    if reader.u8()? == 0 {
        return Ok(Some(Binding { flag_at, types: None }));
    }
    for _ in 0..count {
        reader.u16()?;
        if query_attributes {
            reader.lenenc_bytes()?;
        }
    }
    Ok(Some(Binding { flag_at, types: Some(flag_at + 1..at(&reader)) }))
}

/// The payload with `types` put in behind a `new_params_bind_flag` that was 0.
pub fn with_types(payload: &[u8], flag_at: usize, types: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + types.len());
    out.extend_from_slice(&payload[..flag_at]);
    out.push(1);
    out.extend_from_slice(types);
    out.extend_from_slice(&payload[flag_at + 1..]);
    out
}

/// Checks that the values behind `binding` are whole; used by the fuzzer to hold the readers together.
pub fn check_values(payload: &[u8], binding: &Binding, parameters: u16) -> Result<(), Malformed> {
    let Some(types) = &binding.types else { return Ok(()) };
    let count = usize::from(parameters);
    let nulls = payload.get(binding.flag_at - count.div_ceil(8)..binding.flag_at).ok_or(Malformed("no null bitmap"))?;
    let mut values = Reader::new(&payload[types.end..]);
    for (i, kind) in payload[types.clone()].chunks(2).take(count).enumerate() {
        if nulls[i / 8] & (1 << (i % 8)) == 0 {
            skip_value(&mut values, kind[0])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[u8] = b"\x17\x07\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\xfd\x00\x08\x00\x02hi\x09\0\0\0\0\0\0\0";
    const AGAIN: &[u8] = b"\x17\x07\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x02hi\x09\0\0\0\0\0\0\0";

    #[test]
    fn types_left_out_can_be_put_in() {
        assert_eq!(statement_id(FIRST), Ok(7));
        let first = binding(FIRST, 2, false).unwrap().unwrap();
        assert_eq!(first, Binding { flag_at: 11, types: Some(12..16) });
        check_values(FIRST, &first, 2).unwrap();
        let again = binding(AGAIN, 2, false).unwrap().unwrap();
        assert_eq!(again, Binding { flag_at: 11, types: None });
        assert_eq!(with_types(AGAIN, again.flag_at, &FIRST[12..16]), FIRST);
        assert_eq!(binding(b"\x17\x07\0\0\0\0\x01\0\0\0", 0, false), Ok(None));
    }

    #[test]
    fn with_query_attributes_types_have_names() {
        let payload = b"\x17\x01\0\0\0\x08\x01\0\0\0\x02\x00\x01\xfd\x00\x00\xfd\x00\x04attr\x01x\x01y";
        let found = binding(payload, 1, true).unwrap().unwrap();
        assert_eq!(found, Binding { flag_at: 12, types: Some(13..23) });
        assert_eq!(binding(b"\x17\x01\0\0\0\x08\x01\0\0\0\x00", 0, true), Ok(None));
        for cut in 0..23 {
            assert!(binding(&payload[..cut], 1, true).is_err(), "{cut}");
        }
    }
}
