//! One of the clients: mysql_async, in the test's own process.

use super::scenario::Script;
use mysql_async::prelude::Queryable;
use mysql_async::{ChangeUserOpts, Conn, Error, OptsBuilder, Params, SslOpts, Statement, Value, WhiteListFsHandler};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinHandle;

const ROWS_SHOWN: usize = 30;
const VALUE_SHOWN: usize = 150;

/// Runs a script and returns its transcript.
pub fn run(script: &Script, port: u16, tls: bool, sync: u16, infile: &Path) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut driver = Driver {
        port,
        tls,
        sync,
        infile: infile.display().to_string(),
        out: String::new(),
        connections: HashMap::new(),
    };
    runtime.block_on(async {
        for scenario in &script.scenarios {
            driver.connections.clear();
            let _ = writeln!(driver.out, "== {}", scenario.heading);
            if !scenario.steps[0].starts_with("a: connect") {
                driver.step("a: connect").await;
            }
            for step in &scenario.steps {
                driver.step(step).await;
            }
        }
    });
    driver.out
}

struct Driver {
    port: u16,
    tls: bool,
    sync: u16,
    infile: String,
    out: String,
    connections: HashMap<String, Session>,
}

struct Session {
    id: u32,
    /// None while a statement is under way.
    conn: Option<Conn>,
    sent: Option<JoinHandle<(Conn, String)>>,
    statements: HashMap<String, Statement>,
}

impl Driver {
    async fn step(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
        let mut sync = tokio::net::TcpStream::connect(("127.0.0.1", self.sync)).await.expect("the sync port");
        tokio::io::copy(&mut sync, &mut tokio::io::sink()).await.expect("it closes");
        let (name, rest) = text.split_once(": ").expect("a step");
        let (op, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let done = match op {
            "connect" => self.connect(name, rest).await,
            _ if !self.connections.contains_key(name) => Ok("  not connected\n".to_owned()),
            "killq" => self.kill_query(name, rest).await,
            "kill" => {
                let sql = format!("KILL {}", self.connections[rest].id);
                self.connection(name).query_drop(sql).await.map(|()| String::new())
            }
            "close" => {
                self.connections.remove(name);
                Ok(String::new())
            }
            "send" | "recv" => self.half(name, op, rest).await,
            _ => {
                let rest = self.expand(rest);
                operate(self.connections.get_mut(name).expect("looked up above"), op, &rest).await
            }
        };
        self.out.push_str(&done.unwrap_or_else(|e| show_error(&e)));
    }

    async fn connect(&mut self, name: &str, options: &str) -> Result<String, Error> {
        self.connections.remove(name);
        let (mut user, mut password, mut schema, mut found, mut infile) = ("app", "app", Some("suite"), false, false);
        for option in options.split(' ').filter(|o| !o.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                ("user", value) => user = value,
                ("pw", value) => password = value,
                ("db", value) => schema = Some(value),
                ("noschema", _) => schema = None,
                ("found", _) => found = true,
                ("infile", _) => infile = true,
                ("multi" | "track", _) => {}
                _ => return Ok("  unsupported\n".to_owned()),
            }
        }
        let ssl = self.tls.then(|| {
            SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)
        });
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some(user))
            .pass(Some(password).filter(|p| !p.is_empty()))
            .db_name(schema)
            .client_found_rows(found)
            .ssl_opts(ssl)
            .prefer_socket(false)
            .max_allowed_packet(Some(1 << 30));
        let handler = infile.then(|| WhiteListFsHandler::new([self.infile.as_str()]));
        let options = options.local_infile_handler(handler);
        let conn = Conn::new(options).await?;
        let text = format!("  connected version={:?}\n", conn.server_version());
        let session = Session { id: conn.id(), conn: Some(conn), sent: None, statements: HashMap::new() };
        self.connections.insert(name.to_owned(), session);
        Ok(text)
    }

    fn connection(&mut self, name: &str) -> &mut Conn {
        let session = self.connections.get_mut(name).expect("the scenario connects it");
        session.conn.as_mut().expect("nothing is under way on it")
    }

    /// A statement in two halves.
    async fn half(&mut self, name: &str, op: &str, rest: &str) -> Result<String, Error> {
        let sql = self.expand(rest);
        let session = self.connections.get_mut(name).expect("looked up by the caller");
        if op == "send" {
            let mut conn = session.conn.take().expect("nothing is under way on it");
            session.sent = Some(tokio::spawn(async move {
                let text = text_query(&mut conn, &sql).await.unwrap_or_else(|e| show_error(&e));
                (conn, text)
            }));
            // lets it be sent
            tokio::task::yield_now().await;
            return Ok(String::new());
        }
        let (conn, text) = session.sent.take().expect("send comes first").await.expect("it does not panic");
        session.conn = Some(conn);
        Ok(text)
    }

    /// A kill that comes before its statement hits nothing, so it is repeated until the answer is there.
    async fn kill_query(&mut self, name: &str, other: &str) -> Result<String, Error> {
        let sql = format!("KILL QUERY {}", self.connections[other].id);
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if self.connections[other].sent.as_ref().is_none_or(JoinHandle::is_finished) {
                break;
            }
            self.connection(name).query_drop(&sql).await?;
        }
        Ok(String::new())
    }

    fn expand(&self, text: &str) -> String {
        let mut text = text.to_owned();
        while let Some(at) = text.find("${") {
            let end = at + text[at..].find('}').expect("it is closed");
            let with = match text[at + 2..end].split_once(':') {
                Some(("id", name)) => self.connections.get(name).map_or(0, |s| s.id).to_string(),
                Some((_, size)) => String::from_utf8(pattern(size)).expect("letters"),
                None => self.infile.clone(),
            };
            text.replace_range(at..=end, &with);
        }
        text
    }
}

