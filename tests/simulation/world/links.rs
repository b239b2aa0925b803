//! Connections between proxy and servers: two streams of bytes that arrive in pieces, and may end anywhere.

use super::{Event, Time, World};
use crate::simulation::server::{self, Life};
use bytes::BytesMut;
use holdfast::types::{BackendId, Term};

/// A connection of the proxy to a server.
pub struct Link {
    pub task: usize,
    pub server: usize,
    pub thread: u32,
    pub term: Term,
    pub input: BytesMut,
    pub state: LinkState,
    /// When the last piece will arrive, each way.
    arrives: [Time; 2],
    in_flight: usize,
    /// Bytes that still arrive, of a server that is gone.
    limit: Option<usize>,
    pub deprecate_eof: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    Connecting,
    Open,
    Refused,
    Closed,
}

impl World {
    /// Asks for a connection; its state tells how it went.
    pub fn connect(&mut self, task: usize, backend: BackendId, term: Term) -> usize {
        let link = Link {
            task,
            server: backend.0 as usize,
            thread: 0,
            term,
            input: BytesMut::new(),
            state: LinkState::Connecting,
            arrives: [0, 0],
            in_flight: 0,
            limit: None,
            deprecate_eof: self.setup.deprecate_eof,
        };
        self.links.push(link);
        let delay = self.rng.between(200, 900);
        self.at(self.now + delay, Event::Connect { link: self.links.len() - 1 });
        self.links.len() - 1
    }

    pub(super) fn on_connect(&mut self, link: usize) {
        let server = self.links[link].server;
        if self.links[link].state != LinkState::Connecting {
            return;
        }
        match self.servers[server].life {
            Life::Down => self.links[link].state = LinkState::Refused,
            Life::Frozen => return self.stalled.push((server, Event::Connect { link })),
            Life::Up if self.servers[server].proxy_cut => return self.stalled.push((server, Event::Connect { link })),
            Life::Up => {
                let deprecate_eof = self.links[link].deprecate_eof;
                self.links[link].thread = self.servers[server].connect(link, deprecate_eof);
                self.links[link].state = LinkState::Open;
            }
        }
        self.ready.insert(self.links[link].task);
    }

    /// Sends bytes to a server. False if the connection is known to be closed.
    pub fn send_to_server(&mut self, link: usize, bytes: &[u8]) -> bool {
        if self.links[link].state != LinkState::Open {
            return false;
        }
        let time = self.arrival(link, 0);
        self.at(time, Event::ToServer { link, bytes: BytesMut::from(bytes) });
        true
    }

    /// Sends an answer to the proxy, in pieces.
    pub fn send_to_proxy(&mut self, link: usize, answer: &[u8]) {
        let mut rest = answer;
        while !rest.is_empty() {
            let n = if self.rng.percent(50) { rest.len() } else { 1 + self.rng.below(rest.len() as u64) as usize };
            let (piece, behind) = rest.split_at(n);
            rest = behind;
            self.links[link].in_flight += n;
            let time = self.arrival(link, 1);
            self.at(time, Event::ToProxy { link, bytes: BytesMut::from(piece) });
        }
    }

    fn arrival(&mut self, link: usize, way: usize) -> Time {
        let delay = self.rng.between(40, 300);
        let time = (self.now + delay).max(self.links[link].arrives[way] + 1);
        self.links[link].arrives[way] = time;
        time
    }

    pub(super) fn on_bytes_to_server(&mut self, link: usize, bytes: BytesMut) {
        let (server, thread) = (self.links[link].server, self.links[link].thread);
        let host = &self.servers[server];
        match host.life {
            Life::Down => {}
            Life::Frozen => self.stalled.push((server, Event::ToServer { link, bytes })),
            Life::Up if host.proxy_cut => self.stalled.push((server, Event::ToServer { link, bytes })),
            Life::Up => server::take(self, server, thread, bytes),
        }
    }

    pub(super) fn on_bytes_to_proxy(&mut self, link: usize, mut bytes: BytesMut) {
        let server = self.links[link].server;
        if self.servers[server].proxy_cut {
            return self.stalled.push((server, Event::ToProxy { link, bytes }));
        }
        let it = &mut self.links[link];
        it.in_flight = it.in_flight.saturating_sub(bytes.len());
        if let Some(limit) = &mut it.limit {
            bytes.truncate(*limit);
            *limit -= bytes.len();
        }
        if it.state == LinkState::Open {
            it.input.extend_from_slice(&bytes);
            self.ready.insert(it.task);
        }
    }

    pub(super) fn on_closed(&mut self, link: usize) {
        let server = self.links[link].server;
        if self.servers[server].proxy_cut {
            return self.stalled.push((server, Event::Closed { link }));
        }
        self.links[link].state = LinkState::Closed;
        self.ready.insert(self.links[link].task);
    }

    /// The server's end of a connection is gone: so many bytes of what it sent still arrive, then the end.
    pub fn break_link(&mut self, link: usize) {
        if !matches!(self.links[link].state, LinkState::Open) || self.links[link].limit.is_some() {
            return;
        }
        let in_flight = self.links[link].in_flight as u64;
        let kept = if self.rng.percent(30) { 0 } else { self.rng.below(in_flight + 1) as usize };
        self.links[link].limit = Some(kept);
        let time = self.arrival(link, 1);
        self.note(|| format!("link {link} breaks, {kept} of {in_flight} bytes still arrive"));
        self.at(time, Event::Closed { link });
    }

    /// A server forgets a connection; what it was committing goes on.
    pub fn drop_connection(&mut self, server: usize, thread: u32) {
        if let Some(conn) = self.servers[server].conns.remove(&thread) {
            self.break_link(conn.link);
        }
    }

    /// The proxy closes its end. The server finds out behind all that was sent, or never if it is dead.
    pub fn hang_up(&mut self, link: usize) {
        self.links[link].state = LinkState::Closed;
        let time = self.arrival(link, 0);
        self.at(time, Event::HungUp { link });
    }

    pub(super) fn on_hang_up(&mut self, link: usize) {
        let (server, thread) = (self.links[link].server, self.links[link].thread);
        let host = &mut self.servers[server];
        match host.life {
            Life::Up if !host.proxy_cut => drop(host.conns.remove(&thread)),
            Life::Up | Life::Frozen => self.stalled.push((server, Event::HungUp { link })),
            Life::Down => {}
        }
    }
}
