//! The table of routes.

use super::*;
use crate::classify::{Dialect, classify};
use crate::wire::session_track::{STATUS_AUTOCOMMIT, STATUS_IN_TRANS};

fn session() -> Session {
    Session::new(None, Dialect::default(), 10)
}

fn slot(session: &Session, sql: &str) -> Slot {
    route(Mode::Split, Consistency::Eventual, session, classify(sql.as_bytes(), session.dialect())).slot
}

#[test]
fn pure_reads_go_to_a_follower_and_all_else_to_the_primary() {
    let session = session();
    for sql in [
        "SELECT 1",
        "SELECT * FROM t WHERE id = 5",
        "SHOW TABLES",
        "START TRANSACTION READ ONLY",
        "/* holdfast:follower */ SELECT my_function(1)",
        "/* holdfast:follower */ SHOW PROCESSLIST",
    ] {
        assert_eq!(slot(&session, sql), Slot::Follower, "{sql}");
    }
    for sql in [
        "INSERT INTO t VALUES (1)",
        "SELECT * FROM t FOR UPDATE",
        "SELECT my_function(1)",
        "SHOW PROCESSLIST",
        "SHOW STATUS",
        "/* holdfast:follower */ DELETE FROM t",
        "/* holdfast:follower */ SELECT * FROM t FOR UPDATE",
        "SELECT LAST_INSERT_ID()",
        "SELECT @a",
        "SELECT FOUND_ROWS()",
        "BEGIN",
        "COMMIT",
        "SET sql_mode = ''",
        "CALL p()",
        "nonsense",
        "",
        "/* holdfast:primary */ SELECT 1",
        "/* holdfast:strong */ SELECT 1",
    ] {
        assert_eq!(slot(&session, sql), Slot::Primary, "{sql}");
    }
}

#[test]
fn state_keeps_reads_on_the_primary() {
    let mut autocommit_off = session();
    autocommit_off.observe_status(Slot::Primary, 0);
    let mut temporary = session();
    temporary.pin(Pin::TemporaryTable);
    let mut one_shot = session();
    one_shot.sent(Slot::Primary, classify(b"SET TRANSACTION READ ONLY", Dialect::default()));
    for session in [&autocommit_off, &temporary, &one_shot] {
        assert_eq!(slot(session, "SELECT 1"), Slot::Primary);
    }
    let mut variable = session();
    variable.pin(Pin::UserVariable);
    assert_eq!(slot(&variable, "SELECT 1"), Slot::Follower);
    assert_eq!(slot(&variable, "START TRANSACTION READ ONLY"), Slot::Primary);
}

#[test]
fn a_transaction_keeps_everything_where_it_was_opened() {
    for home in [Slot::Primary, Slot::Follower] {
        let mut session = session();
        session.observe_status(home, STATUS_AUTOCOMMIT | STATUS_IN_TRANS);
        for sql in ["SELECT 1", "INSERT INTO t VALUES (1)", "COMMIT"] {
            let route =
                route(Mode::Split, Consistency::Eventual, &session, classify(sql.as_bytes(), session.dialect()));
            assert_eq!(route, Route { slot: home, repeatable: false, fresh: false }, "{sql}");
        }
    }
}

#[test]
fn diagnostics_ask_the_connection_that_ran_the_statement() {
    let mut session = session();
    for last in [Slot::Follower, Slot::Primary] {
        session.ran_on(last);
        for sql in ["SHOW WARNINGS", "SELECT FOUND_ROWS()", "SELECT @@warning_count"] {
            assert_eq!(slot(&session, sql), last, "{sql}");
        }
    }
}

#[test]
fn modes_override_the_split() {
    let session = session();
    let read = classify(b"SELECT 1", session.dialect());
    let write = classify(b"DELETE FROM t", session.dialect());
    assert_eq!(route(Mode::Primary, Consistency::Strong, &session, read).slot, Slot::Primary);
    assert_eq!(route(Mode::Followers, Consistency::Eventual, &session, write).slot, Slot::Follower);
    assert!(route(Mode::Followers, Consistency::Eventual, &session, read).repeatable);
    assert!(!route(Mode::Followers, Consistency::Eventual, &session, write).repeatable);
}

#[test]
fn consistency_decides_where_reads_may_go() {
    let mut session = session();
    let classified = |sql: &str| classify(sql.as_bytes(), Dialect::default());
    let go = |session: &Session, listener, sql: &str| {
        let route = route(Mode::Split, listener, session, classified(sql));
        (route.slot, route.fresh)
    };
    use Consistency::{Eventual, Session as Own, Strong};
    for (listener, sql, expected) in [
        (Eventual, "SELECT 1", (Slot::Follower, false)),
        (Own, "SELECT 1", (Slot::Follower, true)),
        (Own, "START TRANSACTION READ ONLY", (Slot::Follower, true)),
        (Own, "/* holdfast:follower */ SELECT f(1)", (Slot::Follower, false)),
        (Own, "/* holdfast:eventual */ SELECT 1", (Slot::Follower, false)),
        (Own, "INSERT INTO t VALUES (1)", (Slot::Primary, false)),
        (Strong, "SELECT 1", (Slot::Primary, false)),
        (Strong, "START TRANSACTION READ ONLY", (Slot::Primary, false)),
        (Strong, "/* holdfast:session */ SELECT 1", (Slot::Follower, true)),
        (Eventual, "/* holdfast:session */ SELECT 1", (Slot::Follower, true)),
        (Eventual, "/* holdfast:strong */ SELECT 1", (Slot::Primary, false)),
    ] {
        assert_eq!(go(&session, listener, sql), expected, "{listener:?}: {sql}");
    }
    session.ran_on(Slot::Follower);
    assert_eq!(go(&session, Strong, "SHOW WARNINGS"), (Slot::Follower, false), "where they are");
    session.observe_status(Slot::Follower, STATUS_AUTOCOMMIT | STATUS_IN_TRANS);
    assert_eq!(go(&session, Strong, "SELECT 1"), (Slot::Follower, false), "in its transaction");
}

#[test]
fn a_command_goes_where_its_statement_goes_unless_it_is_bound() {
    let mut session = session();
    session.observe_status(Slot::Primary, STATUS_AUTOCOMMIT);
    let statement = |sql: &str| classify(sql.as_bytes(), Dialect::default());
    let read = Command { statement: statement("SELECT 1"), prepares: false, only: None, repeatable: false };
    let write = Command { statement: statement("DELETE FROM t"), ..read };
    let (primary, follower) = (Slot::Primary, Slot::Follower);
    // (command, slot, repeatable, fresh)
    let table = [
        (read, follower, true, true),
        (Command { prepares: true, ..read }, follower, true, false),
        (Command { only: Some(primary), ..read }, primary, false, false),
        (Command { only: Some(follower), repeatable: true, ..write }, follower, true, false),
        (write, primary, false, false),
        (Command { repeatable: true, ..write }, primary, true, false),
    ];
    for (command, slot, repeatable, fresh) in table {
        let route = route_command(Mode::Split, Consistency::Session, &session, command);
        assert_eq!(route, Route { slot, repeatable, fresh }, "{command:?}");
    }
    session.observe_status(primary, STATUS_AUTOCOMMIT | STATUS_IN_TRANS);
    let inside = route_command(Mode::Split, Consistency::Session, &session, Command { repeatable: true, ..write });
    assert_eq!(inside, Route { slot: primary, repeatable: false, fresh: false }, "nothing is repeated alone there");
}
