//! RSA as caching_sha2_password and sha256_password use it without TLS: OAEP with SHA-1 over the password XORed with the
//! challenge.
//!
//! aws-lc-rs does the arithmetic in constant time. Keys below 2048 or above 8192 bits are refused.

use crate::wire::auth::{obfuscate, with_zero};
use crate::wire::handshake::NONCE;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
    PublicEncryptingKey,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

/// Why a password could not be passed under an RSA key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are no PEM public key.
    #[error("not a PEM public key")]
    NotPem,
    /// The key is no RSA key of 2048 to 8192 bits.
    #[error("not an RSA public key of 2048 to 8192 bits")]
    NotRsa,
    /// The password does not fit under the key.
    #[error("the password is too long for the RSA key")]
    TooLong,
    /// The text could not be decrypted: another key, or tampered with.
    #[error("the password could not be decrypted with this RSA key")]
    Undecipherable,
}

/// Encrypts a password for a server: `OAEP((password || 0) XOR nonce)` under the server's PEM public key.
pub fn encrypt_password(pem: &[u8], password: &[u8], nonce: &[u8; NONCE]) -> Result<Vec<u8>, KeyError> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| KeyError::NotPem)?;
    let key = PublicEncryptingKey::from_der(&der).map_err(|_| KeyError::NotRsa)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| KeyError::NotRsa)?;
    let mut text = with_zero(password);
    if text.len() > key.max_plaintext_size(&OAEP_SHA1_MGF1SHA1) {
        return Err(KeyError::TooLong);
    }
    obfuscate(&mut text, nonce);
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA1_MGF1SHA1, &text, &mut out, None).map_err(|_| KeyError::NotRsa)?;
    Ok(out)
}

/// The proxy's own key, shown to clients that ask for it and made when the first one does.
#[derive(Default)]
pub struct RsaKey(OnceCell<Pair>);

struct Pair {
    private: OaepPrivateDecryptingKey,
    pem: Vec<u8>,
}

impl RsaKey {
    /// A key that is made at its first use: 2048 bits, as MySQL's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The public key in PEM. The first call makes the key on a blocking thread, about a tenth of a second; `None` if
    /// that fails. Cancel safe.
    pub async fn public_pem(&self) -> Option<&[u8]> {
        let pair = self.0.get_or_try_init(|| async {
            let made = tokio::task::spawn_blocking(Pair::generate).await;
            made.map_err(|_| KeyError::NotRsa)?
        });
        pair.await.ok().map(|pair| pair.pem.as_slice())
    }

    /// The password from what a client encrypted, without its closing zero byte. A millisecond of arithmetic.
    pub fn decrypt(&self, text: &[u8], nonce: &[u8; NONCE]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let pair = self.0.get().ok_or(KeyError::Undecipherable)?;
        let mut out = Zeroizing::new(vec![0; pair.private.min_output_size()]);
        let length = pair
            .private
            .decrypt(&OAEP_SHA1_MGF1SHA1, text, &mut out, None)
            .map_err(|_| KeyError::Undecipherable)?
            .len();
        out.truncate(length);
        obfuscate(&mut out, nonce);
        if out.pop() != Some(0) {
            return Err(KeyError::Undecipherable);
        }
        Ok(out)
    }

    /// Bytes of an encrypted password, 256; `None` before the key is made.
    pub fn ciphertext_bytes(&self) -> Option<usize> {
        self.0.get().map(|pair| pair.private.key_size_bytes())
    }
}

impl Pair {
    fn generate() -> Result<Self, KeyError> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| KeyError::NotRsa)?;
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|_| KeyError::NotRsa)?;
        let pem = pem(der.as_ref());
        let private = OaepPrivateDecryptingKey::new(key).map_err(|_| KeyError::NotRsa)?;
        Ok(Self { private, pem })
    }
}

/// A PEM block of a public key (RFC 7468).
fn pem(der: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(der.len() / 3 * 4 + 128);
    text.extend_from_slice(b"-----BEGIN PUBLIC KEY-----\n");
    for line in der.chunks(48) {
        for chunk in line.chunks(3) {
            let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for i in 0..4 {
                let digit = ALPHABET[(bits >> (18 - 6 * i)) as usize & 63];
                text.push(if i <= chunk.len() { digit } else { b'=' });
            }
        }
        text.push(b'\n');
    }
    text.extend_from_slice(b"-----END PUBLIC KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_finds_the_key_and_its_password_comes_back() {
        let key = RsaKey::new();
        let pem = key.public_pem().await.unwrap().to_vec();
        let nonce = *b"abcdefghijklmnopqrst";
        for password in [&b""[..], b"secret", &[b'x'; 200]] {
            let text = encrypt_password(&pem, password, &nonce).unwrap();
            assert_eq!(Some(text.len()), key.ciphertext_bytes());
            assert_eq!(key.decrypt(&text, &nonce).unwrap().as_slice(), password);
            assert_eq!(key.decrypt(&text, b"zyxwvutsrqponmlkjihg"), Err(KeyError::Undecipherable));
            assert_eq!(key.decrypt(&text[1..], &nonce), Err(KeyError::Undecipherable));
        }
        assert_eq!(encrypt_password(&pem, &[b'x'; 300], &nonce), Err(KeyError::TooLong));
        assert_eq!(encrypt_password(b"no key", b"", &nonce), Err(KeyError::NotPem));
        // And for mysql_common's reader, as Rust clients use it.
        assert!(mysql_common::crypto::rsa::PublicKey::from_pem(&pem).is_ok());
    }
}
