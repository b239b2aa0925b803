//! Tables of statements and what they are. The rules behind them were checked on the real servers; what a table says of
//! a `Read` is checked again on a real 9.7 by tests/classify_on_server.rs.

use super::*;

mod modes;
mod properties;
mod real_life;
mod state;

const MYSQL: Dialect = Dialect {
    flavor: Flavor::MySql { version: 90704 },
    mode: SqlMode { ansi_quotes: false, no_backslash_escapes: false, ignore_space: false },
    multibyte_escape_unsafe: false,
};
const MARIADB: Dialect = Dialect { flavor: Flavor::MariaDb { version: 101119 }, ..MYSQL };

#[track_caller]
fn expect(class: Class, dialect: Dialect, statements: &[&str]) {
    for sql in statements {
        assert_eq!(classify(sql.as_bytes(), dialect).class, class, "{dialect:?}: {sql}");
    }
}

#[track_caller]
fn expect_flags(flags: Flags, statements: &[&str]) {
    for sql in statements {
        let found = classify(sql.as_bytes(), MYSQL).flags;
        assert!(found.contains(flags), "wanted {flags:?}, found {found:?}: {sql}");
    }
}

#[test]
fn queries_that_only_read() {
    let reads = [
        "SELECT 1",
        "select * from t",
        "SELECT c FROM sbtest1 WHERE id=5012",
        "(SELECT 1) UNION (SELECT 2) ORDER BY 1 LIMIT 3",
        "((SELECT 1))",
        "TABLE t ORDER BY a LIMIT 1",
        "VALUES ROW(1,2), ROW(3,4)",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5) SELECT * FROM n",
        "WITH a (x, `y`) AS (SELECT 1,2), `b`(z) AS (SELECT 3) SELECT * FROM a JOIN b",
        "SELECT * FROM (SELECT 1, 2) AS d(a, b)",
        "SELECT * FROM (SELECT 1, 2) d (a, `b`)",
        "SELECT * FROM t USE INDEX (i) IGNORE INDEX FOR ORDER BY (j) WHERE a IN (1,2)",
        "SELECT * FROM t PARTITION (p0, p1) WHERE (a, b) = ANY (SELECT 1, 2) AND NOT (c) OR EXISTS (SELECT 1)",
        "SELECT COUNT(*), count(distinct(a)), SUM(IF(a>1,1,0)), MAX(b) FROM t GROUP BY a WITH ROLLUP HAVING (a)>0",
        "SELECT CAST(a AS DECIMAL(10,2)), CONVERT(b, CHAR(10)), CONVERT(c USING utf8mb4), a MOD (2), a DIV (3) FROM t",
        "SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b), RANK() OVER w FROM t WINDOW w AS (ORDER BY c)",
        "SELECT * FROM t WHERE MATCH (a, b) AGAINST ('x' IN BOOLEAN MODE)",
        "SELECT * FROM t, LATERAL (SELECT * FROM u WHERE u.a=t.a) AS l",
        "SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS (a INT PATH '$')) AS jt",
        "SELECT 1 MEMBER OF('[1]'), a->'$.x', a->>'$.y' FROM t",
        "SELECT SUBSTRING(a FROM 1 FOR 2), TRIM(LEADING ('x') FROM b), EXTRACT(YEAR FROM c) FROM t",
        "SELECT NOW(), now(6), CURRENT_TIMESTAMP, UUID(), RAND(), SLEEP(0), BENCHMARK(1, 1), DATABASE(), USER()",
        "SELECT INSERT('abc', 1, 1, 'x'), REPLACE('a', 'b', 'c')",
        "SELECT t.update, t.`for`, `into`, t.lock FROM t",
        "SELECT 'FOR UPDATE', \"INTO x\", 'it''s', 'a\\'b; DELETE', _utf8mb4'x', N'y', x'41', b'01', 0x41, 0b1, 1e5, .5, 1.",
        "SELECT @@version, @@global.read_only, @@session.sql_mode, @@`max_connections`, @@server_id",
        "SELECT a FROM t WHERE a = ? AND b IN (?, ?) LIMIT ?, ?",
        "SELECT {fn NOW()}, {d '2020-01-01'}",
        "SELECT abs (1), `a` + 1 FROM 2fa_codes",
        "SELECT 2--1, 3 - -1",
        "SELECT 1;",
        "SELECT 1; -- done\n",
        "SELECT 1; SELECT 2;",
        "SELECT @a, @`b`, @'c', @\"d\"",
        "SELECT DATE_ADD(a, INTERVAL (1) DAY) FROM t",
        "SELECT SQL_NO_CACHE HIGH_PRIORITY a FROM t",
    ];
    expect(Class::Read, MYSQL, &reads);
}

