//! The command line of `holdfast bench failover`, and the plan it resolves to.

use super::client::Target;
use super::error::BenchError;
use super::report::Class;
use super::trigger::{Prey, Trigger};
use crate::accounts::Credential;
use crate::tls::{BackendTls, SslMode, TlsFiles};
use crate::types::Address;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Most clients, of all classes together.
const CLIENTS_MAX: u32 = 4096;
/// Most statements a second of one client.
const RATE_MAX: f64 = 1000.0;
/// Longest run.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Drive clients through a port while the primary dies or moves; check every acknowledged write; report what they saw.
///
/// Exit code 0: measured, and no write lost, applied twice or contradicted; 3: some were; 1: it could not be measured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port under test: Holdfast's, another proxy's, a server's.
    #[arg(long, value_name = "HOST:PORT")]
    target: Address,
    /// A server behind it; repeat for each. Asked directly who the primary is and when the new one is writable, and
    /// compared at the end.
    #[arg(long = "server", value_name = "HOST:PORT")]
    servers: Vec<Address>,
    /// Write a row directly, too, at whichever other server takes it first: what the change takes without a proxy. Not for
    /// triggers that leave two servers writable.
    #[arg(long)]
    direct_write: bool,
    /// Account of the clients.
    #[arg(long, default_value = "root")]
    user: String,
    /// File with its password; else HOLDFAST_BENCH_PASSWORD; else none.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Account that asks the servers, if another one.
    #[arg(long, value_name = "USER")]
    server_user: Option<String>,
    /// File with its password; else HOLDFAST_BENCH_SERVER_PASSWORD; else the clients'.
    #[arg(long, value_name = "FILE")]
    server_password_file: Option<PathBuf>,
    /// TLS to the port and the servers: disabled, preferred, required, verify_ca, verify_identity.
    #[arg(long, value_name = "MODE", default_value = "preferred", value_parser = ssl_mode)]
    ssl_mode: SslMode,
    /// Certificates that sign the server's, for the last two modes.
    #[arg(long, value_name = "FILE")]
    ssl_ca: Option<PathBuf>,
    /// Database that is created, and dropped at the end.
    #[arg(long, default_value = "holdfast_bench")]
    database: String,
    /// Leave the database behind.
    #[arg(long)]
    keep: bool,

    /// Clients that INSERT and UPDATE, and read back what was acknowledged.
    #[arg(long, value_name = "N", default_value_t = 8)]
    clients_write: u32,
    /// Clients that select a row.
    #[arg(long, value_name = "N", default_value_t = 8)]
    clients_read: u32,
    /// Clients with transactions of two INSERTs and a SELECT.
    #[arg(long, value_name = "N", default_value_t = 4)]
    clients_transaction: u32,
    /// Clients that INSERT with a statement prepared once.
    #[arg(long, value_name = "N", default_value_t = 4)]
    clients_prepared: u32,
    /// Clients that are silent until after the failure.
    #[arg(long, value_name = "N", default_value_t = 4)]
    clients_idle: u32,
    /// Statements (transactions) a second of each client, at most.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 50.0)]
    rate: f64,
    /// Time before the trigger.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    before: Duration,
    /// Time after the first write that follows the change (known only with --server); then the run ends.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    after: Duration,
    /// The longest that a run takes; without --server, or without trigger, it takes that long.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    duration: Duration,
    /// Limit for each answer; a client that gets none takes its connection for lost.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    statement_timeout: Duration,
    /// How often to do it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: u32,

    /// What happens to the primary. kill and freeze find the process that listens where the primary does, or take
    /// --pid-file; switch asks the group for another primary; isolate needs --trigger-command, since cutting a network
    /// takes rights and knowledge that differ from place to place.
    #[arg(long, value_enum)]
    trigger: Option<Word>,
    /// The process to kill or freeze.
    #[arg(long, value_name = "FILE", alias = "kill-pid-file")]
    pid_file: Option<PathBuf>,
    /// Run by `sh -c` as the trigger, with PRIMARY_HOST, PRIMARY_PORT, PRIMARY_SERVER_ID and PRIMARY_UUID.
    #[arg(long, value_name = "COMMAND")]
    trigger_command: Option<String>,
    /// Run by `sh -c` after each run, before the writes are checked, to undo the trigger; the same environment.
    #[arg(long, value_name = "COMMAND")]
    restore_command: Option<String>,
    /// How long `freeze` lasts.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    freeze_for: Duration,

    /// Write the report there as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report there as one HTML file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// A JSON report to show beside this one; repeat for more.
    #[arg(long, value_name = "FILE")]
    compare: Vec<PathBuf>,
    /// What to call the port in reports; default its address.
    #[arg(long)]
    label: Option<String>,
}

