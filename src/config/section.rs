//! Reads one table of the file into a struct's fields, collecting what is wrong with it.
//!
//! Each method asks for one key; the keys that were asked for are the known ones, so [`Section::done`] can refuse the
//! others and name the nearest. A key that is absent leaves the field at its default; a key that is wrong is reported
//! and also leaves it, so that reading goes on to the next problem.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::error::{At, Problem};
use super::tree::{Entry, Item, Table, Value};
use super::words::{nearest, one_of, shown};

/// Entries of one list in the file.
const LIST_LENGTH_MAX: usize = 256;

/// What all sections of one file share.
pub(super) struct Context {
    problems: RefCell<Vec<Problem>>,
    known: RefCell<BTreeSet<String>>,
    /// Relative paths in the file start here.
    pub directory: PathBuf,
    /// For `password_env`.
    pub env: Vec<(String, String)>,
}

impl Context {
    pub fn new(directory: PathBuf, env: Vec<(String, String)>) -> Self {
        Self { problems: RefCell::default(), known: RefCell::default(), directory, env }
    }

    pub fn refuse(&self, at: &At, message: impl Into<String>) {
        let problem = Problem { at: at.clone(), message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    /// The problems in the file's order, and every key that was asked for, as `listener.tls.mode`.
    pub fn finish(self) -> (Vec<Problem>, BTreeSet<String>) {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        (problems, self.known.into_inner())
    }
}

/// One table of the file, or its absence.
pub(super) struct Section<'a, 't> {
    pub cx: &'a Context,
    /// The line of its header, or of the table around it.
    pub at: At,
    table: Option<&'a Table<'t>>,
    /// `listener.tls`; empty for the file itself.
    path: String,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a, 't> Section<'a, 't> {
    /// The file itself.
    pub fn root(cx: &'a Context, table: &'a Table<'t>) -> Self {
        Self { cx, at: table.at.clone(), table: Some(table), path: String::new(), asked: RefCell::default() }
    }

    /// Whether the file has this table.
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the key is written.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.find(key).is_some())
    }

    /// The value of a key, which becomes a known one.
    pub fn item(&self, key: &'static str) -> Option<&'a Item<'t>> {
        self.asked.borrow_mut().push(key);
        self.cx.known.borrow_mut().insert(self.full(key));
        self.table?.find(key)
    }

