//! A plot of the results as SVG that needs nothing else: bars by case, a panel per figure.

use crate::contenders::{DIRECT, HAPROXY, PRIMARY, ROUTER};
use crate::sample::{CASES, Results, Sample};
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const PANEL: f64 = 230.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 56.0;

/// The whole picture.
pub fn svg(results: &Results) -> String {
    let names: Vec<&str> = results.versions.iter().map(|(name, _)| *name).collect();
    let proxies: Vec<&str> = names.iter().copied().filter(|name| *name != DIRECT).collect();
    let height = TOP + 3.0 * PANEL + 10.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (i, name) in names.iter().enumerate() {
        let x = LEFT + i as f64 * 175.0;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"24\">{name}</text>",
            color(name),
            x + 17.0
        );
    }
    let cpu: fn(&Sample) -> f64 = |s| s.cpu_us;
    panel(&mut out, results, 0, "proxy CPU per statement, µs (less is better)", &proxies, cpu);
    panel(&mut out, results, 1, "statements per second (more is better)", &names, |s| s.per_second);
    panel(&mut out, results, 2, "99th percentile, µs (less is better)", &names, |s| s.p99_us);
    out.push_str("</svg>\n");
    out
}

fn color(name: &str) -> &'static str {
    match name {
        DIRECT => "#9aa0a6",
        HAPROXY => "#4c78a8",
        ROUTER => "#e0a030",
        PRIMARY => "#2e8b57",
        _ => "#8fd3a8",
    }
}

fn panel(out: &mut String, results: &Results, row: usize, title: &str, names: &[&str], value: fn(&Sample) -> f64) {
    let cases: Vec<&str> = CASES.iter().map(|case| case.name).filter(|name| !name.starts_with("big")).collect();
    let of = |case: &str, name: &str| results.median(case, name, value).unwrap_or_default();
    let most = cases.iter().flat_map(|case| names.iter().map(move |name| of(case, name))).fold(0.0, f64::max);
    let top = round_up(most);
    let (y0, height) = (TOP + row as f64 * PANEL + 20.0, PANEL - 60.0);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>", y0 - 8.0);
    for step in 0..=4 {
        let (y, tick) = (y0 + height * (1.0 - f64::from(step) / 4.0), top * f64::from(step) / 4.0);
        let label = if top < 10.0 { format!("{tick:.1}") } else { format!("{tick:.0}") };
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
            WIDTH - 10.0,
            LEFT - 6.0,
            y + 4.0
        );
    }
    let group = (WIDTH - LEFT - 10.0) / cases.len() as f64;
    let bar = group * 0.8 / names.len() as f64;
    for (i, case) in cases.iter().enumerate() {
        let x0 = LEFT + i as f64 * group + group * 0.1;
        for (k, name) in names.iter().enumerate() {
            let tall = height * of(case, name) / top;
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{}\"><title>{name}, {case}: \
                 {:.2}</title></rect>",
                x0 + k as f64 * bar,
                y0 + height - tall,
                bar - 1.5,
                color(name),
                of(case, name)
            );
        }
        let (x, y) = (x0 + group * 0.4, y0 + height + 16.0);
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{case}</text>");
    }
}

/// The next round number: 1, 2, 4, 5 or 10 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|round| *round >= value).unwrap_or(value)
}
