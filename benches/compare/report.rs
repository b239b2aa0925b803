//! Results as JSON (every sample), as a Markdown table with the distance to the bars, and as a plot.

use crate::contenders::{DIRECT, HAPROXY, PRIMARY, ROUTER, SPLIT};
use crate::plot;
use crate::sample::{CASES, Results, Sample};
use serde_json::json;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Writes results.json, RESULTS.md and compare.svg into `out`.
pub fn write(results: &Results, out: &Path) -> anyhow::Result<()> {
    fs::write(out.join("results.json"), serde_json::to_string_pretty(&json(results))?)?;
    fs::write(out.join("compare.svg"), plot::svg(results))?;
    let text = markdown(results);
    fs::write(out.join("RESULTS.md"), &text)?;
    println!("\n{text}\nwritten to {}", out.display());
    Ok(())
}

fn json(results: &Results) -> serde_json::Value {
    let sample = |s: &Sample| {
        json!({
            "round": s.round, "case": s.case, "contender": s.contender, "statements": s.statements,
            "per_second": s.per_second, "megabytes_per_second": s.megabytes_per_second, "p50_us": s.p50_us,
            "p99_us": s.p99_us, "cpu_us": s.cpu_us, "user_and_system_ticks": s.ticks, "rss_kib": s.memory.rss_kib,
            "peak_kib": s.memory.peak_kib,
        })
    };
    let idle = results.idle.iter().map(|i| {
        json!({ "contender": i.contender, "sessions": i.sessions, "before_kib": i.before_kib,
                "bytes_each": i.bytes_each })
    });
    json!({
        "machine": machine(results), "date": date(), "rounds": results.rounds,
        "seconds": results.time.as_secs_f64(),
        "versions": results.versions.iter().map(|(name, version)| json!([name, version])).collect::<Vec<_>>(),
        "idle": idle.collect::<Vec<_>>(), "samples": results.samples.iter().map(sample).collect::<Vec<_>>(),
    })
}

fn machine(results: &Results) -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = results.cores;
    format!("{} × {}, Linux {}", cores, model.trim_matches([' ', '\t', ':']), kernel.trim())
}

/// What the run was told, but for where to put its files.
fn arguments() -> String {
    let mut out = String::new();
    let mut given = std::env::args().skip(2);
    while let Some(argument) = given.next() {
        if argument == "--out" {
            given.next();
        } else {
            let _ = write!(out, " {argument}");
        }
    }
    out
}

/// Other work on the machine shows here.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn date() -> String {
    let said = std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}

fn markdown(results: &Results) -> String {
    let mut out = String::new();
    let versions: Vec<String> =
        results.versions.iter().filter(|(_, v)| !v.is_empty()).map(|(name, v)| format!("{name} {v}")).collect();
    let _ = writeln!(
        out,
        "`bash benches/compare/run.sh{}`, {} on {}: {}. {} rounds of {} ms per case, all contenders in turn; each proxy has one \
         thread on one core; load and backend share the other core{}. The backend is a cheap one written for this \
         benchmark (a real mysqld would be all that is measured); plain TCP, one statement outstanding per connection. \
         MySQL Router routes statically, without TLS; its read/write splitting needs InnoDB Cluster metadata and is not \
         compared. Load average at the end: {}.\n",
        arguments(),
        date(),
        machine(results),
        versions.join(", "),
        results.rounds,
        results.time.as_millis(),
        if results.cores > 2 { "s" } else { "" },
        load_average(),
    );
    let names: Vec<&str> = results.versions.iter().map(|(name, _)| *name).collect();
    statements(results, &names, &mut out);
    ratios(results, &names, &mut out);
    memory(results, &names, &mut out);
    bars(results, &mut out);
    out
}

