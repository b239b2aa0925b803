//! When the primary goes: statements wait, bounded, and the fate of a COMMIT whose answer was lost is found out.
//!
//! | part | what |
//! | --- | --- |
//! | [`hold`] | how many statements wait for a primary, and since when |
//! | [`lanes`] | GTID tags that one connection at a time writes under, and the verdict they make possible |
//! | [`claims`] | the tasks that own the lanes on the servers and look at what was committed on them |

pub mod claims;
pub mod hold;
pub mod lanes;

pub use hold::{Held, HoldCounts, Holds};
pub use lanes::{Access, Lanes, Lease, NoLane, Verdict};
