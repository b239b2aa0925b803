//! What the servers say of the session with their answers: status flags and session tracking.

use super::{Pin, Session, Slot, variables};
use crate::wire::session_track::{Change, STATUS_IN_TRANS, STATUS_NO_BACKSLASH_ESCAPES};

impl Session {
    /// Notes the status flags of an OK or EOF from `slot`.
    #[inline]
    pub fn observe_status(&mut self, slot: Slot, status: u16) {
        self.status = status;
        if status & STATUS_IN_TRANS != 0 {
            self.transaction = Some(slot);
        } else if self.transaction == Some(slot) {
            self.transaction = None;
        }
        self.dialect.mode.no_backslash_escapes = status & STATUS_NO_BACKSLASH_ESCAPES != 0;
    }

    /// Notes a session state change that `slot` reported.
    pub fn observe_change(&mut self, slot: Slot, change: Change<'_>) {
        if let Some(schema) = change.schema() {
            self.schema = (!schema.is_empty()).then(|| schema.into());
            return;
        }
        if let Some(gtids) = change.gtids() {
            return self.observe_commit(slot, gtids);
        }
        for (name, value) in change.variables() {
            self.observe_variable(slot, name, value);
        }
    }

    /// Do the servers report a new default schema?
    pub fn tells_schema(&self) -> bool {
        self.variables.get(b"session_track_schema").is_none_or(|value| value != b"OFF")
    }

    /// Notes the default schema where the server does not report it (session_track_schema=OFF).
    pub fn set_schema(&mut self, schema: &[u8]) {
        if self.schema.as_deref() != Some(schema) {
            self.schema = Some(schema.into());
        }
    }

    fn observe_variable(&mut self, slot: Slot, name: &[u8], value: &[u8]) {
        self.reported |= name != b"statement_id";
        match name {
            b"statement_id" => return,
            b"session_track_system_variables" => self.tracks_all = true,
            b"last_gtid" => self.observe_commit(slot, value),
            b"last_insert_id" | b"identity" => self.insert_id_doubted = true,
            b"sql_log_bin" => self.unlogged = value == b"OFF",
            b"gtid_next" => self.steers_gtids = true,
            b"session_track_gtids" => self.steers_gtids |= value == b"OFF",
            // `id IS NULL` then means LAST_INSERT_ID().
            b"sql_auto_is_null" if value == b"ON" => self.pins.add(Pin::Variable),
            b"sql_mode" => self.dialect.mode.ansi_quotes = contains(value, b"ANSI_QUOTES"),
            b"character_set_client" => self.dialect.multibyte_escape_unsafe = multibyte_escape_unsafe(value),
            _ => {}
        }
        self.local |= variables::is_local(name);
        if let Some(pin) = self.variables.set(slot, name, value) {
            self.pins.add(pin);
        }
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

/// Character sets in whose characters a backslash may be the last byte.
pub fn multibyte_escape_unsafe(character_set: &[u8]) -> bool {
    matches!(character_set, b"gbk" | b"gb18030" | b"big5" | b"sjis" | b"cp932")
}
