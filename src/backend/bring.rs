//! Bringing a connection to a session's state: by difference, never by guess.
//!
//! A connection remembers which version of the session's variables it has, its schema and its options. [`bring`] sends
//! what is missing: nothing when nothing is, one multi-assignment SET (answer awaited) otherwise. It refuses values it can't
//! write safely; the caller then keeps the session's reads on the primary.
//!
//! A shared connection that comes from another session has that one's variables. What the two have in common stays; what
//! this one has not set goes back to what the login had set: as reported then, else DEFAULT. Where that can't be known
//! (`init_connect` may have set anything) or is refused, the connection is not for this session ([`BringError::Foreign`]).
//!
//! [`bring`]: BackendConnection::bring

use super::connection::{BackendConnection, BringError, accepted};
use crate::session::{Session, Set, Slot, numeric};
use crate::wire::command::Answer;
use crate::wire::session_track::Ok as OkPacket;
use std::rc::Rc;

/// What SET NAMES sets.
const NAMES: [&[u8]; 4] =
    [b"character_set_client", b"character_set_results", b"character_set_connection", b"collation_connection"];

/// Their DEFAULT is OFF where it should be ON (seen on 9.7.4).
const WRONG_DEFAULT: [&[u8]; 2] = [b"foreign_key_checks", b"unique_checks"];

/// A variable and its value; none: not known, but not the one at login.
type Left = (Box<[u8]>, Option<Box<[u8]>>);

/// What state a connection is in.
pub(super) struct State {
    /// The version of its session's variables that it has.
    variables: u64,
    schema: Option<Box<[u8]>>,
    autocommit: bool,
    /// What LAST_INSERT_ID() is here.
    insert_id: u64,
    multi_statements: Option<bool>,
    /// What another session has set here.
    left: Vec<Left>,
    /// What the login had set.
    login: Rc<[Set]>,
    /// Whatever else the login had set is DEFAULT.
    plain: bool,
}

