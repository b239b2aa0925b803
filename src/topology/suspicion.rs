//! \[pure\] A proxy's word to the reconciler that a primary looks lost, as the target of an HTTP request: said by [`super::nudge`],
//! read by the admin port of the reconciler.

use std::fmt;

/// The path; the query says the rest.
pub const PATH: &str = "/suspect";
/// The longest name: that of a label's value, and of a Kubernetes object.
const NAME_MAX: usize = 253;

/// Whose primary looks lost. Written as `/suspect?cluster=NAME&namespace=NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// Where it is; any of that name if nothing is said.
    pub namespace: Option<&'a str>,
}

impl fmt::Display for Suspicion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PATH}?cluster={}", self.cluster)?;
        self.namespace.map_or(Ok(()), |name| write!(f, "&namespace={name}"))
    }
}

impl<'a> Suspicion<'a> {
    /// What a query says; `None` if it names no cluster, or anything else. Names need no percent signs, so none are understood.
    pub fn read(query: &'a str) -> Option<Self> {
        let (mut cluster, mut namespace) = (None, None);
        for pair in query.split('&') {
            let (key, name) = pair.split_once('=')?;
            let into = match key {
                "cluster" => &mut cluster,
                "namespace" => &mut namespace,
                _ => return None,
            };
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) || into.replace(name).is_some() {
                return None;
            }
        }
        Some(Self { cluster: cluster?, namespace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_cluster_and_nothing_else() {
        let long = format!("cluster={}", "a".repeat(NAME_MAX + 1));
        for (query, read_as) in [
            ("cluster=orders", Some(("orders", None))),
            ("cluster=orders&namespace=shop", Some(("orders", Some("shop")))),
            ("namespace=shop&cluster=a.b-c_d", Some(("a.b-c_d", Some("shop")))),
            ("", None),
            ("cluster", None),
            ("cluster=", None),
            ("namespace=shop", None),
            ("cluster=a&cluster=b", None),
            ("cluster=a&force=1", None),
            ("cluster=a&", None),
            ("cluster=a%20b", None),
            (&long, None),
        ] {
            let read = Suspicion::read(query);
            assert_eq!(read.map(|suspicion| (suspicion.cluster, suspicion.namespace)), read_as, "{query}");
            if let Some(suspicion) = read {
                let said = suspicion.to_string();
                assert_eq!(said.strip_prefix("/suspect?").and_then(Suspicion::read), read, "{said}");
            }
        }
    }
}
