//! What the classifier calls a read, put to a real MySQL 9.7.
//!
//! A generated corpus is run twice: on the server with super_read_only=ON, where no read may be refused as a write
//! (1290, 1792, 1836), and with super_read_only=OFF, where no read may move gtid_executed or change a table. The same
//! harness with a planted wrong rule must find it, so the corpus is known to hold what it is looking for.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "classify_on_server/grammar.rs"]
mod grammar;
mod testbed;

use grammar::Choices;
use holdfast::classify::{Class, Dialect, Flavor, SqlMode, classify};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use testbed::{Server, ServerOptions};

const STATEMENTS: usize = 4000;
/// ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE.
const REFUSED_AS_WRITE: [u16; 3] = [1290, 1792, 1836];
/// ER_SP_DOES_NOT_EXIST, ER_FUNC_INEXISTENT_NAME_COLLISION: the server looked for a stored function.
const NO_SUCH_FUNCTION: [u16; 2] = [1305, 1630];

const SCHEMA: &[&str] = &[
    "CREATE TABLE t1 (id INT PRIMARY KEY, v INT, s VARCHAR(50))",
    "CREATE TABLE t2 (id INT PRIMARY KEY AUTO_INCREMENT, v INT, s VARCHAR(50))",
    "CREATE TABLE audit (id INT PRIMARY KEY AUTO_INCREMENT)",
    "INSERT INTO t1 VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')",
    "INSERT INTO t2 (v, s) VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    "CREATE PROCEDURE writes() INSERT INTO audit VALUES (NULL)",
];

/// Stored functions that write a row; most have the name of something built in elsewhere or called differently.
const FUNCTIONS: &[&str] = &[
    "side_effect()",
    "`count`(a INT)",
    "`now`()",
    "nvl(a INT)",
    "md5(a INT)",
    "against(a INT)",
    "columns_of(a INT)",
    "`max`(a INT)",
];

fn dialect() -> Dialect {
    Dialect { flavor: Flavor::MySql { version: 90704 }, mode: SqlMode::default(), multibyte_escape_unsafe: false }
}

/// Is this text a read?
type Rule = fn(&str) -> bool;

fn by_classifier(sql: &str) -> bool {
    matches!(classify(sql.as_bytes(), dialect()).class, Class::Read | Class::Diagnostics)
}

/// What a run over the corpus found.
#[derive(Default)]
struct Found {
    reads: usize,
    /// Reads that the server ran without any error.
    ran: usize,
    /// Other statements that the server refused as writes: what was kept away from followers.
    refused_others: usize,
    violations: Vec<String>,
}

fn start() -> Server {
    let server = Server::start(ServerOptions::mysql().named("classify").with("log_bin_trust_function_creators=ON"));
    block_on(async {
        let mut conn = connect(&server).await;
        for sql in SCHEMA {
            assert_eq!(run(&mut conn, sql).await, None, "{sql}");
        }
        for function in FUNCTIONS {
            let body = "RETURNS INT BEGIN INSERT INTO audit VALUES (NULL); RETURN 1; END";
            assert_eq!(run(&mut conn, &format!("CREATE FUNCTION {function} {body}")).await, None, "{function}");
        }
        conn.disconnect().await.unwrap();
    });
    server
}

async fn connect(server: &Server) -> Conn {
    let opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(server.port())
        .user(Some("root"))
        .db_name(Some("app"));
    Conn::new(opts).await.unwrap()
}

/// Runs one text to the end of its last result; the error's number if there is one.
async fn run(conn: &mut Conn, sql: &str) -> Option<u16> {
    let result = tokio::time::timeout(Duration::from_secs(30), conn.query_drop(sql)).await.expect("answers in time");
    match result {
        Ok(()) => None,
        Err(mysql_async::Error::Server(error)) => Some(error.code),
        Err(other) => panic!("{sql}: {other}"),
    }
}

async fn state(conn: &mut Conn) -> String {
    conn.query_first::<String, _>("SELECT @@GLOBAL.gtid_executed").await.unwrap().unwrap()
}

async fn checksums(conn: &mut Conn) -> Vec<(String, Option<u64>)> {
    conn.query("CHECKSUM TABLE t1, t2, audit").await.unwrap()
}

