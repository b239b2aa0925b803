//! Failovers that a person asks for, with and without the proof that nothing is lost, and a cluster that is another's.

use super::bed::{Bed, NAMESPACE, SOON};
use super::testbed::until;
use super::{another, is_complete, operate, wait_moved};
use serde_json::{Value, json};

const ROLE: &str = "holdfast.io/role";

/// The status speaks of the change that has just been made: who, whom from, in which term.
fn told_of(bed: &Bed, (from, to): (&str, &str), term: u64) {
    bed.wait("set", "tells of the change", || {
        let status = bed.status("set");
        let last = &status["lastFailover"];
        last["from"] == from && last["to"] == to && status["primary"] == to && status["term"] == term
    });
    let why = format!("{to} takes over from {from} after");
    until("there is an Event of it", SOON, || {
        let events = bed.plane.kubectl(&["-n", NAMESPACE, "get", "events", "-o", "json"]).unwrap();
        let events: Value = serde_json::from_str(&events).unwrap();
        events["items"].as_array().unwrap().iter().any(|event| {
            let action = event["action"] == format!("Term{term}");
            action && event["message"].as_str().is_some_and(|message| message.starts_with(&why))
        })
    });
}

fn term(bed: &Bed) -> u64 {
    bed.status("set")["term"].as_u64().unwrap()
}

/// A reconciler that has not seen the pods yet takes none of them for a stranger: what is asked of it waits.
pub fn nobody_is_a_stranger_before_the_pods_are_known(bed: &Bed) {
    bed.kill_reconciler();
    bed.may_see_pods(false);
    let to = another(bed, "set");
    bed.ask("early", &json!({ "cluster": "set", "type": "Switchover", "target": to }));
    bed.run_reconciler();
    until("it knows the cluster", SOON, || bed.knows_clusters());
    // It has had the time to judge: it has renewed its Lease twice since.
    let renewed = || bed.plane.kubectl(&["-n", NAMESPACE, "get", "lease", "-o", "jsonpath={..renewTime}"]).unwrap();
    for _ in 0..2 {
        let before = renewed();
        until("it renews its Lease", SOON, || renewed() != before);
    }
    let asked = bed.object("myo", "early")["status"]["phase"].clone();
    assert_eq!(asked, Value::Null, "it waits for the pods");
    bed.may_see_pods(true);
    bed.wait("set", "is moved", || is_complete(bed, "set", "early"));
    assert_eq!(bed.primary("set"), to);
}

/// The spec has a failover wait for ten minutes; a person does not want to.
pub fn a_failover_does_not_wait_for_the_spec(bed: &Bed) {
    let (old, before) = (bed.primary("set"), term(bed));
    bed.pod(&old).freeze();
    bed.wait("set", "waits as its spec says", || {
        let why = bed.condition("set", "Available")["message"].clone();
        why.as_str().is_some_and(|why| why.contains("failover is delayed by its spec"))
    });
    assert_eq!(term(bed), before);
    operate(bed, "now", &json!({ "cluster": "set", "type": "Failover" }));
    let new = bed.settled("set").unwrap();
    assert_ne!(new, old);
    told_of(bed, (&old, &new), before + 1);
    bed.pod(&old).thaw();
    bed.wait_whole("set");
}