async fn operate(session: &mut Session, op: &str, rest: &str) -> Result<String, Error> {
    let Session { conn: Some(conn), statements, .. } = session else {
        return Ok("  busy\n".to_owned());
    };
    let (head, values) = rest.split_once(" <- ").unwrap_or((rest, ""));
    match op {
        "q" => text_query(conn, rest).await,
        "x" => {
            let statement = conn.prep(head).await?;
            let text = execute(conn, &statement, values).await;
            conn.close(statement).await?;
            text
        }
        "prep" => {
            let (name, sql) = head.split_once(' ').expect("a name and a statement");
            let statement = conn.prep(sql).await?;
            let text = format!("  prepared {} {}\n", statement.num_params(), statement.num_columns());
            statements.insert(name.to_owned(), statement);
            Ok(text)
        }
        "run" => match statements.get(head).cloned() {
            Some(statement) => execute(conn, &statement, values).await,
            None => Ok("  no such statement\n".to_owned()),
        },
        "drop" => match statements.remove(head) {
            Some(statement) => conn.close(statement).await.map(|()| String::new()),
            None => Ok("  no such statement\n".to_owned()),
        },
        "ping" => conn.ping().await.map(|()| String::new()),
        "reset" => conn.reset().await.map(|done| format!("  {done}\n")),
        "change" => {
            let mut words = rest.split(' ').map(|w| Some(w.to_owned()).filter(|w| !w.is_empty()));
            let mut word = || words.next().flatten();
            let options = ChangeUserOpts::new().with_user(word()).with_pass(word()).with_db_name(word());
            conn.change_user(options).await?;
            session.id = conn.id();
            Ok(String::new())
        }
        _ => Ok("  unsupported\n".to_owned()),
    }
}

async fn text_query(conn: &mut Conn, sql: &str) -> Result<String, Error> {
    let mut text = String::new();
    let mut result = conn.query_iter(sql).await?;
    while !result.is_empty() || text.is_empty() {
        if let Err(e) = one_result(&mut result, &mut text).await {
            text.push_str(&show_error(&e));
            break;
        }
    }
    Ok(text)
}

