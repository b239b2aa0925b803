//! What befalls a cluster, at random: each fault alone, then back to Ready without a person, with nothing lost.

use super::bed::{Bed, NAMESPACE};
use super::proxy::Load;
use super::rng::{Rng, told_seed};
use super::{alone, nothing_lost, one_writer_per_term, proxy_of, story_is_whole};
use serde_json::json;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillPrimary,
    KillFollower,
    /// The primary and one more: of three, the one that is left has no majority.
    KillTwo,
    /// All but one, with what that one has not seen.
    LeaveOneBehind,
    KillAll,
    DeletePrimary,
    DeleteFollower,
    /// As if its node were lost and somebody said so: no SIGTERM, no grace.
    DropPrimary,
    FreezePrimary,
    FreezeFollower,
    CutPrimary,
    CutFollower,
    /// They reach everybody but each other.
    CutPrimaryFromFollower,
    /// Its disk is full until it has noticed.
    FillPrimary,
    FillFollower,
    /// It can't even start again until there is room.
    FillFollowerAndKill,
    KillReconciler,
    FreezeReconciler,
    KillPrimaryAndReconciler,
    /// The reconciler dies behind one of the steps that the death of the primary makes necessary.
    KillReconcilerInFailover,
    /// And behind one of those of a switchover.
    KillReconcilerInSwitchover,
    /// The primary dies while nobody can write anything down.
    KillPrimaryWithoutApi,
    KillFollowerWithoutApi,
    /// It takes requests and answers none.
    KillPrimaryWithApiFrozen,
}

use Fault::*;

const ALONE: [Fault; 12] = [
    KillPrimary,
    DeletePrimary,
    DropPrimary,
    FreezePrimary,
    CutPrimary,
    FillPrimary,
    KillReconciler,
    FreezeReconciler,
    KillPrimaryAndReconciler,
    KillReconcilerInFailover,
    KillPrimaryWithoutApi,
    KillPrimaryWithApiFrozen,
];

const TOGETHER: [Fault; 24] = [
    KillPrimary,
    KillFollower,
    KillTwo,
    LeaveOneBehind,
    KillAll,
    DeletePrimary,
    DeleteFollower,
    DropPrimary,
    FreezePrimary,
    FreezeFollower,
    CutPrimary,
    CutFollower,
    CutPrimaryFromFollower,
    FillPrimary,
    FillFollower,
    FillFollowerAndKill,
    KillReconciler,
    FreezeReconciler,
    KillPrimaryAndReconciler,
    KillReconcilerInFailover,
    KillReconcilerInSwitchover,
    KillPrimaryWithoutApi,
    KillFollowerWithoutApi,
    KillPrimaryWithApiFrozen,
];

/// A cluster under load, about to be harmed.
struct Victim<'a> {
    bed: &'a Bed,
    cluster: &'a str,
    topology: &'a str,
    load: &'a Load,
    primary: String,
    follower: String,
    round: u64,
}

