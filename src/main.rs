//! The command line: `holdfast proxy`, `holdfast check`, `holdfast reconcile`, `holdfast bench failover`.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use holdfast::config::{self, Config};
use holdfast::proxy::connect_check;
use holdfast::{bench, proxy, reconciler, telemetry};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A MySQL-protocol proxy that keeps clients connected while the primary changes.
#[derive(Parser)]
#[command(name = "holdfast", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy.
    Proxy {
        /// Configuration file (TOML).
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration and print what it resolves to; exit 0 if it is valid, 2 if not.
    Check {
        /// Configuration file (TOML).
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Log in to the servers instead and say what they let the accounts do; exit 0 if all is well, 1 if not.
        #[arg(long)]
        connect: bool,
        /// A client's account that is to be let in; its password is in HOLDFAST_CHECK_PASSWORD.
        #[arg(long, requires = "connect", value_name = "NAME")]
        user: Option<String>,
    },
    /// Keep a cluster of MySQL servers and their roles correct.
    Reconcile {
        /// Which cluster, and how (TOML).
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Measure what clients see through a port.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
}

#[derive(Subcommand)]
enum Bench {
    // Boxed: far larger than the other commands.
    Failover(Box<bench::Args>),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfast: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Proxy { config } => with_config(&config, |config, path| serve(path, config)),
        Command::Check { config, connect: true, user } => {
            let mut well = true;
            let code = with_config(&config, |config, _| {
                well = check_servers(&config, user)?;
                Ok(())
            })?;
            Ok(if well { code } else { ExitCode::FAILURE })
        }
        // A reader that has seen enough (`| head`) is no error.
        Command::Check { config, connect: false, .. } => with_config(&config, |config, _| {
            drop(writeln!(std::io::stdout(), "{}", config::check::describe(&config)));
            Ok(())
        }),
        Command::Reconcile { config } => reconcile(&config),
        Command::Bench { what: Bench::Failover(args) } => {
            Ok(if bench::failover(*args)? { ExitCode::SUCCESS } else { ExitCode::from(3) })
        }
    }
}

fn with_config(path: &Path, then: impl FnOnce(Config, &Path) -> Result<()>) -> Result<ExitCode> {
    let config = match config::load(path, config::environment()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(2));
        }
    };
    then(config, path)?;
    Ok(ExitCode::SUCCESS)
}

fn check_servers(config: &Config, user: Option<String>) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let password = std::env::var("HOLDFAST_CHECK_PASSWORD").unwrap_or_default();
    let account = user.map(|user| connect_check::ClientAccount::new(user, password));
    let (text, well) = runtime.block_on(connect_check::run(config, account.as_ref()))?;
    drop(write!(std::io::stdout(), "{text}"));
    Ok(well)
}

fn serve(path: &Path, config: Config) -> Result<()> {
    let telemetry = telemetry::install(&config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(proxy::run(path, config, telemetry))?;
    Ok(())
}

fn reconcile(path: &Path) -> Result<ExitCode> {
    let file = match reconciler::config::File::load(path) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            return Ok(ExitCode::from(2));
        }
    };
    let _telemetry = telemetry::install(&file.log())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(reconciler::run(&file))?;
    Ok(ExitCode::SUCCESS)
}
