//! \[pure\] Which cluster a login is for: by TLS server name, user name, initial schema, or by default.
//!
//! The rules of a listener are asked in the order they are written; the first that names a cluster decides. Nothing here
//! looks at passwords: what a login reads of a cluster that does not exist is the same whoever asks.
//!
//! | rule | names a cluster by |
//! | --- | --- |
//! | `sni` | its entry in `[listener.sni]`, else the longest beginning of the server name, up to a dot, that is a cluster's name |
//! | `user` | what stands behind the last `@` of the user name; the server is asked for what stands before it |
//! | `schema` | its entry in `[listener.schema]`, else a cluster of that very name |

use crate::config::{RouteBy, Routes};
use crate::types::ClusterName;

/// What a login shows before it has proven anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// Server name of the TLS handshake.
    pub sni: Option<&'a str>,
    /// User name as the client wrote it.
    pub user: &'a [u8],
    /// Initial schema.
    pub schema: Option<&'a [u8]>,
}

/// Where a login leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// The cluster.
    pub cluster: ClusterName,
    /// Whom its servers are asked for.
    pub user: &'a [u8],
}

/// Why a login leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// It names no cluster, and there is no default.
    Unnamed,
    /// It names a cluster that is not served.
    Unknown(String),
    /// Two parts of it name two clusters.
    Both(ClusterName, ClusterName),
}

/// Finds the cluster of a login. `known` answers the cluster of that name, if it is served; `fallback` is for a login
/// that names none.
pub fn choose<'a>(
    routes: &Routes,
    asked: Asked<'a>,
    fallback: Option<&str>,
    known: impl Fn(&str) -> Option<ClusterName>,
) -> Result<Chosen<'a>, Nowhere> {
    let by_user = routes.by.contains(&RouteBy::User);
    let (bare, suffix) = if by_user { split(asked.user) } else { (asked.user, None) };
    let of_user = suffix.and_then(&known);
    for rule in &routes.by {
        let named = match rule {
            RouteBy::Sni => asked.sni.and_then(|name| by_server_name(routes, name, &known)).transpose()?,
            RouteBy::User => of_user.clone(),
            RouteBy::Schema => asked.schema.and_then(|schema| by_schema(routes, schema, &known)).transpose()?,
        };
        let Some(cluster) = named else { continue };
        return match of_user {
            Some(of_user) if of_user == cluster => Ok(Chosen { cluster, user: bare }),
            Some(of_user) => Err(Nowhere::Both(cluster, of_user)),
            None => Ok(Chosen { cluster, user: asked.user }),
        };
    }
    // Where there is a default cluster, an account's name may have an @ of its own.
    match (suffix, fallback) {
        (Some(suffix), _) if routes.default.is_none() => Err(Nowhere::Unknown(suffix.to_owned())),
        (_, Some(name)) => match known(name) {
            Some(cluster) => Ok(Chosen { cluster, user: asked.user }),
            None => Err(Nowhere::Unknown(name.to_owned())),
        },
        (_, None) => Err(Nowhere::Unnamed),
    }
}

/// How a login names its cluster where these rules hold, for a person.
pub fn ways(by: &[RouteBy]) -> String {
    let way = |rule: &RouteBy| match rule {
        RouteBy::Sni => "by the TLS server name",
        RouteBy::User => "behind the user name, as in user@cluster",
        RouteBy::Schema => "by the initial schema",
    };
    by.iter().map(way).collect::<Vec<_>>().join(", or ")
}

/// A user name before and behind its last `@`.
fn split(user: &[u8]) -> (&[u8], Option<&str>) {
    match memchr::memrchr(b'@', user) {
        Some(at) => (&user[..at], std::str::from_utf8(&user[at + 1..]).ok()),
        None => (user, None),
    }
}

fn by_server_name(
    routes: &Routes,
    name: &str,
    known: &impl Fn(&str) -> Option<ClusterName>,
) -> Option<Result<ClusterName, Nowhere>> {
    let name = name.to_ascii_lowercase();
    if let Some(cluster) = routes.sni.get(&name) {
        return Some(known(cluster).ok_or_else(|| Nowhere::Unknown(cluster.clone())));
    }
    let dots = name.match_indices('.').map(|(at, _)| at);
    let ends: Vec<usize> = dots.chain([name.len()]).collect();
    ends.into_iter().rev().find_map(|end| known(&name[..end])).map(Ok)
}

