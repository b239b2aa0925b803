//! `holdfast init`: what a member's pod does before its server starts. It writes option files and the accounts, and runs no
//! server itself: the image that it comes in has none.
//!
//! ```text
//!  holdfast init ──▶ mysqld first.cnf ─────────────────▶ holdfast init --finish ──▶ mysqld my.cnf
//!                    no data yet: initialise in fresh/   fresh/ becomes data/
//!                    else: only look whether the
//!                    options are right
//! ```
//!
//! What is in fresh/ was never anybody's, and an initialisation that broke off begins anew there; data/ is never removed. One
//! thing is undone because only files can undo it: the identity that a server keeps when its data are replaced by a clone (the
//! numbers of the transactions that it lost must not be given out twice).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Its arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The option file of all members.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Folder of the accounts' passwords, one file each.
    #[arg(long, value_name = "DIR")]
    pub accounts: PathBuf,
    /// The member's volume.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where the option files go.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// The cluster's first server id; the pod's ordinal is added.
    #[arg(long, value_name = "N")]
    pub server_ids: u32,
    /// The pod's name, which ends with its ordinal.
    #[arg(long, env = "POD_NAME")]
    pub pod: String,
    /// Where the other members find it.
    #[arg(long, env = "POD_IP")]
    pub ip: std::net::IpAddr,
    /// Members show each other a certificate when they log in.
    #[arg(long)]
    pub mtls: bool,
    /// The server's program has initialised what it was to.
    #[arg(long)]
    pub finish: bool,
}

/// Writes the files, or with `finish` takes the initialised data into use.
///
/// # Errors
/// What could not be read or written, with its path.
pub fn run(args: &Args) -> io::Result<()> {
    let (data, fresh) = (args.data.join("data"), args.data.join("fresh"));
    let is_new = !data.exists();
    if args.finish {
        let rename = || fs::rename(&fresh, &data).map_err(|error| named(&fresh, &error));
        return if is_new { rename() } else { Ok(()) };
    }
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(|error| named(&fresh, &error))?;
    }
    forget_identity(&args.data, &data)?;
    let common = read(&args.config)? + &own(args)?;
    let accounts = args.run.join("accounts.sql");
    let first = if is_new {
        format!("datadir={}\ninitialize-insecure\ninit-file={}\n", fresh.display(), accounts.display())
    } else {
        format!("datadir={}\nvalidate-config\n", data.display())
    };
    write(&accounts, &accounts_sql(&passwords(&args.accounts)?, args.mtls))?;
    write(&args.run.join("first.cnf"), &(common.clone() + &first))?;
    write(&args.run.join("my.cnf"), &(common + &format!("datadir={}\n", data.display())))
}

/// The lines that each member has for itself.
fn own(args: &Args) -> io::Result<String> {
    let ordinal = args.pod.rsplit('-').next().and_then(|ordinal| ordinal.parse::<u32>().ok());
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{} does not end with an ordinal", args.pod));
    let id = args.server_ids + ordinal.ok_or_else(wrong)?;
    let ip = args.ip;
    let group = std::net::SocketAddr::new(ip, 33061);
    Ok(format!("server-id={id}\nreport-host={ip}\nreport-port=3306\nloose-group_replication_local_address={group}\n"))
}

/// After a clone the server gets another uuid. A clone is known by the moment it began, in the server's own notes.
fn forget_identity(volume: &Path, data: &Path) -> io::Result<()> {
    let Ok(notes) = fs::read_to_string(data.join("#clone/#view_status")) else { return Ok(()) };
    let Some(clone) = notes.lines().nth(1).and_then(|times| times.split(' ').next()) else { return Ok(()) };
    let seen = volume.join("cloned");
    if fs::read_to_string(&seen).is_ok_and(|seen| seen == clone) {
        return Ok(());
    }
    match fs::remove_file(data.join("auto.cnf")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => write(&seen, clone),
    }
}

