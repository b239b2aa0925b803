//! The clients, and the scenarios each of them runs.

use super::testbed::{Flavor, Testbed};
use std::path::{Path, PathBuf};

/// A client of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    MysqlCli,
    MariadbCli,
    LibMysql,
    LibMariadb,
    PyMySql,
    Connector,
    MysqlDb,
    Node,
    Go,
    Rust,
}

impl Client {
    /// Whether it is a program for people, run once per session.
    pub fn is_cli(self) -> bool {
        matches!(self, Client::MysqlCli | Client::MariadbCli)
    }

    const ALL: [Client; 10] = [
        Client::MysqlCli,
        Client::MariadbCli,
        Client::LibMysql,
        Client::LibMariadb,
        Client::PyMySql,
        Client::Connector,
        Client::MysqlDb,
        Client::Node,
        Client::Go,
        Client::Rust,
    ];

    /// Those that `HOLDFAST_CLIENTS` names, or all.
    pub fn wanted() -> Vec<Client> {
        let names = list("HOLDFAST_CLIENTS");
        let is_wanted = |c: &Client| names.is_empty() || names.iter().any(|n| n == c.name());
        let wanted: Vec<Client> = Client::ALL.into_iter().filter(is_wanted).collect();
        assert!(!wanted.is_empty(), "HOLDFAST_CLIENTS names none of {:?}", Client::ALL.map(Client::name));
        wanted
    }

    /// Every other one.
    pub fn is_even(self) -> bool {
        Client::ALL.iter().position(|client| *client == self).is_some_and(|n| n % 2 == 0)
    }

    /// As in the scenarios' exclusions and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Client::MysqlCli => "mysql",
            Client::MariadbCli => "mariadb",
            Client::LibMysql => "libmysqlclient",
            Client::LibMariadb => "libmariadb",
            Client::PyMySql => "pymysql",
            Client::Connector => "connector",
            Client::MysqlDb => "mysqlclient",
            Client::Node => "node",
            Client::Go => "go",
            Client::Rust => "rust",
        }
    }
}

/// One of the scenario files, or the part of it that a client runs.
#[derive(Debug, Clone)]
pub struct Script {
    pub name: String,
    pub scenarios: Vec<Scenario>,
}

/// One scenario: its heading without `== `, and its steps.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub heading: String,
    pub steps: Vec<String>,
}

impl Script {
    /// Reads a scenario file of `tests/clients`.
    pub fn read(name: &str) -> Script {
        let text = std::fs::read_to_string(here().join(name)).expect("the scenarios are there");
        let mut scenarios: Vec<Scenario> = Vec::new();
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("== ") {
                scenarios.push(Scenario { heading: heading.to_owned(), steps: Vec::new() });
            } else if !line.is_empty() && !line.starts_with('#') {
                let scenario = scenarios.last_mut().expect("a step has a scenario");
                assert!(line.chars().nth(1) == Some(':') && line.len() > 3, "{name}: not a step: {line}");
                scenario.steps.push(line.to_owned());
            }
        }
        Script { name: name.to_owned(), scenarios }
    }

    /// What a client runs on a server of that flavor; None if nothing.
    pub fn for_client(&self, flavor: Flavor, client: Client) -> Option<Script> {
        let only = list("HOLDFAST_SCENARIOS");
        let mut part = self.clone();
        part.scenarios.retain(|s| {
            let other = if flavor == Flavor::MySql { "@mariadb" } else { "@mysql" };
            let mut words = s.heading.split(' ');
            let name = words.next().unwrap_or_default();
            let excluded = words.any(|w| w == other || w.strip_prefix('!') == Some(client.name()));
            !excluded && (only.is_empty() || only.iter().any(|o| o == name))
        });
        (!part.scenarios.is_empty()).then_some(part)
    }

    /// The same with a scenario for each connection: what a command line client, which has but one, can do of it.
    pub fn per_connection(&self) -> Script {
        let mut scenarios: Vec<Scenario> = Vec::new();
        for (scenario, step) in self.scenarios.iter().flat_map(|s| s.steps.iter().map(move |step| (s, step))) {
            let heading = format!("{} {}", scenario.heading, &step[..1]);
            match scenarios.iter_mut().find(|s| s.heading == heading) {
                Some(own) => own.steps.push(step.clone()),
                None => scenarios.push(Scenario { heading, steps: vec![step.clone()] }),
            }
        }
        Script { name: self.name.clone(), scenarios }
    }

    /// The same with other names.
    pub fn renamed(mut self, names: &[(String, String)]) -> Script {
        for step in self.scenarios.iter_mut().flat_map(|s| s.steps.iter_mut()) {
            names.iter().for_each(|(name, other)| *step = step.replace(name, other));
        }
        self
    }

    /// The scenario file's text again.
    pub fn text(&self) -> String {
        self.scenarios.iter().map(|s| format!("== {}\n{}\n\n", s.heading, s.steps.join("\n"))).collect()
    }
}

impl Scenario {
    /// The connection of the first step.
    fn main_connection(&self) -> &str {
        self.steps.first().and_then(|s| s.get(..1)).unwrap_or_default()
    }

