//! What one server is asked and how its answer is read: the SQL, the rows, and what each error means.
//!
//! One question is one round trip on MySQL (a UNION, so that flags, group view and channels come together) and two on
//! MariaDB, whose SHOW can't be part of a SELECT. Values come from a server and are read with suspicion: a row that is not
//! understood is an error, never a default.

use super::report::{Channel, Failure, FailureKind, GroupView, Member, MemberState, Receiver, Report, ServerGreeting};
use super::snapshot::Flavor;
use crate::backend::{ConnectError, QueryError, Rows, query_text};
use crate::transport;
use crate::types::{Address, Gtids};
use crate::wire::capabilities::Capabilities;
use crate::wire::err::ErrPacket;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// A connection that asks, and what was learned when it was opened.
pub(super) struct Asker {
    pub(super) channel: transport::Channel,
    pub(super) capabilities: Capabilities,
    pub(super) greeting: Arc<ServerGreeting>,
    /// The server is set up for group replication, as of the start of this connection.
    pub(super) group_configured: bool,
    /// Longest answer taken, bytes.
    pub(super) limit: usize,
}

/// Is the server set up for group replication? Reading global_variables is slow (1 ms), so it is asked once per connection.
const GROUP_NAME: &str = "SELECT VARIABLE_VALUE FROM performance_schema.global_variables \
     WHERE VARIABLE_NAME = 'group_replication_group_name'";

/// Without gtid_mode=ON the set stands still while the server writes: it would show no lag, ever.
const MYSQL: &str = "SELECT 'v', @@global.server_uuid, @@global.server_id, \
     CONCAT(@@global.read_only, @@global.super_read_only, @@global.offline_mode), \
     IF(@@global.gtid_mode = 'ON' AND LENGTH(@@global.gtid_executed) <= {LIMIT}, @@global.gtid_executed, NULL), NULL \
     UNION ALL SELECT 'm', MEMBER_ID, MEMBER_HOST, MEMBER_STATE, MEMBER_ROLE, MEMBER_PORT \
     FROM performance_schema.replication_group_members \
     UNION ALL SELECT 'c', s.SOURCE_UUID, c.HOST, s.SERVICE_STATE, s.CHANNEL_NAME, c.PORT \
     FROM performance_schema.replication_connection_status s \
     JOIN performance_schema.replication_connection_configuration c ON c.CHANNEL_NAME = s.CHANNEL_NAME \
     WHERE s.CHANNEL_NAME NOT IN ('group_replication_applier', 'group_replication_recovery')";

const MARIADB: &str = "SELECT @@global.server_id, @@global.read_only, IF(LENGTH(@@global.gtid_current_pos) <= {LIMIT}, @@global.gtid_current_pos, NULL)";
const MARIADB_CHANNELS: &str = "SHOW ALL SLAVES STATUS";

/// Positions in SHOW ALL SLAVES STATUS of 10.11: Master_Host, Master_Port, Slave_IO_Running, Master_Server_Id.
const SLAVE_COLUMNS: [usize; 4] = [3, 5, 12, 41];

impl Asker {
    /// Learns what does not change while a connection lives.
    pub(super) async fn prepare(&mut self) -> Result<(), Failure> {
        if self.greeting.flavor == Flavor::MySql {
            let rows = self.query(GROUP_NAME).await?;
            self.group_configured = rows.first().and_then(|row| text(row, 0)).is_some_and(|name| !name.is_empty());
        }
        Ok(())
    }

    /// Asks the server about itself. Not cancel safe: after a cancelled question the connection must be closed.
    pub(super) async fn ask(&mut self) -> Result<Report, Failure> {
        let limit = (self.limit / 2).to_string();
        match self.greeting.flavor {
            Flavor::MySql => {
                let rows = self.query(&MYSQL.replace("{LIMIT}", &limit)).await?;
                read_mysql(&rows, &self.greeting, self.group_configured).ok_or_else(not_understood)
            }
            Flavor::MariaDb => {
                let rows = self.query(&MARIADB.replace("{LIMIT}", &limit)).await?;
                let channels = self.query(MARIADB_CHANNELS).await?;
                read_mariadb(&rows, &channels, &self.greeting).ok_or_else(not_understood)
            }
        }
    }

    async fn query(&mut self, sql: &str) -> Result<Rows, Failure> {
        query_text(&mut self.channel, self.capabilities, sql, self.limit)
            .await
            .map_err(|error| query_failure(&error, self.greeting.flavor))
    }
}

fn not_understood() -> Failure {
    Failure { kind: FailureKind::Barred, text: "its answer about itself was not understood".into() }
}

fn text(row: &[Option<Bytes>], column: usize) -> Option<&str> {
    std::str::from_utf8(row.get(column)?.as_deref()?).ok()
}

fn address(host: Option<&str>, port: Option<&str>) -> Option<Address> {
    let host = host.filter(|host| !host.is_empty() && *host != "<NULL>")?;
    let port = port?.parse().ok().filter(|port| *port != 0)?;
    Some(Address { host: host.into(), port })
}

fn uuid(text: Option<&str>) -> Option<Arc<str>> {
    text.filter(|uuid| !uuid.is_empty()).map(|uuid| uuid.to_ascii_lowercase().into())
}

