//! TLS on both sides, with rustls: what the listener shows its clients and what the proxy asks of its servers.
//!
//! Modes have MySQL's names and meanings (`--ssl-mode`, manual section "Command Options for Encrypted Connections"):
//!
//! | mode | a backend's certificate | a client |
//! | --- | --- | --- |
//! | `disabled` | no TLS | no TLS offered |
//! | `preferred` | TLS if the server has it, certificate not checked | TLS if it wants |
//! | `required` | TLS or nothing, certificate not checked | TLS or error 3159 |
//! | `verify_ca` | signed by `ca`, any name | certificate signed by `client_ca` |
//! | `verify_identity` | signed by `ca`, its subjectAltName has the address' host | …and its common name is the user name |
//!
//! A client's `verify_identity` is PostgreSQL's `clientcert=verify-full`: MySQL has no word for it. Host names are looked
//! for in the subjectAltName only, never in the common name. TLS 1.2 and 1.3. When the files' contents change,
//! [`TlsStore::reload_if_changed`] takes them over for new connections; if they can't be used the old ones stay.

mod certificate;
mod unchecked;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use crate::types::SslMode;
pub use certificate::{common_name, not_after};

/// PEM files of one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate chain, leaf first.
    pub cert: Option<PathBuf>,
    /// The leaf's private key.
    pub key: Option<PathBuf>,
    /// Certificates that sign the peer's.
    pub ca: Option<PathBuf>,
}

/// Why the files can't be used: which one, what is wrong, what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {}: {error}: check the path and its permissions", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file holds nothing that fits.
    #[error("{} has no usable {wanted} in PEM form{}", file.display(), detail)]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What is wrong with it, with a leading `: `, or empty.
        detail: String,
    },
    /// A file is needed and not named.
    #[error("TLS mode {mode:?} needs `{missing}`: name a PEM file or choose another mode")]
    Missing {
        /// The mode that asks for it.
        mode: SslMode,
        /// The configuration's key.
        missing: &'static str,
    },
    /// rustls refuses the combination.
    #[error("the certificate and key of {} can't be used: {error}: is the key this certificate's?", file.display())]
    Mismatch {
        /// The certificate's file.
        file: PathBuf,
        /// What rustls says.
        error: rustls::Error,
    },
}

/// The certificates a side uses now, replaced when the files change.
pub struct TlsStore<C> {
    mode: SslMode,
    files: TlsFiles,
    build: fn(SslMode, &TlsFiles, &Contents) -> Result<Option<C>, TlsError>,
    current: ArcSwap<Current<C>>,
}

/// The listener's side.
pub type ListenerTls = TlsStore<ServerConfig>;
/// The servers' side.
pub type BackendTls = TlsStore<ClientConfig>;

struct Current<C> {
    config: Option<Arc<C>>,
    contents: [u8; 32],
    not_after: Option<SystemTime>,
}

/// The files as they were read together.
#[derive(Default)]
struct Contents {
    cert: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
    ca: Vec<CertificateDer<'static>>,
    digest: [u8; 32],
}

impl TlsStore<ServerConfig> {
    /// Reads the files of a listener. Blocking.
    pub fn listener(mode: SslMode, files: TlsFiles) -> Result<Self, TlsError> {
        Self::open(mode, files, server_config)
    }
}

impl TlsStore<ClientConfig> {
    /// Reads the files for connections to servers. Blocking.
    pub fn backend(mode: SslMode, files: TlsFiles) -> Result<Self, TlsError> {
        Self::open(mode, files, client_config)
    }

    /// No TLS.
    pub fn disabled() -> Self {
        Self {
            mode: SslMode::Disabled,
            files: TlsFiles::default(),
            build: client_config,
            current: ArcSwap::from_pointee(Current { config: None, contents: [0; 32], not_after: None }),
        }
    }
}

impl<C> TlsStore<C> {
    fn open(
        mode: SslMode,
        files: TlsFiles,
        build: fn(SslMode, &TlsFiles, &Contents) -> Result<Option<C>, TlsError>,
    ) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(load(mode, &files, build)?);
        Ok(Self { mode, files, build, current })
    }

    /// The mode.
    pub fn mode(&self) -> SslMode {
        self.mode
    }

    /// What new connections use; `None` if the mode is `disabled`, or `preferred` without a certificate to show.
    pub fn config(&self) -> Option<Arc<C>> {
        self.current.load().config.clone()
    }

    /// When our own certificate ends.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.current.load().not_after
    }

    /// Reads the files again and takes them over if their contents have changed and can be used: `true` then. On an
    /// error the old ones stay in use. Blocking.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if read_all(&self.files)?.digest == self.current.load().contents {
            return Ok(false);
        }
        self.current.store(Arc::new(load(self.mode, &self.files, self.build)?));
        Ok(true)
    }
}

