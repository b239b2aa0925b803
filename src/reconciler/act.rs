//! One step on one server: the SQL, in the order that keeps every commit safe.
//!
//! Every step is idempotent and within a deadline; a step that can't be finished now fails, and the next look decides anew.
//! What was seen on real servers (9.7):
//! - `super_read_only=ON` hangs behind one commit that waits for semi-sync, and blocks new writes from the moment it hangs;
//! - KILL closes the client's connection but does not free such a commit; turning semi-sync off frees it, and would tell its
//!   client OK. So a forced fence kills all clients in between, those that offline_mode spares (CONNECTION_ADMIN), too.
//! - A planned fence does without offline_mode: that cuts clients whose commits are about to be acknowledged.
//! - `CHANGE REPLICATION SOURCE` throws the relay log away. What of it the new source has, too, is applied first: a commit
//!   may have been acknowledged because it is there.

mod group;

use super::action::{Action, Fencing};
use super::decide::FOR_EVER_MS;
use super::server::{Access, Session, quoted, silence};
use super::snapshot::MemberName;
use crate::backend::QueryError;
use crate::topology::report::Failure;
use crate::types::{Address, GtidSet};
use std::time::Duration;

/// Limit of one step, but for those that copy data or join a group. Stopping the receiver of a frozen source takes 2 s.
const STEP: Duration = Duration::from_secs(10);
/// Limit of joining, founding, forcing or leaving a group.
const JOIN: Duration = Duration::from_secs(120);
/// Limit of a clone.
const CLONE: Duration = Duration::from_secs(6 * 3600);
/// How long readers have before the data under them are replaced.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a step waits for transactions to be applied, seconds; then the next look decides anew.
const APPLY_S: u32 = 3;
/// ER_UNKNOWN_SYSTEM_VARIABLE: the plugin is not installed.
const NO_SUCH_VARIABLE: u16 = 1193;
/// ER_NO_SUCH_THREAD.
const NO_SUCH_THREAD: u16 = 1094;
/// ER_RESTART_SERVER_FAILED: the clone is there; somebody must start the server again.
const RESTART_FAILED: u16 = 3707;

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The server gave no answer, or refused.
    #[error("{}", .0.text)]
    Server(Failure),
    /// The server's error.
    #[error("{0}")]
    Sql(#[from] QueryError),
    /// Not yet: nothing is wrong, but something has to happen first.
    #[error("not yet: {0}")]
    NotYet(&'static str),
    /// The member is not one of the cluster's.
    #[error("there is no member {0}")]
    NoMember(MemberName),
}

impl From<Failure> for ActError {
    fn from(failure: Failure) -> Self {
        Self::Server(failure)
    }
}

/// Does steps on servers.
pub struct Actor<'a> {
    /// As whom.
    pub access: &'a Access,
    /// Where the members are.
    pub members: &'a [(MemberName, Address)],
}

