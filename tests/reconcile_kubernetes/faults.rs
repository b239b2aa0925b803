//! What befalls a cluster, at random: each fault alone, then back to Ready without a person, with nothing lost.

use super::bed::{Bed, NAMESPACE};
use super::proxy::Load;
use super::rng::{Rng, told_seed};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillPrimary,
    KillFollower,
    KillAll,
    DeletePrimary,
    DeleteFollower,
    FreezePrimary,
    CutPrimary,
    CutFollower,
    KillReconciler,
    KillPrimaryAndReconciler,
    /// The primary dies while nobody can write anything down.
    KillPrimaryWithoutApi,
}

use Fault::*;

const FAULTS: [Fault; 11] = [
    KillPrimary,
    KillFollower,
    KillAll,
    DeletePrimary,
    DeleteFollower,
    FreezePrimary,
    CutPrimary,
    CutFollower,
    KillReconciler,
    KillPrimaryAndReconciler,
    KillPrimaryWithoutApi,
];

/// Deletes a pod and waits for its successor: until then the next fault would be a second one at a time.
fn delete(bed: &Bed, cluster: &str, pod: &str) {
    let uid = bed.pod(pod).uid().to_owned();
    bed.plane.delete_pod(NAMESPACE, pod, None);
    bed.wait(cluster, "has a successor of it", || {
        bed.pods(cluster).iter().any(|p| p == pod) && bed.pod(pod).uid() != uid
    });
}

fn inflict(fault: Fault, bed: &Bed, cluster: &str, load: &Load) {
    let name = bed.primary(cluster);
    let (pods, primary) = (bed.pods(cluster), bed.pod(&name));
    let follower = pods.iter().find(|pod| **pod != name).expect("more than one").clone();
    let moved = || bed.wait(cluster, "has another primary", || bed.settled(cluster).is_some_and(|now| now != name));
    match fault {
        KillPrimary => primary.kill9(),
        KillFollower => bed.pod(&follower).kill9(),
        KillAll => pods.iter().for_each(|pod| bed.pod(pod).kill9()),
        DeletePrimary => delete(bed, cluster, &name),
        DeleteFollower => delete(bed, cluster, &follower),
        FreezePrimary => {
            primary.freeze();
            moved();
            primary.thaw();
        }
        CutPrimary => {
            primary.network().cut_off();
            moved();
            primary.network().join();
        }
        CutFollower => {
            bed.pod(&follower).network().cut_off();
            bed.wait(cluster, "misses it", || bed.condition(cluster, "Healthy")["status"] == "False");
            bed.pod(&follower).network().join();
        }
        KillReconciler => {
            bed.kill_reconciler();
            bed.run_reconciler();
        }
        KillPrimaryAndReconciler => {
            primary.kill9();
            bed.kill_reconciler();
            bed.run_reconciler();
        }
        KillPrimaryWithoutApi => {
            bed.plane.kill_api();
            primary.kill9();
            bed.wait_log("roles stay as they are");
            bed.plane.start_api();
        }
    }
    load.wait_more(3);
    bed.wait_ready(cluster);
}

/// So many faults, one after the other.
pub fn random(bed: &Bed, cluster: &str, load: &Load, rounds: u64) {
    let seed = told_seed();
    let mut chance = Rng::new(seed);
    for round in 0..rounds {
        let fault = chance.pick(&FAULTS);
        let began = std::time::Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| inflict(fault, bed, cluster, load)));
        assert!(done.is_ok(), "round {round}, {fault:?}, HOLDFAST_SEED={seed}");
        println!("{round}: {fault:?}: Ready again after {:?}, term {}", began.elapsed(), bed.status(cluster)["term"]);
    }
}
