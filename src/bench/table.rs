//! \[pure\] A report as text for a terminal.

use super::report::{Agreement, ClassReport, Report, Run, ms, thousands};
use std::fmt::Write;

/// One run: what happened when, a line per class, the errors, the writes.
pub fn run(report: &Report, run: &Run) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "run {}: {} of {} through {}", run.number, report.trigger, primary(run), report.target);
    let _ = writeln!(out, "  {}", events(run));
    let heads = ["class", "clients", "ok", "errors", "reconnects", "retried", "stale", "p50", "p99", "longest stall"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(run.classes.iter().map(cells));
    out += &aligned(&rows);
    for class in &run.classes {
        for kind in &class.error_kinds {
            let name = class.class.name();
            let times = thousands(kind.count);
            let _ = match kind.code {
                0 => writeln!(out, "  {name}: {times} × {}", kind.text),
                code => writeln!(out, "  {name}: {times} × {code} ({}): {}", kind.state, kind.text),
            };
        }
    }
    let _ = writeln!(out, "  {}", writes(run));
    for server in run.servers.iter().filter(|server| server.agrees != Agreement::Same) {
        let word = if server.agrees == Agreement::Away { "does not answer" } else { "has other rows" };
        let _ = writeln!(out, "  {} {word} in the end", server.address);
    }
    for note in &run.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    out
}

/// All runs, and other reports beside.
pub fn summary(report: &Report, others: &[Report]) -> String {
    if report.runs.len() < 2 && others.is_empty() {
        return String::new();
    }
    let heads = SUMMARY.map(|(head, _)| head.to_owned());
    let mut rows = vec![heads.to_vec()];
    rows.extend([report].into_iter().chain(others).map(summary_row));
    format!("all runs (median, worst)\n{}", aligned(&rows))
}

