//! Credentials at rest: encrypted under a random key of this process, so that a map of them, dumped alone, shows nothing.
//!
//! It is no defence against who can read all of the process' memory; the key is there too.

use super::Credential;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bits of the first byte of what is sealed: which parts follow.
const HAS_PASSWORD: u8 = 1;
const HAS_SHA2: u8 = 2;
const HAS_NATIVE: u8 = 4;

/// The key that seals; one per process.
pub struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// A sealer with a random key, or nothing if the system gives no randomness.
    pub fn new() -> Option<Arc<Self>> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut key[..]).ok()?;
        Some(Arc::new(Self(RandomizedNonceKey::new(&AES_256_GCM, &key[..]).ok()?)))
    }

    fn seal(&self, credential: &Credential) -> Option<Sealed> {
        let password = credential.password_bytes();
        // A known password gives both hashes: they are stored only where they stand alone.
        let alone = password.is_none();
        let sha2 = credential.sha2_stage1().filter(|_| alone);
        let native = credential.native_stage1().filter(|_| alone);
        let flag = |present: bool, bit: u8| if present { bit } else { 0 };
        // Large enough to never move while it holds a secret, tag included.
        let mut text = Vec::with_capacity(1 + 32 + 20 + password.map_or(0, <[u8]>::len) + AES_256_GCM.tag_len());
        text.push(
            flag(password.is_some(), HAS_PASSWORD)
                | flag(sha2.is_some(), HAS_SHA2)
                | flag(native.is_some(), HAS_NATIVE),
        );
        text.extend_from_slice(sha2.as_ref().map_or(&[], |stage1| &stage1[..]));
        text.extend_from_slice(native.as_ref().map_or(&[], |stage1| &stage1[..]));
        text.extend_from_slice(password.unwrap_or_default());
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut text).ok()?;
        Some(Sealed { nonce: *nonce.as_ref(), text: text.into_boxed_slice() })
    }

    fn open(&self, sealed: &Sealed) -> Option<Credential> {
        let mut text = Zeroizing::new(sealed.text.to_vec());
        let nonce = Nonce::assume_unique_for_key(sealed.nonce);
        let text = self.0.open_in_place(nonce, Aad::empty(), &mut text).ok()?;
        let (&parts, mut rest) = text.split_first()?;
        let mut credential = Credential::default();
        if parts & HAS_SHA2 != 0 {
            let (stage1, left) = rest.split_first_chunk::<32>()?;
            credential = credential.with_sha2(Zeroizing::new(*stage1));
            rest = left;
        }
        if parts & HAS_NATIVE != 0 {
            let (stage1, left) = rest.split_first_chunk::<20>()?;
            credential = credential.with_native(Zeroizing::new(*stage1));
            rest = left;
        }
        if parts & HAS_PASSWORD != 0 {
            credential = credential.with_password(Some(Zeroizing::new(rest.to_vec())));
        }
        Some(credential)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

struct Sealed {
    nonce: [u8; 12],
    text: Box<[u8]>,
}

/// A credential at rest: of a session for its further backend logins, or of a cache entry. About 80 bytes.
#[derive(Clone)]
pub struct SessionCredential {
    sealer: Arc<Sealer>,
    sealed: Arc<Sealed>,
}

impl SessionCredential {
    /// Seals `credential`; `None` only if encryption itself fails.
    pub fn seal(sealer: &Arc<Sealer>, credential: &Credential) -> Option<Self> {
        Some(Self { sealer: sealer.clone(), sealed: Arc::new(sealer.seal(credential)?) })
    }

    /// The credential in the clear, to be dropped after the login it is for.
    pub fn open(&self) -> Credential {
        self.sealer.open(&self.sealed).unwrap_or_default()
    }
}

impl fmt::Debug for SessionCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionCredential")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::auth::{native_stage1, sha2_stage1};

    #[test]
    fn what_is_sealed_comes_back_and_does_not_show() {
        let sealer = Sealer::new().unwrap();
        let password = Zeroizing::new(b"correct horse".to_vec());
        let sealed = SessionCredential::seal(&sealer, &Credential::password(password)).unwrap();
        assert_eq!(sealed.open().password_bytes(), Some(&b"correct horse"[..]));
        assert!(!sealed.sealed.text.windows(5).any(|w| w == b"horse"));

        let hashes = Credential::sha2(sha2_stage1(b"x")).with_native(native_stage1(b"x"));
        let open = SessionCredential::seal(&sealer, &hashes).unwrap().open();
        assert_eq!(open.password_bytes(), None);
        assert_eq!(open.sha2_stage1(), Some(sha2_stage1(b"x")));
        assert_eq!(open.native_stage1(), Some(native_stage1(b"x")));

        let empty = SessionCredential::seal(&sealer, &Credential::empty()).unwrap().open();
        assert!(empty.is_empty());
    }
}
