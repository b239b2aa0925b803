//! EXPLAIN and DESCRIBE: of a query, of a write, of a table, of another connection.

use super::class::{Class, Flags};
use super::lexer::{Lexer, Token};
use super::statement::{HEAD_MAX, Statement, query, rest, rest_from, upper_case};

/// EXPLAIN [ANALYZE | FORMAT = x | ...] of a query, or DESCRIBE of a table. EXPLAIN of a write is refused by a
/// read-only server (error 1290, seen on 9.7.4), and EXPLAIN FOR CONNECTION is about one server: both are a `Write`.
pub(super) fn explain(lexer: &mut Lexer<'_>) -> Statement {
    loop {
        let token = lexer.next();
        let Token::Word(word) = token else {
            match token {
                Token::Punct(b'=' | b'(') => continue,
                Token::Name(_) => return describe_table(lexer),
                _ => return rest_from(token, lexer, Class::Write, Flags::NONE),
            }
        };
        let mut upper = [0; HEAD_MAX];
        match upper_case(word, &mut upper) {
            b"ANALYZE" | b"FORMAT" | b"EXTENDED" | b"PARTITIONS" | b"JSON" | b"TREE" | b"TRADITIONAL" => {}
            b"INSERT" | b"REPLACE" => return rest(lexer, Class::Write, Flags::INSERT_LIKE),
            b"SELECT" | b"WITH" | b"TABLE" | b"VALUES" => return query(lexer),
            b"UPDATE" | b"DELETE" | b"FOR" | b"INTO" => return rest(lexer, Class::Write, Flags::NONE),
            _ => return describe_table(lexer),
        }
    }
}

/// Behind `DESCRIBE t`: `[.t] [column | 'pattern']` and nothing else.
fn describe_table(lexer: &mut Lexer<'_>) -> Statement {
    let mut token = lexer.next();
    if token == Token::Punct(b'.') {
        token = lexer.next();
        if !matches!(token, Token::Name(_)) {
            return rest_from(token, lexer, Class::Write, Flags::NONE);
        }
        token = lexer.next();
    }
    if matches!(token, Token::Word(_) | Token::Name(_) | Token::Text) {
        token = lexer.next();
    }
    match token {
        Token::Semicolon | Token::End => {
            Statement { class: Class::Read, flags: Flags::NONE, more: token == Token::Semicolon }
        }
        _ => rest_from(token, lexer, Class::Write, Flags::NONE),
    }
}
