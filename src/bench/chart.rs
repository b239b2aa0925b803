//! \[pure\] The timeline of a run as SVG: a lane for each class of clients, a strip for each server.
//!
//! Lanes stretch to the width of the page, so they hold no text: whatever is to be read stands beside them as HTML, which
//! stays readable on a phone. Marks say more when pointed at (`<title>`).

use super::report::{BUCKET_US, Bucket, ClassReport, Events, Run, ServerReport, ms};
use std::fmt::Write;

/// Units of a lane's width and height.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 100.0;
/// Columns drawn at most; longer runs have several buckets to a column.
const COLUMNS_MAX: usize = 600;
/// Stalls drawn in a lane.
const STALLS_MAX: usize = 5;
/// Labels on the axis, about.
const TICKS: u64 = 7;

/// The moments that all lanes mark: class in the style sheet, name, time.
pub fn moments(events: &Events) -> Vec<(&'static str, &'static str, u64)> {
    let all = [
        ("trigger", "trigger", events.trigger_us),
        ("thaw", "continued", events.thaw_us),
        ("elected", "primary elected", events.elected_us),
        ("writable", "new primary writable", events.writable_us),
        ("direct", "first write at the servers themselves", events.direct_write_us),
        ("first", "first write", events.first_write_us),
    ];
    all.into_iter().filter_map(|(style, name, at)| Some((style, name, at?))).collect()
}

/// A class of clients: rate of OK as an area, clients waiting as another, stalls as bars, errors as marks.
pub fn lane(run: &Run, class: &ClassReport) -> String {
    let columns = columns(&class.buckets);
    let seconds = columns.width_us as f64 / 1e6;
    let peak = columns.all.iter().map(|column| column.ok).max().unwrap_or(0).max(1);
    let mut svg = open("lane", &format!("{}: answers a second, errors and stalls over time", class.class.name()));
    let waiting = |column: &Bucket| f64::from(column.waiting) / f64::from(class.clients.max(1));
    area(&mut svg, run, &columns, ("waiting", &waiting));
    area(&mut svg, run, &columns, ("ok", &|column| f64::from(column.ok) / f64::from(peak)));
    for (at, stall) in class.stalls.iter().take(STALLS_MAX).enumerate() {
        let (from, to, y) = (x(run, stall.from_us), x(run, stall.to_us), 4.0 + 6.0 * at as f64);
        let (length, client) = (ms(stall.to_us - stall.from_us), stall.client);
        let failed = if stall.failed { ", with errors" } else { "" };
        let _ = write!(
            svg,
            "<path class=\"stall\" d=\"M{from:.1} {y}H{to:.1}\"><title>client {client} waited {length}{failed}</title></path>"
        );
    }
    for (at, column) in columns.all.iter().enumerate().filter(|(_, column)| column.errors > 0) {
        let middle = x(run, columns.begin(at) + columns.width_us / 2);
        let from = columns.begin(at) as f64 / 1e6;
        let _ = write!(
            svg,
            "<path class=\"error\" d=\"M{middle:.1} {HEIGHT}V70\"><title>{} errors from {from:.1} to {:.1} s of the run</title></path>",
            column.errors,
            from + seconds
        );
    }
    lines(&mut svg, run);
    svg + "</svg>"
}

/// The highest rate of OK that [`lane`] shows, per second.
pub fn peak(class: &ClassReport) -> u64 {
    let columns = columns(&class.buckets);
    let most = columns.all.iter().map(|column| u64::from(column.ok)).max().unwrap_or(0);
    most * 1_000_000 / columns.width_us
}

/// A server: what it said it was, as coloured stretches.
pub fn strip(run: &Run, server: &ServerReport) -> String {
    let mut svg = open("strip", &format!("{}: its state over time", super::page::escaped(&server.address)));
    for (at, change) in server.changes.iter().enumerate() {
        let end = server.changes.get(at + 1).map_or(run.length_us, |next| next.at_us);
        let (from, to) = (x(run, change.at_us), x(run, end));
        let state = change.state;
        let since = change.at_us as f64 / 1e6;
        let _ = write!(
            svg,
            "<rect class=\"{state}\" x=\"{from:.1}\" y=\"0\" width=\"{:.1}\" height=\"{HEIGHT}\">\
             <title>{state} from {since:.3} s of the run</title></rect>",
            (to - from).max(0.0)
        );
    }
    lines(&mut svg, run);
    svg + "</svg>"
}

