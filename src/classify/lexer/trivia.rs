//! What stands between tokens: whitespace, comments, version comments and Holdfast's own hint comments.
//!
//! Version comments are code when the server's version is high enough; a doubtful one is an error here, which makes the
//! statement something else than a read. Checked on MySQL 9.7.4 and MariaDB 10.11.19; manual 11.7.

use super::super::consistency::consistency;
use super::*;

/// MariaDB skips `/*!50700 ... */` up to here: MySQL's versions that never were MariaDB's.
const MYSQL_ONLY_VERSIONS: std::ops::RangeInclusive<u32> = 50700..=99999;

impl<'a> Lexer<'a> {
    /// Moves to the next byte of code. An error means that what was skipped can't be read with certainty; the cursor
    /// has moved on all the same.
    pub(super) fn skip_trivia(&mut self) -> Result<(), Unclosed> {
        while let Some(byte) = self.peek(0) {
            match byte {
                _ if is(byte, SPACE) => self.pos += 1,
                b'/' if self.peek(1) == Some(b'*') => self.skip_block()?,
                b'*' if self.in_version_comment && self.peek(1) == Some(b'/') => {
                    self.in_version_comment = false;
                    self.pos += 2;
                }
                b'#' => self.skip_line()?,
                b'-' if self.peek(1) == Some(b'-') => match self.peek(2) {
                    None | Some(..=b' ' | 0x7f) => self.skip_line()?,
                    // Whitespace in some character sets.
                    Some(0x80..) => {
                        self.pos += 2;
                        return Err(Unclosed);
                    }
                    Some(_) => return Ok(()),
                },
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// To the end of the line, which for the servers is `\n` and nothing else.
    fn skip_line(&mut self) -> Result<(), Unclosed> {
        let rest = &self.sql[self.pos..];
        let line = &rest[..memchr(b'\n', rest).unwrap_or(rest.len())];
        self.pos += line.len();
        // A NUL ends such a comment early.
        if memchr(0, line).is_some() { Err(Unclosed) } else { Ok(()) }
    }

    /// At `/*`.
    fn skip_block(&mut self) -> Result<(), Unclosed> {
        let mariadb = matches!(self.dialect.flavor, Flavor::MariaDb { .. });
        match self.peek(2) {
            Some(b'!') => self.version_comment(3, false),
            Some(b'M') if mariadb && self.peek(3) == Some(b'!') => self.version_comment(4, true),
            mark => {
                let body = self.comment_body(2)?;
                if mark == Some(b'+') && quotes_are_open(body) {
                    return Err(Unclosed);
                }
                if self.window != HintWindow::Closed && self.hint == Hint::None {
                    self.hint = parse_hint(body);
                }
                Ok(())
            }
        }
    }

    /// The text from `self.pos + skip` to `*/`, moving behind it.
    fn comment_body(&mut self, skip: usize) -> Result<&'a [u8], Unclosed> {
        let start = self.pos + skip;
        let mut at = start;
        while let Some(found) = self.sql.get(at..).and_then(|rest| memchr(b'*', rest)) {
            at += found + 1;
            if self.sql.get(at) == Some(&b'/') {
                self.pos = at + 1;
                return Ok(&self.sql[start..at - 1]);
            }
        }
        self.give_up();
        Err(Unclosed)
    }

    /// At `/*!` or `/*M!`, `mark` bytes long.
    fn version_comment(&mut self, mark: usize, mariadb_only: bool) -> Result<(), Unclosed> {
        if self.in_version_comment {
            self.give_up();
            return Err(Unclosed);
        }
        let rest = &self.sql[self.pos + mark..];
        let digits = rest.iter().take(7).take_while(|b| b.is_ascii_digit()).count();
        let (taken, code) = match (self.dialect.flavor, digits) {
            (_, 0..=4) => (0, true),
            (Flavor::MySql { version }, 5) => (5, version_number(&rest[..5]) <= version),
            // Six digits count only before whitespace; MySQL reads five of them otherwise.
            (Flavor::MySql { version }, 6) if rest.get(6).is_some_and(|&b| is(b, SPACE)) => {
                (6, version_number(&rest[..6]) <= version)
            }
            (Flavor::MariaDb { version }, 5 | 6) => {
                let wanted = version_number(&rest[..digits]);
                (digits, wanted <= version && (mariadb_only || !MYSQL_ONLY_VERSIONS.contains(&wanted)))
            }
            (Flavor::MySql { .. } | Flavor::MariaDb { .. }, _) => {
                self.pos += mark;
                self.in_version_comment = true;
                return Err(Unclosed);
            }
        };
        if code {
            self.pos += mark + taken;
            self.in_version_comment = true;
            return Ok(());
        }
        let body = self.comment_body(mark)?;
        // Comments inside a skipped one are counted by the servers, to different depths.
        if body.windows(2).any(|pair| pair == b"/*") { Err(Unclosed) } else { Ok(()) }
    }

    /// Called with the first byte of each token until the window closes.
    pub(super) fn advance_hint_window(&mut self, byte: u8) {
        self.window = match self.window {
            HintWindow::BeforeFirstWord if is(byte, WORD) => HintWindow::AfterFirstWord,
            HintWindow::BeforeFirstWord => HintWindow::BeforeFirstWord,
            HintWindow::AfterFirstWord | HintWindow::Closed => HintWindow::Closed,
        };
    }
}

fn version_number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |n, d| n * 10 + u32::from(d - b'0'))
}

/// Optimizer hints have a lexer of their own, which knows quotes: a `*/` between quotes does not end them.
fn quotes_are_open(body: &[u8]) -> bool {
    [b'\'', b'"', b'`'].iter().any(|quote| body.iter().filter(|b| *b == quote).count() % 2 == 1)
}

/// ` holdfast : primary ` -> Primary.
fn parse_hint(body: &[u8]) -> Hint {
    let Some((name, rest)) = body.trim_ascii().split_at_checked(8) else { return Hint::None };
    if !name.eq_ignore_ascii_case(b"holdfast") {
        return Hint::None;
    }
    let Some((b':', wish)) = rest.trim_ascii_start().split_first().map(|(c, w)| (*c, w.trim_ascii_start())) else {
        return Hint::None;
    };
    if wish.eq_ignore_ascii_case(b"primary") {
        Hint::Primary
    } else if wish.eq_ignore_ascii_case(b"follower") {
        Hint::Follower
    } else {
        consistency(wish).unwrap_or_default()
    }
}
