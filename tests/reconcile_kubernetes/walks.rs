//! Whole lives of clusters under a reconciler that dies behind every step (see `walk`): each topology does with its own kinds of
//! steps what one life would have done.

use super::bed::{Bed, NAMESPACE};
use super::proxy::Load;
use super::upkeep::claims;
use super::walk::walk;
use super::{alone, another, is_complete, nothing_lost, one_writer_per_term, operate, proxy_of, story_is_whole};
use serde_json::json;
use std::collections::BTreeSet;

/// Every kind of step that a set's reconciler takes, and a death behind each of them. `walk_a_group` has those of groups.
///
/// `cargo test --test reconcile_kubernetes walk_a -- --include-ignored --nocapture`
#[test]
#[ignore = "ten minutes"]
fn walk_a_set() {
    let _alone = alone();
    let bed = Bed::start();
    let mut all = BTreeSet::new();
    let mut spec =
        json!({ "topology": "semisync", "autoReclone": true, "storage": { "class": "grows", "size": "1Gi" } });
    (0..4).for_each(|n| bed.volume(&format!("volume-{n}"), "grows", "1Gi"));
    let whole = || bed.is_whole("set");
    let mut begun = spec.clone();
    all.extend(walk(&bed, "a set is made", || begun = bed.create("set", &spec), whole));
    spec = begun;
    let proxy = proxy_of(&bed, "set");
    let load = Load::start(proxy.port(), 4);

    let to = another(&bed, "set");
    let move_it = json!({ "cluster": "set", "type": "Switchover", "target": to });
    all.extend(walk(&bed, "a switchover", || bed.ask("move", &move_it), || is_complete(&bed, "set", "move")));
    assert_eq!(bed.primary("set"), to);

    let moved = |old: &str| bed.primary("set") != old && bed.is_whole("set");
    // A server that is back before the second of many short lives simply goes on: it stays away until it has been replaced.
    let lost = bed.pod(&to);
    let lose = || {
        lost.restart(false);
        lost.kill9();
    };
    let replaced = || {
        lost.restart(bed.settled("set").is_some_and(|now| now != to));
        moved(&to)
    };
    all.extend(walk(&bed, "a failover", lose, replaced));
    let old = bed.primary("set");
    let delete = || bed.plane.delete_pod(NAMESPACE, &old, None);
    all.extend(walk(&bed, "the primary's pod is deleted", delete, || moved(&old)));

    let (errant, uuid) = (another(&bed, "set"), |pod: &str| bed.sql("set", pod, "SELECT @@server_uuid"));
    let before = uuid(&errant);
    let write = || drop(bed.sql("set", &errant, "SET GLOBAL super_read_only=OFF; CREATE DATABASE errant"));
    let renewed = || !uuid(&errant).is_empty() && uuid(&errant) != before && bed.is_whole("set");
    all.extend(walk(&bed, "an errant member", write, renewed));

    let rolled_out = |replicas: usize| {
        let read = bed.object("myc", "set");
        read["status"]["observedGeneration"] == read["metadata"]["generation"]
            && bed.condition("set", "RolledOut")["status"] == "True"
            && bed.pods("set").len() == replicas
            && bed.is_whole("set")
    };
    spec["mysqlConf"]["max-connections"] = json!("120");
    all.extend(walk(&bed, "another option", || bed.apply("set", &spec), || rolled_out(3)));
    spec["storage"]["size"] = json!("2Gi");
    all.extend(walk(&bed, "larger volumes", || bed.apply("set", &spec), || rolled_out(3)));
    spec["replicas"] = json!(4);
    all.extend(walk(&bed, "one more", || bed.apply("set", &spec), || rolled_out(4)));
    operate(&bed, "top", &json!({ "cluster": "set", "type": "Switchover", "target": "set-mysql-3" }));
    spec["replicas"] = json!(2);
    let left = ["data-set-mysql-0", "data-set-mysql-1"];
    let gone = || rolled_out(2) && claims(&bed) == left;
    all.extend(walk(&bed, "two fewer", || bed.apply("set", &spec), gone));

    let outcome = load.stop();
    println!("a set, walked: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    nothing_lost(&bed, "set", &outcome);
    one_writer_per_term(&bed, "set");
    story_is_whole(&bed, "set");
    covers(&all, &SET_STEPS);
}

/// What a walk through a set has to have seen.
const SET_STEPS: [&str; 24] = [
    "claim ",
    "settle ",
    "record_acks",
    "announce ",
    "label ",
    "unlabel ",
    "fence ",
    "stop_receiver ",
    "catch_up ",
    "promote ",
    "acks ",
    "follow ",
    "begin clone ",
    "renew ",
    "accounts ",
    "apply ConfigMap",
    "apply Service",
    "apply PodDisruptionBudget",
    "apply StatefulSet",
    "mark ",
    "replace ",
    "delete claim ",
    "grow claim ",
    "remake ",
];

/// And through a group.
const GROUP_STEPS: [&str; 10] = [
    "claim ",
    "bootstrap ",
    "begin join ",
    "elect ",
    "force_members ",
    "begin leave ",
    "announce ",
    "unlabel ",
    "label ",
    "settle ",
];

fn covers(all: &BTreeSet<String>, wanted: &[&str]) {
    let missing = wanted.iter().filter(|words| !all.iter().any(|step| step.starts_with(**words)));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new(), "{all:#?}");
}

/// The same for what only groups have.
#[test]
#[ignore = "ten minutes"]
fn walk_a_group() {
    let _alone = alone();
    let bed = Bed::start();
    let mut all = BTreeSet::new();
    let whole = || bed.is_whole("ring");
    let make = || drop(bed.create("ring", &json!({ "topology": "group", "autoReclone": true })));
    all.extend(walk(&bed, "a group is made", make, whole));
    let proxy = proxy_of(&bed, "ring");
    let load = Load::start(proxy.port(), 4);

    let to = another(&bed, "ring");
    let move_it = json!({ "cluster": "ring", "type": "Switchover", "target": to });
    all.extend(walk(&bed, "a switchover", || bed.ask("move", &move_it), || is_complete(&bed, "ring", "move")));
    assert_eq!(bed.primary("ring"), to);
    let moved = || bed.primary("ring") != to && bed.is_whole("ring");
    all.extend(walk(&bed, "a failover", || bed.pod(&to).kill9(), moved));
    let kill_all = || bed.pods("ring").iter().for_each(|pod| bed.pod(pod).kill9());
    all.extend(walk(&bed, "all are killed", kill_all, whole));

    // Two at once: the one that is left has no majority.
    let lost = [bed.primary("ring"), another(&bed, "ring")];
    let kill_two = || lost.iter().for_each(|pod| bed.pod(pod).kill9());
    all.extend(walk(&bed, "two are killed", kill_two, whole));

    // Two at once again, but the one that is left lacks what they had acknowledged.
    let behind = another(&bed, "ring");
    let leave_behind = || {
        bed.pod(&behind).network().cut_off();
        load.wait_more(3);
        let others = bed.pods("ring").into_iter().filter(|pod| *pod != behind);
        others.for_each(|pod| bed.pod(&pod).kill9());
        bed.pod(&behind).network().join();
    };
    all.extend(walk(&bed, "one is left behind", leave_behind, whole));

    let outcome = load.stop();
    println!("a group, walked: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    nothing_lost(&bed, "ring", &outcome);
    one_writer_per_term(&bed, "ring");
    story_is_whole(&bed, "ring");
    covers(&all, &GROUP_STEPS);
}
