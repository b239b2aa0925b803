//! \[pure\] MariaDB's GTID positions: per replication domain the last transaction, `domain-server-sequence`.
//!
//! A position says how far a server is in each domain's one order of transactions; it cannot show holes, and not whether
//! two servers that wrote in the same domain at once have diverged. Nobody may take [`GtidPosition::contains`] as proof
//! that nothing would be lost; for lag it is right.

use super::GtidError;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// `@@gtid_current_pos` and its kin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidPosition {
    /// Domain to (server id, sequence number) of its last transaction.
    domains: BTreeMap<u32, (u32, u64)>,
}

impl GtidPosition {
    /// No transaction in any domain?
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// How many domains.
    pub fn domains(&self) -> usize {
        self.domains.len()
    }

    /// Is this position at or behind `other`'s in every domain of `other`? The same number from another server is not the
    /// same transaction.
    pub fn contains(&self, other: &Self) -> bool {
        other.domains.iter().all(|(domain, (server, sequence))| {
            self.domains.get(domain).is_some_and(|(ours, at)| at > sequence || (at == sequence && ours == server))
        })
    }

    /// The further position in each domain.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut domains = self.domains.clone();
        for (domain, theirs) in &other.domains {
            let ours = domains.entry(*domain).or_insert(*theirs);
            if theirs.1 > ours.1 {
                *ours = *theirs;
            }
        }
        Self { domains }
    }

    /// The domains in which this position is ahead of `other`'s, with this position's transactions.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let ahead = |(domain, ours): (&u32, &(u32, u64))| {
            let one = Self { domains: BTreeMap::from([(*domain, *ours)]) };
            (!other.contains(&one)).then_some((*domain, *ours))
        };
        Self { domains: self.domains.iter().filter_map(ahead).collect() }
    }
}

impl FromStr for GtidPosition {
    type Err = GtidError;

    /// Reads `domain-server-sequence,...`; of several entries of a domain (`@@gtid_binlog_state`) the furthest counts.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut position = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let bad = || GtidError::Position(part.chars().take(64).collect());
            if !part.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
                return Err(bad());
            }
            let mut fields = part.split('-');
            let (Some(domain), Some(server), Some(sequence), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(bad());
            };
            let domain = domain.parse().map_err(|_| bad())?;
            let gtid = (server.parse().map_err(|_| bad())?, sequence.parse().map_err(|_| bad())?);
            position = position.union(&Self { domains: BTreeMap::from([(domain, gtid)]) });
        }
        Ok(position)
    }
}

impl fmt::Display for GtidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (domain, (server, sequence))) in self.domains.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{domain}-{server}-{sequence}")?;
        }
        Ok(())
    }
}
