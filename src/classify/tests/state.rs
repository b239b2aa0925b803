//! Statements that leave something in their session, or on its connection.

use super::*;

#[test]
fn settings() {
    expect(
        Class::Set,
        MYSQL,
        &["SET autocommit=0", "SET NAMES utf8mb4", "SET @a = 1", "SET ROLE r", "SET SESSION TRANSACTION READ ONLY"],
    );
    expect(
        Class::Write,
        MYSQL,
        &["SET PASSWORD = 'x'", "SET DEFAULT ROLE r TO u", "SET STATEMENT a=1 FOR DELETE FROM t"],
    );
    let table: [(&str, Flags); 16] = [
        ("SET autocommit=0, sql_mode=''", Flags::IMPLICIT_COMMIT),
        ("SET @a = 1", Flags::USER_VARIABLE | Flags::USER_VARIABLE_WRITE),
        ("SET a = 1, @b := 2", Flags::USER_VARIABLE | Flags::USER_VARIABLE_WRITE),
        ("SET sort_buffer_size = @a", Flags::USER_VARIABLE),
        ("SET @a = f(1)", Flags::USER_VARIABLE | Flags::USER_VARIABLE_WRITE | Flags::IMPURE),
        ("SET a = CONCAT(@@sql_mode, ',x'), b = (1 + 2)", Flags::NONE),
        ("SET GLOBAL a=1", Flags::GLOBAL_SET),
        ("SET a=1, PERSIST b=2", Flags::GLOBAL_SET),
        ("SET @@global.a=1", Flags::GLOBAL_SET),
        ("SET TRANSACTION READ ONLY", Flags::ONE_SHOT_TRANSACTION),
        ("SET @@transaction_isolation='SERIALIZABLE'", Flags::ONE_SHOT_TRANSACTION),
        ("SET @@session.transaction_isolation='SERIALIZABLE'", Flags::NONE),
        ("SET transaction_isolation='SERIALIZABLE'", Flags::NONE),
        ("SET SESSION session_track_gtids=OWN_GTID", Flags::SESSION_TRACK),
        ("SET @@session_track_gtids=OWN_GTID", Flags::SESSION_TRACK),
        ("SET ROLE ALL", Flags::SET_ROLE),
    ];
    for (sql, flags) in table {
        assert_eq!(classify(sql.as_bytes(), MYSQL), Classified { class: Class::Set, flags, hint: Hint::None }, "{sql}");
    }
    assert!(classify(b"SET last_insert_id = 5", MYSQL).flags.contains(Flags::LAST_INSERT_ID));
}

#[test]
fn what_is_only_for_its_connection_can_be_sent_again() {
    let repeats = |sql: &str| classify(sql.as_bytes(), MYSQL).repeats_alone();
    for sql in
        ["BEGIN", "USE s", "", "SET time_zone = '+03:00'", "SET NAMES utf8mb4", "SET autocommit = 0", "SET @a = 1"]
    {
        assert!(repeats(sql), "{sql}");
    }
    for sql in ["SET GLOBAL a = 1", "SET PERSIST a = 1", "SET @a = f(1)", "SET @a = GET_LOCK('a', 1)", "DELETE FROM t"]
    {
        assert!(!repeats(sql), "{sql}");
    }
}

#[test]
fn statements_bound_to_a_connection() {
    expect(Class::Lock, MYSQL, &["LOCK TABLES t READ", "LOCK INSTANCE FOR BACKUP", "FLUSH TABLES WITH READ LOCK"]);
    expect(Class::Lock, MARIADB, &["FLUSH TABLES t FOR EXPORT", "BACKUP STAGE START", "BACKUP LOCK t"]);
    expect(Class::Unlock, MYSQL, &["UNLOCK TABLES", "UNLOCK INSTANCE", "BACKUP UNLOCK"]);
    let kill = |query, id| Class::Kill { query, id };
    expect(kill(false, Some(5)), MYSQL, &["KILL 5", "KILL CONNECTION 5;", "kill hard connection 5"]);
    expect(kill(true, Some(5)), MYSQL, &["KILL QUERY 5", "KILL SOFT QUERY 5 -- x"]);
    expect(kill(false, None), MYSQL, &["KILL @a", "KILL CONNECTION_ID()", "KILL USER a", "KILL 5+1", "KILL"]);
    expect(kill(true, None), MYSQL, &["KILL QUERY ID 5", "KILL QUERY 0x5"]);
    expect(Class::Call, MYSQL, &["CALL p(1)", "{CALL p()}"][..1]);
    expect(Class::Prepare, MYSQL, &["PREPARE s FROM 'SELECT 1'"]);
    expect(Class::Execute, MYSQL, &["EXECUTE s USING @a", "EXECUTE IMMEDIATE 'SELECT 1'"]);
    expect(Class::Deallocate, MYSQL, &["DEALLOCATE PREPARE s", "DROP PREPARE s"]);
    expect(Class::Handler, MYSQL, &["HANDLER t OPEN"]);
    expect(Class::Use, MYSQL, &["USE d", "use `d`;"]);
    expect(
        Class::LoadDataLocal,
        MYSQL,
        &["LOAD DATA LOCAL INFILE 'x' INTO TABLE t", "LOAD XML CONCURRENT LOCAL INFILE 'x'"],
    );
    expect(Class::Empty, MYSQL, &["", " \n", ";", "-- x", "/* x */", "/*!99999 x */ ;", "#"]);
    expect_flags(
        Flags::TEMPORARY_TABLE,
        &["CREATE TEMPORARY TABLE t(a INT)", "CREATE OR REPLACE TEMPORARY TABLE t", "CALL p()"],
    );
    expect_flags(
        Flags::LOCK_FUNCTION,
        &["SELECT GET_LOCK('a', 1)", "DO RELEASE_LOCK('a')", "SET @a = IS_USED_LOCK('a')"],
    );
    expect_flags(Flags::LAST_INSERT_ID, &["INSERT INTO t VALUES (LAST_INSERT_ID())", "SELECT @@identity"]);
    expect_flags(
        Flags::USER_VARIABLE_WRITE,
        &["SELECT 1 INTO @a", "SELECT @a := 1", "SET @a = 1", "UPDATE t SET b = (@a := 1)"],
    );
    expect_flags(Flags::SQL_CALC_FOUND_ROWS, &["SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1"]);
    expect_flags(
        Flags::INSERT_LIKE,
        &["INSERT t VALUES (1)", "REPLACE t VALUES (1)", "LOAD DATA INFILE 'x' INTO TABLE t"],
    );
    expect_flags(Flags::INTO_OUTFILE, &["SELECT 1 INTO OUTFILE 'x'", "SELECT 1 INTO DUMPFILE 'x'"]);
}
