//! `holdfast bench failover`: what clients see through a port while the primary dies or moves, and whether it was true.
//!
//! Any MySQL port will do: Holdfast's, another proxy's, a server's own. Clients of several classes drive it (`workload`);
//! the servers behind it are asked all the time who the primary is (`servers`); the primary is killed, frozen, switched
//! or struck by a command (`trigger`); afterwards every write is looked for (`tables`) and judged by what its client
//! was told (`ledger` \[pure\]). What was seen (`record` \[pure\]) becomes a [`report`] \[pure\]: a table
//! (`table` \[pure\]), a JSON file, a page (`page`, `chart` \[pure\]).
//!
//! It is a client like any other: it knows nothing of the proxy in the same binary, sends no hints, and never repairs or
//! repeats a write. What it holds in memory is bounded by the number of clients and the length of the run, not by the
//! number of statements. It measures with one thread: hundreds of clients at tens of statements a second, which is what
//! shows a failover; throughput is `benches/compare`'s.

mod args;
mod chart;
mod client;
mod error;
mod fault;
mod ledger;
mod page;
mod record;
pub mod report;
mod run;
mod servers;
mod table;
mod tables;
mod trigger;
mod workload;

pub use args::Args;
pub use error::BenchError;

use args::Plan;
use report::{Report, ServerState, VERSION};
use servers::Server;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Limit for all servers to be back before the next run.
const BACK: Duration = Duration::from_secs(180);

/// Measures, prints the table, writes the files. True if no write was lost, applied twice or contradicted.
pub fn failover(args: Args) -> Result<bool, BenchError> {
    let plan = args.plan()?;
    let others = plan.compare.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    // Sooner than after an hour.
    for path in [&plan.json, &plan.html].into_iter().flatten() {
        write(path, "")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::Runtime)?;
    let mut report = empty(&plan);
    let measured = runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        tokio::select! {
            measured = measure(&plan, &mut report) => measured,
            _ = tokio::signal::ctrl_c() => Err(BenchError::Interrupted),
        }
    }));
    // What was seen before an error in a later run counts, too.
    if !report.runs.is_empty() {
        print(&table::summary(&report, &others));
        if let Some(path) = &plan.json {
            write(path, &serde_json::to_string(&report).unwrap_or_default())?;
        }
        if let Some(path) = &plan.html {
            write(path, &page::html(&report, &others))?;
        }
    }
    measured.map(|()| report.is_clean())
}

async fn measure(plan: &Plan, report: &mut Report) -> Result<(), BenchError> {
    let mut servers = Vec::new();
    for target in &plan.servers {
        servers.push(Server::identify(target.clone()).await?.0);
    }
    for number in 1..=plan.runs {
        if number > 1 {
            wait_back(&servers).await?;
        }
        let run = run::once(plan, &servers, number).await?;
        print(&table::run(report, &run));
        report.runs.push(run);
    }
    if !plan.keep {
        tables::drop_database(plan).await?;
    }
    Ok(())
}

/// Waits until every server is back in its place and one is the primary.
async fn wait_back(servers: &[Server]) -> Result<(), BenchError> {
    let began = Instant::now();
    loop {
        let mut missing = Vec::new();
        let mut writable = 0;
        for server in servers {
            match Server::identify(server.target.clone()).await {
                Ok((_, ServerState::Writable)) => writable += 1,
                Ok((now, ServerState::Follower)) if now.in_group == server.in_group && now.is_online => {}
                _ => missing.push(server.address().to_string()),
            }
        }
        if missing.is_empty() && (writable == 1 || servers.is_empty()) {
            return Ok(());
        }
        if began.elapsed() > BACK {
            return Err(BenchError::NotReady(format!(
                "no next run: {writable} servers are writable and not in their place after {BACK:?}: {}; bring them back in \
                 --restore-command",
                if missing.is_empty() { "none".to_owned() } else { missing.join(", ") }
            )));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn empty(plan: &Plan) -> Report {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Report {
        version: VERSION,
        label: plan.label.clone(),
        target: plan.target.address.to_string(),
        trigger: plan.trigger_name.to_owned(),
        started_unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        rate_per_client: plan.rate,
        runs: Vec::new(),
    }
}

fn print(text: &str) {
    // A reader that has seen enough (`| head`) is no error.
    drop(write!(std::io::stdout(), "{text}"));
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(|error| BenchError::File { path: path.to_owned(), error })
}

fn read(path: &Path) -> Result<Report, BenchError> {
    let text = std::fs::read_to_string(path).map_err(|error| BenchError::File { path: path.to_owned(), error })?;
    serde_json::from_str(&text).map_err(|error| BenchError::Report { path: path.to_owned(), error })
}
