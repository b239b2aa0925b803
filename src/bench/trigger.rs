//! What happens to the primary: a signal, a switchover by the group's own function, or a command of the user's.
//!
//! Signals are sent with the shell's `kill`: a run sends one or two of them, which earns no dependency on a crate, and
//! commands need the shell anyway. A process is only signalled if the user named its file, or if it is the one that
//! listens where the primary does (Linux: /proc says so). A process that was frozen is continued whatever happens.

use super::client::Client;
use super::error::BenchError;
use super::servers::Server;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Nothing: what clients see without a failure.
    Nothing,
    /// SIGKILL.
    Kill(Prey),
    /// SIGSTOP, and SIGCONT after a while.
    Freeze(Prey, Duration),
    /// `group_replication_set_as_primary` of another member.
    Switch,
    /// A command for `sh -c`.
    Command(String),
}

/// Which process gets the signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prey {
    /// The one whose number stands in this file.
    PidFile(PathBuf),
    /// The one that listens on the primary's port of this machine.
    Listener,
}

/// What a trigger knows of the servers.
pub struct Scene<'a> {
    /// All of them.
    pub servers: &'a [Server],
    /// Which of them is the primary.
    pub primary: Option<usize>,
    /// Limit for a command.
    pub limit: Duration,
}

/// A frozen process; continued when dropped.
pub struct Frozen(u32);

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = signal("CONT", self.0) {
            eprintln!("holdfast: process {} stays frozen: {error}", self.0);
        }
    }
}

impl Trigger {
    /// Looks whether it can be pulled: finds the process, asks for the rights. Nothing happens yet.
    pub async fn prepare(&self, scene: &Scene<'_>) -> Result<Ready, BenchError> {
        Ok(match self {
            Self::Nothing => Ready::Nothing,
            Self::Kill(prey) => Ready::Kill(prey.find(scene)?),
            Self::Freeze(prey, time) => Ready::Freeze(prey.find(scene)?, *time),
            Self::Command(command) => Ready::Command(shell(command, scene), scene.limit),
            Self::Switch => {
                let (link, sql) = prepare_switch(scene).await?;
                Ready::Switch(Box::new(link), sql)
            }
        })
    }
}

/// A trigger that only waits to be pulled.
pub enum Ready {
    /// Nothing.
    Nothing,
    /// Kill this process.
    Kill(u32),
    /// Freeze this process so long.
    Freeze(u32, Duration),
    /// Ask this on a member.
    Switch(Box<Client>, String),
    /// Run this, at most so long.
    Command(Box<Command>, Duration),
}

impl Ready {
    /// Pulls it; ends when it has happened. Whoever is frozen stays so until the answer is dropped, and should stay so for
    /// the time that comes with it. Not cancel safe: a command may go on.
    pub async fn pull(self) -> Result<Option<(Frozen, Duration)>, BenchError> {
        let failed = |error: std::io::Error| BenchError::Trigger(error.to_string());
        match self {
            Self::Nothing => {}
            Self::Kill(pid) => signal("KILL", pid).map_err(failed)?,
            Self::Freeze(pid, time) => {
                signal("STOP", pid).map_err(failed)?;
                return Ok(Some((Frozen(pid), time)));
            }
            Self::Switch(mut link, sql) => {
                let answer = link.query(&sql).await;
                answer.map_err(|fault| BenchError::Trigger(format!("{sql}: {fault}")))?;
            }
            Self::Command(command, limit) => run(command, limit).await?,
        }
        Ok(None)
    }
}

/// A command for the shell that knows the primary from its environment.
pub fn shell(command: &str, scene: &Scene<'_>) -> Box<Command> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null());
    if let Some(server) = scene.primary.and_then(|index| scene.servers.get(index)) {
        shell
            .env("PRIMARY_HOST", &*server.address().host)
            .env("PRIMARY_PORT", server.address().port.to_string())
            .env("PRIMARY_SERVER_ID", server.id.to_string())
            .env("PRIMARY_UUID", &server.uuid);
    }
    Box::new(shell)
}

