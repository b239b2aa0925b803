//! The servers' own command line clients.

use super::{Flavor, Testbed};
use std::process::Command;

/// What the program prints, without names of columns; or its error.
pub fn cli(
    flavor: Flavor,
    port: u16,
    (user, password): (&str, &str),
    options: &[&str],
    sql: &str,
) -> Result<String, String> {
    let (program, plugins) = match flavor {
        Flavor::MySql => (Testbed::get().path("mysql", "MYSQL"), Testbed::get().path("mysql", "MYSQL_PLUGINS")),
        Flavor::MariaDb => {
            (Testbed::get().path("mariadb", "MARIADB"), Testbed::get().path("mariadb", "MARIADB_PLUGINS"))
        }
    };
    let out = Command::new(program)
        .args(["--no-defaults", "--protocol=TCP", "-h127.0.0.1", "--connect-timeout=20", "-N", "-B"])
        .arg(format!("-P{port}"))
        .arg(format!("-u{user}"))
        // An unpacked client looks for its login plugins in the wrong place.
        .arg(format!("--plugin-dir={}", plugins.display()))
        .args(options)
        .args(["-e", sql])
        .env("MYSQL_PWD", password)
        .output()
        .expect("the client runs");
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned()),
        false => Err(String::from_utf8_lossy(&out.stderr).trim_end().to_owned()),
    }
}
