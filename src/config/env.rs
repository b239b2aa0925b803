//! Environment variables that override the file.
//!
//! `HOLDFAST__SECTION__KEY=value`, with the name of the listener or cluster where there are several:
//! `HOLDFAST__PROXY__WORKERS`, `HOLDFAST__LISTENER__APP__LISTEN`, `HOLDFAST__CLUSTER__ORDERS__ACCOUNT__PASSWORD`,
//! `HOLDFAST__CLUSTER__ORDERS__TLS__MODE`. A name is written in capitals, with `_` for anything but a letter or digit.
//! Numbers and words are written as they are, lists with commas. What is between `[listener.sni]` and its like are names,
//! not keys, and has no variable. An unknown variable is refused like an unknown key.
//!
//! Two underscores, because keys have single ones, and because Kubernetes sets `HOLDFAST_SERVICE_HOST` and the like by
//! itself in a namespace with a Service of that name. `HOLDFAST_CLUSTER_<NAME>_ACCOUNT_PASSWORD` is accepted all the
//! same, since that is what one tries first.

use std::borrow::Cow;

use super::error::At;
use super::section::Context;
use super::tree::{Item, Table, Value};
use super::words::{nearest, one_of};

const PREFIX: &str = "HOLDFAST__";
/// Sections of which there may be several, each with a name.
const NAMED: [&str; 3] = ["listener", "cluster", "discovery"];

/// A name as it is written in a variable: `db-1.eu` is `DB_1_EU`.
pub fn variable_name(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(letter).collect()
}

/// Puts the overrides of `cx.env` into the tree.
pub(super) fn apply<'t>(root: &mut Table<'t>, cx: &'t Context) {
    for (name, value) in &cx.env {
        if let Some(rest) = name.strip_prefix(PREFIX) {
            let segments: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
            let at = At::Env(name.clone());
            if let Err(message) = set(root, &segments, &at, value) {
                cx.refuse(&at, message);
            }
        } else if let Some(cluster) = short_password(name) {
            let segments = ["cluster", &cluster.to_ascii_lowercase(), "account", "password"].map(str::to_owned);
            // Not refused if there is no such cluster: it may be somebody else's variable.
            let _ = set(root, &segments, &At::Env(name.clone()), value);
        }
    }
}

fn short_password(name: &str) -> Option<&str> {
    let cluster = name.strip_prefix("HOLDFAST_CLUSTER_")?.strip_suffix("_ACCOUNT_PASSWORD")?;
    (!cluster.starts_with('_')).then_some(cluster)
}

fn set<'t>(root: &mut Table<'t>, segments: &[String], at: &At, value: &'t str) -> Result<(), String> {
    let (table, keys) = match segments {
        [section, name, keys @ ..] if NAMED.contains(&&**section) => (named(root, section, name)?, keys),
        _ => (root, segments),
    };
    let [sections @ .., key] = keys else {
        return Err("write a key after the name, as in HOLDFAST__CLUSTER__NAME__ACCOUNT__PASSWORD".to_owned());
    };
    let mut table = table;
    for section in sections {
        if table.find(section).is_none() {
            let inner = Table { at: at.clone(), entries: Vec::new() };
            table.insert(Cow::Owned(section.clone()), Item { at: at.clone(), value: Value::Table(inner) });
        }
        match table.find_mut(section) {
            Some(Item { value: Value::Table(inner), .. }) => table = inner,
            _ => return Err(format!("\"{section}\" has no keys: write HOLDFAST__SECTION__KEY")),
        }
    }
    // The three say the same thing in three ways; the environment's one replaces the file's.
    const PASSWORDS: [&str; 3] = ["password", "password_file", "password_env"];
    if PASSWORDS.contains(&&**key) {
        PASSWORDS.iter().for_each(|other| table.remove_from_file(other));
    }
    table.insert(Cow::Owned(key.clone()), Item { at: at.clone(), value: Value::Override(Cow::Borrowed(value)) });
    Ok(())
}

/// The entry of `[[section]]` whose name is written `variable` in a variable.
fn named<'a, 't>(root: &'a mut Table<'t>, section: &str, variable: &str) -> Result<&'a mut Table<'t>, String> {
    let Some(Item { value: Value::Array(items), .. }) = root.find_mut(section) else {
        return Err(format!("there is no [[{section}]] in the file"));
    };
    let mut found = None;
    let mut names = Vec::new();
    for item in items {
        let Value::Table(table) = &mut item.value else { continue };
        let Some(Item { value: Value::Text(name), .. }) = table.find("name") else { continue };
        let name = variable_name(name);
        if !name.eq_ignore_ascii_case(variable) {
            names.push(name);
        } else if found.replace(table).is_some() {
            return Err(format!("two of [[{section}]] are written {name} in a variable: rename one"));
        }
    }
    found.ok_or_else(|| {
        let variable = variable.to_ascii_uppercase();
        let known = || names.iter().map(String::as_str);
        let meant = nearest(&variable, known()).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
        format!("no [[{section}]] is called {variable}{meant}: write {}", one_of(known()))
    })
}
