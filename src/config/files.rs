//! The files a configuration names: passwords, certificates, keys.
//!
//! They are looked at when the configuration is read, so that a missing mount is refused at the start with the line
//! that names it and not found out at the first login. Reads are bounded and only regular files are opened.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::secret::Secret;
use super::section::Section;

/// The largest password file; MySQL's own limit on a password is 256 characters.
const PASSWORD_FILE_BYTES_MAX: u64 = 4 << 10;
/// The largest file of certificates, keys or accounts: a system's whole CA bundle is about 200 KiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads a whole text file of bounded size.
///
/// # Errors
/// Why not, for the operator.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<Zeroizing<String>, String> {
    let bytes = read(path, bytes_max)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err("is not UTF-8 text".to_owned()),
    }
}

fn read(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    // Opening a FIFO would block until somebody writes.
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("is not a file".to_owned());
    }
    if about.len() > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    // The capacity is given so that growing does not leave a copy of a secret behind.
    let capacity = usize::try_from(about.len()).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}

impl Section<'_, '_> {
    /// A readable file, with what it holds.
    fn read_file(&self, key: &'static str, bytes_max: u64) -> Option<(PathBuf, Zeroizing<Vec<u8>>)> {
        let text = self.text(key)?;
        if text.is_empty() {
            self.refuse(key, "write the path of a file");
            return None;
        }
        let path = self.cx.directory.join(text);
        match read(&path, bytes_max) {
            Ok(bytes) => Some((path, bytes)),
            Err(why) => {
                self.refuse(key, format_args!("{}: {why}: write the path of a readable file", path.display()));
                None
            }
        }
    }

    /// The path of a readable file.
    pub fn file(&self, key: &'static str) -> Option<PathBuf> {
        Some(self.read_file(key, FILE_BYTES_MAX)?.0)
    }

    /// The path of a PEM file with at least one certificate.
    pub fn certificates(&self, key: &'static str) -> Option<PathBuf> {
        let (path, bytes) = self.read_file(key, FILE_BYTES_MAX)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        if certificates.is_ok_and(|found| !found.is_empty()) {
            return Some(path);
        }
        let advice = "holds no certificate: write the path of a PEM file with BEGIN CERTIFICATE";
        self.refuse(key, format_args!("{}: {advice}", path.display()));
        None
    }

    /// The path of a PEM file with a private key.
    pub fn private_key(&self, key: &'static str) -> Option<PathBuf> {
        let (path, bytes) = self.read_file(key, FILE_BYTES_MAX)?;
        if PrivateKeyDer::from_pem_slice(&bytes).is_ok() {
            return Some(path);
        }
        let advice = "holds no private key: write the path of a PEM file with BEGIN PRIVATE KEY, without passphrase";
        self.refuse(key, format_args!("{}: {advice}", path.display()));
        None
    }

    /// A password from a file. One line end at its end is not part of it: editors and `kubectl` users add it unseen.
    pub fn password_file(&self, key: &'static str) -> Option<Secret> {
        let (path, bytes) = self.read_file(key, PASSWORD_FILE_BYTES_MAX)?;
        let Ok(text) = std::str::from_utf8(&bytes) else {
            self.refuse(key, format_args!("{}: is not UTF-8 text", path.display()));
            return None;
        };
        let text = text.strip_suffix('\n').unwrap_or(text);
        Some(Secret::new(text.strip_suffix('\r').unwrap_or(text)))
    }
}
