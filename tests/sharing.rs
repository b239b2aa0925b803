//! Many sessions, few connections (`sharing = "transaction"`): what a session sees is what it would see on a connection of
//! its own. The model is just that: a private connection to the same server, told the same.
mod proxy;
mod testbed;

use mysql_async::prelude::Queryable;
use mysql_async::{ChangeUserOpts, Conn, Opts, OptsBuilder, Statement, Value};
use proxy::{Options, Proxy, sysbench};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::{ReplicaSet, Server, SetOptions};

/// xorshift64*: the same seed, the same walk.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

fn seed() -> u64 {
    let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed =
        seed.unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64);
    println!("HOLDFAST_SEED={seed}");
    seed | 1
}

fn front(sessions: usize, (mode, listener): (&'static str, &str), cluster: &str) -> (ReplicaSet, Proxy) {
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let mut sql = String::from("GRANT ALL ON *.* TO app@'%'; CREATE ROLE reader; GRANT reader TO app@'%';");
    for side in ["s", "m"] {
        for n in 0..sessions {
            for half in ["a", "b"] {
                let schema = format!("{side}{n}{half}");
                sql += &format!(
                    "CREATE DATABASE {schema}; CREATE TABLE {schema}.t(id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(9), n INT); \
                     CREATE TABLE {schema}.u(id INT PRIMARY KEY AUTO_INCREMENT, last BIGINT); \
                     CREATE TRIGGER {schema}.g BEFORE INSERT ON {schema}.u FOR EACH ROW SET NEW.last = LAST_INSERT_ID(); \
                     INSERT INTO {schema}.t(v, n) VALUES ('{half}', 1), ('x', 2), ('y', 3);"
                );
            }
        }
    }
    set.server(0).sql(&sql);
    set.wait_synced();
    let options = Options::servers(set.servers().iter().map(Server::addr)).modes(&[mode]).cluster(cluster);
    let proxy = Proxy::start(options.listener(&format!("sharing = \"transaction\"\n{listener}")));
    (set, proxy)
}

fn options(port: u16, schema: &str) -> Opts {
    let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port).user(Some("app")).pass(Some("app"));
    let options = options.db_name(Some(schema)).prefer_socket(false).stmt_cache_size(0);
    options.max_allowed_packet(Some(1 << 20)).wait_timeout(Some(600)).into()
}

/// What is asked of both.
#[derive(Clone, Debug)]
enum Step {
    /// `{a}` and `{b}` are the side's two schemas, `{s}` its name.
    Text(String),
    Prepare(usize, String),
    Execute(usize, Vec<Value>),
    Close(usize),
    Reset,
}

/// One side: the proxy's, or the model's.
struct Side {
    connection: Conn,
    name: String,
    statements: HashMap<usize, Statement>,
}

impl Side {
    async fn new(port: u16, name: String) -> Self {
        let connection = Conn::new(options(port, &format!("{name}a"))).await.expect("a login");
        Self { connection, name, statements: HashMap::new() }
    }

    fn own(&self, text: &str) -> String {
        text.replace("{a}", &format!("{}a", self.name))
            .replace("{b}", &format!("{}b", self.name))
            .replace("{s}", &self.name)
    }

