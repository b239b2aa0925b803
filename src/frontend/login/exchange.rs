//! The server's half of an authentication plugin's exchange, with a backend login in the middle.
//!
//! ```text
//!                 ┌─ fits a verifier ──────────────────────────► prove ──► 3 (fast auth ok), OK
//! answer (sha2) ──┤                                                │ wants the password
//!                 └─ no verifier, or no fit ─► 4 (full auth) ◄─────┘
//!                                               │ TLS: the password; else RSA key and encrypted password
//!                                               └──► prove ──► OK | ERR
//!                  ┌─ fits a verifier ──► prove ──► OK | ERR
//! answer (native) ─┤
//!                  └─ no fit ──► AuthSwitch to caching_sha2_password (once)
//! ```
//! Everything that can fail ends in the same place: a server's refusal of a login that was really tried. Where no
//! credential could be got that is worth trying, a random one is.

use super::client::{Client, nonce};
use super::{LoginContext, LoginError, Prove, ProveError};
use crate::accounts::{Accounts, Credential, Verifier};
use crate::backend::LoginRequest;
use crate::error::{ClientError, ErrorKind};
use crate::tls::SslMode;
use crate::wire::auth::{native_recover, sha2_recover};
use crate::wire::capabilities::Capabilities;
use crate::wire::err::ErrPacket;
use crate::wire::handshake::{AuthSwitch, CACHING_SHA2, CLEAR, NATIVE, NONCE, auth_more_data};
use crate::wire::session_track::{Ok as OkPacket, Rewrite, TrackedVariables, Tracking, rewrite};
use bytes::{Bytes, BytesMut};
use std::sync::PoisonError;
use std::time::Instant;
use zeroize::Zeroizing;

/// caching_sha2_password: the answer fits the verifier; OK follows.
const FAST_AUTH_OK: &[u8] = &[3];
/// caching_sha2_password: send the password.
const FULL_AUTH: &[u8] = &[4];
/// The client asks for the RSA key.
const KEY_REQUEST: &[u8] = &[2];
/// Longest password taken, bytes; MySQL's own limit is 256.
const PASSWORD_MAX: usize = 1024;

/// The plugins a client may answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    CachingSha2,
    Native,
    Clear,
    /// Anything else: it is asked to switch.
    Other,
}

/// A client's answer to a challenge.
pub(super) struct Answer {
    plugin: Plugin,
    data: Zeroizing<Vec<u8>>,
    nonce: [u8; NONCE],
    /// The client can't be asked to switch: it knows plugins not by name.
    fixed: bool,
}

impl Answer {
    /// The answer in HandshakeResponse41 or COM_CHANGE_USER.
    pub fn first(plugin: &[u8], data: &[u8], capabilities: Capabilities, nonce: [u8; NONCE]) -> Self {
        let fixed = !capabilities.has(Capabilities::PLUGIN_AUTH);
        let plugin = match plugin {
            CACHING_SHA2 => Plugin::CachingSha2,
            NATIVE => Plugin::Native,
            CLEAR => Plugin::Clear,
            // From before plugins: the scramble of 4.1, which is mysql_native_password's.
            _ if fixed => Plugin::Native,
            _ => Plugin::Other,
        };
        Self { plugin, data: Zeroizing::new(data.to_vec()), nonce, fixed }
    }
}

/// What an answer is worth.
enum Worth {
    /// A credential to try, and the verifier it was recognized by.
    Credential(Credential, Option<Verifier>),
    /// Nothing: the client has to be asked for more.
    Nothing,
}

/// A login a server has accepted.
pub(super) struct Proven {
    /// What it was accepted with.
    pub credential: Credential,
    /// The last challenge.
    pub nonce: [u8; NONCE],
    /// The server's OK.
    ok: Bytes,
    /// The client waits for [`FAST_AUTH_OK`].
    fast: bool,
}

impl Proven {
    /// Sends the server's OK, without the session state the client did not ask for.
    pub async fn tell(self, client: &mut Client<'_>, capabilities: Capabilities) -> Result<(), LoginError> {
        let tracking = match capabilities.has(Capabilities::SESSION_TRACK) {
            true => Tracking::Variables(TrackedVariables::default()),
            false => Tracking::Off,
        };
        let mut ok = BytesMut::new();
        match OkPacket::read(&self.ok) {
            Ok(packet) => rewrite(&packet, &tracking, Rewrite::default(), &mut ok),
            Err(error) => return Err(ClientError::new(ErrorKind::NoBackend, error.to_string()).into()),
        }
        if self.fast {
            return client.write_both(&auth_more_data(FAST_AUTH_OK), &ok).await;
        }
        client.write(&ok).await
    }
}

