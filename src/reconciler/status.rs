//! \[pure\] The record as the status of a MysqlCluster, and back: what one reconciler writes down the next one reads.

use super::resource::{MemberStatus, MysqlClusterStatus};
use super::snapshot::{Known, MemberName, Record};
use crate::types::Term;

/// The record in a status. Of a member whose line is not understood nothing is known.
pub fn record(status: &MysqlClusterStatus) -> Record {
    let name = |name: &Option<String>| name.as_deref().map(MemberName::from);
    let known = |member: &MemberStatus| {
        let uuid = member.server_uuid.as_ref()?.parse().ok()?;
        let has = member.gtid_executed.as_ref()?.parse().ok()?;
        Some(Known { member: MemberName::from(&*member.name), uuid, has })
    };
    Record {
        primary: name(&status.primary),
        target: name(&status.target_primary),
        term: Term(status.term),
        acks: status.acks,
        known: status.members.iter().filter_map(known).collect(),
    }
}

/// Puts the record into a status.
pub fn write_record(status: &mut MysqlClusterStatus, record: &Record) {
    status.primary = record.primary.as_ref().map(ToString::to_string);
    status.target_primary = record.target.as_ref().map(ToString::to_string);
    status.term = record.term.0;
    status.acks = record.acks;
    for known in &record.known {
        let name = known.member.to_string();
        let at = status.members.iter().position(|member| member.name == name).unwrap_or_else(|| {
            status.members.push(MemberStatus { name, role: "unknown".to_owned(), ..MemberStatus::default() });
            status.members.len() - 1
        });
        status.members[at].server_uuid = Some(known.uuid.to_string());
        status.members[at].gtid_executed = Some(known.has.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Uuid;

    #[test]
    fn what_one_reconciler_writes_the_next_one_reads() {
        let known = |name: &str, has: &str| Known {
            member: name.into(),
            uuid: Uuid([7; 16]),
            has: has.parse().expect("a set"),
        };
        let written = Record {
            primary: Some("db-0".into()),
            target: Some("db-1".into()),
            term: Term(7),
            acks: Some(1),
            known: vec![known("db-0", "07070707-0707-0707-0707-070707070707:1-9"), known("db-1", "")],
        };
        let mut status = MysqlClusterStatus::default();
        write_record(&mut status, &written);
        let json = serde_json::to_string(&status).expect("a status");
        assert_eq!(record(&serde_json::from_str(&json).expect("the same")), written);
    }
}
