//! One connection as an application has it: log in, ask, prepare, execute; every wait has a limit.
//!
//! It never reconnects and never tries again by itself: what it is told is what the measurement counts.

use super::fault::Fault;
use crate::accounts::Credential;
use crate::backend::{ConnectError, ConnectTarget, LoginRequest, QueryError, Rows, connect, query_text};
use crate::tls::BackendTls;
use crate::transport::{Channel, PacketError};
use crate::types::Address;
use crate::wire::capabilities::Capabilities;
use crate::wire::err::{self, ErrPacket};
use crate::wire::lenenc::Reader;
use crate::wire::{Malformed, ok};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

/// Limit for a login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer taken, bytes.
const ANSWER_MAX: usize = 4 << 20;
/// utf8mb4_general_ci: known to every server.
const COLLATION: u16 = 45;
/// Connection attributes: `program_name` = `holdfast-bench`.
const ATTRIBUTES: &[u8] = b"\x0cprogram_name\x0eholdfast-bench";
/// COM_STMT_PREPARE, COM_STMT_EXECUTE.
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;
/// MYSQL_TYPE_LONGLONG, unsigned.
const UNSIGNED: [u8; 2] = [0x08, 0x80];

/// Where and as whom.
#[derive(Clone)]
pub struct Target {
    /// Host and port.
    pub address: Address,
    /// Account name.
    pub user: String,
    /// Its password.
    pub credential: Credential,
    /// TLS, if any.
    pub tls: Arc<BackendTls>,
    /// Limit for each answer.
    pub statement_timeout: Duration,
}

impl Target {
    /// The same account at another address.
    pub fn at(&self, address: Address) -> Self {
        Self { address, ..self.clone() }
    }
}

/// A connection.
pub struct Client {
    channel: Channel,
    capabilities: Capabilities,
    /// MySQL, or else MariaDB.
    pub is_mysql: bool,
    timeout: Duration,
}

/// A statement prepared on one connection.
#[derive(Clone, Copy, Debug)]
pub struct Statement(u32);

impl Client {
    /// Logs in. Cancel safe.
    pub async fn open(target: &Target, database: Option<&str>) -> Result<Self, Fault> {
        let limit = CONNECT_TIMEOUT.min(target.statement_timeout);
        let to =
            ConnectTarget { address: target.address.clone(), tls: Arc::clone(&target.tls), connect_timeout: limit };
        let login = LoginRequest {
            user: target.user.as_bytes(),
            credential: &target.credential,
            database: database.map(str::as_bytes),
            collation: COLLATION,
            capabilities: Capabilities::OWN,
            attributes: ATTRIBUTES,
            max_packet_size: 1 << 24,
        };
        let connected = connect(&to, &login).await.map_err(connect_fault)?;
        Ok(Self {
            channel: connected.channel,
            capabilities: connected.capabilities,
            is_mysql: connected.server_capabilities.has(Capabilities::LONG_PASSWORD),
            timeout: target.statement_timeout,
        })
    }

    /// Runs a statement; the rows as text. Not cancel safe: close the connection then.
    pub async fn query(&mut self, sql: &str) -> Result<Rows, Fault> {
        let answer = query_text(&mut self.channel, self.capabilities, sql, ANSWER_MAX);
        limited(self.timeout, async { answer.await.map_err(query_fault) }).await
    }

    /// The first value of the first row; `None` if there is none or it is NULL.
    pub async fn value(&mut self, sql: &str) -> Result<Option<String>, Fault> {
        let rows = self.query(sql).await?;
        Ok(rows.first().and_then(|row| text(row, 0)))
    }

    /// Prepares a statement. Not cancel safe.
    pub async fn prepare(&mut self, sql: &str) -> Result<Statement, Fault> {
        limited(self.timeout, prepare(&mut self.channel, self.capabilities, sql)).await
    }

