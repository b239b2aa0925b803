//! Commands too large to hold: forwarded frame by frame as they arrive.

use crate::transport::Channel;
use crate::wire::packet::{FRAME_MAX, HEADER, Header};
use bytes::Buf;

/// Which side went away during an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The client.
    #[error("the client went away in the middle of a command")]
    Client,
    /// The backend; it may have said why.
    #[error("the server went away in the middle of a command")]
    Backend,
}

/// Forwards the packet at the front of the client's input, all its frames. Not cancel safe.
pub async fn upload(client: &mut Channel, backend: &mut Channel) -> Result<(), UploadError> {
    for sequence in (0..=u8::MAX).cycle() {
        while client.input.len() < HEADER {
            fill(client).await?;
        }
        // Inside the compressed protocol the numbers of a packet's frames may jump; outside it they must not.
        client.input[3] = sequence;
        let header = Header::read(&client.input).ok_or(UploadError::Client)?;
        frame(client, backend, header).await?;
        if header.length < FRAME_MAX {
            return Ok(());
        }
    }
    Ok(())
}

/// Forwards the frame at the front of the client's input.
pub(super) async fn frame(client: &mut Channel, backend: &mut Channel, header: Header) -> Result<(), UploadError> {
    let mut left = HEADER + header.length;
    loop {
        let n = left.min(client.input.len());
        backend.write_all(&client.input[..n]).await.map_err(|_| UploadError::Backend)?;
        client.input.advance(n);
        left -= n;
        if left == 0 {
            return Ok(());
        }
        fill(client).await?;
    }
}

async fn fill(client: &mut Channel) -> Result<(), UploadError> {
    match client.fill().await {
        Ok(1..) => Ok(()),
        Ok(0) | Err(_) => Err(UploadError::Client),
    }
}
