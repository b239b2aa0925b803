//! Where a response ends, and which of its packets say something.
//!
//! ```text
//!              OK / ERR without MORE_RESULTS
//!        ┌──────────────────────────────────────────────► Done
//!        │                                                 ▲
//!     First ── LOCAL INFILE ──► First (after the file)      │ EOF / OK / ERR without MORE_RESULTS
//!        │                                                 │
//!        └─ column count ──► Columns ──► ColumnsEof ──► Rows ── with MORE_RESULTS ──► First
//!                                (only without             │
//!                                 DEPRECATE_EOF)           └─ cursor opened: Done
//!     First (of PREPARE) ── OK ──► Definitions ──► Done
//! ```
//!
//! A [`Scanner`] looks at frame headers and first bytes only: rows are never decoded. Packets that say something (OK, EOF,
//! ERR, a LOCAL INFILE request, a PREPARE's OK) must be whole before they pass and are handed out; of all others, what has
//! arrived may pass at once.

mod prepared;

use super::Malformed;
use super::command::Answer;
use super::lenenc::Reader;
use super::packet::{FRAME_MAX, HEADER, Header};
use super::session_track::{STATUS_CURSOR_EXISTS, STATUS_MORE_RESULTS};
pub use prepared::Prepared;

/// What of the connection's capabilities decides the shape of responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// CLIENT_DEPRECATE_EOF.
    pub deprecate_eof: bool,
    /// CLIENT_OPTIONAL_RESULTSET_METADATA.
    pub optional_metadata: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first packet of a result.
    First,
    /// Column definitions, then an EOF if the shape has one.
    Columns { left: u64 },
    /// The EOF behind column definitions.
    ColumnsEof,
    /// Rows up to EOF, OK or ERR.
    Rows,
    /// The first packet of the answer to PREPARE.
    FirstPrepared,
    /// Parameter and column definitions of PREPARE with their EOFs, as a count of packets.
    Definitions { left: u64 },
    /// Exactly one packet.
    One,
    /// Nothing more comes.
    Done,
}

/// What a packet that says something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// OK, with header 0x00 or (CLIENT_DEPRECATE_EOF) 0xFE.
    Ok,
    /// EOF as it was before CLIENT_DEPRECATE_EOF; warnings and status follow the header.
    Eof,
    /// ERR.
    Err,
    /// The server asks for the client's file.
    LocalInfile,
    /// The OK of PREPARE.
    Prepared,
    /// A packet without a form of its own (COM_STATISTICS).
    Other,
}

/// What [`Scanner::scan`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything up to [`Scanner::passed`] may be forwarded; more bytes are needed.
    NeedMore,
    /// A packet that says something: the frame's header starts at `start`, its payload ends at `end`.
    Packet {
        /// What it is.
        kind: Kind,
        /// Offset of its header.
        start: usize,
        /// Offset behind its payload.
        end: usize,
    },
}

/// Walks over one response, however it is cut into reads.
#[derive(Clone, Debug)]
pub struct Scanner {
    shape: Shape,
    state: State,
    /// Bytes of the present frame still to come, header included.
    skip: usize,
    /// The present frame is full, so the next one belongs to the same packet.
    continues: bool,
    passed: usize,
    /// Bytes at the front of the input that end with a whole frame.
    whole: usize,
    /// The frame that is being passed was forwarded in part.
    mid_frame: bool,
    /// The frame that is being passed is a column definition.
    definition: bool,
    /// Sequence number of the frame whose header was read last, and the one behind the last whole frame.
    sequence: u8,
    next_sequence: u8,
    /// Rows seen (or definitions, for COM_FIELD_LIST).
    pub rows: u64,
}

