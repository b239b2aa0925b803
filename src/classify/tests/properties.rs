//! What must hold for every text.

use super::*;
use proptest::prelude::*;

fn dialects() -> impl Strategy<Value = Dialect> {
    (any::<[bool; 4]>(), prop_oneof![Just(MYSQL.flavor), Just(MARIADB.flavor)]).prop_map(|(on, flavor)| Dialect {
        flavor,
        mode: SqlMode { ansi_quotes: on[0], no_backslash_escapes: on[1], ignore_space: on[2] },
        multibyte_escape_unsafe: on[3],
    })
}

/// Pieces that make lexers stumble, and words that matter.
fn pieces() -> impl Strategy<Value = String> {
    let fixed = [
        "SELECT",
        "FOR",
        "UPDATE",
        "INTO",
        "@a",
        "@@session.",
        ":=",
        "(",
        ")",
        "'",
        "\"",
        "`",
        "\\",
        "/*",
        "*/",
        "/*!",
        "/*!80000 ",
        "/*M!",
        "/*+",
        "--",
        "-- ",
        "#",
        "\n",
        ";",
        ".",
        "f(",
        "abs(",
        "1",
        "1.",
        "1e5",
        "0x",
        "$",
        ",",
        "AS",
        "WITH",
        "LOCK",
        "\u{a0}",
        "SHOW",
        "EXPLAIN",
        "SET",
        "KILL",
        "BEGIN",
        "INSERT",
        "VALUES",
        "t",
        "?",
        "é",
        "\u{0}",
        " ",
        "N'",
        "x'",
        "holdfast:primary",
    ];
    prop::collection::vec((prop::sample::select(fixed.to_vec()), any::<bool>()), 0..40)
        .prop_map(|parts| parts.iter().map(|(part, gap)| [*part, if *gap { " " } else { "" }].concat()).collect())
}

/// Statements as lists of tokens between which anything blank may stand, and what they are.
const TOKENS: &[(&[&str], Class)] = &[
    (&["SELECT", "a", ",", "b", "FROM", "t", "WHERE", "id", "=", "5"], Class::Read),
    (&["SELECT", "ABS", "(", "a", ")", "FROM", "`t`", "WHERE", "b", "IN", "(", "'x'", ",", "?", ")"], Class::Read),
    (&["WITH", "c", "(", "x", ")", "AS", "(", "SELECT", "1", ")", "SELECT", "*", "FROM", "c"], Class::Read),
    (&["SELECT", "*", "FROM", "t", "FOR", "UPDATE"], Class::Write),
    (&["SELECT", "f", "(", "1", ")"], Class::Write),
    (&["SELECT", "*", "FROM", "t", "LOCK", "IN", "SHARE", "MODE"], Class::Write),
    (&["SELECT", "1", "INTO", "@a"], Class::Write),
    (&["START", "TRANSACTION", "READ", "ONLY"], Class::Begin { read_only: true }),
    (&["COMMIT", "AND", "CHAIN"], Class::Commit { chain: true, release: false }),
    (&["KILL", "QUERY", "77"], Class::Kill { query: true, id: Some(77) }),
    (&["SHOW", "WARNINGS"], Class::Diagnostics),
    (&["SET", "@a", "=", "1", ",", "b", "=", "2"], Class::Set),
    (&["LOAD", "DATA", "LOCAL", "INFILE", "'x'", "INTO", "TABLE", "t"], Class::LoadDataLocal),
];

fn blank() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        " ",
        "\t\n",
        " /* FOR UPDATE */ ",
        " -- ' x\n",
        " # \" y\n",
        "/**/ ",
        " /*!99999 INTO */ ",
        "\r\n",
        " /*! */ ",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn never_panics_on_bytes(sql in prop::collection::vec(any::<u8>(), 0..300), dialect in dialects()) {
        let _ = classify(&sql, dialect);
    }

    #[test]
    fn never_panics_on_pieces(sql in pieces(), dialect in dialects()) {
        let first = classify(sql.as_bytes(), dialect);
        prop_assert_eq!(first, classify(sql.as_bytes(), dialect));
    }

    #[test]
    fn blanks_comments_and_case_change_nothing(
        which in 0..TOKENS.len(),
        blanks in prop::collection::vec(blank(), 20),
        cases in prop::collection::vec(any::<bool>(), 20),
        end in prop::sample::select(vec!["", ";", " ; -- x", "\n"]),
    ) {
        let (tokens, class) = TOKENS[which];
        let mut sql = blanks[19].to_string();
        for (i, token) in tokens.iter().enumerate() {
            sql += &if cases[i] { token.to_ascii_lowercase() } else { token.to_string() };
            sql += blanks[i];
        }
        sql += end;
        prop_assert_eq!(classify(sql.as_bytes(), MYSQL).class, class, "{}", sql);
    }

    /// Whatever precedes them outside quotes and comments, these make a statement more than a read.
    #[test]
    fn a_dangerous_end_is_always_seen(
        body in "[a-z0-9_.,=<>+*() ]{0,40}",
        end in prop::sample::select(vec!["FOR UPDATE", "for share", "LOCK IN SHARE MODE", "INTO @a", "INTO OUTFILE 'x'", ", @a := 1", ", f(1)"]),
        blank in blank(),
        dialect in dialects(),
    ) {
        let sql = format!("SELECT {body}{blank}{end}");
        prop_assert_ne!(classify(sql.as_bytes(), dialect).class, Class::Read, "{}", sql);
    }

    /// A text called a read has the same bytes outside quotes and comments whoever cuts it: no locking word in it.
    #[test]
    fn a_read_holds_no_dangerous_word(sql in pieces(), dialect in dialects()) {
        if classify(sql.as_bytes(), dialect).class == Class::Read {
            let mut lexer = lexer::Lexer::new(sql.as_bytes(), dialect);
            loop {
                match lexer.next() {
                    lexer::Token::End => break,
                    lexer::Token::Word(word) => {
                        let bad = [&b"INTO"[..], b"UPDATE", b"LOCK"].iter().any(|w| word.eq_ignore_ascii_case(w));
                        prop_assert!(!bad, "{}", sql);
                    }
                    lexer::Token::Odd | lexer::Token::Assign => prop_assert!(false, "{}", sql),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn another_statement_never_makes_a_read(sql in pieces()) {
        let two = format!("{sql}\n;DELETE FROM t");
        prop_assert_ne!(classify(two.as_bytes(), MYSQL).class, Class::Read, "{}", two);
    }
}