/// The triggers' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Word {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, later SIGCONT.
    Freeze,
    /// A network cut by --trigger-command.
    Isolate,
    /// `group_replication_set_as_primary`.
    Switch,
    /// Whatever --trigger-command does.
    Command,
    /// Nothing.
    None,
}

impl Word {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Isolate => "isolate",
            Self::Switch => "switch",
            Self::Command => "command",
            Self::None => "none",
        }
    }
}

/// What is to be done.
pub struct Plan {
    /// The port under test, as the clients reach it.
    pub target: Target,
    /// The servers, as they are asked.
    pub servers: Vec<Target>,
    /// Write at the servers directly, too.
    pub writes_directly: bool,
    /// The database; a name that needs no quoting beyond backticks.
    pub database: String,
    /// Leave it behind.
    pub keep: bool,
    /// Clients of each class, in the order of [`Class::ALL`]; those that read back are the writing ones.
    pub clients: [u32; Class::ALL.len()],
    /// Statements a second and client.
    pub rate: f64,
    /// Before the trigger, after the recovery, in all.
    pub times: Times,
    /// How often.
    pub runs: u32,
    /// What happens.
    pub trigger: Trigger,
    /// What it is called.
    pub trigger_name: &'static str,
    /// What undoes it.
    pub restore: Option<String>,
    /// Files to write.
    pub json: Option<PathBuf>,
    /// Files to write.
    pub html: Option<PathBuf>,
    /// Reports to show beside.
    pub compare: Vec<PathBuf>,
    /// What the port is called.
    pub label: String,
}

/// How long a run takes.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Before the trigger.
    pub before: Duration,
    /// After the first write that follows the change.
    pub after: Duration,
    /// At most.
    pub duration: Duration,
}

impl Args {
    /// Parses what clap can't: combinations, files, secrets. Blocking.
    pub fn plan(self) -> Result<Plan, BenchError> {
        let usage = |text: &str| Err(BenchError::Usage(text.to_owned()));
        let (trigger, word) = self.trigger()?;
        let w = self.clients_write;
        let clients = [w, w, self.clients_read, self.clients_transaction, self.clients_prepared, self.clients_idle];
        let total: u64 = clients.iter().map(|n| u64::from(*n)).sum::<u64>() - u64::from(w);
        if total == 0 || total > u64::from(CLIENTS_MAX) {
            return usage("between 1 and 4096 clients in all: see --clients-write and its like");
        }
        if !(self.rate > 0.0 && self.rate <= RATE_MAX) {
            return usage("--rate is more than 0 and at most 1000 statements a second");
        }
        if self.before >= self.duration || self.duration > DURATION_MAX || self.statement_timeout.is_zero() {
            return usage("--before is shorter than --duration, which is at most an hour; no --statement-timeout of 0");
        }
        if self.runs == 0 || self.runs > 1000 {
            return usage("--runs is between 1 and 1000");
        }
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
        if self.database.is_empty() || self.database.len() > 64 || !self.database.chars().all(named) {
            return usage("--database is 1 to 64 letters, digits, _ and $");
        }
        let files = TlsFiles { ca: self.ssl_ca.clone(), ..TlsFiles::default() };
        let credential = password(self.password_file.as_deref(), "HOLDFAST_BENCH_PASSWORD")?;
        let own = password(self.server_password_file.as_deref(), "HOLDFAST_BENCH_SERVER_PASSWORD")?;
        let target = Target {
            address: self.target.clone(),
            user: self.user.clone(),
            credential: credential.clone().unwrap_or_else(Credential::empty),
            tls: Arc::new(BackendTls::backend(self.ssl_mode, files)?),
            statement_timeout: self.statement_timeout,
        };
        let asking = Target {
            user: self.server_user.unwrap_or(self.user),
            credential: own.or(credential).unwrap_or_else(Credential::empty),
            ..target.clone()
        };
        Ok(Plan {
            servers: self.servers.into_iter().map(|address| asking.at(address)).collect(),
            label: self.label.unwrap_or_else(|| self.target.to_string()),
            target,
            writes_directly: self.direct_write,
            database: self.database,
            keep: self.keep,
            clients,
            rate: self.rate,
            times: Times { before: self.before, after: self.after, duration: self.duration },
            runs: self.runs,
            trigger,
            trigger_name: word.name(),
            restore: self.restore_command,
            json: self.json,
            html: self.html,
            compare: self.compare,
        })
    }

