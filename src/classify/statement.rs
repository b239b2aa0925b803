//! One statement of a text: its head word decides what it can be, its body decides the rest.

use super::class::{Class, Flags};
use super::explain::explain;
use super::lexer::{Lexer, Token};
use super::scan::{Scan, scan_set};

/// How far flags are looked for in a text already known not to be a read: enough for what applications write, and a
/// bulk INSERT of megabytes is not read through.
const FLAGS_LOOKED_FOR: usize = 4096;

/// One statement, and whether the text goes on behind it.
pub(super) struct Statement {
    pub(super) class: Class,
    pub(super) flags: Flags,
    pub(super) more: bool,
}

/// Reads one statement up to its `;` or the end.
pub(super) fn statement(lexer: &mut Lexer<'_>) -> Statement {
    let mut token = lexer.next();
    let mut parenthesised = false;
    while token == Token::Punct(b'(') {
        parenthesised = true;
        token = lexer.next();
    }
    match token {
        Token::Semicolon | Token::End if !parenthesised => {
            Statement { class: Class::Empty, flags: Flags::NONE, more: token == Token::Semicolon }
        }
        Token::Word(word) => {
            let mut upper = [0; HEAD_MAX];
            let head = upper_case(word, &mut upper);
            if parenthesised && !matches!(head, b"SELECT" | b"WITH" | b"TABLE" | b"VALUES") {
                return rest(lexer, Class::Write, Flags::NONE);
            }
            by_head(head, lexer)
        }
        Token::Semicolon | Token::End => Statement { class: Class::Write, flags: Flags::NONE, more: false },
        _ => rest(lexer, Class::Write, Flags::NONE),
    }
}

/// The longest head word.
pub(super) const HEAD_MAX: usize = 12;

/// The word in upper case, or nothing if it is too long to be one of ours.
pub(super) fn upper_case<'b>(word: &[u8], buffer: &'b mut [u8; HEAD_MAX]) -> &'b [u8] {
    let Some(target) = buffer.get_mut(..word.len()) else { return b"" };
    target.copy_from_slice(word);
    target.make_ascii_uppercase();
    target
}

fn by_head(head: &[u8], lexer: &mut Lexer<'_>) -> Statement {
    match head {
        b"SELECT" | b"WITH" | b"TABLE" | b"VALUES" => query(lexer),
        b"INSERT" | b"REPLACE" => rest(lexer, Class::Write, Flags::INSERT_LIKE | Flags::DML),
        b"UPDATE" | b"DELETE" => rest(lexer, Class::Write, Flags::DML),
        b"BEGIN" => begin(lexer),
        b"START" => start(lexer),
        b"COMMIT" => end_of_transaction(lexer, true),
        b"ROLLBACK" => end_of_transaction(lexer, false),
        b"SET" => set(lexer),
        b"SHOW" => show(lexer),
        b"EXPLAIN" | b"DESCRIBE" | b"DESC" => explain(lexer),
        b"USE" => rest(lexer, Class::Use, Flags::NONE),
        b"SAVEPOINT" | b"RELEASE" => rest(lexer, Class::Savepoint, Flags::NONE),
        b"XA" => rest(lexer, Class::Xa, Flags::NONE),
        b"GET" => rest(lexer, Class::Diagnostics, Flags::DIAGNOSTICS | Flags::USER_VARIABLE_WRITE),
        b"LOCK" => rest(lexer, Class::Lock, Flags::IMPLICIT_COMMIT),
        b"UNLOCK" => rest(lexer, Class::Unlock, Flags::IMPLICIT_COMMIT),
        b"FLUSH" => flush(lexer),
        b"BACKUP" => backup(lexer),
        b"KILL" => kill(lexer),
        b"CALL" => rest(lexer, Class::Call, Flags::TEMPORARY_TABLE),
        b"PREPARE" => rest(lexer, Class::Prepare, Flags::NONE),
        b"EXECUTE" => rest(lexer, Class::Execute, Flags::TEMPORARY_TABLE),
        b"DEALLOCATE" => rest(lexer, Class::Deallocate, Flags::NONE),
        b"HANDLER" => rest(lexer, Class::Handler, Flags::NONE),
        b"LOAD" => load(lexer),
        b"CREATE" | b"DROP" | b"ALTER" => definition(head == b"DROP", lexer),
        b"RENAME" | b"TRUNCATE" | b"GRANT" | b"REVOKE" | b"ANALYZE" | b"OPTIMIZE" | b"REPAIR" | b"CHECK" | b"CACHE"
        | b"INSTALL" | b"UNINSTALL" | b"STOP" | b"CHANGE" | b"RESET" | b"IMPORT" => {
            rest(lexer, Class::Write, Flags::IMPLICIT_COMMIT)
        }
        // MariaDB's compound statements outside stored programs: what stands between their `;` is theirs.
        b"IF" | b"CASE" | b"LOOP" | b"WHILE" | b"REPEAT" | b"FOR" | b"DECLARE" => compound(),
        _ => rest(lexer, Class::Write, Flags::NONE),
    }
}

