//! What a server has executed, as sets that can be compared: MySQL's GTID sets and MariaDB's GTID positions.
//!
//! Why: lag, "has this follower my last write" and "does that old primary hold anything the new one lacks" are all
//! questions of containment. Text comes from a server, so parsing refuses anything odd and never panics; how long a text
//! may be is the caller's limit.
//!
//! Sources: MySQL manual, "GTID Format and Storage" (tags since 8.3); MariaDB Knowledge Base, "Global Transaction ID".

mod intervals;
mod mariadb;
#[cfg(test)]
mod tests;

pub use mariadb::GtidPosition;

use intervals::Intervals;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What is wrong with a text that should be GTIDs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GtidError {
    /// A source id that is not 32 hexadecimal digits, with or without dashes.
    #[error("`{0}` is not a server UUID")]
    Uuid(String),
    /// A tag that is not a letter or `_` followed by at most 31 letters, digits or `_`.
    #[error("`{0}` is not a GTID tag")]
    Tag(String),
    /// Not `n` or `n-m` with 1 <= n <= m < 2^63.
    #[error("`{0}` is not a range of transaction numbers")]
    Interval(String),
    /// A source without any range behind it.
    #[error("`{0}` names no transactions")]
    Empty(String),
    /// Not `domain-server-sequence` (MariaDB).
    #[error("`{0}` is not a MariaDB GTID")]
    Position(String),
}

/// 16 bytes of a server's or group's UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl FromStr for Uuid {
    type Err = GtidError;

    /// Takes 32 hexadecimal digits in either case; dashes are optional, as in the server.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || GtidError::Uuid(text.chars().take(64).collect());
        let mut bytes = [0_u8; 16];
        let mut digits = 0;
        for c in text.chars().filter(|c| *c != '-') {
            let digit = c.to_digit(16).ok_or_else(bad)? as u8;
            let byte = bytes.get_mut(digits / 2).ok_or_else(bad)?;
            *byte = (*byte << 4) | digit;
            digits += 1;
        }
        if digits == 32 { Ok(Self(bytes)) } else { Err(bad()) }
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A MySQL GTID set: per source UUID and tag the transaction numbers, as sorted ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidSet {
    /// Never holds an entry without ranges. The untagged entry of a UUID has the tag "" and sorts first, as in MySQL.
    sources: BTreeMap<(Uuid, Box<str>), Intervals>,
}

impl GtidSet {
    /// No transaction at all?
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Is every transaction of `other` in this set? (`GTID_SUBSET(other, self)`)
    pub fn contains(&self, other: &Self) -> bool {
        other.sources.iter().all(|(source, theirs)| self.sources.get(source).is_some_and(|ours| ours.contains(theirs)))
    }

    /// The transactions of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut sources = self.sources.clone();
        for (source, theirs) in &other.sources {
            sources.entry(source.clone()).or_default().add_all(theirs);
        }
        Self { sources }
    }

    /// The transactions of this set that are not in `other`. (`GTID_SUBTRACT(self, other)`)
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let left = self.sources.iter().map(|(source, ours)| {
            let rest = other.sources.get(source).map_or_else(|| ours.clone(), |theirs| ours.subtract(theirs));
            (source.clone(), rest)
        });
        Self { sources: left.filter(|(_, rest)| !rest.is_empty()).collect() }
    }

    /// One transaction, without a tag.
    #[must_use]
    pub fn one(uuid: Uuid, number: u64) -> Self {
        let mut set = Self::default();
        set.sources.entry((uuid, Box::default())).or_default().add(number, number);
        set
    }

    /// Without the transactions that this server began.
    #[must_use]
    pub fn without(&self, server: Uuid) -> Self {
        let others = self.sources.iter().filter(|((uuid, _), _)| *uuid != server);
        Self { sources: others.map(|(source, ranges)| (source.clone(), ranges.clone())).collect() }
    }

    /// How many ranges it takes to write it down.
    pub fn pieces(&self) -> usize {
        self.sources.values().map(Intervals::pieces).sum()
    }

    /// How many transactions.
    pub fn count(&self) -> u64 {
        self.sources.values().map(Intervals::count).fold(0, u64::saturating_add)
    }
}

impl FromStr for GtidSet {
    type Err = GtidError;

