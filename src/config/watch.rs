//! Reload: the file is looked at every second and on SIGHUP; what is new and valid is published.
//!
//! A file that is not valid changes nothing and is logged once with everything that is wrong with it. Nor does one that
//! changes a setting which only a restart can change: half a configuration in effect is worse than the old one. The
//! whole file is read and parsed each time, without looking at times or inode numbers, since Kubernetes swaps a symbolic
//! link and a password lies in a file of its own; this takes less than a millisecond.
//!
//! The caller turns SIGHUP into [`Watch::nudge`]; this room installs no signal handler.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Config, ConfigError, DiscoveryConfig, check, environment, load};

/// Settings that only a restart changes; `*` stands for a name. Adding or removing a listener changes its `name`, which is
/// one of them. Clusters come and go; only one that stays must keep its source.
const RESTART: &[&str] = &[
    "proxy.workers",
    "log.format",
    "admin.listen",
    "listener.*.name",
    "listener.*.listen",
    "cluster.*.source",
    "discovery.*.name",
    "discovery.*.preset",
    "discovery.*.namespaces",
    "discovery.*.selector",
];

/// What to watch.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The configuration file.
    pub path: PathBuf,
    /// How often it is looked at; [`Watch::EVERY`].
    pub every: Duration,
    /// Look at once, and say what came of it (SIGHUP).
    pub nudge: Arc<Notify>,
    /// Told what became of the file, for the status page.
    pub read: Arc<ArcSwap<LastRead>>,
}

/// Whether what the file says is in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// It is.
    Current,
    /// It is not valid; the one before stays.
    Refused,
    /// It is valid, but changes what only a restart can change; the one before stays.
    NeedsRestart,
}

impl FileState {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Refused => "refused",
            Self::NeedsRestart => "needs restart",
        }
    }

    /// For people.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Current => "the file is in effect",
            Self::Refused => "the file is not valid, the one before stays in effect",
            Self::NeedsRestart => "the file changes what only a restart can change, the one before stays in effect",
        }
    }
}

/// What became of the file when it said something new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRead {
    /// Is it in effect?
    pub state: FileState,
    /// Why not, or what has changed.
    pub text: String,
    /// Since when.
    pub at: SystemTime,
}

impl LastRead {
    /// The file the process began with.
    pub fn first() -> Arc<ArcSwap<Self>> {
        Arc::new(ArcSwap::from_pointee(Self { state: FileState::Current, text: String::new(), at: SystemTime::now() }))
    }
}

impl Watch {
    /// Design: "reload on change".
    pub const EVERY: Duration = Duration::from_secs(1);
}

/// What is to be done with a configuration that was read again.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It says what is in effect already.
    Unchanged,
    /// It goes into effect; the paths of the values that differ, as `listener.app.max_connections`.
    Accepted(Box<Config>, Vec<String>),
    /// Nothing changes; these values need a restart.
    NeedsRestart(Vec<String>),
    /// Nothing changes; the file is not valid.
    Refused(ConfigError),
}

/// Watches until `shutdown`; each new valid configuration is sent to `publish`, whose value must be the one in effect.
///
/// Cancel safe: dropping it loses nothing but the message of a reload under way.
pub async fn run(watch: Watch, publish: watch::Sender<Arc<Config>>, shutdown: CancellationToken) {
    let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + watch.every, watch.every);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What was refused is refused again each second; it is said once.
    let mut said = String::new();
    loop {
        let asked = tokio::select! {
            () = shutdown.cancelled() => return,
            () = watch.nudge.notified() => true,
            _ = timer.tick() => false,
        };
        let path = watch.path.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&path, environment())).await;
        let Ok(loaded) = loaded else { continue };
        let current = publish.borrow().clone();
        let verdict = judge(&current, loaded);
        report(&verdict, asked, &mut said);
        note(&verdict, &watch.read);
        if let Verdict::Accepted(config, _) = verdict {
            publish.send_replace(Arc::from(config));
        }
    }
}

/// Compares what was read with what is in effect.
pub fn judge(current: &Config, loaded: Result<Config, ConfigError>) -> Verdict {
    let new = match loaded {
        Ok(new) if new == *current => return Verdict::Unchanged,
        Ok(new) => new,
        Err(error) => return Verdict::Refused(error),
    };
    let changed = changed(current, &new);
    let stays = |path: &str| match path.strip_prefix("cluster.").and_then(|rest| rest.strip_suffix(".source")) {
        Some(name) => current.cluster(name).is_some() && new.cluster(name).is_some(),
        None => true,
    };
    let restart: Vec<String> = changed.iter().filter(|path| needs_restart(path) && stays(path)).cloned().collect();
    if restart.is_empty() { Verdict::Accepted(Box::new(new), changed) } else { Verdict::NeedsRestart(restart) }
}

