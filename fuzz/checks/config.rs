//! What must hold for any configuration text. Shared by the fuzz target and the test that replays its corpus.

use holdfast::config::{ConfigError, check, parse};

/// A text is refused with at least one problem that has a place, or what `holdfast check` prints of it loads to the same
/// configuration.
pub fn check(data: &[u8]) {
    // What is no UTF-8 becomes a character of three bytes: most mutations would be lost if they were refused, and those
    // characters are what cutting text goes wrong on.
    let text = &*String::from_utf8_lossy(data);
    // Lines `#env NAME=value` become the environment.
    let env = || text.lines().filter_map(|line| line.strip_prefix("#env ")?.split_once('='));
    let env = || env().map(|(name, value)| (name.to_owned(), value.to_owned()));
    match parse(text, "fuzz.toml", env()) {
        Err(ConfigError::Invalid { problems, .. }) => {
            assert!(!problems.is_empty());
            let one_line = |message: &str| !message.is_empty() && !message.contains('\n');
            assert!(problems.iter().all(|problem| one_line(&problem.message)), "{problems:?}");
        }
        Err(error @ ConfigError::Unreadable { .. }) => panic!("{error}"),
        Ok(config) => {
            let described = check::describe(&config);
            let again = parse(&described, "described.toml", std::iter::empty());
            let mut again = again.unwrap_or_else(|error| panic!("{error}\n{described}"));
            for (cluster, original) in again.clusters.iter_mut().zip(&config.clusters) {
                cluster.account.password = original.account.password.clone();
            }
            assert_eq!(check::describe(&again), described);
        }
    }
}