/// Queries per second, latency, CPU: one table per figure, a row per case.
fn statements(results: &Results, names: &[&str], out: &mut String) {
    type Figure = (&'static str, fn(&Sample) -> f64, usize);
    let figures: [Figure; 4] = [
        ("statements/s", |s| s.per_second, 0),
        ("p50, µs", |s| s.p50_us, 0),
        ("p99, µs", |s| s.p99_us, 0),
        ("proxy CPU per statement, µs", |s| s.cpu_us, 2),
    ];
    for (title, value, digits) in figures {
        let _ = writeln!(out, "| {title} | {} |\n|---|{}", names.join(" | "), "---:|".repeat(names.len()));
        for case in CASES.iter().filter(|case| !case.name.starts_with("big")) {
            let _ = write!(out, "| {} |", case.name);
            for name in names {
                match results.median(case.name, name, value) {
                    Some(0.0) | None => out.push_str(" |"),
                    Some(value) => {
                        let _ = write!(out, " {value:.digits$} |");
                    }
                }
            }
            out.push('\n');
        }
        out.push('\n');
    }
}

fn ratios(results: &Results, names: &[&str], out: &mut String) {
    let proxies: Vec<&str> = names.iter().copied().filter(|name| *name != DIRECT && *name != HAPROXY).collect();
    let _ = writeln!(
        out,
        "| × HAProxy (median of the rounds' ratios) | {} |\n|---|{}",
        proxies.join(" | "),
        "---:|".repeat(proxies.len())
    );
    for case in CASES.iter().filter(|case| !case.name.starts_with("big")) {
        for (title, value) in
            [("CPU", (|s| s.cpu_us) as fn(&Sample) -> f64), ("statements/s", |s: &Sample| s.per_second)]
        {
            let _ = write!(out, "| {} {title} |", case.name);
            for name in &proxies {
                let ratio = results.ratio(case.name, name, HAPROXY, value);
                let _ = write!(out, " {} |", ratio.map_or(String::new(), |r| format!("{r:.2}")));
            }
            out.push('\n');
        }
    }
    out.push('\n');
}

fn memory(results: &Results, names: &[&str], out: &mut String) {
    out.push_str("| | 100 MB result, MB/s | CPU per GB, s | peak RSS, MiB | RSS, MiB | idle session, KiB |\n");
    out.push_str("|---|---:|---:|---:|---:|---:|\n");
    for name in names {
        let of = |value: fn(&Sample) -> f64| results.median("big-1", name, value).unwrap_or_default();
        let idle = results.idle.iter().find(|idle| idle.contender == *name);
        let _ = write!(out, "| {name} | {:.0} |", of(|s| s.megabytes_per_second));
        match idle {
            // Memory is only known of proxies.
            None => out.push_str(" | | | |\n"),
            Some(idle) => {
                // One statement carries 100 MB: µs per 0.1 GB.
                let (cpu, peak) = (of(|s| s.cpu_us) / 1e5, of(|s| s.memory.peak_kib as f64) / 1024.0);
                let (rss, each) = (of(|s| s.memory.rss_kib as f64) / 1024.0, idle.bytes_each / 1024.0);
                let _ = writeln!(out, " {cpu:.2} | {peak:.1} | {rss:.1} | {each:.1} |");
            }
        }
    }
    out.push('\n');
}

/// Where Holdfast stands against what it wants to reach.
fn bars(results: &Results, out: &mut String) {
    out.push_str("| bar | wanted | Holdfast (primary) | Holdfast (split) | |\n|---|---:|---:|---:|---|\n");
    let mut bar = |title: &str, limit: f64, below: bool, unit: &str, values: [Option<f64>; 2]| {
        let reached = values.iter().flatten().all(|value| if below { *value <= limit } else { *value >= limit });
        let sign = if below { "≤" } else { "≥" };
        let [a, b] = values.map(|value| value.map_or(String::new(), |value| format!("{value:.2}{unit}")));
        let word = if reached { "reached" } else { "not reached" };
        let _ = writeln!(out, "| {title} | {sign} {limit}{unit} | {a} | {b} | {word} |");
    };
    let both = |make: &dyn Fn(&str) -> Option<f64>| [make(PRIMARY), make(SPLIT)];
    for case in ["point-1", "point-16", "point-64", "point-256"] {
        let ratio = |name: &str| results.ratio(case, name, HAPROXY, |s| s.cpu_us);
        bar(&format!("CPU per query, {case}"), 1.0, true, " × HAProxy", both(&ratio));
    }
    let router = |name: &str| results.ratio("point-64", name, ROUTER, |s| s.cpu_us);
    bar("CPU per query, point-64", 0.45, true, " × Router", both(&router));
    let user = |name: &str| results.user_us("point-64", name);
    bar("CPU in user space, point-64", 1.0, true, " µs", both(&user));
    for case in ["point-1", "point-16", "point-64", "point-256"] {
        for (title, value) in [("p50", (|s| s.p50_us) as fn(&Sample) -> f64), ("p99", |s: &Sample| s.p99_us)] {
            let more = |name: &str| results.difference(case, name, HAPROXY, value);
            bar(&format!("{title} beyond HAProxy's, {case}"), 0.0, true, " µs", both(&more));
        }
    }
    let big = |name: &str| results.ratio("big-1", name, HAPROXY, |s| s.megabytes_per_second);
    bar("100 MB result", 0.95, false, " × HAProxy", both(&big));
    let idle = |name: &str| results.idle.iter().find(|i| i.contender == name).map(|i| i.bytes_each / 1024.0);
    bar("idle session", 8.0, true, " KiB", both(&idle));
}
