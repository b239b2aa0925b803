//! What a statement leaves behind for SHOW WARNINGS, ROW_COUNT() and their kin, where its connection may be another session's
//! by the time somebody asks.
//!
//! ```text
//!  answered ──► noted: rows, warnings ──(connection given back: warnings and errors are asked for and kept)──► asked for
//!                                                                       kept answer | numbers put into the text ◄──┘
//! ```
//!
//! As long as the session has the connection that ran its last statement, the server answers. What can't be answered without
//! it (GET DIAGNOSTICS, expressions, prepared statements) is refused with an error once, and from then on the session keeps
//! its connection.

use super::request::Request;
use super::{ClientSession, End};
use crate::classify::{Asked, Class, Classified, Flags, Number, asked, classify};
use crate::error::{ClientError, ErrorKind};
use crate::relay::Said;
use crate::session::Slot;
use crate::wire::capabilities::Capabilities;
use crate::wire::command::{Answer, query_text};
use crate::wire::packet::{HEADER, write_packet};
use bytes::{Buf, Bytes, BytesMut};

/// No connection has this epoch.
const GONE: u64 = 0;
/// Answers that are kept, bytes; a session with more to show keeps its connection.
const KEPT_MAX: usize = 256 * 1024;

/// What the last statement left.
#[derive(Default)]
pub(super) struct Remains {
    /// The connection that ran it.
    epoch: u64,
    /// What ROW_COUNT() is.
    row_count: i64,
    /// What FOUND_ROWS() is, if the answer told.
    found_rows: Option<u64>,
    /// FOUND_ROWS() is what only the server has counted.
    counted: bool,
    /// How many warnings it told of; more than are kept to be shown, perhaps.
    warnings: u16,
    /// There are warnings, or an error, to be shown.
    shows: bool,
    /// The answers to SHOW WARNINGS and SHOW ERRORS, and how many rows they have.
    kept: Option<[(Bytes, u64); 2]>,
    /// They are too long to be kept, or the session asks for what can't be: it keeps its connection.
    stay: bool,
}

impl Remains {
    /// Does the session keep its connection for this?
    pub fn stay(&self) -> bool {
        self.stay || self.counted
    }

    /// The connection is another session's now.
    pub fn gone(&mut self, epoch: u64) {
        if self.epoch == epoch {
            self.epoch = GONE;
        }
    }
}

impl ClientSession {
    /// Notes what a statement on a connection that may be shared has left.
    pub(super) fn note_left(&mut self, request: &Request, slot: Slot, said: &Said) {
        let epoch = self.slot(slot).as_ref().map_or(0, |connection| connection.epoch);
        // An ERR does not tell whether a transaction is open.
        self.doubtful = said.errno.is_some() && !self.session.autocommit();
        let remains = &mut self.remains;
        if request.answer == Answer::Prepared && said.errno.is_none() {
            // To prepare a statement wipes away the warnings, and leaves the numbers.
            (remains.epoch, remains.shows, remains.warnings, remains.kept) = (GONE, false, 0, None);
            return;
        }
        remains.epoch = epoch;
        let shows_on = request.statement.class == Class::Diagnostics && remains.shows && said.errno.is_none();
        remains.row_count = match (said.errno, said.rows) {
            (None, None) => said.affected as i64,
            _ => -1,
        };
        remains.counted = request.statement.flags.contains(Flags::SQL_CALC_FOUND_ROWS);
        // Behind anything but a SELECT nobody has a use for it.
        remains.found_rows = said.rows.filter(|_| !remains.counted);
        remains.warnings = if shows_on { remains.warnings } else { said.warnings };
        remains.shows = shows_on || said.errno.is_some() || said.warnings > 0;
        remains.kept = None;
    }

