//! A report as it is written, and read by a person.

use super::*;

/// A kill as it goes: one run, two classes, two servers.
pub fn example() -> Report {
    let class = |class, errors, stall: u64| ClassReport {
        class,
        clients: 4,
        ok: 1000,
        errors,
        error_kinds: (errors > 0)
            .then(|| ErrorKind {
                code: 1105,
                state: "08007".to_owned(),
                count: errors,
                text: "holdfast: outcome unknown <b>&".to_owned(),
                first_began_us: 1_990_000,
                last_began_us: 1_995_000,
                first_us: 2_005_000,
                last_us: 2_006_000,
            })
            .into_iter()
            .collect(),
        reconnects: 0,
        retried: 0,
        stale: 0,
        p50_us: 1_000,
        p99_us: 4_000,
        first_ok_us: Some(8_162_000),
        stalls: vec![Stall { client: 1, from_us: 2_010_000, to_us: 2_010_000 + stall, failed: false }],
        buckets: (0..120)
            .map(|n| Bucket {
                ok: if (20..81).contains(&n) { 0 } else { 20 },
                errors: if n == 20 { errors as u32 } else { 0 },
                waiting: if (21..81).contains(&n) { 4 } else { 0 },
            })
            .collect(),
    };
    let change = |at_us, state| Change { at_us, not_before_us: at_us, state };
    let server = |address: &str, changes: &[Change], agrees| ServerReport {
        address: address.to_owned(),
        changes: changes.to_vec(),
        agrees,
    };
    let dead = [change(1_000, ServerState::Writable), change(2_003_000, ServerState::Away)];
    let new = [
        change(1_000, ServerState::Follower),
        change(8_100_000, ServerState::Elected),
        change(8_150_000, ServerState::Writable),
    ];
    let run = Run {
        number: 1,
        length_us: 12_000_000,
        primary_before: Some("127.0.0.1:24001".to_owned()),
        primary_after: Some("127.0.0.1:24002".to_owned()),
        events: Events {
            trigger_us: Some(2_000_000),
            trigger_done_us: Some(2_002_000),
            thaw_us: None,
            elected_us: Some(8_100_000),
            writable_us: Some(8_150_000),
            not_writable_us: Some(8_145_000),
            outage_from_us: Some(2_001_000),
            direct_write_us: Some(8_150_500),
            first_write_us: Some(8_162_000),
        },
        classes: vec![class(Class::Write, 2, 6_152_000), class(Class::Read, 0, 9_000)],
        servers: vec![
            server("127.0.0.1:24001", &dead, Agreement::Away),
            server("127.0.0.1:24002", &new, Agreement::Same),
        ],
        verdict: Verdict { acknowledged: 1234, unknown_applied: 1, unknown_not_applied: 1, ..Verdict::default() },
        notes: Vec::new(),
    };
    Report {
        version: VERSION,
        label: "127.0.0.1:6446".to_owned(),
        target: "127.0.0.1:6446".to_owned(),
        trigger: "kill".to_owned(),
        started_unix_ms: 1_760_000_000_000,
        rate_per_client: 50.0,
        runs: vec![run],
    }
}

#[test]
fn a_report_is_read_back_as_it_was_written() {
    let text = serde_json::to_string(&example()).unwrap();
    let again: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
    for part in ["\"class\":\"write\"", "\"state\":\"elected\"", "\"first_write_us\":8162000", "\"lost\":0"] {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn figures_are_written_for_people() {
    for (us, text) in [
        (0, "0.00 ms"),
        (420, "0.42 ms"),
        (9_999, "9.99 ms"),
        (17_345, "17.3 ms"),
        (999_900, "999.9 ms"),
        (6_180_400, "6,180 ms"),
        (1_234_567_000, "1,234,567 ms"),
    ] {
        assert_eq!(ms(us), text);
    }
}

#[test]
fn the_first_write_is_counted_from_the_election() {
    let events = Events {
        trigger_us: Some(100),
        writable_us: Some(700),
        not_writable_us: Some(650),
        first_write_us: Some(720),
        ..Events::default()
    };
    assert_eq!(events.time_to_first_write_us(), Some(620));
    assert_eq!(events.election_us(), Some(600));
    assert_eq!(events.after_election_us(), Some((20, 70)));
    // Acknowledged before the servers were asked again.
    let sooner = Events { first_write_us: Some(690), ..events };
    assert_eq!(sooner.after_election_us(), Some((0, 40)));
    assert_eq!(Events::default().after_election_us(), None);
}

#[test]
fn spreads_leave_out_runs_without_the_figure() {
    let run = |longest: Option<u64>| Run { length_us: longest.unwrap_or(0), ..Run::default() };
    let report = |runs: &[Option<u64>]| Report {
        version: VERSION,
        label: String::new(),
        target: String::new(),
        trigger: String::new(),
        started_unix_ms: 0,
        rate_per_client: 1.0,
        runs: runs.iter().copied().map(run).collect(),
    };
    let figure = |run: &Run| Some(run.length_us).filter(|n| *n > 0);
    for (runs, spread) in [
        (&[][..], None),
        (&[None], None),
        (&[Some(3)], Some((3, 3))),
        (&[Some(9), None, Some(1), Some(5)], Some((5, 9))),
        (&[Some(9), Some(2), Some(4), Some(1)], Some((3, 9))),
    ] {
        assert_eq!(report(runs).spread(figure), spread, "{runs:?}");
    }
}
