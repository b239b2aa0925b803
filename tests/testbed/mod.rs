//! Real servers for the tests: MySQL, MariaDB, MySQL Router, HAProxy; started, stopped and broken at will.
//!
//! Why: a proxy is only as right as the servers it was tried on, so no test that counts uses a mock. `setup.sh` beside
//! this file obtains the programs (once, cached); this module starts them on ports of their own with data directories
//! copied from one initialised template. Several sets run side by side in one test, and tests in parallel.
//!
//! Everything here blocks. In an async test start servers before the runtime, or use `spawn_blocking`. Every failure to
//! start panics with the last `ERROR` lines of the server's own log; `Server::try_start` returns them instead.
//!
//! No server outlives its test: `Drop` ends it by its process id, and the kernel does if the test process is killed
//! (PR_SET_PDEATHSIG through util-linux' `setpriv`). A test that panics keeps the servers' logs and says where.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `HOLDFAST_TESTBED` | where programs and templates live; default `~/.cache/holdfast/testbed` |
//! | `HOLDFAST_TESTBED_RUN` | where the state of running servers lives; default `run` in the former |
//! | `HOLDFAST_TESTBED_PORTS` | `FIRST-LAST`, the ports to take; default 11000-31999 |
//! | `HOLDFAST_MYSQLD` | a mysqld (8.0 or later) of the host to use instead of an unpacked one |
//!
//! Accounts of every server: see `users-mysql.sql` and `users-mariadb.sql`.
#![allow(dead_code, unused_imports, reason = "each test crate uses some of the testbed")]

mod cable;
mod cli;
mod daemon;
mod front;
mod group;
mod http;
pub mod kubernetes;
mod ports;
mod replicas;
mod server;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

pub use cable::Cable;
pub use cli::cli;
pub use daemon::{Daemon, StartError};
pub use front::{HaProxy, HaProxyOptions, Router};
pub use group::{Group, GroupOptions};
pub use http::{exchange, http, metric};
pub use ports::Port;
pub use replicas::{ReplicaSet, SetOptions};
pub use server::{Flavor, Rows, Server, ServerOptions, query};

/// The programs and this process's folder for the state of its servers. One per process: [`Testbed::get`].
pub struct Testbed {
    root: PathBuf,
    run: PathBuf,
    /// Held while this process lives: whoever can take it may remove our state.
    _alive: File,
    parts: Mutex<HashMap<&'static str, HashMap<String, PathBuf>>>,
    folders: AtomicUsize,
}

/// Paths of the certificates that the testbed's servers use.
///
/// The server's certificate is for 127.0.0.1 and localhost, signed by `ca`; the client's is too; `other_ca` signed none.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub other_ca: PathBuf,
    pub server_cert: PathBuf,
    pub server_key: PathBuf,
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
}

impl Testbed {
    /// The testbed of this process. Panics with the reason if it cannot be had.
    pub fn get() -> &'static Testbed {
        static TESTBED: OnceLock<Testbed> = OnceLock::new();
        TESTBED.get_or_init(|| Testbed::open().unwrap_or_else(|e| panic!("no testbed: {e}")))
    }

    fn open() -> std::io::Result<Testbed> {
        let root = testbed_root();
        let run = std::env::var_os("HOLDFAST_TESTBED_RUN").map_or(root.join("run"), PathBuf::from);
        fs::create_dir_all(&run)?;
        // Taken while folders are made or swept, so that nobody sweeps a folder whose lock is about to be taken.
        let sweeping = File::create(run.join(".lock"))?;
        sweeping.lock()?;
        sweep(&run)?;
        let id = std::process::id().to_string();
        let alive = File::create(run.join(format!("{id}.alive")))?;
        alive.lock()?;
        let mine = run.join(id);
        fs::create_dir_all(&mine)?;
        Ok(Testbed {
            root,
            run: mine.canonicalize()?,
            _alive: alive,
            parts: Mutex::default(),
            folders: AtomicUsize::new(0),
        })
    }

    /// Path of a program or folder of a part, such as `("mysql", "MYSQLD")`; obtains the part first if need be.
    pub fn path(&self, part: &'static str, variable: &str) -> PathBuf {
        let mut parts = self.parts.lock().expect("setup failed in another thread");
        let env = parts.entry(part).or_insert_with(|| self.setup(part));
        env.get(variable).unwrap_or_else(|| panic!("{part}: setup.sh names no {variable}")).clone()
    }

    /// Runs setup.sh for the part and reads what it found. Quick if the part is there.
    fn setup(&self, part: &str) -> HashMap<String, PathBuf> {
        let out = Command::new("bash")
            .arg(here().join("setup.sh"))
            .arg(part)
            .env("HOLDFAST_TESTBED", &self.root)
            .output()
            .expect("bash is needed to obtain the servers");
        assert!(
            out.status.success(),
            "setup.sh {part} failed:\n{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        let file = self.root.join(format!("env/{part}.env"));
        let text = fs::read_to_string(&file).expect("setup.sh wrote the part's env file");
        text.lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), PathBuf::from(value.trim_matches('\''))))
            .collect()
    }

    /// The certificates of the testbed's servers.
    pub fn tls(&self) -> TlsFiles {
        self.path("mysql", "MYSQLD");
        let file = |name: &str| self.root.join("tls").join(name);
        TlsFiles {
            ca: file("ca.pem"),
            other_ca: file("other-ca.pem"),
            server_cert: file("server-cert.pem"),
            server_key: file("server-key.pem"),
            client_cert: file("client-cert.pem"),
            client_key: file("client-key.pem"),
        }
    }

    /// The folder under which everything is cached.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A new empty folder under this process's state; removed with the state, after the process has ended.
    pub fn new_folder(&self, name: &str) -> PathBuf {
        let n = self.folders.fetch_add(1, Ordering::Relaxed);
        let folder = self.run.join(format!("{n}-{name}"));
        fs::create_dir_all(&folder).expect("the testbed's folder is writable");
        folder
    }
}

/// A look counts as at most so much of a wait: a machine that stood still meanwhile (virtual ones do, for minutes) would
/// otherwise end every wait on it, however little was done by then.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Waits until `condition` holds, looking every 20 ms; panics with `what` after `limit`. Returns how long it took.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    let (mut waited, mut looked) = (Duration::ZERO, begin);
    while !condition() {
        assert!(waited < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
        waited += looked.elapsed().min(LOOK_MAX);
        looked = Instant::now();
    }
    begin.elapsed()
}

fn testbed_root() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    variable("HOLDFAST_TESTBED").unwrap_or_else(|| {
        variable("XDG_CACHE_HOME")
            .unwrap_or_else(|| variable("HOME").expect("HOME is set").join(".cache"))
            .join("holdfast/testbed")
    })
}

/// The folder of this file: scripts, option files, accounts.
fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed")
}

/// Removes the state of processes that are gone (their servers went with them).
fn sweep(run: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(run)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "alive") && File::open(&path)?.try_lock().is_ok() {
            let _ = fs::remove_dir_all(path.with_extension(""));
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
