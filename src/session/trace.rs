//! What one connection to a server has committed last, as far as anybody was told (`session_track_gtids`).

use crate::types::GtidSet;

/// What one connection has committed last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    last: GtidSet,
    unsure: bool,
}

impl Trace {
    /// A statement was answered, with these commits (GTID sets as text). `hides`: it may have committed something without
    /// telling.
    pub fn answered(&mut self, committed: &[Box<[u8]>], hides: bool) {
        let sets = committed.iter().filter_map(|text| String::from_utf8_lossy(text).parse::<GtidSet>().ok());
        let told = sets.fold(GtidSet::default(), |all, set| all.union(&set));
        if !told.is_empty() {
            (self.last, self.unsure) = (told, false);
        }
        self.unsure |= hides;
    }

    /// What was told of last; empty before anything was.
    pub fn last(&self) -> &GtidSet {
        &self.last
    }

    /// Something may have been committed since.
    pub fn is_unsure(&self) -> bool {
        self.unsure
    }
}
