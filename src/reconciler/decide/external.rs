//! Another operator's cluster: what its labels say beside what its servers say. Nothing is ever done to it.

use crate::reconciler::action::{Phase, Plan};
use crate::reconciler::snapshot::{Member, Snapshot};
use crate::types::Role;

/// How it is.
pub fn decide(s: &Snapshot) -> Plan {
    let open: Vec<&Member> = s.members.iter().filter(|member| member.is_open()).collect();
    let called = s.members.iter().find(|member| member.label == Some(Role::Primary) && !member.is_open());
    let silent = s.members.iter().find_map(|member| Some((member, member.sight.as_ref().err()?)));
    let (phase, why) = match (&open[..], called, silent) {
        ([], Some(called), _) => {
            (Phase::Waiting, format!("{} is labelled as the primary and takes no writes", called.name))
        }
        ([], None, _) => (Phase::Waiting, "no member takes writes".to_owned()),
        ([one, other, ..], _, _) => {
            (Phase::Person, format!("{} and {} take writes at the same time", one.name, other.name))
        }
        ([one], Some(called), _) => {
            (Phase::Degraded, format!("{} takes writes, but {} is labelled as the primary", one.name, called.name))
        }
        ([one], None, _) if one.label != Some(Role::Primary) => {
            (Phase::Degraded, format!("{} takes writes and is not labelled as the primary", one.name))
        }
        ([_], None, Some((member, failure))) => (Phase::Degraded, format!("{}: {}", member.name, failure.text)),
        ([_], None, None) => (Phase::Ready, String::new()),
    };
    Plan::idle(phase, why)
}
