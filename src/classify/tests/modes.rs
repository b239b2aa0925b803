//! What the dialect changes: quoting, escapes, version comments, families, character sets; and hints.

use super::*;

#[test]
fn quoting_follows_the_sql_mode() {
    let ansi = Dialect { mode: SqlMode { ansi_quotes: true, ..MYSQL.mode }, ..MYSQL };
    let plain = Dialect { mode: SqlMode { no_backslash_escapes: true, ..MYSQL.mode }, ..MYSQL };
    // A name under ANSI_QUOTES may be that of a stored function.
    expect(Class::Read, MYSQL, &[r#"SELECT a AS "f" FROM t"#]);
    expect(Class::Write, ansi, &[r#"SELECT "f"(1)"#, r#"SELECT "a\" FOR UPDATE"#]);
    expect(Class::Read, ansi, &[r#"SELECT "for" FROM "t""#, r#"SELECT "a\", "b""c""#, r#"SELECT @"a\""#]);
    // The same bytes are one string, or a string and code.
    let trick = [r"SELECT 'a\' FOR UPDATE -- '"];
    expect(Class::Read, MYSQL, &trick);
    expect(Class::Write, plain, &trick);
    expect(Class::Read, plain, &[r"SELECT 'a\', 'b\\'"]);
    let spaces = Dialect { mode: SqlMode { ignore_space: true, ..MYSQL.mode }, ..MYSQL };
    expect(Class::Read, spaces, &["SELECT COUNT (*), NOW /* */ ()"]);
}

#[test]
fn version_comments_are_code_where_the_server_says_so() {
    // (text, on MySQL 9.7.4, on MariaDB 10.11.19); each seen on the real server with `1+` in place of the clause.
    let table = [
        ("SELECT 1 /*! FOR UPDATE */", Class::Write, Class::Write),
        ("SELECT 1 /*!80000 FOR UPDATE */", Class::Write, Class::Read),
        ("SELECT 1 /*!50000 FOR UPDATE */", Class::Write, Class::Write),
        ("SELECT 1 /*!40001 SQL_NO_CACHE */", Class::Read, Class::Read),
        ("SELECT 1 /*!99999 FOR UPDATE */", Class::Read, Class::Read),
        ("SELECT 1 /*!999999 FOR UPDATE */", Class::Read, Class::Read),
        ("SELECT 1 /*!090600 FOR UPDATE */", Class::Write, Class::Read),
        ("SELECT 1 /*!090704 FOR UPDATE */", Class::Write, Class::Read),
        ("SELECT 1 /*!090705 FOR UPDATE */", Class::Read, Class::Read),
        ("SELECT 1 /*!100100 FOR UPDATE */", Class::Read, Class::Write),
        ("SELECT 1 /*!110000 FOR UPDATE */", Class::Read, Class::Read),
        ("SELECT 1 /*M! FOR UPDATE */", Class::Read, Class::Write),
        ("SELECT 1 /*M!100000 FOR UPDATE */", Class::Read, Class::Write),
        ("SELECT 1 /*M!080000 FOR UPDATE */", Class::Read, Class::Write),
        // MySQL reads five digits when the sixth is not followed by whitespace; here that is not relied upon.
        ("SELECT 1 /*!800001*/", Class::Write, Class::Read),
        ("SELECT 1 /*!50000 /* x */ FOR UPDATE */", Class::Write, Class::Write),
        ("SELECT 1 /*!50000 AS a /* x */ */", Class::Read, Class::Read),
        ("SELECT 1 /*!50000 /*!50000 AS a */ */", Class::Write, Class::Write),
        ("SELECT 1 /*!99999 /* x */ FOR UPDATE */", Class::Write, Class::Write),
        ("SELECT /*!99999 '*/' 2", Class::Write, Class::Write),
        ("/*!40101 SET NAMES utf8 */;", Class::Set, Class::Set),
        ("/*!50000 SELECT 1; */", Class::Write, Class::Write),
        ("SELECT 1 /*+ FOR UPDATE */", Class::Read, Class::Read),
        ("SELECT /*+ INDEX(`t` `i`) */ a FROM t", Class::Read, Class::Read),
        ("SELECT 2*/* x */3", Class::Read, Class::Read),
    ];
    for (sql, mysql, mariadb) in table {
        expect(mysql, MYSQL, &[sql]);
        expect(mariadb, MARIADB, &[sql]);
    }
}

#[test]
fn families_have_their_own_functions() {
    let old = Dialect { flavor: Flavor::MySql { version: 80046 }, ..MYSQL };
    expect(Class::Read, MYSQL, &["SELECT ANY_VALUE(a)", "SELECT VECTOR_DIM(a)"]);
    expect(Class::Write, MARIADB, &["SELECT ANY_VALUE(a)", "SELECT VECTOR_DIM(a)"]);
    expect(Class::Write, old, &["SELECT VECTOR_DIM(a)"]);
    expect(Class::Read, MARIADB, &["SELECT NVL(a, b)", "SELECT MD5(a)", "SELECT POINT(1, 1)", "VALUES (1), (2)"]);
    expect(Class::Read, MARIADB, &["SELECT MATCH (a) AGAINST ('x')", "SELECT a FROM t LIMIT 5"]);
    expect(Class::Read, old, &["SELECT MD5(a)"]);
    // On 9.6 and later a component's function, so a stored one may have the name.
    expect(Class::Write, MYSQL, &["SELECT NVL(a, b)", "SELECT MD5(a)"]);
    expect(Class::Write, MARIADB, &["SELECT LASTVAL(s)", "SELECT SETVAL(s, 5)", "SELECT PREVIOUS VALUE FOR s"]);
}

#[test]
fn bytes_beyond_ascii() {
    let gbk = Dialect { multibyte_escape_unsafe: true, ..MYSQL };
    // In GBK, 0xbf 0x5c is one character and the quote behind it ends the string.
    let trick = b"SELECT '\xbf\\' FOR UPDATE -- '";
    assert_eq!(classify(trick, MYSQL).class, Class::Read);
    assert_eq!(classify(trick, gbk).class, Class::Write);
    assert_eq!(classify(b"SELECT '\xbf\xc4', 'x'", gbk).class, Class::Read);
    assert_eq!(classify(b"SELECT 'a\\n'", gbk).class, Class::Read);
    assert_eq!(classify("SELECT größe, 名前 FROM `tábla` WHERE x='à'".as_bytes(), MYSQL).class, Class::Read);
    // The no-break space of latin1 is whitespace to a latin1 session.
    assert_eq!(classify(b"SELECT 1 FOR\xa0UPDATE", MYSQL).class, Class::Write);
    assert_eq!(classify(b"SELECT 1 --\xa0\n", MYSQL).class, Class::Write);
}

#[test]
fn comments() {
    expect(
        Class::Read,
        MYSQL,
        &[
            "# x\nSELECT 1",
            "-- x\nSELECT 1",
            "--\nSELECT 1",
            "SELECT 1 --",
            "SELECT 1 -- FOR UPDATE",
            "SELECT 1 # FOR UPDATE",
        ],
    );
    expect(Class::Read, MYSQL, &["/* DELETE */ SELECT 1 /* FOR UPDATE */", "SELECT 1 /**/", "SELECT 1 /* /* */"]);
    expect(
        Class::Write,
        MYSQL,
        &["SELECT 1 -- x\r FOR\n FOR UPDATE", "SELECT 1 --FOR UPDATE", "SELECT 1 /*/ FOR UPDATE"],
    );
}

#[test]
fn hints() {
    let table = [
        ("/* holdfast:primary */ SELECT 1", Hint::Primary),
        ("SELECT /*HOLDFAST : Follower*/ 1", Hint::Follower),
        ("/* x */ -- y\n /* holdfast:strong */ select 1", Hint::Strong),
        ("( /* holdfast:strong */ select 1)", Hint::Strong),
        ("SELECT /* holdfast:session */ 1", Hint::Session),
        ("/* holdfast: eventual */ SELECT 1", Hint::Eventual),
        ("SELECT 1 /* holdfast:primary */", Hint::None),
        ("SELECT '/* holdfast:primary */'", Hint::None),
        ("SELECT /* holdfast:nonsense */ 1", Hint::None),
        ("SELECT /* holdfast */ 1", Hint::None),
        ("SELECT /* holdfast:primary */ /* holdfast:follower */ 1", Hint::Primary),
        ("/* holdfast:follower */ DELETE FROM t", Hint::Follower),
    ];
    for (sql, hint) in table {
        assert_eq!(classify(sql.as_bytes(), MYSQL).hint, hint, "{sql}");
    }
    expect(Class::Write, MYSQL, &["/* holdfast:follower */ DELETE FROM t"]);
}

#[test]
fn a_bulk_insert_is_not_read_through() {
    let mut sql = b"INSERT INTO t VALUES ('".to_vec();
    sql.resize(8 << 20, b'x');
    sql.extend_from_slice(b"'), (@late)");
    let found = classify(&sql, MYSQL);
    let insert = Flags::INSERT_LIKE | Flags::DML;
    assert_eq!((found.class, found.flags), (Class::Write, insert));
    let rows = format!("INSERT INTO t VALUES {} (@late)", "(1, 'abc'),".repeat(1000));
    assert_eq!(classify(rows.as_bytes(), MYSQL).flags, insert);
    let early = format!("INSERT INTO t VALUES (@early), {}", "(1, 'abc'),".repeat(1000));
    assert_eq!(classify(early.as_bytes(), MYSQL).flags, insert | Flags::USER_VARIABLE);
}

#[test]
fn the_function_table_is_whole() {
    let mut names: Vec<_> = functions::names().collect();
    for name in &names {
        assert!(!name.is_empty() && *name == name.to_ascii_uppercase());
        let found = [MYSQL, MARIADB, Dialect::default()].map(|d| functions::lookup(name.as_bytes(), true, d));
        assert!(found.iter().any(Option::is_some), "{name}");
        let lower = name.to_ascii_lowercase();
        assert_eq!(found[0], functions::lookup(lower.as_bytes(), true, MYSQL), "{lower}");
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a name stands twice");
    assert_eq!(functions::lookup(b"", true, MYSQL), None);
}