/// One client's exchange.
pub(super) struct Exchange<'e, 'c> {
    pub client: &'e mut Client<'c>,
    pub context: &'e LoginContext<'e>,
    /// The accounts of the cluster it is for.
    pub accounts: &'e Accounts,
    /// The login, without its credential.
    pub login: LoginRequest<'e>,
    pub secure: bool,
    /// The client has been asked to switch already.
    pub switched: bool,
    /// This is COM_CHANGE_USER.
    pub changes_user: bool,
}

impl<'e, 'c> Exchange<'e, 'c> {
    /// A login over a plain connection.
    pub fn new(
        client: &'e mut Client<'c>,
        context: &'e LoginContext<'e>,
        accounts: &'e Accounts,
        login: LoginRequest<'e>,
    ) -> Self {
        Self { client, context, accounts, login, secure: false, switched: false, changes_user: false }
    }

    /// `verify_identity`: the certificate's common name is the user name.
    pub fn check_certificate(&self) -> Result<(), LoginError> {
        if self.context.tls.mode() != SslMode::VerifyIdentity {
            return Ok(());
        }
        if self.client.certificate_name().as_deref() == Some(self.login.user) {
            return Ok(());
        }
        let message = "the client certificate's common name is not the user name";
        Err(ClientError::new(ErrorKind::AccessDenied, message).into())
    }

    /// Goes on until a server has accepted or refused.
    pub async fn run<P: Prove>(&mut self, first: Answer, prove: &mut P) -> Result<Proven, LoginError> {
        let mut answer = first;
        self.accounts.refresh(false).await;
        loop {
            let (credential, verifier) = match self.judge(&answer).await? {
                Worth::Credential(credential, verifier) => (credential, verifier),
                Worth::Nothing => {
                    answer = self.switch(&answer).await?;
                    continue;
                }
            };
            // Recognized without a word from us: the client still waits for the end of the fast path.
            let fast = answer.plugin == Plugin::CachingSha2 && verifier.is_some();
            let insufficient = match self.prove(&credential, verifier.as_ref(), prove).await? {
                Some(ok) => return Ok(Proven { credential, nonce: answer.nonce, ok, fast }),
                None => ClientError::new(
                    ErrorKind::AccessDenied,
                    "the account's authentication plugin needs the password, which this client has not shown",
                ),
            };
            if fast {
                let credential = self.full(&answer).await?;
                return match self.prove(&credential, None, prove).await? {
                    Some(ok) => Ok(Proven { credential, nonce: answer.nonce, ok, fast: false }),
                    None => Err(insufficient.into()),
                };
            }
            if self.switched || answer.plugin == Plugin::CachingSha2 {
                return Err(insufficient.into());
            }
            answer = self.switch(&answer).await?;
        }
    }

    /// What an answer is worth; asks for full authentication where the plugin has it.
    async fn judge(&mut self, answer: &Answer) -> Result<Worth, LoginError> {
        let empty = matches!(&answer.data[..], [] | [0]);
        match answer.plugin {
            // A client without the plugin that was offered names another and sends nothing: it waits to be asked. So does
            // libmysqlclient at COM_CHANGE_USER.
            Plugin::CachingSha2 | Plugin::Native
                if empty && !self.switched && (self.changes_user || !self.was_offered(answer.plugin)) =>
            {
                Ok(Worth::Nothing)
            }
            Plugin::CachingSha2 | Plugin::Native if empty => Ok(Worth::Credential(Credential::empty(), None)),
            Plugin::CachingSha2 => match self.recognize(answer) {
                Some((credential, verifier)) => Ok(Worth::Credential(credential, Some(verifier))),
                None => Ok(Worth::Credential(self.full(answer).await?, None)),
            },
            Plugin::Native => {
                let mut recognized = self.recognize(answer);
                if recognized.is_none() {
                    self.accounts.refresh(true).await;
                    recognized = self.recognize(answer);
                }
                match recognized {
                    Some((credential, verifier)) => Ok(Worth::Credential(credential, Some(verifier))),
                    None if self.accounts.is_listed(self.login.user) => Ok(Worth::Credential(decoy()?, None)),
                    None => Ok(Worth::Nothing),
                }
            }
            Plugin::Clear if self.secure && !empty => Ok(Worth::Credential(password(&answer.data)?, None)),
            Plugin::Clear | Plugin::Other => Ok(Worth::Nothing),
        }
    }

    fn was_offered(&self, plugin: Plugin) -> bool {
        match &*self.context.facade.default_plugin {
            CACHING_SHA2 => plugin == Plugin::CachingSha2,
            NATIVE => plugin == Plugin::Native,
            _ => false,
        }
    }

    /// The credential behind an answer that fits a known verifier.
    fn recognize(&self, answer: &Answer) -> Option<(Credential, Verifier)> {
        self.accounts.find(self.login.user).into_iter().find_map(|verifier| {
            let credential = match answer.plugin {
                Plugin::CachingSha2 => {
                    Credential::sha2(sha2_recover(&answer.data, verifier.sha2.as_ref()?, &answer.nonce)?)
                }
                Plugin::Native => {
                    Credential::native(native_recover(&answer.data, verifier.native.as_ref()?, &answer.nonce)?)
                }
                Plugin::Clear | Plugin::Other => return None,
            };
            let known = verifier.sealed.as_ref().map(|sealed| sealed.open());
            let password = known.and_then(|known| known.password_bytes().map(|p| Zeroizing::new(p.to_vec())));
            Some((credential.with_password(password), verifier))
        })
    }

