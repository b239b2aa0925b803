//! Side by side: the same load through the backend itself, HAProxy, MySQL Router and Holdfast.
//!
//! All run on one machine in one run, each with one thread for the data path, on one core; load and backend have the other
//! (with three cores or more, one each). Every round goes through all cases and, within a case, through all contenders,
//! each round beginning with another one; ratios are made within a round, and what is reported are their medians, so
//! that what else the machine does hits all alike. run.sh is the one command.

mod backend;
mod contenders;
mod histogram;
mod load;
mod plot;
mod process;
mod report;
mod sample;

use clap::{Parser, Subcommand};
use contenders::{Contender, Setting};
use load::Kindling;
use process::Process;
use sample::{CASES, Case, Idle, Results, Sample};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Serve as the cheap backend on these ports: the first a source, the others its replicas.
    Backend { ports: Vec<u16> },
    /// Put load on one port for some seconds: for profiling what listens there.
    Load { port: u16, case: String, seconds: f64 },
    /// Compare.
    Run {
        /// Fewer and shorter rounds: to see that all works.
        #[arg(long)]
        quick: bool,
        /// Rounds; default 9, 3 with --quick.
        #[arg(long)]
        rounds: Option<usize>,
        /// First of 20 ports on 127.0.0.1.
        #[arg(long, default_value_t = 18_100)]
        port_base: u16,
        /// Where results, configurations and logs go.
        #[arg(long, default_value = "target/compare")]
        out: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match Arguments::parse().command {
        What::Backend { ports } => local.block_on(&runtime, backend::serve(&ports)),
        What::Load { port, case, seconds } => local.block_on(&runtime, one(port, &case, seconds)),
        What::Run { quick, rounds, port_base, out } => {
            let pace = if quick { Pace::quick(rounds) } else { Pace::full(rounds) };
            local.block_on(&runtime, compare(&pace, port_base, out))
        }
    }
}

/// How long and how often.
struct Pace {
    rounds: usize,
    warm: Duration,
    time: Duration,
    idle: usize,
}

impl Pace {
    fn full(rounds: Option<usize>) -> Self {
        let (warm, time) = (Duration::from_millis(200), Duration::from_millis(1000));
        Self { rounds: rounds.unwrap_or(9).clamp(1, 50), warm, time, idle: 1000 }
    }

    fn quick(rounds: Option<usize>) -> Self {
        let (warm, time) = (Duration::from_millis(100), Duration::from_millis(300));
        Self { rounds: rounds.unwrap_or(3).clamp(1, 50), warm, time, idle: 1000 }
    }
}

async fn one(port: u16, case: &str, seconds: f64) -> anyhow::Result<()> {
    let Some(case) = CASES.iter().find(|known| known.name == case) else {
        anyhow::bail!("cases: {}", CASES.map(|case| case.name).join(", "));
    };
    let clients = load::clients(port, case.connections).await?;
    let time = Duration::from_secs_f64(seconds.clamp(0.0, 120.0));
    let (seen, _) = load::run(clients, case.kindling, Duration::ZERO, time, || ()).await?;
    let rate = seen.statements as f64 / seen.elapsed.as_secs_f64();
    let (p50, p99) = (seen.latency.quantile_us(0.5), seen.latency.quantile_us(0.99));
    println!("{} statements, {rate:.0}/s, p50 {p50:.0} µs, p99 {p99:.0} µs", seen.statements);
    Ok(())
}

async fn compare(pace: &Pace, port_base: u16, out: PathBuf) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (load_core, proxy_core, backend_core) = match cores {
        1 => (0, 0, 0),
        2 => (0, 1, 0),
        _ => (0, 1, 2),
    };
    std::fs::create_dir_all(&out)?;
    let me = std::process::id().to_string();
    std::process::Command::new("taskset").args(["-pc", &load_core.to_string(), &me]).output()?;

    let backend: Vec<u16> = (10..13).map(|n| port_base + n).collect();
    let ports: Vec<String> = backend.iter().map(u16::to_string).collect();
    let mut arguments = vec!["backend"];
    arguments.extend(ports.iter().map(String::as_str));
    let program = std::env::current_exe()?;
    let _backend = Process::start(backend_core, &out.join("backend.log"), &program.to_string_lossy(), &arguments)?;
    let setting = Setting { dir: out.clone(), port_base, proxy_core, backend, prober: ("holdfast", "holdfast") };
    let contenders = contenders::start(&setting).await?;

    let mut idle = Vec::new();
    for contender in contenders.iter().filter(|contender| contender.process.is_some()) {
        idle.push(idle_connections(contender, pace.idle).await?);
    }
    let mut samples = Vec::new();
    for round in 0..pace.rounds {
        for (number, case) in CASES.iter().enumerate() {
            for turn in 0..contenders.len() {
                let contender = &contenders[(turn + round + number) % contenders.len()];
                samples.push(measure(contender, case, round, pace).await?);
            }
        }
        println!("round {} of {} done", round + 1, pace.rounds);
    }
    let versions = contenders.iter().map(|c| (c.name, c.version.clone())).collect();
    let results = Results { samples, idle, versions, cores, rounds: pace.rounds, time: pace.time };
    report::write(&results, &out)
}

/// Resident memory that idle sessions cost, each of which has run one statement before.
async fn idle_connections(contender: &Contender, n: usize) -> anyhow::Result<Idle> {
    let before = contender.process.as_ref().map(Process::memory).transpose()?.unwrap_or_default();
    let mut clients = load::clients(contender.port, n).await?;
    for client in &mut clients {
        client.once().await?;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let after = contender.process.as_ref().map(Process::memory).transpose()?.unwrap_or_default();
    let bytes_each = (after.rss_kib.saturating_sub(before.rss_kib) * 1024) as f64 / n as f64;
    println!("{}: {n} idle sessions, {bytes_each:.0} bytes each", contender.name);
    Ok(Idle { contender: contender.name, sessions: n, before_kib: before.rss_kib, bytes_each })
}

/// One case on one contender.
async fn measure(contender: &Contender, case: &Case, round: usize, pace: &Pace) -> anyhow::Result<Sample> {
    let clients = load::clients(contender.port, case.connections).await?;
    let process = contender.process.as_ref();
    let warm = if case.kindling == Kindling::Big { Duration::ZERO } else { pace.warm };
    if let Some(process) = process {
        process.forget_peak()?;
    }
    let mut before = None;
    let (seen, clients) = load::run(clients, case.kindling, warm, pace.time, || {
        before = process.map(Process::usage);
    })
    .await?;
    let (after, memory) = (process.map(Process::usage).transpose()?, process.map(Process::memory).transpose()?);
    drop(clients);
    let seconds = seen.elapsed.as_secs_f64();
    let mut sample = Sample {
        round,
        case: case.name,
        contender: contender.name,
        statements: seen.statements,
        per_second: seen.statements as f64 / seconds,
        megabytes_per_second: seen.bytes as f64 / seconds / 1e6,
        p50_us: seen.latency.quantile_us(0.50),
        p99_us: seen.latency.quantile_us(0.99),
        memory: memory.unwrap_or_default(),
        ..Sample::default()
    };
    if let (Some(before), Some(after)) = (before.transpose()?, after) {
        let all_us = after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1000.0;
        sample.cpu_us = all_us / seen.statements.max(1) as f64;
        sample.ticks = [after.user_ticks - before.user_ticks, after.system_ticks - before.system_ticks];
    }
    Ok(sample)
}
