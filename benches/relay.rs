//! Relaying an answer from one socket to another over loopback: a point select, and a 1 MB result.
//!
//! The time of a point select is mostly the kernel's: four system calls and two wake-ups of the peers, which run in the
//! same thread. `bare` copies the same bytes with nothing in between, for the difference.

mod answers;

use answers::result;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use holdfast::classify::{Dialect, classify};
use holdfast::relay::{Ended, Relay, Said};
use holdfast::session::{Session, Slot};
use holdfast::transport::{Channel, Io};
use holdfast::wire::command::Answer;
use holdfast::wire::response::Shape;
use holdfast::wire::session_track::Tracking;
use std::hint::black_box;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

const SHAPE: Shape = Shape { deprecate_eof: true, optional_metadata: false };

/// Both ends of a loopback connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (one, other) = (one.expect("connected"), other.expect("accepted").0);
    one.set_nodelay(true).expect("nodelay");
    other.set_nodelay(true).expect("nodelay");
    (one, other)
}

/// A proxy between two sockets whose far ends are held here.
struct Bed {
    runtime: Runtime,
    client: TcpStream,
    server: TcpStream,
    to_client: Channel,
    to_server: Channel,
    session: Session,
}

impl Bed {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ((client, to_client), (server, to_server)) = runtime.block_on(async { (pair().await, pair().await) });
        let (to_client, to_server) = (Channel::new(Io::Plain(to_client)), Channel::new(Io::Plain(to_server)));
        let session = Session::new(None, Dialect::default(), 10);
        Self { runtime, client, server, to_client, to_server, session }
    }

    /// The server sends `response`, the relay forwards it, the client reads all of it.
    fn relay(&mut self, response: &[u8], buffer: &mut [u8]) {
        let Self { runtime, client, server, to_client, to_server, session } = self;
        runtime.block_on(async {
            let mut relay = Relay {
                client: to_client,
                backend: to_server,
                session,
                slot: Slot::Primary,
                tracking: &Tracking::Off,
                hide_gtids: false,
                class: holdfast::classify::Class::Read,
                statement_id: 0,
                command: 0,
                kill: &CancellationToken::new(),
                cut: &|_| false,
                counts: false,
                digest: None,
                forwards: true,
                withhold: |_, _| false,
            };
            let mut said = Said::default();
            let relayed = relay.run(Answer::Results, SHAPE, &mut said);
            let (sent, ended, read) = tokio::join!(server.write_all(response), relayed, client.read_exact(buffer));
            assert!(sent.is_ok() && matches!(ended, Ended::Done) && read.is_ok());
        });
    }

    /// The same bytes, copied.
    fn bare(&mut self, response: &[u8], buffer: &mut [u8]) {
        let Self { runtime, client, server, to_client, to_server, .. } = self;
        runtime.block_on(async {
            let copied = async {
                let mut left = response.len();
                while left > 0 {
                    left -= to_server.fill().await.expect("bytes");
                    to_client.write_all(&to_server.input).await.expect("a client");
                    to_server.input.clear();
                }
            };
            let (sent, (), read) = tokio::join!(server.write_all(response), copied, client.read_exact(buffer));
            assert!(sent.is_ok() && read.is_ok());
        });
    }
}

fn relaying(criterion: &mut Criterion) {
    let mut bed = Bed::new();
    for (name, response) in [("point", result(1, 119)), ("1 MB of rows", result(1000, 1000))] {
        let mut buffer = vec![0; response.len()];
        let mut group = criterion.benchmark_group("relay");
        group.throughput(Throughput::Bytes(response.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| bed.relay(black_box(&response), &mut buffer)));
        group.bench_function(format!("{name}, bare"), |b| b.iter(|| bed.bare(black_box(&response), &mut buffer)));
        group.finish();
    }
    let sql = b"SELECT c FROM sbtest1 WHERE id=5001";
    criterion.bench_function("what comes before: classify a point select", |bencher| {
        bencher.iter(|| classify(black_box(sql), Dialect::default()));
    });
}

criterion_group!(benches, relaying);
criterion_main!(benches);
