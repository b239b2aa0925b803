//! \[pure\] The heir: who will be the primary, as far as can be told while nobody is proven.
//!
//! Nothing is proven here, and nothing is sent there but logins: sessions that wait have their connection when the proof
//! comes. A wrong guess costs logins.
//!
//! - A group names its primary before that one is writable; before it has elected, the ONLINE member with the lowest UUID is
//!   the one it elects among equals ("Primary Election Algorithm": lowest version, highest weight, lowest UUID).
//! - In a set it is whose pod has the primary's label, else who is the only one that answers.
//!
//! The last primary is nobody's heir: sessions have their connections to it.

use super::group::elected;
use super::{Case, Witness};
use crate::topology::kubernetes::Label;
use crate::topology::report::MemberState;
use crate::types::BackendId;

/// Who is next?
pub(super) fn find(case: &Case<'_>, grouped: bool) -> Option<BackendId> {
    let last = case.previous.last_primary.as_ref().map(|last| last.id);
    let others = || {
        let open = |witness: &Witness<'_>| !witness.report.offline && !witness.server.is_unlisted();
        case.witnesses().filter(open).filter(|witness| Some(witness.server.id) != last)
    };
    let next = if grouped {
        elected(case, others()).or_else(|| {
            let equals = others().filter(is_online);
            equals.min_by(|a, b| a.server.uuid().cmp(b.server.uuid())).map(|witness| witness.server.id)
        })
    } else {
        let labelled = |w: &Witness<'_>| w.server.pod.as_ref().is_some_and(|pod| pod.label == Label::Primary);
        only(others().filter(labelled)).or_else(|| only(others()).filter(|_| last.is_some()))
    };
    next.filter(|_| last.is_some())
}

fn only<'a>(mut witnesses: impl Iterator<Item = Witness<'a>>) -> Option<BackendId> {
    let first = witnesses.next()?;
    witnesses.next().is_none().then_some(first.server.id)
}

fn is_online(witness: &Witness<'_>) -> bool {
    let me = witness.report.group.as_ref().and_then(|view| view.member(witness.server.uuid()));
    me.is_some_and(|me| me.state == MemberState::Online)
}
