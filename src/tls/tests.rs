use super::*;
use rcgen::{CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use std::time::Duration;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("holdfast-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> Option<PathBuf> {
        let file = self.0.join(name);
        std::fs::write(&file, text).unwrap();
        Some(file)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key in PEM for a common name, ending on 2030-02-03 04:05:06 UTC.
fn leaf(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String, CertificateDer<'static>) {
    let mut params = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Holdfast");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = (SystemTime::UNIX_EPOCH + Duration::from_secs(1_896_321_906)).into();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem(), certificate.der().clone())
}

#[test]
fn a_certificate_tells_its_end_and_its_name() {
    let (_, _, der) = leaf(&authority(), "app");
    assert_eq!(not_after(&der), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_896_321_906)));
    assert_eq!(common_name(&der), Some(&b"app"[..]));
    for n in 0..der.len() {
        let cut = CertificateDer::from(der[..n].to_vec());
        let _ = (not_after(&cut), common_name(&cut));
    }
}

#[test]
fn changed_files_are_taken_over_and_broken_ones_are_not() {
    let folder = Folder::new("reload");
    let authority = authority();
    let (cert, key, _) = leaf(&authority, "one");
    let files = TlsFiles {
        cert: folder.write("cert.pem", &cert),
        key: folder.write("key.pem", &key),
        ca: folder.write("ca.pem", &authority.pem()),
    };
    let store = TlsStore::listener(SslMode::VerifyCa, files).unwrap();
    let first = store.config().unwrap();
    assert!(store.not_after().is_some());
    assert!(!store.reload_if_changed().unwrap());

    let (cert, key, _) = leaf(&authority, "two");
    folder.write("cert.pem", &cert);
    let error = store.reload_if_changed().unwrap_err().to_string();
    assert!(error.contains("cert.pem"), "{error}");
    assert!(Arc::ptr_eq(&first, &store.config().unwrap()), "the old certificate stays");

    folder.write("key.pem", &key);
    assert!(store.reload_if_changed().unwrap());
    assert!(!Arc::ptr_eq(&first, &store.config().unwrap()));
}

#[test]
fn errors_name_the_file_and_the_way_out() {
    let folder = Folder::new("errors");
    let (cert, key, _) = leaf(&authority(), "app");
    let (cert, key) = (folder.write("cert.pem", &cert), folder.write("key.pem", &key));
    let empty = folder.write("empty.pem", "nothing here");
    let with = |cert: &Option<PathBuf>, key: &Option<PathBuf>, ca: &Option<PathBuf>| TlsFiles {
        cert: cert.clone(),
        key: key.clone(),
        ca: ca.clone(),
    };
    let absent = Some(folder.0.join("absent.pem"));
    for (mode, files, says) in [
        (SslMode::Required, with(&None, &None, &None), "`key`"),
        (SslMode::Required, with(&None, &key, &None), "`cert`"),
        (SslMode::VerifyCa, with(&cert, &key, &None), "`ca`"),
        (SslMode::Required, with(&absent, &key, &None), "absent.pem"),
        (SslMode::Required, with(&empty, &key, &None), "empty.pem"),
        (SslMode::Required, with(&cert, &empty, &None), "private key"),
    ] {
        let error = TlsStore::listener(mode, files).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(TlsStore::listener(SslMode::Preferred, TlsFiles::default()).unwrap().config().is_none());
    assert!(TlsStore::backend(SslMode::Required, TlsFiles::default()).unwrap().config().is_some());
    let error = TlsStore::backend(SslMode::VerifyIdentity, TlsFiles::default()).err().unwrap().to_string();
    assert!(error.contains("`ca`"), "{error}");
}
