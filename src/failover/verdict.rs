//! \[pure\] The verdict on a COMMIT whose answer was lost, by what is known of its lane and what stands on a server.
//!
//! ```text
//!   known: all that was ever committed on the lane ──told of another──► known
//!
//!   answer lost ──► what stands on the primary ──┬─ received elsewhere and not applied ──► to be looked at again
//!                                                ├─ no more than is known ──► not committed
//!                                                └─ more ──► committed
//! ```
//!
//! Who may be asked, and whether the lane was ours alone meanwhile, is [`super::lanes`]' business.

use crate::types::GtidSet;

/// What became of a COMMIT whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was committed.
    Committed,
    /// It was not, and never will be.
    NotCommitted,
    /// Nobody can tell.
    Unknown(&'static str),
}

/// What was ever committed on one lane, as far as anybody was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneRecord {
    tag: Box<str>,
    known: GtidSet,
}

impl LaneRecord {
    /// The record of the lane with this GTID tag, when `stands` is all that its server has.
    pub fn new(tag: Box<str>, stands: &GtidSet) -> Self {
        let known = stands.tagged(&tag);
        Self { tag, known }
    }

    /// The GTID tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// These were committed (GTID sets as text); what is another lane's is left out.
    pub fn told(&mut self, committed: &[Box<[u8]>]) {
        for text in committed {
            if let Ok(set) = String::from_utf8_lossy(text).parse::<GtidSet>() {
                self.known = self.known.union(&set.tagged(&self.tag));
            }
        }
    }

    /// The verdict on the one statement that was under way, where `stands` is committed or decided on, and `received` came
    /// from another server. `None`: what was received is applied or thrown away, and nobody knows which yet.
    pub fn verdict(&self, stands: &GtidSet, received: &GtidSet) -> Option<Verdict> {
        if !received.tagged(&self.tag).subtract(&self.known).subtract(stands).is_empty() {
            return None;
        }
        match stands.tagged(&self.tag).subtract(&self.known).is_empty() {
            true => Some(Verdict::NotCommitted),
            false => Some(Verdict::Committed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "aaaaaaaa-aaaa-4aaa-8aaa-000000013600";

    fn set(text: &str) -> GtidSet {
        text.replace("G:", &format!("{GROUP}:")).parse().unwrap()
    }

    #[test]
    fn one_more_than_is_known_is_the_statement_itself() {
        let mut lane = LaneRecord::new("one".into(), &set("G:1-9:one:1-3:two:1-5"));
        lane.told(&[format!("{GROUP}:one:4").into_bytes().into(), format!("{GROUP}:two:6").into_bytes().into()]);
        for (stands, received, verdict) in [
            ("G:1-99:one:1-4:two:1-99", "", Some(Verdict::NotCommitted)),
            ("G:1-9:one:1-5", "", Some(Verdict::Committed)),
            ("G:1-9:one:1-5", "G:one:1-5", Some(Verdict::Committed)),
            ("G:1-9:one:1-4", "G:one:1-5", None),
            ("G:1-9:one:1-3", "G:one:1-4", Some(Verdict::NotCommitted)),
            ("G:1-9:one:1-4", "G:1-20:two:1-9", Some(Verdict::NotCommitted)),
        ] {
            assert_eq!(lane.verdict(&set(stands), &set(received)), verdict, "{stands} {received}");
        }
    }
}
