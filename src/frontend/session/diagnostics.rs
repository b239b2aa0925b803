//! User variables that GET DIAGNOSTICS has set on the follower, where the diagnostics are, go to the primary's connection,
//! where user variables live.
//!
//! Reading them back would empty the diagnostics, so it waits for the first statement that does so anyway. A follower that
//! is lost before has taken them along, which the client is told.

use super::ClientSession;
use super::checkout::Unavailable;
use crate::classify::{Class, Classified, Flags, ItemType, assigned};
use crate::error::{ClientError, ErrorKind};
use crate::routing::Mode;
use crate::session::Slot;

/// More variables than this are not waited with.
const OWED_MAX: usize = 64;

/// Variables that are on one follower's connection only.
#[derive(Default)]
pub(super) struct Owed {
    /// That connection.
    epoch: u64,
    /// As they stand in the statement's text.
    variables: Vec<(Box<[u8]>, ItemType)>,
}

impl Owed {
    /// Nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }
}

impl ClientSession {
    /// True if `statement` is to set user variables by the follower's diagnostics.
    pub(super) fn reads_diagnostics_of_follower(&self, statement: Classified) -> bool {
        self.mode == Mode::Split
            && self.session.last() == Slot::Follower
            && statement.class == Class::Diagnostics
            && statement.flags.contains(Flags::USER_VARIABLE_WRITE)
    }

    /// Notes what a GET DIAGNOSTICS has set on the follower.
    pub(super) async fn owe(&mut self, sql: &[u8]) -> Result<(), Unavailable> {
        let Some(follower) = &self.follower else { return Ok(()) };
        self.owed.epoch = follower.epoch;
        for (variable, kind) in assigned(sql, self.session.dialect()) {
            self.owed.variables.retain(|(owed, _)| **owed != *variable);
            self.owed.variables.push((variable.into(), kind));
        }
        if self.owed.variables.len() > OWED_MAX { self.settle().await } else { Ok(()) }
    }

    /// True if `statement` empties the diagnostics behind variables that the primary's connection lacks.
    #[inline]
    pub(super) fn is_settling_due(&self, statement: Classified) -> bool {
        !self.owed.variables.is_empty() && statement.class != Class::Diagnostics
    }

    /// Sets on the primary's connection what the follower's has. Not cancel safe.
    pub(super) async fn settle(&mut self) -> Result<(), Unavailable> {
        let Owed { epoch, variables } = std::mem::take(&mut self.owed);
        let asked = match self.follower.as_mut().filter(|follower| follower.epoch == epoch) {
            Some(follower) => follower.row(&questions(&variables)).await.ok(),
            None => None,
        };
        let Some(set) = asked.and_then(|values| assignments(&variables, &values)) else { return Err(lost()) };
        // Lest the next GET DIAGNOSTICS that fails leave there what this one set.
        if self.session.transaction() != Some(Slot::Follower)
            && let Some(follower) = self.follower.as_mut()
            && follower.statement(forgetting(&variables)).await.is_err()
        {
            self.drop_connection(Slot::Follower, None);
        }
        if set.is_empty() {
            return Ok(());
        }
        let slot = self.checkout(Slot::Primary, self.hold_deadline()).await?;
        let told = match self.slot(slot) {
            Some(connection) => connection.statement(&set).await.is_ok(),
            None => false,
        };
        if told { Ok(()) } else { Err(lost()) }
    }
}

/// SELECT of the variables: numbers as they are, texts in hex and with their collation.
fn questions(variables: &[(Box<[u8]>, ItemType)]) -> Vec<u8> {
    let mut sql = b"SELECT ".to_vec();
    for (variable, kind) in variables {
        let parts: &[&[u8]] = match kind {
            ItemType::Signed | ItemType::Unsigned => &[variable, b","],
            ItemType::Text => &[b"HEX(", variable, b"),CHARSET(", variable, b"),COLLATION(", variable, b"),"],
        };
        parts.iter().for_each(|part| sql.extend_from_slice(part));
    }
    sql.pop();
    sql
}

/// SET of the same variables to `values`, nothing if all are NULL; none if these are not what was asked for.
fn assignments(variables: &[(Box<[u8]>, ItemType)], values: &[Option<bytes::Bytes>]) -> Option<Vec<u8>> {
    let plain = |word: &[u8]| word.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let mut values = values.iter();
    let mut next = || values.next().map(Option::as_deref).filter(|word| word.is_none_or(plain));
    let mut sql = Vec::new();
    for (variable, kind) in variables {
        let (value, character_set, collation) = match kind {
            ItemType::Text => (next()?, next()?, next()?),
            ItemType::Signed | ItemType::Unsigned => (next()?, None, None),
        };
        let parts: &[&[u8]] = match (value, kind) {
            // It never sets NULL: it failed, and the variable is what it was.
            (None, _) => continue,
            (Some(hex), ItemType::Text) => &[b"=_", character_set?, b" X'", hex, b"' COLLATE ", collation?, b","],
            (Some(number), ItemType::Signed) => &[b"=", number, b","],
            (Some(number), ItemType::Unsigned) => &[b"=CAST(", number, b" AS UNSIGNED),"],
        };
        sql.extend_from_slice(if sql.is_empty() { b"SET " } else { b"" });
        sql.extend_from_slice(variable);
        parts.iter().for_each(|part| sql.extend_from_slice(part));
    }
    sql.pop();
    Some(sql)
}

/// SET of all of them to NULL.
fn forgetting(variables: &[(Box<[u8]>, ItemType)]) -> Vec<u8> {
    let all: Vec<Vec<u8>> = variables.iter().map(|(variable, _)| [variable, &b"=NULL"[..]].concat()).collect();
    [b"SET ", &*all.join(&b","[..])].concat()
}

fn lost() -> Unavailable {
    let message =
        "holdfast: a follower went away and took what GET DIAGNOSTICS had set (user_variable) along; reconnect";
    Unavailable::Error(ClientError::new(ErrorKind::SessionStateLost, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn variables_are_asked_for_and_set_with_their_types() {
        let variables = [
            (b"@n"[..].into(), ItemType::Unsigned),
            (b"@r"[..].into(), ItemType::Signed),
            (b"@`t`"[..].into(), ItemType::Text),
        ];
        assert_eq!(questions(&variables), b"SELECT @n,@r,HEX(@`t`),CHARSET(@`t`),COLLATION(@`t`)");
        let values = [&b"2"[..], b"-1", b"41", b"utf8mb3", b"utf8mb3_general_ci"].map(|v| Some(Bytes::from_static(v)));
        let set = b"SET @n=CAST(2 AS UNSIGNED),@r=-1,@`t`=_utf8mb3 X'41' COLLATE utf8mb3_general_ci";
        assert_eq!(assignments(&variables, &values).as_deref(), Some(&set[..]));
        assert_eq!(assignments(&variables, &values[..3]), None);
        let nothing = [None, None, None, None, None];
        assert_eq!(assignments(&variables, &nothing).as_deref(), Some(&b""[..]));
        assert_eq!(forgetting(&variables), b"SET @n=NULL,@r=NULL,@`t`=NULL");
    }
}
