//! Dying at the worst moments, for tests; not in release builds.
//!
//! A reconciler under test dies behind each of its steps once: with `HOLDFAST_DIE_BEHIND=FILE` behind the first one that the
//! file does not list yet (`*` stands for any end), which it lists before. Whoever starts it again and again sees a death between each two steps.

/// The step is done: dies now, if it is to. (Blocks to write one line, and then it is dead.)
#[cfg(debug_assertions)]
pub fn behind(step: impl std::fmt::Display) {
    use std::io::Write;
    let Some(file) = std::env::var_os("HOLDFAST_DIE_BEHIND") else { return };
    let step = step.to_string();
    let is_it = |line: &str| line == step || line.strip_suffix('*').is_some_and(|begin| step.starts_with(begin));
    if std::fs::read_to_string(&file).unwrap_or_default().lines().any(is_it) {
        return;
    }
    let listed = std::fs::File::options().create(true).append(true).open(&file);
    if listed.is_ok_and(|mut file| writeln!(file, "{step}").is_ok()) {
        std::process::abort();
    }
}

/// Nothing, in release builds.
#[cfg(not(debug_assertions))]
pub fn behind(_: impl std::fmt::Display) {}
