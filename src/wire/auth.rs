//! \[pure\] Scrambles: how a client answers a challenge, and what the proxy learns from an answer it can verify.
//!
//! What makes pass-through logins possible: an answer of caching_sha2_password or mysql_native_password, together with
//! the account's verifier, gives away the hash that answers *any* challenge. So a client that has once been proven by a
//! server can be logged in to other servers without its password. Sources: MySQL's "Caching_sha2_password information",
//! sql/auth/sha2_password_common.h and sql/auth/password.c.

use super::handshake::NONCE;
use aws_lc_rs::{constant_time, digest};
use mysql_common::auth::plugins::client_ed25519::ClientEd25519;
use mysql_common::auth::plugins::{ChallengeResponsePlugin, Context};
use zeroize::Zeroizing;

/// `SHA256(password)`: answers any caching_sha2_password challenge. A secret.
pub type Sha2Stage1 = Zeroizing<[u8; 32]>;
/// `SHA1(password)`: answers any mysql_native_password challenge. A secret.
pub type NativeStage1 = Zeroizing<[u8; 20]>;

/// SHA-256 of the parts, one after the other.
fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// SHA-1 of the parts, one after the other.
fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-1 has 20 bytes")
}

fn xor<const N: usize>(mut left: [u8; N], right: &[u8; N]) -> [u8; N] {
    left.iter_mut().zip(right).for_each(|(l, r)| *l ^= r);
    left
}

/// `SHA256(password)`.
pub fn sha2_stage1(password: &[u8]) -> Sha2Stage1 {
    Zeroizing::new(sha256(&[password]))
}

/// The verifier of caching_sha2_password's cache: `SHA256(SHA256(password))`.
pub fn sha2_verifier(stage1: &Sha2Stage1) -> [u8; 32] {
    sha256(&[&stage1[..]])
}

/// The fast answer of caching_sha2_password: `stage1 XOR SHA256(SHA256(stage1) || nonce)`.
pub fn sha2_scramble(stage1: &Sha2Stage1, nonce: &[u8; NONCE]) -> [u8; 32] {
    xor(sha256(&[&sha2_verifier(stage1), nonce]), stage1)
}

/// Recovers `SHA256(password)` from a client's answer, if the answer fits the verifier. `None` for a wrong password or
/// an answer that is no scramble.
pub fn sha2_recover(answer: &[u8], verifier: &[u8; 32], nonce: &[u8; NONCE]) -> Option<Sha2Stage1> {
    let answer: &[u8; 32] = answer.try_into().ok()?;
    let stage1 = Zeroizing::new(xor(sha256(&[verifier, nonce]), answer));
    constant_time::verify_slices_are_equal(&sha2_verifier(&stage1), verifier).ok()?;
    Some(stage1)
}

/// `SHA1(password)`.
pub fn native_stage1(password: &[u8]) -> NativeStage1 {
    Zeroizing::new(sha1(&[password]))
}

/// The verifier of mysql_native_password, as mysql.user keeps it behind a `*` in hexadecimal: `SHA1(SHA1(password))`.
pub fn native_verifier(stage1: &NativeStage1) -> [u8; 20] {
    sha1(&[&stage1[..]])
}

/// The answer of mysql_native_password: `stage1 XOR SHA1(nonce || SHA1(stage1))`.
pub fn native_scramble(stage1: &NativeStage1, nonce: &[u8; NONCE]) -> [u8; 20] {
    xor(sha1(&[nonce, &native_verifier(stage1)]), stage1)
}

/// Recovers `SHA1(password)` from a client's answer, if the answer fits the verifier.
pub fn native_recover(answer: &[u8], verifier: &[u8; 20], nonce: &[u8; NONCE]) -> Option<NativeStage1> {
    let answer: &[u8; 20] = answer.try_into().ok()?;
    let stage1 = Zeroizing::new(xor(sha1(&[nonce, verifier]), answer));
    constant_time::verify_slices_are_equal(&native_verifier(&stage1), verifier).ok()?;
    Some(stage1)
}

