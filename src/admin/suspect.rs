//! `POST /suspect?cluster=NAME[&namespace=NAME]`: a proxy tells the reconciler that a primary looks lost.
//!
//! It is a hint and proves nothing: whoever hears it looks sooner than it would have, at most as often as it looks in haste,
//! and decides by what it sees. So it may come from anybody who reaches the port, and as often as he likes.
//!
//! | answer | meaning |
//! | --- | --- |
//! | 202 | heard |
//! | 400 | the query names no cluster, or something else |
//! | 404 | no such cluster is kept here |
//! | 405 | not a POST |
//! | 503 | another reconciler leads |

use super::{TEXT, response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;

/// Where it is.
pub const PATH: &str = "/suspect";
/// The longest name: that of a label's value, and of a Kubernetes object.
const NAME_MAX: usize = 253;

/// Whose primary looks lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// Where it is; any of that name if nothing is said.
    pub namespace: Option<&'a str>,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Who keeps the cluster looks at once.
    Yes,
    /// It is not kept here.
    NoSuchCluster,
    /// Nothing is kept here: another leads.
    NotLeading,
}

impl Heard {
    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "heard",
            Self::NoSuchCluster => "unknown",
            Self::NotLeading => "not_leading",
        }
    }
}

/// Who listens; must not block.
pub type Listener = Arc<dyn Fn(&Suspicion<'_>) -> Heard + Send + Sync>;

/// Answers a request for [`PATH`].
pub(super) fn answer(request: &Request<Incoming>, listener: &Listener) -> Response<Full<Bytes>> {
    if *request.method() != Method::POST {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only POST\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return refusal;
    }
    let Some(suspicion) = read(request.uri().query().unwrap_or_default()) else {
        return response(
            StatusCode::BAD_REQUEST,
            TEXT,
            "write /suspect?cluster=NAME, and &namespace=NAME if you like\n",
        );
    };
    match listener(&suspicion) {
        Heard::Yes => response(StatusCode::ACCEPTED, TEXT, "heard\n"),
        Heard::NoSuchCluster => response(StatusCode::NOT_FOUND, TEXT, "no such cluster is kept here\n"),
        Heard::NotLeading => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "another reconciler leads\n"),
    }
}

/// \[pure\] The query's words. Names need no percent signs, so none are understood.
fn read(query: &str) -> Option<Suspicion<'_>> {
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
    Some(Suspicion { cluster: cluster?, namespace })
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
            assert_eq!(read(query).map(|suspicion| (suspicion.cluster, suspicion.namespace)), read_as, "{query}");
        }
    }
}
