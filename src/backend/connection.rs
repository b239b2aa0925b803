//! One backend connection of a session: logged in, brought to the session's state by difference, never by guess.
//!
//! A connection remembers which version of the session's variables it has, its schema and its options. [`bring`] sends
//! what is missing: nothing when the fingerprints match, one multi-assignment SET (answer awaited) when they do not. It
//! refuses values it can't write safely; the caller then keeps the session's reads on the primary.
//!
//! [`bring`]: BackendConnection::bring

use super::connect::{ConnectError, ConnectTarget, LoginRequest, connect};
use super::query::{QueryError, query_text};
use crate::metrics::{self, BackendStats};
use crate::session::{Session, Set, Slot, numeric};
use crate::transport::Channel;
use crate::types::{BackendId, Term};
use crate::wire::capabilities::Capabilities;
use crate::wire::command::Answer;
use crate::wire::packet::{HEADER, write_packet};
use crate::wire::response::{Kind, Scanner, Shape, Step};
use crate::wire::session_track::{Ok as OkPacket, STATUS_AUTOCOMMIT};
use bytes::{Buf, Bytes, BytesMut};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Asked right after login: track all system variables, and say what sql_mode is (setting it makes the server report it).
const SETUP: &str = "SET SESSION session_track_system_variables='*', SESSION sql_mode=@@SESSION.sql_mode";
/// Result limit of the proxy's own small queries, bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// ER_MUST_CHANGE_PASSWORD: an expired password allows nothing but changing it.
const MUST_CHANGE_PASSWORD: u16 = 1820;

/// What SET NAMES sets.
const NAMES: [&[u8]; 4] =
    [b"character_set_client", b"character_set_results", b"character_set_connection", b"collation_connection"];

static EPOCH: AtomicU64 = AtomicU64::new(1);

/// Why a connection could not be brought to a session's state.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// The connection is gone or out of step; it must be dropped.
    #[error("the server's connection broke while the session's state was set: {0}")]
    Broken(String),
    /// The server refused the state; the connection is as it was.
    #[error("the server refused the session's state: {errno} {message}")]
    Refused {
        /// Error number.
        errno: u16,
        /// The server's message.
        message: String,
    },
    /// A value that can't be written as SQL here.
    #[error("system variable {0} can't be carried to another connection")]
    Unwritable(String),
}

/// Counts one server's connections while it lives, and what they carry.
pub struct Counted {
    count: Arc<AtomicU32>,
    stats: Rc<BackendStats>,
    _gauge: metrics::Guard,
}