async fn execute(conn: &mut Conn, statement: &Statement, values: &str) -> Result<String, Error> {
    let values = parameters(values);
    if values.len() != usize::from(statement.num_params()) {
        return Ok(format!("  wants {} parameters\n", statement.num_params()));
    }
    let params = if values.is_empty() { Params::Empty } else { Params::Positional(values) };
    let mut text = String::new();
    let mut result = conn.exec_iter(statement, params).await?;
    while !result.is_empty() || text.is_empty() {
        if let Err(e) = one_result(&mut result, &mut text).await {
            text.push_str(&show_error(&e));
            break;
        }
    }
    Ok(text)
}

async fn one_result<P: mysql_async::prelude::Protocol>(
    result: &mut mysql_async::QueryResult<'_, '_, P>,
    text: &mut String,
) -> Result<(), Error> {
    for c in result.columns_ref().iter().take(30) {
        let _ = writeln!(
            text,
            "  column {} {} {} {} {} charset={} length={} {:?} {:?} {}",
            c.name_str(),
            c.org_name_str(),
            c.table_str(),
            c.org_table_str(),
            c.schema_str(),
            c.character_set(),
            c.column_length(),
            c.column_type(),
            c.flags(),
            c.decimals()
        );
    }
    let (mut count, mut rest) = (0, DefaultHasher::new());
    while let Some(row) = result.next().await? {
        let values: Vec<String> = (0..row.len()).map(|i| show(row.as_ref(i).unwrap_or(&Value::NULL))).collect();
        if count < ROWS_SHOWN {
            let _ = writeln!(text, "  row {}", values.join(" "));
        } else {
            values.hash(&mut rest);
        }
        count += 1;
    }
    let _ = writeln!(
        text,
        "  {count} rows, hash {:x}, affected={} id={:?} warnings={} info={}",
        rest.finish(),
        result.affected_rows(),
        result.last_insert_id(),
        result.warnings(),
        result.info()
    );
    Ok(())
}

fn show(value: &Value) -> String {
    let text = match value {
        Value::Bytes(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        other => format!("{other:?}"),
    };
    if text.len() <= VALUE_SHOWN {
        return text;
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("<{} characters, hash {:x}>", text.len(), hasher.finish())
}

fn show_error(error: &Error) -> String {
    match error {
        Error::Server(e) => format!("  error {} {} {:?}\n", e.code, e.state, e.message),
        // one event, a connection that was closed, has many names: by who noticed first
        Error::Io(_) | Error::Driver(mysql_async::DriverError::ConnectionClosed) => "  connection lost\n".to_owned(),
        other => format!("  error {other}\n"),
    }
}

fn pattern(size: &str) -> Vec<u8> {
    let size: usize = size.parse().expect("a size");
    (0..size).map(|i| b"abcdefghijklmnopqrstuvwxyz"[(i * 7 + i / 1000) % 26]).collect()
}

fn parameters(text: &str) -> Vec<Value> {
    let one = |p: &str| match p.split_once(':') {
        None => Value::NULL,
        Some(("i", v)) => Value::Int(v.parse().expect("an integer")),
        Some(("u", v)) => Value::UInt(v.parse().expect("an integer")),
        Some(("f", v)) => Value::Double(v.parse().expect("a number")),
        Some(("b", v)) => {
            let byte = |i| u8::from_str_radix(&v[2 * i..2 * i + 2], 16).expect("hexadecimal digits");
            Value::Bytes((0..v.len() / 2).map(byte).collect())
        }
        Some(("n", v)) => Value::Bytes(pattern(v)),
        Some((_, v)) => Value::Bytes(v.as_bytes().to_vec()),
    };
    text.split(" | ").filter(|_| !text.is_empty()).map(one).collect()
}
