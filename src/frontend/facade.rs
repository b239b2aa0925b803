//! \[pure\] What a listener pretends to be: the servers behind it, or what those of several clusters have in common.
//!
//! The greeting is sent before a login can name its cluster. So it shows the lowest version and only the abilities that all
//! of them have. MySQL and MariaDB have too little in common to be greeted for together: clients choose their SQL by the
//! family. The listener then greets as one of the two, and logins to clusters of the other are refused.

use crate::classify::{Dialect, Flavor};
use crate::wire::capabilities::Capabilities;
use crate::wire::handshake::{CACHING_SHA2, NATIVE};
use std::sync::Arc;

/// What clients are greeted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacade {
    /// Version as on the wire (with MariaDB's `5.5.5-`, where its servers send it).
    pub version: Arc<str>,
    /// What the servers offer.
    pub capabilities: Capabilities,
    /// Their default collation.
    pub collation: u8,
    /// Their default authentication plugin.
    pub default_plugin: Arc<[u8]>,
}

/// What the proxy answers for itself, or what does not outlive the login: a server need not have it.
const OWN: Capabilities = Capabilities(
    Capabilities::LOGIN.0
        // MariaDB's clients have it, its servers do not.
        | Capabilities::LONG_PASSWORD.0
        | Capabilities::CONNECT_WITH_DB.0
        | Capabilities::SSL.0
        | Capabilities::COMPRESS.0
        | Capabilities::ZSTD_COMPRESSION_ALGORITHM.0,
);

impl ServerFacade {
    /// True in front of MariaDB.
    pub fn is_mariadb(&self) -> bool {
        self.version.contains("MariaDB")
    }

    /// The family's name.
    pub fn family(&self) -> &'static str {
        if self.is_mariadb() { "MariaDB" } else { "MySQL" }
    }

    /// True if a client that was greeted by another facade and agreed on `capabilities` can be served here.
    pub fn serves(&self, capabilities: Capabilities) -> bool {
        let asked = (capabilities & Capabilities::SERVED) - OWN;
        self.capabilities.has(asked)
    }

    /// How statements of a client with this handshake collation are to be read.
    pub fn dialect(&self, collation: u16) -> Dialect {
        let version = number(&self.version);
        let flavor = match self.is_mariadb() {
            true => Flavor::MariaDb { version },
            false => Flavor::MySql { version },
        };
        // big5, sjis, gbk, cp932, gb18030: their characters may end with a backslash byte.
        let multibyte_escape_unsafe = matches!(collation, 1 | 84 | 13 | 88 | 28 | 87 | 95 | 96 | 248..=250);
        Dialect { flavor, multibyte_escape_unsafe, ..Dialect::default() }
    }
}

/// `8.4.5-log` is 80405.
fn number(version: &str) -> u32 {
    let text = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    next() * 10_000 + next() * 100 + next()
}

/// What all of `facades` have in common that are of the family of `first`; without it MySQL, if any of them is.
pub fn common(first: Option<&ServerFacade>, facades: &[ServerFacade]) -> Option<ServerFacade> {
    let mariadb = match first {
        Some(first) => first.is_mariadb(),
        None => facades.iter().all(ServerFacade::is_mariadb),
    };
    let family = || facades.iter().filter(|facade| facade.is_mariadb() == mariadb);
    let lowest = family().min_by_key(|facade| number(&facade.version))?;
    let capabilities = family().fold(lowest.capabilities, |all, facade| all & facade.capabilities);
    let default_plugin = match family().all(|facade| facade.default_plugin == lowest.default_plugin) {
        true => lowest.default_plugin.clone(),
        false if mariadb => NATIVE.into(),
        false => CACHING_SHA2.into(),
    };
    Some(ServerFacade { capabilities, default_plugin, ..lowest.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facade(version: &str, capabilities: Capabilities, plugin: &[u8]) -> ServerFacade {
        ServerFacade { version: version.into(), capabilities, collation: 45, default_plugin: plugin.into() }
    }

    #[test]
    fn the_greeting_shows_what_all_have() {
        let both = Capabilities::DEPRECATE_EOF | Capabilities::SESSION_TRACK;
        let new = facade("9.7.4", both | Capabilities::QUERY_ATTRIBUTES, CACHING_SHA2);
        let old = facade("8.0.9-log", both, NATIVE);
        let maria = facade("5.5.5-10.11.14-MariaDB-log", Capabilities::DEPRECATE_EOF, NATIVE);
        let all = [new.clone(), maria.clone(), old.clone()];

        let shown = common(None, &all).unwrap();
        assert_eq!((&*shown.version, shown.capabilities, &*shown.default_plugin), ("8.0.9-log", both, CACHING_SHA2));
        assert_eq!(common(Some(&maria), &all), Some(maria.clone()));
        assert_eq!(common(None, &all[1..2]), Some(maria));
        assert_eq!(common(None, &all[..1]), Some(new.clone()));
        assert_eq!(common(None, &[]), None);

        assert!(old.serves(both | Capabilities::SSL | Capabilities::COMPRESS | Capabilities::PLUGIN_AUTH));
        assert!(!old.serves(new.capabilities));
        assert!(facade("5.5.5-10.11.14-MariaDB", both, NATIVE).serves(both | Capabilities::LONG_PASSWORD));
    }
}
