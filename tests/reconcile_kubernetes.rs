//! The reconciler on a real API server: MysqlClusters become StatefulSets whose pods are real servers, initialised by the
//! program itself, behind a real proxy that finds them by their labels.
#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod proxy;
mod testbed;

#[path = "reconcile_kubernetes/asked.rs"]
mod asked;
#[path = "reconcile_kubernetes/bed.rs"]
mod bed;
#[path = "reconcile_kubernetes/certificates.rs"]
mod certificates;
#[path = "reconcile_kubernetes/faults.rs"]
mod faults;
#[path = "reconcile_kubernetes/medians.rs"]
mod medians;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "reconcile_kubernetes/upkeep.rs"]
mod upkeep;
#[path = "reconcile_kubernetes/walk.rs"]
mod walk;
#[path = "reconcile_kubernetes/walks.rs"]
mod walks;

use bed::{Bed, NAMESPACE, SOON};
use k8s_openapi::jiff::Timestamp;
use proxy::{Load, Options, Outcome, Proxy, TABLE};
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, PoisonError};
use testbed::until;

/// One after the other: two control planes and their servers at a time are too much for two cores.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A proxy that finds the cluster by its labels and tells the reconciler when the primary looks lost, and a table for the load.
fn proxy_of(bed: &Bed, cluster: &str) -> Proxy {
    let account = format!("user = \"holdfast\"\npassword = \"{}\"", bed.password(cluster, "proxy"));
    let pods = format!(
        "kubeconfig = \"{}\", namespace = \"{NAMESPACE}\", preset = \"holdfast\", cluster = \"{cluster}\"",
        bed.plane.kubeconfig().display()
    );
    let primary = bed.primary(cluster);
    bed.sql(
        cluster,
        &primary,
        "CREATE SCHEMA app; CREATE USER app@'%' IDENTIFIED BY 'app'; GRANT ALL ON *.* TO app@'%'",
    );
    let lines = format!("hold_ms_max = 60000\nreconciler = \"{}\"", bed.admin());
    let proxy = Proxy::start(Options::pods(&pods).account(&account).cluster(&lines));
    proxy.client().query(TABLE).unwrap();
    proxy
}

/// Every acknowledged write is on every member.
fn nothing_lost(bed: &Bed, cluster: &str, outcome: &Outcome) {
    let acknowledged: u64 = outcome.writes.iter().sum();
    let unknown = outcome.troubles.iter().filter(|trouble| trouble.write).count() as u64;
    for pod in bed.pods(cluster) {
        let mut counts = Vec::new();
        let all = "SELECT client, COUNT(*) FROM app.`load` GROUP BY client ORDER BY client";
        until("it has all writes", SOON, || {
            counts = bed.sql(cluster, &pod, all).iter().map(|row| row[1].parse::<u64>().unwrap()).collect();
            counts.len() == outcome.writes.len()
                && counts.iter().zip(&outcome.writes).all(|(there, told)| there >= told)
        });
        let there: u64 = counts.iter().sum();
        assert!((acknowledged..=acknowledged + unknown).contains(&there), "{acknowledged} and {unknown}? but {there}");
    }
}

/// In the order of all writes a server that was followed by another never comes back without a change of the primary: nobody
/// writes beside somebody else in one term. (What a second primary would have acknowledged alone is lost: see `nothing_lost`.)
fn one_writer_per_term(bed: &Bed, cluster: &str) {
    let mut rows = testbed::Rows::new();
    bed.wait(cluster, "has a primary that answers", || {
        rows = bed.sql(cluster, &bed.primary(cluster), "SELECT server FROM app.`load` ORDER BY place");
        !rows.is_empty()
    });
    // Read behind them: it may have changed since.
    let term = bed.status(cluster)["term"].as_u64().unwrap();
    let writers = rows.chunk_by(|a, b| a == b).count() as u64;
    assert!((1..=term).contains(&writers), "{writers} writers one after the other in {term} terms");
}