    /// Asks for the password: in the tunnel, or under our RSA key.
    async fn full(&mut self, answer: &Answer) -> Result<Credential, LoginError> {
        self.client.write(&auth_more_data(FULL_AUTH)).await?;
        let mut packet = Zeroizing::new(Vec::from(self.client.read().await?));
        if self.secure {
            return password(&packet);
        }
        if &packet[..] == KEY_REQUEST {
            let context = self.context;
            let pem = self.client.meanwhile(context.rsa.public_pem()).await;
            let pem = pem.ok_or_else(|| ClientError::new(ErrorKind::Limit, "no RSA key could be made"))?;
            self.client.write(&auth_more_data(pem)).await?;
            packet = Zeroizing::new(Vec::from(self.client.read().await?));
        }
        // Not to be told from a wrong password: a server refuses it.
        match self.context.rsa.decrypt(&packet, &answer.nonce) {
            Ok(password) if password.len() <= PASSWORD_MAX => Ok(Credential::password(password)),
            Ok(_) | Err(_) => decoy(),
        }
    }

    /// Asks the client to answer with caching_sha2_password. The challenge stays: MariaDB Connector C encrypts the password
    /// with the greeting's, whatever the switch says.
    async fn switch(&mut self, answer: &Answer) -> Result<Answer, LoginError> {
        if answer.fixed || self.switched {
            let message = "Client does not support authentication protocol requested by server; \
                           consider upgrading MySQL client";
            return Err(ClientError::new(ErrorKind::AccessDenied, message).into());
        }
        self.switched = true;
        let nonce = answer.nonce;
        self.client.write(&AuthSwitch { plugin: CACHING_SHA2, data: &nonce }.payload()).await?;
        let data = Zeroizing::new(Vec::from(self.client.read().await?));
        Ok(Answer { plugin: Plugin::CachingSha2, data, nonce, fixed: false })
    }

    /// Tries a credential on a server. `None` where the server wants the password itself.
    async fn prove<P: Prove>(
        &mut self,
        credential: &Credential,
        verifier: Option<&Verifier>,
        prove: &mut P,
    ) -> Result<Option<Bytes>, LoginError> {
        let (context, user, peer) = (self.context, self.login.user, self.client.turn.peer);
        wait_after_failures(self.client, context).await;
        let decoy = decoy()?;
        let credential = if self.accounts.admits(user) { credential } else { &decoy };
        let login = LoginRequest { credential, ..self.login };
        match self.client.meanwhile(prove.prove(&login)).await {
            Ok(ok) => {
                self.accounts.proven(user, credential);
                failures(context).succeeded(peer, Instant::now());
                Ok(Some(ok))
            }
            Err(ProveError::CredentialInsufficient) => Ok(None),
            Err(ProveError::Denied(error)) => Err(error.into()),
            Err(ProveError::Refused(payload)) => {
                if is_about_the_password(&payload) {
                    failures(context).failed(peer, Instant::now());
                    verifier.inspect(|verifier| self.accounts.refused(user, verifier));
                }
                Err(LoginError::Refused(payload))
            }
        }
    }
}

/// Whoever has failed too often waits.
pub(super) async fn wait_after_failures(client: &mut Client<'_>, context: &LoginContext<'_>) {
    let delay = failures(context).delay(client.turn.peer, Instant::now());
    if !delay.is_zero() {
        client.meanwhile(tokio::time::sleep(delay)).await;
    }
}

pub(super) fn failures<'a>(context: &'a LoginContext<'_>) -> std::sync::MutexGuard<'a, crate::accounts::Failures> {
    context.failures.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True for the refusals that speak of the account and not of limits, schemas or the server's state: SQLSTATE 28000, and
/// 3118 (ER_ACCOUNT_HAS_BEEN_LOCKED).
fn is_about_the_password(payload: &[u8]) -> bool {
    ErrPacket::parse(payload).is_ok_and(|packet| &packet.state == b"28000" || packet.code == 3118)
}

/// The password as it came through the tunnel: with a closing zero byte.
fn password(text: &[u8]) -> Result<Credential, LoginError> {
    match text.strip_suffix(&[0]) {
        Some(password) if password.len() <= PASSWORD_MAX => Ok(Credential::password(Zeroizing::new(password.to_vec()))),
        _ => Err(ClientError::new(ErrorKind::Handshake, "Bad handshake").into()),
    }
}

/// A password nobody has.
fn decoy() -> Result<Credential, LoginError> {
    Ok(Credential::password(Zeroizing::new(nonce()?.to_vec())))
}