impl Victim<'_> {
    fn wait(&self, what: &str, wanted: impl FnMut() -> bool) {
        self.bed.wait(self.cluster, what, wanted);
    }

    /// Until another is the primary; where there is no other, until it is missed.
    fn wait_moved(&self) {
        if self.topology == "standalone" {
            return self.wait_missed();
        }
        self.wait("has another primary", || self.bed.settled(self.cluster).is_some_and(|now| now != self.primary));
    }

    fn wait_missed(&self) {
        self.wait("misses it", || self.bed.condition(self.cluster, "Healthy")["status"] == "False");
    }

    /// Deletes a pod and waits for its successor: until then the next fault would be a second one at a time.
    fn delete(&self, pod: &str, grace_s: Option<u32>) {
        let uid = self.bed.pod(pod).uid().to_owned();
        self.bed.plane.delete_pod(NAMESPACE, pod, grace_s);
        self.wait("has a successor of it", || {
            self.bed.pods(self.cluster).iter().any(|p| p == pod) && self.bed.pod(pod).uid() != uid
        });
    }

    /// Fills its disk until its server says so, and does `meanwhile`; then there is room again.
    fn fill(&self, pod: &str, meanwhile: impl Fn()) {
        let running = self.bed.pod(pod);
        let before = running.disk_full();
        self.bed.fill(pod);
        self.wait("notices that its disk is full", || running.disk_full() > before);
        meanwhile();
        self.bed.free(pod);
    }

    /// Kills the reconciler as soon as it has done one of these steps, and starts it again.
    fn kill_reconciler_behind(&self, chance: &mut Rng, steps: &[&str], begin: impl Fn()) {
        let words = format!("done step={} ", chance.pick(steps));
        let count = || self.bed.log().matches(&words).count();
        let before = count();
        begin();
        // Not each of them is needed each time.
        self.wait("does that step or does without", || count() > before || self.moved());
        self.bed.kill_reconciler();
        self.bed.run_reconciler();
    }

    fn moved(&self) -> bool {
        self.bed.settled(self.cluster).is_some_and(|now| now != self.primary || self.topology == "standalone")
    }

    fn without_api(&self, pod: &str) {
        self.bed.plane.kill_api();
        self.bed.pod(pod).kill9();
        self.bed.wait_log("roles stay as they are");
        self.bed.plane.start_api();
    }

    fn inflict(&self, fault: Fault, chance: &mut Rng) {
        let bed = self.bed;
        let (primary, follower) = (bed.pod(&self.primary), bed.pod(&self.follower));
        match fault {
            KillPrimary => primary.kill9(),
            KillFollower => follower.kill9(),
            KillTwo => {
                primary.kill9();
                follower.kill9();
            }
            LeaveOneBehind => {
                follower.network().cut_off();
                self.load.wait_more(3);
                let others = bed.pods(self.cluster).into_iter().filter(|pod| *pod != self.follower);
                others.for_each(|pod| bed.pod(&pod).kill9());
                follower.network().join();
            }
            KillAll => bed.pods(self.cluster).iter().for_each(|pod| bed.pod(pod).kill9()),
            DeletePrimary => self.delete(&self.primary, None),
            DeleteFollower => self.delete(&self.follower, None),
            DropPrimary => self.delete(&self.primary, Some(0)),
            FreezePrimary => {
                primary.freeze();
                self.wait_moved();
                primary.thaw();
            }
            FreezeFollower => {
                follower.freeze();
                self.wait_missed();
                follower.thaw();
            }
            CutPrimary => {
                primary.network().cut_off();
                self.wait_moved();
                primary.network().join();
            }
            CutFollower => {
                follower.network().cut_off();
                self.wait_missed();
                follower.network().join();
            }
            CutPrimaryFromFollower => {
                primary.network().cut_from(follower.network());
                self.wait_missed();
                primary.network().join_with(follower.network());
            }
            // Until the reconciler has noticed, too: what it does then is part of this fault and not of the next one.
            FillPrimary => self.fill(&self.primary, || self.wait_missed()),
            FillFollower => self.fill(&self.follower, || self.load.wait_more(3)),
            FillFollowerAndKill => self.fill(&self.follower, || {
                follower.kill9();
                self.load.wait_more(3);
                self.wait_missed();
            }),
            KillReconciler => {
                bed.kill_reconciler();
                bed.run_reconciler();
            }
            FreezeReconciler => {
                bed.freeze_reconciler();
                self.load.wait_more(20);
                bed.thaw_reconciler();
            }
            KillPrimaryAndReconciler => {
                primary.kill9();
                bed.kill_reconciler();
                bed.run_reconciler();
            }
            KillReconcilerInFailover => {
                let steps: &[&str] = match self.topology {
                    "group" => &["claim", "announce", "settle", "unlabel"],
                    _ => &["stop_receiver", "claim", "announce", "unlabel", "settle", "promote", "follow"],
                };
                self.kill_reconciler_behind(chance, steps, || primary.kill9());
            }
            KillReconcilerInSwitchover => {
                let steps: &[&str] = match self.topology {
                    "group" => &["elect", "claim", "announce", "settle", "unlabel"],
                    _ => &["claim", "unlabel", "fence", "catch_up", "announce", "settle", "promote", "follow"],
                };
                let name = format!("switch-{}", self.round);
                let spec = json!({ "cluster": self.cluster, "type": "Switchover", "target": self.follower });
                self.kill_reconciler_behind(chance, steps, || bed.ask(&name, &spec));
                self.wait("is done with it", || {
                    let phase = bed.object("myo", &name)["status"]["phase"].clone();
                    phase == "Complete" || phase == "Failed"
                });
            }
            KillPrimaryWithoutApi => self.without_api(&self.primary),
            KillFollowerWithoutApi => self.without_api(&self.follower),
            KillPrimaryWithApiFrozen => {
                bed.plane.api_server().freeze();
                primary.kill9();
                bed.wait_log("roles stay as they are");
                bed.plane.api_server().thaw();
            }
        }
    }
}

/// The kinds that are to be: all, or those that HOLDFAST_FAULTS names, with commas between.
fn kinds(topology: &str) -> Vec<Fault> {
    let all: &[Fault] = if topology == "standalone" { &ALONE } else { &TOGETHER };
    let named = std::env::var("HOLDFAST_FAULTS").unwrap_or_default();
    let wanted = |fault: &&Fault| named.is_empty() || named.split(',').any(|name| name == format!("{fault:?}"));
    all.iter().filter(wanted).copied().collect()
}