/// With two of three silent nothing can be proven: it is said, and done only with `force`.
pub fn only_force_overrules_the_proof(bed: &Bed) {
    let (old, before) = (bed.primary("set"), term(bed));
    let silent = another(bed, "set");
    for pod in [&silent, &old] {
        bed.pod(pod).freeze();
    }
    bed.ask("proven", &json!({ "cluster": "set", "type": "Failover" }));
    bed.wait("set", "waits for the proof", || {
        let why = bed.condition("set", "Available")["message"].clone();
        let running = bed.object("myo", "proven")["status"]["phase"] == "Running";
        running && why.as_str().is_some_and(|why| why.contains("must answer to prove that no commit is lost"))
    });
    assert_eq!(term(bed), before);
    // One after the other: what can't be done is withdrawn first.
    bed.plane.kubectl(&["-n", NAMESPACE, "delete", "myo", "proven"]).unwrap();
    operate(bed, "forced", &json!({ "cluster": "set", "type": "Failover", "force": true }));
    let new = wait_moved(bed, "set", &old);
    assert_ne!(new, silent);
    told_of(bed, (&old, &new), before + 1);
    for pod in [&old, &silent] {
        bed.pod(pod).thaw();
    }
    bed.wait_whole("set");
    told_of(bed, (&old, &new), before + 1);
}

/// The same pods as another operator's: seen and told, and nothing else.
pub fn what_is_anothers_is_only_observed(bed: &Bed) {
    bed.plane.kubectl(&["-n", NAMESPACE, "delete", "myc", "set", "--cascade=orphan"]).unwrap();
    let pods = bed.pods("set");
    assert_eq!(pods.len(), 3);
    let primary = pods.iter().find(|pod| bed.sql("set", pod, "SELECT @@read_only") == [["0"]]).unwrap().clone();
    bed.apply("set", &json!({ "topology": "external", "replicas": 3 }));
    let states = || -> Vec<(String, String, String)> {
        let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let lines = bed.status("set")["members"].as_array().cloned().unwrap_or_default();
        lines.iter().map(|line| (word(line, "name"), word(line, "role"), word(line, "state"))).collect()
    };
    let is_told =
        |pod: &str, role: &str, state: &str| states().contains(&(pod.to_owned(), role.to_owned(), state.to_owned()));
    bed.wait("set", "is told of", || {
        let followers = pods.iter().filter(|pod| **pod != primary).all(|pod| is_told(pod, "follower", "follows"));
        followers && is_told(&primary, "primary", "writable")
    });
    bed.wait_ready("set");

    // Its primary comes back closed, as it boots. Who keeps it does not open it, so nobody does.
    let marks = || -> Vec<(Value, Value)> {
        let of = |pod: &String| {
            let metadata = bed.object("pod", pod)["metadata"].clone();
            (metadata["labels"].clone(), metadata["annotations"].clone())
        };
        pods.iter().map(of).collect()
    };
    let generation = |kind: &str, name: &str| bed.object(kind, name)["metadata"]["generation"].clone();
    let before = (marks(), generation("sts", "set-mysql"));
    bed.pod(&primary).kill9();
    bed.wait("set", "is told to be closed", || {
        bed.condition("set", "Available")["status"] == "False" && is_told(&primary, "primary", "does not follow")
    });
    let looks = || bed.metric("holdfast_reconciler_nudged_looks_total", &["cluster=\"set\""]);
    for _ in 0..3 {
        let seen = looks();
        assert_eq!(bed.suspect("cluster=set"), 202);
        until("it looks once more", SOON, || looks() > seen);
    }
    let flags = "SELECT @@read_only, @@super_read_only, @@offline_mode";
    assert_eq!(bed.sql("set", &primary, flags), [["1", "1", "0"]]);
    assert_eq!((marks(), generation("sts", "set-mysql")), before);
    assert_eq!(bed.status("set")["primary"], Value::Null, "it has not made anybody the primary");

    // Its keeper opens another one.
    let heir = pods.iter().find(|pod| **pod != primary).unwrap();
    let open = "STOP REPLICA; SET GLOBAL super_read_only=OFF; SET GLOBAL read_only=OFF";
    bed.sql("set", heir, open);
    bed.wait("set", "is told to be open", || is_told(heir, "follower", "writable"));
    let wrong = format!("{heir} takes writes, but {primary} is labelled as the primary");
    bed.wait("set", "is told to be labelled wrongly", || bed.condition("set", "Healthy")["message"] == *wrong);
    assert_eq!(bed.condition("set", "Available")["status"], "True");
    assert_eq!(bed.sql("set", heir, flags), [["0", "0", "0"]]);
    assert_eq!((marks(), generation("sts", "set-mysql")), before);
    bed.plane.relabel(NAMESPACE, &primary, &[(ROLE, Some("follower"))]);
    bed.plane.relabel(NAMESPACE, heir, &[(ROLE, Some("primary"))]);
    bed.wait_ready("set");
}

