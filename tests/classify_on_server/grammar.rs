//! Makes statements from a small grammar: reads, and everything that looks like one and is not.
//!
//! Most of what it makes is valid on the schema of the test. What the classifier has to tell apart is mixed in at every
//! level: stored functions that write (under names of their own and under names of built-in functions), INTO, locking
//! clauses, assignments, DML behind a WITH, version comments, quoting.

/// A reproducible source of choices (splitmix64).
pub struct Choices(pub u64);

impl Choices {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn percent(&mut self, p: usize) -> bool {
        self.below(100) < p
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const TABLES: &[&str] = &["t1", "t2", "app.t1", "`t2`", "`app`.`t1`"];
const COLUMNS: &[&str] = &["id", "v", "`v`", "s"];
/// Calls of built-in functions; `$` stands for an expression.
const NATIVE: &[&str] = &[
    "ABS($)",
    "COALESCE($, $)",
    "IF($, $, $)",
    "IFNULL($, 1)",
    "CONCAT('a', $)",
    "LEFT('abc', 2)",
    "LENGTH($)",
    "UPPER($)",
    "lower ($)",
    "NOW()",
    "CURDATE()",
    "UUID()",
    "RAND()",
    "DATABASE()",
    "VERSION()",
    "USER()",
    "CAST($ AS CHAR(10))",
    "CONVERT($, CHAR(10))",
    "GREATEST($, $)",
    "REPLACE('abc', 'b', $)",
    "INSERT('abc', 1, 1, $)",
    "TRIM(BOTH 'x' FROM $)",
    "SUBSTRING('abc' FROM 1 FOR 2)",
    "JSON_OBJECT('a', $)",
    "JSON_EXTRACT('[1]', '$[0]')",
    "HEX($)",
    "EXTRACT(YEAR FROM NOW())",
    "DATE_ADD(NOW(), INTERVAL ($) DAY)",
    "BENCHMARK(1, $)",
    "SLEEP(0)",
    "ROUND($, 1)",
    "TRUNCATE($, 0)",
    "NULLIF($, $)",
    "$ MOD (7)",
    "$ DIV (3)",
    "ISNULL($)",
    "{fn NOW()}",
    "ST_AsText(POINT(1, 1))",
    "REGEXP_LIKE('a', 'b')",
    "UUID_TO_BIN(UUID())",
    "GTID_SUBSET('', '')",
    "BIN_TO_UUID(UUID_TO_BIN(UUID()))",
];
/// Calls that write a row, or are refused where nothing may be written; some under names that look built in.
const WRITING: &[&str] = &[
    "side_effect()",
    "side_effect ( )",
    "`side_effect`()",
    "app.side_effect()",
    "`app`.`side_effect`()",
    "`count`(1)",
    "app.now()",
    "count (1)",
    "now ()",
    "nvl(1)",
    "md5('x')",
    "against(1)",
    "columns_of(1)",
    "side_effect/**/()",
    "app . side_effect()",
    "`max`(1)",
    "max (1)",
];
/// Calls bound to the connection or to one server; they change nothing in the tables.
const BOUND: &[&str] = &[
    "LAST_INSERT_ID()",
    "CONNECTION_ID()",
    "GET_LOCK('x', 0)",
    "RELEASE_LOCK('x')",
    "IS_FREE_LOCK('x')",
    "ROW_COUNT()",
    "FOUND_ROWS()",
    "UUID_SHORT()",
    "@@identity",
    "@@warning_count",
];
const LOCKING: &[&str] = &[
    " FOR UPDATE",
    " FOR SHARE",
    " LOCK IN SHARE MODE",
    " FOR UPDATE SKIP LOCKED",
    " /*!80000 FOR UPDATE */",
    " FOR/**/UPDATE",
    " for update nowait",
];
const HARMLESS: &[&str] =
    &[" /*!99999 FOR UPDATE */", " /* FOR UPDATE */", " -- INTO @a\n", " # FOR SHARE\n", " /*!999999 INTO @a */"];
const INTO: &[&str] = &[" INTO @a", " INTO OUTFILE '/nowhere/x'", " INTO DUMPFILE '/nowhere/y'", " INTO @a, @b"];

/// One statement.
pub fn statement(c: &mut Choices) -> String {
    let text = match c.below(100) {
        0..60 => query(c, 2),
        60..68 => with(c),
        68..76 => show(c),
        76..84 => format!("{} {}", explain(c), if c.percent(60) { query(c, 1) } else { change(c) }),
        84..88 => format!("{}; {}", query(c, 1), if c.percent(70) { query(c, 1) } else { change(c) }),
        88..91 => format!("DO {}", expression(c, 2)),
        91..93 => "CALL writes()".to_owned(),
        _ => change(c),
    };
    disguise(c, text)
}

fn query(c: &mut Choices, depth: usize) -> String {
    match c.below(12) {
        0 if depth > 0 => format!("({}) UNION ALL ({})", query(c, depth - 1), query(c, depth - 1)),
        1 if depth > 0 => format!("({})", query(c, depth - 1)),
        2 => format!("TABLE {} LIMIT 1{}", c.of(&["t1", "t2"]), tail(c)),
        3 => format!("VALUES ROW({}, 1), ROW(2, {})", expression(c, depth), expression(c, depth)),
        _ => select(c, depth),
    }
}

fn select(c: &mut Choices, depth: usize) -> String {
    let mut s = String::from(c.of(&[
        "SELECT ",
        "select ",
        "SELECT DISTINCT ",
        "SELECT SQL_NO_CACHE ",
        "SELECT SQL_CALC_FOUND_ROWS ",
    ]));
    if c.percent(5) {
        s.insert_str(7, "/*+ MAX_EXECUTION_TIME(1000) */ ");
    }
    for i in 0..=c.below(3) {
        s += if i > 0 { ", " } else { "" };
        s += &expression(c, depth);
        s += c.of(&["", "", " AS x", " `for`", " AS `into`", " 'update'"]);
    }
    if c.percent(80) {
        s += &format!(" FROM {}", source(c, depth));
        if c.percent(60) {
            s += &format!(" WHERE {}", condition(c, depth));
        }
        if c.percent(15) {
            s += &format!(" GROUP BY ({})", c.of(&["1", "2", "3"]));
        }
        s += c.of(&["", "", " ORDER BY 1", " ORDER BY (1) DESC", " LIMIT 3"]);
    }
    s + &tail(c)
}

fn tail(c: &mut Choices) -> String {
    match c.below(100) {
        0..9 => c.of(LOCKING).to_owned(),
        9..14 => c.of(INTO).to_owned(),
        14..24 => c.of(HARMLESS).to_owned(),
        _ => String::new(),
    }
}

fn source(c: &mut Choices, depth: usize) -> String {
    match c.below(10) {
        0 if depth > 0 => format!("({}) AS d", select(c, depth - 1)),
        1 => "(SELECT 1, 2, 3) AS d(id, v, s)".to_owned(),
        2 => "JSON_TABLE('[1]', '$[*]' COLUMNS (id INT PATH '$', v INT PATH '$', s INT PATH '$')) AS j".to_owned(),
        3 => format!("{} AS a JOIN {} AS b USING (id)", c.of(TABLES), c.of(TABLES)),
        4 => "t1 USE INDEX (PRIMARY)".to_owned(),
        5 => "t1 IGNORE INDEX FOR ORDER BY (PRIMARY)".to_owned(),
        _ => c.of(TABLES).to_owned(),
    }
}

fn condition(c: &mut Choices, depth: usize) -> String {
    let (left, right) = (expression(c, depth.min(1)), expression(c, depth.min(1)));
    match c.below(8) {
        0 => format!("{left} IN ({right}, 1)"),
        1 => format!("{left} BETWEEN ({right}) AND (9)"),
        2 if depth > 0 => format!("EXISTS ({})", select(c, depth - 1)),
        3 => format!("({left}, 1) = ({right}, 1)"),
        4 => format!("NOT ({left}) OR ({right})"),
        5 => format!("{left} LIKE ('%') AND ({right}) IS NOT NULL"),
        _ => format!("{left} = {right}"),
    }
}

fn expression(c: &mut Choices, depth: usize) -> String {
    match c.below(100) {
        0..22 => c.of(COLUMNS).to_owned(),
        22..42 => c
            .of(&["1", "2.5", "'x'", "'it''s'", "'a\\'b'", "\"q\"", "NULL", "0x41", "1e3", "_utf8mb4'z'", "N'n'", ".5"])
            .to_owned(),
        42..46 => c.of(&["@a", "@`b`", "@@version", "@@global.read_only", "@@session.sql_mode"]).to_owned(),
        46..50 => c.of(WRITING).to_owned(),
        50..52 => c.of(BOUND).to_owned(),
        52..53 => "(@a := 1)".to_owned(),
        53..58 => format!("CASE WHEN ({}) THEN (1) ELSE ({}) END", c.of(COLUMNS), c.of(&["1", "side_effect()", "2"])),
        58..63 => c
            .of(&["COUNT(*)", "MAX(id)", "SUM(DISTINCT(v))", "ROW_NUMBER() OVER (ORDER BY id)", "GROUP_CONCAT(s)"])
            .to_owned(),
        63..66 if depth > 0 => format!("({})", select(c, depth - 1)),
        66..72 => format!("({} + {})", expression(c, 0), expression(c, 0)),
        _ if depth > 0 => {
            let call = c.of(NATIVE);
            let mut out = String::new();
            for (i, piece) in call.split('$').enumerate() {
                // `$[` and `'$` belong to JSON paths.
                let path = i > 0 && (piece.starts_with('[') || out.ends_with('\''));
                out += &if path {
                    "$".to_owned()
                } else if i > 0 {
                    expression(c, depth - 1)
                } else {
                    String::new()
                };
                out += piece;
            }
            out
        }
        _ => c.of(COLUMNS).to_owned(),
    }
}

fn with(c: &mut Choices) -> String {
    let head = match c.below(3) {
        0 => format!("WITH c AS ({})", select(c, 1)),
        1 => "WITH c(x, `y`) AS (SELECT 1, 2), e (z) AS (SELECT 3)".to_owned(),
        _ => "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3)".to_owned(),
    };
    match c.below(4) {
        0 => format!("{head} UPDATE t1 SET v = 1"),
        1 => format!("{head} DELETE FROM t1 WHERE id IN (SELECT 1 FROM c)"),
        _ => format!("{head} SELECT {} FROM c{}", expression(c, 1), tail(c)),
    }
}

fn show(c: &mut Choices) -> String {
    let list = [
        "SHOW TABLES",
        "SHOW FULL TABLES FROM app",
        "SHOW DATABASES",
        "SHOW COLUMNS FROM t1",
        "SHOW CREATE TABLE t1",
        "SHOW INDEX FROM t2",
        "SHOW VARIABLES LIKE 'a%'",
        "SHOW GLOBAL STATUS LIKE 'Com_s%'",
        "SHOW PROCESSLIST",
        "SHOW ENGINES",
        "SHOW PLUGINS",
        "SHOW GRANTS",
        "SHOW WARNINGS",
        "SHOW COUNT(*) ERRORS",
        "SHOW BINARY LOG STATUS",
        "SHOW BINARY LOGS",
        "SHOW REPLICA STATUS",
        "SHOW TRIGGERS",
        "SHOW PROCEDURE STATUS WHERE Db = 'app'",
        "SHOW CREATE FUNCTION side_effect",
        "SHOW TABLE STATUS",
        "SHOW OPEN TABLES",
        "SHOW VARIABLES WHERE Variable_name = CONCAT('a', 'b')",
        "SHOW TABLES WHERE side_effect()",
        "SHOW ENGINE INNODB STATUS",
        "DESCRIBE t1",
        "DESC app.t1 id",
        "EXPLAIN t1",
        "SHOW STATUS WHERE (1) AND `max`(1)",
        "CHECKSUM TABLE t1",
        "HELP 'select'",
        "SHOW EVENTS",
        "SHOW CHARACTER SET",
        "SHOW COLLATION LIKE 'utf8%'",
        "SHOW PRIVILEGES",
        "SHOW BINLOG EVENTS LIMIT 1",
        "SHOW REPLICAS",
        "SHOW PROFILES",
    ];
    c.of(&list).to_owned()
}

fn explain(c: &mut Choices) -> &'static str {
    c.of(&[
        "EXPLAIN",
        "DESC",
        "EXPLAIN FORMAT=JSON",
        "EXPLAIN FORMAT=TREE",
        "EXPLAIN ANALYZE",
        "EXPLAIN FORMAT=JSON INTO @v",
    ])
}

fn change(c: &mut Choices) -> String {
    let value = expression(c, 1);
    match c.below(12) {
        0 => format!("INSERT INTO t2 (v) VALUES ({value})"),
        1 => "REPLACE INTO t1 (id, v) VALUES (1, 2)".to_owned(),
        2 => format!("UPDATE t1 SET v = {value} WHERE id = 1"),
        3 => "DELETE FROM t2 WHERE id = 1".to_owned(),
        4 => format!("INSERT INTO t2 (v) {}", select(c, 0)),
        5 => "CREATE TABLE made (id INT)".to_owned(),
        6 => "TRUNCATE TABLE t2".to_owned(),
        7 => "ANALYZE TABLE t1".to_owned(),
        8 => "CREATE OR REPLACE VIEW made AS SELECT 1".to_owned(),
        9 => "GRANT SELECT ON app.* TO 'empty'@'%'".to_owned(),
        10 => "OPTIMIZE TABLE t1".to_owned(),
        _ => "DROP TABLE IF EXISTS made".to_owned(),
    }
}

/// The same statement as a tool might send it: a comment in front, or another one as a comment's content.
fn disguise(c: &mut Choices, text: String) -> String {
    match c.below(14) {
        0 => format!("/* app:x */ {text}"),
        1 => format!("-- c\n{text};"),
        2 => format!("/*!50000 {text} */"),
        3 => format!("{text} -- end"),
        4 => text.replacen(' ', "\n\t/**/", 1),
        _ => text,
    }
}
