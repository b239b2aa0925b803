//! LOAD DATA LOCAL INFILE: the client's file on its way to the server.
//!
//! The server asks with a 0xFB packet; the client answers with packets of the file's bytes and closes with an empty one.
//! The proxy never opens a file: it forwards the request to the client and the client's packets to the server.

use super::{Ended, Relay, Said, UploadError};
use crate::wire::packet::{HEADER, Header};
use crate::wire::response::Scanner;
use bytes::Buf;

impl Relay<'_> {
    /// Forwards the request that was just scanned, then the file. Answers only what ends the response early.
    pub(super) async fn local_infile(&mut self, scanner: &mut Scanner, said: &mut Said) -> Option<Ended> {
        if self.forward(scanner, said).await.is_err() {
            return Some(Ended::ClientLost);
        }
        // The statement will not be sent again: its bytes make room for the file's.
        self.client.input.advance(std::mem::take(&mut self.command));
        loop {
            while self.client.input.len() < HEADER {
                if !matches!(self.client.fill().await, Ok(1..)) {
                    return Some(Ended::ClientLost);
                }
            }
            let Some(header) = Header::read(&self.client.input) else { return Some(Ended::ClientLost) };
            match super::upload::frame(self.client, self.backend, header).await {
                Ok(()) => {}
                Err(UploadError::Client) => return Some(Ended::ClientLost),
                Err(UploadError::Backend) => return Some(Ended::BackendLost { clean: false }),
            }
            said.next_sequence = header.sequence.wrapping_add(1);
            if header.length == 0 {
                return None;
            }
        }
    }
}
