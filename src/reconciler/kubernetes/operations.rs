//! MysqlOperations: one thing to do once.

use super::Shared;
use crate::reconciler::resource::MysqlCluster;
use crate::reconciler::snapshot::Switchover;

/// The change of the primary that is asked for now, if any.
pub fn wish(_: &Shared, _: &MysqlCluster) -> Option<Switchover> {
    None
}