impl Counted {
    /// Adds one to `count` until dropped; `cluster` and `backend` are metric labels.
    pub fn new(count: &Arc<AtomicU32>, cluster: &str, backend: &str) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self {
            count: Arc::clone(count),
            stats: metrics::backend_stats(cluster, backend),
            _gauge: metrics::backend_connection(cluster, backend),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session's connection to one server.
pub struct BackendConnection {
    /// The socket.
    pub channel: Channel,
    /// Which server.
    pub backend: BackendId,
    /// The cluster's term when it was made.
    pub term: Term,
    /// The server's connection id.
    pub thread_id: u32,
    /// Tells this connection from all others of the process.
    pub epoch: u64,
    /// Form of its responses.
    pub shape: Shape,
    /// What was agreed on at login.
    pub capabilities: Capabilities,
    /// The proxy has asked for the GTIDs of commits, and was granted them or not.
    pub tracks_gtids: Option<bool>,
    variables: u64,
    schema: Option<Box<[u8]>>,
    autocommit: bool,
    /// What LAST_INSERT_ID() is here.
    insert_id: u64,
    multi_statements: Option<bool>,
    counted: Counted,
    /// Bytes in and out that were counted already.
    bytes: (u64, u64),
}

impl BackendConnection {
    /// Connects, logs in and turns tracking on. Answers the login's OK payload and that of the set-up, if it was taken.
    pub async fn open(
        target: &ConnectTarget,
        login: &LoginRequest<'_>,
        backend: BackendId,
        term: Term,
        counted: Counted,
    ) -> Result<(Self, Bytes, Option<Bytes>), ConnectError> {
        let connected = connect(target, login).await?;
        let shape = Shape {
            deprecate_eof: connected.capabilities.has(Capabilities::DEPRECATE_EOF),
            optional_metadata: connected.capabilities.has(Capabilities::OPTIONAL_RESULTSET_METADATA),
        };
        let mut connection = Self {
            channel: connected.channel,
            backend,
            term,
            thread_id: connected.thread_id,
            epoch: EPOCH.fetch_add(1, Ordering::Relaxed),
            shape,
            capabilities: connected.capabilities,
            tracks_gtids: None,
            variables: 0,
            schema: login.database.filter(|d| !d.is_empty()).map(Into::into),
            autocommit: connected.status & STATUS_AUTOCOMMIT != 0,
            insert_id: 0,
            multi_statements: None,
            counted,
            bytes: (0, 0),
        };
        let setup = match connection.track().await {
            Ok(ok) => Some(ok),
            Err(BringError::Refused { errno: MUST_CHANGE_PASSWORD, .. }) => None,
            Err(error) => return Err(ConnectError::Protocol(error.to_string())),
        };
        Ok((connection, connected.ok, setup))
    }

    /// Counts a statement that was answered, and the bytes since the last.
    #[inline]
    pub fn count(&mut self) {
        let (bytes_in, bytes_out) = (self.channel.bytes_in, self.channel.bytes_out);
        let stats = &self.counted.stats;
        stats.query();
        stats.received((bytes_in - self.bytes.0) as usize);
        stats.sent((bytes_out - self.bytes.1) as usize);
        self.bytes = (bytes_in, bytes_out);
    }

    /// Turns tracking on (again: COM_RESET_CONNECTION turns it off). Answers the OK payload.
    pub async fn track(&mut self) -> Result<Bytes, BringError> {
        self.statement(SETUP).await
    }

    /// Notes that whatever `session` knows was reported by, or told to, this connection.
    #[inline]
    pub fn is_current(&mut self, session: &Session) {
        self.autocommit = session.autocommit();
        self.insert_id = session.insert_id();
        if self.variables != session.variables.version() {
            self.variables = session.variables.version();
        }
        if self.schema.as_deref() != session.schema() {
            self.schema = session.schema().map(Into::into);
        }
        self.multi_statements = session.multi_statements;
    }

    /// True if nothing has to be sent before a statement of `session`.
    #[inline]
    pub fn matches(&self, session: &Session, slot: Slot) -> bool {
        self.variables == session.variables.version()
            && self.schema.as_deref() == session.schema()
            && self.multi_statements == session.multi_statements
            && (slot == Slot::Follower
                || (self.autocommit == session.autocommit() && self.insert_id == session.insert_id()))
    }

    /// Sends what this connection lacks of `session`'s state and awaits the answers. Not cancel safe.
    pub async fn bring(&mut self, session: &Session, slot: Slot) -> Result<(), BringError> {
        let mut assignments = Vec::new();
        let named = names(session, self.variables);
        if let Some(names) = &named {
            self.statement(names).await?;
        }
        for variable in session.variables.lacking(self.variables) {
            if named.is_none() || !NAMES.contains(&&*variable.name) {
                assignments.push(assignment(variable)?);
            }
        }
        if slot == Slot::Primary && self.autocommit != session.autocommit() {
            assignments.push(format!("SESSION autocommit={}", u8::from(session.autocommit())));
        }
        if slot == Slot::Primary && self.insert_id != session.insert_id() {
            assignments.push(format!("SESSION last_insert_id={}", session.insert_id()));
        }
        if !assignments.is_empty() {
            self.statement(&format!("SET {}", assignments.join(", "))).await?;
        }
        if self.schema.as_deref() != session.schema()
            && let Some(schema) = session.schema()
        {
            accepted(self.command(&[&[0x02], schema].concat(), Answer::OnePacket).await?)?;
        }
        if self.multi_statements != session.multi_statements
            && let Some(on) = session.multi_statements
        {
            accepted(self.command(&[0x1B, u8::from(!on), 0], Answer::OnePacket).await?)?;
        }
        self.is_current(session);
        Ok(())
    }

    /// COM_PING: sets ROW_COUNT() to 0 and changes nothing else.
    pub async fn ping(&mut self) -> Result<(), BringError> {
        accepted(self.command(&[0x0E], Answer::OnePacket).await?).map(drop)
    }

    /// Asks what collation_connection is; SET NAMES does not report it.
    pub async fn collation(&mut self) -> Result<Bytes, BringError> {
        let sql = "SELECT @@SESSION.collation_connection";
        let rows = query_text(&mut self.channel, self.capabilities, sql, ANSWER_MAX).await.map_err(broken)?;
        let value = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
        value.ok_or_else(|| BringError::Broken("no value for collation_connection".to_owned()))
    }

    /// What `session_track_system_variables` is, as the client set it.
    pub async fn tracked_variables(&mut self) -> Result<Bytes, BringError> {
        let sql = "SELECT @@SESSION.session_track_system_variables";
        let rows = query_text(&mut self.channel, self.capabilities, sql, ANSWER_MAX).await.map_err(broken)?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default())
    }

    /// The one row of a small query of the proxy's own.
    pub async fn row(&mut self, sql: &[u8]) -> Result<Vec<Option<Bytes>>, BringError> {
        let rows = query_text(&mut self.channel, self.capabilities, sql, ANSWER_MAX).await.map_err(broken)?;
        rows.into_iter().next().ok_or_else(|| BringError::Broken("no row".to_owned()))
    }

    /// Runs a statement of the proxy's own that answers OK. Answers the OK payload.
    pub async fn statement(&mut self, sql: impl AsRef<[u8]>) -> Result<Bytes, BringError> {
        let packet = self.query_packet(sql.as_ref());
        self.send(&packet).await?;
        accepted(self.answer(Answer::Results).await?)
    }

    /// The packet of a statement of the proxy's own.
    pub fn query_packet(&self, sql: &[u8]) -> BytesMut {
        let mut payload = vec![0x03];
        if self.capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
            payload.extend_from_slice(&[0, 1]);
        }
        payload.extend_from_slice(sql);
        let mut packet = BytesMut::with_capacity(payload.len() + HEADER);
        write_packet(&mut packet, &mut 0, &payload);
        packet
    }

