//! The command line: `holdfast proxy`, `holdfast check`.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use holdfast::{config, proxy, telemetry};
use std::io::Write as _;
use std::path::PathBuf;
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
    },
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
    let (Command::Proxy { config: path } | Command::Check { config: path }) = &command;
    let config = match config::load(path, config::environment()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(2));
        }
    };
    match &command {
        // A reader that has seen enough (`| head`) is no error.
        Command::Check { .. } => drop(writeln!(std::io::stdout(), "{}", config::check::describe(&config))),
        Command::Proxy { .. } => {
            let telemetry = telemetry::install(&config.log)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
            runtime.block_on(proxy::run(path, config, telemetry))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