/// The story in the status is the whole one: each term's change, the newest first, from who was the primary to who became it,
/// each later than the one before, and nothing left open but what was given up.
fn story_is_whole(bed: &Bed, cluster: &str) -> Vec<Value> {
    let mut story = Vec::new();
    bed.wait(cluster, "has told how the last change ended", || {
        story = bed.status(cluster)["history"].as_array().cloned().unwrap_or_default();
        story.first().is_some_and(|newest| newest["tookMs"].is_u64())
    });
    let status = bed.status(cluster);
    let term = status["term"].as_u64().unwrap();
    let terms: Vec<u64> = story.iter().map(|change| change["term"].as_u64().unwrap()).collect();
    assert_eq!(terms, (1..=term).rev().take(16).collect::<Vec<_>>(), "{story:#?}");
    assert_eq!((&story[0]["to"], &story[0]), (&status["primary"], &status["lastFailover"]));
    for (n, change) in story.iter().enumerate() {
        let before = story[n + 1..].iter().find(|earlier| earlier["tookMs"].is_u64());
        assert!(before.is_none_or(|before| change["from"] == before["to"]), "{change:#} {before:#?}");
        let at = |change: &Value| change["at"].as_str().unwrap().parse::<Timestamp>().unwrap();
        assert!(before.is_none_or(|before| at(change) > at(before)), "{change:#} {before:#?}");
        assert!(change["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{change:#}");
    }
    story
}

/// The first primary was killed, the pod of the second deleted: the status and the reconciler's page tell it so.
fn three_terms_are_told(bed: &Bed, [first, second, last]: [&str; 3]) {
    let story = story_is_whole(bed, "set");
    let told = |n: usize, key: &str| story[n][key].as_str().unwrap_or_default();
    let moves: Vec<_> = (0..story.len()).map(|n| (told(n, "from"), told(n, "to"))).collect();
    assert_eq!(moves, [(second, last), (first, second), ("", first)]);
    assert_eq!(told(0, "reason"), format!("the pod of {second} is being deleted"));
    let lost = format!("{first} is lost; {second} has every acknowledged commit ({first}: ");
    assert!(told(1, "reason").starts_with(&lost), "{story:#?}");
    // The reconciler's page tells the same, once it has heard of it.
    let keys = [("from", "from"), ("to", "to"), ("term", "term"), ("ms", "tookMs"), ("why_proven", "reason")];
    bed.wait("set", "is told of by the reconciler's page", || {
        let page = bed.page();
        let set = page["clusters"].as_array().and_then(|all| all.iter().find(|cluster| cluster["name"] == "set"));
        let shown = set.and_then(|set| set["history"].as_array().cloned()).unwrap_or_default();
        let same = |(n, change): (usize, &Value)| keys.iter().all(|(there, here)| shown[n][there] == change[here]);
        let well = page["leads"] == true && page["verdict"]["state"] == "ok";
        well && shown.len() == story.len() && story.iter().enumerate().all(same)
    });
}

/// Waits until another than `old` is recorded as the primary.
fn wait_moved(bed: &Bed, cluster: &str, old: &str) -> String {
    let mut new = String::new();
    bed.wait(cluster, "has another primary", || {
        new = bed.settled(cluster).unwrap_or_default();
        !new.is_empty() && new != old
    });
    new
}

#[test]
fn a_set_keeps_every_acknowledged_write() {
    let _alone = alone();
    let bed = Bed::start();
    bed.volume("first", "grows", "1Gi");
    let alone = json!({ "topology": "standalone", "replicas": 1, "storage": { "class": "grows", "size": "1Gi" } });
    let alone = bed.create("alone", &alone);
    let (authority, tls) = certificates::make(&bed);
    let spec = bed.create("set", &json!({ "topology": "semisync", "autoReclone": true, "tls": tls }));
    bed.wait_ready("alone");
    bed.wait_ready("set");
    certificates::serve_until(&bed, 2040);
    certificates::members_show_theirs(&bed, "set");
    assert_eq!(bed.primary("alone"), "alone-mysql-0");
    upkeep::volumes_grow(&bed, &alone);
    let proxy = proxy_of(&bed, "set");
    let load = Load::start(proxy.port(), 6);
    a_word_changes_nothing_of_a_healthy_primary(&bed);

    let first = bed.primary("set");
    bed.pod(&first).kill9();
    wait_moved(&bed, "set", &first);
    load.wait_more(5);
    bed.wait_ready("set");
    let told = |result: &str| proxy.metric("holdfast_nudges_total", &[&format!("result=\"{result}\"")]);
    until("the proxy has told the reconciler", SOON, || told("heard") >= 1.0);

    let second = bed.primary("set");
    let troubles = load.troubles();
    bed.plane.delete_pod(NAMESPACE, &second, None);
    wait_moved(&bed, "set", &second);
    load.wait_more(5);
    bed.wait_ready("set");
    assert_eq!(load.troubles(), troubles, "nobody notices that the primary's pod is deleted");
    let last = bed.primary("set");
    three_terms_are_told(&bed, [&first, &second, &last]);

    // Killed and started again behind each step it goes on where it was.
    let third = another(&bed, "set");
    let move_it = json!({ "cluster": "set", "type": "Switchover", "target": third });
    let what = ("a switchover", &["apply "][..]);
    let steps = walk::walk_sparing(&bed, what, || bed.ask("walk", &move_it), || is_complete(&bed, "set", "walk"));
    assert!(steps.iter().any(|step| *step == format!("promote {third}")), "{steps:#?}");
    assert_eq!(bed.primary("set"), third);
    // Whoever died in between, the story is not broken off.
    let story = story_is_whole(&bed, "set");
    assert_eq!((&story[0]["from"], &story[0]["to"]), (&json!(last), &json!(third)), "{story:#?}");

    certificates::renew(&bed, &authority);
    // It looks at once when it begins, and every ten minutes.
    asked::nobody_is_a_stranger_before_the_pods_are_known(&bed);
    certificates::serve_until(&bed, 2041);
    let third = bed.primary("set");

    a_primary_that_only_the_reconciler_does_not_reach(&bed);

    // While the API server is away roles freeze: nobody takes over, clients wait, and then it goes on.
    bed.plane.kill_api();
    bed.pod(&third).kill9();
    bed.wait_log("roles stay as they are");
    // Then it leads no more, and says so to those that hope for it.
    until("the proxy hears that nobody leads", SOON, || told("not_leading") >= 1.0);
    bed.plane.start_api();
    load.wait_more(5);
    bed.wait_ready("set");

    // What Kubernetes knows: Events, Services that lead to the roles; and a spec that can't be is told off and changes nothing.
    let events = bed.plane.kubectl(&["-n", NAMESPACE, "get", "events"]).unwrap();
    assert!(
        events.contains("PrimaryChanged") && events.contains(&format!("{second} takes over from {first}")),
        "{events}"
    );
    let endpoint = |service: &str| bed.object("endpoints", service)["subsets"][0]["addresses"].clone();
    bed.wait("set", "is led to", || {
        let primary = bed.pod(&bed.primary("set")).ip().to_string();
        endpoint("set-mysql")[0]["ip"] == *primary
            && endpoint("set-mysql-ro").as_array().is_some_and(|all| all.len() == 2)
    });
    let counted = bed.metrics();
    for line in [
        "holdfast_reconciler_leads 1",
        "holdfast_reconciler_errant_transactions{cluster=\"set\",member=\"set-mysql-0\"} 0",
    ] {
        assert!(counted.contains(line), "{counted}");
    }
    let mut wrong = upkeep::moved_and_updated(&bed, &load, &spec);
    wrong["mysqlConf"]["gtid-mode"] = json!("OFF");
    bed.apply("set", &wrong);
    bed.wait("set", "is refused", || {
        let ready = bed.condition("set", "Ready");
        ready["reason"] == "SpecRefused" && ready["message"] == "mysqlConf.gtid-mode is Holdfast's own"
    });
    load.wait_more(5);

    let outcome = load.stop();
    println!("a set under faults: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    nothing_lost(&bed, "set", &outcome);
    story_is_whole(&bed, "set").iter().for_each(|change| println!("{change}"));
}

/// The reconciler looks because it is told to, and does nothing, however often.
fn a_word_changes_nothing_of_a_healthy_primary(bed: &Bed) {
    bed.wait_whole("set");
    let steps = || bed.log().matches("done step=").count();
    let before = (bed.primary("set"), bed.status("set")["term"].clone(), steps());
    let looks = || bed.metric("holdfast_reconciler_nudged_looks_total", &["cluster=\"set\""]);
    for (query, status) in [
        ("cluster=set", 202),
        ("cluster=set&namespace=shop", 202),
        ("cluster=set&namespace=elsewhere", 404),
        ("cluster=nobody", 404),
        ("namespace=shop", 400),
        ("cluster=set&promote=set-mysql-1", 400),
    ] {
        assert_eq!(bed.suspect(query), status, "{query}");
    }
    // One look has ended when the next one begins.
    for more in 1..=3 {
        let seen = looks();
        assert_eq!(bed.suspect("cluster=set"), 202);
        until("it looks because it is told to", SOON, || looks() > seen);
        assert!(looks() >= f64::from(more));
    }
    assert_eq!((bed.primary("set"), bed.status("set")["term"].clone(), steps()), before);
}

#[test]
fn a_group_keeps_every_acknowledged_write() {
    let _alone = alone();
    let bed = Bed::start();
    let (_, tls) = certificates::make(&bed);
    bed.create("ring", &json!({ "topology": "group", "tls": tls }));
    bed.wait_ready("ring");
    certificates::members_show_theirs(&bed, "ring");
    let first = bed.primary("ring");
    assert_eq!(bed.sql("ring", &first, "SELECT @@group_replication_ssl_mode"), [["VERIFY_CA"]]);
    let proxy = proxy_of(&bed, "ring");
    let load = Load::start(proxy.port(), 4);
    bed.pod(&first).kill9();
    wait_moved(&bed, "ring", &first);
    load.wait_more(5);
    bed.wait_ready("ring");

    // While the API server is away roles freeze, and what the proxy knows goes on.
    bed.plane.kill_api();
    load.wait_more(20);
    bed.plane.start_api();
    bed.wait_ready("ring");

    let second = bed.primary("ring");
    bed.plane.delete_pod(NAMESPACE, &second, None);
    wait_moved(&bed, "ring", &second);
    load.wait_more(5);
    bed.wait_ready("ring");
    let outcome = load.stop();
    println!("a group under faults: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    nothing_lost(&bed, "ring", &outcome);
    let story = story_is_whole(&bed, "ring");
    story.iter().for_each(|change| println!("{change}"));
    let killed = story.iter().find(|change| change["from"] == *first).unwrap();
    assert!(killed["reason"].as_str().is_some_and(|why| why.contains(&format!("({first}: "))), "{killed:#}");
    let moved = story.iter().find(|change| change["from"] == *second).unwrap();
    let why = format!("(the pod of {second} is being deleted)");
    assert!(moved["reason"].as_str().is_some_and(|reason| reason.contains(&why)), "{moved:#}");
}

/// A member that is not the primary.
fn another(bed: &Bed, cluster: &str) -> String {
    let primary = bed.primary(cluster);
    bed.pods(cluster).into_iter().find(|pod| *pod != primary).unwrap()
}

/// Is the operation complete, and the cluster well?
fn is_complete(bed: &Bed, cluster: &str, operation: &str) -> bool {
    let status = bed.object("myo", operation)["status"].clone();
    assert_ne!(status["phase"], "Failed", "{status:#}");
    status["phase"] == "Complete" && bed.is_whole(cluster)
}

/// The reconciler and the proxy don't reach the primary, its replicas do: it is alive, and nobody takes over.
fn a_primary_that_only_the_reconciler_does_not_reach(bed: &Bed) {
    let (primary, term) = (bed.primary("set"), bed.status("set")["term"].clone());
    bed.pod(&primary).network().cut_from_node();
    bed.wait("set", "looks again", || {
        let why = bed.condition("set", "Available")["message"].clone();
        why.as_str().is_some_and(|why| why.contains("still receives from it: looking again"))
    });
    // Acknowledged by a replica.
    bed.sql("set", &primary, "CREATE DATABASE alive");
    let looked = bed.status("set")["members"].clone();
    bed.wait("set", "sees what it wrote with its replicas", || bed.status("set")["members"] != looked);
    bed.pod(&primary).network().join_node();
    bed.wait_ready("set");
    assert_eq!((bed.primary("set"), bed.status("set")["term"].clone()), (primary, term));
}

/// Asks for an operation and waits until it is complete.
fn operate(bed: &Bed, name: &str, spec: &Value) {
    bed.ask(name, spec);
    let cluster = spec["cluster"].as_str().unwrap();
    bed.wait(cluster, name, || {
        let status = bed.object("myo", name)["status"].clone();
        assert_ne!(status["phase"], "Failed", "{status:#}");
        status["phase"] == "Complete"
    });
}

/// `cargo test --test reconcile_kubernetes failovers_are -- --include-ignored`
#[test]
#[ignore = "a minute"]
fn failovers_are_made_when_asked_for_and_others_clusters_observed() {
    let _alone = alone();
    let bed = Bed::start();
    bed.create("set", &json!({ "topology": "semisync", "autoReclone": true, "failoverDelaySeconds": 600 }));
    bed.wait_whole("set");
    asked::a_failover_does_not_wait_for_the_spec(&bed);
    asked::only_force_overrules_the_proof(&bed);
    asked::what_is_anothers_is_only_observed(&bed);
    asked::anothers_labels_are_read(&bed);
}

/// A server whose disk was full is well again when there is room: nobody goes on saying that it is full.
#[test]
fn a_disk_that_was_full_is_not_full_for_ever() {
    let _alone = alone();
    let bed = Bed::start_with(Some(600));
    bed.create("db", &json!({ "topology": "standalone", "replicas": 1 }));
    bed.wait_whole("db");
    let proxy = proxy_of(&bed, "db");
    let load = Load::start(proxy.port(), 2);
    load.wait_more(5);
    bed.fill("db-mysql-0");
    bed.wait("db", "says that its disk is full", || {
        let why = bed.condition("db", "Healthy")["message"].clone();
        why.as_str().is_some_and(|why| why.contains("no room is left on the disk of db-mysql-0"))
    });
    bed.free("db-mysql-0");
    // The server looks once a minute.
    bed.wait_whole("db");
    load.wait_more(5);
    nothing_lost(&bed, "db", &load.stop());
}
