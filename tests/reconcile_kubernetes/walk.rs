//! A reconciler that dies behind every one of its steps.
//!
//! Behind whatever it has done for the first time (a step of its plan, an object applied, a pod or a claim deleted, an
//! operation taken further) it dies at once and is started again; so each pair of neighbouring steps has a death between them,
//! and each life does little more than one. Then the cluster must be where one life would have brought it.

use super::bed::Bed;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long all lives together may take.
const TOGETHER: Duration = Duration::from_secs(400);

/// [`walk_sparing`] that spares nothing.
pub fn walk(bed: &Bed, what: &str, begin: impl FnOnce(), is_done: impl FnMut() -> bool) -> BTreeSet<String> {
    walk_sparing(bed, (what, &[]), begin, is_done)
}

/// Does `begin` under a reconciler that dies behind each step, until `is_done`, but for those that begin with
/// what is spared; the steps.
pub fn walk_sparing(
    bed: &Bed,
    (what, spared): (&str, &[&str]),
    begin: impl FnOnce(),
    mut is_done: impl FnMut() -> bool,
) -> BTreeSet<String> {
    let file = bed.log_file().with_file_name("died-behind");
    std::fs::write(&file, spared.iter().map(|begin| format!("{begin}*\n")).collect::<String>())
        .expect("the folder is writable");
    bed.kill_reconciler();
    bed.run_mortal_reconciler(&file);
    let began = Instant::now();
    begin();
    let steps = || std::fs::read_to_string(&file).unwrap_or_default().lines().map(str::to_owned).collect();
    let mut looked = Instant::now();
    loop {
        if !bed.reconciler_runs() {
            bed.run_mortal_reconciler(&file);
            looked = Instant::now();
        } else if looked.elapsed() > Duration::from_millis(300) {
            if is_done() {
                break;
            }
            looked = Instant::now();
        }
        let seen: BTreeSet<String> = steps();
        assert!(began.elapsed() < TOGETHER, "{what}: not done after {seen:#?}\n{}", bed.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let seen: BTreeSet<String> = steps();
    println!("{what}: {} deaths in {:?}: {seen:?}", seen.len(), began.elapsed());
    // What comes then is not to be walked through.
    bed.kill_reconciler();
    bed.run_reconciler();
    seen
}