    /// The text of a key that has been read already, without another report of what is wrong with it.
    pub fn peek(&self, key: &str) -> Option<&'a str> {
        match &self.table?.find(key)?.value {
            Value::Text(text) | Value::Override(text) => Some(text),
            Value::Integer(_) | Value::Boolean(_) | Value::Array(_) | Value::Table(_) | Value::Other(_) => None,
        }
    }

    /// Where a problem with this key is best reported: at its value, else at the section's header.
    pub fn place(&self, key: &str) -> At {
        let item = self.table.and_then(|table| table.find(key));
        item.map_or_else(|| self.at.clone(), |item| item.at.clone())
    }

    /// Reports a problem with a key.
    pub fn refuse(&self, key: &str, message: impl fmt::Display) {
        self.cx.refuse(&self.place(key), format!("{}: {message}", self.full(key)));
    }

    /// Reports that a key must be there.
    pub fn missing(&self, key: &str, write: &str) {
        self.cx.refuse(&self.at, format!("{} is missing: write {write}", self.full(key)));
    }

    /// Reports that this table must be there.
    pub fn missing_table(&self, write: impl fmt::Display) {
        self.cx.refuse(&self.at, format!("[{}] is missing: write {write}", self.path));
    }

    /// A text.
    pub fn text(&self, key: &'static str) -> Option<&'a str> {
        match &self.item(key)?.value {
            Value::Text(text) | Value::Override(text) => Some(text),
            other => {
                self.refuse(key, format_args!("write a text in quotes, not {}", other.kind()));
                None
            }
        }
    }

    /// A text that a `T` can be made of; `write` is an example.
    pub fn parsed<T: FromStr>(&self, key: &'static str, write: &str) -> Option<T> {
        let text = self.text(key)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.refuse(key, format_args!("{} is not one: write {write}", shown(text)));
        }
        value
    }

    /// One of some words; upper and lower case are the same.
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let value = find_word(words, text);
        if value.is_none() {
            self.refuse(key, unknown_word(words, text));
        }
        value
    }

    /// A whole number.
    pub fn number(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let item = self.item(key)?;
        let number = match &item.value {
            Value::Integer(number) => number.and_then(|number| u64::try_from(number).ok()),
            Value::Override(text) => text.trim().parse().ok(),
            Value::Text(_) | Value::Boolean(_) | Value::Array(_) | Value::Table(_) | Value::Other(_) => {
                self.refuse(key, format_args!("write a whole number, not {}", item.value.kind()));
                return None;
            }
        };
        let (low, high) = (*range.start(), *range.end());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.refuse(key, format_args!("write a whole number from {low} to {high}"));
        }
        number
    }

    /// `true` or `false` into a field.
    pub fn flag(&self, key: &'static str, into: &mut bool) {
        let Some(item) = self.item(key) else { return };
        match &item.value {
            Value::Boolean(value) => *into = *value,
            Value::Override(text) if ["true", "false"].contains(&text.trim()) => *into = text.trim() == "true",
            other => self.refuse(key, format_args!("write true or false, not {}", other.kind())),
        }
    }

    /// A whole number into a field.
    pub fn count<T: TryFrom<u64>>(&self, key: &'static str, range: RangeInclusive<u64>, into: &mut T) {
        let number = self.number(key, range);
        if let Some(Ok(number)) = number.map(T::try_from) {
            *into = number;
        }
    }

    /// A whole number of which 0 says "no limit", into a field.
    pub fn limit<T: TryFrom<u64>>(&self, key: &'static str, max: u64, into: &mut Option<T>) {
        match self.number(key, 0..=max) {
            None => {}
            Some(0) => *into = None,
            Some(number) => *into = T::try_from(number).ok(),
        }
    }

    /// Milliseconds into a field.
    pub fn millis(&self, key: &'static str, range: RangeInclusive<u64>, into: &mut Duration) {
        if let Some(number) = self.number(key, range) {
            *into = Duration::from_millis(number);
        }
    }

    /// Milliseconds of which 0 says "never", into a field.
    pub fn millis_limit(&self, key: &'static str, max: u64, into: &mut Option<Duration>) {
        if let Some(number) = self.number(key, 0..=max) {
            *into = (number > 0).then(|| Duration::from_millis(number));
        }
    }

    /// A list of texts, each with its place. The environment gives one text with commas.
    pub fn texts(&self, key: &'static str) -> Option<Vec<(At, &'a str)>> {
        let item = self.item(key)?;
        match &item.value {
            Value::Override(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let list: Vec<_> = parts.map(|part| (item.at.clone(), part)).collect();
                self.bounded(key, list.len()).then_some(list)
            }
            Value::Array(items) if self.bounded(key, items.len()) => {
                let text_of = |item: &'a Item<'t>| match &item.value {
                    Value::Text(text) => Some((item.at.clone(), &**text)),
                    other => {
                        let found = other.kind();
                        self.cx.refuse(&item.at, format!("{}: write a text in quotes, not {found}", self.full(key)));
                        None
                    }
                };
                items.iter().map(text_of).collect()
            }
            Value::Array(_) => None,
            other => {
                self.refuse(key, format_args!("write a list in brackets, not {}", other.kind()));
                None
            }
        }
    }

    /// A list of texts of each of which a `T` is made; those that fail are reported.
    pub fn list<T, E: fmt::Display>(&self, key: &'static str, make: impl Fn(&str) -> Result<T, E>) -> Option<Vec<T>> {
        let mut made = Vec::new();
        for (at, text) in self.texts(key)? {
            match make(text) {
                Ok(value) => made.push(value),
                Err(why) => self.cx.refuse(&at, format!("{}: {why}", self.full(key))),
            }
        }
        Some(made)
    }

    /// A table of this one.
    pub fn section(&self, key: &'static str) -> Section<'a, 't> {
        let item = self.item(key);
        let table = match item.map(|item| &item.value) {
            Some(Value::Table(table)) => Some(table),
            Some(Value::Array(_)) => {
                let path = self.full(key);
                self.refuse(key, format_args!("there is only one: write [{path}], not [[{path}]]"));
                None
            }
            Some(other) => {
                self.refuse(key, format_args!("write a table [{}], not {}", self.full(key), other.kind()));
                None
            }
            None => None,
        };
        let at = table.map_or_else(|| self.place(key), |table| table.at.clone());
        Section { cx: self.cx, at, table, path: self.full(key), asked: RefCell::default() }
    }

    /// A table whose keys are the operator's own words, each with a text.
    pub fn dictionary(&self, key: &'static str) -> Vec<(At, &'a str, &'a str)> {
        let section = self.section(key);
        let Some(table) = section.table else { return Vec::new() };
        if !self.bounded(key, table.entries.len()) {
            return Vec::new();
        }
        let text_of = |entry: &'a Entry<'t>| match &entry.item.value {
            Value::Text(text) | Value::Override(text) => Some((entry.key_at.clone(), &*entry.key, &**text)),
            other => {
                let (name, found) = (section.full(&entry.key), other.kind());
                self.cx.refuse(&entry.item.at, format!("{name}: write a text in quotes, not {found}"));
                None
            }
        };
        table.entries.iter().filter_map(text_of).collect()
    }

    /// The tables of a list.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'a, 't>> {
        let path = self.full(key);
        let Some(item) = self.item(key) else { return Vec::new() };
        let Value::Array(items) = &item.value else {
            self.refuse(key, format_args!("write [[{path}]] with double brackets, not {}", item.value.kind()));
            return Vec::new();
        };
        if !self.bounded(key, items.len()) {
            return Vec::new();
        }
        items.iter().filter_map(|item| self.element(key, item)).collect()
    }

    fn element(&self, key: &'static str, item: &'a Item<'t>) -> Option<Section<'a, 't>> {
        let path = self.full(key);
        let Value::Table(table) = &item.value else {
            self.cx.refuse(&item.at, format!("{path}: write a table, not {}", item.value.kind()));
            return None;
        };
        Some(Section { cx: self.cx, at: table.at.clone(), table: Some(table), path, asked: RefCell::default() })
    }

    /// Refuses the keys that were not asked for.
    pub fn done(&self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.borrow();
        for entry in &table.entries {
            if asked.contains(&&*entry.key) {
                continue;
            }
            let place = if self.path.is_empty() { "the file".to_owned() } else { format!("[{}]", self.path) };
            let advice = match nearest(&entry.key, asked.iter().copied()) {
                Some(key) => format!("the nearest known key is \"{key}\""),
                None => format!("known keys: {}", asked.join(", ")),
            };
            self.cx.refuse(&entry.key_at, format!("unknown key {} in {place}; {advice}", shown(&entry.key)));
        }
    }

    fn bounded(&self, key: &str, length: usize) -> bool {
        if length > LIST_LENGTH_MAX {
            self.refuse(key, format_args!("{length} entries are too many: at most {LIST_LENGTH_MAX}"));
        }
        length <= LIST_LENGTH_MAX
    }

    /// The key with the sections around it: `listener.tls.mode`.
    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// The value of a word of a table, whatever its case.
pub(super) fn find_word<T: Copy>(words: &[(&'static str, T)], text: &str) -> Option<T> {
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text))?;
    Some(found.1)
}

/// The word of a value of a table that has all of them.
pub(super) fn word_of<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word)
}

/// What to say of a word that is not in the table.
pub(super) fn unknown_word<T>(words: &[(&'static str, T)], text: &str) -> String {
    let known = || words.iter().map(|(word, _)| *word);
    let meant = nearest(text, known()).map(|word| format!(" (did you mean \"{word}\"?)")).unwrap_or_default();
    format!("{} is not known{meant}: write {}", shown(text), one_of(known()))
}
