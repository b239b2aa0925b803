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

#[cfg(test)]
mod tests {
    use super::*;

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
