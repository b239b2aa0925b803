//! The certificates of one control plane, made anew for each: nothing on disk but what the servers read.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Who signs the API server's and the clients' certificates, and the key that signs ServiceAccount tokens.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    accounts: KeyPair,
}

/// Certificate and key, PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Authority {
        let mut ca = named("holdfast testbed kubernetes", &[]);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(ca, key()).expect("a certificate authority");
        Authority { issuer, accounts: key() }
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A client's: Kubernetes takes the common name for the user and the organizations for its groups.
    pub fn client(&self, user: &str, groups: &[&str]) -> Identity {
        let mut client = named(user, groups);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&client)
    }

    /// A server's, good for clients, too, and valid until the first day of that year.
    pub fn server(&self, name: &str, year: i32) -> Identity {
        let mut server = of_server(name);
        server.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        server.not_after = rcgen::date_time_ymd(year, 1, 1);
        self.sign(&server)
    }

    /// Writes what kube-apiserver reads: `ca.pem`, `server.pem`, `server-key.pem`, `accounts.pem`, `accounts-key.pem`.
    pub fn write_server(&self, folder: &Path) {
        let mut server = of_server("kube-apiserver");
        for name in ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
            server.subject_alt_names.push(SanType::DnsName(name.try_into().expect("a DNS name")));
        }
        server.subject_alt_names.push(SanType::IpAddress(IpAddr::from([127, 0, 0, 1])));
        let server = self.sign(&server);
        for (file, text) in [
            ("ca.pem", self.pem()),
            ("server.pem", server.certificate),
            ("server-key.pem", server.key),
            ("accounts.pem", self.accounts.public_key_pem()),
            ("accounts-key.pem", self.accounts.serialize_pem()),
        ] {
            fs::write(folder.join(file), text).expect("the folder is writable");
        }
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn of_server(name: &str) -> CertificateParams {
    let mut server = named(name, &[]);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server
}

fn named(name: &str, organizations: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    for organization in organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}