    /// Does it ask for what was left on a connection that the session has given back, or that is to be brought to the
    /// session's state before, which would wipe it away?
    pub(super) async fn asks_for_what_is_gone(&mut self, request: &Request) -> bool {
        let asks =
            request.statement.class == Class::Diagnostics || request.statement.flags.contains(Flags::DIAGNOSTICS);
        if !asks {
            return false;
        }
        let slot = self.session.last();
        let Self { session, primary, follower, remains, inserts, .. } = self;
        let connection = match slot {
            Slot::Primary => primary,
            Slot::Follower => follower,
        };
        match connection {
            Some(connection) if connection.epoch == remains.epoch => {
                // What is more than diagnostics runs on the primary, wherever these are.
                let there = slot == Slot::Primary || request.statement.class == Class::Diagnostics;
                if there && connection.matches(session, slot, *inserts) {
                    return false;
                }
                self.leave_remains(slot).await;
                true
            }
            Some(_) | None => true,
        }
    }

    /// Asks for what is to be shown before the connection that knows it is given back; false if that is too much, none if
    /// it does not answer.
    pub(super) async fn ask_remains(&mut self, slot: Slot) -> Option<bool> {
        let epoch = connection_epoch(self.slot(slot).as_deref());
        let remains = &self.remains;
        if !remains.shows || remains.kept.is_some() || remains.epoch != epoch {
            return Some(true);
        }
        let mut kept = Vec::new();
        for sql in [&b"SHOW WARNINGS"[..], b"SHOW ERRORS"] {
            let connection = self.slot(slot).as_mut()?;
            kept.push(connection.whole_answer(sql, KEPT_MAX).await.ok()?);
        }
        let kept: Option<Vec<(Bytes, u64)>> = kept.into_iter().collect();
        match kept.and_then(|kept| <[(Bytes, u64); 2]>::try_from(kept).ok()) {
            Some(kept) => {
                self.remains.kept = Some(kept);
                Some(true)
            }
            None => {
                self.remains.stay = true;
                Some(false)
            }
        }
    }

    /// The proxy is about to ask something of its own: what the client's last statement left is kept.
    pub(super) async fn leave_remains(&mut self, slot: Slot) {
        let epoch = connection_epoch(self.slot(slot).as_deref());
        if self.ask_remains(slot).await == Some(true) {
            self.remains.gone(epoch);
        }
    }

    /// Answers a statement that asks for what was left on a connection that is another session's now. None: the statement
    /// was changed, or a connection was readied, and it can be run.
    pub(super) async fn answer_left(&mut self, request: &mut Request) -> Result<Option<Said>, End> {
        let attributes = self.identity.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
        let text = if request.prepared.is_none() && !request.incoming.streamed {
            query_text(self.payload(request.incoming), attributes).ok()
        } else {
            None
        };
        let wanted = text.map_or(Asked::Other, |sql| asked(sql, self.session.dialect()));
        let (shown, sql) = match &wanted {
            Asked::Warnings => (Some(0), None),
            Asked::Errors => (Some(1), None),
            Asked::Numbers(numbers) => (None, self.with_numbers(numbers)),
            Asked::Count(Number::Errors) => (None, self.with_numbers(&[(Number::Errors, b"@@session.error_count")])),
            Asked::Count(number) => (None, self.with_numbers(&[(*number, b"@@session.warning_count")])),
            Asked::Other => (None, None),
        };
        match (shown, sql) {
            (Some(which), _) => self.show_left(request, which).await,
            (None, Some(sql)) => {
                let counts = matches!(wanted, Asked::Count(_));
                self.replace(request, &sql);
                let kept = self.remains.kept.take();
                let said = Box::pin(self.execute(*request)).await?;
                if counts && kept.is_some() {
                    (self.remains.shows, self.remains.kept) = (true, kept);
                    self.remains.epoch = GONE;
                }
                Ok(Some(said))
            }
            (None, None) => {
                self.remains.stay = true;
                self.skip(request.incoming).await?;
                let message = "holdfast: what the last statement left (warnings, ROW_COUNT(), FOUND_ROWS()) went with its \
                     connection, which another session uses now; from here on this session keeps its own";
                self.refuse(&ClientError::new(ErrorKind::Limit, message), 1).await?;
                Ok(Some(super::execute::failed()))
            }
        }
    }

