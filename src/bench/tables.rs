//! The database of a measurement: made before each run, checked after it, dropped in the end.
//!
//! It is read where the primary is: on the server that says so, else through the port inside a transaction, which every
//! proxy leads to the primary.

use super::args::Plan;
use super::client::{Client, Target, text};
use super::error::BenchError;
use super::fault::Fault;
use super::ledger::{Audit, Ledger, Verdict};
use super::record::{Write, Written};
use super::report::{Agreement, Class, ServerState};
use super::servers::Server;
use super::workload::{SEEDS, insert};
use bytes::Bytes;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

type Row = Vec<Option<Bytes>>;

/// Rows read at once when writes are checked.
const PAGE: u64 = 10_000;
/// Limit for the servers to have the first rows, and to agree in the end.
const AGREE: Duration = Duration::from_secs(15);
/// A server that does not answer within this is away.
const SILENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Makes the database with its tables and first rows. Answers the server_id of who wrote them: the primary.
pub async fn create(plan: &Plan) -> Result<Option<u64>, BenchError> {
    let failed = |what| move |fault| BenchError::Target { address: plan.target.address.clone(), what, fault };
    let mut link = Client::open(&plan.target, None).await.map_err(failed("logging in"))?;
    let db = &plan.database;
    let foreign = format!(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{db}' \
         AND table_name NOT IN ('writes', 'counters', 'direct')"
    );
    let foreign = on_primary(&mut link, &foreign).await.map_err(failed("looking for the database"))?;
    if foreign.as_deref() != Some("0") {
        return Err(BenchError::ForeignDatabase(db.clone()));
    }
    for sql in [
        format!("DROP DATABASE IF EXISTS `{db}`"),
        format!("CREATE DATABASE `{db}`"),
        format!("USE `{db}`"),
        "CREATE TABLE writes (client INT UNSIGNED NOT NULL, seq BIGINT UNSIGNED NOT NULL, server BIGINT UNSIGNED NOT NULL, \
         PRIMARY KEY (client, seq)) ENGINE=InnoDB"
            .to_owned(),
        "CREATE TABLE counters (client INT UNSIGNED NOT NULL PRIMARY KEY, n BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB"
            .to_owned(),
        "CREATE TABLE direct (server BIGINT UNSIGNED NOT NULL PRIMARY KEY) ENGINE=InnoDB".to_owned(),
    ] {
        link.query(&sql).await.map_err(failed("making the database"))?;
    }
    let filling = failed("writing the first rows");
    for client in 1..=plan.clients[Class::Write as usize] {
        link.query(&format!("INSERT INTO counters VALUES ({client}, 0)")).await.map_err(filling)?;
    }
    for number in 1..=SEEDS {
        link.query(&insert(0, number)).await.map_err(filling)?;
    }
    let writer = on_primary(&mut link, "SELECT server FROM writes WHERE client = 0 AND seq = 1").await;
    Ok(writer.map_err(filling)?.and_then(|id| id.parse().ok()))
}

/// Drops it.
pub async fn drop_database(plan: &Plan) -> Result<(), BenchError> {
    let failed =
        |fault| BenchError::Target { address: plan.target.address.clone(), what: "dropping the database", fault };
    let mut link = Client::open(&plan.target, None).await.map_err(failed)?;
    link.query(&format!("DROP DATABASE IF EXISTS `{}`", plan.database)).await.map_err(failed)?;
    Ok(())
}

/// A value as the primary has it.
async fn on_primary(link: &mut Client, sql: &str) -> Result<Option<String>, Fault> {
    link.query("BEGIN").await?;
    let value = link.value(sql).await?;
    link.query("COMMIT").await?;
    Ok(value)
}