fn passwords(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let names = crate::reconciler::accounts::ACCOUNTS.iter().map(|account| account.key);
    names.map(|name| Ok((name.to_owned(), read(&folder.join(name))?))).collect()
}

fn accounts_sql(passwords: &BTreeMap<String, String>, mtls: bool) -> String {
    // Every member has them by itself, and none of them is a transaction that others lack.
    let mut sql = "SET SESSION sql_log_bin = 0;\n".to_owned();
    for account in crate::reconciler::accounts::ACCOUNTS {
        sql += &account.sql(passwords.get(account.key).map_or("", |password| password.trim()), mtls);
    }
    sql
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| named(path, &error))
}

/// Readable by the server alone.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bed(name: &str) -> Args {
        let root = std::env::temp_dir().join(format!("holdfast-init-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let folder = |name: &str| {
            fs::create_dir_all(root.join(name)).expect("a folder");
            root.join(name)
        };
        let accounts = folder("accounts");
        for account in crate::reconciler::accounts::ACCOUNTS {
            fs::write(accounts.join(account.key), "it's\n").expect("a file");
        }
        let config = folder("config").join("my.cnf");
        fs::write(&config, "[mysqld]\n").expect("a file");
        let (data, run, ip) = (folder("data"), folder("run"), "10.0.0.7".parse().expect("an address"));
        let pod = "db-mysql-2".to_owned();
        Args { config, accounts, data, run, server_ids: 160, pod, ip, mtls: false, finish: false }
    }

    fn written(args: &Args, name: &str) -> String {
        fs::read_to_string(args.run.join(name)).expect("it was written")
    }

    #[test]
    fn a_volume_is_initialised_once() {
        let mut args = bed("once");
        run(&args).expect("it runs");
        assert!(written(&args, "first.cnf").contains("fresh\ninitialize-insecure"));
        assert!(written(&args, "my.cnf").contains("server-id=162\nreport-host=10.0.0.7\n"));
        assert!(!written(&args, "my.cnf").contains("initialize"));
        assert!(written(&args, "accounts.sql").contains("'it''s'"));
        let x509 = |args: &Args| written(args, "accounts.sql").matches("REQUIRE X509").count();
        assert_eq!(x509(&args), 0);
        args.mtls = true;
        run(&args).expect("it runs");
        assert_eq!(x509(&args), 1, "that of replication");
        // It broke off: from the beginning.
        let fresh = args.data.join("fresh");
        fs::create_dir_all(fresh.join("mysql")).expect("a folder");
        run(&args).expect("it runs");
        assert!(!fresh.exists());
        assert!(written(&args, "first.cnf").contains("initialize-insecure"));
        // It came to its end: never again.
        fs::create_dir_all(&fresh).expect("a folder");
        fs::write(fresh.join("mysql.ibd"), "").expect("a file");
        args.finish = true;
        run(&args).expect("it runs");
        run(&args).expect("it runs");
        args.finish = false;
        run(&args).expect("it runs");
        assert!(written(&args, "first.cnf").contains("data\nvalidate-config"));
        assert!(args.data.join("data/mysql.ibd").exists());
        fs::remove_dir_all(args.data.parent().expect("a root")).expect("it was there");
    }

    #[test]
    fn a_clone_gets_an_identity_of_its_own_once() {
        let args = bed("clone");
        let data = args.data.join("data");
        fs::create_dir_all(data.join("#clone")).expect("a folder");
        let identity = data.join("auto.cnf");
        let look = |clone: &str| {
            fs::write(data.join("#clone/#view_status"), format!("1 1\n{clone} 1795310928191042\n10.0.0.1:3306\n"))
                .expect("a file");
            fs::write(&identity, "").expect("a file");
            run(&args).expect("it runs");
            identity.exists()
        };
        assert!(!look("17"));
        assert!(look("17"));
        assert!(!look("18"));
        fs::remove_dir_all(args.data.parent().expect("a root")).expect("it was there");
    }
}
