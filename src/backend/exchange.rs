//! The client's half of an authentication plugin's exchange, from the first answer to OK or ERR.
//!
//! ```text
//! first answer ──► AuthSwitchRequest ──► answer of the other plugin (once)
//!              ──► AuthMoreData 3 (fast auth ok) ──► OK
//!              ──► AuthMoreData 4 (full auth) ──► TLS: password; else: ask for the RSA key, encrypted password ──► OK
//!              ──► OK | ERR
//! ```
//! Without TLS the RSA key is the one the server sends: MySQL's own `--get-server-public-key`. It keeps listeners out, not
//! somebody who sits in between; that takes TLS with `verify_ca` or more.

use super::connect::{ConnectError, LOGIN_PACKET_MAX};
use crate::accounts::{Credential, encrypt_password};
use crate::transport::Channel;
use crate::wire::auth::{ed25519_answer, native_scramble, sha2_scramble, with_zero};
use crate::wire::handshake::{
    AuthSwitch, CACHING_SHA2, CLEAR, ED25519, Greeting, MORE_DATA, NATIVE, NONCE, SHA256, SWITCH,
};
use crate::wire::{err, ok};
use bytes::Bytes;
use zeroize::Zeroizing;

/// caching_sha2_password: the scramble was right and the server's cache is warm; OK follows.
const FAST_AUTH_OK: u8 = 3;
/// caching_sha2_password: the server wants the password.
const FULL_AUTH: u8 = 4;
/// caching_sha2_password: asks for the server's RSA key.
const SHA2_KEY_REQUEST: &[u8] = &[2];
/// sha256_password: asks for the server's RSA key.
const SHA256_KEY_REQUEST: &[u8] = &[1];

/// The plugins the proxy can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// caching_sha2_password.
    CachingSha2,
    /// mysql_native_password.
    Native,
    /// sha256_password.
    Sha256,
    /// mysql_clear_password.
    Clear,
    /// client_ed25519.
    Ed25519,
}

impl Plugin {
    fn from_name(name: &[u8]) -> Option<Self> {
        [Self::CachingSha2, Self::Native, Self::Sha256, Self::Clear, Self::Ed25519]
            .into_iter()
            .find(|plugin| plugin.name() == name)
    }

    /// The name on the wire.
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::CachingSha2 => CACHING_SHA2,
            Self::Native => NATIVE,
            Self::Sha256 => SHA256,
            Self::Clear => CLEAR,
            Self::Ed25519 => ED25519,
        }
    }
}

/// An exchange whose first answer is made.
pub struct Exchange<'a> {
    credential: &'a Credential,
    /// The plugin that made the first answer.
    pub plugin: Plugin,
    /// The first answer.
    pub first: Zeroizing<Vec<u8>>,
}

impl<'a> Exchange<'a> {
    /// Chooses a plugin the credential can answer, the server's default if possible, and makes the first answer.
    pub fn start(credential: &'a Credential, greeting: &Greeting<'_>, secure: bool) -> Result<Self, ConnectError> {
        // Only what makes a scramble from the greeting's 20 bytes: the rest waits for the server's switch.
        let plugin = match Plugin::from_name(&greeting.plugin) {
            Some(Plugin::Native) if credential.native_stage1().is_some() => Plugin::Native,
            _ if credential.sha2_stage1().is_some() => Plugin::CachingSha2,
            _ => Plugin::Native,
        };
        let first = answer(plugin, credential, &greeting.nonce, secure)?;
        Ok(Self { credential, plugin, first })
    }

