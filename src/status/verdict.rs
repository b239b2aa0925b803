//! \[pure\] Is all well? And if not, what is wrong, in words for somebody who was just woken up.
//!
//! `bad`: clients are waiting or are about to be refused. `warn`: they are served, and somebody should look. Every problem
//! says what is affected, since when or by how much, and the evidence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::config::watch::LastRead;
use crate::topology::{Backend, Serving, Topology};
use crate::types::{ClusterName, Role};

/// A certificate is spoken of when it ends within this.
const CERTIFICATE_WARN: Duration = Duration::from_secs(14 * 86_400);
/// A doubt is spoken of when the last proof is older: every lost connection casts one, and the next probe ends it.
const DOUBT_MS: u64 = 500;
/// As old as a proof may be for writes while there is doubt.
const PROOF_MS_MAX: u64 = 3_000;
/// Problems that are listed.
const PROBLEMS_MAX: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// All is well.
    Ok,
    /// Clients are served; look at it.
    Warn,
    /// Clients wait or are refused.
    Bad,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub state: State,
    /// The cluster, the listener or the part it is about.
    pub about: String,
    /// A sentence.
    pub text: String,
}

/// What it looks like altogether.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The worst problem's.
    pub state: State,
    /// The one sentence to read first.
    pub headline: String,
    /// The worst first.
    pub problems: Vec<Problem>,
}

/// What it is judged by.
pub struct Facts {
    /// Now.
    pub now: SystemTime,
    /// As `/readyz`.
    pub ready: bool,
    /// As `/readyz`.
    pub reasons: Vec<String>,
    /// What keeps the configuration file from being in effect.
    pub file: Option<LastRead>,
    /// Every cluster.
    pub clusters: Vec<ClusterFacts>,
    /// Every listener.
    pub listeners: Vec<ListenerFacts>,
}

/// One cluster.
pub struct ClusterFacts {
    /// Its snapshot.
    pub topology: Arc<Topology>,
    /// Age of its primary's proof.
    pub proof_age_ms: Option<u64>,
    /// Statements that wait.
    pub held: usize,
    /// The least lag at which one of its listeners passes a follower over.
    pub max_lag: Option<Duration>,
    /// When the certificate shown to its servers ends.
    pub certificate_end: Option<SystemTime>,
    /// Why its servers cannot be looked up where they are listed, as while the Kubernetes API is away.
    pub source_trouble: Option<String>,
}

/// One listener.
pub struct ListenerFacts {
    /// Its name.
    pub name: String,
    /// Clients now.
    pub sessions: u32,
    /// And at most.
    pub sessions_max: u32,
    /// When its certificate ends.
    pub certificate_end: Option<SystemTime>,
}

impl State {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

impl Verdict {
    /// `{state, headline, problems: [{state, about, text}]}`
    pub fn to_json(&self) -> Value {
        let problem = |p: &Problem| json!({ "state": p.state.as_str(), "about": p.about, "text": p.text });
        json!({
            "state": self.state.as_str(),
            "headline": self.headline,
            "problems": self.problems.iter().map(problem).collect::<Vec<_>>(),
        })
    }
}

/// Looks at everything.
pub fn judge(facts: &Facts) -> Verdict {
    let mut problems = Vec::new();
    let mut add = |state, about: &str, text: String| {
        if problems.len() < PROBLEMS_MAX {
            problems.push(Problem { state, about: about.to_owned(), text });
        }
    };
    for cluster in &facts.clusters {
        judge_primary(cluster, facts.now, &mut add);
    }
    judge_sources(&facts.clusters, &mut add);
    for cluster in &facts.clusters {
        judge_servers(cluster, &mut add);
        let about = &cluster.topology.cluster.0;
        judge_certificate("the certificate shown to its servers", about, cluster.certificate_end, facts.now, &mut add);
    }
    for listener in &facts.listeners {
        judge_certificate("its certificate", &listener.name, listener.certificate_end, facts.now, &mut add);
        if u64::from(listener.sessions) * 10 >= u64::from(listener.sessions_max) * 9 {
            let text = format!("{} of at most {} clients are connected", listener.sessions, listener.sessions_max);
            add(State::Warn, &listener.name, text);
        }
    }
    if let Some(read) = &facts.file {
        add(State::Warn, "configuration", format!("{}: {}", read.state.in_words(), read.text));
    }
    // What makes it not ready is said above in other words, but for what has nothing to do with a cluster.
    for reason in facts.reasons.iter().filter(|reason| !reason.starts_with("cluster ")) {
        add(State::Warn, "this proxy", format!("not ready: {reason}"));
    }
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.state));
    let state = problems.first().map_or(State::Ok, |worst| worst.state);
    Verdict { state, headline: headline(state, &problems, facts), problems }
}