    /// What it answers, the side's own names taken out.
    async fn take(&mut self, step: &Step) -> String {
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
                    let rows: Vec<mysql_async::Row> = result.collect().await?;
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
                let rows: Vec<mysql_async::Row> = result.collect().await?;
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

fn shown(row: mysql_async::Row) -> String {
    let cell = |value: Value| match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => format!("{other:?}"),
    };
    row.unwrap().into_iter().map(cell).collect::<Vec<_>>().join("|") + ";"
}

fn head<P: mysql_async::prelude::Protocol>(result: &mysql_async::QueryResult<'_, '_, P>) -> String {
    let columns = result.columns();
    let names: Vec<String> = columns.iter().flat_map(|all| all.iter()).map(|column| column.name_str().into()).collect();
    // What a SELECT says of rows affected is what a statement before it did.
    let rows = if names.is_empty() { result.affected_rows() } else { 0 };
    format!("{rows} rows, id {:?}, {} warnings {names:?}: ", result.last_insert_id(), result.warnings())
}

/// Not among them: auto_increment_increment, which InnoDB remembers with the open table, whoever opened it.
const VARIABLES: &[&str] = &[
    "sql_mode='ANSI_QUOTES'",
    "sql_mode=''",
    "sql_mode='NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES'",
    "sql_mode=DEFAULT",
    "time_zone='+05:30'",
    "time_zone='SYSTEM'",
    "lc_time_names='de_DE'",
    "max_execution_time=77000",
    "group_concat_max_len=5",
    "div_precision_increment=9",
    "div_precision_increment=DEFAULT",
    "sql_select_limit=2",
    "sql_select_limit=DEFAULT",
    "transaction_isolation='READ-COMMITTED'",
    "transaction_isolation='SERIALIZABLE'",
    "transaction_read_only=0",
    "sort_buffer_size=400000",
    "sql_safe_updates=1",
    "sql_safe_updates=0",
    "foreign_key_checks=0",
    "unique_checks=0",
    "default_week_format=3",
    "net_write_timeout=123",
    "wait_timeout=1234",
    "lock_wait_timeout=17",
    "innodb_lock_wait_timeout=9",
    "tmp_table_size=2000000",
    "max_error_count=1",
    "max_error_count=DEFAULT",
    "sql_auto_is_null=0",
    "cte_max_recursion_depth=77",
    "optimizer_switch='index_merge=off'",
    "default_storage_engine='MyISAM'",
    "default_storage_engine=DEFAULT",
    "character_set_results=NULL",
    "character_set_results=latin1",
    "character_set_client=latin1",
    "character_set_connection=latin2",
    "collation_connection=utf8mb4_bin",
    "collation_connection=latin1_german1_ci",
    "sql_quote_show_create=0",
    "updatable_views_with_limit=0",
    "join_buffer_size=300000",
    "completion_type=0",
    "block_encryption_mode='aes-256-cbc'",
    "session_track_schema=0",
    "session_track_schema=1",
    "information_schema_stats_expiry=5",
    "end_markers_in_json=1",
    "low_priority_updates=1",
    "old_alter_table=1",
    "sql_buffer_result=1",
    "sql_big_selects=0",
    "sql_notes=0",
    "sql_notes=1",
    "sql_warnings=1",
    "windowing_use_high_precision=0",
    "default_collation_for_utf8mb4=utf8mb4_general_ci",
    "max_sort_length=64",
    "max_seeks_for_key=9",
    "range_alloc_block_size=8192",
    "read_buffer_size=16384",
    "profiling=0",
    "print_identified_with_as_hex=1",
    "show_create_table_verbosity=1",
    "eq_range_index_dive_limit=5",
    "binlog_rows_query_log_events=1",
    "explain_format=TREE",
    "explain_format=DEFAULT",
    "character_set_filesystem=latin1",
    "max_join_size=1000",
    "max_length_for_sort_data=500",
    "select_into_disk_sync=1",
];

const READS: &[&str] = &[
    "SELECT @@SESSION.sql_mode, @@time_zone, @@lc_time_names, @@max_execution_time, @@group_concat_max_len, @@autocommit",
    "SELECT @@SESSION.transaction_isolation, @@SESSION.transaction_read_only, @@SESSION.auto_increment_increment, @@sql_notes",
    "SELECT @@sort_buffer_size, @@sql_safe_updates, @@foreign_key_checks, @@unique_checks, @@wait_timeout, @@lock_wait_timeout",
    "SELECT @@character_set_client, @@character_set_results, @@character_set_connection, @@collation_connection",
    "SELECT @@tmp_table_size, @@max_error_count, @@sql_auto_is_null, @@optimizer_switch, @@default_storage_engine",
    "SELECT @@sql_select_limit, @@div_precision_increment, @@default_week_format, @@innodb_lock_wait_timeout, @@join_buffer_size",
    "SELECT @@explain_format, @@max_sort_length, @@block_encryption_mode, @@end_markers_in_json, @@max_join_size",
    "SHOW SESSION VARIABLES WHERE Variable_name IN ({all})",
    "SELECT DATABASE(), CURRENT_USER(), CURRENT_ROLE()",
    "SELECT id, v, n FROM t ORDER BY id",
    "SELECT 1/3, 'a''b', '\\\\n'",
    "SELECT \"v\" FROM t ORDER BY id",
    "SELECT DATE_FORMAT('2026-11-21', '%W'), WEEK('2026-11-21'), 'ä' = 'a', CHARSET('x')",
    "SELECT GROUP_CONCAT(v ORDER BY id) FROM t",
    "SELECT COUNT(*) FROM {b}.t",
    "SELECT @a, @b",
    "SELECT * FROM t WHERE id IS NULL",
    "SELECT 'a' || 'b'",
    "SELECT COLLATION('x'), HEX('ß'), 'x' COLLATE utf8mb4_bin",
    "SHOW CREATE DATABASE {a}",
    "SHOW COLUMNS FROM t",
    "SELECT * FROM tt",
];

const BEHIND: &[&str] = &[
    "SELECT LAST_INSERT_ID()",
    "SHOW WARNINGS",
    "SHOW ERRORS",
    "SHOW COUNT(*) WARNINGS",
    "SHOW COUNT(*) ERRORS",
    "SELECT ROW_COUNT()",
    "SELECT FOUND_ROWS()",
    "SELECT @@warning_count, @@error_count",
    "SELECT ROW_COUNT() AS n, LAST_INSERT_ID()",
    "INSERT INTO u(last) VALUES (0)",
    "SELECT last FROM u ORDER BY id DESC LIMIT 1",
    "SELECT @@last_insert_id, @@identity",
];

const WRITES: &[&str] = &[
    "INSERT INTO t(v, n) VALUES ('p', 5)",
    "INSERT INTO t(v, n) VALUES ('q', 5), ('r', 6)",
    "UPDATE t SET n = n + 1 WHERE v = 'x'",
    "INSERT INTO t(id, v) VALUES (FLOOR(1000 + RAND(3) * 0), 'same')",
    "DELETE FROM t WHERE v = 'p' LIMIT 1",
    "INSERT IGNORE INTO t(id, v) VALUES (1, 'dup')",
    "INSERT INTO t(v) VALUES ('much too long for it')",
    "SELECT 1 / 0",
    "UPDATE t SET id = LAST_INSERT_ID(id) WHERE v = 'y'",
    "DROP TABLE IF EXISTS nothing_here",
    "SELECT CAST('1x' AS SIGNED)",
    "SELECT LAST_INSERT_ID(77)",
    "SET last_insert_id = 12",
    "REPLACE INTO t(id, v) VALUES (2, 'rep')",
    "SELECT nonsense",
    "INSERT INTO t(v) SELECT v FROM t LIMIT 2",
    "DO 1",
    "SELECT SQL_CALC_FOUND_ROWS id FROM t LIMIT 1",
    "USE {b}",
    "USE {a}",
    "SELECT id FROM t FOR UPDATE",
    "INSERT INTO {b}.t(v) VALUES ('far')",
];

const NAMES: &[&str] = &[
    "SET NAMES latin1",
    "SET NAMES utf8mb4",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "SET NAMES DEFAULT",
    "SET CHARACTER SET latin2",
    "SET CHARACTER SET DEFAULT",
    "SET NAMES utf8mb3",
    "SET NAMES gbk",
    "SET NAMES nonsense",
];

/// They bind the session to its connection: a reset follows.
const PINS: &[&str] = &[
    "CREATE TEMPORARY TABLE IF NOT EXISTS tt(x INT)",
    "INSERT INTO tt VALUES (1)",
    "SELECT GET_LOCK('{s}', 0)",
    "SELECT IS_FREE_LOCK('{s}')",
    "SELECT RELEASE_ALL_LOCKS()",
    "LOCK TABLES t READ",
    "UNLOCK TABLES",
    "SET @a = 5, @b = 'x'",
    "SELECT @a := 9",
    "PREPARE p FROM 'SELECT n + ? FROM t WHERE id = 1'",
    "EXECUTE p USING @a",
    "DEALLOCATE PREPARE p",
    "SET timestamp = 1000",
    "SET rand_seed1 = 5",
    "HANDLER t OPEN",
    "HANDLER t READ FIRST",
    "HANDLER t CLOSE",
    "SELECT NOW() < '1980-01-01'",
    "SELECT @a, @b",
    "SELECT * FROM tt",
];

/// They bind it for good: no reset takes them back.
const FOR_GOOD: &[&str] = &["SET ROLE NONE", "SET ROLE ALL", "SELECT CURRENT_ROLE()", "SET insert_id = 900"];

const TRANSACTIONS: &[&str] = &[
    "BEGIN",
    "START TRANSACTION READ ONLY",
    "COMMIT",
    "ROLLBACK",
    "SET autocommit = 0",
    "SET autocommit = 1",
    "SAVEPOINT x",
    "ROLLBACK TO x",
    "SET TRANSACTION READ ONLY",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "COMMIT AND CHAIN",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    "COMMIT",
    "COMMIT",
];

const PREPARED: &[(&str, usize)] = &[
    ("SELECT id, v, n + ? FROM t WHERE id < ?", 2),
    ("INSERT INTO t(v, n) VALUES ('e', ?)", 1),
    ("SELECT ?, @@sql_mode", 1),
    ("SELECT COUNT(*) FROM t", 0),
    ("UPDATE t SET n = ? WHERE v = 'x'", 1),
    ("SELECT 1/0", 0),
    ("SELECT nonsense", 0),
];

fn step(chance: &mut Chance, open: &mut [Option<usize>; 4], before: Option<&Step>) -> (Step, bool) {
    let text = |sql: &str| Step::Text(sql.to_owned());
    let read = matches!(before, Some(Step::Text(sql)) if READS.contains(&&**sql) && sql.starts_with("SELECT"));
    match chance.below(100) {
        0..22 => (text(&format!("SET SESSION {}", chance.pick(VARIABLES))), false),
        22..44 => {
            let names = VARIABLES.iter().filter_map(|set| set.split('=').next());
            let all: Vec<String> = names.map(|name| format!("'{name}'")).collect();
            (text(&chance.pick(READS).replace("{all}", &all.join(","))), false)
        }
        44..60 => match chance.pick(BEHIND) {
            // Behind anything but a SELECT it is nothing to go by.
            "SELECT FOUND_ROWS()" if !read => (text("SELECT ROW_COUNT()"), false),
            sql => (text(sql), false),
        },
        60..76 => (text(chance.pick(WRITES)), false),
        76..80 => (text(chance.pick(NAMES)), false),
        80..82 => (text(chance.pick(PINS)), true),
        82..90 => (text(chance.pick(TRANSACTIONS)), false),
        _ => {
            let slot = chance.below(open.len());
            let step = match open[slot] {
                None => {
                    let (sql, parameters) = PREPARED[chance.below(PREPARED.len())];
                    open[slot] = Some(parameters);
                    Step::Prepare(slot, sql.to_owned())
                }
                Some(_) if chance.below(5) == 0 => {
                    open[slot] = None;
                    Step::Close(slot)
                }
                Some(parameters) => {
                    // Of one type: a statement's columns go by the types it was executed with first, on that very connection.
                    let value = |n: u64| Value::Int((n % 50) as i64);
                    Step::Execute(slot, (0..parameters).map(|_| value(chance.next())).collect())
                }
            };
            (step, false)
        }
    }
}

async fn session(ports: (u16, u16), (n, split): (usize, bool), steps: usize, seed: u64) {
    let mut chance = Chance(seed ^ (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut ours = Side::new(ports.0, format!("s{n}")).await;
    let mut model = Side::new(ports.1, format!("m{n}")).await;
    let (mut open, mut reset_in, mut told, mut went_well) = ([None; 4], None, Vec::new(), false);
    for _ in 0..steps {
        let binds = n == 0 && chance.below(40) == 0;
        let (mut step, pins) = step(&mut chance, &mut open, told.last().filter(|_| went_well));
        // What one server makes of DDL, and of SET autocommit, in a read-only transaction, a follower can't.
        if split && matches!(&step, Step::Text(sql) if sql.contains("READ ONLY")) {
            continue;
        }
        if reset_in == Some(0) {
            (step, reset_in, open) = (Step::Reset, None, [None; 4]);
        } else if binds {
            step = Step::Text(chance.pick(FOR_GOOD).to_owned());
        } else if pins && reset_in.is_none() {
            reset_in = Some(chance.below(6));
        } else {
            reset_in = reset_in.map(|left: usize| left.saturating_sub(1));
        }
        told.push(step.clone());
        let expected = model.take(&step).await;
        let answer = ours.take(&step).await;
        went_well = expected.starts_with("0 rows");
        if answer != expected {
            let last: Vec<String> = told.iter().rev().take(60).rev().map(|step| format!("  {step:?}")).collect();
            let same = answer.bytes().zip(expected.bytes()).take_while(|(one, other)| one == other).count();
            let from = |text: &str| text.chars().skip(same.saturating_sub(40)).take(120).collect::<String>();
            let (answer, expected) = (from(&answer), from(&expected));
            panic!("session {n}, step {}: …{answer}… instead of …{expected}… after\n{}", told.len(), last.join("\n"));
        }
        if let (Step::Prepare(slot, _), true) = (&step, expected.starts_with("1295 ") || expected.starts_with("1064 "))
        {
            open[*slot] = None;
        }
    }
}

/// Something else that it might be set to.
fn others(value: &str) -> Vec<String> {
    match (value, value.parse::<i64>()) {
        ("ON", _) => vec!["0".to_owned()],
        ("OFF", _) => vec!["1".to_owned()],
        (_, Ok(number)) => {
            [number + 1, number + 4096, number * 2, number / 2, number - 1].map(|n| n.to_string()).to_vec()
        }
        _ => [
            "latin1",
            "latin1_german1_ci",
            "'de_DE'",
            "'+03:00'",
            "'ANSI'",
            "MyISAM",
            "TREE",
            "'aes-256-cbc'",
            "'NO_GLOBAL'",
            "1",
            "''",
        ]
        .map(str::to_owned)
        .to_vec(),
    }
}

/// Whatever SET SESSION takes stays with its session and is taken along by it.
#[test]
fn no_variable_is_left_to_the_next_session() {
    let (set, proxy) = front(1, ("primary", ""), "shared_connections_max = 1");
    let mut model = proxy.client_of(set.server(0).port());
    let names =
        model.query("SELECT variable_name FROM performance_schema.session_variables ORDER BY 1").expect("names");
    // Workers take clients in turn: the first and the third share one connection.
    let (mut one, _other, mut next) = (proxy.client(), proxy.client(), proxy.client());
    let (mut tried, mut wrong) = (0, Vec::new());
    for row in &names {
        let name = &*row[0];
        // They say how the very next write is to be made, or are the proxy's own.
        if ["gtid_next", "session_track_system_variables", "session_track_gtids", "pseudo_thread_id"].contains(&name) {
            continue;
        }
        // These bind the session to its connection: nobody else gets it.
        let binds = [
            "timestamp",
            "rand_seed1",
            "rand_seed2",
            "insert_id",
            "sql_log_bin",
            "original_commit_timestamp",
            "profiling",
            "pseudo_replica_mode",
            "pseudo_slave_mode",
            "use_secondary_engine",
            "sql_auto_is_null",
        ];
        if binds.contains(&name) {
            continue;
        }
        let ask = format!("SELECT @@SESSION.{name}");
        let mut model = proxy.client_of(set.server(0).port());
        let Ok(at_login) = model.query(&ask) else { continue };
        let taken = others(&at_login[0][0]).into_iter().map(|value| format!("SET SESSION {name} = {value}"));
        let Some(set) = taken
            .into_iter()
            .find(|set| model.query(set).is_ok() && model.query(&ask).is_ok_and(|now| now != at_login))
        else {
            continue;
        };
        let mine = model.query(&ask).expect("its value");
        one.query(&set).unwrap_or_else(|fault| panic!("{set}: {fault:?}"));
        let seen = next.query(&ask).expect(&ask);
        if seen != at_login {
            wrong.push(format!("{seen:?} instead of {at_login:?} after another session's {set}"));
        }
        let seen = one.query(&ask).expect(&ask);
        if seen != mine {
            wrong.push(format!("{seen:?} instead of {mine:?} behind its own {set}"));
        }
        one.send(&[0x1F]);
        one.read().expect("COM_RESET_CONNECTION is answered");
        tried += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried > 80, "only {tried} of {} variables could be set", names.len());
}

fn model(sessions: usize, steps: usize, mode: &'static str, listener: &str) {
    let seed = seed();
    let (set, proxy) = front(sessions, (mode, listener), "shared_connections_max = 4\nshared_statements_max = 3");
    walk((proxy.port(), set.server(0).port()), sessions, (steps, mode), seed);
}

/// So many sessions, each beside its model, at once.
fn walk(ports: (u16, u16), sessions: usize, (steps, mode): (usize, &'static str), seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let all: Vec<_> = (0..sessions)
            .map(|n| tokio::task::spawn_local(session(ports, (n, mode == "split"), steps, seed)))
            .collect();
        for one in all {
            if let Err(error) = one.await {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    });
}

#[test]
fn a_session_on_the_primary_is_as_on_a_connection_of_its_own() {
    model(10, 400, "primary", "");
}

#[test]
fn a_session_that_reads_from_followers_is_as_on_a_connection_of_its_own() {
    model(8, 300, "split", "consistency = \"session\"\nconsistency_wait_ms = 2000");
}

fn alone<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

#[test]
fn a_changed_user_shares_with_nobody_but_his_own() {
    let (_set, proxy) = front(1, ("primary", ""), "shared_connections_max = 1");
    alone(async {
        let connect = async || Conn::new(options(proxy.port(), "s0a")).await.expect("a login");
        // Workers take clients in turn: the first and the third share one connection.
        let (mut one, _other, mut next) = (connect().await, connect().await, connect().await);
        let root = ChangeUserOpts::new().with_user(Some("root".to_owned())).with_pass(Some(String::new()));
        one.change_user(root).await.expect("another user");
        for _ in 0..3 {
            for (connection, user) in [(&mut one, "root@%"), (&mut next, "app@%")] {
                let who: Option<String> = connection.query_first("SELECT CURRENT_USER()").await.expect("an answer");
                assert_eq!(who.as_deref(), Some(user));
            }
        }
    });
}

#[test]
fn a_session_that_ends_leaves_its_connection_to_the_next() {
    let (_set, proxy) = front(1, ("primary", ""), "shared_connections_max = 2");
    let ids: HashSet<String> = (0..8).map(|_| proxy.client().one("SELECT CONNECTION_ID()")).collect();
    assert_eq!(ids.len(), 2, "one for each worker: {ids:?}");
}

#[test]
fn clients_with_a_schema_and_without_one_do_not_cost_each_other_their_connections() {
    let (_set, proxy) = front(1, ("primary", ""), "shared_connections_max = 4");
    let mut ids = HashSet::new();
    alone(async {
        for n in 0..12 {
            let without = OptsBuilder::from_opts(options(proxy.port(), "s0a")).db_name(None::<String>);
            let options = if n / 2 % 2 == 0 { options(proxy.port(), "s0a") } else { without.into() };
            let mut connection = Conn::new(options).await.expect("a login");
            let id: Option<u64> = connection.query_first("SELECT CONNECTION_ID()").await.expect("an answer");
            let schema: Option<Option<String>> = connection.query_first("SELECT DATABASE()").await.expect("an answer");
            assert_eq!(schema.flatten().is_some(), n / 2 % 2 == 0);
            ids.insert(id);
            connection.disconnect().await.expect("a farewell");
        }
    });
    assert!(ids.len() <= 4, "one of each kind for each worker: {ids:?}");
}

/// Many threads of sysbench, and the model beside them, on so few connections that everybody waits for everybody.
fn crowd(threads: usize, connections: usize, seconds: u64) {
    let seed = seed();
    let cluster = format!("shared_connections_max = {connections}");
    let (set, proxy) = front(6, ("split", "consistency = \"session\""), &cluster);
    sysbench(proxy.port(), "oltp_read_write", &[], "prepare");
    set.wait_synced();
    let stop = AtomicBool::new(false);
    let ports = (proxy.port(), set.server(0).port());
    let most = std::thread::scope(|scope| {
        let models = scope.spawn(|| {
            let mut round = seed;
            while !stop.load(Ordering::Relaxed) {
                walk(ports, 6, (40, "split"), round);
                round = round.wrapping_add(2);
            }
        });
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE user='app'";
                most = set.servers().iter().map(|server| server.one(sql).parse().unwrap_or(0)).fold(most, usize::max);
            }
            most
        });
        let more =
            [format!("--threads={threads}"), format!("--time={seconds}"), "--mysql-ignore-errors=1213,1205".to_owned()];
        let told = sysbench(proxy.port(), "oltp_read_write", &more.each_ref().map(String::as_str), "run");
        let figures = told.lines().filter(|line| line.contains("transactions:") || line.contains("errors:"));
        println!(
            "{threads} threads on {connections} connections: {}",
            figures.map(str::trim).collect::<Vec<_>>().join(", ")
        );
        stop.store(true, Ordering::Relaxed);
        models.join().expect("the models agree");
        watch.join().expect("the servers answer")
    });
    // The models have a connection of their own each, on the primary.
    assert!(most <= connections + 6, "{most} connections of clients to one server");
}

#[test]
fn a_crowd_on_few_connections_gets_no_wrong_answer() {
    crowd(100, 16, 10);
}

#[test]
#[ignore = "takes ten minutes"]
fn a_thousand_sessions_on_32_connections_get_no_wrong_answer() {
    crowd(1_000, 32, std::env::var("HOLDFAST_CROWD_S").ok().and_then(|s| s.parse().ok()).unwrap_or(600));
}
