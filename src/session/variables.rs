//! System variables a session has set, as the servers' session tracking reports them, and what a connection still lacks.

use super::{Pin, Slot};

/// Variables whose value can't be set on another connection with the same meaning: a session that set one reads on the
/// primary's connection from then on.
const UNREPLAYABLE: [&[u8]; 8] = [
    b"timestamp",
    b"rand_seed1",
    b"rand_seed2",
    b"profiling",
    b"pseudo_thread_id",
    b"pseudo_slave_mode",
    b"pseudo_replica_mode",
    b"use_secondary_engine",
];

/// Variables that matter to writes only, or to the proxy's own connection: never carried to another connection.
const LOCAL: [&[u8]; 13] = [
    b"insert_id",
    b"last_insert_id",
    b"identity",
    b"gtid_next",
    b"gtid_seq_no",
    b"gtid_domain_id",
    b"sql_log_bin",
    b"session_track_system_variables",
    b"autocommit",
    b"last_gtid",
    b"statement_id",
    b"original_commit_timestamp",
    b"wsrep_on",
];

/// Is it a variable whose value says how the next writes on this very connection are to be made?
pub(super) fn is_local(name: &[u8]) -> bool {
    const TOLD: [&[u8]; 6] = [
        b"last_insert_id",
        b"identity",
        b"session_track_system_variables",
        b"autocommit",
        b"last_gtid",
        b"statement_id",
    ];
    LOCAL.contains(&name) && !TOLD.contains(&name)
}

/// A variable with its value and when it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Name in lower case.
    pub name: Box<[u8]>,
    /// Value as the server printed it.
    pub value: Box<[u8]>,
    version: u64,
}

impl Set {
    /// One that was set at no time in particular.
    pub fn new(name: &[u8], value: &[u8]) -> Self {
        Self { name: name.into(), value: value.into(), version: 0 }
    }

    /// Was it set after that version?
    pub fn is_newer_than(&self, version: u64) -> bool {
        self.version > version
    }
}

/// The variables set since login, with a version that grows at each change.
#[derive(Debug, Default)]
pub struct Variables {
    set: Vec<Set>,
    version: u64,
    /// SET NAMES may have changed collation_connection without reporting it: ask the connection that ran it.
    collation_unknown: Option<Slot>,
}

impl Variables {
    /// Grows at each change; a connection that has this version lacks nothing.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The follower's connection is the primary's now.
    pub fn follower_became_primary(&mut self) {
        self.collation_unknown = self.collation_unknown.map(|_| Slot::Primary);
    }

    /// The value of a variable that was set since login; `name` in lower case.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.set.iter().find(|v| &*v.name == name).map(|v| &*v.value)
    }

    /// Notes a variable that `slot` reported; answers the pin it brings, if any.
    pub fn set(&mut self, slot: Slot, name: &[u8], value: &[u8]) -> Option<Pin> {
        if UNREPLAYABLE.contains(&name) {
            return Some(Pin::Variable);
        }
        if LOCAL.contains(&name) {
            return None;
        }
        match name {
            b"character_set_connection" => self.collation_unknown = Some(slot),
            b"collation_connection" => {
                self.collation_unknown = None;
                // The servers set it too and do not say so.
                let end = value.iter().position(|byte| *byte == b'_').unwrap_or(value.len());
                self.put(b"character_set_connection", &value[..end]);
            }
            _ => {}
        }
        self.put(name, value);
        None
    }

    fn put(&mut self, name: &[u8], value: &[u8]) {
        self.version += 1;
        let version = self.version;
        // Set again: it moves to the end, so that the order of the last settings is kept.
        self.set.retain(|v| &*v.name != name);
        self.set.push(Set { name: name.into(), value: value.into(), version });
    }

    /// Where collation_connection has to be asked for before it can be carried on.
    pub fn collation_unknown(&self) -> Option<Slot> {
        self.collation_unknown
    }

    /// What a connection that is at `version` lacks, in the order it was set.
    pub fn lacking(&self, version: u64) -> impl Iterator<Item = &Set> {
        self.set.iter().filter(move |v| v.version > version)
    }

    /// As after login. The version still grows, so that no connection takes itself for current.
    pub fn clear(&mut self) {
        self.set.clear();
        self.collation_unknown = None;
        self.version += 1;
    }
}

/// True if `value` may stand in SQL without quotes as a number.
pub fn numeric(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    !digits.is_empty()
        && digits[0].is_ascii_digit()
        && digits.iter().all(|b| b.is_ascii_digit() || *b == b'.')
        && digits.iter().filter(|b| **b == b'.').count() <= 1
}
