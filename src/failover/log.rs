//! Reading a server's binary log from a place to its end, for transactions with certain marks.
//!
//! The connection is used up by it: a server closes one that has been sent a log.

use super::marks::Mark;
use super::verdict::Last;
use super::witnesses::is_marked;
use crate::transport::Channel;
use crate::wire::Malformed;
use crate::wire::binlog::{self, Event};
use crate::wire::err::ErrPacket;
use crate::wire::packet::{FRAME_MAX, HEADER, Header};
use bytes::{Buf, BufMut, BytesMut};
use std::collections::HashMap;
use std::io;

/// COM_BINLOG_DUMP.
const DUMP: u8 = 0x12;
/// BINLOG_DUMP_NON_BLOCK: an EOF at the log's end instead of waiting for more.
const NON_BLOCK: u16 = 1;
/// No replica's: the server ends no other reader because of this one.
const SERVER_ID: u32 = 0;
/// First bytes of packets: an event, an error, the end.
const EVENT: u8 = 0x00;
const ERR: u8 = 0xFF;
const EOF: u8 = 0xFE;

/// Said before the log is asked for: events come without a checksum.
pub const PREPARE: &str = "SET @source_binlog_checksum='NONE', @master_binlog_checksum='NONE'";

/// What binary logs know a transaction by: `server_id` of its server, and when it was committed there (microseconds since
/// 1970) or is said to have been.
pub type Stamp = (u32, u64);

/// Why a log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The server's error.
    #[error("error {code}: {message}")]
    Refused {
        /// Error number.
        code: u16,
        /// The server's message.
        message: String,
    },
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] io::Error),
    /// The server sent what this can't read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The last transaction with a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Before the server was started again, if it was.
    pub before_start: Last,
    /// At all.
    pub last: Last,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// Of the stamps that were asked for.
    pub stamps: HashMap<Stamp, Written>,
    /// The server was started again on the way.
    pub started: bool,
}

/// Reads the log from `mark` on, for these stamps.
///
/// # Errors
/// Whatever ends it before the log's end: what was read until then means nothing.
pub async fn read(channel: &mut Channel, mark: &Mark, stamps: impl Iterator<Item = Stamp>) -> Result<Read, LogError> {
    let none = Written { before_start: Last::None, last: Last::None };
    let mut read = Read { stamps: stamps.map(|stamp| (stamp, none)).collect(), started: false };
    let position = u32::try_from(mark.position).map_err(|_| Malformed("a binary log of over 4 GiB"))?;
    let mut command = BytesMut::new();
    command.put_u8(DUMP);
    command.put_u32_le(position);
    command.put_u16_le(NON_BLOCK);
    command.put_u32_le(SERVER_ID);
    command.put_slice(mark.file.as_bytes());
    channel.write_packet(&mut 0, &command).await?;
    loop {
        let packet = packet_head(channel).await?;
        match packet.first().copied() {
            Some(EVENT) => read.take(&packet[1..])?,
            Some(EOF) => return Ok(read),
            Some(ERR) => {
                let err = ErrPacket::parse(&packet)?;
                return Err(LogError::Refused {
                    code: err.code,
                    message: String::from_utf8_lossy(err.message).into_owned(),
                });
            }
            _ => return Err(Malformed("neither an event nor the end of a log").into()),
        }
    }
}

impl Read {
    fn take(&mut self, event: &[u8]) -> Result<(), Malformed> {
        match binlog::read(event)? {
            // Of another writer, whatever its time.
            Event::Transaction { version, .. } if !is_marked(version) => {}
            Event::Transaction { server_id, committed_us, gtid, .. } => {
                if let Some(written) = self.stamps.get_mut(&(server_id, committed_us)) {
                    written.last = gtid.map_or(Last::Unnamed, |(uuid, number)| Last::Gtid(uuid, number));
                    if !self.started {
                        written.before_start = written.last;
                    }
                }
            }
            Event::Started => self.started = true,
            Event::Other => {}
        }
        Ok(())
    }
}

/// The next packet, as far as it is needed.
async fn packet_head(channel: &mut Channel) -> io::Result<BytesMut> {
    let mut head = BytesMut::new();
    loop {
        while channel.input.len() < HEADER {
            more(channel).await?;
        }
        let Some(header) = Header::read(&channel.input) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        channel.input.advance(HEADER);
        let mut left = header.length;
        while left > 0 {
            if channel.input.is_empty() {
                more(channel).await?;
            }
            let here = left.min(channel.input.len());
            let wanted = here.min((1 + binlog::ENOUGH).saturating_sub(head.len()));
            head.extend_from_slice(&channel.input[..wanted]);
            channel.input.advance(here);
            left -= here;
        }
        if header.length < FRAME_MAX {
            return Ok(head);
        }
    }
}

async fn more(channel: &mut Channel) -> io::Result<()> {
    match channel.fill().await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(server_id: u32, committed_us: u64, version: u32, number: u8) -> Vec<u8> {
        let mut event = vec![0, 0, 0, 0, 33];
        event.extend_from_slice(&server_id.to_le_bytes());
        event.extend_from_slice(&[0; 10]);
        event.extend_from_slice(&[1; 17]);
        event.extend_from_slice(&[number, 0, 0, 0, 0, 0, 0, 0]);
        event.extend_from_slice(&[2; 17]);
        event.extend_from_slice(&committed_us.to_le_bytes()[..7]);
        event.push(9);
        event.extend_from_slice(&version.to_le_bytes());
        event
    }

    fn started() -> Vec<u8> {
        let mut event = vec![0; 120];
        (event[4], event[19 + 52]) = (15, 1);
        event
    }

    #[test]
    fn only_what_is_marked_counts_and_a_start_is_remembered() {
        let none = Written { before_start: Last::None, last: Last::None };
        let mut read = Read { stamps: [((7, 500), none), ((8, 500), none)].into(), started: false };
        let last = |number: u64| Last::Gtid(crate::types::Uuid([1; 16]), number);
        // Somebody else commits in the same microsecond.
        read.take(&commit(7, 500, 90_704, 1)).unwrap();
        read.take(&commit(7, 501, 90_799, 2)).unwrap();
        assert_eq!(read.stamps[&(7, 500)], none);
        read.take(&commit(7, 500, 90_799, 3)).unwrap();
        assert_eq!(read.stamps[&(7, 500)], Written { before_start: last(3), last: last(3) });
        read.take(&started()).unwrap();
        read.take(&commit(7, 500, 90_799, 4)).unwrap();
        assert_eq!(read.stamps[&(7, 500)], Written { before_start: last(3), last: last(4) });
        assert!(read.started && read.stamps[&(8, 500)] == none);
    }
}
