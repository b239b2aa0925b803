//! Where verifiers come from besides logins: a file (a mounted Secret), or the servers' own mysql.user.
//!
//! They matter to clients that answer with mysql_native_password and can't be asked for their password: the verifier is
//! all it takes to recognize them, and to log in as them. The file may also hold passwords, which are good for every
//! plugin.
//!
//! The file has one account per line, `user:password` or `user:*` and 40 hexadecimal digits (what mysql.user shows for
//! mysql_native_password). Lines that are empty or begin with `#` mean nothing; there is no quoting, and everything
//! behind the first colon is the password.

use super::cache::Verifier;
use super::{Credential, Sealer, SessionCredential};
use crate::backend::{ConnectError, ConnectTarget, LoginRequest, QueryError, connect, query_text};
use crate::wire::auth::{native_stage1, native_verifier, native_verifier_from_text, sha2_stage1, sha2_verifier};
use crate::wire::capabilities::Capabilities;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Accounts a source may have.
pub const ACCOUNTS_MAX: usize = 10_000;
/// Bytes a source may have.
const BYTES_MAX: usize = 4 << 20;

/// Account name → verifiers of its passwords (several where several hosts have one of their own).
pub type Verifiers = HashMap<Box<[u8]>, Vec<Verifier>>;

/// Why a source can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file could not be read.
    #[error("cannot read {}: {error}: check the path and its permissions", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A line of the file is not an account.
    #[error("{} line {line}: write `user:password` or `user:*` and 40 hexadecimal digits", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
    /// More accounts or bytes than are taken.
    #[error("{} has more than {ACCOUNTS_MAX} accounts or 4 MiB", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
    },
    /// No server could be asked.
    #[error("reading accounts from a server: {0}")]
    Connect(#[from] ConnectError),
    /// The server would not tell: the service account lacks SELECT on mysql.user.
    #[error("reading accounts from a server: {0}: the service account needs SELECT on mysql.user")]
    Query(#[from] QueryError),
}

/// An account file as it was last read.
pub struct AccountFile {
    path: PathBuf,
    sealer: Arc<Sealer>,
    verifiers: ArcSwap<Verifiers>,
}

impl AccountFile {
    /// Reads it. Blocking.
    pub fn open(path: PathBuf, sealer: Arc<Sealer>) -> Result<Self, SourceError> {
        let verifiers = ArcSwap::from_pointee(read_file(&path, &sealer)?);
        Ok(Self { path, sealer, verifiers })
    }

    /// Reads it again; on an error what was read before stays. Blocking.
    pub fn reload(&self) -> Result<(), SourceError> {
        self.verifiers.store(Arc::new(read_file(&self.path, &self.sealer)?));
        Ok(())
    }

    /// What recognizes the passwords of `user`; none where the file does not have it.
    pub fn find(&self, user: &[u8]) -> Option<Vec<Verifier>> {
        self.verifiers.load().get(user).cloned()
    }
}

/// Reads an account file. Blocking.
pub fn read_file(file: &Path, sealer: &Arc<Sealer>) -> Result<Verifiers, SourceError> {
    let text = std::fs::read(file).map_err(|error| SourceError::Unreadable { file: file.to_owned(), error })?;
    let text = Zeroizing::new(text);
    if text.len() > BYTES_MAX {
        return Err(SourceError::TooLong { file: file.to_owned() });
    }
    let mut verifiers = Verifiers::new();
    for (n, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let colon = memchr::memchr(b':', line).filter(|at| *at > 0);
        let Some(colon) = colon else { return Err(SourceError::Line { file: file.to_owned(), line: n + 1 }) };
        let (user, secret) = (&line[..colon], &line[colon + 1..]);
        let verifier = match native_verifier_from_text(secret) {
            Some(native) => Verifier { sha2: None, native: Some(native), sealed: None },
            None => of_password(secret, sealer),
        };
        verifiers.entry(user.into()).or_default().push(verifier);
        if verifiers.len() > ACCOUNTS_MAX {
            return Err(SourceError::TooLong { file: file.to_owned() });
        }
    }
    Ok(verifiers)
}

/// What recognizes `password`.
pub fn of_password(password: &[u8], sealer: &Arc<Sealer>) -> Verifier {
    let credential = Credential::password(Zeroizing::new(password.to_vec()));
    Verifier {
        sha2: Some(sha2_verifier(&sha2_stage1(password))),
        native: Some(native_verifier(&native_stage1(password))),
        sealed: SessionCredential::seal(sealer, &credential),
    }
}

/// Reads the accounts that use mysql_native_password from a server, as the service account `user`. MariaDB shows such
/// accounts from before its 10.4 with an empty plugin.
pub async fn read_server(
    target: &ConnectTarget,
    user: &[u8],
    credential: &Credential,
) -> Result<Verifiers, SourceError> {
    let login = LoginRequest {
        user,
        credential,
        database: None,
        collation: 45,
        capabilities: Capabilities::OWN,
        attributes: &[],
        max_packet_size: 1 << 24,
    };
    let mut connected = connect(target, &login).await?;
    let sql = format!(
        "SELECT user, authentication_string FROM mysql.user \
         WHERE plugin IN ('mysql_native_password', '') AND authentication_string <> '' LIMIT {ACCOUNTS_MAX}"
    );
    let rows = query_text(&mut connected.channel, connected.capabilities, &sql, BYTES_MAX).await?;
    let mut sequence = 0;
    // COM_QUIT: without it the server counts an aborted connection.
    let _ = connected.channel.write_packet(&mut sequence, &[1]).await;
    let mut verifiers = Verifiers::new();
    for row in rows {
        let [Some(user), Some(text)] = &row[..] else { continue };
        if let Some(native) = native_verifier_from_text(text) {
            let verifier = Verifier { sha2: None, native: Some(native), sealed: None };
            verifiers.entry(user[..].into()).or_default().push(verifier);
        }
    }
    Ok(verifiers)
}
