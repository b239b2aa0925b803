//! \[pure\] Which server a statement for the primary goes to, and whether the connection that is kept still leads there.

use crate::topology::{Backend, Serving, Topology};
use crate::types::{BackendId, Term};

/// What the next statement for the primary needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn<'t> {
    /// The kept connection leads to the primary of this term.
    Keep,
    /// It does not, or may carry nothing more: it is given up first.
    Leave,
    /// A connection to this server.
    Connect(&'t Backend),
    /// Nothing but patience: nobody is proven, or the primary takes nothing new.
    Wait,
}

/// What is needed when `primary` is the one that may be written now ([`Topology::primary_for_writes`]). `kept`: where the
/// kept connection leads, and since which term; `bound`: something is open on it that would be lost with it.
pub fn primary<'t>(
    topology: &Topology,
    primary: Option<&'t Backend>,
    kept: Option<(BackendId, Term)>,
    bound: bool,
) -> Turn<'t> {
    let drained = is_drained(primary);
    // A primary whose pod is going may end what is open on it.
    let primary = primary.filter(|primary| primary.serving == Serving::Yes || (bound && !drained));
    let Some((backend, term)) = kept else { return primary.map_or(Turn::Wait, Turn::Connect) };
    if drained || term != topology.term || primary.is_some_and(|primary| primary.id != backend) {
        return Turn::Leave;
    }
    if primary.is_some() { Turn::Keep } else { Turn::Wait }
}

/// Has the server's time to end what is open run out?
pub fn is_drained(server: Option<&Backend>) -> bool {
    server.is_some_and(|server| matches!(server.serving, Serving::Drained { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterName, Role};

    #[test]
    fn a_connection_carries_statements_only_to_the_primary_of_its_own_term() {
        let backend = |id: u32, serving| {
            let plain = Backend::new(BackendId(id), format!("db-{id}").parse().unwrap(), 1);
            Backend { role: Role::Primary, serving, ..plain }
        };
        let draining = || Serving::Draining { reason: "going".into() };
        let (well, going) = (backend(1, Serving::Yes), backend(1, draining()));
        let gone = backend(1, Serving::Drained { reason: "gone".into() });
        let topology = Topology { term: Term(2), ..Topology::empty(ClusterName::from("c")) };
        let kept = |id: u32, term: u64| Some((BackendId(id), Term(term)));
        for (now, kept, bound, expected) in [
            (Some(&well), kept(1, 2), false, Turn::Keep),
            (Some(&well), kept(1, 1), false, Turn::Leave),
            (Some(&well), kept(2, 2), true, Turn::Leave),
            (Some(&well), None, false, Turn::Connect(&well)),
            (None, kept(1, 2), false, Turn::Wait),
            (None, kept(1, 1), false, Turn::Leave),
            (None, None, false, Turn::Wait),
            (Some(&going), kept(1, 2), true, Turn::Keep),
            (Some(&going), kept(1, 2), false, Turn::Wait),
            (Some(&going), None, false, Turn::Wait),
            (Some(&gone), kept(1, 2), true, Turn::Leave),
        ] {
            assert_eq!(primary(&topology, now, kept, bound), expected, "{kept:?} {bound}");
        }
    }
}
