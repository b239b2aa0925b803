//! \[pure\] Prepared statements on one shared connection: which the server has, who has told it parameter types, and which
//! goes when there are too many.
//!
//! Statements of the same text, prepared under the same state, are one. One whose cursor is open, or that has been sent
//! long data, is its session's alone ([`Handles::keep_apart`]) until the connection is given back.

use std::collections::HashMap;
use std::sync::Arc;

/// Who told the server which parameter types: session, statement, version of the types.
pub type Told = (u32, u32, u64);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    sql: Arc<[u8]>,
    state: u64,
}

#[derive(Debug)]
struct Handle {
    key: Key,
    told: Option<Told>,
    used: u64,
    /// Whose alone it is.
    apart: Option<u32>,
}

/// What is prepared on one connection.
#[derive(Debug, Default)]
pub struct Handles {
    by_id: HashMap<u32, Handle>,
    by_key: HashMap<Key, u32>,
    clock: u64,
}

impl Handles {
    /// The server's id of this text, prepared under this state.
    pub fn find(&mut self, sql: &Arc<[u8]>, state: u64) -> Option<u32> {
        let id = *self.by_key.get(&Key { sql: Arc::clone(sql), state })?;
        self.use_now(id);
        Some(id)
    }

    /// True while the server has a statement of this id that `statement` may use.
    pub fn has(&self, id: u32, statement: u32) -> bool {
        self.by_id.get(&id).is_some_and(|handle| handle.apart.is_none_or(|owner| owner == statement))
    }

    /// The server has one more. Answers the ids that it is to close: one of the same text, and the one that was not used
    /// for longest if there are more than `max`.
    pub fn add(&mut self, id: u32, sql: &Arc<[u8]>, state: u64, max: usize) -> Vec<u32> {
        let key = Key { sql: Arc::clone(sql), state };
        let mut close: Vec<u32> = self.by_key.insert(key.clone(), id).into_iter().collect();
        for id in &close {
            self.by_id.remove(id);
        }
        self.by_id.insert(id, Handle { key, told: None, used: 0, apart: None });
        self.use_now(id);
        while self.by_id.len() > max {
            let spare = self.by_id.iter().filter(|(other, handle)| handle.apart.is_none() && **other != id);
            let Some(oldest) = spare.min_by_key(|(_, handle)| handle.used).map(|(id, _)| *id) else { break };
            self.remove(oldest);
            close.push(oldest);
        }
        close
    }

    /// Who told the server parameter types last.
    pub fn told(&self, id: u32) -> Option<Told> {
        self.by_id.get(&id)?.told
    }

    /// Notes who did.
    pub fn tell(&mut self, id: u32, told: Told) {
        if let Some(handle) = self.by_id.get_mut(&id) {
            handle.told = Some(told);
        }
    }

    /// Nothing but `statement` is to use it.
    pub fn keep_apart(&mut self, id: u32, statement: u32) {
        if let Some(handle) = self.by_id.get_mut(&id) {
            handle.apart = Some(statement);
            if self.by_key.get(&handle.key) == Some(&id) {
                self.by_key.remove(&handle.key);
            }
        }
    }

    /// True for one that nobody else uses.
    pub fn is_apart(&self, id: u32) -> bool {
        self.by_id.get(&id).is_some_and(|handle| handle.apart.is_some())
    }

    /// The server has it no more.
    pub fn remove(&mut self, id: u32) {
        if let Some(handle) = self.by_id.remove(&id)
            && self.by_key.get(&handle.key) == Some(&id)
        {
            self.by_key.remove(&handle.key);
        }
    }

    /// Takes out those that were kept apart; the server is to close them.
    pub fn take_apart(&mut self) -> Vec<u32> {
        let apart: Vec<u32> =
            self.by_id.iter().filter(|(_, handle)| handle.apart.is_some()).map(|(id, _)| *id).collect();
        apart.iter().for_each(|id| self.remove(*id));
        apart
    }

    /// Takes out all that can be spared; the server is to close them.
    pub fn take_spare(&mut self) -> Vec<u32> {
        let spare: Vec<u32> =
            self.by_id.iter().filter(|(_, handle)| handle.apart.is_none()).map(|(id, _)| *id).collect();
        spare.iter().for_each(|id| self.remove(*id));
        spare
    }

    /// The server has forgotten all.
    pub fn clear(&mut self) {
        self.by_id.clear();
        self.by_key.clear();
    }

    fn use_now(&mut self, id: u32) {
        self.clock += 1;
        if let Some(handle) = self.by_id.get_mut(&id) {
            handle.used = self.clock;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str) -> Arc<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn the_same_text_is_one_statement_and_the_longest_unused_goes() {
        let mut handles = Handles::default();
        assert!(handles.add(1, &sql("SELECT ?"), 0, 2).is_empty());
        assert!(handles.add(2, &sql("SELECT ?"), 9, 2).is_empty(), "under another state it means something else");
        assert_eq!(handles.find(&sql("SELECT ?"), 0), Some(1));
        assert_eq!(handles.add(3, &sql("DO ?"), 0, 2), [2]);
        assert_eq!((handles.has(1, 7), handles.has(2, 7), handles.has(3, 7)), (true, false, true));
        assert_eq!(handles.add(4, &sql("DO ?"), 0, 2), [3], "prepared again");
        assert_eq!(handles.find(&sql("DO ?"), 0), Some(4));
    }

    #[test]
    fn one_that_is_kept_apart_is_nobody_elses_and_never_goes_for_another() {
        let mut handles = Handles::default();
        handles.add(1, &sql("SELECT ?"), 0, 1);
        handles.keep_apart(1, 7);
        assert_eq!(handles.find(&sql("SELECT ?"), 0), None);
        assert!(handles.add(2, &sql("SELECT ?"), 0, 1).is_empty());
        assert!(handles.has(1, 7) && !handles.has(1, 8) && handles.is_apart(1) && !handles.is_apart(2));
        assert_eq!(handles.take_apart(), [1]);
        assert_eq!(handles.find(&sql("SELECT ?"), 0), Some(2));
        assert_eq!(handles.take_spare(), [2]);
        assert_eq!(handles.find(&sql("SELECT ?"), 0), None);
    }

    #[test]
    fn types_are_those_of_who_told_them_last() {
        let mut handles = Handles::default();
        handles.add(1, &sql("SELECT ?"), 0, 1);
        assert_eq!(handles.told(1), None);
        handles.tell(1, (7, 1, 2));
        assert_eq!(handles.told(1), Some((7, 1, 2)));
    }
}