    /// The scenario as a script for a command line client, with the options it is to be started with: what one session
    /// can do with statements and the client's own commands. None if it needs more. `sync` comes before each that reads.
    pub fn as_cli(&self, client: Client, sync: &str) -> Option<(Vec<String>, String)> {
        let (mut options, mut script) = (Vec::new(), "DELIMITER $$\n".to_owned());
        for step in &self.steps {
            let (op, rest) = step[3..].split_once(' ').unwrap_or((&step[3..], ""));
            if !step.starts_with(self.main_connection()) || step.contains("${") && !step.contains("${file}") {
                return None;
            }
            // a process for each wait: only what reads needs one
            script.push_str(if reads(rest) { sync } else { "\n" });
            match op {
                "connect" => options = cli_options(client, rest)?,
                "q" => script.push_str(&format!("{rest}$$\n")),
                "x" if !rest.contains(" <- ") => script.push_str(&format!("{rest}$$\n")),
                "use" => script.push_str(&format!("use {rest}\n")),
                "reset" if client == Client::MysqlCli => script.push_str("resetconnection\n"),
                "attr" if client == Client::MysqlCli => {
                    let (attribute, sql) = rest.split_once(' ')?;
                    script.push_str(&format!("query_attributes {}\n{sql}$$\n", attribute.replace('=', " ")));
                }
                "send" | "recv" | "kill" | "killq" | "change" | "close" => return None,
                _ => {}
            }
        }
        Some((options, script))
    }
}

fn reads(sql: &str) -> bool {
    let writes = ["INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "SET ", "BEGIN", "COMMIT", "ROLLBACK", "DO "];
    !writes.iter().any(|w| sql.starts_with(w))
}

fn cli_options(client: Client, words: &str) -> Option<Vec<String>> {
    let mut options = vec!["--user=app".to_owned(), "--password=app".to_owned(), "--database=suite".to_owned()];
    let mut infile = "--local-infile=0".to_owned();
    for word in words.split(' ').filter(|w| !w.is_empty()) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match (key, client) {
            ("user", _) => options[0] = format!("--user={value}"),
            ("pw", _) => options[1] = format!("--password={value}"),
            ("db", _) => options[2] = format!("--database={value}"),
            ("noschema", _) => options[2] = "--database=".to_owned(),
            ("infile", _) => infile = "--local-infile=1".to_owned(),
            ("multi" | "track", _) => {}
            ("zlib" | "zstd", Client::MysqlCli) => options.push(format!("--compression-algorithms={key}")),
            ("zlib", Client::MariadbCli) => options.push("--compress".to_owned()),
            _ => return None,
        }
    }
    options.push(infile);
    Some(options)
}

impl Client {
    /// Options for a scenario that does not connect by itself.
    pub fn usual_cli_options(self) -> Vec<String> {
        cli_options(self, "").expect("no option is unknown")
    }
}

/// A step of a transcript and what the client printed in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    pub scenario: String,
    pub step: String,
    pub lines: Vec<String>,
}

/// The steps of a transcript.
pub fn steps(transcript: &str) -> Vec<Step> {
    let (mut all, mut scenario): (Vec<Step>, String) = (Vec::new(), String::new());
    for line in transcript.lines() {
        if line.starts_with("  ") {
            if let Some(step) = all.last_mut() {
                step.lines.push(line.to_owned());
            }
            continue;
        }
        if let Some(heading) = line.strip_prefix("== ") {
            scenario = heading.to_owned();
        }
        all.push(Step { scenario: scenario.clone(), step: line.to_owned(), lines: Vec::new() });
    }
    all
}

/// The folder of the drivers and scenarios.
pub fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Where setup.sh put the clients.
pub fn clients() -> PathBuf {
    Testbed::get().root().join("clients")
}

fn list(variable: &str) -> Vec<String> {
    std::env::var(variable).map(|v| v.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

/// A difference that is known: a line of known.txt, `FLAVOR CLIENT SCENARIO STEP… # reason`, where `*` stands for any and
/// STEP is the beginning of a step (nothing: all of them).
#[derive(Debug)]
pub struct Known {
    client: String,
    scenario: String,
    step: String,
}

impl Known {
    /// Whether this step of this client is one that is known to differ.
    pub fn covers(&self, scenario: &str, step: &str, client: Client) -> bool {
        (self.client == "*" || self.client == client.name())
            && (self.scenario == "*" || scenario.starts_with(&self.scenario))
            && step.trim_start().starts_with(&self.step)
    }
}

/// The known differences of servers of this kind.
pub fn known(flavor: Flavor) -> Vec<Known> {
    let file = format!("{}/tests/clients/known.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).expect("known.txt is there");
    let kind = match flavor {
        Flavor::MySql => "mysql",
        Flavor::MariaDb => "mariadb",
    };
    let mut all = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (what, reason) = line.split_once(" # ").unwrap_or_else(|| panic!("{file}: no reason: {line}"));
        assert!(!reason.trim().is_empty(), "{file}: no reason: {line}");
        let mut words = what.trim().splitn(4, ' ');
        let mut next = || words.next().unwrap_or_default().trim().to_owned();
        let (of, client, scenario, step) = (next(), next(), next(), next());
        if of == "*" || of == kind {
            all.push(Known { client, scenario, step });
        }
    }
    all
}
