//! \[pure\] A report as one HTML file: no script, nothing from elsewhere, light and dark, from a phone's width up.
//!
//! Whatever servers and users say is escaped; should that ever fail, the policy in the head lets nothing run or load.

use super::chart;
use super::report::{Agreement, ClassReport, Report, Run, ServerReport, ms, thousands};
use super::table;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

/// The page.
pub fn html(report: &Report, others: &[Report]) -> String {
    let title = format!("{}: {}", escaped(&report.label), escaped(&report.trigger));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Failover through {title}</title><style>{STYLE}</style></head><body>\n\
         <header><h1>Failover through {title}</h1><p>{}</p></header>\n<main>\n",
        subtitle(report)
    );
    page += &figures(report);
    if report.runs.len() > 1 || !others.is_empty() {
        page += "<section><h2>All runs: median, worst</h2>";
        let rows: Vec<Vec<String>> = [report].into_iter().chain(others).map(summary_row).collect();
        page += &grid(&table::SUMMARY.map(|(head, _)| head), &rows);
        page += "</section>\n";
    }
    report.runs.iter().for_each(|run| page += &section(run));
    page += "</main>\n<footer><p>Made by <code>holdfast bench failover</code>. Stall: from a statement (the first, if several \
             failed) to the answer with which its client went on. Lost: acknowledged and not there in the end. Twice: run more \
             than once, applied though refused, or a transaction applied by half.</p></footer></body></html>\n";
    page
}

/// Text as it may stand in HTML, also in attributes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            other => safe.push(other),
        }
    }
    safe
}

fn summary_row(report: &Report) -> Vec<String> {
    table::SUMMARY.iter().map(|(_, cell)| escaped(&cell(report))).collect()
}

fn subtitle(report: &Report) -> String {
    let clients: Vec<String> = report.runs.first().map_or(Vec::new(), |run| {
        run.classes.iter().map(|class| format!("{} {}", class.clients, class.class.name())).collect()
    });
    format!(
        "{} UTC · {} · clients: {} · up to {} a second each · {}",
        date(report.started_unix_ms),
        escaped(&report.target),
        clients.join(", "),
        report.rate_per_client,
        if report.runs.len() == 1 { "1 run".to_owned() } else { format!("{} runs", report.runs.len()) }
    )
}

/// The figures that a person asks for first.
fn figures(report: &Report) -> String {
    let worst =
        |figure: &dyn Fn(&Run) -> Option<u64>| report.spread(figure).map_or("–".to_owned(), |(_, worst)| ms(worst));
    let bad = |n: u64| if n > 0 { "bad" } else { "good" };
    let errors = report.total(|run| run.errors(|_| true));
    let lost = report.total(|run| run.verdict.lost);
    let twice = report.total(|run| run.verdict.duplicated + run.verdict.contradicted + run.verdict.torn);
    let stale = report.total(Run::stale);
    let of = if report.runs.len() > 1 { " (worst run)" } else { "" };
    let all = [
        ("lost writes", thousands(lost), bad(lost)),
        ("applied twice", thousands(twice), bad(twice)),
        ("errors", thousands(errors), if errors > 0 { "some" } else { "good" }),
        ("stale reads", thousands(stale), if stale > 0 { "some" } else { "good" }),
        ("longest stall", worst(&|run| Some(run.longest_us())), ""),
        ("servers without writable primary", worst(&|run| run.events.election_us()), ""),
        ("first write after that, at most", worst(&|run| run.events.after_election_us().map(|(_, most)| most)), ""),
    ];
    let mut out = "<section class=\"figures\">".to_owned();
    for (name, value, style) in all {
        let _ = write!(
            out,
            "<p class=\"{style}\"><b>{value}</b> <span>{name}{}</span></p>",
            if style.is_empty() { of } else { "" }
        );
    }
    out + "</section>\n"
}

fn section(run: &Run) -> String {
    let mut out = format!(
        "<section class=\"run\"><h2>Run {}</h2><p>{}.</p><p>{}.</p>",
        run.number,
        escaped(&table::events(run)),
        escaped(&table::writes(run))
    );
    out += &timeline(run);
    let heads = [
        "class",
        "clients",
        "ok",
        "errors",
        "reconnects",
        "retried",
        "stale",
        "p50",
        "p99",
        "longest stall",
        "first write",
    ];
    let rows: Vec<Vec<String>> = run.classes.iter().map(|class| row(run, class)).collect();
    out += &grid(&heads, &rows);
    out += &errors(run);
    if !run.notes.is_empty() {
        out += "<ul class=\"notes\">";
        for note in &run.notes {
            let _ = write!(out, "<li>{}</li>", escaped(note));
        }
        out += "</ul>";
    }
    out + "</section>\n"
}

