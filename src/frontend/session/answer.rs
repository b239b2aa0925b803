//! Answers of the proxy's own: an error that the session survives, one that ends it, a packet.

use super::parts::side;
use super::{ClientSession, End};
use crate::error::{ClientError, ErrorKind};
use crate::metrics;
use crate::wire::err;
use crate::wire::packet::write_packet;
use bytes::BytesMut;

impl ClientSession {
    /// Answers the command with an error of the proxy's own; the session goes on.
    pub(super) async fn refuse(&mut self, error: &ClientError, sequence: u8) -> Result<(), End> {
        metrics::error(error.kind, side(error.kind));
        tracing::debug!(session = self.handle.id.0, kind = error.kind.as_str(), "refused");
        self.reply(&err::client_error(error), sequence).await
    }

    /// Answers the command with a packet of the proxy's own.
    pub(super) async fn reply(&mut self, payload: &[u8], mut sequence: u8) -> Result<(), End> {
        let mut out = BytesMut::new();
        write_packet(&mut out, &mut sequence, payload);
        self.client.write_all(&out).await.map_err(|_| End::ClientGone)
    }

    /// A packet of the client's was expected with one number and came with another; `sequence`: the error's own.
    pub(super) async fn out_of_order(&mut self, (expected, got): (u8, u8), sequence: u8) -> End {
        let message = format!("Got packets out of order: expected sequence {expected}, got {got}");
        self.end_with(&ClientError::new(ErrorKind::PacketOutOfOrder, message), sequence).await
    }

    pub(super) async fn fatal(&mut self, kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> End {
        self.end_with(&ClientError::new(kind, message), 1).await
    }

    /// Answers with an error and ends the session.
    pub(super) async fn end_with(&mut self, error: &ClientError, sequence: u8) -> End {
        match self.refuse(error, sequence).await {
            Ok(()) => End::Error(error.kind),
            Err(end) => end,
        }
    }
}
