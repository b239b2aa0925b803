//! Real clients through the port: each runs one suite of scenarios on the server itself and through Holdfast, with TLS
//! and without, and must see the same, byte for byte.
//!
//! The scenarios are `clients/scenarios.txt` and `clients/logins.txt`; a driver per client beside them carries them out and
//! prints a transcript. Direct and proxied transcripts are compared as they are: databases are made afresh before each run,
//! drivers print nothing that must differ, and before each step they wait until the followers have everything (reads of
//! one's own writes are a later promise). The logins run with cold caches of servers and proxy, and again with warm ones.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `HOLDFAST_CLIENTS` | only these clients, with commas: `go,node` |
//! | `HOLDFAST_SCENARIOS` | only these scenarios, with commas: `xa,logins` |
//! | `HOLDFAST_TLS` | only `off`, only `on`, or `turns`: with TLS on one kind of server and without on the other; else both on both |
//! | `HOLDFAST_TRANSCRIPTS` | a folder that gets every transcript |
//!
//! One difference is wanted: an account with MariaDB's ed25519 plugin lets a client without that plugin in through the
//! port, since the proxy takes its password in another way, over TLS or under its RSA key, and proves it to the server with
//! ed25519 itself. `logins.txt` leaves such clients out there.
//!
//! `clients/known.txt` names the differences that are known, each with its reason: they are counted, not failed.
//!
//! `clients/setup.sh` obtains the clients.

#[path = "clients/bed.rs"]
mod bed;
#[path = "clients/driver.rs"]
mod driver;
#[path = "clients/scenario.rs"]
mod scenario;
mod testbed;

use bed::{Bed, Place};
use scenario::{Client, Known, Script};
use std::fmt::Write as _;
use std::time::Instant;
use testbed::Flavor;

#[test]
fn every_client_sees_through_the_port_what_a_group_says() {
    suite(Flavor::MySql);
}

#[test]
fn every_client_sees_through_the_port_what_mariadb_says() {
    suite(Flavor::MariaDb);
}

fn suite(flavor: Flavor) {
    let programs = bed::programs();
    let bed = Bed::start(flavor);
    let logins = Script::read("logins.txt");
    let scenarios = Script::read("scenarios.txt");
    let known = scenario::known(flavor);
    let mut findings = String::new();
    for client in Client::wanted() {
        for tls in [false, true].into_iter().filter(|tls| wanted(flavor, client, *tls)) {
            let begin = Instant::now();
            let run = Run { bed: &bed, client, tls, programs: &programs, known: &known };
            let cold = run.logins(&logins);
            let rest = run.scenarios(&scenarios);
            let name = format!("{flavor:?} {} {}", client.name(), if tls { "TLS" } else { "plain" });
            let (unknown, known) = (cold.count + rest.count, cold.known + rest.known);
            println!("{name}: {unknown} differences, {known} known ones, in {:.1?}", begin.elapsed());
            for found in [cold, rest].iter().filter(|f| f.count > 0) {
                let _ = write!(findings, "\n######## {name}\n{}", found.text);
            }
        }
    }
    assert!(findings.is_empty(), "through the port some clients saw something else:\n{findings}");
}

/// Whether to run with TLS, or without it.
fn wanted(flavor: Flavor, client: Client, tls: bool) -> bool {
    let turn = (flavor == Flavor::MySql) == client.is_even();
    match std::env::var("HOLDFAST_TLS").as_deref() {
        Ok("turns") => tls == turn,
        Ok("off") => !tls,
        Ok("on") => tls,
        _ => true,
    }
}

struct Run<'a> {
    bed: &'a Bed,
    client: Client,
    tls: bool,
    programs: &'a bed::Programs,
    known: &'a [Known],
}

/// Where two transcripts differ.
#[derive(Default)]
struct Differences {
    count: usize,
    /// Those that `clients/known.txt` names.
    known: usize,
    text: String,
}