fn changed(old: &Config, new: &Config) -> Vec<String> {
    let (before, after) = (check::values(old), check::values(new));
    let differs = |path: &&String| before.get(*path) != after.get(*path);
    let mut changed: Vec<String> = before.keys().chain(after.keys()).filter(differs).cloned().collect();
    // Passwords look the same in what is printed.
    for cluster in &new.clusters {
        if old.cluster(&cluster.name).is_some_and(|was| was.account.password != cluster.account.password) {
            changed.push(format!("cluster.{}.account.password", cluster.name));
        }
    }
    for discovery in &new.discoveries {
        let password = |d: &DiscoveryConfig| d.template.account.password.clone();
        let was = old.discoveries.iter().find(|was| was.name == discovery.name);
        if was.is_some_and(|was| password(was) != password(discovery)) {
            changed.push(format!("discovery.{}.account.password", discovery.name));
        }
    }
    changed.sort();
    changed.dedup();
    changed
}

/// Whether a path such as `listener.my.app.listen` fits one of [`RESTART`]. A name may have dots.
fn needs_restart(path: &str) -> bool {
    RESTART.iter().any(|pattern| match pattern.split_once('*') {
        None => path == *pattern,
        Some((start, end)) => {
            let name = path.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
            name.is_some_and(|name| !name.is_empty() && !name.ends_with(".tls") && !name.ends_with(".account"))
        }
    })
}

fn report(verdict: &Verdict, asked: bool, said: &mut String) {
    let text = match verdict {
        Verdict::Unchanged if asked => {
            info!("configuration read again: nothing has changed");
            String::new()
        }
        Verdict::Unchanged => String::new(),
        Verdict::Accepted(_, changed) => {
            info!(changed = changed.join(" "), "configuration reloaded");
            String::new()
        }
        Verdict::NeedsRestart(paths) => paths.join(" "),
        Verdict::Refused(error) => error.to_string(),
    };
    let is_new = text != *said;
    if matches!(verdict, Verdict::Accepted(..)) || (!text.is_empty() && is_new) {
        crate::metrics::reload(text.is_empty());
    }
    if !text.is_empty() && (asked || is_new) {
        match verdict {
            Verdict::NeedsRestart(_) => warn!(settings = text, "configuration not reloaded: these need a restart"),
            _ => error!(why = text, "configuration not reloaded: it is not valid"),
        }
    }
    *said = text;
}