    /// Sends whole packets.
    pub async fn send(&mut self, packets: &[u8]) -> Result<(), BringError> {
        self.channel.write_all(packets).await.map_err(|e| BringError::Broken(e.to_string()))
    }

    /// Sends a command of the proxy's own, reads its whole answer and gives back the first packet that says something,
    /// ERR included. Not cancel safe.
    pub async fn command(&mut self, payload: &[u8], answer: Answer) -> Result<(Kind, Bytes), BringError> {
        let mut packet = BytesMut::with_capacity(payload.len() + HEADER);
        write_packet(&mut packet, &mut 0, payload);
        self.send(&packet).await?;
        self.answer(answer).await
    }

    /// Reads a command's whole answer and gives back the first packet that says something, ERR included. Answers of
    /// commands that were sent together are read one by one. Not cancel safe.
    pub async fn answer(&mut self, answer: Answer) -> Result<(Kind, Bytes), BringError> {
        let mut scanner = Scanner::new(answer, self.shape);
        let mut first = None;
        loop {
            while let Step::Packet { kind, start, end } =
                scanner.scan(&self.channel.input).map_err(|e| BringError::Broken(e.to_string()))?
            {
                first.get_or_insert_with(|| (kind, Bytes::copy_from_slice(&self.channel.input[start + HEADER..end])));
            }
            let n = scanner.passed();
            self.channel.input.advance(n);
            scanner.consumed(n);
            if scanner.is_done() {
                break;
            }
            if let Ok(0) | Err(_) = self.channel.fill().await {
                return Err(BringError::Broken("connection closed".to_owned()));
            }
        }
        self.channel.release();
        first.ok_or_else(|| BringError::Broken("no answer".to_owned()))
    }
}

/// The payload of an answer that is no ERR.
fn accepted((kind, payload): (Kind, Bytes)) -> Result<Bytes, BringError> {
    if kind != Kind::Err {
        return Ok(payload);
    }
    let (errno, message) = crate::relay::read_err(&payload);
    Err(BringError::Refused { errno, message: String::from_utf8_lossy(message).into_owned() })
}

/// Tells `session` the state changes in an OK payload.
pub fn observe(session: &mut Session, slot: Slot, ok: &[u8]) {
    if let Ok(ok) = OkPacket::read(ok) {
        session.observe_status(slot, ok.status);
        for change in ok.changes() {
            session.observe_change(slot, change);
        }
    }
}

fn broken(error: QueryError) -> BringError {
    BringError::Broken(error.to_string())
}

/// `SET NAMES … COLLATE …`, if the session's character sets are all one and have changed since `version`. What a server
/// says of a result's collation depends on whether NAMES or a single variable was set; the single ones follow for the rest.
fn names(session: &Session, version: u64) -> Option<String> {
    let set = |name: &[u8]| session.variables.lacking(version).find(|v| &*v.name == name);
    let connection = set(b"character_set_connection")?;
    let same = |name: &[u8]| set(name).is_some_and(|v| v.value == connection.value);
    if !same(b"character_set_client") || !same(b"character_set_results") {
        return None;
    }
    let word = |value: &[u8]| {
        let plain = !value.is_empty() && value.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
        plain.then(|| String::from_utf8_lossy(value).into_owned())
    };
    let collation = set(b"collation_connection").and_then(|v| word(&v.value))?;
    Some(format!("SET NAMES '{}' COLLATE '{collation}'", word(&connection.value)?))
}

/// `SESSION name=value`, with the value as the server printed it.
fn assignment(variable: &Set) -> Result<String, BringError> {
    let name = String::from_utf8_lossy(&variable.name).into_owned();
    let value = &*variable.value;
    // Whether a backslash escapes depends on the very sql_mode being set, and other bytes on the character set.
    let plain = value.iter().all(|b| (b' '..=b'~').contains(b) && *b != b'\\');
    if !plain || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
        return Err(BringError::Unwritable(name));
    }
    let text = String::from_utf8_lossy(value);
    Ok(match &*variable.name {
        b"character_set_results" if value.is_empty() => format!("SESSION {name}=NULL"),
        _ if numeric(value) => format!("SESSION {name}={text}"),
        _ => format!("SESSION {name}='{}'", text.replace('\'', "''")),
    })
}