impl Scanner {
    /// A scanner for the answer of shape `answer`.
    pub fn new(answer: Answer, shape: Shape) -> Self {
        let state = match answer {
            Answer::Results => State::First,
            Answer::Prepared => State::FirstPrepared,
            Answer::Rows => State::Rows,
            Answer::OnePacket => State::One,
            Answer::Nothing => State::Done,
        };
        Self {
            shape,
            state,
            skip: 0,
            continues: false,
            passed: 0,
            whole: 0,
            mid_frame: false,
            definition: false,
            sequence: 0,
            next_sequence: 1,
            rows: 0,
        }
    }

    /// True once the last packet was seen.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.state == State::Done && self.skip == 0 && !self.continues
    }

    /// Bytes at the front of the input that were scanned and may be forwarded.
    #[inline]
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Tells the scanner that `n` scanned bytes were taken off the front of the input.
    #[inline]
    pub fn consumed(&mut self, n: usize) {
        self.mid_frame = n > self.whole || (n == 0 && self.mid_frame);
        self.passed -= n;
        self.whole = self.whole.saturating_sub(n);
    }

    /// Bytes at the front of the input that were scanned and end with a whole frame.
    #[inline]
    pub fn whole(&self) -> usize {
        self.whole
    }

    /// Sequence number of a packet put behind the last whole frame.
    pub fn next_sequence(&self) -> u8 {
        self.next_sequence
    }

    /// True if an ERR packet may stand behind the last whole frame: clients read one there.
    pub fn takes_error(&self) -> bool {
        let legal = match self.state {
            State::First | State::ColumnsEof | State::Rows | State::FirstPrepared | State::One => true,
            State::Columns { .. } | State::Definitions { .. } | State::Done => false,
        };
        // The state is what follows a definition that has come in part and was not forwarded.
        let half_defined = self.definition && self.skip > 0;
        legal && !self.mid_frame && !self.continues && !half_defined
    }

    /// Notes that all that was scanned ends with a whole frame.
    #[inline]
    fn at_boundary(&mut self) {
        self.whole = self.passed;
        self.mid_frame = false;
        self.next_sequence = self.sequence.wrapping_add(1);
    }

    /// Tells the scanner that a handed-out packet that ended at `end` was rewritten and now ends at `new_end`.
    #[inline]
    pub fn moved(&mut self, end: usize, new_end: usize) {
        self.passed = self.passed - end + new_end;
        self.whole = self.passed;
    }

    /// Scans on over `input`, whose first [`Scanner::passed`] bytes were scanned before.
    #[inline]
    pub fn scan(&mut self, input: &[u8]) -> Result<Step, Malformed> {
        loop {
            if self.skip > 0 {
                let n = self.skip.min(input.len() - self.passed);
                self.passed += n;
                self.skip -= n;
                if self.skip > 0 {
                    return Ok(Step::NeedMore);
                }
                self.at_boundary();
            }
            if self.is_done() {
                return Ok(Step::NeedMore);
            }
            let frame = &input[self.passed..];
            let Some(header) = Header::read(frame) else { return Ok(Step::NeedMore) };
            if self.continues {
                self.pass_frame(header);
                continue;
            }
            let first = match frame.get(HEADER) {
                // What stands there belongs to the next frame.
                _ if header.length == 0 => 0,
                Some(first) => *first,
                None => return Ok(Step::NeedMore),
            };
            let Some(kind) = self.speaks(first, header.length) else {
                if self.state == State::First && frame.len() < HEADER + header.length {
                    return Ok(Step::NeedMore);
                }
                self.silent(frame, header)?;
                self.pass_frame(header);
                continue;
            };
            let end = HEADER + header.length;
            if frame.len() < end {
                return Ok(Step::NeedMore);
            }
            self.spoke(kind, &frame[HEADER..end])?;
            let start = self.passed;
            self.passed += end;
            self.continues = header.length == FRAME_MAX;
            self.sequence = header.sequence;
            self.at_boundary();
            return Ok(Step::Packet { kind, start, end: start + end });
        }
    }

    /// Lets a frame pass as its bytes arrive.
    #[inline]
    fn pass_frame(&mut self, header: Header) {
        self.skip = HEADER + header.length;
        self.continues = header.length == FRAME_MAX;
        self.sequence = header.sequence;
    }

    /// Which kind of speaking packet begins with byte `first`, if it is one.
    #[inline]
    fn speaks(&self, first: u8, length: usize) -> Option<Kind> {
        match self.state {
            State::Rows => match first {
                0xFF => Some(Kind::Err),
                // A row may begin with 0xFE (a value over 16 MiB), but then its frame is full.
                0xFE if self.shape.deprecate_eof && length < FRAME_MAX => Some(Kind::Ok),
                0xFE if length < 9 => Some(Kind::Eof),
                _ => None,
            },
            State::First => match first {
                0x00 => Some(Kind::Ok),
                0xFF => Some(Kind::Err),
                0xFB => Some(Kind::LocalInfile),
                0xFE if length < 9 => Some(self.end_kind()),
                _ => None,
            },
            State::ColumnsEof => Some(if first == 0xFF { Kind::Err } else { Kind::Eof }),
            State::FirstPrepared => Some(if first == 0xFF { Kind::Err } else { Kind::Prepared }),
            State::One => Some(match first {
                0x00 => Kind::Ok,
                0xFF => Kind::Err,
                0xFE => self.end_kind(),
                _ => Kind::Other,
            }),
            State::Columns { .. } | State::Definitions { .. } | State::Done => None,
        }
    }

    fn end_kind(&self) -> Kind {
        if self.shape.deprecate_eof { Kind::Ok } else { Kind::Eof }
    }

    /// Steps over a packet that only passes.
    #[inline]
    fn silent(&mut self, frame: &[u8], header: Header) -> Result<(), Malformed> {
        self.state = match self.state {
            State::Rows => {
                (self.rows, self.definition) = (self.rows + 1, false);
                State::Rows
            }
            State::First => {
                let mut reader = Reader::new(&frame[HEADER..HEADER + header.length]);
                let columns = reader.lenenc()?;
                let described = !self.shape.optional_metadata || reader.u8()? != 0;
                self.after_columns(if described { columns } else { 0 })
            }
            State::Columns { left } => {
                self.definition = true;
                self.after_columns(left - 1)
            }
            State::Definitions { left: 1 } => State::Done,
            State::Definitions { left } => State::Definitions { left: left - 1 },
            state @ (State::ColumnsEof | State::FirstPrepared | State::One | State::Done) => state,
        };
        Ok(())
    }

    fn after_columns(&self, left: u64) -> State {
        match (left, self.shape.deprecate_eof) {
            (0, true) => State::Rows,
            (0, false) => State::ColumnsEof,
            (left, _) => State::Columns { left },
        }
    }

    /// Steps over a packet that speaks.
    #[inline]
    fn spoke(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Malformed> {
        self.state = match kind {
            Kind::Err | Kind::Other => State::Done,
            Kind::LocalInfile => State::First,
            Kind::Prepared => {
                let prepared = Prepared::read(payload, self.shape)?;
                match prepared.definitions(self.shape) {
                    0 => State::Done,
                    left => State::Definitions { left },
                }
            }
            Kind::Ok | Kind::Eof => {
                let status = status(kind, payload)?;
                match self.state {
                    State::ColumnsEof if status & STATUS_CURSOR_EXISTS == 0 => State::Rows,
                    State::One => State::Done,
                    _ if status & STATUS_MORE_RESULTS != 0 => State::First,
                    _ => State::Done,
                }
            }
        };
        Ok(())
    }
}

/// The status flags of an OK or EOF payload.
#[inline]
pub fn status(kind: Kind, payload: &[u8]) -> Result<u16, Malformed> {
    let mut reader = Reader::new(payload);
    reader.u8()?;
    if kind == Kind::Eof {
        let _warnings = reader.u16()?;
        return reader.u16();
    }
    reader.lenenc()?;
    reader.lenenc()?;
    reader.u16()
}

#[cfg(test)]
mod tests;