/// A whole text that is one statement whatever `;` it holds.
fn compound() -> Statement {
    Statement { class: Class::Write, flags: Flags::TEMPORARY_TABLE, more: false }
}

/// A statement whose class is settled: only flags are still looked for.
pub(super) fn rest(lexer: &mut Lexer<'_>, class: Class, flags: Flags) -> Statement {
    let token = lexer.next();
    rest_from(token, lexer, class, flags)
}

/// The same, from a token already read.
pub(super) fn rest_from<'a>(mut token: Token<'a>, lexer: &mut Lexer<'a>, class: Class, flags: Flags) -> Statement {
    let mut scan = Scan::new(true);
    scan.pure = false;
    loop {
        if matches!(token, Token::Semicolon | Token::End) || lexer.position() > FLAGS_LOOKED_FOR {
            return Statement { class, flags: flags | scan.flags, more: token == Token::Semicolon };
        }
        scan.see(token, lexer);
        token = lexer.next();
    }
}

/// SELECT and its kin.
pub(super) fn query(lexer: &mut Lexer<'_>) -> Statement {
    scan_read(lexer, Scan::new(false))
}

fn scan_read<'a>(lexer: &mut Lexer<'a>, mut scan: Scan<'a>) -> Statement {
    let mut token = lexer.next();
    while !matches!(token, Token::Semicolon | Token::End) {
        scan.see(token, lexer);
        if !scan.pure && lexer.position() > FLAGS_LOOKED_FOR {
            break;
        }
        token = lexer.next();
    }
    scan.see(token, lexer);
    let (class, flags) = match (scan.pure, scan.flags.contains(Flags::DIAGNOSTICS)) {
        (false, _) => (Class::Write, scan.flags | Flags::IMPURE),
        (true, true) => (Class::Diagnostics, scan.flags),
        (true, false) => (Class::Read, scan.flags),
    };
    Statement { class, flags, more: token == Token::Semicolon }
}

fn is(token: Token<'_>, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword.as_bytes()))
}

/// BEGIN [WORK]; MariaDB's BEGIN NOT ATOMIC is a compound statement.
fn begin(lexer: &mut Lexer<'_>) -> Statement {
    let mut token = lexer.next();
    if is(token, "WORK") {
        token = lexer.next();
    }
    match token {
        Token::Semicolon | Token::End => {
            Statement { class: Class::Begin { read_only: false }, flags: Flags::NONE, more: token == Token::Semicolon }
        }
        _ => compound(),
    }
}

/// START TRANSACTION [characteristic, ...]; START of replication is administration.
fn start(lexer: &mut Lexer<'_>) -> Statement {
    let mut token = lexer.next();
    if !is(token, "TRANSACTION") {
        return rest_from(token, lexer, Class::Write, Flags::IMPLICIT_COMMIT);
    }
    let mut read_only = false;
    loop {
        token = lexer.next();
        match token {
            Token::Semicolon | Token::End => {
                let class = Class::Begin { read_only };
                return Statement { class, flags: Flags::NONE, more: token == Token::Semicolon };
            }
            _ if is(token, "READ") => {
                token = lexer.next();
                read_only = is(token, "ONLY");
                if !read_only && !is(token, "WRITE") {
                    return rest_from(token, lexer, Class::Write, Flags::NONE);
                }
            }
            _ if is(token, "WITH") && is(lexer.next(), "CONSISTENT") && is(lexer.next(), "SNAPSHOT") => {}
            Token::Punct(b',') => {}
            _ => return rest_from(token, lexer, Class::Write, Flags::NONE),
        }
    }
}

