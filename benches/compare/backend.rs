//! A MySQL server that costs almost nothing: it lets everybody in and answers from memory.
//!
//! A real mysqld spends ten to fifty times as much CPU on a point select as a proxy does, so on a small machine it would be
//! all that is measured. This one answers what the load asks (a point select as text and prepared, a 100 MB result, OK to
//! everything else) and what proxies ask of a server before they use it: Holdfast's question about roles, answered as
//! a source and its replicas. It checks no password: after caching_sha2_password's scramble it says "fast auth ok".

use anyhow::Context;
use bytes::{Buf, Bytes, BytesMut};
use holdfast::wire::capabilities::Capabilities;
use holdfast::wire::command::query_text;
use holdfast::wire::handshake::{CACHING_SHA2, Greeting, HandshakeResponse, NONCE, auth_more_data};
use holdfast::wire::lenenc::{put_lenenc, put_lenenc_bytes};
use holdfast::wire::packet::{HEADER, Header, write_packet};
use std::net::Ipv4Addr;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of one value of the point select, as sysbench's column `c`.
const POINT: usize = 119;
/// Bytes of one value of the large result; 256 such rows are a block.
const BIG_VALUE: usize = 1000;
/// Blocks of the large result: 100 MB.
const BIG_BLOCKS: usize = 390;

const AUTOCOMMIT: u16 = 0x0002;
const IN_TRANSACTION: u16 = 0x0001;
const VERSION: &[u8] = b"9.7.0-bench";
const VAR_STRING: u8 = 0xFD;

/// Serves on `ports` of 127.0.0.1 until the process ends. The first is the source, the others its replicas.
pub async fn serve(ports: &[u16]) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for (n, port) in ports.iter().enumerate() {
        let listener = listen(*port)?;
        let answers = Rc::new(Answers::new(ports[0], n));
        tasks.spawn_local(async move {
            let mut id = 0;
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                id += 1;
                tokio::task::spawn_local(client(socket, id, Rc::clone(&answers)));
            }
        });
    }
    tasks.join_next().await;
    Ok(())
}

fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into()).with_context(|| format!("port {port}"))?;
    Ok(socket.listen(4096)?)
}

/// Serves one client; every error is the end of its connection.
async fn client(mut socket: TcpStream, id: u32, answers: Rc<Answers>) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(16 * 1024);
    let capabilities = log_in(&mut socket, &mut input, id).await?;
    let eof = usize::from(!capabilities.has(Capabilities::DEPRECATE_EOF));
    let attributes = capabilities.has(Capabilities::QUERY_ATTRIBUTES);
    let mut status = AUTOCOMMIT;
    let mut out = BytesMut::with_capacity(16 * 1024);
    loop {
        let payload = packet(&mut socket, &mut input).await?;
        match payload.first() {
            Some(0x01) | None => return Ok(()),
            Some(0x03) => {
                let sql = query_text(&payload, attributes)?;
                if sql.starts_with(b"SELECT big") {
                    answers.send_big(&mut socket, eof, status).await?;
                    continue;
                }
                answers.query(sql, eof, &mut status, &mut out);
            }
            Some(0x16) => answers.prepared(eof, &mut out),
            Some(0x17) => out.extend_from_slice(&answers.executed[eof][usize::from(status & IN_TRANSACTION)]),
            // Close and long data have no answer.
            Some(0x18 | 0x19) => continue,
            Some(_) => write_packet(&mut out, &mut 1, &ok(0x00, status)),
        }
        socket.write_all(&out).await?;
        out.clear();
    }
}

/// One whole packet's payload.
async fn packet(socket: &mut TcpStream, input: &mut BytesMut) -> anyhow::Result<Bytes> {
    loop {
        if let Some(header) = Header::read(input)
            && input.len() >= HEADER + header.length
        {
            input.advance(HEADER);
            return Ok(input.split_to(header.length).freeze());
        }
        input.reserve(4 * 1024);
        anyhow::ensure!(socket.read_buf(input).await? > 0, "client gone");
    }
}