fn timeline(run: &Run) -> String {
    let mut out = "<figure class=\"timeline\">".to_owned();
    for class in &run.classes {
        let (name, clients, peak) = (class.class.name(), class.clients, thousands(chart::peak(class)));
        let _ = write!(
            out,
            "<h3>{name} <small>{clients} clients, full height {peak} a second; longest stall {}</small></h3>{}",
            ms(class.longest_us()),
            chart::lane(run, class)
        );
    }
    for server in &run.servers {
        let _ = write!(out, "<h3>server {} <small>{}</small></h3>", escaped(&server.address), agreement(server));
        out += &chart::strip(run, server);
    }
    out += "<div class=\"axis\" aria-hidden=\"true\">";
    // The last one would stick out.
    for (left, seconds) in chart::ticks(run).into_iter().filter(|(left, _)| *left < 97.0) {
        let _ = write!(out, "<span style=\"left:{left:.2}%\">{seconds} s</span>");
    }
    out += "</div><figcaption><ul class=\"legend\">";
    for (style, name, at) in chart::moments(&run.events) {
        let since = match run.events.trigger_us {
            Some(trigger) if at > trigger => format!(" {} after the trigger", ms(at - trigger)),
            _ => String::new(),
        };
        let _ = write!(out, "<li><i class=\"line {style}\"></i>{name}{since}</li>");
    }
    for (style, name) in [
        ("ok", "answers of OK"),
        ("waiting", "clients waiting, of all"),
        ("stall", "longest stalls"),
        ("error", "errors"),
        ("follower", "server: follower"),
        ("elected", "elected, not yet writable"),
        ("writable", "writable"),
        ("away", "away"),
    ] {
        let _ = write!(out, "<li><i class=\"{style}\"></i>{name}</li>");
    }
    let zero = if run.events.trigger_us.is_some() { "the trigger" } else { "the start" };
    let _ = write!(out, "</ul><p>Seconds since {zero}.</p></figcaption></figure>");
    out
}

fn agreement(server: &ServerReport) -> &'static str {
    match server.agrees {
        Agreement::Same => "same rows as the primary in the end",
        Agreement::Differs => "other rows than the primary in the end",
        Agreement::Away => "did not answer in the end",
    }
}

fn row(run: &Run, class: &ClassReport) -> Vec<String> {
    let first = class.first_ok_us.and_then(|at| Some(ms(at.saturating_sub(run.events.trigger_us?))));
    let mut cells = table::cells(class);
    cells.push(first.unwrap_or_else(|| "–".to_owned()));
    cells
}

fn errors(run: &Run) -> String {
    let mut rows = Vec::new();
    for class in &run.classes {
        for kind in &class.error_kinds {
            let code = if kind.code == 0 { "connection".to_owned() } else { format!("{} ({})", kind.code, kind.state) };
            let seconds = |us: u64| format!("{:.3} s", (us as f64 - run.events.trigger_us.unwrap_or(0) as f64) / 1e6);
            rows.push(vec![
                class.class.name().to_owned(),
                thousands(kind.count),
                escaped(&code),
                escaped(&kind.text),
                format!("{} to {}", seconds(kind.first_us), seconds(kind.last_us)),
            ]);
        }
    }
    if rows.is_empty() {
        return "<p>No client saw an error.</p>".to_owned();
    }
    format!("<h3>Errors</h3>{}", grid(&["class", "count", "error", "text of the first", "when"], &rows))
}

/// A table of cells that are HTML already; on narrow screens each cell names its column.
fn grid(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = "<table><thead><tr>".to_owned();
    for head in heads {
        let _ = write!(out, "<th>{head}</th>");
    }
    out += "</tr></thead><tbody>";
    for row in rows {
        out += "<tr>";
        for (head, cell) in heads.iter().zip(row) {
            let _ = write!(out, "<td data-label=\"{head}\">{cell}</td>");
        }
        out += "</tr>";
    }
    out + "</tbody></table>"
}

/// `2026-11-21 18:32` from milliseconds since 1970 (days to a date as in Howard Hinnant's `civil_from_days`).
fn date(unix_ms: u64) -> String {
    let minutes = unix_ms / 60_000;
    let days = minutes / 1440 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::example;

    #[test]
    fn the_page_is_whole_and_asks_nobody() {
        let mut report = example();
        report.label = "<script>alert(1)</script>".to_owned();
        let page = html(&report, &[example()]);
        for part in [
            "<svg class=\"lane\"",
            "<svg class=\"strip\"",
            "class=\"moment trigger\"",
            "prefers-color-scheme: dark",
            "&lt;script&gt;",
            "holdfast: outcome unknown &lt;b&gt;&amp;",
            "first write 6,162 ms after the trigger",
            "full height 200 a second",
            "<td data-label=\"port\">127.0.0.1:6446</td>",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for foreign in ["http://", "https://", "<script", "url(", "@import", "<img", "<link"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for tag in ["svg", "table", "section", "figure", "ul", "div", "h3", "title", "path"] {
            let closed = page.matches(&format!("</{tag}>")).count();
            let opened = [">", " "].iter().map(|end| page.matches(&format!("<{tag}{end}")).count()).sum::<usize>();
            let empty = if tag == "path" { page.matches("Z\"/>").count() } else { 0 };
            assert_eq!(opened, closed + empty, "{tag}");
        }
    }

    #[test]
    fn dates_are_right() {
        for (ms, text) in [
            (0, "1970-01-01 00:00"),
            (951_827_640_000, "2000-02-29 12:34"),
            (1_735_689_599_999, "2024-12-31 23:59"),
            (1_760_000_000_000, "2025-10-09 08:53"),
        ] {
            assert_eq!(date(ms), text);
        }
    }
}
