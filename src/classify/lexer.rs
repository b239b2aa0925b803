//! SQL text -> tokens, the way the servers' own lexers cut it.
//!
//! Borrowing and allocation-free. It knows comments, version comments, strings, identifiers, numbers and variables, and
//! nothing of grammar. Wherever the servers disagree with each other, or a rule depends on something not known here (the
//! exact character set), it returns [`Token::Odd`], which no caller may take for part of a read. Rules checked on
//! MySQL 9.7.4 and MariaDB 10.11; manual 11.2 (identifiers), 11.7 (comments).

use super::class::{Dialect, Flavor, Hint};
use memchr::{memchr, memchr2};

mod trivia;

/// One lexical element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token<'a> {
    /// An unquoted word: a keyword or an identifier.
    Word(&'a [u8]),
    /// An identifier that can't be a keyword: quoted, or directly after a dot. Quotes are not included.
    Name(&'a [u8]),
    /// A string literal.
    Text,
    /// A numeric literal.
    Number(&'a [u8]),
    /// `@x` in any quoting.
    UserVariable,
    /// `@@x`, `@@session.x`: the last part of its name, and its scope.
    SystemVariable(&'a [u8], Scope),
    /// `:=`
    Assign,
    /// Any other single character.
    Punct(u8),
    /// `;`
    Semicolon,
    /// Something that can't be read with certainty, or never ends.
    Odd,
    /// End of the text.
    End,
}

/// The scope written on a system variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// `@@x`
    Implicit,
    /// `@@session.x`, `@@local.x`
    Session,
    /// `@@global.x`, `@@persist.x`, `@@persist_only.x`
    Global,
}

/// Where hint comments still count: before the first word, or right after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HintWindow {
    BeforeFirstWord,
    AfterFirstWord,
    Closed,
}

/// A cursor over one text. Cheap to copy, so looking ahead is lexing a copy.
#[derive(Clone, Copy)]
pub(super) struct Lexer<'a> {
    sql: &'a [u8],
    pos: usize,
    dialect: Dialect,
    in_version_comment: bool,
    /// The next word follows a dot without a gap, so it's an identifier whatever it spells.
    after_dot: bool,
    window: HintWindow,
    hint: Hint,
    token_start: usize,
}

const WORD: u8 = 1;
const DIGIT: u8 = 2;
const SPACE: u8 = 4;
/// No-break space of one 8-bit character set or another, which MySQL then takes for whitespace (latin1 and most: a0,
/// DOS code pages: ff, koi8: 9a, macroman: ca). In UTF-8 it is part of a character; which one it is isn't known here.
const PERHAPS_SPACE: u8 = 8;

const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        table[b] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => WORD,
            b'0'..=b'9' => WORD | DIGIT,
            b' ' | b'\t'..=b'\r' => SPACE,
            0xa0 | 0xff | 0x9a | 0xca => WORD | PERHAPS_SPACE,
            0x80.. => WORD,
            _ => 0,
        };
        b += 1;
    }
    table
};

fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

impl<'a> Lexer<'a> {
    pub(super) fn new(sql: &'a [u8], dialect: Dialect) -> Self {
        Lexer {
            sql,
            pos: 0,
            dialect,
            in_version_comment: false,
            after_dot: false,
            window: HintWindow::BeforeFirstWord,
            hint: Hint::None,
            token_start: 0,
        }
    }

    /// Where the last token ended.
    pub(super) fn position(&self) -> usize {
        self.pos
    }

    /// Where the last token began.
    pub(super) fn token_start(&self) -> usize {
        self.token_start
    }

    /// The hint seen so far.
    pub(super) fn hint(&self) -> Hint {
        self.hint
    }

