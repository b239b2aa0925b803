//! The reconciler over a group of real servers, without Kubernetes: founding, labelling what the group decides, bringing
//! members back, moving the primary, and starting again after all were down.

mod proxy;
mod reconciler;
mod testbed;

use proxy::{Load, Options, Proxy, TABLE};
use reconciler::{Reconciler, SOON, group_servers};
use testbed::{Server, until};

const ONLINE: &str = "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE'";

/// Waits until every server sees all of them ONLINE and the record names the group's primary; its index.
fn wait_ready(reconciler: &Reconciler, servers: &[Server]) -> usize {
    let mut primary = 0;
    let all = servers.len().to_string();
    until("the group is whole", SOON, || {
        let whole = |s: &Server| s.running() && s.try_sql(ONLINE).is_ok_and(|rows| rows[0][0] == all);
        primary = reconciler.primary().unwrap_or(usize::MAX);
        primary < servers.len() && servers.iter().all(whole) && servers[primary].one("SELECT @@super_read_only") == "0"
    });
    primary
}

#[test]
fn a_group_is_founded_kept_and_moved() {
    let (servers, _ports) = group_servers(3);
    let reconciler = Reconciler::start(&servers, "topology = \"group\"");
    let first = wait_ready(&reconciler, &servers);
    let proxy = Proxy::start(Options::servers(servers.iter().map(Server::addr)));
    proxy.client().query(TABLE).expect("a table");
    let load = Load::start(proxy.port(), 4);

    // Killed: the group chooses, the record follows, and the old one joins again by itself once it runs.
    servers[first].kill9();
    until("another one is recorded", SOON, || reconciler.primary().is_some_and(|p| p != first));
    load.wait_more(5);
    servers[first].start_again();
    let second = wait_ready(&reconciler, &servers);
    assert_ne!(second, first);

    // Frozen for so long that the others expel it; it resumes with its old view, leaves, and is brought back.
    servers[second].freeze();
    until("another one is recorded", SOON, || reconciler.primary().is_some_and(|p| p != second));
    load.wait_more(5);
    servers[second].thaw();
    let third = wait_ready(&reconciler, &servers);

    // Moved because somebody asks.
    let next = (third + 1) % 3;
    reconciler.switch(next);
    until("it is moved", SOON, || reconciler.primary() == Some(next));
    load.wait_more(5);
    assert_eq!(wait_ready(&reconciler, &servers), next);

    // Two at once: the third has no majority, and nobody would ever give it one, until they are back and in no group.
    let (other, third) = ((next + 1) % 3, (next + 2) % 3);
    [next, other].iter().for_each(|lost| servers[*lost].kill9());
    reconciler.wait_log("the group has no majority; 2 members are missing, 0 of them proven to be stopped");
    [next, other].iter().for_each(|lost| servers[*lost].start_again());
    reconciler.wait_log("the group has no majority, and every missing member is proven to be stopped");
    // In the middle of it. It may take the server a minute.
    reconciler.kill9();
    reconciler.run();
    let before: u64 = load.writes().iter().sum();
    until("clients write again", 2 * SOON, || load.writes().iter().sum::<u64>() > before + 5);
    assert_eq!(wait_ready(&reconciler, &servers), third, "the one that was left");
    // Nothing of that keeps it from joining again.
    servers[third].freeze();
    until("another one is recorded", SOON, || reconciler.primary().is_some_and(|p| p != third));
    servers[third].thaw();
    let next = wait_ready(&reconciler, &servers);
    let outcome = load.stop();
    println!("a group killed, frozen and moved: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    let acknowledged: u64 = outcome.writes.iter().sum();
    let there: u64 = servers[next].one("SELECT COUNT(*) FROM app.`load`").parse().expect("a number");
    assert!(there >= acknowledged, "{acknowledged} acknowledged, {there} there");

    // All down: founded again only when all are there, by the most advanced one.
    let term = reconciler.term();
    servers.iter().for_each(|server| server.kill9());
    servers[next].start_again();
    reconciler.wait_log("1 of 3 members answer; all are waited for");
    servers.iter().enumerate().filter(|(i, _)| *i != next).for_each(|(_, server)| server.start_again());
    let after = wait_ready(&reconciler, &servers);
    assert!(reconciler.term() >= term, "terms never go back");
    assert_eq!(servers[after].one("SELECT COUNT(*) FROM app.`load`"), there.to_string());
}

#[test]
#[ignore = "two minutes; run with --ignored"]
fn what_a_group_is_not_helped_out_of() {
    let (servers, _ports) = group_servers(3);
    let reconciler = Reconciler::start(&servers, "topology = \"group\"");
    let first = wait_ready(&reconciler, &servers);

    // Two of three are silent: the third has no majority, and nobody proves that they are stopped.
    let (one, two) = ((first + 1) % 3, (first + 2) % 3);
    servers[one].freeze();
    servers[two].freeze();
    reconciler.wait_log("the group has no majority; 2 members are missing, 0 of them proven to be stopped");
    servers[one].thaw();
    servers[two].thaw();
    let after = wait_ready(&reconciler, &servers);

    // Somebody founds a second group beside the first: which of them to keep is a person's to say.
    let stray = (after + 1) % 3;
    reconciler.kill9();
    servers[stray].sql("STOP GROUP_REPLICATION; SET GLOBAL group_replication_bootstrap_group=ON");
    servers[stray]
        .sql("START GROUP_REPLICATION USER='repl', PASSWORD='repl'; SET GLOBAL group_replication_bootstrap_group=OFF");
    let term = reconciler.term();
    reconciler.run();
    reconciler.wait_log("more than one group is active: a person must choose which to keep");
    assert_eq!(servers[stray].one(ONLINE), "1");
    assert_eq!((servers[after].one(ONLINE), reconciler.term()), ("2".to_owned(), term), "nothing is repaired");
}
