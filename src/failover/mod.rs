//! When the primary goes: statements wait, bounded, and the fate of a COMMIT whose answer was lost is found out.
//!
//! | part | what |
//! | --- | --- |
//! | [`hold`] | how many statements wait for a primary, and since when |
//! | [`lanes`] | GTID tags that one connection at a time writes under, and the verdict they make possible |
//! | [`verdict`] | what is known of a lane, and what stands on a server → committed or not \[pure\] |
//! | [`fate`] | what follows when a server goes away before its answer is whole \[pure\] |
//! | [`refusal`] | errors by which a server says that it takes no writes \[pure\] |
//! | [`claims`] | the tasks that own the lanes on the servers and look at what was committed on them |

pub mod claims;
pub mod fate;
pub mod hold;
pub mod lanes;
pub mod refusal;
pub mod verdict;

pub use hold::{Held, HoldCounts, Holds};
pub use lanes::{Access, Lanes, Lease, NoLane};
pub use verdict::{LaneRecord, Verdict};
