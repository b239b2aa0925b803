//! The way to one server: a connection that is logged in, small questions, and what their failures mean.

use crate::accounts::Credential;
use crate::backend::{ConnectTarget, LoginRequest, QueryError, Rows, connect, query_text};
use crate::tls::BackendTls;
use crate::topology::ask::{connect_failure, query_failure};
use crate::topology::report::{Failure, FailureKind};
use crate::topology::snapshot::Flavor;
use crate::transport::Channel;
use crate::types::Address;
use crate::wire::capabilities::Capabilities;
use std::sync::Arc;
use std::time::Duration;

/// Longest answer taken, bytes. A GTID set is far shorter unless somebody writes with random ids.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Who logs in to the servers, and as whom they log in to each other.
#[derive(Clone)]
pub struct Access {
    /// The reconciler's account: it needs SYSTEM_VARIABLES_ADMIN, REPLICATION_SLAVE_ADMIN, CONNECTION_ADMIN, CLONE_ADMIN,
    /// GROUP_REPLICATION_ADMIN, SHUTDOWN and SELECT on performance_schema.
    pub user: Arc<str>,
    /// Its password.
    pub credential: Credential,
    /// TLS towards the servers.
    pub tls: Arc<BackendTls>,
    /// The replication account: REPLICATION SLAVE, BACKUP_ADMIN and CONNECTION_ADMIN, or offline_mode cuts replication.
    pub replication: Replication,
    /// Limit of one question, connecting included.
    pub deadline: Duration,
}

/// The replication account.
#[derive(Clone)]
pub struct Replication {
    /// Its name.
    pub user: Arc<str>,
    /// Its password.
    pub password: Arc<str>,
    /// It logs in with the certificate that the server serves with, and only to servers of the same authority.
    pub certified: bool,
}

/// A connection to one server.
pub struct Session {
    channel: Channel,
    capabilities: Capabilities,
    /// The server's id of it, for KILL.
    pub thread_id: u32,
}

impl Session {
    /// Connects and logs in.
    pub async fn open(access: &Access, address: &Address) -> Result<Self, Failure> {
        let target =
            ConnectTarget { address: address.clone(), tls: access.tls.clone(), connect_timeout: access.deadline };
        let login = LoginRequest::own(&access.user, &access.credential);
        let connected = connect(&target, &login).await.map_err(|error| connect_failure(&error))?;
        Ok(Self { channel: connected.channel, capabilities: connected.capabilities, thread_id: connected.thread_id })
    }

    /// Asks one statement. Not cancel safe: after a cancelled one the session must be dropped.
    pub async fn query(&mut self, sql: &str) -> Result<Rows, QueryError> {
        query_text(&mut self.channel, self.capabilities, sql, ANSWER_BYTES_MAX).await
    }

    /// The first value of the first row as text; empty for NULL and where there is none.
    pub async fn one(&mut self, sql: &str) -> Result<String, QueryError> {
        let rows = self.query(sql).await?;
        let value = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default();
        Ok(String::from_utf8_lossy(&value).into_owned())
    }

    /// Ends when the server closes the connection; a server says nothing unasked but why it does. Cancel safe.
    pub async fn closed(&mut self) {
        drop(self.channel.fill().await);
    }
}

/// What a failed question means.
pub fn failure(error: &QueryError) -> Failure {
    query_failure(error, Flavor::MySql)
}

/// No answer in time.
pub fn silence(limit: Duration) -> Failure {
    Failure { kind: FailureKind::Silent, text: format!("no answer within {limit:?}").into() }
}

/// `text` as an SQL string literal; the reconciler's sessions have the server's default sql_mode, so both quotes and
/// backslashes are doubled.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