    /// Reads `uuid[:tag]:n[-m]...,...`; the same source may come twice, white space (the server breaks lines behind commas)
    /// and empty parts between commas are skipped, ranges may overlap.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let uuid: Uuid = fields.next().unwrap_or_default().parse()?;
            let mut tag: Box<str> = "".into();
            let mut ranges = 0_usize;
            for field in fields {
                if field.starts_with(|c: char| c.is_ascii_digit()) {
                    let (first, last) = read_interval(field)?;
                    set.sources.entry((uuid, tag.clone())).or_default().add(first, last);
                    ranges += 1;
                } else {
                    tag = read_tag(field)?;
                    ranges = 0;
                }
            }
            if ranges == 0 {
                return Err(GtidError::Empty(part.chars().take(64).collect()));
            }
        }
        Ok(set)
    }
}

/// `n` or `n-m`.
fn read_interval(field: &str) -> Result<(u64, u64), GtidError> {
    let bad = || GtidError::Interval(field.chars().take(64).collect());
    let number = |text: &str| match text.trim() {
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse::<u64>().ok().filter(|n| (1..i64::MAX as u64).contains(n)).ok_or_else(bad)
        }
        _ => Err(bad()),
    };
    let (first, last) = match field.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(field)?, number(field)?),
    };
    if first <= last { Ok((first, last)) } else { Err(bad()) }
}

/// A tag in lower case, as the server keeps it.
fn read_tag(field: &str) -> Result<Box<str>, GtidError> {
    let known = field.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if field.is_empty() || field.len() > 32 || !known {
        return Err(GtidError::Tag(field.chars().take(64).collect()));
    }
    Ok(field.to_ascii_lowercase().into())
}

impl fmt::Display for GtidSet {
    /// As the server prints it, without its line breaks: `uuid:1-5:tag:1-3,uuid:7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Option<Uuid> = None;
        for ((uuid, tag), ranges) in &self.sources {
            if before != Some(*uuid) {
                let comma = if before.is_some() { "," } else { "" };
                write!(f, "{comma}{uuid}")?;
            }
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            write!(f, "{ranges}")?;
            before = Some(*uuid);
        }
        Ok(())
    }
}

/// What a server has executed, in its own family's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gtids {
    /// `@@global.gtid_executed`.
    MySql(GtidSet),
    /// `@@global.gtid_current_pos`.
    MariaDb(GtidPosition),
}

impl Gtids {
    /// Has a server at this point everything of `other`? Never, between the two families.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySql(ours), Self::MySql(theirs)) => ours.contains(theirs),
            (Self::MariaDb(ours), Self::MariaDb(theirs)) => ours.contains(theirs),
            (Self::MySql(_), Self::MariaDb(_)) | (Self::MariaDb(_), Self::MySql(_)) => false,
        }
    }

    /// What either has; `None` between the two families.
    #[must_use]
    pub fn union(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::MySql(ours), Self::MySql(theirs)) => Some(Self::MySql(ours.union(theirs))),
            (Self::MariaDb(ours), Self::MariaDb(theirs)) => Some(Self::MariaDb(ours.union(theirs))),
            (Self::MySql(_), Self::MariaDb(_)) | (Self::MariaDb(_), Self::MySql(_)) => None,
        }
    }

    /// Of this, what a server at `other` has, too; of a position the domains in which it is that far. `None` between the
    /// two families.
    #[must_use]
    pub fn common(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::MySql(ours), Self::MySql(theirs)) => Some(Self::MySql(ours.subtract(&ours.subtract(theirs)))),
            (Self::MariaDb(ours), Self::MariaDb(theirs)) => Some(Self::MariaDb(ours.subtract(&ours.subtract(theirs)))),
            (Self::MySql(_), Self::MariaDb(_)) | (Self::MariaDb(_), Self::MySql(_)) => None,
        }
    }

    /// How many ranges, or domains, it takes to write it down.
    pub fn pieces(&self) -> usize {
        match self {
            Self::MySql(set) => set.pieces(),
            Self::MariaDb(position) => position.domains(),
        }
    }

    /// Nothing executed at all?
    pub fn is_empty(&self) -> bool {
        match self {
            Self::MySql(set) => set.is_empty(),
            Self::MariaDb(position) => position.is_empty(),
        }
    }
}

impl fmt::Display for Gtids {
    /// As its server prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(set) => set.fmt(f),
            Self::MariaDb(position) => position.fmt(f),
        }
    }
}