impl Run<'_> {
    /// Cold: no cache of a server or of the proxy knows any account. Warm: the same again.
    fn logins(&self, logins: &Script) -> Differences {
        let Some(script) = logins.for_client(self.bed.flavor(), self.client) else {
            return Differences::default();
        };
        let script = script.renamed(self.bed.unknown_users());
        let script = if self.client.is_cli() { script.per_connection() } else { script };
        let mut found = Differences::default();
        self.bed.forget_logins();
        let server: Vec<String> = (0..2).map(|_| self.transcript(&script, Place::Server)).collect();
        self.bed.forget_logins();
        let proxy = self.bed.proxy(self.client);
        for (n, (state, server)) in ["cold", "warm"].iter().zip(server).enumerate() {
            let port = self.transcript(&script, Place::Port(&proxy));
            self.keep(&format!("logins-{n}"), &server, &port);
            found.compare(state, self.known, self.client, &server, &port);
        }
        found
    }

    fn scenarios(&self, scenarios: &Script) -> Differences {
        let Some(script) = scenarios.for_client(self.bed.flavor(), self.client) else {
            return Differences::default();
        };
        let script = script.renamed(self.bed.unknown_users());
        let mut found = Differences::default();
        let proxy = self.bed.proxy(self.client);
        // Warm for the accounts that can log in and cold for all others, whatever ran before.
        self.bed.forget_logins();
        self.bed.warm_logins(&proxy);
        let server = self.transcript(&script, Place::Server);
        let began = |line: &str| line.starts_with("  connected") || line.starts_with("  ended with Some(0)");
        assert!(server.lines().any(began), "{} does not work on the server itself:\n{server}", self.client.name());
        self.bed.fresh_databases();
        let port = self.transcript(&script, Place::Port(&proxy));
        self.keep("scenarios", &server, &port);
        found.compare("", self.known, self.client, &server, &port);
        found
    }

    fn transcript(&self, script: &Script, place: Place<'_>) -> String {
        let port = self.bed.port_of(place);
        match self.client {
            Client::Rust => driver::run(script, port, self.tls, self.bed.sync_port(), &self.bed.infile()),
            client => self.programs.run(client, script, port, self.tls, self.bed),
        }
    }

    fn keep(&self, what: &str, server: &str, port: &str) {
        let Some(folder) = std::env::var_os("HOLDFAST_TRANSCRIPTS").map(std::path::PathBuf::from) else {
            return;
        };
        let tls = if self.tls { "tls" } else { "plain" };
        let name = format!("{:?}-{}-{tls}-{what}", self.bed.flavor(), self.client.name());
        for (side, text) in [("server", server), ("port", port)] {
            std::fs::write(folder.join(format!("{name}.{side}")), text).expect("the folder of transcripts is writable");
        }
    }
}

impl Differences {
    /// Compares step by step; a step is a line that is not indented and what follows it.
    fn compare(&mut self, state: &str, known: &[Known], client: Client, server: &str, port: &str) {
        let (server, port) = (scenario::steps(server), scenario::steps(port));
        for i in 0..server.len().max(port.len()) {
            let of = |steps: &[scenario::Step]| steps.get(i).cloned().unwrap_or_default();
            let (want, got) = (of(&server), of(&port));
            if want == got {
                continue;
            }
            if known.iter().any(|k| k.covers(&want.scenario, &want.step, client)) {
                self.known += 1;
                continue;
            }
            self.count += 1;
            if want.step != got.step {
                let _ =
                    writeln!(self.text, "{state} out of step from {} {}: the client ended", want.scenario, want.step);
                return;
            }
            let _ = writeln!(self.text, "{state} {} | {}", want.scenario, want.step);
            self.show_lines(&want.lines, &got.lines);
        }
    }

    fn show_lines(&mut self, want: &[String], got: &[String]) {
        for (sign, lines, others) in [("server", want, got), ("port  ", got, want)] {
            let own: Vec<&String> =
                lines.iter().enumerate().filter(|(i, l)| others.get(*i) != Some(l)).map(|(_, l)| l).collect();
            for line in own.iter().take(4) {
                let _ = writeln!(self.text, "    {sign} {}", line.chars().take(400).collect::<String>());
            }
            if own.is_empty() && lines.is_empty() {
                let _ = writeln!(self.text, "    {sign} (nothing)");
            }
        }
    }
}
