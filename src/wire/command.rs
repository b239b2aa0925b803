//! Commands of the classic protocol: their first byte, what answer each expects, and the parts of a few that are read.
//!
//! The set is what MySQL 9.7 and MariaDB 10.11 serve between them; anything else is [`Command::Unknown`], which is
//! answered with error 1047 as both servers do.

use super::Malformed;
use super::lenenc::Reader;

/// The command byte of a packet with sequence number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// COM_QUIT: the client goes; no answer.
    Quit,
    /// COM_INIT_DB: change the default schema.
    InitDb,
    /// COM_QUERY: SQL text.
    Query,
    /// COM_FIELD_LIST: columns of one table.
    FieldList,
    /// COM_REFRESH: flush (MariaDB).
    Refresh,
    /// COM_STATISTICS: one line of text.
    Statistics,
    /// COM_PROCESS_INFO: the process list (MariaDB).
    ProcessInfo,
    /// COM_PROCESS_KILL: kill a connection (MariaDB).
    ProcessKill,
    /// COM_DEBUG: dump debug information to the server's log.
    Debug,
    /// COM_PING.
    Ping,
    /// COM_CHANGE_USER: log in again on this connection.
    ChangeUser,
    /// COM_BINLOG_DUMP: stream the binary log from a file and position.
    BinlogDump,
    /// COM_REGISTER_SLAVE: a replica introduces itself.
    RegisterReplica,
    /// COM_STMT_PREPARE.
    Prepare,
    /// COM_STMT_EXECUTE.
    Execute,
    /// COM_STMT_BULK_EXECUTE (MariaDB).
    BulkExecute,
    /// COM_STMT_SEND_LONG_DATA: no answer.
    SendLongData,
    /// COM_STMT_CLOSE: no answer.
    CloseStatement,
    /// COM_STMT_RESET.
    ResetStatement,
    /// COM_SET_OPTION: multi-statements on or off.
    SetOption,
    /// COM_STMT_FETCH: rows of an open cursor.
    Fetch,
    /// COM_BINLOG_DUMP_GTID: stream the binary log from a GTID set.
    BinlogDumpGtid,
    /// COM_RESET_CONNECTION.
    ResetConnection,
    /// Anything else.
    Unknown(u8),
}

impl From<u8> for Command {
    #[inline]
    fn from(byte: u8) -> Self {
        match byte {
            0x01 => Self::Quit,
            0x02 => Self::InitDb,
            0x03 => Self::Query,
            0x04 => Self::FieldList,
            0x07 => Self::Refresh,
            0x09 => Self::Statistics,
            0x0A => Self::ProcessInfo,
            0x0C => Self::ProcessKill,
            0x0D => Self::Debug,
            0x0E => Self::Ping,
            0x11 => Self::ChangeUser,
            0x12 => Self::BinlogDump,
            0x15 => Self::RegisterReplica,
            0x16 => Self::Prepare,
            0x17 => Self::Execute,
            0x18 => Self::SendLongData,
            0x19 => Self::CloseStatement,
            0x1A => Self::ResetStatement,
            0x1B => Self::SetOption,
            0x1C => Self::Fetch,
            0x1E => Self::BinlogDumpGtid,
            0x1F => Self::ResetConnection,
            0xFA => Self::BulkExecute,
            other => Self::Unknown(other),
        }
    }
}

/// What shape the answer to a command has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// OK, ERR, LOCAL INFILE request or result sets, as to COM_QUERY.
    Results,
    /// The answer to COM_STMT_PREPARE.
    Prepared,
    /// Rows (or column definitions) up to EOF, as to COM_STMT_FETCH and COM_FIELD_LIST.
    Rows,
    /// One packet, whatever is in it.
    OnePacket,
    /// No answer at all.
    Nothing,
}

impl Command {
    /// The shape of this command's answer; COM_BINLOG_DUMP is not relayed by shape (it becomes a byte stream).
    #[inline]
    pub fn answer(self) -> Answer {
        match self {
            Self::Query | Self::Execute | Self::BulkExecute | Self::ProcessInfo => Answer::Results,
            Self::Prepare => Answer::Prepared,
            Self::Fetch | Self::FieldList => Answer::Rows,
            Self::Quit | Self::SendLongData | Self::CloseStatement => Answer::Nothing,
            Self::InitDb
            | Self::Refresh
            | Self::Statistics
            | Self::ProcessKill
            | Self::Debug
            | Self::Ping
            | Self::ChangeUser
            | Self::BinlogDump
            | Self::BinlogDumpGtid
            | Self::RegisterReplica
            | Self::ResetStatement
            | Self::SetOption
            | Self::ResetConnection
            | Self::Unknown(_) => Answer::OnePacket,
        }
    }
}

/// The SQL text of a COM_QUERY payload (command byte included), behind its query attributes if the connection has
/// CLIENT_QUERY_ATTRIBUTES. The payload may be cut short: then what is there of the text is answered.
#[inline]
pub fn query_text(payload: &[u8], query_attributes: bool) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(payload);
    reader.u8()?;
    if !query_attributes {
        return Ok(reader.rest());
    }
    let parameters = reader.lenenc()?;
    let _sets = reader.lenenc()?;
    if parameters == 0 {
        return Ok(reader.rest());
    }
    let count = usize::try_from(parameters).map_err(|_| Malformed("too many query attributes"))?;
    let nulls = reader.take(count.div_ceil(8))?;
    if reader.u8()? != 1 {
        return Err(Malformed("query attributes without their types"));
    }
    // Types and names stand together, before all values: remember where the types are and read twice.
    let mut types = reader;
    for _ in 0..count {
        reader.u16()?;
        reader.lenenc_bytes()?;
    }
    for i in 0..count {
        let kind = types.u16()? as u8;
        types.lenenc_bytes()?;
        if nulls[i / 8] & (1 << (i % 8)) == 0 {
            skip_value(&mut reader, kind)?;
        }
    }
    Ok(reader.rest())
}

/// Reads past one binary protocol value of column type `kind` ("Binary Protocol Value").
pub fn skip_value(reader: &mut Reader<'_>, kind: u8) -> Result<(), Malformed> {
    match kind {
        // NULL
        0x06 => {}
        // TINY, BOOL
        0x01 | 0xF4 => drop(reader.take(1)?),
        // SHORT, YEAR
        0x02 | 0x0D => drop(reader.take(2)?),
        // LONG, INT24, FLOAT
        0x03 | 0x09 | 0x04 => drop(reader.take(4)?),
        // LONGLONG, DOUBLE
        0x08 | 0x05 => drop(reader.take(8)?),
        // DATE, DATETIME, TIMESTAMP, TIME: a length byte, then that many
        0x0A | 0x0C | 0x07 | 0x0B => {
            let n = reader.u8()?;
            reader.take(usize::from(n))?;
        }
        _ => drop(reader.lenenc_bytes()?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_behind_query_attributes() {
        assert_eq!(query_text(b"\x03SELECT 1", false), Ok(&b"SELECT 1"[..]));
        assert_eq!(query_text(b"\x03\x00\x01SELECT 1", true), Ok(&b"SELECT 1"[..]));
        // Two attributes: a = NULL, b = 'xy'.
        let with = b"\x03\x02\x01\x01\x01\x06\x00\x01a\xFD\x00\x01b\x02xySELECT 1";
        assert_eq!(query_text(with, true), Ok(&b"SELECT 1"[..]));
        for cut in 2..with.len() - 8 {
            assert!(query_text(&with[..cut], true).is_err(), "{cut}");
        }
    }
}
