//! OK packets and the session state changes they carry (CLIENT_SESSION_TRACK, "Protocol::OK_Packet").
//!
//! The proxy always asks its backends to track; [`rewrite`] takes out of an OK packet what the client would not have got
//! from the server itself. Refuses to guess: a packet that can't be read is [`Malformed`].

use super::Malformed;
use super::lenenc::{Reader, put_lenenc, put_lenenc_bytes};
use bytes::{BufMut, BytesMut};

/// SERVER_STATUS_IN_TRANS: a transaction is open.
pub const STATUS_IN_TRANS: u16 = 0x0001;
/// SERVER_STATUS_AUTOCOMMIT.
pub const STATUS_AUTOCOMMIT: u16 = 0x0002;
/// SERVER_MORE_RESULTS_EXISTS: another result follows.
pub const STATUS_MORE_RESULTS: u16 = 0x0008;
/// SERVER_STATUS_CURSOR_EXISTS: rows wait to be fetched.
pub const STATUS_CURSOR_EXISTS: u16 = 0x0040;
/// SERVER_STATUS_LAST_ROW_SENT: the cursor is at its end.
pub const STATUS_LAST_ROW_SENT: u16 = 0x0080;
/// SERVER_STATUS_NO_BACKSLASH_ESCAPES.
pub const STATUS_NO_BACKSLASH_ESCAPES: u16 = 0x0200;
/// SERVER_STATUS_IN_TRANS_READONLY (MySQL) .
pub const STATUS_IN_TRANS_READONLY: u16 = 0x2000;
/// SERVER_SESSION_STATE_CHANGED: state changes follow the message.
pub const STATUS_STATE_CHANGED: u16 = 0x4000;

/// SESSION_TRACK_SYSTEM_VARIABLES.
pub const TRACK_VARIABLES: u8 = 0;
/// SESSION_TRACK_SCHEMA.
pub const TRACK_SCHEMA: u8 = 1;
/// SESSION_TRACK_GTIDS.
pub const TRACK_GTIDS: u8 = 3;
/// SESSION_TRACK_TRANSACTION_CHARACTERISTICS.
pub const TRACK_TRANSACTION_CHARACTERISTICS: u8 = 4;
/// SESSION_TRACK_TRANSACTION_STATE.
pub const TRACK_TRANSACTION_STATE: u8 = 5;

/// An OK packet's payload, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ok<'a> {
    /// 0x00, or 0xFE where it ends a result.
    pub header: u8,
    /// Rows changed.
    pub affected_rows: u64,
    /// The AUTO_INCREMENT value the statement made.
    pub last_insert_id: u64,
    /// SERVER_STATUS_* flags.
    pub status: u16,
    /// Number of warnings.
    pub warnings: u16,
    /// Human-readable message, if any.
    pub info: &'a [u8],
    /// Session state changes, as they stand on the wire.
    pub changes: &'a [u8],
}

impl<'a> Ok<'a> {
    /// Reads an OK payload of a connection that has CLIENT_SESSION_TRACK.
    #[inline]
    pub fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let header = reader.u8()?;
        let affected_rows = reader.lenenc()?;
        let last_insert_id = reader.lenenc()?;
        let status = reader.u16()?;
        let warnings = reader.u16()?;
        let info = if reader.is_empty() { &[][..] } else { reader.lenenc_bytes()? };
        let changes = if status & STATUS_STATE_CHANGED != 0 { reader.lenenc_bytes()? } else { &[][..] };
        Result::Ok(Self { header, affected_rows, last_insert_id, status, warnings, info, changes })
    }

    /// The state changes one by one.
    pub fn changes(&self) -> Changes<'a> {
        Changes { reader: Reader::new(self.changes) }
    }
}

/// One session state change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// SESSION_TRACK_*.
    pub kind: u8,
    /// Its data; for variables and schema, see [`Change::variables`] and [`Change::schema`].
    pub data: &'a [u8],
}

impl<'a> Change<'a> {
    /// Names and values, if this is a change of system variables: one of them from MySQL, several from MariaDB.
    pub fn variables(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut reader = Reader::new(if self.kind == TRACK_VARIABLES { self.data } else { &[] });
        std::iter::from_fn(move || {
            let name = reader.lenenc_bytes().ok()?;
            Some((name, reader.lenenc_bytes().ok()?))
        })
    }

