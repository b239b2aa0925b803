//! What is known of an account's password: the password itself, or hashes that answer a challenge in its place.

use crate::wire::auth::{NativeStage1, Sha2Stage1, native_stage1, sha2_stage1};
use std::fmt;
use zeroize::Zeroizing;

/// One account's proof, in the clear: short-lived, wiped when dropped, never printed. The default knows nothing.
#[derive(Clone, Default)]
pub struct Credential {
    password: Option<Zeroizing<Vec<u8>>>,
    sha2: Option<Sha2Stage1>,
    native: Option<NativeStage1>,
}

impl Credential {
    /// The empty password.
    pub fn empty() -> Self {
        Self::password(Zeroizing::default())
    }

    /// The password itself: good for every plugin.
    pub fn password(password: Zeroizing<Vec<u8>>) -> Self {
        Self { password: Some(password), sha2: None, native: None }
    }

    /// `SHA256(password)` alone: good for caching_sha2_password where the server's own cache is warm.
    pub fn sha2(stage1: Sha2Stage1) -> Self {
        Self::default().with_sha2(stage1)
    }

    /// `SHA1(password)` alone: good for mysql_native_password.
    pub fn native(stage1: NativeStage1) -> Self {
        Self::default().with_native(stage1)
    }

    /// Adds `SHA256(password)`.
    pub fn with_sha2(mut self, stage1: Sha2Stage1) -> Self {
        self.sha2 = Some(stage1);
        self
    }

    /// Adds `SHA1(password)`.
    pub fn with_native(mut self, stage1: NativeStage1) -> Self {
        self.native = Some(stage1);
        self
    }

    /// Adds the password that belongs to a hash, if there is one.
    pub fn with_password(mut self, password: Option<Zeroizing<Vec<u8>>>) -> Self {
        self.password = password.or(self.password);
        self
    }

    /// True for the empty password.
    pub fn is_empty(&self) -> bool {
        self.password.as_ref().is_some_and(|password| password.is_empty())
    }

    /// The password, if it is known.
    pub fn password_bytes(&self) -> Option<&[u8]> {
        self.password.as_ref().map(|password| password.as_slice())
    }

    /// `SHA256(password)`, if it is known.
    pub fn sha2_stage1(&self) -> Option<Sha2Stage1> {
        self.sha2.clone().or_else(|| self.password_bytes().map(sha2_stage1))
    }

    /// `SHA1(password)`, if it is known.
    pub fn native_stage1(&self) -> Option<NativeStage1> {
        self.native.clone().or_else(|| self.password_bytes().map(native_stage1))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("password", &self.password.is_some())
            .field("sha2", &self.sha2.is_some())
            .field("native", &self.native.is_some())
            .finish()
    }
}
