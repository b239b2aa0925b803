//! One child process: started on a core of its own, measured through /proc, ended with its owner.

use anyhow::Context;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running child; killed when dropped.
pub struct Process {
    child: Child,
}

/// What a process has used so far.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// CPU time of all its threads, nanoseconds (/proc/PID/task/*/schedstat).
    pub cpu_ns: u64,
    /// The share in user space, in clock ticks (/proc/PID/stat).
    pub user_ticks: u64,
    /// The share in the kernel, in clock ticks.
    pub system_ticks: u64,
}

/// Memory in KiB.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    /// VmRSS.
    pub rss_kib: u64,
    /// VmHWM since [`Process::forget_peak`].
    pub peak_kib: u64,
}

impl Process {
    /// Starts `program` on core `core`, its output in `log`.
    pub fn start(core: usize, log: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let out = fs::File::create(log)?;
        let child = Command::new("taskset")
            .args(["-c", &core.to_string(), program])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            .spawn()
            .with_context(|| format!("taskset {program}"))?;
        Ok(Self { child })
    }

    /// Its id; taskset has become the program itself.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has used so far.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let pid = self.pid();
        let mut cpu_ns = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            cpu_ns += text.split(' ').next().context("schedstat")?.parse::<u64>()?;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th fields behind it.
        let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
        Ok(Usage { cpu_ns, user_ticks: fields[11].parse()?, system_ticks: fields[12].parse()? })
    }

    /// Its memory now.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let field = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find(|line| line.starts_with(name)).context("status")?;
            Ok(line.split_whitespace().nth(1).context("status")?.parse()?)
        };
        Ok(Memory { rss_kib: field("VmRSS:")?, peak_kib: field("VmHWM:")? })
    }

    /// Lets the peak begin again at what is resident now.
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.pid()), "5")?)
    }

    /// True once it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