async fn log_in(socket: &mut TcpStream, input: &mut BytesMut, id: u32) -> anyhow::Result<Capabilities> {
    let none = Capabilities::SSL
        | Capabilities::COMPRESS
        | Capabilities::ZSTD_COMPRESSION_ALGORITHM
        | Capabilities::OPTIONAL_RESULTSET_METADATA;
    let greeting = Greeting {
        server_version: VERSION.into(),
        thread_id: id,
        nonce: [b'n'; NONCE],
        capabilities: Capabilities::from_parts(Capabilities::SERVED.low(), 0) - none,
        collation: 255,
        status: AUTOCOMMIT,
        plugin: CACHING_SHA2.into(),
    };
    let mut out = BytesMut::new();
    write_packet(&mut out, &mut 0, &greeting.payload());
    socket.write_all(&out).await?;
    let response = packet(socket, input).await?;
    let response = HandshakeResponse::parse(&response)?;
    out.clear();
    let mut sequence = 2;
    if !response.auth.is_empty() {
        write_packet(&mut out, &mut sequence, &auth_more_data(&[3]));
    }
    write_packet(&mut out, &mut sequence, &ok(0x00, AUTOCOMMIT));
    socket.write_all(&out).await?;
    Ok(response.capabilities & greeting.capabilities)
}

/// Answers made once. Where there are two, the index is 1 for clients without CLIENT_DEPRECATE_EOF; the second index is
/// 1 inside a transaction.
struct Answers {
    point: [[Bytes; 2]; 2],
    executed: [[Bytes; 2]; 2],
    big_head: [Bytes; 2],
    big_block: [Bytes; 2],
    source_port: u16,
    number: usize,
}

impl Answers {
    fn new(source_port: u16, number: usize) -> Self {
        let value = vec![b'c'; POINT];
        let both = |row: &dyn Fn(&mut BytesMut)| {
            [0, 1].map(|eof| [0, IN_TRANSACTION].map(|extra| result(eof, AUTOCOMMIT | extra, 1, &[row]).freeze()))
        };
        let mut head = [0, 1].map(|eof| begin(eof, AUTOCOMMIT, 1));
        let big_block = [0, 1].map(|eof| {
            let mut block = BytesMut::new();
            // 256 rows: the sequence numbers of one block are those of the next.
            let sequence = &mut head[eof].1;
            for _ in 0..256 {
                let mut row = BytesMut::new();
                put_lenenc_bytes(&mut row, &vec![b'r'; BIG_VALUE]);
                write_packet(&mut block, sequence, &row);
            }
            block.freeze()
        });
        Self {
            point: both(&|row| put_lenenc_bytes(row, &value)),
            executed: both(&|row| {
                row.extend_from_slice(&[0, 0]);
                put_lenenc_bytes(row, &value);
            }),
            big_head: head.map(|(bytes, _)| bytes.freeze()),
            big_block,
            source_port,
            number,
        }
    }

    fn query(&self, sql: &[u8], eof: usize, status: &mut u16, out: &mut BytesMut) {
        let in_transaction = usize::from(*status & IN_TRANSACTION);
        if sql.starts_with(b"SELECT c ") {
            return out.extend_from_slice(&self.point[eof][in_transaction]);
        }
        if sql.starts_with(b"SELECT 'v'") {
            return out.extend_from_slice(&self.role(eof));
        }
        if sql.starts_with(b"SELECT") {
            return out.extend_from_slice(&result(eof, *status, 1, &[]));
        }
        match sql {
            b"BEGIN" => *status |= IN_TRANSACTION,
            b"COMMIT" => *status &= !IN_TRANSACTION,
            _ => {}
        }
        write_packet(out, &mut 1, &ok(0x00, *status));
    }

