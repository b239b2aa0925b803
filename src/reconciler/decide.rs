//! \[pure\] From a snapshot to a plan: total, and the same for the same snapshot.
//!
//! The rows of the table that this follows, in its order: a lost primary (`election`), a change that is under way
//! (`change`), a primary at work and its replicas (`semisync`, `replicas`), groups (`group`), those of
//! others (`external`). A plan may name many steps, but each of them is right on its own: whoever dies between two of them leaves
//! a cluster of which the next snapshot tells what is still to be done.
//!
//! # Why an election loses nothing
//!
//! With `n` members a commit is acknowledged only once `W` replicas have it. A *witness* is a member that answers, is
//! read-only with no commit on its way, and receives nothing. `R` witnesses with `R ≥ n − W` prove two things: every
//! acknowledged commit of anybody else reached `W` of `n − 1` members and so one of the witnesses; and of the others too few
//! are left to acknowledge anything to anybody. So the witness that has all that any of them has can take over, whatever the
//! silent ones do meanwhile.

mod change;
mod election;
mod external;
mod group;
mod replicas;
mod semisync;
#[cfg(test)]
mod tests;

pub use semisync::FOR_EVER_MS;

use super::action::{Phase, Plan};
use super::resource::TopologyKind;
use super::snapshot::Snapshot;

/// A planned change whose candidate doesn't get there is given up after this.
pub const CHANGE_MS_MAX: u64 = 10_000;

/// What to do now.
pub fn decide(snapshot: &Snapshot) -> Plan {
    if snapshot.members.is_empty() {
        return Plan::idle(Phase::Creating, "there are no members yet");
    }
    match snapshot.wishes.topology {
        // A standalone server is a set of one, whose commits wait for nobody.
        TopologyKind::Standalone | TopologyKind::Semisync => semisync::decide(snapshot),
        TopologyKind::Group => group::decide(snapshot),
        TopologyKind::External => external::decide(snapshot),
    }
}
