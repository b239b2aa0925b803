//! What is scraped adds up and is described.

use metrics::with_local_recorder;

use super::*;
use crate::error::{ErrorKind, Side};
use crate::types::Role;

/// What a scrape shows after `work`, in a recorder of its own.
fn scraped(work: impl FnOnce()) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        describe();
        work();
    });
    render(&recorder.handle())
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
}

/// The sum of all series of a name.
fn sum(text: &str, name: &str) -> f64 {
    let of_name = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn queries_are_counted_once_in_the_counter_and_once_in_the_histogram() {
    let text = scraped(|| {
        let stats = WorkerStats::new("l-sum", "c-sum");
        for (class, _) in Class::ALL {
            for (target, _) in Target::ALL {
                (0..=class as u64).for_each(|_| stats.query(class, target, Duration::from_micros(100)));
            }
        }
        stats.flush();
        stats.query(Class::Read, Target::Follower, Duration::from_secs(100));
        stats.received(3);
        stats.sent(5);
        stats.server_error();
    });
    let labels = r#"listener="l-sum",cluster="c-sum""#;
    assert_eq!(sum(&text, "holdfast_queries_total"), 57.0);
    for (class, word) in Class::ALL {
        for (target, role) in Target::ALL {
            let labels = format!(r#"{{{labels},class="{word}",target="{role}"}}"#);
            let expected =
                f64::from(class as u8 + 1) + f64::from(u8::from((class, target) == (Class::Read, Target::Follower)));
            assert_eq!(value(&text, &format!("holdfast_queries_total{labels}")), expected, "{labels}");
            assert_eq!(value(&text, &format!("holdfast_query_duration_seconds_count{labels}")), expected, "{labels}");
        }
    }
    assert_eq!(value(&text, &format!("holdfast_client_received_bytes_total{{{labels}}}")), 3.0);
    assert_eq!(value(&text, &format!("holdfast_client_sent_bytes_total{{{labels}}}")), 5.0);
    assert_eq!(value(&text, &format!("holdfast_server_errors_total{{{labels}}}")), 1.0);
}

#[test]
fn what_is_counted_can_be_read_back() {
    let text = scraped(|| {
        let stats = WorkerStats::new("l-back", "c-back");
        stats.query(Class::Write, Target::Primary, Duration::ZERO);
        drop(stats);
        let stats = BackendStats::new("c-back", "db-0:3306");
        (0..3).for_each(|_| stats.query());
        drop(stats);
        login("l-back", "c-back", LoginResult::Refused);
    });
    let read = |counts: Vec<(Labels, u64)>, word: &str| {
        let of = |(labels, _): &&(Labels, u64)| labels.iter().any(|(_, value)| value == word);
        counts.iter().filter(of).map(|(_, count)| count).sum::<u64>()
    };
    assert_eq!((read(queries(), "c-back"), read(backend_queries(), "c-back"), read(logins(), "l-back")), (1, 3, 1));
    assert_eq!(value(&text, r#"holdfast_backend_queries_total{cluster="c-back",backend="db-0:3306"}"#), 3.0);
}

#[test]
fn holds_that_began_are_those_that_ended_and_those_that_go_on() {
    let text = scraped(|| {
        hold("c-hold").release();
        hold("c-hold").release();
        hold("c-hold").time_out();
        drop(hold("c-hold"));
        std::mem::forget(hold("c-hold"));
    });
    assert_eq!(value(&text, r#"holdfast_holds_total{cluster="c-hold"}"#), 5.0);
    assert_eq!(value(&text, r#"holdfast_hold_ends_total{cluster="c-hold",end="released"}"#), 2.0);
    assert_eq!(value(&text, r#"holdfast_hold_ends_total{cluster="c-hold",end="timed_out"}"#), 1.0);
    assert_eq!(value(&text, r#"holdfast_hold_ends_total{cluster="c-hold",end="abandoned"}"#), 1.0);
    assert_eq!(value(&text, r#"holdfast_holding{cluster="c-hold"}"#), 1.0);
    let holds = sum(&text, "holdfast_holds_total");
    assert_eq!(holds, sum(&text, "holdfast_hold_ends_total") + sum(&text, "holdfast_holding"));
    assert_eq!(value(&text, r#"holdfast_hold_duration_seconds_count{cluster="c-hold"}"#), 4.0);
}

#[test]
fn a_guard_counts_as_long_as_it_lives() {
    let text = scraped(|| {
        let kept = [session("l"), backend_connection("c", "db:3306"), pin("l", "c", "temporary_table")];
        drop([session("l"), backend_connection("c", "db:3306"), pin("l", "c", "temporary_table")]);
        std::mem::forget(kept);
    });
    assert_eq!(value(&text, r#"holdfast_client_sessions{listener="l"}"#), 1.0);
    assert_eq!(value(&text, r#"holdfast_client_connections_total{listener="l"}"#), 2.0);
    assert_eq!(value(&text, r#"holdfast_backend_connections{cluster="c",backend="db:3306"}"#), 1.0);
    assert_eq!(value(&text, r#"holdfast_pinned_sessions{listener="l",cluster="c",reason="temporary_table"}"#), 1.0);
}

#[test]
fn watches_of_one_preset_add_up() {
    let series = r#"holdfast_kubernetes_watch_pods{preset="moco"}"#;
    // Each counts as long as it lives: longer than the scrape.
    let mut kept = Vec::new();
    let text = scraped(|| {
        kept = vec![watched_pods("moco"), watched_pods("moco")];
        kept[0].set(3);
        kept[1].set(40);
        kept[0].set(2);
    });
    assert_eq!(value(&text, series), 42.0);
    let text = scraped(|| {
        kept = vec![watched_pods("moco"), watched_pods("moco")];
        kept[0].set(3);
        kept[1].set(40);
        kept.truncate(1);
    });
    assert_eq!(value(&text, series), 3.0);
}

/// Everything that can be counted is described, and everything that is described can be counted.
#[test]
fn every_metric_is_described_and_used() {
    let text = scraped(|| {
        let stats = WorkerStats::new("l-all", "c-all");
        stats.query(Class::Read, Target::Primary, Duration::ZERO);
        stats.received(1);
        stats.sent(1);
        stats.server_error();
        stats.fresh(Freshness::Known);
        let backend = BackendStats::new("c", "b");
        backend.query();
        backend.received(1);
        backend.sent(1);
        drop((session("l"), backend_connection("c", "b"), pin("l", "c", "handler"), hold("c")));
        login("l", "c", LoginResult::Ok);
        drop(cluster_session("l", "c"));
        clusters(2, 3);
        refused("l", "max_connections");
        error(ErrorKind::NoBackend, Side::Backend);
        rerun("c", "read_only");
        verdict("c", "committed");
        shared_borrow("c", "used");
        drop(shared_waiting("c"));
        replay("c", "same");
        read_fallback("c");
        backend_connect("c", "b", true);
        backend_role("c", "b", Some(Role::Primary));
        backend_lag("c", "b", None);
        term("c", 3, true);
        conflict("c", "two_writable");
        watch_up("moco", "shop", true);
        watch_event("moco", "shop", "apply");
        watch_error("moco", "shop", "unreachable");
        watched_pods("moco").set(3);
        has_primary("c", Some(true));
        certificate_end("listener", "l", Some(std::time::SystemTime::now()));
        config_current(true);
        reload(true);
        drop(witness("c"));
        standby("c");
        nudge("c", "heard");
        reconciler::leads(true);
        reconciler::nudged("heard");
        reconciler::nudged_look("c");
        reconciler::primary_changed("c", Duration::from_millis(143));
        reconciler::cluster_ready("c", true);
        reconciler::member("c", "c-mysql-0", (0, 3));
        gauge!(BUILD, "version" => "0").set(1);
    });
    for (name, _, help) in ALL {
        let is_counted = |line: &str| {
            line.starts_with(&format!("{name}{{"))
                || line.starts_with(&format!("{name} "))
                || line.starts_with(&format!("{name}_count{{"))
        };
        assert!(text.lines().any(is_counted), "{name} is never counted");
        assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name} is not described");
    }
    for line in text.lines().filter(|line| line.starts_with("# TYPE holdfast_")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(ALL.iter().any(|(known, ..)| *known == name), "{name} is not in the list");
    }
}
