//! A cable between a client and a server that can be cut: a TCP relay on a port of its own.
//!
//! Why: a killed server closes its connections and a frozen one still accepts them; a network that fails does neither.
//! A cut cable swallows nothing and closes nothing, it only stops moving bytes, as when packets are dropped.

use super::Port;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(5);

/// A running relay to one address. Connections made through it end when it is dropped.
#[derive(Debug)]
pub struct Cable {
    port: Port,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    cut: AtomicBool,
    over: AtomicBool,
    delay_ms: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Cable {
    /// Lays a cable to `server`.
    pub fn to(server: SocketAddr) -> Cable {
        let port = Port::take();
        let listener = TcpListener::bind(("127.0.0.1", port.number())).expect("the port is ours");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                // a server that refuses is seen by the client as a connection closed at once
                if let Ok(server) = TcpStream::connect(server) {
                    join(&shared, client, server);
                }
            }
        });
        Cable { port, state }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()))
    }

    /// From now on no byte passes; connections stay open, new ones are accepted and hear nothing.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
    }

    /// Bytes pass again, none was lost.
    pub fn mend(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }

    /// Every piece of up to 16 KiB is that much later.
    pub fn delay(&self, delay_ms: u64) {
        self.state.delay_ms.store(delay_ms, Ordering::SeqCst);
    }

    /// Closes every connection on both sides; new ones may come.
    pub fn sever(&self) {
        for stream in self.state.streams().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn streams(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        self.sever();
        // wakes the listener, which then ends
        let _ = TcpStream::connect(self.addr());
    }
}

fn join(state: &Arc<State>, client: TcpStream, server: TcpStream) {
    let clones = (client.try_clone(), server.try_clone());
    let (Ok(client2), Ok(server2)) = clones else {
        return;
    };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        state.streams().extend(stream.try_clone());
    }
    for (from, to) in [(client, server), (server2, client2)] {
        let state = Arc::clone(state);
        std::thread::spawn(move || pump(&state, from, to));
    }
}

fn pump(state: &State, mut from: TcpStream, mut to: TcpStream) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        std::thread::sleep(Duration::from_millis(state.delay_ms.load(Ordering::SeqCst)));
        while state.cut.load(Ordering::SeqCst) && !state.over.load(Ordering::SeqCst) {
            std::thread::sleep(TICK);
        }
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    // an end is a byte too: it does not pass a cut cable
    while state.cut.load(Ordering::SeqCst) && !state.over.load(Ordering::SeqCst) {
        std::thread::sleep(TICK);
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
