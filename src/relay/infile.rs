//! LOAD DATA LOCAL INFILE: the client's file on its way to the server.
//!
//! The server asks with a 0xFB packet; the client answers with packets of the file's bytes and closes with an empty one.
//! The proxy never opens a file: it forwards the request to the client and the client's packets to the server. It counts
//! them as servers do: what is out of order is no part of the file, and whoever sent it may wait for an answer.

use super::{Ended, Relay, Said, UploadError};
use crate::wire::packet::{FRAME_MAX, HEADER, Header};
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
        let mut more_of_packet = false;
        loop {
            while self.client.input.len() < HEADER {
                if !matches!(self.client.fill().await, Ok(1..)) {
                    return Some(Ended::ClientLost);
                }
            }
            let Some(header) = Header::read(&self.client.input) else { return Some(Ended::ClientLost) };
            // Compressed, the frames' numbers count.
            if header.sequence != said.next_sequence && !self.client.is_compressed() {
                return Some(Ended::OutOfOrder { got: header.sequence });
            }
            match super::upload::frame(self.client, self.backend, header).await {
                Ok(()) => {}
                Err(UploadError::Client) => return Some(Ended::ClientLost),
                Err(UploadError::Backend) => return Some(Ended::BackendLost { clean: false }),
            }
            said.next_sequence = header.sequence.wrapping_add(1);
            if header.length == 0 && !more_of_packet {
                return None;
            }
            // An empty frame behind a full one ends that packet, not the file.
            more_of_packet = header.length == FRAME_MAX;
        }
    }
}