impl Actor<'_> {
    /// Does one step that concerns a server; the others are the record's. Not cancel safe, but idempotent.
    pub async fn act(&self, action: &Action) -> Result<(), ActError> {
        let limit = match action {
            Action::Clone { .. } => CLONE,
            Action::Join { .. } | Action::Bootstrap { .. } | Action::Leave { .. } | Action::ForceMembers { .. } => JOIN,
            _ => STEP,
        };
        match tokio::time::timeout(limit, self.try_act(action)).await {
            Ok(done) => done,
            Err(_) => Err(silence(limit).into()),
        }
    }

    async fn try_act(&self, action: &Action) -> Result<(), ActError> {
        let Some(member) = action.server() else { return Ok(()) };
        let mut server = self.session(member).await?;
        match action {
            Action::Fence { how: Fencing::Planned, .. } => fence(&mut server).await,
            Action::Fence { how: Fencing::Forced, .. } => self.fence_by_force(&mut server, member).await,
            Action::StopReceiver { .. } => Ok(run(&mut server, "STOP REPLICA IO_THREAD").await?),
            Action::CatchUp { source, .. } => self.catch_up(&mut server, source).await,
            Action::Promote { acks, .. } => promote(&mut server, *acks).await,
            Action::Acks { acks, .. } => Ok(set_acks(&mut server, *acks).await?),
            Action::Follow { source, .. } => self.follow(&mut server, source).await,
            Action::Clone { donor, .. } => self.clone_from(&mut server, donor).await,
            Action::Bootstrap { .. } => self.bootstrap(&mut server).await,
            Action::Join { .. } => self.join(&mut server).await,
            Action::Leave { .. } => group::leave(&mut server).await,
            Action::Elect { uuid, .. } => {
                Ok(run(&mut server, &format!("SELECT group_replication_set_as_primary('{uuid}', 5)")).await?)
            }
            Action::ForceMembers { stay, .. } => self.force_members(&mut server, stay).await,
            Action::Claim { .. }
            | Action::Settle { .. }
            | Action::RecordAcks { .. }
            | Action::Announce { .. }
            | Action::Label { .. }
            | Action::Unlabel { .. } => Ok(()),
        }
    }

    /// Has a server read its certificates again: connections that are opened from then on see them. Files that don't fit together
    /// are refused, and it keeps what it had. Needs CONNECTION_ADMIN (manual, ALTER INSTANCE).
    pub async fn read_certificates(&self, member: &MemberName) -> Result<(), ActError> {
        let read = async { Ok(run(&mut self.session(member).await?, "ALTER INSTANCE RELOAD TLS").await?) };
        tokio::time::timeout(STEP, read).await.unwrap_or_else(|_| Err(silence(STEP).into()))
    }

    fn address(&self, member: &MemberName) -> Result<&Address, ActError> {
        let found = self.members.iter().find(|(name, _)| name == member).map(|(_, address)| address);
        found.ok_or_else(|| ActError::NoMember(member.clone()))
    }

    async fn session(&self, member: &MemberName) -> Result<Session, ActError> {
        let mut session = Session::open(self.access, self.address(member)?).await?;
        run(&mut session, "SET SESSION lock_wait_timeout=3").await?;
        Ok(session)
    }

    async fn fence_by_force(&self, server: &mut Session, member: &MemberName) -> Result<(), ActError> {
        run(server, "SET GLOBAL offline_mode=ON").await?;
        let mut other = self.session(member).await?;
        let own = [server.thread_id, other.thread_id];
        let close = run(&mut other, "SET GLOBAL super_read_only=ON");
        let (closed, freed) = tokio::join!(close, free_commits(server, own));
        freed?;
        closed?;
        is_fenced(server).await
    }

    async fn catch_up(&self, server: &mut Session, source: &MemberName) -> Result<(), ActError> {
        let mut source = self.session(source).await?;
        is_fenced(&mut source).await?;
        let all = source.one("SELECT @@global.gtid_executed").await?;
        wait_applied(server, &all).await
    }

    async fn follow(&self, server: &mut Session, source: &MemberName) -> Result<(), ActError> {
        let address = self.address(source)?;
        run(server, "SET GLOBAL super_read_only=ON").await?;
        let certificate = if self.access.replication.certified { own_certificate(server).await? } else { Vec::new() };
        let columns = if certificate.is_empty() { "" } else { ", SSL_CA_FILE, SSL_CERTIFICATE, SSL_KEY" };
        let now = format!(
            "SELECT CONCAT_WS(' ', HOST, PORT{columns}) FROM performance_schema.replication_connection_configuration \
             WHERE CHANNEL_NAME = ''"
        );
        let wanted =
            certificate.iter().fold(format!("{} {}", address.host, address.port), |all, path| all + " " + path);
        let elsewhere = server.one(&now).await? != wanted;
        if elsewhere {
            let mut source = self.session(source).await?;
            apply_shared(server, &mut source).await?;
        }
        run(server, "STOP REPLICA").await?;
        optional(server, "SET GLOBAL rpl_semi_sync_source_enabled=OFF").await?;
        optional(server, "SET GLOBAL rpl_semi_sync_replica_enabled=ON").await?;
        run(server, "SET GLOBAL replica_net_timeout=2").await?;
        if elsewhere {
            let Replicate { user, password } = self.replicate();
            let clauses = ["CA", "CERT", "KEY"].iter().zip(&certificate);
            let shown: String =
                clauses.map(|(clause, path)| format!(", SOURCE_SSL_{clause}={}", quoted(path))).collect();
            let change = format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST={}, SOURCE_PORT={}, SOURCE_USER={user}, \
                 SOURCE_PASSWORD={password}, SOURCE_AUTO_POSITION=1, SOURCE_SSL=1{shown}, SOURCE_CONNECT_RETRY=1, \
                 SOURCE_RETRY_COUNT=0, SOURCE_HEARTBEAT_PERIOD=0.5, GET_SOURCE_PUBLIC_KEY=1",
                quoted(&address.host),
                address.port
            );
            run(server, &change).await?;
        }
        run(server, "START REPLICA").await?;
        Ok(run(server, "SET GLOBAL offline_mode=OFF").await?)
    }

    fn replicate(&self) -> Replicate {
        let account = &self.access.replication;
        Replicate { user: quoted(&account.user), password: quoted(&account.password) }
    }

    async fn clone_from(&self, server: &mut Session, donor: &MemberName) -> Result<(), ActError> {
        let Address { host, port } = self.address(donor)?;
        let Replicate { user, password } = self.replicate();
        run(server, "STOP REPLICA").await?;
        // Who reads here must not see tables vanish: proxies learn of it and go elsewhere, whoever stays is cut off.
        run(server, "SET GLOBAL offline_mode=ON").await?;
        tokio::time::sleep(DRAIN).await;
        cut_clients(server, &[server.thread_id]).await?;
        run(server, &format!("SET GLOBAL clone_valid_donor_list={}", quoted(&format!("{host}:{port}")))).await?;
        // Its data directory is about to be another's: read-only has nothing to protect, and CLONE is refused with it.
        run(server, "SET GLOBAL super_read_only=OFF").await?;
        let clone = format!("CLONE INSTANCE FROM {user}@{}:{port} IDENTIFIED BY {password}", quoted(host));
        match server.query(&clone).await {
            Ok(_) => Ok(()),
            // It goes down by itself where it has a supervisor, and must be sent down where it has none.
            Err(QueryError::Server { code: RESTART_FAILED, .. }) => {
                drop(run(server, "SHUTDOWN").await);
                Ok(())
            }
            Err(error) if error.is_fatal() => Ok(()),
            Err(error) => {
                drop(run(server, "SET GLOBAL super_read_only=ON").await);
                Err(error.into())
            }
        }
    }
}