/// COMMIT or ROLLBACK [WORK] [AND [NO] CHAIN] [[NO] RELEASE], or ROLLBACK [WORK] TO [SAVEPOINT] x.
fn end_of_transaction(lexer: &mut Lexer<'_>, commit: bool) -> Statement {
    let (mut chain, mut release, mut token) = (false, false, lexer.next());
    if is(token, "WORK") {
        token = lexer.next();
    }
    if !commit && is(token, "TO") {
        return rest(lexer, Class::Savepoint, Flags::NONE);
    }
    if is(token, "AND") {
        token = lexer.next();
        chain = !is(token, "NO");
        if !chain {
            token = lexer.next();
        }
        if !is(token, "CHAIN") {
            return rest_from(token, lexer, Class::Write, Flags::NONE);
        }
        token = lexer.next();
    }
    let no = is(token, "NO");
    if no {
        token = lexer.next();
    }
    if is(token, "RELEASE") {
        release = !no;
        token = lexer.next();
    } else if no {
        return rest_from(token, lexer, Class::Write, Flags::NONE);
    }
    match token {
        Token::Semicolon | Token::End => {
            let class = if commit { Class::Commit { chain, release } } else { Class::Rollback { chain, release } };
            Statement { class, flags: Flags::NONE, more: token == Token::Semicolon }
        }
        _ => rest_from(token, lexer, Class::Write, Flags::NONE),
    }
}

fn set(lexer: &mut Lexer<'_>) -> Statement {
    let token = lexer.next();
    let mut scan = Scan::new(false);
    if let Token::Word(word) = token {
        let mut upper = [0; HEAD_MAX];
        match upper_case(word, &mut upper) {
            // They write the account tables.
            b"PASSWORD" | b"DEFAULT" => return rest(lexer, Class::Write, Flags::IMPLICIT_COMMIT),
            // MariaDB: SET STATEMENT x=y FOR any statement.
            b"STATEMENT" => return rest(lexer, Class::Write, Flags::IMPURE),
            b"TRANSACTION" => return rest(lexer, Class::Set, Flags::ONE_SHOT_TRANSACTION),
            b"ROLE" => scan.flags |= Flags::SET_ROLE,
            _ => {}
        }
    }
    let end = scan_set(&mut scan, token, lexer);
    if !scan.pure {
        scan.flags |= Flags::IMPURE;
    }
    Statement { class: Class::Set, flags: scan.flags, more: end == Token::Semicolon }
}

fn show(lexer: &mut Lexer<'_>) -> Statement {
    let mut scan = Scan::new(true);
    loop {
        let token = lexer.next();
        let Token::Word(word) = token else { return rest_from(token, lexer, Class::Write, Flags::NONE) };
        let mut upper = [0; HEAD_MAX];
        match upper_case(word, &mut upper) {
            b"FULL" | b"EXTENDED" | b"GLOBAL" | b"SESSION" | b"LOCAL" | b"STORAGE" | b"ALL" => {}
            b"DATABASES" | b"SCHEMAS" | b"TABLES" | b"COLUMNS" | b"FIELDS" | b"INDEX" | b"INDEXES" | b"KEYS"
            | b"CREATE" | b"TABLE" | b"TRIGGERS" | b"EVENTS" | b"PROCEDURE" | b"FUNCTION" | b"VARIABLES"
            | b"ENGINES" | b"PLUGINS" | b"CHARACTER" | b"CHARSET" | b"COLLATION" | b"GRANTS" | b"PRIVILEGES"
            | b"LIBRARY" | b"PACKAGE" => return scan_read(lexer, scan),
            b"STATUS" | b"PROCESSLIST" | b"OPEN" | b"ENGINE" | b"BINARY" | b"MASTER" | b"BINLOG" | b"RELAYLOG"
            | b"REPLICA" | b"SLAVE" | b"REPLICAS" | b"SLAVES" => {
                scan.flags |= Flags::READS_PROCESS_STATE;
                return scan_read(lexer, scan);
            }
            b"WARNINGS" | b"ERRORS" | b"COUNT" | b"PROFILE" | b"PROFILES" => {
                scan.flags |= Flags::DIAGNOSTICS;
                return scan_read(lexer, scan);
            }
            _ => return rest(lexer, Class::Write, Flags::NONE),
        }
    }
}

