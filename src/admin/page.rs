//! A small page for a browser: is it ready, and what does the topology look like. No script, no assets.

use std::fmt::Write;

use serde_json::Value;

use super::Readiness;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse}td,th{border:1px solid #8886;padding:.2em .6em;text-align:left;vertical-align:top}\
.ok{color:#187a18}.bad{color:#b01010}:root{color-scheme:light dark}";

/// The page as HTML.
pub(super) fn render(readiness: &Readiness, topology: &Value) -> String {
    let mut html = String::from("<!doctype html><html lang=en><meta charset=utf-8><title>Holdfast</title>");
    let version = env!("CARGO_PKG_VERSION");
    let _ = write!(html, "<style>{STYLE}</style><h1>Holdfast {version}</h1>");
    let (class, word) = if readiness.ready { ("ok", "ready") } else { ("bad", "not ready") };
    let _ = write!(html, "<p class={class}>{word}</p><ul>");
    for reason in readiness.reasons.iter().chain(&readiness.notes) {
        let _ = write!(html, "<li>{}</li>", escaped(reason));
    }
    html.push_str("</ul><h2>Topology</h2>");
    render_value(&mut html, topology);
    html.push_str("<p><a href=/topology>topology as JSON</a> · <a href=/metrics>metrics</a> · ");
    html.push_str("<a href=/readyz>readyz</a> · <a href=/livez>livez</a></p></html>\n");
    html
}

/// Any JSON: an object is a table of two columns, a list of objects one with a row each.
fn render_value(html: &mut String, value: &Value) {
    match value {
        Value::Null => html.push('–'),
        Value::Bool(_) | Value::Number(_) => html.push_str(&value.to_string()),
        Value::String(text) => html.push_str(&escaped(text)),
        Value::Object(entries) => {
            html.push_str("<table>");
            for (key, value) in entries {
                let _ = write!(html, "<tr><th>{}</th><td>", escaped(key));
                render_value(html, value);
                html.push_str("</td></tr>");
            }
            html.push_str("</table>");
        }
        Value::Array(items) => render_list(html, items),
    }
}

fn render_list(html: &mut String, items: &[Value]) {
    let mut columns: Vec<&str> = Vec::new();
    for key in items.iter().filter_map(Value::as_object).flat_map(|entries| entries.keys()) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    if columns.is_empty() {
        for (i, item) in items.iter().enumerate() {
            html.push_str(if i > 0 { ", " } else { "" });
            render_value(html, item);
        }
        return;
    }
    html.push_str("<table><tr>");
    for column in &columns {
        let _ = write!(html, "<th>{}</th>", escaped(column));
    }
    html.push_str("</tr>");
    for item in items {
        html.push_str("<tr>");
        for column in &columns {
            html.push_str("<td>");
            render_value(html, item.get(column).unwrap_or(&Value::Null));
            html.push_str("</td>");
        }
        html.push_str("</tr>");
    }
    html.push_str("</table>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_shows_everything_and_escapes_it() {
        let topology = json!({ "orders": { "term": 3, "servers": [
            { "address": "db-0:3306", "role": "primary" },
            { "address": "<script>", "lag_ms": 12, "evidence": ["a", "b & c"] },
        ] } });
        let reasons = vec!["billing: no \"primary\"".to_owned()];
        let html = render(&Readiness { ready: false, reasons, notes: Vec::new() }, &topology);
        for part in [
            "<p class=bad>not ready</p><ul><li>billing: no &quot;primary&quot;</li></ul>",
            "<tr><th>term</th><td>3</td></tr>",
            "<tr><th>address</th><th>role</th><th>evidence</th><th>lag_ms</th></tr>",
            "<tr><td>db-0:3306</td><td>primary</td><td>–</td><td>–</td></tr>",
            "<tr><td>&lt;script&gt;</td><td>–</td><td>a, b &amp; c</td><td>12</td></tr>",
            "<a href=/topology>",
        ] {
            assert!(html.contains(part), "{part}\n{html}");
        }
        assert!(!html.contains("<script"));
    }
}
