//! Which cluster a login is for: `cluster`, or `route` and what belongs to it.

use std::collections::BTreeMap;

use super::model::{RouteBy, Routes};
use super::section::{Section, find_word, unknown_word};
use super::words::{nearest, one_of, shown};

pub(super) const WORDS: &[(&str, RouteBy)] =
    &[("sni", RouteBy::Sni), ("user", RouteBy::User), ("schema", RouteBy::Schema)];

/// Reads the routes of one `[[listener]]`. `None` if there are none; then a problem has been reported.
pub(super) fn read(section: &Section) -> Option<Routes> {
    let cluster = section.text("cluster");
    let default = section.text("default_cluster");
    let by = section.list("route", |text| find_word(WORDS, text).ok_or_else(|| unknown_word(WORDS, text)));
    let sni = read_map(section, "sni");
    let schema = read_map(section, "schema");
    if !section.has("route") {
        for key in ["default_cluster", "sni", "schema"].into_iter().filter(|key| section.has(key)) {
            section.refuse(
                key,
                "belongs to a listener with route = [\"sni\", \"user\", \"schema\"]: write that, or cluster",
            );
        }
        if !section.has("cluster") {
            section.missing("cluster", "the name of a [[cluster]] of this file, or route = [\"user\"]");
        }
        return Some(Routes::to(cluster?));
    }
    if section.has("cluster") {
        section.refuse("cluster", "is for a listener without route: write default_cluster, or leave route out");
    }
    let by = by?;
    let repeated = by.iter().enumerate().any(|(i, rule)| by[..i].contains(rule));
    if by.is_empty() || repeated {
        section.refuse("route", "write each rule once, at least one, as in [\"user\"]");
    }
    for (key, rule) in [("sni", RouteBy::Sni), ("schema", RouteBy::Schema)] {
        if section.has(key) && !by.contains(&rule) {
            section.refuse(key, format_args!("is not used: write \"{key}\" in route, or leave it out"));
        }
    }
    let sni = sni.into_iter().map(|(name, cluster)| (name.to_ascii_lowercase(), cluster)).collect();
    Some(Routes { by, default: default.map(str::to_owned), sni, schema })
}

fn read_map(section: &Section, key: &'static str) -> BTreeMap<String, String> {
    let entries = section.dictionary(key).into_iter();
    entries.map(|(_, name, cluster)| (name.to_owned(), cluster.to_owned())).collect()
}

/// Refuses names of clusters that are not in the file.
pub(super) fn check(listeners: &[Section], clusters: &[Section]) {
    let names: Vec<&str> = clusters.iter().filter_map(|cluster| cluster.peek("name")).collect();
    let unknown = |cluster: &str| {
        let meant = nearest(cluster, names.iter().copied()).map(|name| format!(" (did you mean \"{name}\"?)"));
        let (text, meant) = (shown(cluster), meant.unwrap_or_default());
        let known = one_of(names.iter().copied());
        (!names.contains(&cluster)).then(|| format!("there is no [[cluster]] {text}{meant}: write {known}"))
    };
    for listener in listeners {
        for key in ["cluster", "default_cluster"] {
            if let Some(why) = listener.peek(key).and_then(unknown) {
                listener.refuse(key, why);
            }
        }
        for key in ["sni", "schema"] {
            for (at, name, cluster) in listener.dictionary(key) {
                if let Some(why) = unknown(cluster) {
                    listener.cx.refuse(&at, format!("listener.{key}.{}: {why}", shown(name)));
                }
            }
        }
    }
}