    async fn show_left(&mut self, request: &mut Request, which: usize) -> Result<Option<Said>, End> {
        if let Some(kept) = &self.remains.kept {
            let (answer, rows) = kept[which].clone();
            self.skip(request.incoming).await?;
            self.client.write_all(&answer).await.map_err(|_| End::ClientGone)?;
            (self.remains.row_count, self.remains.found_rows) = (-1, Some(rows));
            let forwarded = answer.len() as u64;
            return Ok(Some(Said { rows: Some(rows), forwarded, ..Said::default() }));
        }
        // There is nothing to be shown: as behind any statement that goes well.
        let deadline = self.hold_deadline();
        if let Ok(slot) = self.checkout(Slot::Primary, deadline).await
            && let Some(connection) = self.slot(slot).as_mut()
            && connection.statement("DO 0").await.is_ok()
        {
            self.remains.epoch = connection_epoch(self.slot(slot).as_deref());
            self.session.ran_on(slot);
            return Ok(None);
        }
        self.remains.epoch = 0;
        self.skip(request.incoming).await?;
        let message = "holdfast: no server took the statement in time; retry";
        self.refuse(&ClientError::new(ErrorKind::NoBackend, message), 1).await?;
        Ok(Some(super::execute::failed()))
    }

    /// A SELECT of the same numbers, each under the name its column would have had; none if one is not known.
    fn with_numbers(&self, numbers: &[(Number, &[u8])]) -> Option<Vec<u8>> {
        let remains = &self.remains;
        let row_count = if self.session.left().1 { 0 } else { remains.row_count };
        let rows = |which: usize| remains.kept.as_ref().map_or(0, |kept| kept[which].1);
        let mut sql = b"SELECT ".to_vec();
        for (at, (number, name)) in numbers.iter().enumerate() {
            let value = match number {
                Number::RowCount => format!("CAST({row_count} AS SIGNED)"),
                // With its own warning: the function is deprecated.
                Number::FoundRows => format!("FOUND_ROWS() * 0 + {}", remains.found_rows?),
                Number::Warnings => format!("CAST({} AS SIGNED)", rows(0).max(u64::from(remains.warnings))),
                Number::Errors => format!("CAST({} AS SIGNED)", rows(1)),
                Number::InsertId => "LAST_INSERT_ID()".to_owned(),
            };
            if name.contains(&b'`') {
                return None;
            }
            let separator: &[u8] = if at == 0 { b"" } else { b"," };
            sql.extend_from_slice(&[separator, value.as_bytes(), b" AS `", name, b"`"].concat());
        }
        Some(sql)
    }

    /// Puts another text into the place of a COM_QUERY's.
    fn replace(&mut self, request: &mut Request, sql: &[u8]) {
        let mut payload = vec![0x03];
        if self.identity.capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
            payload.extend_from_slice(&[0, 1]);
        }
        payload.extend_from_slice(sql);
        let mut packet = BytesMut::with_capacity(payload.len() + HEADER);
        write_packet(&mut packet, &mut 0, &payload);
        let behind = self.client.input.split_off(request.incoming.length);
        let length = self.client.input.len();
        self.client.input.advance(length);
        request.incoming.length = packet.len();
        packet.extend_from_slice(&behind);
        self.client.input.extend_from_slice(&packet);
        let classified = classify(sql, self.session.dialect());
        request.statement = match classified.flags.contains(Flags::LAST_INSERT_ID) {
            true => Classified { class: Class::Write, flags: Flags::LAST_INSERT_ID, ..classified },
            false => Classified { class: Class::Read, flags: Flags::NONE, ..classified },
        };
    }
}

fn connection_epoch(connection: Option<&crate::backend::BackendConnection>) -> u64 {
    connection.map_or(0, |connection| connection.epoch)
}
