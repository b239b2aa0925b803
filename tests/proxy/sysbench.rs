//! sysbench through a port.

use crate::testbed::Testbed;
use std::process::Command;

/// Rows of each table: enough that 256 threads seldom wait for one another.
pub const ROWS: u32 = 5_000;

/// Runs sysbench and answers what it printed; panics with it when it failed.
pub fn sysbench(port: u16, workload: &str, more: &[&str], what: &str) -> String {
    let program = Testbed::get().root().join("bin/sysbench");
    let output = Command::new(program)
        .args(["--mysql-host=127.0.0.1", "--mysql-user=app", "--mysql-password=app", "--mysql-db=sbt", "--tables=4"])
        .args([format!("--mysql-port={port}"), format!("--table-size={ROWS}")])
        .arg(workload)
        .args(more)
        .arg(what)
        .output()
        .expect("sysbench is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sysbench {workload} {more:?} {what}:\n{text}");
    text
}