/// What was acknowledged until now is on the primary, as soon as that answers: it may be changing just now, for a full disk is
/// noticed by its server first and by the reconciler then.
fn nothing_lost_yet(bed: &Bed, cluster: &str, load: &Load) {
    let acknowledged = load.writes();
    let all = "SELECT COUNT(*) FROM app.`load` GROUP BY client ORDER BY client";
    let mut there: Vec<u64> = Vec::new();
    let has_all = || {
        let rows = bed.sql(cluster, &bed.primary(cluster), all);
        there = rows.iter().map(|row| row[0].parse().expect("a number")).collect();
        there.len() == acknowledged.len() && there.iter().zip(&acknowledged).all(|(there, told)| there >= told)
    };
    let done = catch_unwind(AssertUnwindSafe(|| bed.wait(cluster, "has all that was acknowledged", has_all)));
    assert!(done.is_ok(), "{there:?}, told {acknowledged:?}");
}

/// So many faults, one after the other.
fn random(bed: &Bed, (cluster, topology): (&str, &str), load: &Load, rounds: u64) {
    let seed = told_seed();
    let mut chance = Rng::new(seed);
    let mut seen: BTreeMap<Fault, u64> = BTreeMap::new();
    let kinds = kinds(topology);
    for round in 0..rounds {
        let fault = chance.pick(&kinds);
        let began = std::time::Instant::now();
        let primary = bed.primary(cluster);
        let others: Vec<String> = bed.pods(cluster).into_iter().filter(|pod| *pod != primary).collect();
        let follower = if others.is_empty() { primary.clone() } else { others[chance.below(2) as usize].clone() };
        println!("{round}: {fault:?}, {primary} and {follower}");
        let victim = Victim { bed, cluster, topology, load, primary, follower, round };
        let done = catch_unwind(AssertUnwindSafe(|| {
            victim.inflict(fault, &mut chance);
            bed.wait_whole(cluster);
            load.wait_more(3);
            nothing_lost_yet(bed, cluster, load);
            one_writer_per_term(bed, cluster);
        }));
        assert!(done.is_ok(), "round {round}, {fault:?}, HOLDFAST_SEED={seed}, seen {seen:?}\n{}", bed.log());
        println!("{round}: {fault:?}: whole again after {:?}, term {}", began.elapsed(), bed.status(cluster)["term"]);
        *seen.entry(fault).or_default() += 1;
    }
    println!("{rounds} faults, HOLDFAST_SEED={seed}: {seen:?}");
}

/// As many random faults as HOLDFAST_ROUNDS says.
fn random_faults(topology: &str, rounds: u64) {
    let _alone = alone();
    let bed = Bed::start_with(Some(600));
    let replicas = if topology == "standalone" { 1 } else { 3 };
    bed.create("db", &json!({ "topology": topology, "autoReclone": true, "replicas": replicas }));
    bed.wait_ready("db");
    let proxy = proxy_of(&bed, "db");
    let load = Load::start(proxy.port(), 4);
    let rounds = std::env::var("HOLDFAST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(rounds);
    random(&bed, ("db", topology), &load, rounds);
    let outcome = load.stop();
    println!("{rounds} faults, {topology}: {:?}, longest wait {:?}", outcome.codes(), outcome.longest);
    nothing_lost(&bed, "db", &outcome);
    one_writer_per_term(&bed, "db");
    story_is_whole(&bed, "db");
}

/// `HOLDFAST_ROUNDS=100 cargo test --test reconcile_kubernetes hundred_random_faults_in_a_set -- --include-ignored --nocapture`
#[test]
#[ignore = "half an hour; HOLDFAST_ROUNDS says how many, HOLDFAST_SEED which"]
fn a_hundred_random_faults_in_a_set() {
    random_faults("semisync", 100);
}

/// The same with `hundred_random_faults_in_a_group`.
#[test]
#[ignore = "half an hour; HOLDFAST_ROUNDS says how many, HOLDFAST_SEED which"]
fn a_hundred_random_faults_in_a_group() {
    random_faults("group", 100);
}

/// The same with `hundred_random_faults_alone`: nobody takes over, but what was acknowledged is there when it is back.
#[test]
#[ignore = "half an hour; HOLDFAST_ROUNDS says how many, HOLDFAST_SEED which"]
fn a_hundred_random_faults_alone() {
    random_faults("standalone", 100);
}
