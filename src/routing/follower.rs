//! \[pure\] Which follower a session reads from.

use crate::topology::{Backend, Topology};
use crate::types::BackendId;
use std::time::Duration;

/// True if `backend` is a follower that serves reads and is not further behind than `max_lag`.
#[inline]
pub fn serves_reads(topology: &Topology, backend: BackendId, max_lag: Option<Duration>) -> bool {
    topology.followers().any(|f| f.id == backend && near_enough(f, max_lag))
}

/// The follower with the fewest connections for its weight, leaving out those in `tried`, those of weight 0 and those too
/// far behind. Among equals `turn`, a number that grows with each choice, decides.
pub fn choose<'t>(
    topology: &'t Topology,
    max_lag: Option<Duration>,
    tried: &[BackendId],
    connections: impl Fn(BackendId) -> u32,
    turn: usize,
) -> Option<&'t Backend> {
    // Connections per weight, compared without fractions.
    let load = |f: &Backend| (u64::from(connections(f.id)) + 1) * 1_000_000 / u64::from(f.weight.max(1));
    let qualifies = |f: &&Backend| f.weight > 0 && !tried.contains(&f.id) && near_enough(f, max_lag);
    let count = topology.followers().filter(qualifies).count();
    let candidates = topology.followers().filter(qualifies).enumerate();
    candidates.min_by_key(|(i, f)| (load(f), (i + turn) % count)).map(|(_, f)| f)
}

/// How many connections of each follower are more than its share: `all` has each with its weight and its connections.
pub fn surplus(all: &[(BackendId, u32, usize)]) -> Vec<(BackendId, usize)> {
    let weights: usize = all.iter().map(|(_, weight, _)| *weight as usize).sum();
    let total: usize = all.iter().map(|(_, _, connections)| connections).sum();
    let share = |weight: u32| (total * weight as usize).div_ceil(weights.max(1));
    let over = all.iter().map(|(id, weight, connections)| (*id, connections.saturating_sub(share(*weight))));
    over.filter(|(_, more)| *more > 0).collect()
}

fn near_enough(follower: &Backend, max_lag: Option<Duration>) -> bool {
    let Some(max) = max_lag else { return true };
    follower.lag_ms.is_some_and(|lag| u128::from(lag) <= max.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Serving;
    use crate::types::{ClusterName, Role};

    fn follower(id: u32, weight: u32, lag_ms: Option<u64>) -> Backend {
        let address = format!("db-{id}").parse().unwrap();
        let backend = Backend::new(BackendId(id), address, weight);
        Backend { role: Role::Follower, serving: Serving::Yes, lag_ms, ..backend }
    }

    #[test]
    fn what_is_more_than_a_share_by_weight_is_surplus() {
        let id = BackendId;
        for (all, expected) in [
            (vec![(id(1), 1, 20), (id(2), 1, 0)], vec![(id(1), 10)]),
            (vec![(id(1), 1, 8), (id(2), 3, 12)], vec![(id(1), 3)]),
            (vec![(id(1), 1, 10), (id(2), 1, 10)], vec![]),
            (vec![(id(1), 1, 1), (id(2), 1, 0)], vec![]),
            (vec![(id(1), 0, 3), (id(2), 1, 3)], vec![(id(1), 3)]),
            (vec![], vec![]),
        ] {
            assert_eq!(surplus(&all), expected, "{all:?}");
        }
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_chosen() {
        let mut topology = Topology::empty(ClusterName::from("c"));
        topology.backends = vec![follower(1, 1, Some(0)), follower(2, 3, Some(0)), follower(3, 0, Some(0))];
        let second = Some(Duration::from_secs(1));
        let mut connections = [0, 0, 0, 0];
        for _ in 0..400 {
            let chosen = choose(&topology, second, &[], |id| connections[id.0 as usize], 0).unwrap().id;
            connections[chosen.0 as usize] += 1;
        }
        assert_eq!(connections, [0, 100, 300, 0]);
        assert_eq!(choose(&topology, second, &[BackendId(2)], |_| 0, 0).unwrap().id, BackendId(1));
    }

    #[test]
    fn a_follower_far_behind_or_of_unknown_lag_is_left_out() {
        let mut topology = Topology::empty(ClusterName::from("c"));
        topology.backends = vec![follower(1, 1, Some(2_000)), follower(2, 1, None)];
        let second = Some(Duration::from_secs(1));
        assert_eq!(choose(&topology, second, &[], |_| 0, 0), None);
        assert!(!serves_reads(&topology, BackendId(1), second));
        assert_eq!(choose(&topology, None, &[], |_| 0, 0).unwrap().id, BackendId(1));
    }

    #[test]
    fn equals_take_turns() {
        let mut topology = Topology::empty(ClusterName::from("c"));
        topology.backends = vec![follower(1, 1, Some(0)), follower(2, 1, Some(0))];
        let chosen = [0, 1].map(|turn| choose(&topology, None, &[], |_| 0, turn).unwrap().id.0);
        assert_eq!(chosen, [1, 2]);
    }
}
