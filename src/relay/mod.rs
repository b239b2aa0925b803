//! Forward a response frame by frame, and report what it said.
//!
//! ```text
//!  backend ──► input ──scan──► whole frames ──► client
//!                      │
//!                      └─► OK / EOF / ERR …: told to the session; OK packets lose what the client did not ask for
//! ```
//!
//! The relay holds at most one read's worth of a response and writes what has arrived in one piece. It keeps frames whole
//! where they fit its window, so that an error can still be put behind the last whole frame when the backend goes away. It
//! never decides what to do about a lost backend: it says how far the response had come ([`Ended`]).

mod infile;
mod upload;

pub use upload::{UploadError, upload};

use crate::classify::{Class, Flavor};
use crate::session::{Session, Slot};
use crate::transport::Channel;
use crate::wire::command::Answer;
use crate::wire::lenenc::Reader;
use crate::wire::packet::HEADER;
use crate::wire::response::{Kind, Prepared, Scanner, Shape, Step, status};
use crate::wire::session_track::{
    Ok as OkPacket, Rewrite, STATUS_CURSOR_EXISTS, STATUS_STATE_CHANGED, Tracking, rewrite,
};
pub use aws_lc_rs::digest::Context as Context256;
use bytes::{Buf, BytesMut};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use tokio_util::sync::CancellationToken;

/// A frame longer than this is forwarded as it arrives, not held until it is whole (bytes).
const WINDOW: usize = 64 * 1024;
/// The same for a client that takes compressed frames: the more in one, the better it packs; and mysql-connector-python
/// fails on a packet that is spread over more than two, which servers do not do below 16 MiB.
const WINDOW_COMPRESSED: usize = 1024 * 1024;

/// Bytes of an answer beyond which nobody wants its digest.
pub const DIGEST_MAX: u64 = 16 << 20;

/// What a response said, as far as it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    /// Error number, if its last packet was ERR.
    pub errno: Option<u16>,
    /// The answer to PREPARE.
    pub prepared: Option<Prepared>,
    /// Its last result ended with an EOF packet, which tells of no change of state.
    pub plain_eof: bool,
    /// A cursor is open and has rows.
    pub cursor: bool,
    /// The insert id that the primary told; 0: none.
    pub insert_id: u64,
    /// Rows of its last result; none: that was no result set.
    pub rows: Option<u64>,
    /// Rows that it says were affected, and warnings; only where they are wanted.
    pub affected: u64,
    /// How many warnings there are to be shown.
    pub warnings: u16,
    /// Bytes forwarded to the client.
    pub forwarded: u64,
    /// Sequence number that an error of the proxy's own must have.
    pub next_sequence: u8,
}

/// How a response ended.
#[derive(Debug)]
pub enum Ended {
    /// It was forwarded whole.
    Done,
    /// Its first packet was an ERR that the caller asked to see first; it still stands at the front of the backend's
    /// input and nothing was forwarded.
    Withheld {
        /// Error number.
        errno: u16,
        /// Bytes of the ERR packet at the front of the backend's input, header included.
        length: usize,
    },
    /// The backend's connection ended; `clean` if an ERR packet may follow what was forwarded.
    BackendLost {
        /// An error can be put behind what was forwarded.
        clean: bool,
    },
    /// The client's connection ended.
    ClientLost,
    /// A packet of the client's file had another sequence number than [`Said::next_sequence`].
    OutOfOrder {
        /// The number it had.
        got: u8,
    },
    /// The backend sent what the protocol has no place for.
    Malformed(crate::wire::Malformed),
}

/// One response on its way.
pub struct Relay<'a> {
    /// The client's connection.
    pub client: &'a mut Channel,
    /// The backend's connection.
    pub backend: &'a mut Channel,
    /// The session that is told what the response says.
    pub session: &'a mut Session,
    /// Which of the session's connections `backend` is.
    pub slot: Slot,
    /// What OK packets may tell this client.
    pub tracking: &'a Tracking,
    /// The GTIDs it tells of are for the proxy alone.
    pub hide_gtids: bool,
    /// What is answered.
    pub class: Class,
    /// The statement id to put into the answer to PREPARE.
    pub statement_id: u32,
    /// Bytes of the command at the front of the client's input, kept there until its answer is known.
    pub command: usize,
    /// Cancelled by KILL: a client that does not read is not waited for then.
    pub kill: &'a CancellationToken,
    /// Asks while the server is waited for: true to end it as if the server had gone. It registers for a wake-up itself.
    pub cut: &'a dyn Fn(&mut Context<'_>) -> bool,
    /// What the statement leaves for SHOW WARNINGS and its kin is wanted.
    pub counts: bool,
    /// Is told of every byte of the answer, as the client gets it.
    pub digest: Option<&'a mut Context256>,
    /// The client gets it at all.
    pub forwards: bool,
    /// Asks whether an ERR as first packet is withheld from the client; gets errno and message.
    pub withhold: fn(u16, &[u8]) -> bool,
}