/// Labels of the time axis: where, in percent of the width, and seconds since the trigger.
pub fn ticks(run: &Run) -> Vec<(f64, i64)> {
    let zero = run.events.trigger_us.unwrap_or(0);
    let length = run.length_us.max(1);
    let steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600];
    let step = steps.into_iter().find(|step| step * 1_000_000 * TICKS >= length).unwrap_or(1200);
    let first = -(i64::try_from(zero / 1_000_000 / step).unwrap_or(0));
    let position = |n: i64| zero as i64 + n * step as i64 * 1_000_000;
    (first..)
        .take_while(|n| position(*n) <= length as i64)
        .map(|n| (position(n) as f64 / length as f64 * 100.0, n * step as i64))
        .collect()
}

/// Buckets, several to a column where there are many.
struct Columns {
    all: Vec<Bucket>,
    width_us: u64,
}

impl Columns {
    fn begin(&self, column: usize) -> u64 {
        column as u64 * self.width_us
    }
}

fn columns(buckets: &[Bucket]) -> Columns {
    let per_column = buckets.len().div_ceil(COLUMNS_MAX).max(1);
    let merge = |part: &[Bucket]| Bucket {
        ok: part.iter().map(|bucket| bucket.ok).sum(),
        errors: part.iter().map(|bucket| bucket.errors).sum(),
        waiting: part.iter().map(|bucket| bucket.waiting).max().unwrap_or(0),
    };
    Columns { all: buckets.chunks(per_column).map(merge).collect(), width_us: BUCKET_US * per_column as u64 }
}

fn x(run: &Run, us: u64) -> f64 {
    us.min(run.length_us) as f64 / run.length_us.max(1) as f64 * WIDTH
}

fn open(style: &str, label: &str) -> String {
    format!(
        "<svg class=\"{style}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{label}\">"
    )
}

/// Steps over a column each, `share` (0 to 1) of the height.
fn area(svg: &mut String, run: &Run, columns: &Columns, (style, share): (&str, &dyn Fn(&Bucket) -> f64)) {
    let _ = write!(svg, "<path class=\"{style}\" d=\"M0 {HEIGHT}");
    for (at, column) in columns.all.iter().enumerate() {
        // Under the bars of the stalls.
        let y = HEIGHT - share(column).min(1.0) * (HEIGHT - 4.0);
        let _ = write!(svg, "V{y:.1}H{:.1}", x(run, columns.begin(at + 1)));
    }
    let _ = write!(svg, "V{HEIGHT}Z\"/>");
}

fn lines(svg: &mut String, run: &Run) {
    for (style, name, at) in moments(&run.events) {
        let at = x(run, at);
        let _ = write!(svg, "<path class=\"moment {style}\" d=\"M{at:.1} 0V{HEIGHT}\"><title>{name}</title></path>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::example;

    #[test]
    fn the_axis_counts_from_the_trigger() {
        let mut run = example().runs.remove(0);
        let labels = |run: &Run| ticks(run).into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(labels(&run), [-2, 0, 2, 4, 6, 8, 10]);
        assert!((ticks(&run)[1].0 - 100.0 / 6.0).abs() < 1e-9);
        run.events.trigger_us = None;
        assert_eq!(labels(&run), [0, 2, 4, 6, 8, 10, 12]);
        run.length_us = 3_600_000_000;
        assert_eq!(labels(&run).len(), 7);
        run.length_us = 0;
        assert_eq!(labels(&run), [0]);
    }

    #[test]
    fn a_lane_shows_what_its_class_saw() {
        let run = example().runs.remove(0);
        let svg = lane(&run, &run.classes[0]);
        for part in [
            "<path class=\"ok\" d=\"M0 100V4.0H8.3",
            "class=\"stall\" d=\"M167.5 4H680.2\"><title>client 1 waited 6,152 ms</title>",
            "<title>2 errors from 2.0 to 2.1 s of the run</title>",
            "class=\"moment trigger\" d=\"M166.7 0V100\"",
            "class=\"moment writable\" d=\"M679.2 0V100\"",
        ] {
            assert!(svg.contains(part), "{part}\n{svg}");
        }
        assert_eq!(peak(&run.classes[0]), 200);
        assert!(!lane(&run, &run.classes[1]).contains("class=\"error\""));
        let strip = strip(&run, &run.servers[1]);
        assert!(strip.contains("<rect class=\"elected\" x=\"675.0\" y=\"0\" width=\"4.2\""), "{strip}");
    }

    #[test]
    fn long_runs_are_drawn_with_few_columns() {
        let buckets = vec![Bucket { ok: 1, errors: 0, waiting: 2 }; 36_000];
        let columns = columns(&buckets);
        assert_eq!((columns.all.len(), columns.width_us), (600, 6_000_000));
        assert_eq!(columns.all[599], Bucket { ok: 60, errors: 0, waiting: 2 });
    }
}
