//! The proxy's own small queries: probing roles, setting variables.
//!
//! One statement, one text result, all of it in memory up to a limit. Never used for a client's statements.

use crate::transport::{Channel, PacketError};
use crate::wire::Malformed;
use crate::wire::capabilities::Capabilities;
use crate::wire::err::{self, ErrPacket};
use crate::wire::lenenc::Reader;
use crate::wire::ok::{self, OkPacket};
use bytes::{BufMut, Bytes, BytesMut};

/// SERVER_MORE_RESULTS_EXISTS.
const MORE_RESULTS: u16 = 0x0008;
/// First byte of a LOCAL INFILE request.
const LOCAL_INFILE: u8 = 0xFB;

/// Rows of values as text, NULL as `None`.
pub type Rows = Vec<Vec<Option<Bytes>>>;

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The server's error; the connection can go on.
    #[error("error {code} ({state}): {message}")]
    Server {
        /// Error number.
        code: u16,
        /// SQLSTATE.
        state: String,
        /// The server's message.
        message: String,
    },
    /// The connection broke; it can't be used any more.
    #[error("connection to the server: {0}")]
    Broken(#[from] PacketError),
    /// The server sent what this can't read; the connection can't be used any more.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The result is longer than the limit; the connection can't be used any more.
    #[error("the result is longer than {limit} bytes")]
    TooLong {
        /// The caller's limit in bytes.
        limit: usize,
    },
}

impl From<Malformed> for QueryError {
    fn from(error: Malformed) -> Self {
        Self::Protocol(error.0)
    }
}

impl QueryError {
    /// True if the connection can't be used after this error.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Server { .. })
    }
}

/// Asks `sql` and answers its rows, none where the server answers OK. `capabilities` are the connection's; `limit_bytes`
/// bounds the whole result. Not cancel safe: after a cancelled query the connection must be closed.
pub async fn query_text(
    channel: &mut Channel,
    capabilities: Capabilities,
    sql: impl AsRef<[u8]>,
    limit_bytes: usize,
) -> Result<Rows, QueryError> {
    let sql = sql.as_ref();
    let mut command = BytesMut::with_capacity(3 + sql.len());
    command.put_u8(0x03);
    if capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
        // No parameters, one set of them.
        command.put_slice(&[0, 1]);
    }
    command.put_slice(sql);
    let mut sequence = 0;
    channel.write_packet(&mut sequence, &command).await.map_err(PacketError::from)?;

    let mut response = Response { channel, sequence, left: limit_bytes, limit: limit_bytes };
    let head = response.packet().await?;
    let columns = match head.first().copied() {
        Some(ok::HEADER) => {
            return if OkPacket::parse(&head)?.status & MORE_RESULTS == 0 {
                Ok(Rows::new())
            } else {
                Err(QueryError::Protocol("more than one result"))
            };
        }
        Some(LOCAL_INFILE) => return Err(QueryError::Protocol("LOCAL INFILE")),
        _ => column_count(&head, capabilities)?,
    };
    for _ in 0..columns {
        response.packet().await?;
    }
    let deprecate_eof = capabilities.has(Capabilities::DEPRECATE_EOF);
    if !deprecate_eof {
        response.packet().await?;
    }
    let mut rows = Rows::new();
    loop {
        let packet = response.packet().await?;
        // A row may begin with 0xFE only if its first value is longer than 16 MiB: a row this long is over any limit here.
        if packet.first() == Some(&ok::EOF) && packet.len() < 0xFF_FFFF {
            return if end_status(&packet, deprecate_eof)? & MORE_RESULTS == 0 {
                Ok(rows)
            } else {
                Err(QueryError::Protocol("more than one result"))
            };
        }
        rows.push(row(&packet, columns)?);
    }
}

/// Column count of a result. With OPTIONAL_RESULTSET_METADATA a flag stands behind it (before it in MySQL's documentation,
/// behind it in what 9.7 sends), which must say "full".
fn column_count(head: &[u8], capabilities: Capabilities) -> Result<u64, QueryError> {
    let mut reader = Reader::new(head);
    let columns = reader.lenenc()?;
    if capabilities.has(Capabilities::OPTIONAL_RESULTSET_METADATA) && reader.u8()? != 1 {
        return Err(QueryError::Protocol("a result without metadata"));
    }
    if columns > 4096 {
        return Err(QueryError::Protocol("more than 4096 columns"));
    }
    Ok(columns)
}

fn end_status(packet: &[u8], deprecate_eof: bool) -> Result<u16, Malformed> {
    if deprecate_eof {
        return Ok(OkPacket::parse(packet)?.status);
    }
    let mut reader = Reader::new(packet);
    reader.take(3)?;
    reader.u16()
}

fn row(packet: &Bytes, columns: u64) -> Result<Vec<Option<Bytes>>, Malformed> {
    let mut reader = Reader::new(packet);
    (0..columns).map(|_| Ok(reader.nullable_bytes()?.map(|value| packet.slice_ref(value)))).collect()
}

/// A response as it is read, with what is left of its limit.
struct Response<'a> {
    channel: &'a mut Channel,
    sequence: u8,
    left: usize,
    limit: usize,
}

impl Response<'_> {
    async fn packet(&mut self) -> Result<Bytes, QueryError> {
        let packet = match self.channel.read_packet(&mut self.sequence, self.left, false).await {
            Ok(packet) => packet.freeze(),
            Err(PacketError::TooLong { .. }) => return Err(QueryError::TooLong { limit: self.limit }),
            Err(error) => return Err(error.into()),
        };
        if packet.first() == Some(&err::HEADER) {
            let error = ErrPacket::parse(&packet)?;
            return Err(QueryError::Server {
                code: error.code,
                state: String::from_utf8_lossy(&error.state).into_owned(),
                message: String::from_utf8_lossy(error.message).into_owned(),
            });
        }
        self.left -= packet.len();
        Ok(packet)
    }
}
