//! Asks all members at once what they are, each within its deadline.
//!
//! One connection per member stays open between two looks, so that a look is one round trip, and so that the death of a server
//! shows at once ([`Observer::somebody_left`]). A connection that breaks is opened again within the same look: somebody may
//! have killed just this one.

use super::server::{Access, Session, failure, silence};
use super::snapshot::{Answer, Channel, GroupMember, GroupSight, MemberName, Semisync};
use crate::backend::Rows;
use crate::topology::report::{Failure, FailureKind, MemberState, Receiver};
use crate::types::{Address, GtidSet, Uuid};
use bytes::Bytes;
use futures_util::future::{join_all, select_all};
use std::collections::HashMap;

/// Rows of one letter and up to six values; the letter says what they are. Plugins that are not installed have no variables.
/// InnoDB's own thread for GTIDs keeps the state of its last commit for ever: only FOREGROUND threads wait. 9.x answers in
/// about 2 ms.
const QUESTION: &str = "SELECT 'v', @@global.server_uuid, @@global.gtid_executed, @@global.gtid_purged, \
     CONCAT(@@global.read_only, @@global.super_read_only, @@global.offline_mode), NULL, NULL, NULL \
     UNION ALL SELECT 's', VARIABLE_NAME, VARIABLE_VALUE, NULL, NULL, NULL, NULL, NULL \
     FROM performance_schema.global_variables WHERE VARIABLE_NAME IN ('rpl_semi_sync_source_enabled', \
     'rpl_semi_sync_source_wait_for_replica_count', 'rpl_semi_sync_source_timeout', 'rpl_semi_sync_replica_enabled', \
     'group_replication_group_name') \
     UNION ALL SELECT 's', VARIABLE_NAME, VARIABLE_VALUE, NULL, NULL, NULL, NULL, NULL \
     FROM performance_schema.global_status WHERE VARIABLE_NAME IN \
     ('Rpl_semi_sync_source_clients', 'Rpl_semi_sync_source_wait_sessions') \
     UNION ALL SELECT 'c', s.SOURCE_UUID, c.HOST, c.PORT, s.SERVICE_STATE, s.RECEIVED_TRANSACTION_SET, a.SERVICE_STATE, \
     (SELECT NULLIF(GROUP_CONCAT(DISTINCT w.LAST_ERROR_MESSAGE), '') FROM \
     performance_schema.replication_applier_status_by_worker w WHERE w.CHANNEL_NAME = '' AND w.LAST_ERROR_NUMBER <> 0) \
     FROM performance_schema.replication_connection_status s \
     JOIN performance_schema.replication_connection_configuration c ON c.CHANNEL_NAME = s.CHANNEL_NAME \
     JOIN performance_schema.replication_applier_status a ON a.CHANNEL_NAME = s.CHANNEL_NAME WHERE s.CHANNEL_NAME = '' \
     UNION ALL SELECT 'b', TIMESTAMPDIFF(SECOND, GREATEST(LAST_HEARTBEAT_TIMESTAMP, \
     LAST_QUEUED_TRANSACTION_END_QUEUE_TIMESTAMP), NOW(6)), NULL, NULL, NULL, NULL, NULL, NULL \
     FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME = '' \
     UNION ALL SELECT 'r', RECEIVED_TRANSACTION_SET, NULL, NULL, NULL, NULL, NULL, NULL \
     FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME = 'group_replication_applier' \
     UNION ALL SELECT 'm', MEMBER_ID, MEMBER_STATE, MEMBER_ROLE, NULL, NULL, NULL, NULL \
     FROM performance_schema.replication_group_members \
     UNION ALL SELECT 'h', COUNT(*), NULL, NULL, NULL, NULL, NULL, NULL FROM performance_schema.threads \
     WHERE TYPE = 'FOREGROUND' AND PROCESSLIST_STATE = 'waiting for handler commit' AND PROCESSLIST_TIME >= 2";

/// A source that lives is heard every half a second; a transaction that takes longer to come is one of gigabytes. Seconds.
const SILENCE_S: i64 = 10;

