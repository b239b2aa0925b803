//! Two sides that are asked the same: a session through the proxy, and its model on a connection of its own.

use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{Conn, Opts, OptsBuilder, QueryResult, Row, Statement, Value};
use std::collections::HashMap;

pub fn options(port: u16, schema: &str) -> Opts {
    let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port).user(Some("app")).pass(Some("app"));
    let options = options.db_name(Some(schema)).prefer_socket(false).stmt_cache_size(0);
    options.max_allowed_packet(Some(1 << 20)).wait_timeout(Some(600)).into()
}

/// What is asked of both.
#[derive(Clone, Debug)]
pub enum Step {
    /// `{a}` and `{b}` are the side's two schemas, `{s}` its name.
    Text(String),
    Prepare(usize, String),
    Execute(usize, Vec<Value>),
    Close(usize),
    Reset,
}

/// One side: the proxy's, or the model's.
pub struct Side {
    connection: Conn,
    name: String,
    statements: HashMap<usize, Statement>,
}

impl Side {
    pub async fn new(port: u16, name: String) -> Self {
        let connection = Conn::new(options(port, &format!("{name}a"))).await.expect("a login");
        Self { connection, name, statements: HashMap::new() }
    }

    fn own(&self, text: &str) -> String {
        text.replace("{a}", &format!("{}a", self.name))
            .replace("{b}", &format!("{}b", self.name))
            .replace("{s}", &self.name)
    }

    /// What it answers, the side's own names taken out.
    pub async fn take(&mut self, step: &Step) -> String {
        let answer = match self.try_take(step).await {
            Ok(answer) => answer,
            Err(mysql_async::Error::Server(error)) => format!("{} {} {}", error.code, error.state, error.message),
            Err(error) => panic!("{}: {step:?}: {error}", self.name),
        };
        let (a, b) = (format!("{}a", self.name), format!("{}b", self.name));
        answer.replace(&a, "{a}").replace(&b, "{b}").replace(&self.name, "{s}")
    }

    async fn try_take(&mut self, step: &Step) -> Result<String, mysql_async::Error> {
        let mut seen = String::new();
        match step {
            Step::Text(sql) => {
                let sql = self.own(sql);
                let mut result = self.connection.query_iter(sql).await?;
                loop {
                    seen += &head(&result);
                    let rows: Vec<Row> = result.collect().await?;
                    rows.into_iter().for_each(|row| seen += &shown(row));
                    if result.is_empty() {
                        break;
                    }
                }
            }
            Step::Prepare(n, sql) => {
                let sql = self.own(sql);
                let statement = self.connection.prep(sql).await?;
                seen += &format!("{} parameters, {} columns", statement.num_params(), statement.columns().len());
                self.statements.insert(*n, statement);
            }
            Step::Execute(n, values) => {
                let Some(statement) = self.statements.get(n).cloned() else { return Ok(seen) };
                let mut result = self.connection.exec_iter(statement, values.clone()).await?;
                seen += &head(&result);
                let rows: Vec<Row> = result.collect().await?;
                rows.into_iter().for_each(|row| seen += &shown(row));
            }
            Step::Close(n) => {
                if let Some(statement) = self.statements.remove(n) {
                    self.connection.close(statement).await?;
                }
            }
            Step::Reset => {
                self.statements.clear();
                self.connection.reset().await?;
            }
        }
        Ok(seen)
    }
}

fn shown(row: Row) -> String {
    let cell = |value: Value| match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => format!("{other:?}"),
    };
    row.unwrap().into_iter().map(cell).collect::<Vec<_>>().join("|") + ";"
}

fn head<P: Protocol>(result: &QueryResult<'_, '_, P>) -> String {
    let columns = result.columns();
    let names: Vec<String> = columns.iter().flat_map(|all| all.iter()).map(|column| column.name_str().into()).collect();
    // What a SELECT says of rows affected is what a statement before it did.
    let rows = if names.is_empty() { result.affected_rows() } else { 0 };
    format!("{rows} rows, id {:?}, {} warnings {names:?}: ", result.last_insert_id(), result.warnings())
}