/// Runs a command to its end, which must be a good one and come within `limit`.
pub async fn run(mut command: Box<Command>, limit: Duration) -> Result<(), BenchError> {
    let spawned = command.spawn().map_err(|error| BenchError::Trigger(format!("sh: {error}")))?;
    let mut child = Killed(spawned);
    let began = Instant::now();
    loop {
        match child.0.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(BenchError::Trigger(format!("the command failed: {status}"))),
            Ok(None) if began.elapsed() > limit => {
                return Err(BenchError::Trigger(format!("the command still ran after {limit:?} and was killed")));
            }
            Ok(None) => tokio::time::sleep(Duration::from_millis(2)).await,
            Err(error) => return Err(BenchError::Trigger(error.to_string())),
        }
    }
}

/// A child that does not outlive its owner.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Another member that is to be the primary, and how to ask for it.
async fn prepare_switch(scene: &Scene<'_>) -> Result<(Client, String), BenchError> {
    let Some(primary) = scene.primary.and_then(|index| scene.servers.get(index)) else {
        return Err(BenchError::NoPrimary("--trigger switch needs the servers: name them with --server".to_owned()));
    };
    if !primary.in_group {
        return Err(BenchError::Trigger(
            "--trigger switch is for group replication; elsewhere give a --trigger-command that moves the primary"
                .to_owned(),
        ));
    }
    let asked = |fault| BenchError::Server { address: primary.address().clone(), what: "asking for its group", fault };
    let mut link = Client::open(&primary.target, None).await.map_err(asked)?;
    let next = link
        .value(
            "SELECT MEMBER_ID FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE' \
             AND MEMBER_ROLE = 'SECONDARY' ORDER BY MEMBER_ID > @@global.server_uuid DESC, MEMBER_ID LIMIT 1",
        )
        .await
        .map_err(asked)?;
    let Some(next) = next.filter(|uuid| uuid.chars().all(|c| c.is_ascii_hexdigit() || c == '-')) else {
        return Err(BenchError::Trigger("the group has no other ONLINE member".to_owned()));
    };
    Ok((link, format!("SELECT group_replication_set_as_primary('{next}')")))
}

impl Prey {
    fn find(&self, scene: &Scene<'_>) -> Result<u32, BenchError> {
        match self {
            Self::PidFile(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|error| BenchError::File { path: path.clone(), error })?;
                text.trim().parse().map_err(|_| BenchError::Trigger(format!("{}: no process id", path.display())))
            }
            Self::Listener => {
                let Some(primary) = scene.primary.and_then(|index| scene.servers.get(index)) else {
                    return Err(BenchError::NoPrimary(
                        "which process to signal? Name the servers with --server, or the process with --pid-file"
                            .to_owned(),
                    ));
                };
                let address = primary.address();
                let local = matches!(&*address.host, "localhost" | "127.0.0.1" | "::1");
                local.then(|| listener(address.port)).flatten().ok_or_else(|| {
                    BenchError::Trigger(format!(
                        "no process of this machine that we may look at listens on {address}: name it with --pid-file, \
                         or say how with --trigger-command"
                    ))
                })
            }
        }
    }
}

/// The process that listens on a TCP port of this machine.
fn listener(port: u16) -> Option<u32> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let has = |process: &Path| {
        let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut numbered = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    numbered.find(|(_, path)| has(path)).map(|(pid, _)| pid)
}

/// Inodes of the sockets that listen on `port`, from /proc/net/tcp.
fn listening(table: &str, port: u16) -> Vec<String> {
    let mut inodes = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Address and port in hex, state 0A is LISTEN, the inode is the tenth.
        let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields[..] else { continue };
        let here = local.rsplit_once(':').and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok());
        if here == Some(port) {
            inodes.push(inode.to_owned());
        }
    }
    inodes
}

fn signal(name: &str, pid: u32) -> std::io::Result<()> {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stdin(Stdio::null()).status()?;
    if sent.success() { Ok(()) } else { Err(std::io::Error::other(format!("kill -{name} {pid}: {sent}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:5DC0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0\n\
            1: 0100007F:5DC0 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 20 4 30 10 -1\n\
            2: 0100007F:5DC1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0\n";
        assert_eq!(listening(table, 24_000), ["111"]);
        assert_eq!(listening(table, 1), Vec::<String>::new());
    }

    #[test]
    fn the_process_that_listens_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener(socket.local_addr().unwrap().port()), Some(std::process::id()));
    }
}
