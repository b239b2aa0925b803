//! The user's own certificates: members serve with them, and with the renewed ones without a restart.

use super::bed::{Bed, NAMESPACE, SOON};
use super::testbed::kubernetes::{Authority, Identity};
use super::testbed::until;
use serde_json::{Value, json};

const SECRET: &str = "members-tls";

/// The files of a Secret of type kubernetes.io/tls, as cert-manager writes them, valid until that year.
fn files(authority: &Authority, year: i32) -> [(&'static str, String); 3] {
    let Identity { certificate, key } = authority.server("mysql", year);
    [("ca.crt", authority.pem()), ("tls.crt", certificate), ("tls.key", key)]
}

/// Makes the Secret; who signs, and what stands in the spec of clusters that use it.
pub fn make(bed: &Bed) -> (Authority, Value) {
    let authority = Authority::new();
    let data: serde_json::Map<_, _> =
        files(&authority, 2040).into_iter().map(|(name, text)| (name.to_owned(), json!(text))).collect();
    bed.plane.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": SECRET, "namespace": NAMESPACE }, "stringData": data }));
    (authority, json!({ "secretName": SECRET, "mtls": true }))
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

/// With the password alone nobody logs in as a member, and those that have the certificate do.
pub fn members_show_theirs(bed: &Bed, cluster: &str) {
    let pods = bed.pods(cluster);
    let needs = "SELECT ssl_type FROM mysql.user WHERE user = 'holdfast_replication'";
    pods.iter().for_each(|pod| assert_eq!(bed.sql(cluster, pod, needs), [["X509"]], "{pod}"));
    let password = bed.password(cluster, "replication");
    let refused = bed.pod(&pods[0]).try_sql_as(("holdfast_replication", &password), "SELECT 1").unwrap_err();
    assert!(refused.contains("1045"), "{refused}");
}
