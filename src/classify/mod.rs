//! SQL text -> class of statement.
//!
//! The router asks one question about a statement: must it go to the primary, may it go to a follower, or does it belong
//! to a connection? [`classify`] answers from the text alone, without allocating, in about the time of reading it once.
//! The rule behind every rule: a statement is a [`Class::Read`] only if it is *known* to be a pure read. What is not
//! understood is a [`Class::Write`], which every server can judge for itself. So a mistake costs a follower's help, never
//! a lost or doubled write.
//!
//! It refuses to parse: no tree, no names resolved, no table looked up. What only the server knows (a view that calls a
//! stored function which writes) is caught by the server's own refusal on a follower.
//!
//! Reading order: `class` (the words), `lexer` (text to tokens), `functions` (names that may be called), `scan` (a
//! statement's body), `statement` (its head).

mod class;
mod consistency;
mod diagnostics;
mod explain;
mod functions;
mod lexer;
mod scan;
mod statement;
/// The schema that a USE names.
pub fn used_schema(sql: &[u8], dialect: Dialect) -> Option<Vec<u8>> {
    let mut lexer = lexer::Lexer::new(sql, dialect);
    match lexer.next() {
        lexer::Token::Word(word) if word.eq_ignore_ascii_case(b"USE") => {}
        _ => return None,
    }
    match lexer.next() {
        lexer::Token::Word(name) => Some(name.to_vec()),
        lexer::Token::Name(name) => {
            let quote = sql.get(lexer.token_start()).copied().filter(|byte| matches!(byte, b'`' | b'"'));
            let mut plain = Vec::with_capacity(name.len());
            let mut bytes = name.iter().copied();
            while let Some(byte) = bytes.next() {
                plain.push(byte);
                if Some(byte) == quote {
                    // It stands there twice.
                    bytes.next();
                }
            }
            Some(plain)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;

pub use class::{Class, Classified, Dialect, Flags, Flavor, Hint, SqlMode};
pub use diagnostics::{Asked, ItemType, Number, asked, assigned};

use lexer::Lexer;
use statement::statement;

/// Classifies one text as COM_QUERY or COM_STMT_PREPARE carries it (`?` placeholders are fine).
///
/// `sql` is in the client's character set, which must be a superset of ASCII; see
/// [`Dialect::multibyte_escape_unsafe`]. Never fails and never panics: what is not understood is a `Write`.
#[must_use]
pub fn classify(sql: &[u8], dialect: Dialect) -> Classified {
    let mut lexer = Lexer::new(sql, dialect);
    let mut one = statement(&mut lexer);
    while one.more {
        let next = statement(&mut lexer);
        one.flags |= next.flags;
        one.more = next.more;
        if next.class == Class::Empty && !next.more {
            break;
        }
        if one.class != Class::Read || next.class != Class::Read {
            one.class = Class::Multi;
        }
    }
    if dialect.multibyte_escape_unsafe && matches!(one.class, Class::Read | Class::Diagnostics) && hides_quotes(sql) {
        one.class = Class::Write;
    }
    let hint = lexer.hint();
    if one.class == Class::Set
        && one.flags.contains(Flags::USER_VARIABLE_WRITE)
        && let Some((flags, hint)) = consistency::asked(sql, dialect)
    {
        return Classified { class: one.class, flags, hint };
    }
    Classified { class: one.class, flags: one.flags, hint }
}

/// Could a byte that looks like a backslash or a backtick be the second half of a character?
fn hides_quotes(sql: &[u8]) -> bool {
    !sql.is_ascii() && memchr::memchr2(b'\\', b'`', sql).is_some()
}
