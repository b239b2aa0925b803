//! What is asked of a cluster that is well: more and fewer members, other options, larger volumes, restarts, fences.

use super::bed::{Bed, NAMESPACE};
use super::proxy::Load;
use super::{alone, another, certificates, nothing_lost, operate, proxy_of};
use serde_json::{Value, json};

/// One that can't apply what it receives is not read from until it has.
pub fn a_late_follower_loses_its_label(bed: &Bed, spec: &mut Value) {
    spec["maxLagSeconds"] = json!(2);
    bed.apply("set", spec);
    bed.wait_ready("set");
    let late = another(bed, "set");
    let line = || {
        let members = bed.status("set")["members"].as_array().cloned().unwrap_or_default();
        members.into_iter().find(|member| member["name"] == *late).unwrap_or_default()
    };
    std::thread::scope(|scope| {
        let lock = "FLUSH TABLES WITH READ LOCK; SELECT SLEEP(600) AS asleep";
        scope.spawn(|| bed.sql("set", &late, lock));
        bed.wait("set", "reads from one follower only", || bed.followers("set") == 1);
        bed.wait("set", "says how late it is", || line()["lagSeconds"].as_u64() >= Some(2));
        let asleep =
            "SELECT PROCESSLIST_ID FROM performance_schema.threads WHERE PROCESSLIST_INFO LIKE 'SELECT SLEEP%'";
        let id = bed.sql("set", &late, asleep)[0][0].clone();
        bed.sql("set", &late, &format!("KILL {id}"));
    });
    bed.wait("set", "reads from both", || bed.followers("set") == 2);
    bed.wait_ready("set");
}

