//! Sessions at random, each beside its model.

use super::chance::Chance;
use super::side::{Side, Step};
use super::words::{FOR_GOOD, step};

/// So many sessions, each beside its model, at once.
pub fn walk(ports: (u16, u16), sessions: usize, (steps, mode): (usize, &'static str), seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let all: Vec<_> = (0..sessions)
            .map(|n| tokio::task::spawn_local(session(ports, (n, mode == "split"), steps, seed)))
            .collect();
        for one in all {
            if let Err(error) = one.await {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    });
}

async fn session(ports: (u16, u16), (n, split): (usize, bool), steps: usize, seed: u64) {
    let mut chance = Chance(seed ^ (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut ours = Side::new(ports.0, format!("s{n}")).await;
    let mut model = Side::new(ports.1, format!("m{n}")).await;
    let (mut open, mut reset_in, mut told, mut went_well) = ([None; 4], None, Vec::new(), false);
    for _ in 0..steps {
        let binds = n == 0 && chance.below(40) == 0;
        let (mut step, pins) = step(&mut chance, &mut open, told.last().filter(|_| went_well));
        // What one server makes of DDL, and of SET autocommit, in a read-only transaction, a follower can't.
        if split && matches!(&step, Step::Text(sql) if sql.contains("READ ONLY")) {
            continue;
        }
        if reset_in == Some(0) {
            (step, reset_in, open) = (Step::Reset, None, [None; 4]);
        } else if binds {
            step = Step::Text(chance.pick(FOR_GOOD).to_owned());
        } else if pins && reset_in.is_none() {
            reset_in = Some(chance.below(6));
        } else {
            reset_in = reset_in.map(|left: usize| left.saturating_sub(1));
        }
        told.push(step.clone());
        let expected = model.take(&step).await;
        let answer = ours.take(&step).await;
        went_well = expected.starts_with("0 rows");
        if answer != expected {
            let last: Vec<String> = told.iter().rev().take(60).rev().map(|step| format!("  {step:?}")).collect();
            let same = answer.bytes().zip(expected.bytes()).take_while(|(one, other)| one == other).count();
            let from = |text: &str| text.chars().skip(same.saturating_sub(40)).take(120).collect::<String>();
            let (answer, expected) = (from(&answer), from(&expected));
            panic!("session {n}, step {}: …{answer}… instead of …{expected}… after\n{}", told.len(), last.join("\n"));
        }
        if let (Step::Prepare(slot, _), true) = (&step, expected.starts_with("1295 ") || expected.starts_with("1064 "))
        {
            open[*slot] = None;
        }
    }
}
