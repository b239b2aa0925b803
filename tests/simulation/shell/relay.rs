//! The shell while an answer is on its way: what `relay` does.

use super::{Ended, LAST_ANSWERS, Request, Said, Shell};
use crate::simulation::world::LinkState;
use bytes::{Buf, BytesMut};
use holdfast::frontend::drain;
use holdfast::session::Slot;
use holdfast::wire::packet::HEADER;
use holdfast::wire::response::{Kind, Prepared, Scanner, Step, status};
use holdfast::wire::session_track::{Ok as OkPacket, Rewrite, STATUS_STATE_CHANGED, Tracking, rewrite};

impl Shell {
    /// Forwards an answer as far as it comes, and tells the session what it says.
    pub async fn relay(
        &mut self,
        slot: Slot,
        request: &Request,
        said: &mut Said,
        forwards: bool,
        withhold: fn(u16, &[u8]) -> bool,
    ) -> Ended {
        let Some(conn) = self.slots[slot.index()].as_ref() else { return Ended::Lost { clean: true } };
        let (link, shape) = (conn.link, conn.shape);
        let mut scanner = Scanner::new(request.answer, shape);
        let mut input = BytesMut::new();
        said.next_sequence = 1;
        while !scanner.is_done() {
            match self.receive(slot).await {
                Some(bytes) => input.extend_from_slice(&bytes),
                None => return Ended::Lost { clean: scanner.takes_error() },
            }
            loop {
                let (kind, start, end) = match scanner.scan(&input) {
                    Err(_) => return Ended::Malformed,
                    Ok(Step::NeedMore) => break,
                    Ok(Step::Packet { kind, start, end }) => (kind, start, end),
                };
                let payload = &input[start + HEADER..end];
                match kind {
                    Kind::Err => {
                        let (errno, message) = holdfast::relay::read_err(payload);
                        if said.forwarded == 0 && start == 0 && withhold(errno, message) {
                            return Ended::Withheld { packet: input.split_to(end).freeze() };
                        }
                        said.errno = Some(errno);
                    }
                    Kind::Ok => {
                        said.plain_eof = false;
                        if self.on_ok(slot, &mut scanner, &mut input, (start, end)).is_none() {
                            return Ended::Malformed;
                        }
                    }
                    Kind::Eof => {
                        said.plain_eof = true;
                        if let Ok(status) = status(kind, payload) {
                            self.session.observe_status(slot, status);
                        }
                    }
                    Kind::Prepared => {
                        said.prepared = Prepared::read(payload, shape).ok();
                        self.prepared = said.prepared.map(|prepared| (slot, prepared));
                        let id = request.new_id.to_le_bytes();
                        input[start + HEADER + 1..start + HEADER + 5].copy_from_slice(&id);
                    }
                    Kind::LocalInfile | Kind::Other => {}
                }
            }
            self.forward(&mut scanner, &mut input, said, forwards);
        }
        if !input.is_empty() {
            self.w.borrow().fail(format!("{} bytes behind an answer on link {link}", input.len()));
        }
        Ended::Done
    }

    /// Forwards whole frames, or whatever is there once a frame outgrows the window.
    fn forward(&mut self, scanner: &mut Scanner, input: &mut BytesMut, said: &mut Said, forwards: bool) {
        let (whole, window) = (scanner.whole(), self.w.borrow().setup.window);
        let n = if whole == 0 && input.len() >= window { scanner.passed() } else { whole };
        if let Some(digest) = &mut self.digest {
            digest.extend_from_slice(&input[..n]);
        }
        if forwards {
            self.out.extend_from_slice(&input[..n]);
        }
        input.advance(n);
        scanner.consumed(n);
        said.forwarded += n;
        said.next_sequence = scanner.next_sequence();
    }

    /// What an OK says goes to the session, and what the client did not ask for is taken out.
    fn on_ok(
        &mut self,
        slot: Slot,
        scanner: &mut Scanner,
        input: &mut BytesMut,
        (start, end): (usize, usize),
    ) -> Option<()> {
        let (mut packet, changed) = (BytesMut::from(&input[start..start + HEADER]), {
            let payload = &input[start + HEADER..end];
            let status = status(Kind::Ok, payload).ok()?;
            self.session.observe_status(slot, status);
            status & STATUS_STATE_CHANGED != 0
        });
        if !changed {
            return Some(());
        }
        let ok = OkPacket::read(&input[start + HEADER..end]).ok()?;
        for change in ok.changes() {
            self.session.observe_change(slot, change);
        }
        let how = Rewrite { changed_back: false, hide_gtids: true, hide_transaction: false };
        rewrite(&ok, &Tracking::Variables(Default::default()), how, &mut packet);
        let length = (packet.len() - HEADER).to_le_bytes();
        packet[..3].copy_from_slice(&length[..3]);
        let new_end = start + packet.len();
        input[start..new_end].copy_from_slice(&packet);
        input.copy_within(end.., new_end);
        input.truncate(input.len() - (end - new_end));
        scanner.moved(end, new_end);
        Some(())
    }

    /// Waits for bytes of the connection; `None` when it has ended, or is cut because its server was deposed.
    pub async fn receive(&mut self, slot: Slot) -> Option<BytesMut> {
        let conn = self.slots[slot.index()].as_ref()?;
        let (link, backend, term) = (conn.link, conn.backend, conn.term);
        let w = self.w.clone();
        let received = w.wait(self.task, None, |world| {
            let it = &mut world.links[link];
            if !it.input.is_empty() {
                return Some(Some(it.input.split()));
            }
            let late = world.now.saturating_sub(world.changed) >= LAST_ANSWERS;
            let cut = drain::cuts(&world.topology, slot, backend, term, late);
            (it.state != LinkState::Open || cut).then_some(None)
        });
        received.await.flatten()
    }
}