/// Asked where a commit hangs in the server itself: EE_DISK_FULL_WITH_RETRY_MSG, which is said as soon as a write finds no room
/// and repeated every 600 s for as long as there is none (8.0.22). That there is room again is not said: a commit that began
/// behind it hangs for another reason.
const DISK_FULL: &str = "SELECT COUNT(*) FROM performance_schema.error_log e JOIN performance_schema.threads t WHERE \
     e.ERROR_CODE = 'MY-000035' AND e.LOGGED > NOW(6) - INTERVAL 601 SECOND AND t.TYPE = 'FOREGROUND' AND \
     t.PROCESSLIST_STATE = 'waiting for handler commit' AND NOW(6) - INTERVAL t.PROCESSLIST_TIME + 1 SECOND <= e.LOGGED";

/// Connections to all members.
#[derive(Default)]
pub struct Observer {
    sessions: HashMap<MemberName, (Address, Session)>,
}

/// What a member says, or why it says nothing.
pub type Sight = Result<Box<Answer>, Failure>;

impl Observer {
    /// Asks all of them; the answers are in their order. Not cancel safe: a cancelled look drops its connections.
    pub async fn look(&mut self, access: &Access, members: &[(MemberName, Address)]) -> Vec<Sight> {
        let mut used = std::mem::take(&mut self.sessions);
        let questions = members.iter().map(|(name, address)| {
            let session = used.remove(name).filter(|(before, _)| before == address).map(|(_, session)| session);
            question(access, address, session)
        });
        let answers = join_all(questions.collect::<Vec<_>>()).await;
        let mut sights = Vec::with_capacity(members.len());
        for ((name, address), (session, sight)) in members.iter().zip(answers) {
            if let Some(session) = session {
                self.sessions.insert(name.clone(), (address.clone(), session));
            }
            sights.push(sight);
        }
        sights
    }

    /// Ends when a server closes its connection. Cancel safe.
    pub async fn somebody_left(&mut self) {
        let closed = self.sessions.values_mut().map(|(_, session)| Box::pin(session.closed()));
        let closed: Vec<_> = closed.collect();
        if closed.is_empty() {
            return std::future::pending().await;
        }
        select_all(closed).await;
    }

    /// Drops the connection to this member: what was done to it may have ended it.
    pub fn forget(&mut self, member: &MemberName) {
        self.sessions.remove(member);
    }
}

/// One member's answer; its session, if it can be used again.
async fn question(access: &Access, address: &Address, session: Option<Session>) -> (Option<Session>, Sight) {
    if address.host.is_empty() {
        return (None, Err(Failure { kind: FailureKind::Silent, text: "there is no pod of it".into() }));
    }
    let mut kept = None;
    let asked = tokio::time::timeout(access.deadline, try_question(access, address, session, &mut kept)).await;
    match asked {
        Ok(sight) => (kept.filter(|_| sight.is_ok()), sight),
        Err(_) => (None, Err(silence(access.deadline))),
    }
}

async fn try_question(
    access: &Access,
    address: &Address,
    session: Option<Session>,
    kept: &mut Option<Session>,
) -> Sight {
    if let Some(session) = session {
        match kept.insert(session).query(QUESTION).await {
            Ok(rows) => return judged(read(&rows)?, kept).await,
            Err(error) if failure(&error).kind != FailureKind::Gone => return Err(failure(&error)),
            Err(_) => *kept = None,
        }
    }
    let session = kept.insert(Session::open(access, address).await?);
    let rows = session.query(QUESTION).await.map_err(|error| failure(&error))?;
    judged(read(&rows)?, kept).await
}

/// Where commits hang for no other reason, asks whether the disk is full; a server that can't tell has room.
async fn judged(answer: Answer, kept: &mut Option<Session>) -> Sight {
    if !answer.full || answer.semisync.waiting > 0 {
        return Ok(Box::new(Answer { full: false, ..answer }));
    }
    let Some(session) = kept else { return Ok(Box::new(Answer { full: false, ..answer })) };
    let full = session.one(DISK_FULL).await.is_ok_and(|count| count != "0");
    Ok(Box::new(Answer { full, ..answer }))
}

