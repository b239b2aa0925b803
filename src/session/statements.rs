//! A session's prepared statements: ids are the proxy's own, each backend connection has its own for the same text.

use super::Slot;
use crate::classify::Classified;
use crate::types::StatementId;
use std::collections::HashMap;
use std::sync::Arc;

/// What one backend connection knows of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The backend's id.
    pub id: u32,
    /// Which connection: ids die with it.
    pub epoch: u64,
    /// Version of the parameter types it was last told; 0: none.
    pub types: u64,
}

/// One prepared statement.
#[derive(Debug)]
pub struct Statement {
    /// Its text.
    pub sql: Arc<[u8]>,
    /// What kind of statement it is.
    pub classified: Classified,
    /// The default schema when it was prepared.
    pub schema: Option<Box<[u8]>>,
    /// What of the session's state it was prepared under ([`super::Session::prepared_under`]).
    pub state: u64,
    /// Number of parameters.
    pub parameters: u16,
    /// Parameter types as last bound by the client, as they stand on the wire, with a version from 1 up.
    pub types: Option<(u64, Box<[u8]>)>,
    /// Long data was sent and waits for its execute: in this slot, on the connection with this epoch.
    pub long_data: Option<(Slot, u64)>,
    /// Where a cursor is open.
    pub cursor: Option<Slot>,
    /// The connections that have it prepared.
    pub remotes: [Option<Remote>; 2],
}

impl Statement {
    /// The statement on the connection `epoch` in `slot`, if it is prepared there.
    pub fn remote(&self, slot: Slot, epoch: u64) -> Option<Remote> {
        self.remotes[slot.index()].filter(|r| r.epoch == epoch)
    }

    /// Notes new parameter types.
    pub fn bind(&mut self, types: &[u8]) -> u64 {
        let version = match &self.types {
            Some((version, known)) if **known == *types => return *version,
            Some((version, _)) => version + 1,
            None => 1,
        };
        self.types = Some((version, types.into()));
        version
    }
}

/// The statements of one session, at most `max` of them.
#[derive(Debug)]
pub struct Statements {
    map: HashMap<StatementId, Statement>,
    next: u32,
    max: usize,
}

impl Statements {
    /// None yet.
    pub fn new(max: usize) -> Self {
        Self { map: HashMap::new(), next: 1, max }
    }

    /// True when another can't be added (server error 1461 has the same reason).
    pub fn is_full(&self) -> bool {
        self.map.len() >= self.max
    }

    /// The id that the next one will get.
    pub fn next_id(&self) -> StatementId {
        StatementId(self.next)
    }

    /// Adds one and answers its id.
    pub fn add(&mut self, statement: Statement) -> StatementId {
        let id = StatementId(self.next);
        self.next = self.next.checked_add(1).unwrap_or(1);
        self.map.insert(id, statement);
        id
    }

    /// The statement with this id; 0xFFFF_FFFF stands for the last one prepared (MariaDB).
    pub fn get(&mut self, id: StatementId) -> Option<&mut Statement> {
        self.map.get_mut(&self.resolve(id))
    }

    /// The statement, to look at.
    pub fn peek(&self, id: StatementId) -> Option<&Statement> {
        self.map.get(&self.resolve(id))
    }

    /// Is something of a statement on a connection that is not to be asked for elsewhere: a cursor, long data, a text that is not kept?
    pub fn is_held(&self) -> bool {
        self.map
            .values()
            .any(|statement| statement.cursor.is_some() || statement.long_data.is_some() || statement.sql.is_empty())
    }

    /// The follower's connection is the primary's now, with what is prepared there.
    pub fn follower_became_primary(&mut self) {
        for statement in self.map.values_mut() {
            let [primary, follower] = &mut statement.remotes;
            (*primary, *follower) = (follower.take(), None);
        }
    }

    /// Takes it out.
    pub fn remove(&mut self, id: StatementId) -> Option<Statement> {
        self.map.remove(&self.resolve(id))
    }

    /// The id that is meant: MariaDB's clients may say "the last one prepared".
    pub fn resolve(&self, id: StatementId) -> StatementId {
        if id.0 == u32::MAX { StatementId(self.next.wrapping_sub(1)) } else { id }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.map.clear();
    }
}