/// What is to be assigned to a variable.
enum Assign<'s> {
    Value(&'s Set),
    Default(&'s [u8]),
}

impl State {
    /// After a login to `schema`.
    pub fn new(schema: Option<&[u8]>, autocommit: bool) -> Self {
        Self {
            variables: 0,
            schema: schema.filter(|schema| !schema.is_empty()).map(Into::into),
            autocommit,
            insert_id: 0,
            multi_statements: None,
            left: Vec::new(),
            login: [].into(),
            plain: false,
        }
    }

    /// Notes what the login had set, by the answer to the set-up; `plain`: all else is DEFAULT.
    pub fn begin_shared(&mut self, setup: &[u8], plain: bool) {
        let Ok(ok) = OkPacket::read(setup) else { return };
        let told = ok.changes().flat_map(|change| change.variables());
        let kept = told.filter(|(name, _)| !name.starts_with(b"session_track_"));
        self.login = kept.map(|(name, value)| Set::new(name, value)).collect();
        self.plain = plain;
    }

    fn at_login(&self, name: &[u8]) -> Option<&Set> {
        self.login.iter().find(|set| &*set.name == name)
    }
}

impl BackendConnection {
    /// Notes that whatever `session` knows was reported by, or told to, this connection.
    #[inline]
    pub fn is_current(&mut self, session: &Session, slot: Slot) {
        // A follower's says nothing of autocommit.
        if slot == Slot::Primary || !self.is_shared() {
            self.state.autocommit = session.autocommit();
        }
        let state = &mut self.state;
        if state.variables != session.variables.version() {
            state.variables = session.variables.version();
        }
        if state.schema.as_deref() != session.schema() {
            state.schema = session.schema().map(Into::into);
        }
        state.multi_statements = session.multi_statements;
    }

    /// Notes what LAST_INSERT_ID() is here.
    #[inline]
    pub fn has_insert_id(&mut self, id: u64) {
        self.state.insert_id = id;
    }

    /// True if nothing has to be sent before a statement of `session`; `inserts`: one that
    /// LAST_INSERT_ID() matters to.
    #[inline]
    pub fn matches(&self, session: &Session, slot: Slot, inserts: bool) -> bool {
        let state = &self.state;
        state.variables == session.variables.version()
            && state.schema.as_deref() == session.schema()
            && state.multi_statements == session.multi_statements
            && (!inserts || state.insert_id == session.insert_id())
            && match slot {
                Slot::Follower => state.autocommit || !self.is_shared(),
                Slot::Primary => state.autocommit == session.autocommit(),
            }
    }

    /// Sends what this connection lacks of `session`'s state and awaits the answers. Not cancel safe.
    pub async fn bring(&mut self, session: &Session, slot: Slot, inserts: bool) -> Result<(), BringError> {
        let foreign = !self.state.left.is_empty();
        match self.bring_variables(session, slot, inserts).await {
            Err(BringError::Refused { .. } | BringError::Unwritable(_)) if foreign => return Err(BringError::Foreign),
            other => other?,
        }
        if self.state.schema.as_deref() != session.schema() {
            match session.schema() {
                Some(schema) => self.use_schema(schema).await?,
                // There is no way back to none.
                None if self.is_shared() => return Err(BringError::Foreign),
                None => {}
            }
        }
        if self.state.multi_statements != session.multi_statements {
            match session.multi_statements {
                Some(on) => accepted(self.command(&[0x1B, u8::from(!on), 0], Answer::OnePacket).await?).map(drop)?,
                None if self.is_shared() => return Err(BringError::Foreign),
                None => {}
            }
        }
        self.state.left.clear();
        self.is_current(session, slot);
        Ok(())
    }

    /// COM_RESET_CONNECTION was answered: nothing of any session is left here.
    pub fn has_been_reset(&mut self) {
        self.handles.clear();
        self.state.left.clear();
        self.state.insert_id = 0;
    }

    /// What is not as the login had set it, on a shared connection, by the answer to the set-up.
    pub fn differs_from_login(&self, setup: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Ok(ok) = OkPacket::read(setup) else { return Vec::new() };
        let told = ok.changes().flat_map(|change| change.variables());
        let differs = |name: &[u8], value: &[u8]| self.state.at_login(name).is_some_and(|set| *set.value != *value);
        told.filter(|(name, value)| differs(name, value)).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    /// COM_INIT_DB.
    pub async fn use_schema(&mut self, schema: &[u8]) -> Result<(), BringError> {
        accepted(self.command(&[&[0x02], schema].concat(), Answer::OnePacket).await?)?;
        self.state.schema = Some(schema.into());
        Ok(())
    }

    /// The default schema here.
    pub fn schema(&self) -> Option<&[u8]> {
        self.state.schema.as_deref()
    }

    /// The session gives it up: whatever it has set is another's from here on.
    pub fn leave(&mut self, session: &Session) {
        let version = self.state.variables;
        let mut left = std::mem::take(&mut self.state.left);
        for set in session.variables.lacking(0) {
            left.retain(|(name, _)| *name != set.name);
            left.push((set.name.clone(), (!set.is_newer_than(version)).then(|| set.value.clone())));
        }
        self.state.left = left;
        self.state.variables = 0;
    }

    async fn bring_variables(&mut self, session: &Session, slot: Slot, inserts: bool) -> Result<(), BringError> {
        let (statements, tracks_gtids) = self.assignments(session, slot, inserts)?;
        for sql in &statements {
            self.statement(sql).await?;
        }
        self.state.autocommit = if slot == Slot::Primary { session.autocommit() } else { self.state.autocommit };
        if slot == Slot::Follower && self.is_shared() {
            self.state.autocommit = true;
        }
        if inserts {
            self.state.insert_id = session.insert_id();
        }
        if tracks_gtids {
            (self.tracks_gtids, self.marks) = (None, None);
        }
        Ok(())
    }

    /// The statements that set what is lacking, and whether they touch session_track_gtids.
    fn assignments(&self, session: &Session, slot: Slot, inserts: bool) -> Result<(Vec<String>, bool), BringError> {
        let lacking = self.lacking(session)?;
        let tracks_gtids = lacking.iter().any(|assign| match assign {
            Assign::Value(set) => &*set.name == b"session_track_gtids",
            Assign::Default(name) => *name == b"session_track_gtids",
        });
        let (mut statements, mut assigned) = (Vec::new(), Vec::new());
        let named = names(&lacking);
        for assign in &lacking {
            match assign {
                Assign::Value(set) if named.is_some() && NAMES.contains(&&*set.name) => {}
                Assign::Value(set) => assigned.push(assignment(set)?),
                Assign::Default(name) if WRONG_DEFAULT.contains(name) => {
                    assigned.push(format!("SESSION {0}=@@GLOBAL.{0}", word(name)?));
                }
                Assign::Default(name) => assigned.push(format!("SESSION {}=DEFAULT", word(name)?)),
            }
        }
        statements.extend(named);
        match slot {
            Slot::Primary => {
                if self.state.autocommit != session.autocommit() {
                    assigned.push(format!("SESSION autocommit={}", u8::from(session.autocommit())));
                }
            }
            Slot::Follower if self.is_shared() && !self.state.autocommit => {
                assigned.push("SESSION autocommit=1".to_owned());
            }
            Slot::Follower => {}
        }
        if inserts && self.state.insert_id != session.insert_id() {
            assigned.push(format!("SESSION last_insert_id={}", session.insert_id()));
        }
        if !assigned.is_empty() {
            statements.push(format!("SET {}", assigned.join(", ")));
        }
        Ok((statements, tracks_gtids))
    }

    /// What has to be assigned here, in the order to do it in: first what is taken back, then what the session has set.
    fn lacking<'s>(&'s self, session: &'s Session) -> Result<Vec<Assign<'s>>, BringError> {
        let state = &self.state;
        let mut lacking = Vec::new();
        for (name, value) in state.left.iter().filter(|(name, _)| session.variables.get(name).is_none()) {
            match state.at_login(name) {
                Some(set) if value.as_deref() == Some(&*set.value) => {}
                Some(set) => lacking.push(Assign::Value(set)),
                None if state.plain => lacking.push(Assign::Default(name)),
                None => return Err(BringError::Foreign),
            }
        }
        let has =
            |set: &Set| state.left.iter().any(|(name, value)| *name == set.name && value.as_ref() == Some(&set.value));
        lacking.extend(session.variables.lacking(state.variables).filter(|set| !has(set)).map(Assign::Value));
        Ok(lacking)
    }
}

/// `SET NAMES … COLLATE …`, if the session's character sets are all one and have changed. What a server says of a result's
/// collation depends on whether NAMES or a single variable was set; the single ones follow for the rest.
fn names(lacking: &[Assign<'_>]) -> Option<String> {
    let set = |name: &[u8]| {
        lacking.iter().find_map(|assign| match assign {
            Assign::Value(set) if &*set.name == name => Some(*set),
            Assign::Value(_) | Assign::Default(_) => None,
        })
    };
    let connection = set(b"character_set_connection")?;
    let same = |name: &[u8]| set(name).is_some_and(|v| v.value == connection.value);
    if !same(b"character_set_client") || !same(b"character_set_results") {
        return None;
    }
    let plain = |value: &[u8]| {
        let plain = !value.is_empty() && value.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
        plain.then(|| String::from_utf8_lossy(value).into_owned())
    };
    let collation = set(b"collation_connection").and_then(|v| plain(&v.value))?;
    Some(format!("SET NAMES '{}' COLLATE '{collation}'", plain(&connection.value)?))
}

fn word(name: &[u8]) -> Result<String, BringError> {
    let text = String::from_utf8_lossy(name).into_owned();
    let plain = name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
    if plain { Ok(text) } else { Err(BringError::Unwritable(text)) }
}

/// `SESSION name=value`, with the value as the server printed it.
fn assignment(variable: &Set) -> Result<String, BringError> {
    let name = word(&variable.name)?;
    let value = &*variable.value;
    // Whether a backslash escapes depends on the very sql_mode being set, and other bytes on the character set.
    if !value.iter().all(|b| (b' '..=b'~').contains(b) && *b != b'\\') {
        return Err(BringError::Unwritable(name));
    }
    let text = String::from_utf8_lossy(value);
    Ok(match &*variable.name {
        b"character_set_results" if value.is_empty() => format!("SESSION {name}=NULL"),
        _ if numeric(value) => format!("SESSION {name}={text}"),
        _ => format!("SESSION {name}='{}'", text.replace('\'', "''")),
    })
}