/// FLUSH TABLES ... WITH READ LOCK | FOR EXPORT locks; the rest is administration.
fn flush(lexer: &mut Lexer<'_>) -> Statement {
    let mut lock = false;
    let mut before_is_for = false;
    let mut scan = *lexer;
    loop {
        let token = scan.next();
        match token {
            Token::Semicolon | Token::End => break,
            _ => lock |= is(token, "LOCK") || (before_is_for && is(token, "EXPORT")),
        }
        before_is_for = is(token, "FOR");
        if scan.position() > FLAGS_LOOKED_FOR {
            break;
        }
    }
    rest(lexer, if lock { Class::Lock } else { Class::Write }, Flags::IMPLICIT_COMMIT)
}

/// MariaDB's BACKUP STAGE, BACKUP LOCK, BACKUP UNLOCK.
fn backup(lexer: &mut Lexer<'_>) -> Statement {
    let unlock = is(lexer.next(), "UNLOCK");
    rest(lexer, if unlock { Class::Unlock } else { Class::Lock }, Flags::NONE)
}

/// KILL [HARD | SOFT] [CONNECTION | QUERY] id. MariaDB's QUERY ID and USER name no connection.
fn kill(lexer: &mut Lexer<'_>) -> Statement {
    let mut token = lexer.next();
    if is(token, "HARD") || is(token, "SOFT") {
        token = lexer.next();
    }
    let query = is(token, "QUERY");
    if query || is(token, "CONNECTION") {
        token = lexer.next();
    }
    let number = match token {
        Token::Number(digits) => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
        _ => None,
    };
    let behind = if matches!(token, Token::Semicolon | Token::End) { token } else { lexer.next() };
    let id = number.filter(|_| matches!(behind, Token::Semicolon | Token::End));
    rest_from(behind, lexer, Class::Kill { query, id }, Flags::NONE)
}

/// LOAD DATA | XML [LOW_PRIORITY | CONCURRENT] [LOCAL] INFILE ...
fn load(lexer: &mut Lexer<'_>) -> Statement {
    let what = lexer.next();
    if !is(what, "DATA") && !is(what, "XML") {
        return rest_from(what, lexer, Class::Write, Flags::IMPLICIT_COMMIT);
    }
    let mut token = lexer.next();
    if is(token, "LOW_PRIORITY") || is(token, "CONCURRENT") {
        token = lexer.next();
    }
    let class = if is(token, "LOCAL") { Class::LoadDataLocal } else { Class::Write };
    rest_from(token, lexer, class, Flags::INSERT_LIKE)
}

/// CREATE, ALTER, DROP. A stored program's body holds `;` of its own, so such a text is not split.
fn definition(drop: bool, lexer: &mut Lexer<'_>) -> Statement {
    let mut ahead = *lexer;
    let mut flags = Flags::IMPLICIT_COMMIT;
    loop {
        let token = ahead.next();
        let word = match token {
            Token::Word(word) => word,
            Token::Semicolon | Token::End => break,
            _ => continue,
        };
        let mut upper = [0; HEAD_MAX];
        match upper_case(word, &mut upper) {
            b"TEMPORARY" => {
                flags = Flags::TEMPORARY_TABLE;
                break;
            }
            b"PREPARE" if drop => return rest(lexer, Class::Deallocate, Flags::NONE),
            b"PROCEDURE" | b"FUNCTION" | b"TRIGGER" | b"EVENT" | b"PACKAGE" if !drop => {
                return Statement { class: Class::Write, flags, more: false };
            }
            b"TABLE" | b"INDEX" | b"VIEW" | b"DATABASE" | b"SCHEMA" | b"USER" | b"ROLE" | b"SERVER" => break,
            _ if ahead.position() > FLAGS_LOOKED_FOR => break,
            _ => {}
        }
    }
    rest(lexer, Class::Write, flags)
}
