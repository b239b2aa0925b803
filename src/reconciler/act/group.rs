//! The steps that only groups have: founding, joining, leaving, going on without those that are gone.

use super::{ActError, Actor, Replicate, run};
use crate::backend::QueryError;
use crate::reconciler::server::{Session, quoted};
use crate::reconciler::snapshot::MemberName;
use futures_util::future::join_all;
use std::time::Duration;

/// ER_GROUP_REPLICATION_COMMAND_FAILURE: what another session began is not over yet.
const COMMAND_FAILURE: u16 = 3663;
/// Until it is asked again.
const AGAIN: Duration = Duration::from_secs(1);

impl Actor<'_> {
    pub(super) async fn bootstrap(&self, server: &mut Session) -> Result<(), ActError> {
        run(server, "SET GLOBAL group_replication_bootstrap_group=ON").await?;
        let joined = self.join(server).await;
        // Left on, the next start would found a second group.
        run(server, "SET GLOBAL group_replication_bootstrap_group=OFF").await?;
        joined
    }

    pub(super) async fn join(&self, server: &mut Session) -> Result<(), ActError> {
        let Replicate { user, password } = self.replicate();
        run(server, "STOP GROUP_REPLICATION").await?;
        // Left by somebody who died while he forced the members, it keeps the server from ever joining again.
        run(server, "SET GLOBAL group_replication_force_members=''").await?;
        // Members move; whom it is told when it joins is where they are now.
        let seeds = quoted(&self.group_addresses().await.join(","));
        run(server, &format!("SET GLOBAL group_replication_group_seeds={seeds}")).await?;
        run(server, &format!("START GROUP_REPLICATION USER={user}, PASSWORD={password}")).await?;
        Ok(run(server, "SET GLOBAL offline_mode=OFF").await?)
    }

    /// Where those of the group that answer talk to each other.
    async fn group_addresses(&self) -> Vec<String> {
        let asked = self.members.iter().map(|(_, address)| async move {
            let mut member = Session::open(self.access, address).await.ok()?;
            member.one("SELECT @@global.group_replication_local_address").await.ok()
        });
        join_all(asked.collect::<Vec<_>>()).await.into_iter().flatten().filter(|address| !address.is_empty()).collect()
    }

    pub(super) async fn force_members(&self, server: &mut Session, stay: &[MemberName]) -> Result<(), ActError> {
        let mut addresses = Vec::with_capacity(stay.len());
        for member in stay {
            let mut member = self.session(member).await?;
            addresses.push(member.one("SELECT @@global.group_replication_local_address").await?);
        }
        let list = quoted(&addresses.join(","));
        // Seen on 9.7: 4 s, sometimes 50; the server itself gives up after 60.
        let forced = run(server, &format!("SET GLOBAL group_replication_force_members={list}")).await;
        run(server, "SET GLOBAL group_replication_force_members=''").await?;
        Ok(forced?)
    }
}

/// Without a majority that takes 30 s (seen on 9.7); it goes on if the session that began it is gone.
pub(super) async fn leave(server: &mut Session) -> Result<(), ActError> {
    loop {
        match run(server, "STOP GROUP_REPLICATION").await {
            Err(QueryError::Server { code: COMMAND_FAILURE, .. }) => tokio::time::sleep(AGAIN).await,
            left => return Ok(left?),
        }
    }
}
