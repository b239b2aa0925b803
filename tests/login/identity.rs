//! Certificates that name a user.

use holdfast::tls::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::Path;

/// A CA, a server's certificate, and one for `user`: the files of a listener, and the options of a client.
pub fn identity(folder: &Path, user: &str) -> (TlsFiles, String, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let write = |name: String, text: String| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let signed = |name: &str| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &ca).unwrap();
        (write(format!("{name}.pem"), cert.pem()), write(format!("{name}.key"), key.serialize_pem()))
    };
    let ((cert, key), (client_cert, client_key)) = (signed("server"), signed(user));
    let files = TlsFiles { cert: Some(cert), key: Some(key), ca: Some(write("ca.pem".to_owned(), ca.pem())) };
    (files, format!("--ssl-cert={}", client_cert.display()), format!("--ssl-key={}", client_key.display()))
}
