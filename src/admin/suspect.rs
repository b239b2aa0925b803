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
use crate::topology::suspicion::Suspicion;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;

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

/// Answers a request for [`crate::topology::suspicion::PATH`].
pub(super) fn answer(request: &Request<Incoming>, listener: &Listener) -> Response<Full<Bytes>> {
    if *request.method() != Method::POST {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only POST\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return refusal;
    }
    let Some(suspicion) = Suspicion::read(request.uri().query().unwrap_or_default()) else {
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