/// Pods with the labels of another operator, asked as an account that may only look.
pub fn anothers_labels_are_read(bed: &Bed) {
    for what in ["myc/set", "sts/set-mysql"] {
        bed.plane.kubectl(&["-n", NAMESPACE, "delete", what, "--cascade=orphan"]).unwrap();
    }
    let pods = bed.pods("set");
    let is_open = |pod: &String| bed.sql("set", pod, "SELECT @@read_only") == [["0"]];
    let (primary, other) =
        (pods.iter().find(|pod| is_open(pod)).unwrap(), pods.iter().find(|pod| !is_open(pod)).unwrap());
    let called = |pod: &str, role: &str| bed.plane.relabel(NAMESPACE, pod, &[("moco.cybozu.com/role", Some(role))]);
    for pod in &pods {
        bed.plane.relabel(NAMESPACE, pod, &[(ROLE, None), ("kubeblocks.io/role", None), ("holdfast.io/cluster", None)]);
        called(pod, if pod == primary { "primary" } else { "replica" });
    }
    let account = json!({ "secretName": "set-accounts", "user": "holdfast_probe", "key": "probe" });
    let spec =
        json!({ "topology": "external", "external": { "preset": "moco", "cluster": "set", "account": account } });
    bed.apply("theirs", &spec);
    bed.wait_ready("theirs");
    let members = bed.status("theirs")["members"].clone();
    let mut told: Vec<&str> = members.as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, pods);

    let wrong = format!("{primary} takes writes, but {other} is labelled as the primary");
    called(primary, "replica");
    called(other, "primary");
    bed.wait("theirs", "is told to be labelled wrongly", || bed.condition("theirs", "Healthy")["message"] == *wrong);
    called(other, "replica");
    called(primary, "primary");
    bed.wait_ready("theirs");

    // Its operator rotates the password.
    for pod in &pods {
        let alter =
            "SET sql_log_bin=0; SET GLOBAL super_read_only=OFF; ALTER USER holdfast_probe@'%' IDENTIFIED BY 'rotated'";
        let closed = if pod == primary { "" } else { "; SET GLOBAL super_read_only=ON" };
        bed.sql("set", pod, &format!("{alter}{closed}"));
        let open = "SELECT PROCESSLIST_ID FROM performance_schema.threads WHERE PROCESSLIST_USER = 'holdfast_probe'";
        for row in bed.sql("set", pod, open) {
            bed.sql("set", pod, &format!("KILL {}", row[0]));
        }
    }
    bed.wait("theirs", "can't be asked", || bed.condition("theirs", "Ready")["status"] == "False");
    let rotated = r#"{"stringData":{"probe":"rotated"}}"#;
    bed.plane.kubectl(&["-n", NAMESPACE, "patch", "secret", "set-accounts", "-p", rotated]).unwrap();
    bed.wait_ready("theirs");

    bed.ask("not-ours", &json!({ "cluster": "theirs", "type": "Switchover", "target": other }));
    bed.wait("theirs", "is not moved", || bed.object("myo", "not-ours")["status"]["phase"] == "Failed");
    assert_eq!(bed.object("myo", "not-ours")["status"]["message"], "theirs is another operator's: ask that one");
    // Whose pods it has may change.
    let mut nobody = spec;
    nobody["external"]["cluster"] = json!("nobody");
    bed.apply("theirs", &nobody);
    bed.wait("theirs", "has no pods", || bed.condition("theirs", "Ready")["message"] == "there are no members yet");
}
