//! The body of a statement: is it free of side effects, and what does it touch?
//!
//! A [`Scan`] is shown every token behind the head word. It works on tokens, not on a grammar, and errs on one side
//! only: what it calls pure is pure; what it can't tell is impure. Its rules: nothing but known names before a
//! parenthesis (see `functions`), no word that writes or locks, no assignment, nothing the lexer found odd.
//!
//! It refuses to know tables and views: a view over a stored function that writes looks like any table. The servers
//! refuse such a write on a follower (error 1290), and the router re-runs it on the primary.

use super::class::Flags;
use super::functions;
use super::lexer::{Lexer, Scope, Token};

/// What the scan remembers of the token before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before<'a> {
    /// An unquoted word that is no qualified name's last part. `listed`: it follows `)` or `) AS`, where a name
    /// before a parenthesis can only be a derived table with its column list.
    Word {
        text: &'a [u8],
        listed: bool,
    },
    /// A name that can't be a keyword; `qualified`: it follows a dot.
    Name {
        text: &'a [u8],
        listed: bool,
        qualified: bool,
    },
    Close,
    CloseAs,
    Dot,
    Other,
}

/// What is known about a statement so far.
pub(super) struct Scan<'a> {
    /// Nothing seen yet that could have a side effect.
    pub(super) pure: bool,
    /// What it touches.
    pub(super) flags: Flags,
    before: Before<'a>,
    before_end: usize,
    /// SHOW PROCEDURE STATUS is no PROCEDURE ANALYSE.
    procedure_allowed: bool,
}

impl<'a> Scan<'a> {
    /// Begins behind a head word.
    pub(super) fn new(procedure_allowed: bool) -> Self {
        Scan { pure: true, flags: Flags::NONE, before: Before::Other, before_end: 0, procedure_allowed }
    }

    /// Takes in one token; `lexer` has just returned it.
    pub(super) fn see(&mut self, token: Token<'a>, lexer: &Lexer<'a>) {
        if let Before::Word { text, .. } = self.before
            && !matches!(token, Token::Punct(b'('))
            && writes_unless_called(text)
        {
            self.pure = false;
        }
        let mut after = Before::Other;
        match token {
            Token::Word(text) => after = self.word(text),
            Token::Name(text) => after = self.name(text),
            Token::Punct(b'(') => self.open(lexer),
            Token::Punct(b')') => after = Before::Close,
            Token::Punct(b'.') => {
                self.schema();
                after = Before::Dot;
            }
            Token::UserVariable => {
                self.flags |= Flags::USER_VARIABLE;
                if matches!(self.before, Before::Word { text, .. } if text.eq_ignore_ascii_case(b"INTO")) {
                    self.flags |= Flags::USER_VARIABLE_WRITE;
                }
            }
            Token::SystemVariable(name, _) => self.system_variable(name),
            Token::Assign => {
                self.flags |= Flags::USER_VARIABLE_WRITE;
                self.pure = false;
            }
            Token::Odd => self.pure = false,
            Token::Text | Token::Number(_) | Token::Punct(_) | Token::Semicolon | Token::End => {}
        }
        self.before = after;
        self.before_end = lexer.position();
    }

    fn listed(&self) -> bool {
        matches!(self.before, Before::Close | Before::CloseAs)
    }

    fn name(&mut self, text: &'a [u8]) -> Before<'a> {
        let qualified = self.before == Before::Dot;
        // MariaDB's `sequence.nextval`.
        if qualified && (text.eq_ignore_ascii_case(b"NEXTVAL") || text.eq_ignore_ascii_case(b"CURRVAL")) {
            self.pure = false;
        }
        if qualified && text.eq_ignore_ascii_case(b"PROCESSLIST") {
            self.flags |= Flags::READS_PROCESS_STATE;
        }
        Before::Name { text, listed: self.listed(), qualified }
    }

    fn word(&mut self, text: &'a [u8]) -> Before<'a> {
        // With a gap behind the dot the servers' lexers see a keyword where there is one. Nobody writes so.
        if self.before == Before::Dot {
            self.pure = false;
        }
        let is = |keyword: &[u8]| text.eq_ignore_ascii_case(keyword);
        match text.len() {
            2 if self.before == Before::Close && is(b"AS") => return Before::CloseAs,
            3 if is(b"FOR") && self.after_word(b"VALUE") => self.pure = false,
            4 if is(b"INTO") => self.pure = false,
            4 if is(b"LOCK") => {
                self.flags |= Flags::LOCKING_READ;
                self.pure = false;
            }
            5 if is(b"SHARE") && self.after_word(b"FOR") => {
                self.flags |= Flags::LOCKING_READ;
                self.pure = false;
            }
            6 if is(b"UPDATE") || is(b"DELETE") => {
                if self.after_word(b"FOR") {
                    self.flags |= Flags::LOCKING_READ;
                }
                self.pure = false;
            }
            7 | 8 if is(b"OUTFILE") || is(b"DUMPFILE") => {
                self.flags |= Flags::INTO_OUTFILE;
                self.pure = false;
            }
            9 if is(b"PROCEDURE") => self.pure &= self.procedure_allowed,
            14.. => {
                if is(b"SQL_CALC_FOUND_ROWS") {
                    self.flags |= Flags::SQL_CALC_FOUND_ROWS;
                }
                if is_session_track(text) {
                    self.flags |= Flags::SESSION_TRACK;
                }
            }
            _ => {}
        }
        Before::Word { text, listed: self.listed() }
    }

    fn after_word(&self, keyword: &[u8]) -> bool {
        matches!(self.before, Before::Word { text, .. } if text.eq_ignore_ascii_case(keyword))
    }

    /// A `(`: what stands before it must be known not to be the call of something that writes.
    fn open(&mut self, lexer: &Lexer<'a>) {
        let adjacent = self.before_end == lexer.token_start();
        match self.before {
            Before::Word { text, listed } => match functions::lookup(text, adjacent, lexer.dialect()) {
                Some(known) => {
                    self.flags |= known.flags;
                    self.pure &= known.pure;
                }
                None if !self.pure => {}
                None => self.pure = listed && is_against(text) || names_columns(*lexer, listed),
            },
            Before::Name { qualified: false, listed, .. } if self.pure => self.pure = names_columns(*lexer, listed),
            Before::Name { .. } => self.pure = false,
            Before::Close | Before::CloseAs | Before::Dot | Before::Other => {}
        }
    }

    /// A dot: is the name before it a schema that shows one server's own state?
    fn schema(&mut self) {
        let (Before::Word { text, .. } | Before::Name { text, .. }) = self.before else { return };
        if text.eq_ignore_ascii_case(b"performance_schema") || text.eq_ignore_ascii_case(b"sys") {
            self.flags |= Flags::READS_PROCESS_STATE;
        }
    }

    fn system_variable(&mut self, name: &[u8]) {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"warning_count") || is(b"error_count") {
            self.flags |= Flags::DIAGNOSTICS;
        } else if is(b"last_insert_id") || is(b"identity") || is(b"insert_id") {
            self.flags |= Flags::LAST_INSERT_ID;
            self.pure = false;
        } else if is(b"pseudo_thread_id") || is(b"last_gtid") {
            self.pure = false;
        } else if is_session_track(name) {
            self.flags |= Flags::SESSION_TRACK;
        }
    }
}

/// One item of a SET, by what it names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Expected,
    /// Named; a `=` or `:=` follows.
    Named,
    Passed,
}

