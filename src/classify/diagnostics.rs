//! What GET DIAGNOSTICS assigns: user variables, and of which type they become (manual 15.6.7.3).

use super::class::Dialect;
use super::lexer::{Lexer, Token};

/// The type of a diagnostics item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ItemType {
    /// ROW_COUNT.
    Signed,
    /// NUMBER, MYSQL_ERRNO.
    Unsigned,
    /// All others.
    Text,
}

/// The user variables that a GET DIAGNOSTICS statement assigns, as they stand in its text (`@x`, `` @`x y` ``), in its order.
pub fn assigned(sql: &[u8], dialect: Dialect) -> Vec<(&[u8], ItemType)> {
    let mut lexer = Lexer::new(sql, dialect);
    let mut all = Vec::new();
    loop {
        let variable = match lexer.next() {
            Token::UserVariable => &sql[lexer.token_start()..lexer.position()],
            Token::End | Token::Odd => return all,
            _ => continue,
        };
        let mut ahead = lexer;
        if ahead.next() != Token::Punct(b'=') {
            continue;
        }
        let Token::Word(item) = ahead.next() else { continue };
        let is = |name: &[u8]| item.eq_ignore_ascii_case(name);
        let kind = if is(b"ROW_COUNT") {
            ItemType::Signed
        } else if is(b"NUMBER") || is(b"MYSQL_ERRNO") {
            ItemType::Unsigned
        } else {
            ItemType::Text
        };
        all.push((variable, kind));
    }
}

/// What a statement asks of the diagnostics of the one before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked<'t> {
    /// SHOW WARNINGS, whole.
    Warnings,
    /// SHOW ERRORS, whole.
    Errors,
    /// SHOW COUNT(*) of warnings or errors: who asks that can still ask what they are. Behind a SELECT of the same there are
    /// none any more.
    Count(Number),
    /// SELECT of nothing but numbers of it, each with the name of its column.
    Numbers(Vec<(Number, &'t [u8])>),
    /// Anything else.
    Other,
}

/// A number that a statement leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Number {
    /// ROW_COUNT().
    RowCount,
    /// FOUND_ROWS().
    FoundRows,
    /// @@warning_count, or SHOW COUNT(*) WARNINGS.
    Warnings,
    /// @@error_count, or SHOW COUNT(*) ERRORS.
    Errors,
    /// LAST_INSERT_ID().
    InsertId,
}

/// What `sql` asks of the diagnostics of the statement before it.
pub fn asked(sql: &[u8], dialect: Dialect) -> Asked<'_> {
    let mut lexer = Lexer::new(sql, dialect);
    let asked = match lexer.next() {
        Token::Word(word) if word.eq_ignore_ascii_case(b"SHOW") => shown(&mut lexer),
        Token::Word(word) if word.eq_ignore_ascii_case(b"SELECT") => {
            return numbers(sql, &mut lexer).unwrap_or(Asked::Other);
        }
        _ => None,
    };
    match (asked, lexer.next()) {
        (Some(asked), Token::End) => asked,
        (Some(asked), Token::Semicolon) if lexer.next() == Token::End => asked,
        _ => Asked::Other,
    }
}

fn shown<'t>(lexer: &mut Lexer<'_>) -> Option<Asked<'t>> {
    let Token::Word(word) = lexer.next() else { return None };
    if word.eq_ignore_ascii_case(b"COUNT") {
        let star = [Token::Punct(b'('), Token::Punct(b'*'), Token::Punct(b')')];
        let counts = star.into_iter().all(|token| lexer.next() == token);
        let Token::Word(word) = lexer.next() else { return None };
        return match counts {
            true if word.eq_ignore_ascii_case(b"WARNINGS") => Some(Asked::Count(Number::Warnings)),
            true if word.eq_ignore_ascii_case(b"ERRORS") => Some(Asked::Count(Number::Errors)),
            _ => None,
        };
    }
    match word {
        _ if word.eq_ignore_ascii_case(b"WARNINGS") => Some(Asked::Warnings),
        _ if word.eq_ignore_ascii_case(b"ERRORS") => Some(Asked::Errors),
        _ => None,
    }
}

fn numbers<'t>(sql: &'t [u8], lexer: &mut Lexer<'t>) -> Option<Asked<'t>> {
    let mut numbers = Vec::new();
    loop {
        let token = lexer.next();
        let start = lexer.token_start();
        let number = match token {
            Token::Word(word) => {
                let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
                let number = match word {
                    _ if is(b"ROW_COUNT") => Number::RowCount,
                    _ if is(b"FOUND_ROWS") => Number::FoundRows,
                    _ if is(b"LAST_INSERT_ID") => Number::InsertId,
                    _ => return None,
                };
                if lexer.next() != Token::Punct(b'(') || lexer.next() != Token::Punct(b')') {
                    return None;
                }
                number
            }
            Token::SystemVariable(name, _) if name.eq_ignore_ascii_case(b"warning_count") => Number::Warnings,
            Token::SystemVariable(name, _) if name.eq_ignore_ascii_case(b"error_count") => Number::Errors,
            _ => return None,
        };
        let mut name = &sql[start..lexer.position()];
        let mut next = lexer.next();
        if matches!(next, Token::Word(word) if word.eq_ignore_ascii_case(b"AS")) {
            next = lexer.next();
            name = match next {
                Token::Word(alias) => alias,
                _ => return None,
            };
            next = lexer.next();
        }
        numbers.push((number, name));
        match next {
            Token::Punct(b',') => {}
            Token::End => return Some(Asked::Numbers(numbers)),
            Token::Semicolon if lexer.next() == Token::End => return Some(Asked::Numbers(numbers)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let of = |sql: &'static str| asked(sql.as_bytes(), Dialect::default());
        assert_eq!(of("show /* all */ warnings;"), Asked::Warnings);
        assert_eq!(of("SHOW ERRORS"), Asked::Errors);
        assert_eq!(of("SHOW COUNT(*) ERRORS"), Asked::Count(Number::Errors));
        let both = Asked::Numbers(vec![(Number::RowCount, b"Row_Count()"), (Number::Warnings, b"w")]);
        assert_eq!(of("SELECT Row_Count(), @@warning_count AS w"), both);
        for other in
            ["SHOW WARNINGS LIMIT 1", "SELECT ROW_COUNT() + 1", "SELECT 1", "DO ROW_COUNT()", "SHOW TABLES", ""]
        {
            assert_eq!(of(other), Asked::Other, "{other}");
        }
    }

    #[test]
    fn the_variables_are_found_with_their_quotes_and_types() {
        let sql = b"GET CURRENT DIAGNOSTICS @a = NUMBER, @`b c`=row_count /* , @no = NUMBER */";
        let found = assigned(sql, Dialect::default());
        assert_eq!(found, [(&b"@a"[..], ItemType::Unsigned), (b"@`b c`", ItemType::Signed)]);
        let sql = b"GET DIAGNOSTICS CONDITION @n @'x''y' = MESSAGE_TEXT,@z=MYSQL_ERRNO";
        let found = assigned(sql, Dialect::default());
        assert_eq!(found, [(&b"@'x''y'"[..], ItemType::Text), (b"@z", ItemType::Unsigned)]);
        assert_eq!(assigned(b"GET DIAGNOSTICS p1 = NUMBER, @", Dialect::default()), []);
    }
}
