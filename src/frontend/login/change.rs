//! COM_CHANGE_USER: another account on the same connection, let in like the first.

use super::client::{Client, Turn};
use super::error::LoginError;
use super::exchange::{Answer, Exchange};
use super::{LoginContext, Prove, route, seal};
use crate::accounts::{Credential, SessionCredential};
use crate::backend::LoginRequest;
use crate::frontend::route::Asked;
use crate::transport::Channel;
use crate::wire::capabilities::Capabilities;
use crate::wire::handshake::{ChangeUser, NONCE};
use bytes::Bytes;

/// A session whose account COM_CHANGE_USER has changed.
pub struct ChangedUser {
    /// Account name.
    pub user: Vec<u8>,
    /// Schema.
    pub database: Option<Vec<u8>>,
    /// Collation id as the client sent it; `None` leaves the server's default.
    pub collation: Option<u16>,
    /// Connection attributes: raw pairs of length-encoded strings.
    pub attributes: Bytes,
    /// For further backend logins of this session.
    pub credential: SessionCredential,
    /// The last challenge.
    pub nonce: [u8; NONCE],
}

/// What COM_CHANGE_USER needs to know of the session.
pub struct ChangeRequest<'a> {
    /// The packet, command byte included.
    pub payload: &'a [u8],
    /// The sequence number of the answer: 1 more than the packet's.
    pub sequence: u8,
    /// [`super::LoggedIn::capabilities`].
    pub capabilities: Capabilities,
    /// [`super::LoggedIn::nonce`], or the last [`ChangedUser::nonce`].
    pub nonce: [u8; NONCE],
    /// [`super::LoggedIn::secure`].
    pub secure: bool,
    /// [`super::LoggedIn::max_packet_size`].
    pub max_packet_size: u32,
    /// A refused change leaves the connection to the user it had (MariaDB), instead of ending it (MySQL).
    pub keeps: bool,
}

/// Serves COM_CHANGE_USER, with the same exchange and the same proof as a login; the OK packet has been sent. On an error
/// the client has been told, and the connection is closed unless [`ChangeRequest::keeps`] and a server refused. Not cancel
/// safe.
pub async fn change_user<P: Prove>(
    channel: &mut Channel,
    context: &LoginContext<'_>,
    request: &ChangeRequest<'_>,
    prove: &mut P,
) -> Result<ChangedUser, LoginError> {
    let mut client = Client::new(channel, Turn::new(request.sequence, context.peer, context.timeout));
    match answer_change(&mut client, context, request, prove).await {
        Ok(changed) => Ok(changed),
        Err(LoginError::Refused(payload)) if request.keeps => {
            client.write(&payload).await?;
            Err(LoginError::Refused(payload))
        }
        Err(error) => Err(client.refuse(error).await),
    }
}

async fn answer_change<P: Prove>(
    client: &mut Client<'_>,
    context: &LoginContext<'_>,
    request: &ChangeRequest<'_>,
    prove: &mut P,
) -> Result<ChangedUser, LoginError> {
    let capabilities = request.capabilities;
    let packet = ChangeUser::parse(request.payload, capabilities)?;
    let asked = Asked { sni: None, user: packet.user, schema: packet.database };
    let to = route(client, context, asked, capabilities, prove).await?;
    let login = LoginRequest {
        user: &to.user,
        credential: &Credential::default(),
        database: packet.database,
        collation: packet.collation.unwrap_or(u16::from(context.facade.collation)),
        capabilities,
        attributes: packet.attributes,
        max_packet_size: request.max_packet_size,
    };
    let answer = Answer::first(packet.plugin, packet.auth, capabilities, request.nonce);
    let mut exchange = Exchange::new(client, context, &to.accounts, login);
    (exchange.secure, exchange.changes_user) = (request.secure, true);
    exchange.check_certificate()?;
    let proven = exchange.run(answer, prove).await?;
    let changed = ChangedUser {
        user: to.user.clone(),
        database: packet.database.map(<[u8]>::to_vec),
        collation: packet.collation,
        attributes: Bytes::copy_from_slice(packet.attributes),
        credential: seal(&to.accounts, &proven.credential)?,
        nonce: proven.nonce,
    };
    proven.tell(client, capabilities).await?;
    Ok(changed)
}
