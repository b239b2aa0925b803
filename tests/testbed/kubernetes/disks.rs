//! Disks for claims: folders, or file systems of a size that can be reached and changed.
//!
//! A file system is a tmpfs in a mount namespace of its own, which lives as long as the process that holds it; pods' programs
//! run in that namespace, so that they find it under the folder's path. Nothing is left to unmount, however the test ended.

use super::network::Holder;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Where the volumes of claims are.
pub struct Disks {
    folder: PathBuf,
    sized: Option<Tmpfs>,
}

struct Tmpfs {
    mib: u64,
    holder: Holder,
    mounted: Mutex<HashSet<PathBuf>>,
}

impl Disks {
    /// In `folder`: each a file system of so many MiB, or plain folders.
    pub fn new(folder: PathBuf, mib: Option<u64>) -> Disks {
        let sized = |mib| Tmpfs { mib, holder: Holder::mounts(), mounted: Mutex::default() };
        Disks { folder, sized: mib.map(sized) }
    }

    /// The folder of the claim `NAMESPACE/NAME`, for programs that run [`Disks::inside`].
    pub fn of(&self, claim: &str) -> PathBuf {
        let folder = self.folder.join(claim);
        fs::create_dir_all(&folder).expect("the testbed's folder is writable");
        if let Some(sized) = &self.sized {
            let mut mounted = sized.mounted.lock().expect("no panic while it is held");
            if mounted.insert(folder.clone()) {
                self.mount(&["-t", "tmpfs", "-o", &format!("size={}m", sized.mib), "none"], &folder);
            }
        }
        folder
    }

    /// The same command, run where the volumes are.
    pub fn inside(&self, command: Command) -> Command {
        let Some(sized) = &self.sized else { return command };
        let mut inside = Command::new("nsenter");
        inside.args(["-t", &sized.holder.pid().to_string(), "-m", "--"]);
        inside.arg(command.get_program()).args(command.get_args());
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }

    /// Takes all that is left of the claim's file system; [`Disks::free`] gives it back.
    pub fn fill(&self, claim: &str) {
        assert!(self.sized.is_some(), "its size is that of this machine's disk");
        let filler = self.of(claim).join("filler");
        let mut fill = Command::new("sh");
        fill.args(["-c", "cat /dev/zero >> \"$0\" 2> /dev/null; test -s \"$0\""]).arg(filler);
        assert!(self.inside(fill).status().expect("sh").success(), "{claim} could not be filled");
    }

    /// Gives back what was taken.
    pub fn free(&self, claim: &str) {
        let mut remove = Command::new("rm");
        remove.arg(self.of(claim).join("filler"));
        assert!(self.inside(remove).status().expect("rm").success(), "{claim} could not be freed");
    }

    /// The claim's file system has so many MiB from now on.
    pub fn resize(&self, claim: &str, mib: u64) {
        self.mount(&["-o", &format!("remount,size={mib}m")], &self.of(claim));
    }

    fn mount(&self, how: &[&str], folder: &Path) {
        let mut mount = Command::new("mount");
        mount.args(how).arg(folder);
        assert!(self.inside(mount).status().expect("mount").success(), "{} could not be mounted", folder.display());
    }
}
