//! A running `holdfast bench failover`.

use crate::proxy::SOON;
use crate::testbed::{Server, Testbed, until};
use holdfast::bench::report::Report;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A measurement that runs; killed when dropped.
pub struct Bench {
    child: Child,
    dir: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    /// Few clients; `more` goes behind.
    pub fn start(name: &str, port: u16, servers: &[Server], more: &[&str]) -> Self {
        let servers: Vec<SocketAddr> = servers.iter().map(Server::addr).collect();
        let few = "--clients-write 4 --clients-read 2 --clients-transaction 2 --clients-prepared 2 --clients-idle 2 --rate 25 \
             --before 1s --after 1s";
        let all: Vec<&str> = few.split_whitespace().chain(more.iter().copied()).collect();
        Self::start_with(name, port, &servers, &all)
    }

    /// As the arguments say.
    pub fn start_with(name: &str, port: u16, servers: &[SocketAddr], arguments: &[&str]) -> Self {
        let dir = Testbed::get().new_folder(name);
        let file = |name: &str| std::fs::File::create(dir.join(name)).expect("the folder is writable");
        let mut run = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        run.args(["bench", "failover", "--target", &format!("127.0.0.1:{port}")]);
        if !arguments.contains(&"--user") {
            run.args(["--user", "app"]);
        }
        for server in servers {
            run.args(["--server", &server.to_string()]);
        }
        run.arg("--json").arg(dir.join("report.json")).arg("--html").arg(dir.join("report.html"));
        run.args(arguments).env("HOLDFAST_BENCH_PASSWORD", "app");
        run.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        Self { child: run.spawn().expect("the binary is there"), dir }
    }

    /// A file that it writes.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether it goes on.
    pub fn running(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_none()
    }

    /// What a file of it says.
    pub fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }

    /// Waits for its end; exit code and what it said.
    pub fn end(&mut self) -> (i32, String) {
        let mut status = None;
        until("the measurement ends", SOON, || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        let code = status.and_then(|status| status.code()).unwrap_or(-1);
        (code, self.text("out") + &self.text("err"))
    }

    /// What it measured.
    pub fn report(&self) -> Report {
        let text = self.text("report.json");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}
