//! One process of the testbed: how it is started, signalled, ended, and what it leaves behind.
//!
//! Refuses to signal a process that has ended: a process id is ours only until it is reaped.

use super::Testbed;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

/// Why a server did not start, with the last error lines of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError(pub String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// A process with a folder of its own; ended and removed when dropped, its logs kept if the test is panicking.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    dir: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Daemon {
    /// A daemon that does not run yet, with a new folder.
    pub fn new(name: &str) -> Daemon {
        Daemon { name: name.to_owned(), dir: Testbed::get().new_folder(name), child: Mutex::new(None) }
    }

    /// Runs `command` as this daemon's process, its output appended to `out.log` in the folder.
    pub fn run(&self, command: &Command) -> Result<(), StartError> {
        let mut child = self.lock();
        assert!(child.as_mut().and_then(running_id).is_none(), "{} runs already", self.name);
        let failed = |e: std::io::Error| StartError(format!("{}: {e}", self.name));
        let log = File::options().create(true).append(true).open(self.dir.join("out.log")).map_err(failed)?;
        let mut guarded = Command::new("setpriv");
        guarded
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        *child = Some(spawn(guarded).map_err(failed)?);
        Ok(())
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its process id, if it runs (frozen counts as running).
    pub fn pid(&self) -> Option<u32> {
        let mut child = self.lock();
        child.as_mut().and_then(running_id)
    }

    /// Whether it runs.
    pub fn running(&self) -> bool {
        self.pid().is_some()
    }

    /// Whether it is stopped by SIGSTOP, with all its threads.
    pub fn frozen(&self) -> bool {
        let Some(threads) = self.pid().and_then(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()) else {
            return false;
        };
        // the state follows the name, which is in parentheses and may hold anything
        let stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        threads.flatten().all(|thread| fs::read_to_string(thread.path().join("stat")).is_ok_and(stopped))
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill9(&self) {
        self.signal("KILL");
        self.wait_exit(Duration::from_secs(10));
    }

    /// SIGTERM, and waits up to 60 s until the process is gone. A frozen process is continued first.
    pub fn term(&self) {
        self.signal("CONT");
        self.signal("TERM");
        self.wait_exit(Duration::from_secs(60));
    }

    /// SIGTERM without waiting.
    pub fn term_now(&self) {
        self.signal("TERM");
    }

    /// SIGSTOP: alive for the kernel, silent for everybody. Returns when every thread has stopped.
    pub fn freeze(&self) {
        self.signal("STOP");
        super::until("every thread has stopped", Duration::from_secs(10), || self.frozen());
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// The last lines of its logs that speak of an error, newest last, at most 8.
    pub fn errors(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for log in ["out.log", "err.log"] {
            let text = fs::read(self.dir.join(log)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let speaks = |l: &&str| ["ERROR", "[ALERT]", "rror:"].iter().any(|m| l.contains(m));
            lines.extend(text.lines().filter(speaks).map(str::to_owned));
        }
        lines.split_off(lines.len().saturating_sub(8)).join("\n")
    }

    /// A StartError that tells what happened and the process's own reasons.
    pub fn failed(&self, what: &str) -> StartError {
        let reasons = self.errors();
        StartError(format!("{} {what}\n{reasons}", self.name))
    }

    /// Sends a signal, named without `SIG`. Panics if the process does not run.
    pub fn signal(&self, signal: &str) {
        assert!(self.try_signal(signal), "{} does not run: no SIG{signal}", self.name);
    }

    /// The same; false if the process does not run.
    pub fn try_signal(&self, signal: &str) -> bool {
        let mut child = self.lock();
        let Some(pid) = child.as_mut().and_then(running_id) else { return false };
        // the shell's own kill: the program of that name is not on every host
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status();
        assert!(sent.is_ok_and(|s| s.success()), "kill -{signal} {pid} failed");
        true
    }

    /// Waits until the process has ended, and how. Panics after `limit`.
    pub fn wait_exit(&self, limit: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(child) = self.lock().as_mut()
                && let Ok(Some(status)) = child.try_wait()
            {
                return status;
            }
            assert!(begin.elapsed() < limit, "{} still runs {limit:?} after the signal", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.lock().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            keep_logs(self);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The process id, unless the process has ended.
fn running_id(child: &mut Child) -> Option<u32> {
    matches!(child.try_wait(), Ok(None)).then(|| child.id())
}

/// Copies the logs of a failed test's server to `failed/` in the testbed, of which the newest 40 folders stay.
fn keep_logs(daemon: &Daemon) {
    let all = Testbed::get().root().join("failed");
    let folder =
        all.join(format!("{}-{}", std::process::id(), daemon.dir.file_name().unwrap_or_default().to_string_lossy()));
    if fs::create_dir_all(&folder).is_err() {
        return;
    }
    for file in ["my.cnf", "err.log", "out.log", "router.conf", "haproxy.cfg"] {
        let _ = fs::copy(daemon.dir.join(file), folder.join(file));
    }
    eprintln!("{}: logs kept in {}", daemon.name, folder.display());
    let errors = daemon.errors();
    if !errors.is_empty() {
        eprintln!("{errors}");
    }
    let mut kept: Vec<_> = fs::read_dir(&all)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
        .collect();
    kept.sort();
    for (_, old) in kept.iter().rev().skip(40) {
        let _ = fs::remove_dir_all(old);
    }
}

/// Spawns on a thread that lives as long as the process: the parent whose death PR_SET_PDEATHSIG tells of is the thread
/// that forked, and a test's own thread ends with its test while a shared server goes on.
pub(super) fn spawn(command: Command) -> std::io::Result<Child> {
    type Request = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, queue) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let (answer, result) = mpsc::channel();
    spawner
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .send((command, answer))
        .expect("the spawner lives as long as the process");
    result.recv().expect("the spawner answers every request")
}
