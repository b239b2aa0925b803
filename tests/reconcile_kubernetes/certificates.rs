//! The user's own certificates: members serve with them, and with the renewed ones without a restart.

use super::bed::{Bed, NAMESPACE, SOON};
use super::testbed::kubernetes::{Authority, Identity};
use super::testbed::until;
use serde_json::json;

pub const SECRET: &str = "set-tls";

/// The files of a Secret of type kubernetes.io/tls, as cert-manager writes them, valid until that year.
fn files(authority: &Authority, year: i32) -> [(&'static str, String); 3] {
    let Identity { certificate, key } = authority.server("set-mysql", year);
    [("ca.crt", authority.pem()), ("tls.crt", certificate), ("tls.key", key)]
}

/// Makes the Secret.
pub fn make(bed: &Bed) -> Authority {
    let authority = Authority::new();
    let data: serde_json::Map<_, _> =
        files(&authority, 2040).into_iter().map(|(name, text)| (name.to_owned(), json!(text))).collect();
    bed.plane.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": SECRET, "namespace": NAMESPACE }, "stringData": data }));
    authority
}

/// All members serve with a certificate that is valid until that year.
pub fn serve_until(bed: &Bed, year: i32) {
    let until_when =
        "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Ssl_server_not_after'";
    for pod in bed.pods("set") {
        until(&format!("{pod} serves with a certificate of {year}"), SOON, || {
            bed.sql("set", &pod, until_when).first().is_some_and(|row| row[0].contains(&year.to_string()))
        });
    }
}

/// Brings renewed ones to the pods, as the kubelet does when a Secret has changed; the old ones are served until somebody says so.
pub fn renew(bed: &Bed, authority: &Authority) {
    for pod in bed.pods("set") {
        let folder = bed.pod(&pod).folder().join("volumes/tls");
        for (name, text) in files(authority, 2041) {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
    serve_until(bed, 2040);
}