    /// The new default schema, if this is a change of it.
    pub fn schema(&self) -> Option<&'a [u8]> {
        if self.kind != TRACK_SCHEMA {
            return None;
        }
        Reader::new(self.data).lenenc_bytes().ok()
    }

    /// The GTIDs, as text, if this is a change of them: what was committed (`session_track_gtids`).
    pub fn gtids(&self) -> Option<&'a [u8]> {
        if self.kind != TRACK_GTIDS {
            return None;
        }
        let mut reader = Reader::new(self.data);
        // How the text is encoded: 0, as text.
        (reader.u8().ok()? == 0).then(|| reader.lenenc_bytes().ok())?
    }
}

/// Iterator over [`Change`]s; ends at the first that can't be read.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        let kind = self.reader.u8().ok()?;
        let data = self.reader.lenenc_bytes().ok()?;
        Some(Change { kind, data })
    }
}

/// What of the tracked state a client asked the server to tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// The client has no CLIENT_SESSION_TRACK: nothing.
    Off,
    /// All but the system variables it did not name in `session_track_system_variables`.
    Variables(TrackedVariables),
}

/// The value of `session_track_system_variables` as the client set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackedVariables {
    /// `*`.
    All,
    /// These, in lower case.
    Named(Vec<Box<[u8]>>),
}

impl TrackedVariables {
    /// Reads the variable's value: `*` or names with commas between.
    pub fn parse(value: &[u8]) -> Self {
        if value == b"*" {
            return Self::All;
        }
        let names = value.split(|b| *b == b',').map(|name| name.trim_ascii().to_ascii_lowercase().into_boxed_slice());
        Self::Named(names.filter(|name| !name.is_empty()).collect())
    }

    fn contains(&self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|n| n.eq_ignore_ascii_case(name)),
        }
    }
}

impl Default for TrackedVariables {
    /// Both servers' default.
    fn default() -> Self {
        Self::parse(b"time_zone,autocommit,character_set_client,character_set_results,character_set_connection")
    }
}

/// What of an OK packet is not as the server wrote it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rewrite {
    /// The server says that state has changed even where it has nothing to tell, as MySQL does of a transaction that
    /// follows another at once.
    pub changed_back: bool,
    /// It was the proxy that asked for GTIDs, not the client.
    pub hide_gtids: bool,
    /// It was the proxy that opened a transaction, not the client.
    pub hide_transaction: bool,
}

impl Rewrite {
    fn hides(self, kind: u8) -> bool {
        match kind {
            TRACK_GTIDS => self.hide_gtids,
            TRACK_TRANSACTION_CHARACTERISTICS | TRACK_TRANSACTION_STATE => self.hide_transaction,
            _ => false,
        }
    }
}