#[test]
fn queries_that_write_lock_or_could() {
    let writes = [
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR/**/UPDATE OF t NOWAIT",
        "SELECT * FROM t FOR SHARE SKIP LOCKED",
        "SELECT * FROM t LOCK IN SHARE MODE",
        "SELECT 1 FOR\tUPDATE",
        "SELECT 1.FOR UPDATE",
        "SELECT 1.5FOR UPDATE",
        "SELECT 0x41FOR UPDATE",
        "SELECT 'a'FOR UPDATE",
        "SELECT `a`FOR UPDATE",
        "SELECT t. for FROM t",
        "(SELECT 1 FROM t FOR UPDATE)",
        "SELECT * FROM (SELECT * FROM t FOR UPDATE) d",
        "SELECT 1 INTO @a",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT @a := 1",
        "SELECT my_function(1)",
        "SELECT my_function (1)",
        "SELECT `my_function`(1)",
        "SELECT db.my_function(1)",
        "SELECT db.count(1)",
        "SELECT `count`(1)",
        "SELECT count (1)",
        "SELECT now/**/()",
        "SELECT * FROM t WHERE a = f(a)",
        "SELECT 1, f(a, b) AS x",
        "SELECT * FROM t PROCEDURE ANALYSE()",
        "SELECT GET_LOCK('a', 1)",
        "SELECT LAST_INSERT_ID()",
        "SELECT @@last_insert_id, @@identity",
        "SELECT CONNECTION_ID()",
        "SELECT UUID_SHORT()",
        "SELECT LOAD_FILE('/etc/passwd')",
        "SELECT WAIT_FOR_EXECUTED_GTID_SET('x', 1)",
        "SELECT SOURCE_POS_WAIT('x', 1)",
        "SELECT NEXT VALUE FOR s",
        "SELECT NEXTVAL(s)",
        "SELECT s.nextval",
        "WITH a AS (SELECT 1) UPDATE t SET b=1",
        "WITH a AS (SELECT 1) DELETE FROM t",
        "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
        "WITH a(b) AS (SELECT f(1)) SELECT * FROM a",
        "TABLE t INTO OUTFILE 'x'",
        "SELECT 'unterminated",
        "SELECT `unterminated",
        "SELECT 1 /* unterminated",
        "SELECT 1 /*!80000 unterminated",
        "SELECT $$ FOR UPDATE $$",
        "SELECT 1\u{0}",
        "SELECT 1 -- comment\u{0}\n",
        "SELECT FOUND_ROWS() INTO @a",
        "(",
        "(UPDATE t SET a=1)",
        "SELECT @@ session.sql_mode",
        "SELECT a@@session .last_insert_id",
        "SELECT /*+ SET_VAR(a='*/') FOR UPDATE */ 1",
    ];
    expect(Class::Write, MYSQL, &writes);
    expect_flags(Flags::LOCKING_READ, &writes[..5]);
    expect(
        Class::Write,
        MYSQL,
        &["", " "].map(|gap| ["SELECT md5", gap, "(1)"].concat()).each_ref().map(String::as_str),
    );
}

#[test]
fn show_explain_describe() {
    expect(
        Class::Read,
        MYSQL,
        &[
            "SHOW DATABASES",
            "SHOW FULL TABLES FROM d LIKE 'x%'",
            "SHOW COLUMNS FROM t",
            "SHOW CREATE TABLE t",
            "SHOW CREATE PROCEDURE p",
            "SHOW PROCEDURE STATUS WHERE (Db='a')",
            "SHOW SESSION VARIABLES WHERE Variable_name IN ('a', 'b')",
            "SHOW GLOBAL STATUS LIKE 'x'",
            "SHOW INDEX FROM t",
            "SHOW GRANTS FOR 'a'@'b'",
            "SHOW ENGINE INNODB STATUS",
            "SHOW BINARY LOG STATUS",
            "EXPLAIN SELECT * FROM t",
            "EXPLAIN FORMAT=JSON SELECT * FROM t",
            "EXPLAIN ANALYZE SELECT * FROM t",
            "EXPLAIN (SELECT 1)",
            "DESCRIBE t",
            "DESC d.t 'a%'",
            "describe `t` `c`",
        ],
    );
    expect(
        Class::Write,
        MYSQL,
        &[
            "SHOW SOMETHING NEW",
            "SHOW TABLES WHERE f(1)",
            "EXPLAIN UPDATE t SET a=1",
            "EXPLAIN ANALYZE DELETE FROM t",
            "EXPLAIN FORMAT=TREE INSERT INTO t VALUES (1)",
            "EXPLAIN FOR CONNECTION 5",
            "EXPLAIN FORMAT=JSON INTO @v SELECT 1",
            "EXPLAIN SELECT f(1)",
            "EXPLAIN SELECT * FROM t FOR UPDATE",
            "EXPLAIN f(1)",
            "EXPLAIN CALL p()",
            "DESCRIBE",
            "EXPLAIN t. FOR UPDATE",
        ],
    );
    expect(
        Class::Diagnostics,
        MYSQL,
        &[
            "SHOW WARNINGS",
            "SHOW COUNT(*) ERRORS",
            "SHOW ERRORS LIMIT 1",
            "SELECT FOUND_ROWS()",
            "SELECT ROW_COUNT(), 1",
            "SELECT @@warning_count",
            "SELECT @@session.error_count",
            "GET DIAGNOSTICS @a = NUMBER",
        ],
    );
    expect_flags(
        Flags::READS_PROCESS_STATE,
        &[
            "SHOW PROCESSLIST",
            "SHOW STATUS",
            "SHOW REPLICA STATUS",
            "SELECT * FROM performance_schema.threads",
            "SELECT * FROM information_schema.PROCESSLIST",
        ],
    );
}

