//! What a mysqld puts on the wire, written with the crate's own writers, and how a client reads it again.

use bytes::{BufMut, BytesMut};
use holdfast::wire::err::ErrPacket;
use holdfast::wire::lenenc::{Reader, put_lenenc, put_lenenc_bytes};
use holdfast::wire::packet::{HEADER, Header, write_packet};
use holdfast::wire::session_track::{Ok as OkPacket, STATUS_STATE_CHANGED, TRACK_GTIDS, TRACK_VARIABLES};

/// The state changes of one OK packet.
#[derive(Clone, Debug, Default)]
pub struct Changes(BytesMut);

impl Changes {
    pub fn variable(&mut self, name: &str, value: &str) {
        let mut data = BytesMut::new();
        put_lenenc_bytes(&mut data, name.as_bytes());
        put_lenenc_bytes(&mut data, value.as_bytes());
        self.0.put_u8(TRACK_VARIABLES);
        put_lenenc_bytes(&mut self.0, &data);
    }

    pub fn gtids(&mut self, text: &str) {
        let mut data = BytesMut::new();
        data.put_u8(0);
        put_lenenc_bytes(&mut data, text.as_bytes());
        self.0.put_u8(TRACK_GTIDS);
        put_lenenc_bytes(&mut self.0, &data);
    }
}

fn ok_payload(header: u8, rows: u64, insert_id: u64, status: u16, changes: &Changes) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u8(header);
    put_lenenc(&mut out, rows);
    put_lenenc(&mut out, insert_id);
    let changed = !changes.0.is_empty();
    out.put_u16_le(if changed { status | STATUS_STATE_CHANGED } else { status });
    out.put_u16_le(0);
    if changed {
        put_lenenc_bytes(&mut out, b"");
        put_lenenc_bytes(&mut out, &changes.0);
    }
    out
}

pub fn ok(rows: u64, insert_id: u64, status: u16, changes: &Changes) -> BytesMut {
    let mut out = BytesMut::new();
    write_packet(&mut out, &mut 1, &ok_payload(0, rows, insert_id, status, changes));
    out
}

pub fn err(code: u16, state: &[u8; 5], message: &str) -> BytesMut {
    let mut out = BytesMut::new();
    write_packet(&mut out, &mut 1, &ErrPacket { code, state: *state, message: message.as_bytes() }.payload());
    out
}

/// A text result of one column.
pub fn rows(values: &[Option<String>], status: u16, deprecate_eof: bool) -> BytesMut {
    let (mut out, mut sequence) = (BytesMut::new(), 1);
    let eof = |out: &mut BytesMut, sequence: &mut u8| {
        let mut payload = BytesMut::from(&[0xFE, 0, 0][..]);
        payload.put_u16_le(status);
        write_packet(out, sequence, &payload);
    };
    write_packet(&mut out, &mut sequence, &[1]);
    write_packet(
        &mut out,
        &mut sequence,
        b"\x03def\x00\x00\x00\x01n\x00\x0c\x2d\x00\x0b\x00\x00\x00\x08\x00\x00\x00\x00\x00",
    );
    if !deprecate_eof {
        eof(&mut out, &mut sequence);
    }
    for value in values {
        let mut row = BytesMut::new();
        match value {
            Some(text) => put_lenenc_bytes(&mut row, text.as_bytes()),
            None => row.put_u8(0xFB),
        }
        write_packet(&mut out, &mut sequence, &row);
    }
    match deprecate_eof {
        true => write_packet(&mut out, &mut sequence, &ok_payload(0xFE, 0, 0, status, &Changes::default())),
        false => eof(&mut out, &mut sequence),
    }
    out
}

/// The OK of PREPARE for a statement without parameters and columns.
pub fn prepared(id: u32) -> BytesMut {
    let mut payload = BytesMut::from(&[0][..]);
    payload.put_u32_le(id);
    payload.put_slice(&[0; 7]);
    let mut out = BytesMut::new();
    write_packet(&mut out, &mut 1, &payload);
    out
}

/// A command's packet.
pub fn command(byte: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    write_packet(&mut out, &mut 0, &[&[byte], body].concat());
    out
}

/// What a client reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Ok {
        rows: u64,
    },
    Rows(Vec<Option<String>>),
    Prepared(u32),
    /// Behind so many rows.
    Err {
        code: u16,
        state: [u8; 5],
        message: String,
        rows: usize,
    },
}

/// Reads an answer as a client does, strictly: any byte that does not belong is an error.
pub fn read(bytes: &[u8], is_prepare: bool, deprecate_eof: bool) -> Result<Seen, String> {
    let mut packets = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let header = Header::read(rest).ok_or("a piece of a header")?;
        if usize::from(header.sequence) != packets.len() + 1 {
            return Err(format!("packet {} has number {}", packets.len() + 1, header.sequence));
        }
        let end = HEADER + header.length;
        packets.push(rest.get(HEADER..end).ok_or("a piece of a packet")?);
        rest = &rest[end..];
    }
    let (first, others) = packets.split_first().ok_or("nothing")?;
    if first[0] == 0xFF {
        return alone(others, refusal(first, 0)?);
    }
    if is_prepare {
        let id = first.get(1..5).and_then(|id| id.try_into().ok()).ok_or("a short answer to PREPARE")?;
        return alone(others, Seen::Prepared(u32::from_le_bytes(id)));
    }
    if first[0] == 0x00 {
        let ok = OkPacket::read(first).map_err(|e| e.to_string())?;
        if ok.changes().any(|change| change.gtids().is_some()) {
            return Err("GTIDs that nobody asked for".to_owned());
        }
        return alone(others, Seen::Ok { rows: ok.affected_rows });
    }
    read_rows(others, deprecate_eof)
}

fn alone(others: &[&[u8]], seen: Seen) -> Result<Seen, String> {
    if others.is_empty() { Ok(seen) } else { Err(format!("{} packets behind {seen:?}", others.len())) }
}

fn refusal(payload: &[u8], rows: usize) -> Result<Seen, String> {
    let err = ErrPacket::parse(payload).map_err(|e| e.to_string())?;
    let message = String::from_utf8_lossy(err.message).into_owned();
    Ok(Seen::Err { code: err.code, state: err.state, message, rows })
}

fn read_rows(packets: &[&[u8]], deprecate_eof: bool) -> Result<Seen, String> {
    let mut packets = packets.iter();
    packets.next().filter(|p| p.starts_with(b"\x03def")).ok_or("no column definition")?;
    if !deprecate_eof {
        match packets.next() {
            Some(eof) if eof[0] == 0xFE => {}
            Some(err) if err[0] == 0xFF => return refusal(err, 0),
            _ => return Err("no EOF behind the columns".to_owned()),
        }
    }
    let mut rows = Vec::new();
    while let Some(packet) = packets.next() {
        match packet[0] {
            0xFF => return refusal(packet, rows.len()),
            0xFE => return alone(packets.as_slice(), Seen::Rows(rows)),
            _ => {
                let value = Reader::new(packet).nullable_bytes().map_err(|e| e.to_string())?;
                rows.push(value.map(|text| String::from_utf8_lossy(text).into_owned()));
            }
        }
    }
    Err(format!("no end behind {} rows", rows.len()))
}
