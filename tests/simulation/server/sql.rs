//! The little SQL that a simulated server speaks.

use super::{Conn, Row, Server};
use crate::simulation::cluster;
use crate::simulation::packets::{self, Changes};
use crate::simulation::world::{Event, Time, World};
use bytes::BytesMut;

/// Makes rows longer, so that there is more to be cut.
pub const PADDING: &str = "xxxxxxxxxxxxxxxxxxxxxxxx";
const READ_ONLY: &str =
    "The MySQL server is running with the --super-read-only option so it cannot execute this statement";

/// `None`: the answer comes later.
pub(super) fn statement(w: &mut World, server: usize, thread: u32, sql: &str) -> Option<BytesMut> {
    let sql = sql.rsplit("*/").next().unwrap_or(sql).trim();
    w.note(|| format!("server {server} thread {thread} runs {sql}"));
    if let Some(values) = sql.strip_prefix("INSERT INTO t VALUES (") {
        return insert(w, server, thread, values);
    }
    let conn = w.servers[server].conns.get_mut(&thread)?;
    if let Some(question) = sql.strip_prefix("SELECT WAIT_FOR_EXECUTED_GTID_SET('") {
        let (set, seconds) = question.trim_end_matches(')').split_once("', ")?;
        let until = w.now + (seconds.parse::<f64>().unwrap_or(0.0) * 1e6) as Time;
        conn.busy = true;
        w.at(w.now, Event::Await { server, thread, set: set.to_owned(), until });
        return None;
    }
    let open = conn.open.as_ref().filter(|rows| !rows.is_empty()).cloned();
    let commits = matches!(sql, "BEGIN" | "COMMIT" | "COMMIT AND NO CHAIN NO RELEASE" | "SET autocommit = 1");
    match open.filter(|_| commits) {
        Some(rows) => commit(w, server, thread, (sql, rows)),
        None => Some(at_once(&mut w.servers[server], thread, sql)),
    }
}

/// What is open is committed.
fn commit(w: &mut World, server: usize, thread: u32, (sql, rows): (&str, Vec<Row>)) -> Option<BytesMut> {
    let host = &mut w.servers[server];
    let conn = host.conns.get_mut(&thread)?;
    if host.read_only {
        conn.open = conn.open.take().filter(|_| !sql.starts_with("COMMIT"));
        return Some(packets::err(1290, b"HY000", READ_ONLY));
    }
    (conn.busy, conn.begins, conn.turns_on) = (true, sql == "BEGIN", sql == "SET autocommit = 1");
    conn.autocommit |= conn.turns_on;
    cluster::commit(w, server, thread, rows);
    None
}

/// What is answered without the cluster.
fn at_once(host: &mut Server, thread: u32, sql: &str) -> BytesMut {
    let Some(conn) = host.conns.get_mut(&thread) else { return BytesMut::new() };
    let nothing = Changes::default();
    if let Some(client) = sql.strip_prefix("SELECT n FROM t WHERE c = ") {
        let client: usize = client.parse().unwrap_or(usize::MAX);
        let stored = host.rows.get(&client).into_iter().flatten().copied();
        let own = conn.open.iter().flatten().filter(|(c, _)| *c == client).map(|(_, n)| *n);
        let values: Vec<_> = stored.chain(own).map(|n| Some(format!("{n}:{PADDING}"))).collect();
        return conn.rows(&values);
    }
    if let Some(assignments) = sql.strip_prefix("SET ") {
        return set(conn, assignments);
    }
    match sql {
        "BEGIN" | "START TRANSACTION READ ONLY" => {
            (conn.open, conn.counted, conn.read_only) = (Some(Vec::new()), None, sql != "BEGIN");
            conn.ok(0, &nothing)
        }
        "ROLLBACK" | "COMMIT" | "COMMIT AND NO CHAIN NO RELEASE" => {
            conn.open = None;
            conn.ok(0, &nothing)
        }
        "SELECT COUNT(*) FROM t" => {
            let now = host.rows.values().map(Vec::len).sum::<usize>();
            let count = match &conn.open {
                Some(own) => *conn.counted.get_or_insert(now) + own.len(),
                None => now,
            };
            conn.rows(&[Some(count.to_string())])
        }
        "SELECT @@time_zone" => conn.rows(&[Some(conn.time_zone.clone())]),
        "CREATE TEMPORARY TABLE tmp (x INT)" => {
            conn.temporary = true;
            conn.ok(0, &nothing)
        }
        "SELECT x FROM tmp" if conn.temporary => conn.rows(&[Some("7".to_owned())]),
        "SELECT x FROM tmp" => packets::err(1146, b"42S02", "Table 'tmp' doesn't exist"),
        "SELECT 1" | "SELECT audit(1)" => conn.rows(&[Some("1".to_owned())]),
        _ if sql.starts_with("SELECT IF(LENGTH(@@GLOBAL.gtid_executed)") => conn.rows(&[Some(host.gtids.to_string())]),
        _ => packets::err(1064, b"42000", "You have an error in your SQL syntax"),
    }
}

fn insert(w: &mut World, server: usize, thread: u32, values: &str) -> Option<BytesMut> {
    let host = &mut w.servers[server];
    let conn = host.conns.get_mut(&thread)?;
    let (client, n) = values.trim_end_matches(')').split_once(", ")?;
    let row = (client.parse().ok()?, n.parse().ok()?);
    if host.read_only {
        return Some(packets::err(1290, b"HY000", READ_ONLY));
    }
    if conn.open.is_none() && !conn.autocommit {
        (conn.open, conn.counted) = (Some(Vec::new()), None);
    }
    if let Some(rows) = &mut conn.open {
        if conn.read_only {
            return Some(packets::err(1792, b"25006", "Cannot execute statement in a READ ONLY transaction."));
        }
        rows.push(row);
        return Some(conn.ok(1, &Changes::default()));
    }
    conn.busy = true;
    cluster::commit(w, server, thread, vec![row]);
    None
}

fn set(conn: &mut Conn, assignments: &str) -> BytesMut {
    let mut changes = Changes::default();
    for assignment in assignments.split(", ") {
        let Some((name, value)) = assignment.split_once('=') else { continue };
        let name = name.trim().trim_start_matches("SESSION ").trim();
        let value = value.trim().trim_matches('\'');
        match name {
            "time_zone" => {
                conn.time_zone = value.to_owned();
                changes.variable(name, value);
            }
            "original_commit_timestamp" => conn.stamp = value.parse().ok(),
            "session_track_gtids" => conn.tracks = value == "OWN_GTID",
            "sql_mode" => changes.variable("sql_mode", ""),
            "autocommit" => {
                conn.autocommit = value == "1";
                changes.variable(name, if conn.autocommit { "ON" } else { "OFF" });
            }
            _ => {}
        }
    }
    conn.ok(0, &changes)
}
