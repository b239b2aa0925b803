//! \[pure\] What must outlive the servers that told it: the newest claim of a term, and what the last primary had executed.
//!
//! A dead primary can't say any more what it acknowledged, and an old one that comes back doesn't say that it is old. Both
//! are remembered here as long as anything of the cluster they were learned from is left: once every pod (or address) of
//! that time is gone, this is another cluster under an old name, and its terms and transactions begin anew.

use super::kubernetes::Label;
use super::report::Report;
use super::server::Server;
use super::snapshot::LastPrimary;
use crate::types::{Address, Gtids};
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    /// The highest term that a pod with the primary's label has carried.
    pub claim: Option<Claim>,
    /// What the last primary was seen to have executed: others may have been told that this is committed.
    pub seen: Option<Seen>,
    /// Since when the only candidate has lacked some of [`Self::seen`].
    pub lacking_ms: Option<u64>,
    /// The servers that were there when something was last learned.
    known: Vec<Arc<str>>,
}

/// A pod that carried the primary's label and a term.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The term.
    pub number: u64,
    /// The pod's name.
    pub pod: Arc<str>,
}

/// What one server was seen to have executed while it was the proven primary.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The transactions.
    pub gtids: Arc<Gtids>,
    /// Where it listened.
    pub address: Address,
    /// Who it was.
    pub of: LastPrimary,
}

impl Memory {
    /// Takes in the claims of the pods as they are now; forgets what another cluster under this name left behind.
    pub fn note_claims(&mut self, servers: &[Server]) {
        let gone = |known: &Arc<str>| !servers.iter().any(|server| identity(server) == *known);
        if !servers.is_empty() && !self.known.is_empty() && self.known.iter().all(gone) {
            *self = Self::default();
        }
        for pod in servers.iter().filter_map(|server| server.pod.as_ref()) {
            let Some(term) = pod.term.filter(|_| pod.label == Label::Primary) else { continue };
            if self.claim.as_ref().is_none_or(|claim| claim.number < term.number) {
                self.claim = Some(Claim { number: term.number, pod: pod.name.clone() });
                self.known = servers.iter().map(identity).collect();
            }
        }
    }

    /// Takes in what the proven primary has executed.
    pub fn note_primary(&mut self, servers: &[Server], server: &Server, report: &Report, of: &LastPrimary) {
        self.lacking_ms = None;
        let Some(gtids) = &report.gtids else { return };
        let known = self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(&seen.gtids, gtids));
        if !known {
            self.seen = Some(Seen { gtids: gtids.clone(), address: server.address.clone(), of: of.clone() });
            self.known = servers.iter().map(identity).collect();
        }
    }
}

/// What makes a server this one and no other: its pod, or else its address.
fn identity(server: &Server) -> Arc<str> {
    server.pod.as_ref().map_or_else(|| server.address.to_string().into(), |pod| pod.uid.clone())
}