#[test]
fn transactions() {
    expect(Class::Begin { read_only: false }, MYSQL, &["BEGIN", "begin work;", "START TRANSACTION READ WRITE"]);
    expect(
        Class::Begin { read_only: false },
        MYSQL,
        &["START TRANSACTION", "START TRANSACTION WITH CONSISTENT SNAPSHOT"],
    );
    expect(
        Class::Begin { read_only: true },
        MYSQL,
        &["START TRANSACTION READ ONLY", "start transaction with consistent snapshot, read only -- x"],
    );
    let commit = |chain, release| Class::Commit { chain, release };
    expect(commit(false, false), MYSQL, &["COMMIT", "COMMIT WORK", "COMMIT AND NO CHAIN NO RELEASE;"]);
    expect(commit(true, false), MYSQL, &["COMMIT AND CHAIN", "COMMIT WORK AND CHAIN NO RELEASE"]);
    expect(commit(false, true), MYSQL, &["COMMIT RELEASE", "COMMIT AND NO CHAIN RELEASE"]);
    expect(Class::Rollback { chain: false, release: false }, MYSQL, &["ROLLBACK", "rollback work"]);
    expect(Class::Rollback { chain: true, release: false }, MYSQL, &["ROLLBACK AND CHAIN"]);
    expect(
        Class::Savepoint,
        MYSQL,
        &["SAVEPOINT a", "RELEASE SAVEPOINT a", "ROLLBACK TO a", "ROLLBACK WORK TO SAVEPOINT a"],
    );
    expect(Class::Xa, MYSQL, &["XA START 'a'", "XA RECOVER"]);
    expect(
        Class::Write,
        MYSQL,
        &[
            "BEGIN NOT ATOMIC SELECT 1; END",
            "START REPLICA",
            "START TRANSACTION READ",
            "COMMIT AND",
            "ROLLBACK NO",
            "COMMIT x",
        ],
    );
}

#[test]
fn everything_else_is_a_write() {
    expect(
        Class::Write,
        MYSQL,
        &[
            "INSERT INTO t VALUES (1)",
            "UPDATE t SET a=1",
            "DELETE FROM t",
            "DO SLEEP(1)",
            "DO f()",
            "ANALYZE TABLE t",
            "OPTIMIZE TABLE t",
            "CHECKSUM TABLE t",
            "FLUSH PRIVILEGES",
            "SIGNAL SQLSTATE '45000'",
            "CREATE PROCEDURE p() BEGIN SELECT 1; END",
            "CREATE DEFINER=`a`@`b` TRIGGER x BEFORE INSERT ON t FOR EACH ROW BEGIN SET @a=1; SET @b=2; END",
            "IF 1 THEN SELECT 1; END IF",
            "SOMETHINGNEVERHEARDOF",
            "`SELECT` 1",
            "'SELECT'",
            "?",
        ],
    );
    expect_flags(
        Flags::IMPLICIT_COMMIT,
        &["CREATE TABLE t(a INT)", "DROP TABLE t", "GRANT ALL ON *.* TO u", "LOCK TABLES t READ"],
    );
    assert!(!classify(b"DROP TEMPORARY TABLE t", MYSQL).flags.contains(Flags::IMPLICIT_COMMIT));
    expect(
        Class::Multi,
        MYSQL,
        &[
            "BEGIN; SELECT 1; COMMIT",
            "SELECT 1; DELETE FROM t",
            "SELECT 1;;",
            "SET @a=1; SELECT @a",
            "SELECT 1; SELECT FOUND_ROWS()",
        ],
    );
}

#[test]
fn the_schema_of_a_use() {
    let of =
        |sql: &str| super::used_schema(sql.as_bytes(), Dialect::default()).map(|name| String::from_utf8(name).unwrap());
    for (sql, schema) in [
        ("USE app", Some("app")),
        ("use /* */ `a``b` ;", Some("a`b")),
        ("USE `x y`", Some("x y")),
        ("SELECT 1", None),
        ("USE", None),
    ] {
        assert_eq!(of(sql).as_deref(), schema, "{sql}");
    }
}