impl Relay<'_> {
    /// Forwards the response to a command whose answer has shape `answer`. Not cancel safe.
    pub async fn run(&mut self, answer: Answer, shape: Shape, said: &mut Said) -> Ended {
        let mut scanner = Scanner::new(answer, shape);
        said.next_sequence = 1;
        // Some of it may have come together with the answer to what was sent before.
        let mut is_there = !self.backend.input.is_empty();
        while !scanner.is_done() {
            if !std::mem::take(&mut is_there) {
                match self.wait_backend(said).await {
                    Waited::Bytes => {}
                    Waited::BackendGone => return Ended::BackendLost { clean: scanner.takes_error() },
                    Waited::ClientGone => return Ended::ClientLost,
                }
            }
            if let Some(ended) = self.scan_and_forward(&mut scanner, shape, said).await {
                return ended;
            }
        }
        self.backend.release();
        Ended::Done
    }

    /// Scans what has arrived and forwards it; answers only what ends the response early.
    async fn scan_and_forward(&mut self, scanner: &mut Scanner, shape: Shape, said: &mut Said) -> Option<Ended> {
        loop {
            let step = match scanner.scan(&self.backend.input) {
                Ok(step) => step,
                Err(malformed) => return Some(Ended::Malformed(malformed)),
            };
            let Step::Packet { kind, start, end } = step else { break };
            let payload = &self.backend.input[start + HEADER..end];
            match kind {
                Kind::Err => {
                    let (errno, message) = read_err(payload);
                    if said.forwarded == 0 && start == 0 && (self.withhold)(errno, message) {
                        return Some(Ended::Withheld { errno, length: end });
                    }
                    said.errno = Some(errno);
                    (said.rows, said.affected) = (None, 0);
                }
                Kind::Ok => {
                    said.plain_eof = false;
                    if let Err(malformed) = self.on_ok(scanner, start, end, said) {
                        return Some(Ended::Malformed(malformed));
                    }
                }
                Kind::Eof => {
                    said.plain_eof = true;
                    if self.counts {
                        said.rows = Some(scanner.rows);
                        said.warnings = payload.get(1..3).map_or(0, |two| u16::from_le_bytes([two[0], two[1]]));
                    }
                    if let Ok(status) = status(kind, payload) {
                        self.on_status(status, said);
                    }
                    // An EOF carries no state changes; the flag may speak of what only the proxy asked to be told. A read
                    // changes nothing of that: there it speaks of the transaction (MariaDB).
                    let read = matches!(self.class, Class::Read | Class::Diagnostics);
                    if !read || *self.tracking == Tracking::Off {
                        self.backend.input[start + HEADER + 4] &= !(STATUS_STATE_CHANGED >> 8) as u8;
                    }
                }
                Kind::Prepared => {
                    said.prepared = Prepared::read(payload, shape).ok();
                    let id = self.statement_id.to_le_bytes();
                    self.backend.input[start + HEADER + 1..start + HEADER + 5].copy_from_slice(&id);
                }
                Kind::LocalInfile => {
                    if let Some(ended) = self.local_infile(scanner, said).await {
                        return Some(ended);
                    }
                }
                Kind::Other => {}
            }
        }
        self.forward(scanner, said).await.err().map(|_| Ended::ClientLost)
    }

    /// Tells the session what an OK says and takes out what the client did not ask for.
    #[inline]
    fn on_ok(
        &mut self,
        scanner: &mut Scanner,
        start: usize,
        end: usize,
        said: &mut Said,
    ) -> Result<(), crate::wire::Malformed> {
        let status = status(Kind::Ok, &self.backend.input[start + HEADER..end])?;
        self.on_status(status, said);
        if self.counts {
            let ok = OkPacket::read(&self.backend.input[start + HEADER..end])?;
            let ended_rows = self.backend.input[start + HEADER] == 0xFE;
            said.rows = ended_rows.then_some(scanner.rows);
            (said.affected, said.warnings) = (ok.affected_rows, ok.warnings);
        }
        if self.class == Class::Write
            && self.slot == Slot::Primary
            && let id @ 1.. = insert_id(&self.backend.input[start + HEADER..end])?
        {
            self.session.set_insert_id(id);
            said.insert_id = id;
        }
        if status & STATUS_STATE_CHANGED == 0 {
            return Ok(());
        }
        let ok = OkPacket::read(&self.backend.input[start + HEADER..end])?;
        for change in ok.changes() {
            self.session.observe_change(self.slot, change);
        }
        let chained = matches!(self.class, Class::Commit { chain: true, .. } | Class::Rollback { chain: true, .. });
        let changed_back = chained && matches!(self.session.dialect().flavor, Flavor::MySql { .. });
        let mut packet = BytesMut::with_capacity(end - start);
        packet.extend_from_slice(&self.backend.input[start..start + HEADER]);
        let how = Rewrite { changed_back, hide_gtids: self.hide_gtids, hide_transaction: false };
        rewrite(&ok, self.tracking, how, &mut packet);
        let length = (packet.len() - HEADER).to_le_bytes();
        packet[..3].copy_from_slice(&length[..3]);
        let new_end = start + packet.len();
        // An OK packet only ever gets shorter here.
        self.backend.input[start..new_end].copy_from_slice(&packet);
        self.backend.input.copy_within(end.., new_end);
        let length = self.backend.input.len() - (end - new_end);
        self.backend.input.truncate(length);
        scanner.moved(end, new_end);
        Ok(())
    }

    #[inline]
    fn on_status(&mut self, status: u16, said: &mut Said) {
        self.session.observe_status(self.slot, status);
        said.cursor = status & STATUS_CURSOR_EXISTS != 0;
    }

    /// Writes what was scanned to the client: whole frames, or whatever is there once a frame outgrows the window.
    async fn forward(&mut self, scanner: &mut Scanner, said: &mut Said) -> io::Result<()> {
        let whole = scanner.whole();
        let window = if self.client.is_compressed() { WINDOW_COMPRESSED } else { WINDOW };
        let n = if whole == 0 && self.backend.input.len() >= window { scanner.passed() } else { whole };
        if n == 0 {
            return Ok(());
        }
        if let Some(digest) = &mut self.digest
            && said.forwarded <= DIGEST_MAX
        {
            digest.update(&self.backend.input[..n]);
        }
        if self.forwards {
            // The kill is only looked at where the client takes nothing.
            tokio::select! {
                biased;
                written = self.client.write_all(&self.backend.input[..n]) => written?,
                () = self.kill.cancelled() => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        self.backend.input.advance(n);
        scanner.consumed(n);
        said.forwarded += n as u64;
        said.next_sequence = scanner.next_sequence();
        Ok(())
    }

    /// Waits for bytes from the backend; a client that goes away meanwhile is noticed.
    async fn wait_backend(&mut self, said: &Said) -> Waited {
        let mut watch_client = said.forwarded == 0;
        poll_fn(|cx| {
            match self.backend.poll_fill(cx, usize::MAX) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Waited::BackendGone),
                Poll::Ready(Ok(_)) => return Poll::Ready(Waited::Bytes),
                Poll::Pending => {}
            }
            if (self.cut)(cx) {
                return Poll::Ready(Waited::BackendGone);
            }
            if watch_client {
                match self.client.poll_gone(cx) {
                    Poll::Ready(true) => return Poll::Ready(Waited::ClientGone),
                    // It has sent its next command already: what it does with its socket is no longer watched.
                    Poll::Ready(false) => watch_client = false,
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The insert id of an OK payload; 0: none.
fn insert_id(ok: &[u8]) -> Result<u64, crate::wire::Malformed> {
    let mut reader = Reader::new(ok);
    reader.u8()?;
    reader.lenenc()?;
    reader.lenenc()
}

enum Waited {
    Bytes,
    BackendGone,
    ClientGone,
}

/// Error number and message (behind the SQLSTATE) of an ERR payload.
pub fn read_err(payload: &[u8]) -> (u16, &[u8]) {
    let mut reader = Reader::new(payload);
    let errno = reader.u8().and_then(|_| reader.u16()).unwrap_or(0);
    let rest = reader.rest();
    (errno, if rest.first() == Some(&b'#') { rest.get(6..).unwrap_or_default() } else { rest })
}
