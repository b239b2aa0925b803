//! Sending a request, behind what marks it, and what follows when its answer is lost.

use super::request::{Attempt, Request};
use super::{ClientSession, End};
use crate::failover::fate::Lost;
use crate::relay::{UploadError, upload};
use crate::session::Slot;
use bytes::BytesMut;

/// How much of a request has reached the server's socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Whole,
    Partly,
    /// All of it, and the connection was lost before its answer began.
    Lost,
}

impl ClientSession {
    /// Sends the request on the connection in `slot`, behind what marks it.
    pub(super) async fn send(
        &mut self,
        request: &mut Request,
        slot: Slot,
        owned: Option<&[u8]>,
        mark: Option<BytesMut>,
    ) -> Result<Sent, Attempt> {
        let Self { client, primary, follower, .. } = self;
        let Some(connection) = (match slot {
            Slot::Primary => primary.as_mut(),
            Slot::Follower => follower.as_mut(),
        }) else {
            return Err(Attempt::Again(slot));
        };
        let (length, marked) = (request.incoming.length, mark.is_some());
        let mut packets = mark.unwrap_or_default();
        let channel = &mut connection.channel;
        let sent = if request.incoming.streamed {
            request.incoming.length = 0;
            match packets.is_empty() || channel.write_all(&packets).await.is_ok() {
                true => upload(client, channel).await,
                false => Err(UploadError::Backend),
            }
        } else {
            let command = owned.unwrap_or(&client.input[..length]);
            if marked {
                packets.extend_from_slice(command);
            }
            let all = if marked { &packets[..] } else { command };
            channel.write_all(all).await.map_err(|_| UploadError::Backend)
        };
        if sent == Err(UploadError::Client) {
            self.drop_connection(slot, None);
            return Err(Attempt::End(End::ClientGone));
        }
        if marked && sent.is_ok() {
            match self.is_marked().await {
                Ok(true) => {}
                Ok(false) => return Ok(Sent::Lost),
                Err(end) => {
                    self.drop_connection(slot, None);
                    return Err(Attempt::End(end));
                }
            }
        }
        Ok(if sent.is_ok() { Sent::Whole } else { Sent::Partly })
    }

    /// The connection ended before the answer did.
    pub(super) async fn answer_lost(&mut self, request: &Request, lost: &Lost, sequence: u8) -> Attempt {
        if lost.slot == Slot::Primary
            && let Some(doubt) = self.doubt(request, lost)
        {
            return Box::pin(self.resolve(request, doubt)).await;
        }
        self.backend_lost(request, lost, sequence)
    }
}