/// The replication account as SQL literals.
struct Replicate {
    user: String,
    password: String,
}

/// The files that a replica serves with itself and shows to its source: authority, certificate, key.
async fn own_certificate(server: &mut Session) -> Result<Vec<String>, ActError> {
    let mut files = Vec::with_capacity(3);
    for variable in ["ssl_ca", "ssl_cert", "ssl_key"] {
        files.push(server.one(&format!("SELECT @@global.{variable}")).await?);
    }
    Ok(files)
}

async fn run(server: &mut Session, sql: &str) -> Result<(), QueryError> {
    server.query(sql).await.map(drop)
}

/// Sets a variable of a plugin that need not be there.
async fn optional(server: &mut Session, sql: &str) -> Result<(), QueryError> {
    match run(server, sql).await {
        Err(QueryError::Server { code: NO_SUCH_VARIABLE, .. }) => Ok(()),
        done => done,
    }
}

async fn fence(server: &mut Session) -> Result<(), ActError> {
    run(server, "SET GLOBAL super_read_only=ON").await?;
    is_fenced(server).await
}

async fn is_fenced(server: &mut Session) -> Result<(), ActError> {
    match server.one("SELECT CONCAT(@@global.super_read_only, @@global.read_only)").await?.as_str() {
        "11" => Ok(()),
        _ => Err(ActError::NotYet("commits are on their way")),
    }
}

