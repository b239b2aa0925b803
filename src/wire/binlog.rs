//! \[pure\] Events of a binary log, as far as they tell which transactions are in it (MySQL source documentation, "Replication
//! Protocol"; checked on 9.7).
//!
//! A transaction begins with the event of its GTID. However many servers it came over, the event's head has the `server_id` of
//! the one it was first committed on, and its body when that was and by which version (`original_commit_timestamp`,
//! `original_server_version`; the latter since 8.0.14).

use super::Malformed;
use super::lenenc::Reader;
use crate::types::Uuid;

/// Bytes before an event's body.
const HEAD: usize = 19;
/// What of an event has to be there for [`read`].
pub const ENOUGH: usize = 256;

const FORMAT_DESCRIPTION: u8 = 15;
const GTID: u8 = 33;
const ANONYMOUS_GTID: u8 = 34;
/// Where a format description says when the server was started, if it was for that that the log was begun.
const CREATED: usize = 2 + 50;
/// Bytes of a GTID's event between its GTID and its times: the logical clock.
const CLOCK: usize = 1 + 8 + 8;
/// In the time of the commit here: the time of the first commit is another one, and follows.
const ANOTHER: u64 = 1 << 55;
/// The same of the version.
const ANOTHER_VERSION: u32 = 1 << 31;

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The log was begun because the server was started.
    Started,
    /// A transaction begins, which has no tag.
    Transaction {
        /// `server_id` of the server it was first committed on.
        server_id: u32,
        /// When that was, microseconds since 1970.
        committed_us: u64,
        /// Version of that server as a number (90704 is 9.7.4); 0 if it does not say.
        version: u32,
        /// Its GTID, if it has one.
        gtid: Option<(Uuid, u64)>,
    },
    /// All else.
    Other,
}

/// Reads an event from its first [`ENOUGH`] bytes.
pub fn read(event: &[u8]) -> Result<Event, Malformed> {
    let mut fields = Reader::new(event);
    fields.u32()?;
    let (kind, server_id) = (fields.u8()?, fields.u32()?);
    fields.take(HEAD - 9)?;
    match kind {
        FORMAT_DESCRIPTION => {
            fields.take(CREATED)?;
            Ok(if fields.u32()? == 0 { Event::Other } else { Event::Started })
        }
        GTID | ANONYMOUS_GTID => {
            fields.u8()?;
            let (uuid, number) = (Uuid(fields.array()?), u64::from_le_bytes(fields.array()?));
            fields.take(CLOCK)?;
            let here = time(&mut fields)?;
            let committed_us = if here & ANOTHER == 0 { here } else { time(&mut fields)? };
            let gtid = (kind == GTID).then_some((uuid, number));
            Ok(Event::Transaction { server_id, committed_us, version: version(fields).unwrap_or(0), gtid })
        }
        _ => Ok(Event::Other),
    }
}

/// Behind the length of the transaction.
fn version(mut fields: Reader<'_>) -> Result<u32, Malformed> {
    fields.lenenc()?;
    let here = fields.u32()?;
    if here & ANOTHER_VERSION == 0 { Ok(here) } else { fields.u32() }
}

fn time(fields: &mut Reader<'_>) -> Result<u64, Malformed> {
    let [a, b, c, d, e, f, g] = fields.array()?;
    Ok(u64::from_le_bytes([a, b, c, d, e, f, g, 0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut event = vec![0; HEAD];
        event[4] = kind;
        event[5..9].copy_from_slice(&7_u32.to_le_bytes());
        event.extend_from_slice(body);
        event
    }

    fn body(times: &[u64]) -> Vec<u8> {
        let mut body = vec![1];
        body.extend_from_slice(&[0xAA; 16]);
        body.extend_from_slice(&300_u64.to_le_bytes());
        body.extend_from_slice(&[2; CLOCK]);
        times.iter().for_each(|time| body.extend_from_slice(&time.to_le_bytes()[..7]));
        body
    }

    #[test]
    fn a_transaction_tells_where_and_when_it_was_committed_first() {
        let told = |committed_us, version, gtid| Ok(Event::Transaction { server_id: 7, committed_us, version, gtid });
        let whole = |committed_us, gtid| told(committed_us, 0, gtid);
        let named = Some((Uuid([0xAA; 16]), 300));
        assert_eq!(read(&event(GTID, &body(&[1_795_314_023_950_898]))), whole(1_795_314_023_950_898, named));
        assert_eq!(
            read(&event(GTID, &body(&[9 | ANOTHER, 1_600_000_000_200_000]))),
            whole(1_600_000_000_200_000, named)
        );
        assert_eq!(read(&event(ANONYMOUS_GTID, &body(&[5]))), whole(5, None));
        assert_eq!(read(&event(16, &[0; 8])), Ok(Event::Other));
        let mut versions = body(&[5]);
        versions.extend_from_slice(&[0xFC, 0x2C, 0x01]);
        versions.extend_from_slice(&90_704_u32.to_le_bytes());
        assert_eq!(read(&event(GTID, &versions)), told(5, 90_704, named));
        let at = versions.len() - 4;
        versions[at + 3] |= 0x80;
        versions.extend_from_slice(&90_799_u32.to_le_bytes());
        assert_eq!(read(&event(GTID, &versions)), told(5, 90_799, named));
    }

    #[test]
    fn a_log_that_was_begun_at_a_start_says_so() {
        let mut body = vec![0; 120];
        assert_eq!(read(&event(FORMAT_DESCRIPTION, &body)), Ok(Event::Other));
        body[CREATED] = 1;
        assert_eq!(read(&event(FORMAT_DESCRIPTION, &body)), Ok(Event::Started));
    }

    #[test]
    fn what_is_cut_short_is_malformed() {
        let whole = event(GTID, &body(&[ANOTHER, 5]));
        (0..whole.len()).for_each(|end| assert!(read(&whole[..end]).is_err(), "{end}"));
        assert!(read(&event(FORMAT_DESCRIPTION, &[0; 10])).is_err());
    }
}