fn load<C>(
    mode: SslMode,
    files: &TlsFiles,
    build: fn(SslMode, &TlsFiles, &Contents) -> Result<Option<C>, TlsError>,
) -> Result<Current<C>, TlsError> {
    if mode == SslMode::Disabled {
        return Ok(Current { config: None, contents: read_all(files)?.digest, not_after: None });
    }
    let contents = read_all(files)?;
    let config = build(mode, files, &contents)?.map(Arc::new);
    Ok(Current { config, not_after: contents.cert.first().and_then(|c| not_after(c)), contents: contents.digest })
}

fn read_all(files: &TlsFiles) -> Result<Contents, TlsError> {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut read = |file: &Option<PathBuf>| -> Result<Option<(PathBuf, Vec<u8>)>, TlsError> {
        let Some(file) = file else { return Ok(None) };
        let text = std::fs::read(file).map_err(|error| TlsError::Unreadable { file: file.clone(), error })?;
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(&text);
        Ok(Some((file.clone(), text)))
    };
    let (cert, key, ca) = (read(&files.cert)?, read(&files.key)?, read(&files.ca)?);
    let key =
        match key {
            Some((file, text)) => {
                Some(PrivateKeyDer::from_pem_slice(&zeroize::Zeroizing::new(text)).map_err(|error| {
                    TlsError::Unusable { file, wanted: "private key", detail: format!(": {error}") }
                })?)
            }
            None => None,
        };
    let mut contents = Contents { cert: certificates(cert)?, key, ca: certificates(ca)?, digest: [0; 32] };
    contents.digest.copy_from_slice(hash.finish().as_ref());
    Ok(contents)
}

fn certificates(file: Option<(PathBuf, Vec<u8>)>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let Some((file, text)) = file else { return Ok(Vec::new()) };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError::Unusable { file, wanted: "certificate", detail: String::new() }),
        Err(error) => Err(TlsError::Unusable { file, wanted: "certificate", detail: format!(": {error}") }),
    }
}

fn roots(mode: SslMode, file: Option<&Path>, ca: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let Some(file) = file else { return Err(TlsError::Missing { mode, missing: "ca" }) };
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        roots.add(certificate.clone()).map_err(|error| TlsError::Unusable {
            file: file.to_owned(),
            wanted: "CA certificate",
            detail: format!(": {error}"),
        })?;
    }
    Ok(Arc::new(roots))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn mismatch(file: &Option<PathBuf>) -> impl FnOnce(rustls::Error) -> TlsError {
    let file = file.clone().unwrap_or_default();
    move |error| TlsError::Mismatch { file, error }
}

fn server_config(mode: SslMode, files: &TlsFiles, contents: &Contents) -> Result<Option<ServerConfig>, TlsError> {
    let Some(key) = &contents.key else {
        // Without files a listener that merely prefers TLS has none to offer.
        let optional = mode == SslMode::Preferred && contents.cert.is_empty();
        return if optional { Ok(None) } else { Err(TlsError::Missing { mode, missing: "key" }) };
    };
    if contents.cert.is_empty() {
        return Err(TlsError::Missing { mode, missing: "cert" });
    }
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(mismatch(&files.cert))?;
    let builder = if mode.verifies() {
        let roots = roots(mode, files.ca.as_deref(), &contents.ca)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(|error| {
            let file = files.ca.clone().unwrap_or_default();
            TlsError::Unusable { file, wanted: "CA certificate", detail: format!(": {error}") }
        })?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let config = builder.with_single_cert(contents.cert.clone(), key.clone_key()).map_err(mismatch(&files.cert))?;
    Ok(Some(config))
}

fn client_config(mode: SslMode, files: &TlsFiles, contents: &Contents) -> Result<Option<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(mismatch(&files.cert))?;
    let builder = match mode {
        SslMode::Disabled => return Ok(None),
        SslMode::Preferred | SslMode::Required => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(unchecked::Unchecked::new(provider())))
        }
        SslMode::VerifyCa => {
            let roots = roots(mode, files.ca.as_deref(), &contents.ca)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(unchecked::AnyName::new(roots, provider())))
        }
        SslMode::VerifyIdentity => {
            let roots = roots(mode, files.ca.as_deref(), &contents.ca)?;
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
            builder.with_webpki_verifier(verifier.map_err(|error| TlsError::Unusable {
                file: files.ca.clone().unwrap_or_default(),
                wanted: "CA certificate",
                detail: format!(": {error}"),
            })?)
        }
    };
    let config = match (&contents.key, contents.cert.is_empty()) {
        (Some(key), false) => {
            builder.with_client_auth_cert(contents.cert.clone(), key.clone_key()).map_err(mismatch(&files.cert))?
        }
        (None, true) => builder.with_no_client_auth(),
        (Some(_), true) => return Err(TlsError::Missing { mode, missing: "cert" }),
        (None, false) => return Err(TlsError::Missing { mode, missing: "key" }),
    };
    Ok(Some(config))
}

/// The name a server is asked for in SNI. A host that is no DNS name is asked for without one, which is good enough
/// where names aren't verified, and fails the verification where they are.
pub fn server_name(host: &str) -> ServerName<'static> {
    let unnamed = || ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into());
    ServerName::try_from(host.to_owned()).unwrap_or_else(|_| unnamed())
}

#[cfg(test)]
mod tests;