    /// The answer to Holdfast's question: flags and GTIDs ('v'), and for a replica its channel ('c').
    fn role(&self, eof: usize) -> BytesMut {
        let uuid = |n: usize| format!("b0000000-0000-4000-8000-00000000000{n}");
        let text = |row: &mut BytesMut, values: &[Option<&str>]| {
            for value in values {
                match value {
                    Some(value) => put_lenenc_bytes(row, value.as_bytes()),
                    None => row.extend_from_slice(&[0xFB]),
                }
            }
        };
        let flags = if self.number == 0 { "000" } else { "110" };
        let (me, source) = (uuid(self.number), uuid(0));
        let (id, gtids, port) =
            ((self.number + 1).to_string(), format!("{source}:1-1000"), self.source_port.to_string());
        let variables =
            |row: &mut BytesMut| text(row, &[Some("v"), Some(&me), Some(&id), Some(flags), Some(&gtids), None]);
        let channel = |row: &mut BytesMut| {
            text(row, &[Some("c"), Some(&source), Some("127.0.0.1"), Some("ON"), Some(""), Some(&port)]);
        };
        if self.number == 0 {
            result(eof, AUTOCOMMIT, 6, &[&variables])
        } else {
            result(eof, AUTOCOMMIT, 6, &[&variables, &channel])
        }
    }

    /// The OK of PREPARE: one parameter, one column.
    fn prepared(&self, eof: usize, out: &mut BytesMut) {
        let mut sequence = 1;
        write_packet(out, &mut sequence, &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
        for _ in 0..2 {
            write_packet(out, &mut sequence, &definition());
            if eof == 1 {
                write_packet(out, &mut sequence, &end(eof, AUTOCOMMIT));
            }
        }
    }

    async fn send_big(&self, socket: &mut TcpStream, eof: usize, status: u16) -> anyhow::Result<()> {
        socket.write_all(&self.big_head[eof]).await?;
        for _ in 0..BIG_BLOCKS {
            socket.write_all(&self.big_block[eof]).await?;
        }
        let mut out = BytesMut::new();
        write_packet(&mut out, &mut begin(eof, status, 1).1, &end(eof, status));
        Ok(socket.write_all(&out).await?)
    }
}

/// A whole result.
fn result(eof: usize, status: u16, columns: u64, rows: &[&dyn Fn(&mut BytesMut)]) -> BytesMut {
    let (mut out, mut sequence) = begin(eof, status, columns);
    for row in rows {
        let mut payload = BytesMut::new();
        row(&mut payload);
        write_packet(&mut out, &mut sequence, &payload);
    }
    write_packet(&mut out, &mut sequence, &end(eof, status));
    out
}

/// Column count and definitions, and the next sequence number.
fn begin(eof: usize, status: u16, columns: u64) -> (BytesMut, u8) {
    let (mut out, mut sequence) = (BytesMut::new(), 1);
    let mut count = BytesMut::new();
    put_lenenc(&mut count, columns);
    write_packet(&mut out, &mut sequence, &count);
    for _ in 0..columns {
        write_packet(&mut out, &mut sequence, &definition());
    }
    if eof == 1 {
        write_packet(&mut out, &mut sequence, &end(eof, status));
    }
    (out, sequence)
}

fn definition() -> BytesMut {
    let mut out = BytesMut::new();
    for text in ["def", "sbtest", "sbtest1", "sbtest1", "c", "c"] {
        put_lenenc_bytes(&mut out, text.as_bytes());
    }
    out.extend_from_slice(&[0x0C, 255, 0, 0xE0, 1, 0, 0, VAR_STRING, 0, 0, 0, 0, 0]);
    out
}

/// EOF, or the OK that stands for it.
fn end(eof: usize, status: u16) -> BytesMut {
    if eof == 0 {
        return ok(0xFE, status);
    }
    let [a, b] = status.to_le_bytes();
    BytesMut::from(&[0xFE, 0, 0, a, b][..])
}

fn ok(header: u8, status: u16) -> BytesMut {
    let [a, b] = status.to_le_bytes();
    BytesMut::from(&[header, 0, 0, a, b, 0, 0][..])
}