/// While another session closes the server: waits until no new commit can begin, cuts all clients off, lets commits go that
/// wait for acknowledgements.
async fn free_commits(server: &mut Session, own: [u32; 2]) -> Result<(), ActError> {
    for _ in 0..100 {
        if server.one("SELECT @@global.super_read_only").await? == "1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cut_clients(server, &own).await?;
    Ok(optional(server, "SET GLOBAL rpl_semi_sync_source_enabled=OFF").await?)
}

/// Ends the connections of everybody but replicas and ourselves; offline_mode spares those that have CONNECTION_ADMIN.
async fn cut_clients(server: &mut Session, own: &[u32]) -> Result<(), ActError> {
    let clients = "SELECT PROCESSLIST_ID FROM performance_schema.threads WHERE TYPE = 'FOREGROUND' AND PROCESSLIST_ID \
         IS NOT NULL AND PROCESSLIST_COMMAND NOT LIKE 'Binlog Dump%' AND PROCESSLIST_USER <> 'event_scheduler'";
    for row in server.query(clients).await? {
        let id = row.first().cloned().flatten().unwrap_or_default();
        let id = String::from_utf8_lossy(&id).into_owned();
        if own.iter().any(|own| own.to_string() == id) {
            continue;
        }
        match run(server, &format!("KILL {id}")).await {
            Ok(()) | Err(QueryError::Server { code: NO_SUCH_THREAD, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

const RECEIVED: &str =
    "SELECT RECEIVED_TRANSACTION_SET FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME = ''";

/// Waits until all of `gtids` is executed.
async fn wait_applied(server: &mut Session, gtids: &str) -> Result<(), ActError> {
    if gtids.is_empty() {
        return Ok(());
    }
    let wait = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET({}, {APPLY_S})", quoted(gtids));
    match server.one(&wait).await?.as_str() {
        "0" => Ok(()),
        _ => Err(ActError::NotYet("transactions are still being applied")),
    }
}

async fn promote(server: &mut Session, acks: u32) -> Result<(), ActError> {
    let received = server.one(RECEIVED).await?;
    if !received.is_empty() {
        run(server, "STOP REPLICA IO_THREAD").await?;
        run(server, "START REPLICA SQL_THREAD").await?;
        // Once more: it may have received something until it stopped.
        let received = server.one(RECEIVED).await?;
        wait_applied(server, &received).await?;
    }
    run(server, "STOP REPLICA").await?;
    run(server, "RESET REPLICA ALL").await?;
    optional(server, "SET GLOBAL rpl_semi_sync_replica_enabled=OFF").await?;
    set_acks(server, acks).await?;
    run(server, "SET GLOBAL super_read_only=OFF").await?;
    run(server, "SET GLOBAL read_only=OFF").await?;
    Ok(run(server, "SET GLOBAL offline_mode=OFF").await?)
}

async fn set_acks(server: &mut Session, acks: u32) -> Result<(), QueryError> {
    if acks == 0 {
        return optional(server, "SET GLOBAL rpl_semi_sync_source_enabled=OFF").await;
    }
    run(server, &format!("SET GLOBAL rpl_semi_sync_source_timeout={FOR_EVER_MS}")).await?;
    run(server, &format!("SET GLOBAL rpl_semi_sync_source_wait_for_replica_count={acks}")).await?;
    run(server, "SET GLOBAL rpl_semi_sync_source_enabled=ON").await
}

/// Applies what is in the relay log and on `source`, too, before the relay log goes.
async fn apply_shared(server: &mut Session, source: &mut Session) -> Result<(), ActError> {
    if server.one(RECEIVED).await?.is_empty() {
        return Ok(());
    }
    run(server, "STOP REPLICA IO_THREAD").await?;
    let unreadable = |_| ActError::NotYet("its GTIDs were not understood");
    let received: GtidSet = server.one(RECEIVED).await?.parse().map_err(unreadable)?;
    let executed: GtidSet = server.one("SELECT @@global.gtid_executed").await?.parse().map_err(unreadable)?;
    let theirs: GtidSet = source.one("SELECT @@global.gtid_executed").await?.parse().map_err(unreadable)?;
    let foreign = received.subtract(&theirs).subtract(&executed);
    if foreign.is_empty() {
        run(server, "START REPLICA SQL_THREAD").await?;
        return wait_applied(server, &received.to_string()).await;
    }
    let shared = received.subtract(&foreign).subtract(&executed);
    if shared.is_empty() {
        return Ok(());
    }
    let shared = shared.to_string();
    run(server, "STOP REPLICA SQL_THREAD").await?;
    run(server, &format!("START REPLICA SQL_THREAD UNTIL SQL_AFTER_GTIDS = {}", quoted(&shared))).await?;
    wait_applied(server, &shared).await
}
