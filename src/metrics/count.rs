//! Counters that can also be read back, for the status page: what the exporter holds can only be scraped as a whole.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, counter};

/// Label names and values, in the order of the metric.
pub type Labels = Vec<(&'static str, String)>;

static COUNTS: Mutex<BTreeMap<&'static str, BTreeMap<Labels, Arc<AtomicU64>>>> = Mutex::new(BTreeMap::new());

/// One series: the exporter's counter, and the same number where it can be read.
pub struct Count {
    exported: Counter,
    here: Arc<AtomicU64>,
}

impl Count {
    /// The series of `name` with these labels.
    pub(super) fn of(name: &'static str, labels: &[(&'static str, &str)]) -> Self {
        let labels: Labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let exported = counter!(name, &labels);
        let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let here = Arc::clone(counts.entry(name).or_default().entry(labels).or_default());
        Self { exported, here }
    }

    /// Counts `n` more.
    pub fn increment(&self, n: u64) {
        self.exported.increment(n);
        self.here.fetch_add(n, Relaxed);
    }
}

/// Every series of `name` and its count since the process began.
pub(super) fn read(name: &'static str) -> Vec<(Labels, u64)> {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let series = counts.get(name).into_iter().flatten();
    series.map(|(labels, count)| (labels.clone(), count.load(Relaxed))).collect()
}