fn by_schema(
    routes: &Routes,
    schema: &[u8],
    known: &impl Fn(&str) -> Option<ClusterName>,
) -> Option<Result<ClusterName, Nowhere>> {
    let schema = std::str::from_utf8(schema).ok()?;
    match routes.schema.get(schema) {
        Some(cluster) => Some(known(cluster).ok_or_else(|| Nowhere::Unknown(cluster.clone()))),
        None => known(schema).map(Ok),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RouteBy::{Schema, Sni, User};

    fn known(name: &str) -> Option<ClusterName> {
        ["orders", "billing", "prod.shop"].contains(&name).then(|| name.into())
    }

    fn routes(by: &[RouteBy], default: Option<&str>) -> Routes {
        Routes {
            by: by.to_vec(),
            default: default.map(str::to_owned),
            sni: [("money.example.net", "billing"), ("old.example.net", "gone")]
                .map(|(a, b)| (a.into(), b.into()))
                .into(),
            schema: [("invoices", "billing"), ("past", "gone")].map(|(a, b)| (a.into(), b.into())).into(),
        }
    }

    /// sni, user, schema
    type Login = (Option<&'static str>, &'static str, Option<&'static str>);

    fn find(by: &[RouteBy], default: Option<&str>, (sni, user, schema): Login) -> String {
        let asked = Asked { sni, user: user.as_bytes(), schema: schema.map(str::as_bytes) };
        match choose(&routes(by, default), asked, default, known) {
            Ok(chosen) => format!("{} as {}", chosen.cluster, String::from_utf8_lossy(chosen.user)),
            Err(Nowhere::Unnamed) => "unnamed".to_owned(),
            Err(Nowhere::Unknown(name)) => format!("unknown {name}"),
            Err(Nowhere::Both(one, other)) => format!("{one} and {other}"),
        }
    }

    #[test]
    fn the_rules() {
        let all: &[RouteBy] = &[Sni, User, Schema];
        let table: &[(&[RouteBy], Option<&str>, Login, &str)] = &[
            // one cluster
            (&[], Some("orders"), (Some("billing.x"), "app@billing", Some("billing")), "orders as app@billing"),
            (&[], Some("gone"), (None, "app", None), "unknown gone"),
            // by user
            (&[User], None, (None, "app@orders", None), "orders as app"),
            (&[User], None, (None, "joe@example.com@orders", None), "orders as joe@example.com"),
            (&[User], None, (None, "@orders", None), "orders as "),
            (&[User], None, (None, "app", None), "unnamed"),
            (&[User], None, (None, "app@", None), "unknown "),
            (&[User], None, (None, "app@ordres", None), "unknown ordres"),
            (&[User], None, (None, "app@Orders", None), "unknown Orders"),
            (&[User], Some("billing"), (None, "app", None), "billing as app"),
            (&[User], Some("billing"), (None, "joe@example.com", None), "billing as joe@example.com"),
            (&[User], Some("gone"), (None, "app", None), "unknown gone"),
            // by server name
            (&[Sni], None, (Some("orders"), "app@x", None), "orders as app@x"),
            (&[Sni], None, (Some("orders.db.example.net"), "app", None), "orders as app"),
            (&[Sni], None, (Some("ORDERS.db.example.net"), "app", None), "orders as app"),
            (&[Sni], None, (Some("prod.shop.db.example.net"), "app", None), "prod.shop as app"),
            (&[Sni], None, (Some("money.example.net"), "app", None), "billing as app"),
            (&[Sni], None, (Some("Money.Example.Net"), "app", None), "billing as app"),
            (&[Sni], Some("orders"), (Some("old.example.net"), "app", None), "unknown gone"),
            (&[Sni], None, (Some("db.example.net"), "app", None), "unnamed"),
            (&[Sni], None, (None, "app", None), "unnamed"),
            (&[Sni], Some("orders"), (Some("db.example.net"), "app", None), "orders as app"),
            // by schema
            (&[Schema], None, (None, "app", Some("orders")), "orders as app"),
            (&[Schema], None, (None, "app", Some("invoices")), "billing as app"),
            (&[Schema], Some("orders"), (None, "app", Some("past")), "unknown gone"),
            (&[Schema], Some("orders"), (None, "app", Some("test")), "orders as app"),
            (&[Schema], None, (None, "app", Some("test")), "unnamed"),
            (&[Schema], None, (None, "app", None), "unnamed"),
            // in their order
            (all, None, (Some("orders.x"), "app", Some("billing")), "orders as app"),
            (all, None, (Some("orders.x"), "app@orders", Some("billing")), "orders as app"),
            (all, None, (Some("orders.x"), "app@billing", None), "orders and billing"),
            (all, None, (Some("orders.x"), "joe@example.com", None), "orders as joe@example.com"),
            (&[User, Sni], None, (Some("orders.x"), "app@billing", None), "billing as app"),
            (all, None, (Some("db.x"), "app@orders", Some("billing")), "orders as app"),
            (all, None, (None, "app", Some("billing")), "billing as app"),
            (all, None, (None, "app@gone", None), "unknown gone"),
        ];
        for (by, default, login, expected) in table {
            assert_eq!(find(by, *default, *login), *expected, "{by:?} {default:?} {login:?}");
        }
    }

    #[test]
    fn a_user_that_is_no_text_names_no_cluster() {
        let asked = Asked { user: b"app@\xFF", ..Asked::default() };
        assert_eq!(choose(&routes(&[User], None), asked, None, known), Err(Nowhere::Unnamed));
    }
}
