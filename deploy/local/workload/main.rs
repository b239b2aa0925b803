//! The demo's clients: they write and read through the proxy, kill the primary, and go on with the same connections.
//!
//! Prints once a second which server answered what. Ends with 0 if every promise was kept: no statement failed that was not
//! in flight at the kill, those that failed did so with an honest error, no acknowledged write is missing, and no client had
//! to connect again (which the proxy's own count of accepted connections proves).

mod board;
mod clients;
mod phase;

use anyhow::{Context, Result, bail, ensure};
use board::{Board, Kill, Row};
use clap::Parser;
use clients::{Client, TABLE};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use phase::{Phase, Phases};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WRITERS: u32 = 6;
const READERS: u32 = 6;
const IDLE: u32 = 4;
const TRANSACTIONS: u32 = 2;
/// Statements that each busy client must have answered before the kill, and again after it.
const ENOUGH: u32 = 100;
/// No wait of the demo is longer.
const LIMIT: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Writes and reads through the proxy while the primary is killed.
#[derive(Parser)]
struct Args {
    /// The proxy.
    #[arg(long, default_value = "127.0.0.1:6446")]
    proxy: SocketAddr,
    /// The proxy's admin port.
    #[arg(long, default_value = "127.0.0.1:6480")]
    admin: SocketAddr,
    /// Account.
    #[arg(long)]
    user: String,
    /// Its password.
    #[arg(long)]
    password: String,
    /// Process id of the primary.
    #[arg(long)]
    kill: u32,
    /// SQL for the name of the server that executes it: a string of up to 64 characters.
    #[arg(long, default_value = "CAST(@@port AS CHAR)")]
    server: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let broken = runtime.context("runtime").and_then(|runtime| runtime.block_on(demo(&args)));
    match broken {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            broken.iter().for_each(|promise| println!("BROKEN: {promise}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("workload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers the promises that were broken.
async fn demo(args: &Args) -> Result<Vec<String>> {
    let mut control = connect(args).await?;
    create_table(&mut control).await?;
    let (phase, phases) = Phases::new();
    let board = Arc::new(Board::default());
    let (busy, tasks) = clients(args, &board, &phases).await?;
    let accepted = connections_accepted(args.admin)?;
    println!(
        "{} connections: {WRITERS} writing, {READERS} reading, {IDLE} idle, {TRANSACTIONS} in a transaction, 1 to set up",
        tasks.len() + 1
    );
    let ticker = tokio::spawn(tick(Arc::clone(&board)));

    until("reads on two servers, and enough of everything", || {
        board.least(&busy).0 >= ENOUGH && board.readers_seen() >= 2 && phases.open() == TRANSACTIONS
    })
    .await?;
    println!("kill -9 {}", args.kill);
    board.killed(kill(args.kill).await?);
    phase.send_replace(Phase::Killed);
    until("every busy client has gone on", || board.least(&busy).1 >= ENOUGH).await?;
    phase.send_replace(Phase::Done);
    for task in tasks {
        tokio::time::timeout(LIMIT, task).await.context("a client does not end")??;
    }
    ticker.abort();

    let rows: Vec<Row> = control.query(format!("/* holdfast:primary */ SELECT client, sequence FROM {TABLE}")).await?;
    println!("SUMMARY");
    let mut broken = board.summary(&rows.into_iter().collect::<HashSet<_>>());
    let reconnected = connections_accepted(args.admin)?.saturating_sub(accepted);
    println!("  connections opened by clients after the start: {reconnected}");
    if reconnected > 0 {
        broken.push(format!("{reconnected} connections were opened after the start"));
    }
    control.disconnect().await?;
    Ok(broken)
}

async fn connect(args: &Args) -> Result<Conn> {
    let options = OptsBuilder::default()
        .ip_or_hostname(args.proxy.ip().to_string())
        .tcp_port(args.proxy.port())
        .user(Some(&args.user))
        .pass(Some(&args.password))
        .prefer_socket(false);
    Conn::new(options).await.with_context(|| format!("connect to {}", args.proxy))
}

async fn create_table(control: &mut Conn) -> Result<()> {
    for sql in [
        "DROP DATABASE IF EXISTS holdfast_demo",
        "CREATE DATABASE holdfast_demo",
        "CREATE TABLE holdfast_demo.writes (client INT, sequence INT, server VARCHAR(64), PRIMARY KEY (client, sequence))",
    ] {
        control.query_drop(sql).await.with_context(|| sql.to_owned())?;
    }
    Ok(())
}

/// Connects and starts all clients; answers the names of the busy ones.
async fn clients(
    args: &Args,
    board: &Arc<Board>,
    phases: &Phases,
) -> Result<(Vec<String>, Vec<tokio::task::JoinHandle<()>>)> {
    let mut busy = Vec::new();
    let mut made = Vec::new();
    let server: Arc<str> = args.server.as_str().into();
    let kinds = [("writer", WRITERS), ("reader", READERS), ("idle", IDLE), ("transaction", TRANSACTIONS)];
    for (kind, count) in kinds {
        for n in 1..=count {
            let name = format!("{kind} {n}");
            if matches!(kind, "writer" | "reader") {
                busy.push(name.clone());
            }
            let (board, phases, server) = (Arc::clone(board), phases.clone(), Arc::clone(&server));
            let number = made.len() as u32;
            made.push((kind, Client { name, number, conn: connect(args).await?, server, board, phases }));
        }
    }
    let start = |(kind, client): (&str, Client)| match kind {
        "writer" => tokio::spawn(client.write()),
        "reader" => tokio::spawn(client.read()),
        "idle" => tokio::spawn(client.idle()),
        _ => tokio::spawn(client.transaction()),
    };
    Ok((busy, made.into_iter().map(start).collect()))
}

async fn tick(board: Arc<Board>) {
    let began = Instant::now();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.tick().await;
    loop {
        second.tick().await;
        println!("{:4.0} s  {}", began.elapsed().as_secs_f64(), board.line());
    }
}

/// Ends the process at once and waits until nothing of it is left.
async fn kill(pid: u32) -> Result<Kill> {
    let sent = Instant::now();
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().context("kill")?;
    ensure!(status.success(), "kill -9 {pid}: {status}");
    // Its sockets are closed when its last thread is dead; a dead process that nobody has waited for keeps its entry.
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let dead = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['Z', 'X']))
    };
    let alive = || threads() > 1 || !dead();
    until("the primary's process is gone", || !alive()).await?;
    Ok(Kill { sent, gone: Instant::now() })
}

/// Looks until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() > LIMIT {
            bail!("waited {} s in vain: {what}", LIMIT.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// How many connections the proxy has accepted, by its own count.
fn connections_accepted(admin: SocketAddr) -> Result<u64> {
    let mut stream = TcpStream::connect(admin).context("admin port")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: holdfast\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let values = text.lines().filter(|line| line.starts_with("holdfast_client_connections_total"));
    let counts: Option<Vec<u64>> = values.map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    match counts {
        Some(counts) if !counts.is_empty() => Ok(counts.iter().sum()),
        _ => bail!("no holdfast_client_connections_total at {admin}"),
    }
}