/// Reads the answer; a row that is not understood is an error, never a default.
fn read(rows: &Rows) -> Result<Answer, Failure> {
    read_rows(rows).ok_or_else(|| {
        let text = "its answer about itself was not understood".into();
        Failure { kind: FailureKind::Barred, text }
    })
}

fn read_rows(rows: &Rows) -> Option<Answer> {
    let mut answer = None;
    let mut semisync = Semisync::default();
    let (mut channel, mut members, mut received, mut grouped) = (None, Vec::new(), GtidSet::default(), false);
    let (mut full, mut silent) = (false, false);
    for row in rows {
        match text(row, 0)? {
            "v" => answer = Some(read_server(row)?),
            "s" => match text(row, 1)?.to_ascii_lowercase().as_str() {
                "group_replication_group_name" => grouped = text(row, 2).is_some_and(|name| !name.is_empty()),
                name => read_semisync(name, text(row, 2)?, &mut semisync)?,
            },
            "c" => channel = Some(read_channel(row)?),
            // NULL: nothing was heard yet, for it has only begun.
            "b" => {
                silent = text(row, 1).and_then(|age_s| age_s.parse::<i64>().ok()).is_some_and(|age_s| age_s > SILENCE_S)
            }
            "h" => full = text(row, 1)? != "0",
            "r" => received = text(row, 1)?.parse().ok()?,
            // A server that never was in a group has one line without a name.
            "m" if text(row, 1)?.is_empty() => {}
            "m" => members.push(GroupMember {
                uuid: text(row, 1)?.parse().ok()?,
                state: MemberState::parse(text(row, 2)?)?,
                primary: text(row, 3)? == "PRIMARY",
            }),
            _ => return None,
        }
    }
    let channel = channel.map(|channel| Channel { silent, ..channel });
    let group = grouped.then_some(GroupSight { members, received });
    Some(Answer { semisync, channel, group, full, ..answer? })
}

fn text(row: &[Option<Bytes>], column: usize) -> Option<&str> {
    std::str::from_utf8(row.get(column)?.as_deref()?).ok()
}

fn read_server(row: &[Option<Bytes>]) -> Option<Answer> {
    let &[read_only, super_read_only, offline] = text(row, 4)?.as_bytes() else { return None };
    Some(Answer {
        uuid: text(row, 1)?.parse().ok()?,
        executed: text(row, 2)?.parse().ok()?,
        purged: text(row, 3)?.parse().ok()?,
        read_only: read_only != b'0',
        super_read_only: super_read_only != b'0',
        offline: offline != b'0',
        full: false,
        channel: None,
        semisync: Semisync::default(),
        group: None,
    })
}

fn read_semisync(name: &str, value: &str, semisync: &mut Semisync) -> Option<()> {
    match name {
        "rpl_semi_sync_source_enabled" => semisync.source = value == "ON",
        "rpl_semi_sync_source_wait_for_replica_count" => semisync.acks = value.parse().ok()?,
        "rpl_semi_sync_source_timeout" => semisync.timeout_ms = value.parse().ok()?,
        "rpl_semi_sync_replica_enabled" => semisync.replica = value == "ON",
        "rpl_semi_sync_source_clients" => semisync.clients = value.parse().ok()?,
        "rpl_semi_sync_source_wait_sessions" => semisync.waiting = value.parse().ok()?,
        _ => return None,
    }
    Some(())
}

fn read_channel(row: &[Option<Bytes>]) -> Option<Channel> {
    let uuid = text(row, 1).filter(|uuid| !uuid.is_empty());
    let host = text(row, 2).filter(|host| !host.is_empty());
    let port: u16 = text(row, 3)?.parse().ok()?;
    Some(Channel {
        source_uuid: match uuid {
            Some(uuid) => Some(uuid.parse::<Uuid>().ok()?),
            None => None,
        },
        source: host.map(|host| Address { host: host.into(), port }),
        receiver: match text(row, 4)? {
            "ON" => Receiver::On,
            "CONNECTING" => Receiver::Connecting,
            "OFF" => Receiver::Off,
            _ => return None,
        },
        received: text(row, 5)?.parse().ok()?,
        silent: false,
        applying: text(row, 6)? == "ON",
        error: text(row, 7).map(Into::into),
    })
}
