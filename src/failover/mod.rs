//! When the primary goes: statements wait, bounded, and the fate of a COMMIT whose answer was lost is found out.
//!
//! | part | what |
//! | --- | --- |
//! | [`hold`] | how many statements wait for a primary, and since when |
//! | [`witnesses`] | the servers, asked what became of a COMMIT whose answer was lost |
//! | [`witness`] | the task of one server: where its binary log stands, and what stands in it |
//! | [`log`] | reading a server's binary log |
//! | [`marks`] | where a log stood, and when \[pure\] |
//! | [`mod@verdict`] | what a connection has told of, and what a log shows of it → committed or not \[pure\] |
//! | [`fate`] | what follows when a server goes away before its answer is whole \[pure\] |
//! | [`refusal`] | errors by which a server says that it takes no writes \[pure\] |

pub mod fate;
pub mod hold;
pub mod log;
pub mod marks;
pub mod refusal;
pub mod verdict;
pub mod witness;
pub mod witnesses;

pub use hold::{Held, HoldCounts, Holds, ramp};
pub use verdict::{Last, Relay, Seen, Verdict, verdict};
pub use witnesses::{Access, InDoubt, Witnesses, marked_version, stamp};