/// A volume becomes larger under the server that uses it; what can't be is said, and holds nothing else up.
pub fn volumes_grow(bed: &Bed, spec: &Value) {
    let with = |size: &str| {
        let mut spec = spec.clone();
        spec["storage"]["size"] = json!(size);
        spec
    };
    let rolled_out = |reason: &str| {
        let all = bed.object("myc", "alone");
        let read = all["status"]["observedGeneration"] == all["metadata"]["generation"];
        read && bed.condition("alone", "RolledOut")["reason"] == reason
    };
    let template = || {
        bed.object("sts", "alone-mysql")["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
            .clone()
    };
    bed.wait("alone", "is rolled out", || rolled_out("RolledOut"));
    let (uid, pid) = (bed.pod("alone-mysql-0").uid().to_owned(), bed.pod("alone-mysql-0").pid());

    bed.apply("alone", &with("2Gi"));
    bed.wait("alone", "has larger volumes", || rolled_out("RolledOut") && template() == "2Gi");
    let asked = bed.object("pvc", "data-alone-mysql-0")["spec"]["resources"]["requests"]["storage"].clone();
    assert_eq!(asked, "2Gi");
    let owner = bed.object("pod", "alone-mysql-0")["metadata"]["ownerReferences"][0]["uid"].clone();
    assert_eq!(owner, bed.object("sts", "alone-mysql")["metadata"]["uid"], "the new one has taken the pod");
    assert_eq!((bed.pod("alone-mysql-0").uid(), bed.pod("alone-mysql-0").pid()), (&*uid, pid), "it never stopped");

    // Less, and a class that doesn't grow: said, and everything else goes on.
    bed.plane.kubectl(&["patch", "storageclass", "grows", "-p", r#"{"allowVolumeExpansion":false}"#]).unwrap();
    let mut wrong = with("1Gi");
    for (size, words) in [("1Gi", "can't become less"), ("3Gi", "can't become larger")] {
        wrong["storage"]["size"] = json!(size);
        bed.apply("alone", &wrong);
        bed.wait("alone", "says that it can't be", || {
            let told = bed.condition("alone", "RolledOut")["message"].clone();
            rolled_out("VolumesRefused") && told.as_str().is_some_and(|told| told.contains(words))
        });
    }
    wrong["mysqlConf"]["max-connections"] = json!("121");
    bed.apply("alone", &wrong);
    let has = || bed.sql("alone", "alone-mysql-0", "SELECT @@max_connections") == [["121"]];
    bed.wait("alone", "has the option", || bed.pods("alone").len() == 1 && has());
    bed.wait_ready("alone");
    let events = bed.plane.kubectl(&["-n", NAMESPACE, "get", "events"]).unwrap();
    assert!(events.contains("VolumesRefused"), "{events}");
}

pub fn claims(bed: &Bed) -> Vec<String> {
    let listed = bed.plane.kubectl(&["-n", NAMESPACE, "get", "pvc", "-o", "name"]).unwrap();
    listed.lines().map(|line| line.rsplit('/').next().unwrap().to_owned()).collect()
}

/// The primary is moved, then another option reaches all, the primary last; the spec with that option.
pub fn moved_and_updated(bed: &Bed, load: &Load, spec: &Value) -> Value {
    let troubles = load.troubles();
    let to = another(bed, "set");
    operate(bed, "move", &json!({ "cluster": "set", "type": "Switchover", "target": to }));
    assert_eq!(bed.settled("set"), Some(to));
    let steps = bed.object("myo", "move")["status"]["steps"].clone();
    assert_eq!((&steps[0]["name"], &steps[1]["name"]), (&json!("Begun"), &json!("Moved")));
    bed.wait_ready("set");

    let term = bed.status("set")["term"].as_u64().unwrap();
    let mut other = spec.clone();
    other["mysqlConf"]["max-connections"] = json!("120");
    bed.apply("set", &other);
    let has_it = |pod: &String| bed.sql("set", pod, "SELECT @@max_connections") == [["120"]];
    bed.wait("set", "has the option everywhere", || bed.pods("set").len() == 3 && bed.pods("set").iter().all(has_it));
    bed.wait_ready("set");
    assert_eq!(bed.status("set")["term"], term + 1, "the primary moves once");
    load.wait_more(5);
    assert_eq!(load.troubles(), troubles, "no client notices");
    other
}

#[test]
#[ignore = "two minutes"]
fn members_come_and_go_as_they_are_asked_to() {
    let _alone = alone();
    let bed = Bed::start();
    let (_, tls) = certificates::make(&bed);
    let mut spec = bed.create("set", &json!({ "topology": "semisync", "tls": tls }));
    bed.wait_ready("set");
    let proxy = proxy_of(&bed, "set");
    let load = Load::start(proxy.port(), 4);

    // The primary restarts alone; a follower gets other data and another identity.
    let primary = bed.settled("set").unwrap();
    let uid = bed.pod(&primary).uid().to_owned();
    operate(&bed, "again", &json!({ "cluster": "set", "type": "Restart", "target": primary }));
    assert_ne!(bed.pod(&primary).uid(), uid);
    assert_ne!(bed.settled("set"), Some(primary.clone()), "it moved before");
    bed.wait_ready("set");
    let uuid = |pod: &str| bed.sql("set", pod, "SELECT @@server_uuid");
    let before = uuid(&primary);
    operate(&bed, "anew", &json!({ "cluster": "set", "type": "Reclone", "target": primary }));
    assert_ne!(uuid(&primary), before);
    bed.wait_ready("set");

    // Fenced, the primary moves, and nobody gets in; let go, it follows.
    let fenced = bed.settled("set").unwrap();
    spec["fenced"] = json!([fenced]);
    bed.apply("set", &spec);
    bed.wait("set", "is moved off it", || bed.settled("set").is_some_and(|now| now != fenced));
    bed.wait("set", "keeps it fenced", || {
        bed.sql("set", &fenced, "SELECT @@offline_mode, @@super_read_only") == [["1", "1"]]
    });
    spec["fenced"] = json!([]);
    bed.apply("set", &spec);
    bed.wait_ready("set");
    operate(&bed, "all", &json!({ "cluster": "set", "type": "Restart" }));
    bed.wait_ready("set");

    a_late_follower_loses_its_label(&bed, &mut spec);

    // To five and back to two, the primary on the last of them.
    spec["replicas"] = json!(5);
    bed.apply("set", &spec);
    bed.wait("set", "has five members", || bed.pods("set").len() == 5 && bed.followers("set") == 4);
    operate(&bed, "up", &json!({ "cluster": "set", "type": "Switchover", "target": "set-mysql-4" }));
    spec["replicas"] = json!(2);
    bed.apply("set", &spec);
    bed.wait("set", "has two members", || bed.pods("set").len() == 2 && bed.followers("set") == 1);
    bed.wait_ready("set");
    bed.wait("set", "has two claims", || claims(&bed) == ["data-set-mysql-0", "data-set-mysql-1"]);

    let outcome = load.stop();
    println!("scaled, restarted, recloned, fenced: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    nothing_lost(&bed, "set", &outcome);
    assert_eq!(outcome.troubles, [], "no client notices any of it");
}
