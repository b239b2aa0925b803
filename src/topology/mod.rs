//! Who is the primary, who follows, and how far behind: watched, proven with SQL, published as a snapshot.
//!
//! One writer task per cluster owns the truth; everything else loads snapshots. What it refuses to do: it knows no
//! session, it never believes a hint without an answer from the servers, and it never names two primaries.
//!
//! - [`snapshot`] \[pure\]: the immutable picture.
//! - [`proof`] \[pure\]: the rules, from [`report`]s of servers to the next snapshot; [`picture`] and [`memory`]: what they remember.
//! - `probe` and `ask`: one task per server that asks; [`store`]: the one writer.
//! - [`kubernetes`]: pods as a source of servers.
//! - [`handle`]: how other rooms load the snapshot, wait for the next one, and cast doubt.
//! - [`nudge`]: tells the reconciler when the primary looks lost; [`suspicion`] \[pure\]: in which words.

pub(crate) mod ask;
pub mod handle;
pub mod json;
pub mod kubernetes;
pub mod lag;
pub mod memory;
pub mod nudge;
pub mod picture;
mod probe;
pub mod proof;
pub mod report;
pub mod server;
pub mod settings;
pub mod snapshot;
pub mod store;
pub mod suspicion;

pub use handle::{Hint, TopologyHandle};
pub use nudge::Reconciler;
pub use settings::{Account, Limits, ProbeSettings, RoleHint, ServerEntry, Source, TopologySettings};
pub use snapshot::{Backend, Conflict, ConflictKind, Flavor, LastPrimary, ServerFacade, Serving, Topology};
pub use store::spawn;