/// A column of a summary: its head, and how to get at what stands below.
pub type Column = (&'static str, fn(&Report) -> String);

/// A report in one line.
pub const SUMMARY: [Column; 12] = [
    ("port", |r| r.label.clone()),
    ("trigger", |r| r.trigger.clone()),
    ("runs", |r| r.runs.len().to_string()),
    ("trigger to writable", |r| spread(r, |run| run.events.election_us())),
    ("writable to first write", |r| spread(r, |run| run.events.after_election_us().map(|(_, most)| most))),
    ("trigger to first write", |r| spread(r, |run| run.events.time_to_first_write_us())),
    ("behind the servers' own", |r| spread(r, |run| run.events.behind_direct_us())),
    ("longest stall", |r| spread(r, |run| Some(run.longest_us()))),
    ("errors", |r| thousands(r.total(|run| run.errors(|_| true)))),
    ("stale", |r| thousands(r.total(Run::stale))),
    ("lost", |r| thousands(r.total(|run| run.verdict.lost))),
    ("twice", |r| thousands(r.total(|run| run.verdict.duplicated + run.verdict.contradicted + run.verdict.torn))),
];

fn summary_row(report: &Report) -> Vec<String> {
    SUMMARY.iter().map(|(_, cell)| cell(report)).collect()
}

fn spread(report: &Report, figure: impl Fn(&Run) -> Option<u64>) -> String {
    match report.spread(figure) {
        Some((median, worst)) if report.runs.len() > 1 => format!("{}, {}", ms(median), ms(worst)),
        Some((only, _)) => ms(only),
        None => "–".to_owned(),
    }
}

fn primary(run: &Run) -> &str {
    run.primary_before.as_deref().unwrap_or("an unknown primary")
}

/// What happened when, in one sentence.
pub fn events(run: &Run) -> String {
    let e = &run.events;
    let Some(trigger) = e.trigger_us else { return format!("no trigger; {} in all", ms(run.length_us)) };
    let since = |at: u64| ms(at.saturating_sub(trigger));
    let mut parts = vec![format!("trigger at {}", ms(trigger))];
    if let Some(at) = e.elected_us {
        parts.push(format!("primary elected {} later", since(at)));
    }
    if let (Some(at), Some(name)) = (e.writable_us, &run.primary_after) {
        parts.push(format!("{name} writable after {}", since(at)));
    }
    if let Some(at) = e.direct_write_us {
        parts.push(format!("first write at the servers themselves after {}", since(at)));
    }
    match (e.first_write_us, e.after_election_us()) {
        (Some(at), Some((least, most))) => {
            parts.push(format!("first write after {} ({} to {} after writable)", since(at), ms(least), ms(most)));
        }
        (Some(at), None) => parts.push(format!("first write after {}", since(at))),
        (None, _) => parts.push("no write was acknowledged after that".to_owned()),
    }
    parts.join("; ")
}

/// What became of the writes, in one sentence.
pub fn writes(run: &Run) -> String {
    let v = &run.verdict;
    let n = thousands;
    let mut text =
        format!("writes: {} acknowledged, {} lost, {} applied twice", n(v.acknowledged), n(v.lost), n(v.duplicated));
    if v.contradicted > 0 {
        let _ = write!(text, ", {} applied though refused", n(v.contradicted));
    }
    if v.torn > 0 {
        let _ = write!(text, ", {} transactions applied by half", n(v.torn));
    }
    let unknown = v.unknown_applied + v.unknown_not_applied;
    let _ = write!(text, ", {} of unknown outcome", n(unknown));
    if unknown > 0 {
        let _ = write!(text, " ({} applied, {} not)", n(v.unknown_applied), n(v.unknown_not_applied));
    }
    if !v.lost_rows.is_empty() {
        let some: Vec<String> = v.lost_rows.iter().map(|(client, number)| format!("{client}/{number}")).collect();
        let _ = write!(text, "; lost rows (client/seq): {}", some.join(" "));
    }
    text
}

/// One class's figures, in the order of the table's columns.
pub(super) fn cells(class: &ClassReport) -> Vec<String> {
    vec![
        class.class.name().to_owned(),
        class.clients.to_string(),
        thousands(class.ok),
        thousands(class.errors),
        thousands(class.reconnects),
        thousands(class.retried),
        thousands(class.stale),
        ms(class.p50_us),
        ms(class.p99_us),
        ms(class.longest_us()),
    ]
}

/// Columns: the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for row in rows {
        let _ = write!(out, "  {:<1$}", row[0], width(0));
        for (column, cell) in row.iter().enumerate().skip(1) {
            let _ = write!(out, "  {:>1$}", cell, width(column));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::example;

    #[test]
    fn a_run_says_what_a_person_asks_first() {
        let report = example();
        let text = run(&report, &report.runs[0]);
        for part in [
            "run 1: kill of 127.0.0.1:24001 through 127.0.0.1:6446",
            "trigger at 2,000 ms; primary elected 6,100 ms later; 127.0.0.1:24002 writable after 6,150 ms; \
             first write at the servers themselves after 6,151 ms; first write after 6,162 ms (12.0 ms to 17.0 ms after writable)",
            "write: 2 × 1105 (08007): holdfast: outcome unknown",
            "writes: 1,234 acknowledged, 0 lost, 0 applied twice, 2 of unknown outcome (1 applied, 1 not)",
            "127.0.0.1:24001 does not answer in the end",
        ] {
            assert!(text.contains(part), "{part}\n---\n{text}");
        }
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("ms") && !line.contains(';')).collect();
        assert_eq!(lines.len(), report.runs[0].classes.len(), "{text}");
    }

    #[test]
    fn several_runs_and_reports_are_summed_up() {
        let mut report = example();
        assert_eq!(summary(&report, &[]), "");
        report.runs.push(report.runs[0].clone());
        let other = crate::bench::report::Report { label: "another".to_owned(), ..example() };
        let text = summary(&report, &[other]);
        assert!(text.contains("6,162 ms, 6,162 ms") && text.contains("another"), "{text}");
        assert_eq!(text.lines().count(), 4);
    }
}