fn headline(state: State, problems: &[Problem], facts: &Facts) -> String {
    let clusters = facts.clusters.len();
    match state {
        State::Ok if clusters == 1 => {
            "All is well: the cluster has a proven primary, and no statement waits.".to_owned()
        }
        State::Ok => format!("All is well: each of {clusters} clusters has a proven primary, and no statement waits."),
        State::Warn => "Clients are served, but something needs a look.".to_owned(),
        State::Bad => {
            let lost = facts.clusters.iter().filter(|cluster| cluster.topology.primary.is_none());
            let names: Vec<&str> = lost.map(|cluster| &*cluster.topology.cluster.0).collect();
            match names[..] {
                [] => format!("{}: {}", problems[0].about, problems[0].text),
                [one] => format!("{one} has no primary: writes wait."),
                [first, ..] => format!("{} of {clusters} clusters have no primary, {first} among them.", names.len()),
            }
        }
    }
}

fn judge_primary(cluster: &ClusterFacts, now: SystemTime, add: &mut impl FnMut(State, &str, String)) {
    let topology = &cluster.topology;
    let about = &topology.cluster.0;
    let waiting = match cluster.held {
        0 => String::new(),
        1 => "; one statement waits".to_owned(),
        n => format!("; {n} statements wait"),
    };
    let Some(primary) = topology.primary() else {
        let age = super::unix_ms(now).saturating_sub(topology.since_unix_ms);
        let since = match topology.since_unix_ms {
            0 => "no primary has been found yet".to_owned(),
            _ => format!("no primary for {}", in_words(Duration::from_millis(age))),
        };
        add(State::Bad, about, format!("{since}: {}{waiting}", topology.why));
        return;
    };
    if !topology.accepting {
        let reason = primary.serving.reason().unwrap_or("no reason given");
        add(
            State::Bad,
            about,
            format!("the primary {} takes no new work, so writes wait: {reason}{waiting}", primary.called()),
        );
        return;
    }
    let age = cluster.proof_age_ms.unwrap_or(0);
    if topology.doubt && age > DOUBT_MS {
        let state = if age > PROOF_MS_MAX { State::Bad } else { State::Warn };
        let writes = if age > PROOF_MS_MAX { ", so writes wait" } else { "" };
        let ago = in_words(Duration::from_millis(age));
        let text = format!("the primary {} was last proven {ago} ago{writes}{waiting}", primary.called());
        add(state, about, text);
    } else if cluster.held > 0 {
        add(State::Warn, about, format!("a primary is proven, and yet statements wait{waiting}"));
    }
}

/// One line for each reason, not for each cluster: all that are watched together lose the API server together.
fn judge_sources(clusters: &[ClusterFacts], add: &mut impl FnMut(State, &str, String)) {
    let mut troubles: BTreeMap<&str, Vec<&ClusterName>> = BTreeMap::new();
    for cluster in clusters {
        if let Some(trouble) = &cluster.source_trouble {
            troubles.entry(trouble).or_default().push(&cluster.topology.cluster);
        }
    }
    for (trouble, clusters) in troubles {
        match clusters[..] {
            [one] => add(State::Warn, &one.0, trouble.to_owned()),
            _ => add(State::Warn, "Kubernetes", format!("{trouble} (of {} clusters)", clusters.len())),
        }
    }
}

fn judge_servers(cluster: &ClusterFacts, add: &mut impl FnMut(State, &str, String)) {
    let topology = &cluster.topology;
    let about = &topology.cluster.0;
    for conflict in &topology.conflicts {
        add(State::Warn, about, conflict.evidence.to_string());
    }
    for server in &topology.backends {
        if let Some(text) = trouble_of(server, cluster.max_lag) {
            add(State::Warn, about, format!("{} {text}", server.called()));
        }
    }
    let others = topology.backends.len() > 1;
    if others && topology.primary.is_some() && topology.followers().next().is_none() {
        add(State::Warn, about, "no follower serves reads".to_owned());
    }
}

fn trouble_of(server: &Backend, max_lag: Option<Duration>) -> Option<String> {
    match &server.serving {
        Serving::No { reason } => return Some(format!("serves nothing: {reason}")),
        Serving::Draining { reason } => return Some(format!("is being drained: {reason}")),
        Serving::Drained { reason } => return Some(format!("was drained: {reason}")),
        Serving::Yes => {}
    }
    let lag = Duration::from_millis(server.lag_ms.filter(|_| server.role == Role::Follower)?);
    let max = max_lag.filter(|max| lag > *max)?;
    Some(format!("is {} behind and gets no reads (at most {})", in_words(lag), in_words(max)))
}

fn judge_certificate(
    what: &str,
    about: &str,
    end: Option<SystemTime>,
    now: SystemTime,
    add: &mut impl FnMut(State, &str, String),
) {
    let Some(end) = end else { return };
    match end.duration_since(now) {
        Ok(left) if left > CERTIFICATE_WARN => {}
        Ok(left) => add(State::Warn, about, format!("{what} ends in {}", in_words(left))),
        Err(over) => add(State::Bad, about, format!("{what} ended {} ago", in_words(over.duration()))),
    }
}

/// A length of time as a person would say it.
pub fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
