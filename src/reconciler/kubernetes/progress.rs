//! What upkeep has come to, for the status: upkeep itself never writes there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How far the objects of a cluster are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The `metadata.generation` that was read and applied.
    pub generation: Option<i64>,
    /// One word; `None` where there is nothing to roll out.
    pub reason: Option<&'static str>,
    /// For a person.
    pub message: String,
}

impl Progress {
    /// The word for: every pod is as the spec wants it.
    pub const DONE: &'static str = "RolledOut";
}

/// By cluster.
#[derive(Default)]
pub struct AllProgress {
    all: Mutex<HashMap<String, Progress>>,
}

impl AllProgress {
    /// Replaces what was said; true if it is something else now.
    pub fn say(&self, cluster: &str, progress: Progress) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(cluster.to_owned(), progress.clone()).as_ref() != Some(&progress)
    }

    /// What was said last; `None`: nothing since the beginning.
    pub fn of(&self, cluster: &str) -> Option<Progress> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(cluster).cloned()
    }

    /// All others are gone.
    pub fn keep_only(&self, clusters: &[String]) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).retain(|cluster, _| clusters.contains(cluster));
    }
}
