//! `holdfast check --connect`: what the servers say to the accounts of a configuration, before clients ask.
//!
//! Nothing is changed on a server: logins, questions, and a SET of the session's own.

use super::build::{backend_tls, password};
use crate::accounts::Credential;
use crate::backend::{ConnectError, ConnectTarget, Connected, LoginRequest, QueryError, connect, query_text};
use crate::config::{ClusterConfig, Config, Source};
use crate::types::Address;
use crate::wire::err::ErrPacket;
use anyhow::Result;
use bytes::Bytes;
use std::fmt::Write as _;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Longest answer, bytes.
const ANSWER_MAX: usize = 1 << 20;

/// What a server must answer the probing account, and what for.
const QUESTIONS: [(&str, &str); 3] = [
    ("SELECT COUNT(*) FROM performance_schema.replication_group_members", "roles of a group"),
    ("SELECT COUNT(*) FROM performance_schema.replication_connection_status", "who replicates from whom; verdicts"),
    ("SELECT PROCESSLIST_ID FROM performance_schema.threads LIMIT 1", "verdicts on connections that were killed"),
];

/// What it must be allowed besides where a listener has `exactly_once`, in today's words and in those of an older server.
const LOG: [[&str; 2]; 2] = [["SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"], ["SHOW REPLICAS", "SHOW SLAVE HOSTS"]];
/// ER_PARSE_ERROR.
const PARSE_ERROR: u16 = 1064;

/// A client's account, to find out what it may.
pub struct ClientAccount {
    /// Its name.
    pub user: String,
    /// Its password.
    pub credential: Credential,
}

impl ClientAccount {
    /// An account that logs in with this password.
    pub fn new(user: String, password: String) -> Self {
        Self { user, credential: Credential::password(Zeroizing::new(password.into_bytes())) }
    }
}

/// Logs in to every server that the configuration names, with the probing account and with `account`; answers what was
/// found, in words, and whether all of it is well.
pub async fn run(config: &Config, account: Option<&ClientAccount>) -> Result<(String, bool)> {
    let (mut text, mut well) = (String::new(), true);
    for cluster in &config.clusters {
        let _ = writeln!(text, "cluster {}", cluster.name);
        let Some(addresses) = addresses(cluster) else {
            let _ = writeln!(text, "  its servers are pods, which the proxy finds when it runs: not asked");
            continue;
        };
        let tls = Arc::new(backend_tls(cluster)?);
        for address in addresses {
            let target = ConnectTarget {
                address: address.clone(),
                tls: Arc::clone(&tls),
                connect_timeout: cluster.connect_timeout,
            };
            let mut server = Server { target, text: &mut text, well: &mut well };
            let exactly_once = config.listeners.iter().any(|listener| listener.exactly_once);
            server.probe(cluster, exactly_once).await;
            if let Some(account) = account {
                server.let_in(account, exactly_once).await;
            }
        }
    }
    Ok((text, well))
}

fn addresses(cluster: &ClusterConfig) -> Option<Vec<&Address>> {
    match &cluster.source {
        Source::Static { servers } => Some(servers.iter().map(|server| &server.address).collect()),
        Source::Members { seeds } => Some(seeds.iter().collect()),
        Source::Kubernetes(_) => None,
    }
}

struct Server<'a> {
    target: ConnectTarget,
    text: &'a mut String,
    well: &'a mut bool,
}

impl Server<'_> {
    fn say(&mut self, good: bool, words: &str) {
        *self.well &= good;
        let mark = if good { "ok " } else { "BAD" };
        let _ = writeln!(self.text, "  {mark} {}: {words}", self.target.address);
    }

    /// What the probing account may.
    async fn probe(&mut self, cluster: &ClusterConfig, exactly_once: bool) {
        let user = cluster.account.user.as_str();
        let mut connected = match log_in(&self.target, user, &password(cluster)).await {
            Ok(connected) => connected,
            Err(error) => return self.say(false, &format!("{user} can't log in: {}", in_words(&error))),
        };
        let version = connected.server_version.to_string();
        if version.contains("MariaDB") {
            return self.say(true, &format!("{version}, {user} is let in"));
        }
        let flags = "SELECT @@global.gtid_mode, @@global.super_read_only";
        match ask(&mut connected, flags).await {
            Ok(values) => {
                let role = if values.get(1).is_some_and(|v| v == "1") { "read-only" } else { "writable" };
                let mode = values.first().map_or("?", String::as_str);
                self.say(true, &format!("{version}, {role}, gtid_mode={mode}, {user} is let in"));
            }
            Err(error) => self.say(false, &format!("{user} may not ask for {flags}: {error}")),
        }
        for (question, purpose) in QUESTIONS {
            if let Err(error) = ask(&mut connected, question).await {
                self.say(false, &format!("{user} may not see this, which is needed for {purpose}: {error}"));
            }
        }
        if exactly_once {
            self.witness(user, &mut connected).await;
        }
    }

    /// May its binary log be read?
    async fn witness(&mut self, user: &str, connected: &mut Connected) {
        for [today, yesterday] in LOG {
            let answer = match ask(connected, today).await {
                Err(QueryError::Server { code: PARSE_ERROR, .. }) => ask(connected, yesterday).await,
                answer => answer,
            };
            if let Err(error) = answer {
                let grant = format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}@…");
                return self
                    .say(false, &format!("{user} may not read the binary log, so no exactly_once ({grant}): {error}"));
            }
        }
        self.say(true, &format!("{user} may read the binary log, for exactly_once"));
    }

    /// Is the client's account let in, and may it do what its listener is to do for it?
    async fn let_in(&mut self, account: &ClientAccount, exactly_once: bool) {
        let user = account.user.as_str();
        let mut connected = match log_in(&self.target, user, &account.credential).await {
            Ok(connected) => connected,
            Err(error) => return self.say(false, &format!("{user} can't log in: {}", in_words(&error))),
        };
        if !exactly_once {
            return self.say(true, &format!("{user} is let in"));
        }
        let mark = "SET SESSION session_track_gtids=OWN_GTID, SESSION original_commit_timestamp=DEFAULT, \
             SESSION original_server_version=DEFAULT";
        match ask(&mut connected, mark).await {
            Ok(_) => self.say(true, &format!("{user} may mark commits, for exactly_once")),
            Err(error) => {
                let grant = format!("GRANT REPLICATION_APPLIER ON *.* TO {user}@…");
                self.say(false, &format!("{user} may not mark commits, so no exactly_once ({grant}): {error}"));
            }
        }
    }
}

async fn log_in(target: &ConnectTarget, user: &str, credential: &Credential) -> Result<Connected, ConnectError> {
    connect(target, &LoginRequest::own(user, credential)).await
}

/// The first row of the answer.
async fn ask(connected: &mut Connected, sql: &str) -> Result<Vec<String>, QueryError> {
    let rows = query_text(&mut connected.channel, connected.capabilities, sql, ANSWER_MAX).await?;
    let text = |value: Option<Bytes>| String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
    Ok(rows.into_iter().next().unwrap_or_default().into_iter().map(text).collect())
}

/// A refusal in the server's own words.
fn in_words(error: &ConnectError) -> String {
    match error {
        ConnectError::Refused(packet) => match ErrPacket::parse(packet) {
            Ok(refusal) => format!("error {}: {}", refusal.code, String::from_utf8_lossy(refusal.message)),
            Err(_) => error.to_string(),
        },
        other => other.to_string(),
    }
}
