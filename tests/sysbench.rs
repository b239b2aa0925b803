//! sysbench through the port: three workloads, with and without prepared statements, from 1 to 256 threads. No error, reads
//! seen on the followers, never a write on one.
#![allow(clippy::unwrap_used, reason = "a test")]

mod proxy;
mod testbed;

use proxy::{Options, Proxy, ROWS, sysbench};
use std::time::Instant;
use testbed::{Group, GroupOptions, Server, ServerOptions};

const WORKLOADS: [&str; 3] = ["oltp_read_write", "oltp_read_only", "oltp_point_select"];
const THREADS: [u32; 4] = [1, 16, 64, 256];
/// Statements of these kinds that clients ran on the server as `app`; what replication applies is not among them.
fn ran(server: &Server, kinds: &[&str]) -> u64 {
    let events: Vec<_> = kinds.iter().map(|kind| format!("'statement/{kind}'")).collect();
    let sql = format!(
        "SELECT COALESCE(SUM(COUNT_STAR), 0) FROM performance_schema.events_statements_summary_by_user_by_event_name \
         WHERE USER = 'app' AND EVENT_NAME IN ({})",
        events.join(",")
    );
    server.one(&sql).parse().unwrap()
}

fn writes(server: &Server) -> u64 {
    ran(server, &["sql/insert", "sql/update", "sql/delete", "sql/create_table", "sql/create_index", "sql/commit"])
}

fn reads(server: &Server) -> u64 {
    ran(server, &["sql/select", "com/Execute"])
}

#[test]
fn sysbench_runs_without_error_and_writes_stay_on_the_primary() {
    let group =
        Group::start(GroupOptions { server: ServerOptions::mysql().max_connections(600), ..GroupOptions::default() });
    let primary = group.primary();
    let followers = group.secondaries();
    let proxy = Proxy::start(Options::group(group.members().iter().map(Server::addr)));
    sysbench(proxy.port(), WORKLOADS[0], &[], "prepare");
    for follower in &followers {
        testbed::until("the follower has the tables", std::time::Duration::from_secs(30), || {
            follower.try_sql("SELECT COUNT(*) FROM sbt.sbtest4").is_ok_and(|rows| rows[0][0] == ROWS.to_string())
        });
    }
    for workload in WORKLOADS {
        for prepared in ["disable", "auto"] {
            for threads in THREADS {
                let started = Instant::now();
                let mode = format!("--db-ps-mode={prepared}");
                let text = sysbench(
                    proxy.port(),
                    workload,
                    &[&mode, &format!("--threads={threads}"), "--time=1", "--report-interval=0"],
                    "run",
                );
                let field = |name: &str| {
                    let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
                    line.split_whitespace().find_map(|word| word.parse::<u64>().ok()).unwrap_or(0)
                };
                println!(
                    "{workload} prepared={prepared} threads={threads}: {} queries, {:?}",
                    field("queries:"),
                    started.elapsed()
                );
                assert!(!text.contains("FATAL"), "{text}");
                assert_eq!(field("reconnects:"), 0, "{text}");
                assert!(field("queries:") > 0, "{text}");
            }
        }
    }
    // Ignored errors of sysbench are the servers' own deadlocks: the proxy has made none.
    let (_, metrics) = proxy.http("/metrics").unwrap();
    let own: Vec<_> =
        metrics.lines().filter(|l| l.starts_with("holdfast_errors_total{") && !l.ends_with(" 0")).collect();
    assert!(own.is_empty(), "{own:?}");
    for follower in &followers {
        assert_eq!(writes(follower), 0, "a write on {}", follower.name());
        println!("{}: {} reads", follower.name(), reads(follower));
        assert!(reads(follower) > 1_000, "hardly any read on {}", follower.name());
    }
    assert!(writes(primary) > 1_000, "{} writes on the primary", writes(primary));
}