    /// Executes a statement that has no result, with unsigned numbers as its parameters. Not cancel safe.
    pub async fn execute(&mut self, statement: Statement, parameters: &[u64]) -> Result<(), Fault> {
        let mut command = BytesMut::new();
        command.put_u8(EXECUTE);
        command.put_u32_le(statement.0);
        // No cursor, once; no parameter is NULL; types follow.
        command.put_slice(&[0, 1, 0, 0, 0]);
        command.put_bytes(0, parameters.len().div_ceil(8));
        command.put_u8(1);
        parameters.iter().for_each(|_| command.put_slice(&UNSIGNED));
        parameters.iter().for_each(|parameter| command.put_u64_le(*parameter));
        let channel = &mut self.channel;
        let answer = async {
            let mut sequence = 0;
            channel.write_packet(&mut sequence, &command).await.map_err(io_fault)?;
            let answer = packet(channel, &mut sequence).await?;
            if answer.first() == Some(&ok::HEADER) { Ok(()) } else { Err(Fault::lost("the answer is not an OK")) }
        };
        limited(self.timeout, answer).await
    }
}

/// A value of a row as text.
pub fn text(row: &[Option<Bytes>], column: usize) -> Option<String> {
    Some(String::from_utf8_lossy(row.get(column)?.as_deref()?).into_owned())
}

async fn limited<T>(limit: Duration, answer: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::lost(format!("no answer within {limit:?}"))),
    }
}

async fn prepare(channel: &mut Channel, capabilities: Capabilities, sql: &str) -> Result<Statement, Fault> {
    let command = [&[PREPARE], sql.as_bytes()].concat();
    let mut sequence = 0;
    channel.write_packet(&mut sequence, &command).await.map_err(io_fault)?;
    let head = packet(channel, &mut sequence).await?;
    let (id, counts) = prepared(&head).map_err(|error| Fault::lost(error.to_string()))?;
    for count in counts.into_iter().filter(|count| *count > 0) {
        let eof = !capabilities.has(Capabilities::DEPRECATE_EOF);
        for _ in 0..usize::from(count) + usize::from(eof) {
            packet(channel, &mut sequence).await?;
        }
    }
    Ok(Statement(id))
}

/// Id and the numbers of definitions that follow: of parameters, of columns ("COM_STMT_PREPARE Response").
fn prepared(head: &[u8]) -> Result<(u32, [u16; 2]), Malformed> {
    let mut reader = Reader::new(head);
    if reader.u8()? != ok::HEADER {
        return Err(Malformed("not a prepared statement"));
    }
    let id = reader.u32()?;
    let columns = reader.u16()?;
    Ok((id, [reader.u16()?, columns]))
}

async fn packet(channel: &mut Channel, sequence: &mut u8) -> Result<Bytes, Fault> {
    let packet = channel.read_packet(sequence, ANSWER_MAX, false).await.map_err(packet_fault)?.freeze();
    match packet.first() {
        Some(&err::HEADER) => Err(server_fault(&packet, false)),
        _ => Ok(packet),
    }
}

fn server_fault(payload: &[u8], lost: bool) -> Fault {
    match ErrPacket::parse(payload) {
        Ok(error) => Fault {
            code: error.code,
            state: String::from_utf8_lossy(&error.state).into_owned(),
            text: String::from_utf8_lossy(error.message).into_owned(),
            lost,
        },
        Err(error) => Fault::lost(error.to_string()),
    }
}

fn connect_fault(error: ConnectError) -> Fault {
    match error {
        ConnectError::Refused(payload) => server_fault(&payload, true),
        other => Fault::lost(format!("no connection: {other}")),
    }
}

fn query_fault(error: QueryError) -> Fault {
    match error {
        QueryError::Server { code, state, message } => Fault { code, state, text: message, lost: false },
        QueryError::Broken(error) => packet_fault(error),
        other => Fault::lost(other.to_string()),
    }
}

fn packet_fault(error: PacketError) -> Fault {
    let error = match error {
        // What TLS calls a peer that closes without a goodbye.
        PacketError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            PacketError::Closed { clean: false }
        }
        other => other,
    };
    Fault::lost(format!("the connection broke: {error}"))
}

fn io_fault(error: std::io::Error) -> Fault {
    packet_fault(PacketError::Io(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_prepare_is_read_with_suspicion() {
        let head = b"\x00\x07\x00\x00\x00\x01\x00\x02\x00\x00\x00\x00";
        assert_eq!(prepared(head), Ok((7, [2, 1])));
        (0..9).for_each(|n| assert!(prepared(&head[..n]).is_err(), "{n}"));
        assert!(prepared(b"\x01\x07\x00\x00\x00\x01\x00\x02\x00").is_err());
    }
}
