//! The shell's lanes: what `failover::lanes` and its claims do, for one proxy that owns a block.

use super::server::Life;
use super::shell::{Lane, Shell};
use super::world::Time;
use holdfast::classify::{Class, Classified};
use holdfast::failover::LaneRecord;
use holdfast::session::Slot;

impl Shell {
    /// Gives the primary's connection a lane before something may be committed. False: the connection broke.
    pub async fn ready_lane(&mut self, statement: Classified) -> bool {
        let reads = matches!(statement.class, Class::Read | Class::Diagnostics | Class::Set | Class::Use);
        let generation = self.w.borrow().lanes_generation;
        let good = self.lane.as_ref().is_some_and(|lane| lane.generation == generation);
        if reads || good || self.session.transaction().is_some() {
            return true;
        }
        let had = self.lane.is_some();
        self.leave_lane();
        self.asked += 1;
        let Some(conn) = self.slots[0].as_ref() else { return false };
        let (backend, thread) = (conn.backend, conn.thread);
        let looked = self.look(backend.0 as usize, None).await;
        let Some((stands, _, _)) = looked else {
            self.w.borrow().count("no lane");
            return !had || self.statement(Slot::Primary, "SET SESSION gtid_next='AUTOMATIC'").await.is_ok();
        };
        let number = {
            let mut world = self.w.borrow();
            let free = (0..256).find(|n| !world.lanes.contains(n));
            let number = free.expect("256 lanes are enough here");
            world.lanes.insert(number);
            number
        };
        let record = LaneRecord::new(format!("holdfast_0_{number}").into(), &stands);
        let sql = format!("SET SESSION gtid_next='AUTOMATIC:{}', SESSION session_track_gtids=OWN_GTID", record.tag());
        self.lane = Some(Lane { record, number, generation, backend, thread, under_way: None });
        if self.statement(Slot::Primary, &sql).await.is_err() {
            self.drop_connection(Slot::Primary, true);
            return false;
        }
        if let Some(conn) = self.conn(Slot::Primary) {
            conn.tracks_gtids = true;
        }
        true
    }

    pub fn lane_begins(&mut self) {
        let now = self.w.borrow().now;
        if let Some(lane) = &mut self.lane {
            lane.under_way.get_or_insert(now);
        }
    }

    pub fn lane_answered(&mut self, committed: &[Box<[u8]>]) {
        if let Some(lane) = &mut self.lane {
            lane.record.told(committed);
            lane.under_way = None;
        }
    }

    /// The lane is free again, unless something may still be committed on it.
    pub fn leave_lane(&mut self) {
        if let Some(lane) = self.lane.take()
            && lane.under_way.is_none()
        {
            self.w.borrow().lanes.remove(&lane.number);
        }
    }

    /// What is committed or decided on at a server, what it received otherwise, and since when the lock is ours. `None` if
    /// it can't be asked, or not before `deadline`.
    pub async fn look(
        &mut self,
        server: usize,
        deadline: Option<Time>,
    ) -> Option<(holdfast::types::GtidSet, holdfast::types::GtidSet, Time)> {
        let deadline = deadline.unwrap_or(self.w.borrow().now + 2_000_000);
        let delay = self.w.borrow().rng.between(100, 600);
        let (task, w) = (self.task, self.w.clone());
        w.sleep(task, delay).await;
        let looked = w.wait(task, Some(deadline), |world| {
            let host = &world.servers[server];
            let Some(since) = host.claimed_since else { return Some(None) };
            if host.life != Life::Up || host.proxy_cut {
                return None;
            }
            let (executed, received) = (host.executed(), host.ever_received.clone());
            Some(Some(match world.truth.grouped {
                true => (executed.union(&received), Default::default(), since),
                false => (executed, received, since),
            }))
        });
        let looked = looked.await.flatten();
        w.sleep(task, delay).await;
        looked
    }
}
