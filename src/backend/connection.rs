//! One connection to a server: logged in, told to track its state, asked the proxy's own small questions.
//!
//! How it gets to the state of a session is told in [`super::bring`].

use super::bring::State;
use super::connect::{ConnectError, ConnectTarget, LoginRequest, connect};
use super::handles::Handles;
use super::pool::{Place, Shelved};
use super::query::{QueryError, query_text};
use crate::metrics::{self, BackendStats};
use crate::session::{Session, Slot, Trace};
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
use std::time::Instant;

/// Asked right after login: track all system variables, and say what sql_mode is (setting it makes the server report it).
const SETUP: &str = "SET SESSION session_track_system_variables='*', SESSION sql_mode=@@SESSION.sql_mode";
/// The same for a connection that sessions will share: what a login sets is reported too, to be set again for the next.
const SETUP_SHARED: &str = "SET SESSION session_track_system_variables='*', SESSION sql_mode=@@SESSION.sql_mode, \
     SESSION character_set_client=@@SESSION.character_set_client, \
     SESSION character_set_results=@@SESSION.character_set_results, \
     SESSION character_set_connection=@@SESSION.character_set_connection, \
     SESSION collation_connection=@@SESSION.collation_connection, SESSION wait_timeout=@@SESSION.wait_timeout";
/// Only where nothing else is run at a login, DEFAULT is what the login set.
const INIT_CONNECT: &[u8] = b"SELECT @@GLOBAL.init_connect=''";
/// Result limit of the proxy's own small queries, bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// ER_MUST_CHANGE_PASSWORD: an expired password allows nothing but changing it.
const MUST_CHANGE_PASSWORD: u16 = 1820;

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
    /// What another session has left here can't be taken back: another connection will do.
    #[error("what another session has left on the connection can't be taken back")]
    Foreign,
}

/// Counts one server's connections while it lives, and what they carry.
pub struct Counted {
    count: Arc<AtomicU32>,
    stats: Rc<BackendStats>,
    _gauge: metrics::Guard,
    /// Where it stands among those that sessions share.
    place: Option<Place>,
}

impl Counted {
    /// Adds one to `count` until dropped; `cluster` and `backend` are metric labels.
    pub fn new(count: &Arc<AtomicU32>, cluster: &str, backend: &str) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self {
            count: Arc::clone(count),
            stats: metrics::backend_stats(cluster, backend),
            _gauge: metrics::backend_connection(cluster, backend),
            place: None,
        }
    }

    /// The same, in a place among those that sessions share.
    #[must_use]
    pub fn shared(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
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
    /// What it commits can be marked, or not: the account may, and the server tells of commits (`exactly_once`).
    pub marks: Option<bool>,
    /// What it has committed, for a verdict on what it may have committed last (`exactly_once`).
    pub trace: Trace,
    /// `server_id` of its server, which names its commits in binary logs, and the version that marks them.
    pub named: Option<(u32, u32)>,
    /// What is prepared here, if it is shared.
    pub handles: Handles,
    /// What its server said of itself at the set-up, if it is shared.
    pub setup: Option<Bytes>,
    pub(super) state: State,
    opened: Instant,
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
            marks: None,
            trace: Trace::default(),
            named: None,
            handles: Handles::default(),
            setup: None,
            state: State::new(login.database, connected.status & STATUS_AUTOCOMMIT != 0),
            opened: Instant::now(),
            counted,
            bytes: (0, 0),
        };
        let setup = match connection.track().await {
            Ok(ok) => Some(ok),
            Err(BringError::Refused { errno: MUST_CHANGE_PASSWORD, .. }) => None,
            Err(error) => return Err(ConnectError::Protocol(error.to_string())),
        };
        if let (Some(setup), true) = (&setup, connection.is_shared()) {
            let row = connection.row(INIT_CONNECT).await;
            let plain = row.is_ok_and(|row| row.first().is_some_and(|value| value.as_deref() == Some(b"1")));
            connection.state.begin_shared(setup, plain);
            connection.setup = Some(setup.clone());
        }
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
        self.statement(if self.is_shared() { SETUP_SHARED } else { SETUP }).await
    }

    /// True for one that sessions share.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.counted.place.is_some()
    }

    /// True if somebody waits for it.
    #[inline]
    pub fn is_waited_for(&self) -> bool {
        self.counted.place.as_ref().is_some_and(Place::is_waited_for)
    }

    /// Has the server forget these prepared statements. There is no answer to that.
    pub async fn close_statements(&mut self, ids: &[u32]) -> Result<(), BringError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut packets = BytesMut::new();
        for id in ids {
            let [a, b, c, d] = id.to_le_bytes();
            write_packet(&mut packets, &mut 0, &[0x19, a, b, c, d]);
        }
        self.send(&packets).await
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

    /// The packets that answer a query of the proxy's own, as they came, and how many rows they have; none if they are more
    /// than `max` bytes.
    pub async fn whole_answer(&mut self, sql: &[u8], max: usize) -> Result<Option<(Bytes, u64)>, BringError> {
        let packet = self.query_packet(sql);
        self.send(&packet).await?;
        let mut whole = BytesMut::new();
        let keep = |bytes: &[u8]| {
            if whole.len() <= max {
                whole.extend_from_slice(bytes);
            }
        };
        let rows = self.read(Answer::Results, |_, _| {}, keep).await?;
        Ok((whole.len() <= max).then(|| (whole.freeze(), rows)))
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
        let mut first = None;
        let say = |kind, payload: &[u8]| {
            first.get_or_insert_with(|| (kind, Bytes::copy_from_slice(payload)));
        };
        self.read(answer, say, |_| {}).await?;
        first.ok_or_else(|| BringError::Broken("no answer".to_owned()))
    }

    /// Reads a command's whole answer: `said` gets the payload of each packet that says something, `passed` all bytes as they
    /// come. Answers how many rows it has. Not cancel safe.
    async fn read(
        &mut self,
        answer: Answer,
        mut said: impl FnMut(Kind, &[u8]),
        mut passed: impl FnMut(&[u8]),
    ) -> Result<u64, BringError> {
        let mut scanner = Scanner::new(answer, self.shape);
        loop {
            while let Step::Packet { kind, start, end } =
                scanner.scan(&self.channel.input).map_err(|e| BringError::Broken(e.to_string()))?
            {
                said(kind, &self.channel.input[start + HEADER..end]);
            }
            let n = scanner.passed();
            passed(&self.channel.input[..n]);
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
        Ok(scanner.rows)
    }
}

impl Shelved for BackendConnection {
    fn place(&self) -> Option<&Place> {
        self.counted.place.as_ref()
    }

    fn is_usable(&mut self) -> bool {
        self.channel.is_quiet()
    }

    fn made(&self) -> Instant {
        self.opened
    }
}

/// The payload of an answer that is no ERR.
pub(super) fn accepted((kind, payload): (Kind, Bytes)) -> Result<Bytes, BringError> {
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
