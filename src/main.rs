//! The command line: `holdfast proxy`, `holdfast check`, `holdfast reconcile`, `holdfast bench failover`.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use holdfast::config::{self, Config};
use holdfast::proxy::connect_check;
use holdfast::topology::kubernetes::Access;
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
    /// Keep MySQL clusters and their roles correct: the MysqlClusters of Kubernetes, or the servers of a file.
    Reconcile {
        /// Servers without Kubernetes: which, and how (TOML).
        #[arg(short, long, value_name = "FILE", conflicts_with_all = ["namespace", "kubeconfig", "context"])]
        config: Option<PathBuf>,
        #[command(flatten)]
        kubernetes: Kubernetes,
    },
    /// What a member's pod does before its server starts: write its option files.
    #[command(hide = true)]
    Init(reconciler::init::Args),
    /// Measure what clients see through a port.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
}

#[derive(clap::Args)]
struct Kubernetes {
    /// Whose MysqlClusters; may be given several times. The reconciler's own where none is given.
    #[arg(long, value_name = "NAME")]
    namespace: Vec<String>,
    /// A kubeconfig instead of the pod's ServiceAccount.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A context of it other than the current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The image that initialises members: this program's own.
    #[arg(long, env = "HOLDFAST_IMAGE", value_name = "IMAGE", default_value = concat!("holdfast:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// Its name on the Lease; another for each reconciler. One of chance where none is given.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    identity: Option<String>,
    /// Where /livez, /readyz and /metrics are.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<std::net::SocketAddr>,
    /// error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
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
        Command::Reconcile { config: Some(config), .. } => reconcile(&config),
        Command::Reconcile { config: None, kubernetes } => reconcile_kubernetes(kubernetes),
        Command::Init(args) => {
            reconciler::init::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
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

fn reconcile_kubernetes(given: Kubernetes) -> Result<ExitCode> {
    let log = config::LogConfig { level: given.log, ..config::LogConfig::default() };
    let _telemetry = telemetry::install(&log)?;
    let access = Access { kubeconfig: given.kubeconfig, context: given.context };
    // Two of the same name would both lead.
    let chance = || Ok::<_, getrandom::Error>(format!("holdfast-{:016x}", getrandom::u64()?));
    let identity = given.identity.map_or_else(chance, Ok).context("a name on the Lease")?;
    let (namespaces, image, listen) = (given.namespace, given.image, given.listen);
    let options = reconciler::kubernetes::Options { access, namespaces, image, identity, listen };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime
        .block_on(async { anyhow::Ok(reconciler::kubernetes::run(&options, reconciler::told_to_stop()?).await?) })?;
    Ok(ExitCode::SUCCESS)
}
