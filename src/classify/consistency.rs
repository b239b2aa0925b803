//! `SET @holdfast_consistency = 'session'`: what a client says to the proxy and the server keeps as a user variable.

use super::class::{Dialect, Flags, Hint};
use super::lexer::{Lexer, Token};

const NAME: &[u8] = b"holdfast_consistency";

/// What a SET whose first target is the variable asks for: [`Flags::CONSISTENCY`] with the hint of that name, `Hint::None`
/// for NULL; with [`Flags::IMPURE`] where it is not exactly `SET @holdfast_consistency = 'word'`. `None`: another SET.
pub(super) fn asked(sql: &[u8], dialect: Dialect) -> Option<(Flags, Hint)> {
    let mut lexer = Lexer::new(sql, dialect);
    lexer.next();
    let first = lexer.next();
    if first != Token::UserVariable || !is_ours(&sql[lexer.token_start()..lexer.position()]) {
        return None;
    }
    let hint = value(sql, &mut lexer);
    Some(match hint {
        Some(hint) => (Flags::CONSISTENCY, hint),
        None => (Flags::CONSISTENCY | Flags::IMPURE, Hint::None),
    })
}

/// `@name`, quoted or not; the servers' user variables have no case.
fn is_ours(variable: &[u8]) -> bool {
    let name = variable.strip_prefix(b"@").unwrap_or_default();
    let bare = match name {
        [open @ (b'`' | b'\'' | b'"'), inner @ .., close] if open == close => inner,
        name => name,
    };
    bare.eq_ignore_ascii_case(NAME)
}

/// Behind the variable: `=` or `:=`, a literal, and nothing else.
fn value(sql: &[u8], lexer: &mut Lexer<'_>) -> Option<Hint> {
    if !matches!(lexer.next(), Token::Punct(b'=') | Token::Assign) {
        return None;
    }
    let token = lexer.next();
    let text = &sql[lexer.token_start()..lexer.position()];
    let hint = match (token, text) {
        (Token::Word(word), _) if word.eq_ignore_ascii_case(b"NULL") => Hint::None,
        (Token::Text, [b'\'' | b'"', word @ .., b'\'' | b'"']) => consistency(word)?,
        _ => return None,
    };
    match lexer.next() {
        Token::End => Some(hint),
        Token::Semicolon => (lexer.next() == Token::End).then_some(hint),
        _ => None,
    }
}

/// The hint of a consistency's name.
pub(super) fn consistency(word: &[u8]) -> Option<Hint> {
    [(&b"eventual"[..], Hint::Eventual), (b"session", Hint::Session), (b"strong", Hint::Strong)]
        .into_iter()
        .find_map(|(name, hint)| word.eq_ignore_ascii_case(name).then_some(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{Class, SqlMode, classify};

    #[test]
    fn exactly_such_a_set_is_for_the_proxy() {
        let exact = |hint| Some((Flags::CONSISTENCY, hint));
        let other = Some((Flags::CONSISTENCY | Flags::IMPURE, Hint::None));
        for (sql, expected) in [
            ("SET @holdfast_consistency = 'session'", exact(Hint::Session)),
            ("set @HOLDFAST_consistency:='Strong' ;", exact(Hint::Strong)),
            ("/* x */ SET @`holdfast_consistency`=\"eventual\" -- y", exact(Hint::Eventual)),
            ("SET @holdfast_consistency = NULL", exact(Hint::None)),
            ("SET @holdfast_consistency = 'sesion'", other),
            ("SET @holdfast_consistency = ?", other),
            ("SET @holdfast_consistency = session", other),
            ("SET @holdfast_consistency = 'session', @a = 1", other),
            ("SET @holdfast_consistency = 'session' 'x'", other),
            ("SET @holdfast = 'session'", None),
            ("SET @a = @holdfast_consistency", None),
            ("SET holdfast_consistency = 'session'", None),
        ] {
            let classified = classify(sql.as_bytes(), Dialect::default());
            assert_eq!(classified.class, Class::Set, "{sql}");
            let found = classified.flags.contains(Flags::CONSISTENCY).then_some((classified.flags, classified.hint));
            assert_eq!(found, expected, "{sql}");
        }
        let two = classify(b"SET @holdfast_consistency = 'session'; SELECT 1", Dialect::default());
        assert!(two.class == Class::Multi && !two.flags.contains(Flags::CONSISTENCY));
        let mode = SqlMode { ansi_quotes: true, ..SqlMode::default() };
        let name = classify(b"SET @holdfast_consistency = \"session\"", Dialect { mode, ..Dialect::default() });
        assert!(name.flags.contains(Flags::CONSISTENCY | Flags::IMPURE), "a column's name");
    }
}