/// Scans the body of a SET of variables up to its end, which is returned: `Semicolon` or `End`.
pub(super) fn scan_set<'a>(scan: &mut Scan<'a>, first: Token<'a>, lexer: &mut Lexer<'a>) -> Token<'a> {
    let (mut token, mut depth, mut target) = (first, 0usize, Target::Expected);
    loop {
        match (target, token) {
            (_, Token::Semicolon | Token::End) => return token,
            (Target::Expected, Token::UserVariable) => {
                scan.flags |= Flags::USER_VARIABLE_WRITE;
                target = Target::Named;
            }
            (Target::Expected, Token::SystemVariable(name, scope)) => {
                scan.flags |= match scope {
                    Scope::Global => Flags::GLOBAL_SET,
                    Scope::Implicit if is_transaction_variable(name) => Flags::ONE_SHOT_TRANSACTION,
                    Scope::Implicit | Scope::Session if is_autocommit(name) => Flags::IMPLICIT_COMMIT,
                    Scope::Implicit | Scope::Session => Flags::NONE,
                };
                target = Target::Named;
            }
            (Target::Expected, Token::Word(word)) if is_global(word) => scan.flags |= Flags::GLOBAL_SET,
            (Target::Expected, Token::Word(word)) if is_session(word) => {}
            (Target::Expected, Token::Word(name) | Token::Name(name)) => {
                scan.system_variable(name);
                if is_autocommit(name) {
                    scan.flags |= Flags::IMPLICIT_COMMIT;
                }
                target = Target::Named;
            }
            (Target::Expected, _) => target = Target::Named,
            (Target::Named, Token::Assign) => {
                target = Target::Passed;
                token = Token::Punct(b'=');
            }
            (Target::Named, Token::Punct(b'=')) => target = Target::Passed,
            (_, Token::Punct(b'(')) => depth += 1,
            (_, Token::Punct(b')')) => depth = depth.saturating_sub(1),
            (_, Token::Punct(b',')) if depth == 0 => target = Target::Expected,
            (Target::Named | Target::Passed, _) => {}
        }
        scan.see(token, lexer);
        token = lexer.next();
    }
}

fn is_global(word: &[u8]) -> bool {
    [b"GLOBAL".as_slice(), b"PERSIST", b"PERSIST_ONLY"].iter().any(|scope| word.eq_ignore_ascii_case(scope))
}

fn is_session(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"SESSION") || word.eq_ignore_ascii_case(b"LOCAL")
}

/// `SET @@x` without a scope is about the next transaction only (manual 15.3.7).
fn is_transaction_variable(name: &[u8]) -> bool {
    [b"transaction_isolation".as_slice(), b"tx_isolation", b"transaction_read_only", b"tx_read_only"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Turned on it commits what is open (manual 15.3.3).
fn is_autocommit(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"autocommit")
}

fn is_session_track(name: &[u8]) -> bool {
    name.get(..14).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"session_track_"))
}

/// INSERT and REPLACE are functions before a parenthesis and statements otherwise.
fn writes_unless_called(word: &[u8]) -> bool {
    (word.len() == 6 && word.eq_ignore_ascii_case(b"INSERT"))
        || (word.len() == 7 && word.eq_ignore_ascii_case(b"REPLACE"))
}

/// MATCH (...) AGAINST (...): not a reserved word on MariaDB, but nothing else can stand there.
fn is_against(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"AGAINST")
}

/// Is the parenthesis just opened a list of column names: of a derived table (`listed`), or of a common table
/// expression, which then goes on with `AS (`? A call can stand in neither place.
fn names_columns(mut ahead: Lexer<'_>, listed: bool) -> bool {
    loop {
        if !matches!(ahead.next(), Token::Word(_) | Token::Name(_)) {
            return false;
        }
        match ahead.next() {
            Token::Punct(b',') => {}
            Token::Punct(b')') => break,
            _ => return false,
        }
    }
    listed
        || (matches!(ahead.next(), Token::Word(word) if word.eq_ignore_ascii_case(b"AS"))
            && ahead.next() == Token::Punct(b'('))
}