    fn trigger(&self) -> Result<(Trigger, Word), BenchError> {
        let usage = |text: &str| Err(BenchError::Usage(text.to_owned()));
        let word = self.trigger.unwrap_or(match (&self.trigger_command, &self.pid_file) {
            (Some(_), _) => Word::Command,
            (None, Some(_)) => Word::Kill,
            (None, None) => Word::None,
        });
        let prey = self.pid_file.clone().map_or(Prey::Listener, Prey::PidFile);
        let trigger = match (word, &self.trigger_command) {
            (Word::Isolate | Word::Command, Some(command)) => Trigger::Command(command.clone()),
            (Word::Isolate | Word::Command, None) => {
                return usage("this trigger needs --trigger-command, such as 'nft add rule …' or 'kubectl exec …'");
            }
            (_, Some(_)) => return usage("--trigger-command goes with --trigger command or isolate"),
            (Word::Kill, None) => Trigger::Kill(prey),
            (Word::Freeze, None) => Trigger::Freeze(prey, self.freeze_for),
            (Word::Switch, None) => Trigger::Switch,
            (Word::None, None) => Trigger::Nothing,
        };
        Ok((trigger, word))
    }
}

/// The content of a file without its line's end, or of a variable.
fn password(file: Option<&Path>, variable: &str) -> Result<Option<Credential>, BenchError> {
    let text = match file {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| BenchError::File { path: path.to_owned(), error })?;
            Some(Zeroizing::new(text))
        }
        None => std::env::var(variable).ok().map(Zeroizing::new),
    };
    Ok(text.map(|text| Credential::password(Zeroizing::new(text.trim_end_matches(['\r', '\n']).as_bytes().to_vec()))))
}

fn ssl_mode(word: &str) -> Result<SslMode, String> {
    Ok(match word.to_ascii_lowercase().as_str() {
        "disabled" => SslMode::Disabled,
        "preferred" => SslMode::Preferred,
        "required" => SslMode::Required,
        "verify_ca" => SslMode::VerifyCa,
        "verify_identity" => SslMode::VerifyIdentity,
        _ => return Err("one of disabled, preferred, required, verify_ca, verify_identity".to_owned()),
    })
}

/// `500ms`, `5s`, `2m`, or seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| format!("`{text}`: write 500ms, 5s or 2m"))?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(|| format!("`{text}` is too long")),
        unit => Err(format!("`{unit}` is no unit: write 500ms, 5s or 2m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn planned(line: &str) -> Result<Plan, String> {
        let words = ["bench", "--target", "127.0.0.1:1"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.args.plan().map_err(|error| error.to_string())
    }

    #[test]
    fn durations_have_units() {
        for (text, ms) in [("250ms", 250), ("3s", 3000), ("3", 3000), ("2m", 120_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-1s", "1h", "1.5s", "99999999999999999999s", "18446744073709551615m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_trigger_is_what_was_asked_for() {
        let file = || Prey::PidFile("a.pid".into());
        let ten = Duration::from_secs(10);
        for (line, name, trigger) in [
            ("", "none", Trigger::Nothing),
            ("--pid-file a.pid", "kill", Trigger::Kill(file())),
            ("--kill-pid-file a.pid", "kill", Trigger::Kill(file())),
            ("--trigger kill", "kill", Trigger::Kill(Prey::Listener)),
            ("--trigger freeze --pid-file a.pid", "freeze", Trigger::Freeze(file(), ten)),
            ("--trigger switch", "switch", Trigger::Switch),
            ("--trigger-command reboot", "command", Trigger::Command("reboot".into())),
            ("--trigger isolate --trigger-command cut", "isolate", Trigger::Command("cut".into())),
        ] {
            let plan = planned(line).unwrap();
            assert_eq!((plan.trigger_name, plan.trigger), (name, trigger), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_advice() {
        for (line, advice) in [
            ("--trigger isolate", "needs --trigger-command"),
            ("--trigger kill --trigger-command x", "goes with"),
            ("--rate 0", "--rate"),
            ("--rate 2000", "--rate"),
            ("--before 60s", "--before"),
            ("--database a`b", "--database"),
            ("--clients-write 5000", "4096"),
            ("--runs 0", "--runs"),
            ("--ssl-mode maybe", "preferred"),
            ("--ssl-mode verify_ca", "`ca`"),
            ("--password-file /nowhere/at/all", "/nowhere/at/all"),
        ] {
            let error = planned(line).map(|_| ()).unwrap_err();
            assert!(error.contains(advice), "{line}: {error}");
        }
    }
}
