//! What the sessions say: all that leaves something in a session, or looks at what was left there.

use super::chance::Chance;
use super::side::Step;
use mysql_async::Value;

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
pub const FOR_GOOD: &[&str] = &["SET ROLE NONE", "SET ROLE ALL", "SELECT CURRENT_ROLE()", "SET insert_id = 900"];

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

/// What is asked next, and whether it binds the session to its connection; `open`: its prepared statements.
pub fn step(chance: &mut Chance, open: &mut [Option<usize>; 4], before: Option<&Step>) -> (Step, bool) {
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