    /// Goes on until the server's OK, whose payload it answers. `nonce` is the greeting's.
    pub async fn finish(
        &self,
        channel: &mut Channel,
        sequence: &mut u8,
        mut nonce: [u8; NONCE],
        secure: bool,
    ) -> Result<Bytes, ConnectError> {
        let mut plugin = self.plugin;
        let mut switched = false;
        loop {
            let packet = channel.read_packet(sequence, LOGIN_PACKET_MAX, false).await?.freeze();
            match packet.first().copied() {
                Some(ok::HEADER) => return Ok(packet),
                Some(err::HEADER) => return Err(ConnectError::Refused(packet)),
                Some(SWITCH) if !switched => {
                    switched = true;
                    let switch = AuthSwitch::parse(&packet)?;
                    plugin = Plugin::from_name(switch.plugin).ok_or_else(|| {
                        ConnectError::UnsupportedPlugin(String::from_utf8_lossy(switch.plugin).into_owned())
                    })?;
                    if let Some(fresh) = switch.data.first_chunk() {
                        nonce = *fresh;
                    }
                    let answer = answer(plugin, self.credential, switch.data, secure)?;
                    channel.write_packet(sequence, &answer).await?;
                }
                Some(MORE_DATA) => match (plugin, &packet[1..]) {
                    (Plugin::CachingSha2, [FAST_AUTH_OK]) => {}
                    (Plugin::CachingSha2, [FULL_AUTH]) => {
                        let password = self.credential.password_bytes().ok_or(ConnectError::CredentialInsufficient)?;
                        if secure {
                            channel.write_packet(sequence, &with_zero(password)).await?;
                            continue;
                        }
                        channel.write_packet(sequence, SHA2_KEY_REQUEST).await?;
                        let key = channel.read_packet(sequence, LOGIN_PACKET_MAX, false).await?.freeze();
                        send_encrypted(channel, sequence, &key, password, &nonce).await?;
                    }
                    // The answer to SHA256_KEY_REQUEST.
                    (Plugin::Sha256, _) if !secure => {
                        let password = self.credential.password_bytes().ok_or(ConnectError::CredentialInsufficient)?;
                        send_encrypted(channel, sequence, &packet, password, &nonce).await?;
                    }
                    _ => return Err(ConnectError::Protocol("unexpected AuthMoreData".to_owned())),
                },
                _ => return Err(ConnectError::Protocol("unexpected packet during the login".to_owned())),
            }
        }
    }
}

async fn send_encrypted(
    channel: &mut Channel,
    sequence: &mut u8,
    packet: &Bytes,
    password: &[u8],
    nonce: &[u8; NONCE],
) -> Result<(), ConnectError> {
    let pem = match packet.first() {
        Some(&MORE_DATA) => &packet[1..],
        Some(&err::HEADER) => return Err(ConnectError::Refused(packet.clone())),
        _ => return Err(ConnectError::Protocol("the server sent no RSA key".to_owned())),
    };
    let text = encrypt_password(pem, password, nonce)
        .map_err(|error| ConnectError::Protocol(format!("the server's RSA key: {error}")))?;
    channel.write_packet(sequence, &text).await?;
    Ok(())
}

/// The first answer of `plugin` to a challenge.
fn answer(
    plugin: Plugin,
    credential: &Credential,
    challenge: &[u8],
    secure: bool,
) -> Result<Zeroizing<Vec<u8>>, ConnectError> {
    let nonce = || {
        challenge.first_chunk::<NONCE>().ok_or_else(|| ConnectError::Protocol("the challenge is too short".to_owned()))
    };
    let password = || credential.password_bytes().ok_or(ConnectError::CredentialInsufficient);
    let answer = match plugin {
        Plugin::CachingSha2 | Plugin::Native if credential.is_empty() => Vec::new(),
        Plugin::CachingSha2 => {
            let stage1 = credential.sha2_stage1().ok_or(ConnectError::CredentialInsufficient)?;
            sha2_scramble(&stage1, nonce()?).to_vec()
        }
        Plugin::Native => {
            let stage1 = credential.native_stage1().ok_or(ConnectError::CredentialInsufficient)?;
            native_scramble(&stage1, nonce()?).to_vec()
        }
        Plugin::Sha256 if secure || credential.is_empty() => return Ok(with_zero(password()?)),
        Plugin::Sha256 => SHA256_KEY_REQUEST.to_vec(),
        Plugin::Clear if secure => return Ok(with_zero(password()?)),
        Plugin::Clear => return Err(ConnectError::Insecure("mysql_clear_password")),
        Plugin::Ed25519 => ed25519_answer(password()?, challenge)
            .ok_or_else(|| ConnectError::Protocol("the challenge of client_ed25519 is not 32 bytes".to_owned()))?,
    };
    Ok(Zeroizing::new(answer))
}
