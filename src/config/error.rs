//! What is wrong with a configuration, as the operator reads it.
//!
//! All problems of a file are collected, so that one look at the message is enough for one edit.
//! Values are quoted in messages; passwords never are.

use std::fmt;
use std::path::PathBuf;

/// At most so many problems are printed; the rest is only counted.
const PROBLEMS_SHOWN_MAX: usize = 50;

/// Why a configuration was refused. `Display` is the whole text for the operator, one problem per
/// line, each beginning with `file:line:`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read at all.
    #[error("{}: cannot be read: {why}", file.display())]
    Unreadable {
        /// The path as it was given.
        file: PathBuf,
        /// The operating system's reason, or the limit that was passed.
        why: String,
    },
    /// The file was read and is not a valid configuration.
    #[error("{}", Listing(file, problems))]
    Invalid {
        /// The file's name as it was given.
        file: String,
        /// At least one, in the order of the file, then those of the environment.
        problems: Vec<Problem>,
    },
}

/// One problem: where and what, with what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where the value came from.
    pub at: At,
    /// What is wrong and what to write instead; one line.
    pub message: String,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// A line of the file, from 1.
    Line(usize),
    /// An environment variable.
    Env(String),
}

struct Listing<'a>(&'a str, &'a [Problem]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(file, problems) = self;
        for (i, problem) in problems.iter().take(PROBLEMS_SHOWN_MAX).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            match &problem.at {
                At::Line(line) => write!(f, "{file}:{line}: {}", problem.message)?,
                At::Env(name) => write!(f, "environment variable {name}: {}", problem.message)?,
            }
        }
        match problems.len().saturating_sub(PROBLEMS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n{file}: and {more} more problems"),
        }
    }
}
