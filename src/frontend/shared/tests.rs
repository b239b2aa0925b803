//! Turns at a server's login.

use super::*;
use crate::config::{AccountConfig, Secret, Source};
use futures_util::FutureExt as _;

fn cluster(logins_max: usize) -> Cluster {
    let account = AccountConfig { user: "holdfast".into(), password: Secret::new("secret") };
    let config = ClusterConfig {
        backend_logins_max: logins_max,
        ..ClusterConfig::new("c", Source::Static { servers: Vec::new() }, account)
    };
    let topology = TopologyHandle::fixed(Topology::empty("c".into()));
    Cluster::new(config, topology, Arc::new(BackendTls::disabled()), CancellationToken::new())
}

#[tokio::test]
async fn logins_to_one_server_take_turns_in_the_order_they_came() {
    let cluster = cluster(2);
    let (one, other) = (BackendId(1), BackendId(2));
    let first = cluster.login_turn(one).await.expect("a turn");
    let second = cluster.login_turn(one).await.expect("a turn");
    let (mut third, mut fourth) = (Box::pin(cluster.login_turn(one)), Box::pin(cluster.login_turn(one)));
    assert!(third.as_mut().now_or_never().is_none() && fourth.as_mut().now_or_never().is_none());
    assert!(cluster.login_turn(other).await.is_some(), "another server has turns of its own");
    drop(second);
    assert!(fourth.as_mut().now_or_never().is_none(), "it came later");
    let third = third.now_or_never().flatten().expect("its turn");
    drop((first, third));
    assert!(fourth.now_or_never().flatten().is_some());
}

#[test]
fn a_changed_limit_of_the_hold_counts_for_those_that_come_while_others_wait() {
    let cluster = cluster(1);
    let _waits = cluster.holds.enter(10).expect("a place");
    let narrow = ClusterConfig { hold_statements_max: 1, ..cluster.config.clone() };
    assert!(cluster.with_config(narrow, Arc::clone(&cluster.tls)).holds.enter(0).is_none());
    let small = ClusterConfig { hold_bytes_max: 15, ..cluster.config.clone() };
    assert!(cluster.with_config(small, Arc::clone(&cluster.tls)).holds.enter(10).is_none());
    assert!(cluster.with_config(cluster.config.clone(), Arc::clone(&cluster.tls)).holds.enter(10).is_some());
}
