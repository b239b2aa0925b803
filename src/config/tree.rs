//! The file as a tree of values that know where they came from.
//!
//! `toml` gives byte ranges; people want lines. An environment override is put into the same tree
//! with its variable's name as its place, so that everything after this treats both alike. Text is
//! borrowed from the file, so that a password in it lies in memory once, where the caller wipes it.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{At, Problem};

/// Syntax errors reported of one file; the parser recovers and may otherwise find many.
const SYNTAX_ERRORS_MAX: usize = 20;

/// One value and its place.
pub(super) struct Item<'t> {
    pub at: At,
    pub value: Value<'t>,
}

/// A TOML value, or the text of an environment variable that takes whatever type is asked for.
pub(super) enum Value<'t> {
    Text(Cow<'t, str>),
    /// `None`: does not fit 64 bits.
    Integer(Option<i64>),
    Boolean(bool),
    Array(Vec<Item<'t>>),
    Table(Table<'t>),
    /// A float or a date: no key has such a value.
    Other(&'static str),
    Override(Cow<'t, str>),
}

impl Value<'_> {
    /// What to call it in a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Override(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// A table and the line it begins on.
pub(super) struct Table<'t> {
    pub at: At,
    pub entries: Vec<Entry<'t>>,
}

/// One `key = value`.
pub(super) struct Entry<'t> {
    pub key: Cow<'t, str>,
    pub key_at: At,
    pub item: Item<'t>,
}

impl<'t> Table<'t> {
    pub fn find(&self, key: &str) -> Option<&Item<'t>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(&entry.item)
    }

    pub fn find_mut(&mut self, key: &str) -> Option<&mut Item<'t>> {
        let entry = self.entries.iter_mut().find(|entry| entry.key == key)?;
        Some(&mut entry.item)
    }

    /// Removes a key unless the environment set it.
    pub fn remove_from_file(&mut self, key: &str) {
        self.entries.retain(|entry| entry.key != key || matches!(entry.item.at, At::Env(_)));
    }

    /// Sets a key, in place of what was there.
    pub fn insert(&mut self, key: Cow<'t, str>, item: Item<'t>) {
        self.entries.retain(|entry| entry.key != key);
        let key_at = item.at.clone();
        self.entries.push(Entry { key, key_at, item });
    }
}

/// Parses TOML.
///
/// # Errors
/// The syntax errors, with their lines.
pub(super) fn parse(text: &str) -> Result<Table<'_>, Vec<Problem>> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let mut root = convert_table(table.into_inner(), At::Line(1), &lines);
        root.at = At::Line(1);
        return Ok(root);
    }
    let problem = |error: &toml::de::Error| Problem {
        at: lines.at(&error.span().unwrap_or(0..0)),
        message: format!("not valid TOML: {}", error.message()),
    };
    Err(errors.iter().take(SYNTAX_ERRORS_MAX).map(problem).collect())
}

fn convert_table<'t>(table: DeTable<'t>, at: At, lines: &Lines) -> Table<'t> {
    let convert_entry = |(key, value): (Spanned<Cow<'t, str>>, Spanned<DeValue<'t>>)| Entry {
        key_at: lines.at(&key.span()),
        key: key.into_inner(),
        item: convert(value, lines),
    };
    let entries = table.into_iter().map(convert_entry).collect();
    Table { at, entries }
}

fn convert<'t>(value: Spanned<DeValue<'t>>, lines: &Lines) -> Item<'t> {
    let at = lines.at(&value.span());
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::Array(items.into_iter().map(|item| convert(item, lines)).collect()),
        DeValue::Table(table) => Value::Table(convert_table(table, at.clone(), lines)),
    };
    Item { at, value }
}

/// Byte offsets of line starts.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(i, _)| i + 1).collect())
    }

    fn at(&self, span: &Range<usize>) -> At {
        At::Line(1 + self.0.partition_point(|start| *start <= span.start))
    }
}