/// Runs the corpus of `seed`; `is_read` is the rule under test.
async fn check(server: &Server, seed: u64, is_read: Rule) -> Found {
    let mut choices = Choices(seed);
    let corpus: Vec<_> = (0..STATEMENTS).map(|_| grammar::statement(&mut choices)).collect();
    let mut found = Found::default();
    let mut conn = connect(server).await;

    assert_eq!(run(&mut conn, "SET GLOBAL super_read_only=ON").await, None);
    let before = (state(&mut conn).await, checksums(&mut conn).await);
    for sql in &corpus {
        let code = run(&mut conn, sql).await;
        let refused = code.is_some_and(|code| REFUSED_AS_WRITE.contains(&code));
        match (is_read(sql), refused) {
            (true, true) => found.violations.push(format!("refused as a write ({code:?}): {sql}")),
            (false, true) => found.refused_others += 1,
            (_, false) => {}
        }
        found.reads += usize::from(is_read(sql));
        found.ran += usize::from(is_read(sql) && code.is_none());
    }
    assert_eq!(before, (state(&mut conn).await, checksums(&mut conn).await), "super_read_only lets nothing through");

    assert_eq!(run(&mut conn, "SET GLOBAL read_only=OFF").await, None);
    let mut last = state(&mut conn).await;
    for sql in corpus.iter().filter(|sql| is_read(sql)) {
        run(&mut conn, sql).await;
        let now = state(&mut conn).await;
        if now != last {
            found.violations.push(format!("changed data: {sql}"));
            last = now;
        }
    }
    if found.violations.is_empty() {
        assert_eq!(checksums(&mut conn).await, before.1);
    }
    conn.disconnect().await.unwrap();
    found
}

fn seed() -> u64 {
    std::env::var("HOLDFAST_SEED")
        .map(|text| text.parse().expect("HOLDFAST_SEED is a number"))
        .unwrap_or_else(|_| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn reads_neither_write_nor_are_refused() {
    let server = start();
    let seed = seed();
    println!("HOLDFAST_SEED={seed}");

    let found = block_on(check(&server, seed, by_classifier));

    let Found { reads, ran, refused_others, violations } = found;
    println!("{STATEMENTS} statements, {reads} reads, {ran} of them ran, {refused_others} others refused as writes");
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    assert!(reads > STATEMENTS / 4, "too few reads to mean something: {reads}");
    assert!(ran > STATEMENTS / 8, "too few reads that the server understood: {ran}");
    assert!(refused_others > STATEMENTS / 20, "too few dangerous statements: {refused_others}");
}

#[test]
fn a_planted_wrong_rule_is_found() {
    let server = start();
    let seed = seed();
    println!("HOLDFAST_SEED={seed}");
    // Each forgets one rule: unknown functions, locking clauses, DML behind a WITH, EXPLAIN of a write.
    let planted: [(&str, Rule); 4] = [
        ("unknown functions", |sql| by_classifier(sql) || (sql.starts_with("SELECT") && sql.contains("side_effect()"))),
        ("quoted names", |sql| by_classifier(&sql.replace("`count`(1)", "1"))),
        ("WITH", |sql| by_classifier(sql) || sql.starts_with("WITH")),
        ("EXPLAIN", |sql| by_classifier(sql) || sql.starts_with("EXPLAIN")),
    ];
    for (name, rule) in planted {
        let found = block_on(check(&server, seed, rule));
        println!("{name}: {} violations, such as {:?}", found.violations.len(), found.violations.first());
        assert!(!found.violations.is_empty(), "the planted rule about {name} was not found");
    }
}

/// Every name of the classifier's own table, called in several ways: whatever is still a read, the server must never
/// look for a stored function of that name.
#[test]
fn no_listed_name_can_be_a_stored_function() {
    let names: Vec<&str> = include_str!("../src/classify/functions.rs")
        .split("names: \"")
        .skip(1)
        .flat_map(|group| group.split('"').next().unwrap().split([' ', '\n', '\\']))
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.len() > 400 && names.contains(&"COUNT"), "{}", names.len());
    let server = start();
    block_on(async {
        let mut conn = connect(&server).await;
        let mut asked = 0;
        for name in names {
            for call in ["()", "(1)", "('a')", "(1, 1)", " ()", " (1)", "/**/(1)", "(1, 1, 1)"] {
                let sql = format!("SELECT {name}{call}");
                if by_classifier(&sql) {
                    asked += 1;
                    let code = run(&mut conn, &sql).await;
                    assert!(!code.is_some_and(|code| NO_SUCH_FUNCTION.contains(&code)), "{sql}: {code:?}");
                }
            }
        }
        println!("{asked} calls of listed names");
        assert!(asked > 1000);
        conn.disconnect().await.unwrap();
    });
    assert_eq!(server.one("SELECT COUNT(*) FROM app.audit"), "0");
}