fn note(verdict: &Verdict, read: &ArcSwap<LastRead>) {
    let last = read.load();
    let (state, text) = match verdict {
        Verdict::Unchanged if last.state == FileState::Current => return,
        Verdict::Unchanged => (FileState::Current, "what is in effect stands in the file again".to_owned()),
        Verdict::Accepted(_, changed) => (FileState::Current, format!("changed: {}", changed.join(" "))),
        Verdict::NeedsRestart(paths) => (FileState::NeedsRestart, paths.join(" ")),
        Verdict::Refused(error) => (FileState::Refused, error.to_string()),
    };
    crate::metrics::config_current(state == FileState::Current);
    if (state, &text) != (last.state, &last.text) || matches!(verdict, Verdict::Accepted(..)) {
        read.store(Arc::new(LastRead { state, text, at: SystemTime::now() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const TEXT: &str = r#"
[[listener]]
name = "my.app"
listen = "127.0.0.1:6446"
cluster = "main"
[[cluster]]
name = "main"
source = "static"
servers = [{ address = "db-0" }]
[cluster.account]
user = "holdfast"
password = "secret"
"#;

    fn config(text: &str) -> Result<Config, ConfigError> {
        parse(text, "holdfast.toml", std::iter::empty())
    }

    #[test]
    fn what_becomes_of_a_change() {
        type Paths = &'static [&'static str];
        let table: [(&str, &str, Result<Paths, Paths>); 9] = [
            ("db-0", "db-1", Ok(&["cluster.main.servers"])),
            ("\"secret\"", "\"other\"", Ok(&["cluster.main.account.password"])),
            ("\"my.app\"", "\"my.app\"\nmax_lag_ms = 7", Ok(&["listener.my.app.max_lag_ms"])),
            ("\n[[cluster]]", "\n[log]\nlevel = \"debug\"\n[[cluster]]", Ok(&["log.level"])),
            (":6446", ":6447", Err(&["listener.my.app.listen"])),
            ("\n[[cluster]]", "\n[admin]\nlisten = \"[::1]:1\"\n[[cluster]]", Err(&["admin.listen"])),
            ("\n[[cluster]]", "\n[proxy]\nworkers = 1\n[[cluster]]", Err(&["proxy.workers"])),
            ("\n[[cluster]]", "\n[log]\nformat = \"json\"\n[[cluster]]", Err(&["log.format"])),
            (
                "source = \"static\"\nservers = [{ address = \"db-0\" }]",
                "source = \"members\"\nseeds = [\"db-0\"]",
                Err(&["cluster.main.source"]),
            ),
        ];
        let old = config(TEXT).unwrap();
        for (from, to, expected) in table {
            let new = TEXT.replace(from, to);
            match (judge(&old, config(&new)), expected) {
                (Verdict::Accepted(_, changed), Ok(paths)) => assert_eq!(changed, paths, "{to}"),
                (Verdict::NeedsRestart(changed), Err(paths)) => assert_eq!(changed, paths, "{to}"),
                (verdict, _) => panic!("{to}: {verdict:?}"),
            }
        }
        // Another cluster in the place of the first.
        let Verdict::Accepted(_, changed) = judge(&old, config(&TEXT.replace("\"main\"", "\"other\""))) else {
            panic!("clusters come and go");
        };
        assert!(
            ["cluster.main.name", "cluster.other.name", "listener.my.app.cluster"]
                .iter()
                .all(|c| changed.contains(&(*c).into()))
        );
        assert_eq!(judge(&old, config(TEXT)), Verdict::Unchanged);
        assert!(matches!(judge(&old, config("x")), Verdict::Refused(_)));
    }

    /// The first configuration with that text in it.
    async fn wait_for(published: &mut watch::Receiver<Arc<Config>>, text: &str) -> Arc<Config> {
        let arrives = published.wait_for(|config| format!("{config:?}").contains(text));
        tokio::time::timeout(Duration::from_secs(20), arrives).await.unwrap().unwrap().clone()
    }

    /// A valid change is published, an invalid one is not and the next valid one is again; a nudge is enough.
    #[tokio::test]
    async fn a_file_that_changes() {
        let path = std::env::temp_dir().join(format!("holdfast-watch-{}.toml", std::process::id()));
        std::fs::write(&path, TEXT).unwrap();
        let (publish, mut published) = watch::channel(Arc::new(load(&path, environment()).unwrap()));
        let watch = Watch {
            path: path.clone(),
            every: Duration::from_millis(5),
            nudge: Arc::default(),
            read: LastRead::first(),
        };
        let read = Arc::clone(&watch.read);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(watch, publish, shutdown.clone()));

        std::fs::write(&path, TEXT.replace("db-0", "db-1")).unwrap();
        let first = wait_for(&mut published, "db-1").await;
        std::fs::write(&path, "this is not TOML").unwrap();
        std::fs::write(&path, TEXT.replace("db-0", "db-2")).unwrap();
        wait_for(&mut published, "db-2").await;
        assert_eq!(
            (read.load().state, read.load().text.as_str()),
            (FileState::Current, "changed: cluster.main.servers")
        );
        assert!(format!("{first:?}").contains("db-1"));

        shutdown.cancel();
        task.await.unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_nudge_looks_at_once() {
        let path = std::env::temp_dir().join(format!("holdfast-nudge-{}.toml", std::process::id()));
        std::fs::write(&path, TEXT).unwrap();
        let (publish, mut published) = watch::channel(Arc::new(load(&path, environment()).unwrap()));
        let nudge = Arc::new(Notify::new());
        let watch = Watch {
            path: path.clone(),
            every: Duration::from_secs(3600),
            nudge: Arc::clone(&nudge),
            read: LastRead::first(),
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(watch, publish, shutdown.clone()));

        std::fs::write(&path, TEXT.replace("db-0", "db-1")).unwrap();
        nudge.notify_one();
        wait_for(&mut published, "db-1").await;

        shutdown.cancel();
        task.await.unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