/// The payload of `ok` as this client would have got it from the server, appended to `out`.
pub fn rewrite(ok: &Ok<'_>, tracking: &Tracking, how: Rewrite, out: &mut BytesMut) {
    let mut kept = BytesMut::new();
    if let Tracking::Variables(wanted) = tracking {
        for change in ok.changes().filter(|change| !how.hides(change.kind)) {
            if change.kind != TRACK_VARIABLES {
                kept.put_u8(change.kind);
                put_lenenc_bytes(&mut kept, change.data);
                continue;
            }
            let mut data = BytesMut::new();
            for (name, value) in change.variables().filter(|(name, _)| wanted.contains(name)) {
                put_lenenc_bytes(&mut data, name);
                put_lenenc_bytes(&mut data, value);
            }
            if !data.is_empty() {
                kept.put_u8(change.kind);
                put_lenenc_bytes(&mut kept, &data);
            }
        }
    }
    let changed = !kept.is_empty() || (how.changed_back && *tracking != Tracking::Off);
    let status = if changed { ok.status } else { ok.status & !STATUS_STATE_CHANGED };
    out.put_u8(ok.header);
    put_lenenc(out, ok.affected_rows);
    put_lenenc(out, ok.last_insert_id);
    out.put_u16_le(status);
    out.put_u16_le(ok.warnings);
    if !ok.info.is_empty() || changed {
        put_lenenc_bytes(out, ok.info);
    }
    if changed {
        put_lenenc_bytes(out, &kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a 9.7 answers to `SET time_zone='+03:00'` with all variables tracked.
    const SET_TIME_ZONE: &[u8] =
        b"\x00\x00\x00\x02\x40\x00\x00\x00\x25\x00\x10\x0cstatement_id\x0216\x00\x11\ttime_zone\x06+03:00";

    #[test]
    fn a_client_gets_the_variables_it_asked_for_and_no_others() {
        let ok = Ok::read(SET_TIME_ZONE).unwrap();
        let variables: Vec<_> = ok.changes().flat_map(|c| c.variables()).collect();
        assert_eq!(variables, [(&b"statement_id"[..], &b"16"[..]), (b"time_zone", b"+03:00")]);

        let mut off = BytesMut::new();
        rewrite(&ok, &Tracking::Off, Rewrite::default(), &mut off);
        assert_eq!(&off[..], b"\x00\x00\x00\x02\x00\x00\x00");

        let mut default = BytesMut::new();
        rewrite(&ok, &Tracking::Variables(TrackedVariables::default()), Rewrite::default(), &mut default);
        assert_eq!(&default[..], b"\x00\x00\x00\x02\x40\x00\x00\x00\x13\x00\x11\ttime_zone\x06+03:00");

        let mut all = BytesMut::new();
        rewrite(&ok, &Tracking::Variables(TrackedVariables::All), Rewrite::default(), &mut all);
        assert_eq!(&all[..], SET_TIME_ZONE);
    }

    #[test]
    fn gtids_are_told_and_can_be_kept_from_the_client() {
        // What a 9.7 answers to an INSERT under session_track_gtids=OWN_GTID.
        let gtid = b"e1812baa-e5d9-11f1-a724-02fc00000001:holdfast_0_1:7";
        let mut payload = b"\x00\x01\x00\x02\x40\x00\x00\x00".to_vec();
        let data = [&[0, gtid.len() as u8], &gtid[..]].concat();
        payload.push(data.len() as u8 + 2);
        payload.extend_from_slice(&[TRACK_GTIDS, data.len() as u8]);
        payload.extend_from_slice(&data);
        let ok = Ok::read(&payload).unwrap();
        assert_eq!(ok.changes().filter_map(|c| c.gtids()).collect::<Vec<_>>(), [&gtid[..]]);
        let tracking = Tracking::Variables(TrackedVariables::default());
        let (mut told, mut hidden) = (BytesMut::new(), BytesMut::new());
        rewrite(&ok, &tracking, Rewrite::default(), &mut told);
        assert_eq!(&told[..], payload);
        rewrite(&ok, &tracking, Rewrite { hide_gtids: true, ..Rewrite::default() }, &mut hidden);
        assert_eq!(&hidden[..], b"\x00\x01\x00\x02\x00\x00\x00");
    }

    #[test]
    fn a_message_stays_when_the_changes_go() {
        let payload = b"\x00\x01\x00\x02\x40\x00\x00\x03abc\x12\x00\x10\x0cstatement_id\x0216";
        let mut out = BytesMut::new();
        rewrite(&Ok::read(payload).unwrap(), &Tracking::Off, Rewrite::default(), &mut out);
        assert_eq!(&out[..], b"\x00\x01\x00\x02\x00\x00\x00\x03abc");
    }

    #[test]
    fn several_variables_in_one_entry_are_told_apart() {
        // As MariaDB 10.11 puts them: autocommit and last_gtid in one.
        let payload = b"\x00\x00\x00\x00\x40\x00\x00\x00\x22\x00\x20\x0aautocommit\x03OFF\x09last_gtid\x060-1-23";
        let ok = Ok::read(payload).unwrap();
        assert_eq!(ok.changes().flat_map(|c| c.variables()).count(), 2);
        let mut out = BytesMut::new();
        rewrite(&ok, &Tracking::Variables(TrackedVariables::default()), Rewrite::default(), &mut out);
        assert_eq!(&out[..], b"\x00\x00\x00\x00\x40\x00\x00\x00\x11\x00\x0f\x0aautocommit\x03OFF");
    }

    #[test]
    fn a_change_that_was_undone_at_once_leaves_its_flag() {
        // What a 9.7 answers to COMMIT AND CHAIN, with all variables tracked.
        let payload = b"\x00\x00\x00\x03\x40\x00\x00\x00\x12\x00\x10\x0cstatement_id\x0237";
        let ok = Ok::read(payload).unwrap();
        let mut out = BytesMut::new();
        rewrite(
            &ok,
            &Tracking::Variables(TrackedVariables::default()),
            Rewrite { changed_back: true, ..Rewrite::default() },
            &mut out,
        );
        assert_eq!(&out[..], b"\x00\x00\x00\x03\x40\x00\x00\x00\x00");
        let mut off = BytesMut::new();
        rewrite(&ok, &Tracking::Off, Rewrite { changed_back: true, ..Rewrite::default() }, &mut off);
        assert_eq!(&off[..], b"\x00\x00\x00\x03\x00\x00\x00");
    }

    #[test]
    fn packets_cut_short_are_malformed() {
        for cut in 0..SET_TIME_ZONE.len() {
            // Seven bytes are a whole OK packet only when no state change is announced.
            assert!(Ok::read(&SET_TIME_ZONE[..cut]).is_err(), "{cut}");
        }
    }
}