    /// The dialect the text is read in.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The next token; `End` for ever once the text is used up.
    pub(super) fn next(&mut self) -> Token<'a> {
        let after_dot = std::mem::take(&mut self.after_dot);
        if self.skip_trivia().is_err() {
            return Token::Odd;
        }
        self.token_start = self.pos;
        let Some(&byte) = self.sql.get(self.pos) else {
            return if std::mem::take(&mut self.in_version_comment) { Token::Odd } else { Token::End };
        };
        if self.window != HintWindow::Closed {
            self.advance_hint_window(byte);
        }
        match byte {
            b'0'..=b'9' if !after_dot => self.number(),
            _ if is(byte, WORD) => self.word(after_dot),
            b'\'' => self.string(byte),
            b'"' if !self.dialect.mode.ansi_quotes => self.string(byte),
            b'`' | b'"' => match self.quoted(byte) {
                Some(name) => Token::Name(name),
                None => Token::Odd,
            },
            b'@' => self.variable(),
            b'.' => self.dot(),
            b':' if self.peek(1) == Some(b'=') => self.advance(2, Token::Assign),
            b';' if !self.in_version_comment => self.advance(1, Token::Semicolon),
            b'!'..=b'~' if !matches!(byte, b':' | b';' | b'\\') => self.advance(1, Token::Punct(byte)),
            _ => self.advance(1, Token::Odd),
        }
    }

    fn advance(&mut self, by: usize, token: Token<'a>) -> Token<'a> {
        self.pos += by;
        token
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.get(self.pos + ahead).copied()
    }

    fn peek_is(&self, ahead: usize, class: u8) -> bool {
        self.peek(ahead).is_some_and(|b| is(b, class))
    }

    /// Gives up on the rest of the text: something in it never ends.
    fn give_up(&mut self) -> Token<'a> {
        self.pos = self.sql.len();
        self.in_version_comment = false;
        Token::Odd
    }

    fn word(&mut self, after_dot: bool) -> Token<'a> {
        let start = self.pos;
        let (mut seen, mut length) = (0, 0);
        for &b in &self.sql[start..] {
            let class = CLASSES[b as usize];
            if class & WORD == 0 {
                break;
            }
            seen |= class;
            length += 1;
        }
        self.pos += length;
        // A word that starts with `$` may open a dollar-quoted string (MySQL 9).
        if seen & PERHAPS_SPACE != 0 || self.sql[start] == b'$' {
            return Token::Odd;
        }
        let text = &self.sql[start..self.pos];
        if after_dot { Token::Name(text) } else { Token::Word(text) }
    }

    /// At a digit, or at a dot before a digit.
    fn number(&mut self) -> Token<'a> {
        let start = self.pos;
        let radix = (self.sql[start] == b'0').then(|| self.peek(1)).flatten();
        match radix {
            Some(b'x') if self.peek(2).is_some_and(|b| b.is_ascii_hexdigit()) => {
                self.pos += 2;
                self.skip_while(|b| b.is_ascii_hexdigit());
            }
            Some(b'b') if matches!(self.peek(2), Some(b'0' | b'1')) => {
                self.pos += 2;
                self.skip_while(|b| matches!(b, b'0' | b'1'));
            }
            _ => {
                self.skip_while(|b| b.is_ascii_digit());
                let fraction = self.peek(0) == Some(b'.');
                if fraction {
                    self.pos += 1;
                    self.skip_while(|b| b.is_ascii_digit());
                }
                let exponent = self.skip_exponent();
                // Digits that go on as a word are an identifier (`2fa_codes`), never a keyword.
                if !fraction && !exponent && self.peek_is(0, WORD) {
                    return match self.word(true) {
                        Token::Name(_) => Token::Name(&self.sql[start..self.pos]),
                        other => other,
                    };
                }
            }
        }
        // `1.5x`: where the number ends and the word begins is not certain. The word is left for the next call.
        if self.peek_is(0, WORD) { Token::Odd } else { Token::Number(&self.sql[start..self.pos]) }
    }

    fn skip_exponent(&mut self) -> bool {
        if !matches!(self.peek(0), Some(b'e' | b'E')) {
            return false;
        }
        let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
        if !self.peek_is(1 + sign, DIGIT) {
            return false;
        }
        self.pos += 1 + sign;
        self.skip_while(|b| b.is_ascii_digit());
        true
    }

    fn skip_while(&mut self, accept: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&accept) {
            self.pos += 1;
        }
    }

    fn dot(&mut self) -> Token<'a> {
        let after_word =
            self.pos > 0 && (is(self.sql[self.pos - 1], WORD) || matches!(self.sql[self.pos - 1], b'`' | b'"'));
        if !after_word && self.peek_is(1, DIGIT) {
            return self.number();
        }
        self.pos += 1;
        self.after_dot = self.peek_is(0, WORD);
        Token::Punct(b'.')
    }

    fn string(&mut self, quote: u8) -> Token<'a> {
        match self.skip_string(quote) {
            Ok(()) => Token::Text,
            Err(Unclosed) => self.give_up(),
        }
    }

    fn skip_string(&mut self, quote: u8) -> Result<(), Unclosed> {
        let mut at = self.pos + 1;
        loop {
            let rest = self.sql.get(at..).ok_or(Unclosed)?;
            let found =
                if self.dialect.mode.no_backslash_escapes { memchr(quote, rest) } else { memchr2(quote, b'\\', rest) };
            at += found.ok_or(Unclosed)?;
            if self.sql[at] == b'\\' || self.sql.get(at + 1) == Some(&quote) {
                at += 2;
                continue;
            }
            self.pos = at + 1;
            return Ok(());
        }
    }

    /// An identifier in backticks or, under ANSI_QUOTES, in double quotes; a doubled quote stands for itself.
    fn quoted(&mut self, quote: u8) -> Option<&'a [u8]> {
        let start = self.pos + 1;
        let mut at = start;
        loop {
            let Some(found) = self.sql.get(at..).and_then(|rest| memchr(quote, rest)) else {
                self.give_up();
                return None;
            };
            at += found;
            if self.sql.get(at + 1) == Some(&quote) {
                at += 2;
                continue;
            }
            self.pos = at + 1;
            return Some(&self.sql[start..at]);
        }
    }

    fn variable(&mut self) -> Token<'a> {
        match self.peek(1) {
            Some(b'@') => {
                self.pos += 2;
                self.system_variable()
            }
            Some(quote @ (b'`' | b'\'' | b'"')) => {
                self.pos += 1;
                let closed = match quote {
                    b'"' if !self.dialect.mode.ansi_quotes => self.skip_string(quote).is_ok(),
                    b'\'' => self.skip_string(quote).is_ok(),
                    _ => self.quoted(quote).is_some(),
                };
                if closed { Token::UserVariable } else { self.give_up() }
            }
            Some(b) if is(b, WORD) || b == b'.' => {
                self.pos += 1;
                let mut seen = 0;
                while let Some(b) = self.peek(0).filter(|&b| is(b, WORD) || b == b'.') {
                    seen |= CLASSES[b as usize];
                    self.pos += 1;
                }
                if seen & PERHAPS_SPACE == 0 { Token::UserVariable } else { Token::Odd }
            }
            _ => self.advance(1, Token::Punct(b'@')),
        }
    }

    /// After `@@`: parts joined by dots without a gap.
    fn system_variable(&mut self) -> Token<'a> {
        let mut scope = Scope::Implicit;
        loop {
            let part = match self.peek(0) {
                Some(b'`') => self.quoted(b'`'),
                Some(b'"') if self.dialect.mode.ansi_quotes => self.quoted(b'"'),
                Some(b) if is(b, WORD) => match self.word(true) {
                    Token::Name(name) => Some(name),
                    _ => None,
                },
                _ => None,
            };
            let Some(part) = part else { return Token::Odd };
            let named = named_scope(part);
            if self.peek(0) == Some(b'.') {
                self.pos += 1;
                scope = named.unwrap_or(scope);
            } else {
                // A bare scope word: its variable follows after a gap, which is not followed up here.
                return if named.is_some() { Token::Odd } else { Token::SystemVariable(part, scope) };
            }
        }
    }
}

fn named_scope(word: &[u8]) -> Option<Scope> {
    let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
    if is(b"session") || is(b"local") {
        Some(Scope::Session)
    } else if is(b"global") || is(b"persist") || is(b"persist_only") {
        Some(Scope::Global)
    } else {
        None
    }
}

/// A comment or literal that never ends, or whose end is not certain.
struct Unclosed;