fn read_mysql(rows: &Rows, greeting: &Arc<ServerGreeting>, group_configured: bool) -> Option<Report> {
    let mut report = None;
    let mut view = GroupView::default();
    let mut channels = Vec::new();
    for row in rows {
        match text(row, 0)? {
            "v" => {
                let flags = text(row, 3)?.as_bytes();
                let &[read_only, super_read_only, offline] = flags else { return None };
                let gtids = match text(row, 4) {
                    Some(set) => Some(Arc::new(Gtids::MySql(set.parse().ok()?))),
                    None => None,
                };
                report = Some(Report {
                    server_uuid: Some(uuid(text(row, 1))?),
                    server_id: text(row, 2)?.parse().ok()?,
                    read_only: read_only != b'0' || super_read_only != b'0',
                    offline: offline != b'0',
                    gtids,
                    group: None,
                    channels: Vec::new(),
                    greeting: greeting.clone(),
                });
            }
            "m" => view.members.push(Member {
                uuid: uuid(text(row, 1)).unwrap_or_else(|| "".into()),
                address: address(text(row, 2), text(row, 5)),
                state: MemberState::parse(text(row, 3)?)?,
                primary: text(row, 4)? == "PRIMARY",
            }),
            "c" => channels.push(Channel {
                source_uuid: uuid(text(row, 1)),
                source_server_id: None,
                source: address(text(row, 2), text(row, 5)),
                receiver: match text(row, 3)? {
                    "ON" => Receiver::On,
                    "CONNECTING" => Receiver::Connecting,
                    "OFF" => Receiver::Off,
                    _ => return None,
                },
            }),
            _ => return None,
        }
    }
    let mut report = report?;
    let in_group = view.members.iter().any(|member| member.state != MemberState::Offline);
    report.group = (group_configured || in_group).then_some(view);
    report.channels = channels;
    Some(report)
}

fn read_mariadb(rows: &Rows, slaves: &Rows, greeting: &Arc<ServerGreeting>) -> Option<Report> {
    let row = rows.first()?;
    let gtids = match text(row, 2) {
        Some(position) => Some(Arc::new(Gtids::MariaDb(position.parse().ok()?))),
        None => None,
    };
    let [host, port, running, id] = SLAVE_COLUMNS;
    let channel = |row: &Vec<Option<Bytes>>| {
        Some(Channel {
            source_uuid: None,
            source_server_id: text(row, id)?.parse().ok().filter(|id| *id != 0),
            source: address(text(row, host), text(row, port)),
            receiver: match text(row, running)? {
                "Yes" => Receiver::On,
                "Connecting" | "Preparing" => Receiver::Connecting,
                "No" => Receiver::Off,
                _ => return None,
            },
        })
    };
    Some(Report {
        server_uuid: None,
        server_id: text(row, 0)?.parse().ok()?,
        // 0, or in newer series a word (OFF, READ_ONLY, ...).
        read_only: !matches!(text(row, 1)?, "0" | "OFF"),
        offline: false,
        gtids,
        group: None,
        channels: slaves.iter().map(channel).collect::<Option<_>>()?,
        greeting: greeting.clone(),
    })
}

/// What a failed question means. After all of these but a server's own error the connection is of no use.
pub(crate) fn query_failure(error: &QueryError, flavor: Flavor) -> Failure {
    let kind = match error {
        // Broken: the prober opens another connection before it believes that nobody is there.
        QueryError::Broken(_) => FailureKind::Gone,
        QueryError::Server { code, .. } => server_error(*code),
        QueryError::Protocol(_) | QueryError::TooLong { .. } => FailureKind::Barred,
    };
    let advice = match (error, flavor) {
        (QueryError::Server { code: 1142 | 1143 | 1044, .. }, Flavor::MySql) => {
            "; the account needs SELECT ON performance_schema.*"
        }
        (QueryError::Server { code: 1227, .. }, Flavor::MariaDb) => {
            "; the account needs SLAVE MONITOR (REPLICA MONITOR)"
        }
        _ => "",
    };
    Failure { kind, text: format!("{error}{advice}").into() }
}

/// What a failed connection means.
pub(crate) fn connect_failure(error: &ConnectError) -> Failure {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    let kind = match error {
        ConnectError::Unreachable(error) => match error.kind() {
            ConnectionRefused | ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => FailureKind::Gone,
            _ => FailureKind::Silent,
        },
        ConnectError::Timeout(_) | ConnectError::Overtaken | ConnectError::Exhausted(_) => FailureKind::Silent,
        ConnectError::Refused(packet) => match ErrPacket::parse(packet) {
            Ok(error) => server_error(error.code),
            Err(_) => FailureKind::Barred,
        },
        ConnectError::CredentialInsufficient
        | ConnectError::Tls(_)
        | ConnectError::Protocol(_)
        | ConnectError::UnsupportedPlugin(_)
        | ConnectError::Insecure(_) => FailureKind::Barred,
    };
    Failure { kind, text: error.to_string().into() }
}

/// Server errors: going down is gone, full or interrupted is silent, everything else refuses.
fn server_error(code: u16) -> FailureKind {
    match code {
        // ER_SERVER_SHUTDOWN
        1053 => FailureKind::Gone,
        // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED, ER_QUERY_INTERRUPTED, ER_QUERY_TIMEOUT
        1040 | 1203 | 1226 | 1317 | 3024 => FailureKind::Silent,
        _ => FailureKind::Barred,
    }
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
