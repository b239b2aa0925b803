//! What a session learns from what was sent and what came back.

use super::*;
use crate::classify::classify;
use crate::wire::session_track::Change;

fn session() -> Session {
    Session::new(Some(b"app"), Dialect::default(), 2)
}

fn variable<'a>(data: &'a [u8]) -> Change<'a> {
    Change { kind: crate::wire::session_track::TRACK_VARIABLES, data }
}

fn run(session: &mut Session, sql: &str) {
    let classified = classify(sql.as_bytes(), session.dialect());
    session.sent(Slot::Primary, classified);
}

#[test]
fn pins_come_and_go_with_what_was_run() {
    for (sql, pin) in [
        ("CREATE TEMPORARY TABLE t (a INT)", Pin::TemporaryTable),
        ("SET @a = 1", Pin::UserVariable),
        ("SELECT 1 INTO @a", Pin::UserVariable),
        ("SELECT GET_LOCK('x', 1)", Pin::NamedLock),
        ("LOCK TABLES t READ", Pin::TableLock),
        ("PREPARE s FROM 'SELECT 1'", Pin::TextPrepared),
        ("HANDLER t OPEN", Pin::Handler),
        ("SET ROLE NONE", Pin::Role),
        ("CALL p()", Pin::Unseen),
    ] {
        let mut session = session();
        run(&mut session, sql);
        assert!(session.pins().contains(pin), "{sql}");
        session.reset();
        // The servers keep active roles.
        assert_eq!(session.pins().is_empty(), pin != Pin::Role, "{sql}");
    }
    let mut session = session();
    run(&mut session, "LOCK TABLES t READ");
    run(&mut session, "UNLOCK TABLES");
    assert!(session.pins().is_empty());
    run(&mut session, "SELECT 1");
    assert!(session.pins().is_empty());
}