/// Waits until every server has the first rows.
pub async fn wait_copied(plan: &Plan, servers: &[Server]) -> Result<(), BenchError> {
    let began = Instant::now();
    for server in servers {
        loop {
            match summary(&server.target, &plan.database).await {
                Ok(summary) if summary.starts_with(&format!("{SEEDS} ")) => break,
                Ok(_) if began.elapsed() < AGREE => {}
                // ER_BAD_DB_ERROR, ER_NO_SUCH_TABLE: they are on their way.
                Err(fault) if matches!(fault.code, 1049 | 1146) && began.elapsed() < AGREE => {}
                Ok(_) => {
                    return Err(BenchError::NotReady(format!(
                        "server {} has not the first rows after {AGREE:?}: does it follow the primary?",
                        server.address()
                    )));
                }
                Err(fault) => {
                    let address = server.address().clone();
                    return Err(BenchError::Server { address, what: "waiting for the first rows", fault });
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Number of rows, and sums that differ where rows do.
async fn summary(target: &Target, database: &str) -> Result<String, Fault> {
    let target = Target { statement_timeout: SILENCE, ..target.clone() };
    let mut link = Client::open(&target, None).await?;
    let sql = format!(
        "SELECT CONCAT(COUNT(*), ' ', COALESCE(SUM(seq * (client + 1)), 0), ' ', COALESCE(SUM(seq * seq), 0), ' ', \
         (SELECT COALESCE(SUM(n * (client + 1)), 0) FROM `{database}`.counters)) FROM `{database}`.writes"
    );
    Ok(link.value(&sql).await?.unwrap_or_default())
}

/// What the check found.
pub struct Checked {
    /// What became of the writes.
    pub verdict: Verdict,
    /// Of each server.
    pub agrees: Vec<Agreement>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Waits until the servers that answer agree, then reads every write on the primary.
///
/// Also tells `written` who wrote each row.
pub async fn check(
    plan: &Plan,
    servers: &[Server],
    ledgers: &[Ledger],
    written: &mut Written,
) -> Result<Checked, BenchError> {
    let writable = wait_one_writable(servers).await;
    let mut notes = Vec::new();
    let primary = match writable.as_slice() {
        [one] => &one.target,
        [] => &plan.target,
        several => {
            let names: Vec<String> = several.iter().map(|server| server.address().to_string()).collect();
            notes.push(format!("{} are writable at once; the writes were checked through the port", names.join(", ")));
            &plan.target
        }
    };
    let failed = |fault| BenchError::Target { address: primary.address.clone(), what: "checking the writes", fault };
    let agrees = wait_agreed(plan, servers, primary).await.map_err(failed)?;
    let mut link = Client::open(primary, Some(&plan.database)).await.map_err(failed)?;
    let verdict = audit(&mut link, ledgers, written).await.map_err(failed)?;
    for (server, _) in servers.iter().zip(&agrees).filter(|(_, agrees)| **agrees == Agreement::Differs) {
        notes.push(format!("{} has other rows than the primary, {AGREE:?} after the end", server.address()));
    }
    Ok(Checked { verdict, agrees, notes })
}

/// The servers that can be written: one, unless that does not become so in time. A primary that was frozen calls itself so
/// for a while.
async fn wait_one_writable(servers: &[Server]) -> Vec<&Server> {
    let began = Instant::now();
    loop {
        let mut writable = Vec::new();
        for server in servers {
            if server.state().await == ServerState::Writable {
                writable.push(server);
            }
        }
        if writable.len() == 1 || servers.is_empty() || began.elapsed() > AGREE {
            return writable;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn wait_agreed(plan: &Plan, servers: &[Server], primary: &Target) -> Result<Vec<Agreement>, Fault> {
    let began = Instant::now();
    loop {
        let wanted = summary(primary, &plan.database).await?;
        let mut agrees = Vec::new();
        for server in servers {
            agrees.push(match summary(&server.target, &plan.database).await {
                Ok(summary) if summary == wanted => Agreement::Same,
                Ok(_) => Agreement::Differs,
                Err(_) => Agreement::Away,
            });
        }
        if !agrees.contains(&Agreement::Differs) || began.elapsed() > AGREE {
            return Ok(agrees);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Compares the tables with what the clients know.
async fn audit(link: &mut Client, ledgers: &[Ledger], written: &mut Written) -> Result<Verdict, Fault> {
    let mut places: HashMap<(u32, u64), &mut Write> =
        written.after.iter_mut().map(|write| ((write.client, write.number), write)).collect();
    let mut verdict = Verdict::default();
    link.query("BEGIN").await?;
    for ledger in ledgers {
        let client = ledger.client;
        let found = link.value(&format!("SELECT n FROM counters WHERE client = {client}")).await?;
        verdict.counter(ledger, found.and_then(|n| n.parse().ok()));
        let mut audit = Audit::new(ledger, &mut verdict);
        let mut last = 0;
        loop {
            let sql = format!(
                "SELECT seq, server FROM writes WHERE client = {client} AND seq > {last} ORDER BY seq LIMIT {PAGE}"
            );
            let rows = link.query(&sql).await?;
            let read = |row: &Row| Some((text(row, 0)?.parse().ok()?, text(row, 1)?.parse().ok()?));
            for (number, server) in rows.iter().filter_map(read) {
                audit.row(number);
                last = number;
                if let Some(write) = places.get_mut(&(client, number)) {
                    write.server = Some(server);
                }
            }
            if (rows.len() as u64) < PAGE {
                break;
            }
        }
        audit.finish();
    }
    link.query("COMMIT").await?;
    Ok(verdict)
}
