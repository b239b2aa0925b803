//! The status page: one file for a browser, with its style and script in it, that asks `/status.json` and shows the answer.
//!
//! It works without internet access and keeps nothing. Whatever servers say ends up as text nodes, never as markup; and
//! should that ever fail, the content security policy lets nothing run but this very script, known by a nonce that is new in
//! each answer, and lets nothing be asked but this very port.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use hyper::{Response, StatusCode};

const HTML: &str = include_str!("page/status.html");
const STYLE: &str = include_str!("page/status.css");
/// The proxy's parts and the reconciler's; whose answer it is decides which are used.
const SCRIPT: &str = concat!(
    include_str!("page/nodes.js"),
    include_str!("page/ask.js"),
    include_str!("page/story.js"),
    include_str!("page/status.js"),
    include_str!("page/reconciler.js")
);

/// The page as an answer.
pub(super) fn response() -> Response<Full<Bytes>> {
    let mut nonce = [0; 16];
    // Without randomness there is no page rather than one that runs anything.
    let policy = getrandom::fill(&mut nonce).ok().and_then(|()| HeaderValue::from_str(&policy(&hex(&nonce))).ok());
    let Some(policy) = policy else {
        return super::response(StatusCode::INTERNAL_SERVER_ERROR, super::TEXT, "the system gives no randomness\n");
    };
    let mut response = super::response(StatusCode::OK, "text/html; charset=utf-8", html(&hex(&nonce)));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

fn html(nonce: &str) -> String {
    HTML.replace("{nonce}", nonce).replace("/*style*/", STYLE).replace("/*script*/", SCRIPT)
}

fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        let page = html("abc");
        for part in ["<style nonce=\"abc\">", "<script nonce=\"abc\">", "prefers-color-scheme", "status.json"] {
            assert!(page.contains(part), "{part}");
        }
        for foreign in [
            "http://",
            "https://",
            "/*style*/",
            "/*script*/",
            "{nonce}",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
        ] {
            let namespace = foreign == "http://"
                && page.matches(foreign).count() == page.matches("http://www.w3.org/2000/svg").count();
            assert!(namespace || !page.contains(foreign), "{foreign}");
        }
        assert!(!page.contains(" style=\""), "the policy forbids style attributes");
    }

    #[test]
    fn no_two_answers_have_the_same_nonce() {
        let policies = [response(), response()].map(|r| r.headers()[CONTENT_SECURITY_POLICY].clone());
        assert_ne!(policies[0], policies[1]);
    }
}