#[test]
fn a_one_shot_set_transaction_lasts_for_one_statement() {
    let mut session = session();
    run(&mut session, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED");
    assert!(session.one_shot());
    run(&mut session, "SET sql_mode = ''");
    assert!(session.one_shot(), "SET does not use it up");
    run(&mut session, "SELECT 1");
    assert!(!session.one_shot());
    run(&mut session, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
    assert!(!session.one_shot());
}

#[test]
fn transactions_stay_where_they_were_opened() {
    let mut session = session();
    assert!(session.autocommit());
    session.observe_status(Slot::Follower, STATUS_AUTOCOMMIT | STATUS_IN_TRANS);
    assert_eq!(session.transaction(), Some(Slot::Follower));
    session.observe_status(Slot::Primary, STATUS_AUTOCOMMIT);
    assert_eq!(session.transaction(), Some(Slot::Follower));
    session.observe_status(Slot::Follower, STATUS_AUTOCOMMIT);
    assert_eq!(session.transaction(), None);
    session.observe_status(Slot::Primary, STATUS_IN_TRANS);
    assert!(!session.autocommit());
    assert!(session.lost(Slot::Primary));
    assert!(!session.lost(Slot::Primary));
}

#[test]
fn reported_state_changes_how_text_is_read_and_what_others_lack() {
    let mut session = session();
    let before = session.variables.version();
    session.observe_change(Slot::Primary, variable(b"\x0cstatement_id\x0216"));
    assert_eq!(session.variables.version(), before);
    session.observe_change(Slot::Primary, variable(b"\x08sql_mode\x0bANSI_QUOTES"));
    assert!(session.dialect().mode.ansi_quotes);
    session.observe_change(Slot::Primary, variable(b"\x14character_set_client\x03gbk"));
    assert!(session.dialect().multibyte_escape_unsafe);
    session.observe_change(Slot::Primary, variable(b"\x09time_zone\x06+03:00"));
    session.observe_change(Slot::Primary, variable(b"\x08sql_mode\x00"));
    let names: Vec<_> = session.variables.lacking(before).map(|v| v.name.to_vec()).collect();
    assert_eq!(names, [&b"character_set_client"[..], b"time_zone", b"sql_mode"]);
    assert_eq!(session.variables.lacking(session.variables.version()).count(), 0);
    assert!(session.pins().is_empty());
    session.observe_change(Slot::Primary, variable(b"\x09timestamp\x0212"));
    assert!(session.pins().contains(Pin::Variable));
    session.observe_change(Slot::Primary, Change { kind: 1, data: b"\x05other" });
    assert_eq!(session.schema(), Some(&b"other"[..]));
}

#[test]
fn a_set_that_reports_nothing_keeps_reads_on_the_primary() {
    let mut silent = session();
    run(&mut silent, "SET @@sql_select_limit = 2");
    assert!(silent.pins().contains(Pin::Variable));
    let mut told = session();
    told.observe_change(Slot::Primary, variable(b"\x10sql_select_limit\x012"));
    run(&mut told, "SET @@sql_select_limit = 2");
    assert!(told.pins().is_empty());
    run(&mut told, "SET GLOBAL max_connections = 100");
    assert!(told.pins().is_empty());
}

#[test]
fn tracking_all_is_the_clients_word_only_if_it_was_reported() {
    let mut session = session();
    session.track(b"*");
    assert_eq!(session.tracked, TrackedVariables::default());
    session.track(b"sql_mode");
    assert_eq!(session.tracked, TrackedVariables::parse(b"sql_mode"));
    session.observe_change(Slot::Primary, variable(b"\x1esession_track_system_variables\x01*"));
    session.track(b"*");
    assert_eq!(session.tracked, TrackedVariables::All);
}

#[test]
fn set_names_leaves_the_collation_to_be_asked_for() {
    let mut session = session();
    session.observe_change(Slot::Primary, variable(b"\x18character_set_connection\x07utf8mb4"));
    assert_eq!(session.variables.collation_unknown(), Some(Slot::Primary));
    session.variables.set(Slot::Primary, b"collation_connection", b"utf8mb4_bin");
    assert_eq!(session.variables.collation_unknown(), None);
}

#[test]
fn statements_are_limited_and_types_have_versions() {
    let mut session = session();
    let classified = classify(b"SELECT ?", session.dialect());
    let statement = || Statement {
        sql: b"SELECT ?"[..].into(),
        classified,
        schema: None,
        state: 0,
        parameters: 1,
        types: None,
        long_data: None,
        cursor: None,
        remotes: [None; 2],
    };
    let first = session.statements.add(statement());
    let second = session.statements.add(statement());
    assert!(session.statements.is_full());
    assert_eq!(session.statements.resolve(crate::types::StatementId(u32::MAX)), second);
    let first = session.statements.get(first).unwrap();
    assert_eq!((first.bind(b"\x08\x00"), first.bind(b"\x08\x00"), first.bind(b"\xfd\x00")), (1, 1, 2));
    first.remotes[0] = Some(Remote { id: 9, epoch: 4, types: 0 });
    assert_eq!(first.remote(Slot::Primary, 5), None, "ids die with their connection");
}

#[test]
fn numbers_are_told_from_words() {
    for yes in ["0", "12", "-1", "1.500000", "18446744073709551615"] {
        assert!(numeric(yes.as_bytes()), "{yes}");
    }
    for no in ["", "-", ".5", "+03:00", "1.2.3", "1e5", "ON", "1a"] {
        assert!(!numeric(no.as_bytes()), "{no}");
    }
}

#[test]
fn a_ping_sets_back_the_row_count_of_the_next_statement_that_asks() {
    let mut session = session();
    let ask = classify(b"SELECT ROW_COUNT()", session.dialect());
    let other = classify(b"SELECT 1", session.dialect());
    session.sent(Slot::Follower, other);
    assert!(!session.is_row_count_due(ask));
    session.passed_by(session.last());
    assert_eq!(session.last(), Slot::Follower);
    assert!(session.is_row_count_due(ask) && !session.is_row_count_due(other));
    session.sent(Slot::Primary, other);
    assert!(!session.is_row_count_due(ask), "the statement's own count is there now");
}