/// Reads a verifier as mysql.user shows it: `*` and 40 hexadecimal digits.
pub fn native_verifier_from_text(text: &[u8]) -> Option<[u8; 20]> {
    let digits = text.strip_prefix(b"*").filter(|digits| digits.len() == 40)?;
    let mut verifier = [0; 20];
    for (byte, pair) in verifier.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?];
        *byte = (high << 4 | low) as u8;
    }
    Some(verifier)
}

/// The password with its closing zero byte, XORed with the repeated nonce: what both RSA exchanges encrypt. The same
/// function undoes it.
pub fn obfuscate(text: &mut [u8], nonce: &[u8; NONCE]) {
    text.iter_mut().zip(nonce.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
}

/// The password as it crosses a TLS tunnel: with a closing zero byte.
pub fn with_zero(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(password.len() + 1));
    text.extend_from_slice(password);
    text.push(0);
    text
}

/// The answer of client_ed25519 to a 32-byte challenge: a 64-byte signature. `None` if the challenge has another length.
pub fn ed25519_answer(password: &[u8], challenge: &[u8]) -> Option<Vec<u8>> {
    let response = ClientEd25519::default().run(Password(password), challenge).ok()?;
    response.data().map(<[u8]>::to_vec)
}

/// What mysql_common's plugins ask of their surroundings; ed25519 needs the password alone.
struct Password<'a>(&'a [u8]);

impl Context for Password<'_> {
    fn pass(&self) -> &[u8] {
        self.0
    }
    fn is_ipc_transport(&self) -> bool {
        false
    }
    fn is_tls_transport(&self) -> bool {
        false
    }
    fn scramble(&self) -> &[u8] {
        &[]
    }
    fn server_key_pem(&self) -> Option<&[u8]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE_A: [u8; NONCE] = *b"abcdefghijklmnopqrst";

    #[test]
    fn an_answer_and_the_verifier_give_the_hash_back() {
        let stage1 = sha2_stage1(b"secret");
        let answer = sha2_scramble(&stage1, &NONCE_A);
        let verifier = sha2_verifier(&stage1);
        assert_eq!(sha2_recover(&answer, &verifier, &NONCE_A).as_deref(), Some(&*stage1));
        assert!(sha2_recover(&answer, &verifier, b"another nonce 123456").is_none());
        assert!(sha2_recover(&answer[1..], &verifier, &NONCE_A).is_none());

        let stage1 = native_stage1(b"secret");
        let answer = native_scramble(&stage1, &NONCE_A);
        let verifier = native_verifier(&stage1);
        assert_eq!(native_recover(&answer, &verifier, &NONCE_A).as_deref(), Some(&*stage1));
        assert!(native_recover(&native_scramble(&native_stage1(b"Secret"), &NONCE_A), &verifier, &NONCE_A).is_none());
    }

    #[test]
    fn scrambles_are_those_of_mysqls_own_clients() {
        use mysql_common::auth::plugins::caching_sha2_password::CachingSha2Password;
        use mysql_common::auth::plugins::mysql_native_password::MysqlNativePassword;
        let theirs = CachingSha2Password::default().run(Password(b"secret"), &NONCE_A).unwrap();
        assert_eq!(theirs.data(), Some(&sha2_scramble(&sha2_stage1(b"secret"), &NONCE_A)[..]));
        let theirs = MysqlNativePassword::default().run(Password(b"secret"), &NONCE_A).unwrap();
        assert_eq!(theirs.data(), Some(&native_scramble(&native_stage1(b"secret"), &NONCE_A)[..]));
    }

    #[test]
    fn verifiers_are_read_from_mysql_user() {
        // SELECT PASSWORD('mypass') on any MySQL from 4.1 to 5.7.
        let text = b"*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4";
        assert_eq!(native_verifier_from_text(text), Some(native_verifier(&native_stage1(b"mypass"))));
        for bad in
            [&b""[..], b"*", b"6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4", b"*zC8989366EAF75BB670AD8EA7A7FC1176A95CEF4"]
        {
            assert_eq!(native_verifier_from_text(bad), None);
        }
    }
}
