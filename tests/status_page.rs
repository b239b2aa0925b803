//! The status page as a person sees it: a headless browser opens it in front of real servers, before, during and after a
//! `kill -9` of the primary, and the test reads what the browser shows.
//!
//! Pictures of each moment are left in the test's folder; `HOLDFAST_SCREENSHOTS` names another one.

#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod proxy;
mod testbed;

use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast::reconciler::resource::MysqlCluster;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use proxy::{Load, Options, Proxy, SOON, TABLE};
use serde_json::{Value, json};
use testbed::kubernetes::ControlPlane;
use testbed::{Daemon, Group, GroupOptions, Port, ReplicaSet, Server, ServerOptions, SetOptions, Testbed, until};

/// A browser that shows one page after the other.
struct Browser {
    program: PathBuf,
    folder: PathBuf,
    pictures: PathBuf,
}

impl Browser {
    fn new() -> Self {
        let program = Testbed::get().path("chromium", "CHROMIUM");
        let folder = Testbed::get().new_folder("browser");
        let pictures = std::env::var_os("HOLDFAST_SCREENSHOTS").map_or_else(|| folder.clone(), PathBuf::from);
        Self { program, folder, pictures }
    }

    fn run(&self, arguments: &[&str], url: &str) -> std::process::Output {
        let profile = format!("--user-data-dir={}", self.folder.join("profile").display());
        let fixed = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=6000"];
        let out = Command::new(&self.program).args(fixed).arg(profile).args(arguments).arg(url).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out
    }

    /// The document as it stands after some seconds of the page's own time, as HTML.
    fn document(&self, url: &str) -> String {
        String::from_utf8(self.run(&["--dump-dom"], url).stdout).unwrap()
    }

    /// What a reader reads: the document without tags, style and script.
    fn text(&self, url: &str) -> String {
        let html = self.document(url);
        let mut text = String::new();
        let body = &html[html.find("<header>").unwrap()..html.find("<noscript>").unwrap()];
        for piece in body.split('<').skip(1) {
            text.push_str(piece.split_once('>').map_or("", |(_, text)| text));
            text.push(' ');
        }
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn picture(&self, url: &str, name: &str, size: &str, dark: bool) -> PathBuf {
        let file = self.pictures.join(format!("{name}.png"));
        let shot = format!("--screenshot={}", file.display());
        let size = format!("--window-size={size}");
        let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!dark));
        self.run(&[&shot, &size, &scheme], url);
        file
    }
}

fn url(proxy: &Proxy) -> String {
    format!("http://127.0.0.1:{}/", proxy.admin_port())
}

fn status(proxy: &Proxy) -> Value {
    let (code, body) = proxy.http("/status.json").unwrap();
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Width and height of a PNG, from its header.
fn size(png: &Path) -> (u32, u32) {
    let bytes = std::fs::read(png).unwrap();
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

fn assert_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_failover_is_seen_in_a_browser() {
    let browser = Browser::new();
    let group = Group::start(GroupOptions::default());
    group.primary().sql(TABLE);
    let proxy = Proxy::start(Options::group(group.members().iter().map(Server::addr)).tls("preferred"));
    let load = Load::start(proxy.port(), 6);
    until("all servers serve", SOON, || status(&proxy)["verdict"]["state"] == "ok");
    let (page, old) = (url(&proxy), group.primary_index().unwrap());
    let old_address = group.member(old).addr().to_string();

    let text = browser.text(&page);
    assert_all(
        &text,
        &[
            "All is well: the cluster has a proven primary, and no statement waits.",
            &format!("primary {old_address}"),
            "term 1",
            "3 of 3 servers serving",
            // A rate once the page has had two answers.
            if text.contains("statements/s") { "statements/s" } else { "statements so far" },
            "◆ primary",
            "● follower",
            "PRIMARY",
            "Waiting statements 0 now",
            "is the first primary",
            "6 let in",
            "certificate ends in",
            "The file is in effect",
            "live,",
        ],
    );
    assert_eq!(size(&browser.picture(&page, "well-light", "1200,1400", false)), (1200, 1400));
    browser.picture(&page, "well-dark", "1200,1400", true);

    group.member(old).kill9();
    until("statements wait", SOON, || {
        let now = status(&proxy);
        now["clusters"][0]["primary"].is_null() && now["clusters"][0]["hold"]["now"].as_u64() > Some(0)
    });
    // The group takes some six seconds; the browser looks for one or two of them.
    let text = browser.text(&page);
    let during = status(&proxy);
    if during["clusters"][0]["primary"].is_null() {
        assert_all(&text, &["main has no primary: writes wait.", "no primary for", "was lost;", "statements wait"]);
        browser.picture(&page, "lost-narrow", "390,1800", false);
    }
    group.wait_new_primary(old);
    load.wait_more(2);

    let new = group.primary().addr().to_string();
    until("the new primary is in the history", SOON, || status(&proxy)["clusters"][0]["primary"] == new.as_str());
    let now = status(&proxy);
    let change = &now["clusters"][0]["history"]["primaries"][0];
    println!("MEASURED the page says of the failover: {change:#}");
    assert_eq!((&change["from"], &change["to"]), (&Value::from(old_address.clone()), &Value::from(new.clone())));
    assert_eq!((change["term"].as_u64(), now["clusters"][0]["term"].as_u64()), (Some(2), Some(2)));
    let waited = change["proven_unix_ms"].as_u64().unwrap() - change["lost_unix_ms"].as_u64().unwrap();
    assert_eq!(change["ms"].as_u64(), Some(waited));
    assert!(
        (1..=6).contains(&change["held"].as_u64().unwrap()),
        "six clients write, one statement at a time: {change}"
    );
    let longest = now["clusters"][0]["hold"]["longest_ms"].as_u64().unwrap();
    assert!(longest <= waited + 1_000, "no statement waited for longer than there was no primary: {longest} {waited}");
    let text = browser.text(&page);
    assert_all(
        &text,
        &[
            "Clients are served, but something needs a look.",
            "serves nothing:",
            &format!("{old_address} → {new} after"),
            "without a primary",
            "term 2",
            "waited",
            "the primary since, for",
            "term 1 · the primary until",
        ],
    );
    browser.picture(&page, "after-light", "1200,1700", false);
    browser.picture(&page, "after-dark", "1200,1700", true);
    browser.picture(&page, "after-narrow", "390,2600", false);
    load.stop();
}

/// A ready pod of the cluster `orders` in front of that server.
fn pod(plane: &ControlPlane, name: &str, server: &Server, role: &str) {
    let labels = json!({ "holdfast.io/cluster": "orders", "holdfast.io/role": role });
    plane.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "shop", "labels": labels },
        "spec": { "containers": [{ "name": "mysql", "image": "mysql", "ports": [
            { "name": "mysql", "containerPort": server.port() },
        ] }] },
    }));
    plane.set_status("shop", name, "127.0.0.1", true);
}

/// Pods by their names, in words and in pictures: well, with a label that lies, and with a lost primary while the API server is
/// away.
#[test]
fn pods_are_shown_by_their_names() {
    let (browser, set, plane) = (Browser::new(), ReplicaSet::start(SetOptions::asynchronous()), ControlPlane::start());
    plane.namespace("shop");
    let names = ["orders-mysql-0", "orders-mysql-1", "orders-mysql-2"];
    for (i, (name, server)) in names.into_iter().zip(set.servers()).enumerate() {
        pod(&plane, name, server, if i == 0 { "primary" } else { "follower" });
    }
    let file = plane.kubeconfig();
    let inside = format!(
        "kubeconfig = \"{}\", namespace = \"shop\", preset = \"holdfast\", cluster = \"orders\"",
        file.display()
    );
    let proxy = Proxy::start(Options::pods(&inside));
    let page = url(&proxy);
    let state = |word: &str| until(word, SOON, || status(&proxy)["verdict"]["state"] == word);
    state("ok");
    (0..20).for_each(|_| drop(proxy.client().one("SELECT 1")));
    let address = set.source().addr().to_string();
    let text = browser.text(&page);
    assert_all(&text, &["All is well", "primary orders-mysql-0", "orders-mysql-0 is the first primary", &address]);
    assert_all(&text, &["orders-mysql-2", "label: follower", "namespace shop"]);
    browser.picture(&page, "pods-well", "1200,1300", false);

    plane.relabel("shop", names[0], &[("holdfast.io/role", Some("follower"))]);
    plane.relabel("shop", names[1], &[("holdfast.io/role", Some("primary"))]);
    plane.annotate("shop", names[2], &[("holdfast.io/cordon", Some("true"))]);
    let seen = || status(&proxy)["verdict"]["problems"].as_array().map_or(0, Vec::len) == 2;
    until("both are told of", SOON, || seen() && !status(&proxy).to_string().contains("is being drained"));
    let text = browser.text(&page);
    assert_all(
        &text,
        &[
            "Clients are served, but something needs a look.",
            "the primary's label is on orders-mysql-1; pod orders-mysql-0",
            &format!("orders-mysql-2 ({}) was drained", set.server(2).addr()),
            "annotation holdfast.io/cordon",
        ],
    );
    browser.picture(&page, "pods-label-lies", "1200,1400", false);

    plane.kill_api();
    until("the watch is down", SOON, || status(&proxy).to_string().contains("have not been watched"));
    set.source().kill9();
    state("bad");
    let text = browser.text(&page);
    assert_all(&text, &["main has no primary: writes wait.", "orders-mysql-0 was lost", &format!("{address}): ")]);
    assert_all(&text, &["no usable answer from the API server: Connection refused"]);
    browser.picture(&page, "pods-lost", "1200,1700", false);
    browser.picture(&page, "pods-lost-narrow", "390,2600", true);
    set.promote(1);
    until("another one is proven", SOON, || status(&proxy)["clusters"][0]["primary"].is_string());
    let text = browser.text(&page);
    assert_all(
        &text,
        &["orders-mysql-0 → orders-mysql-1 after", "primary orders-mysql-1", "what was known of them stays"],
    );
    browser.picture(&page, "pods-after", "1200,1800", true);
}

/// A reconciler's page: the story that stands in the status of its MysqlClusters. Nobody need run for that: the cluster is another
/// operator's (`external`), so that what was written down stays.
#[test]
fn the_reconcilers_page_tells_the_story_of_its_clusters() {
    let (browser, plane) = (Browser::new(), ControlPlane::start());
    plane.namespace("shop");
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/crds");
    plane.kubectl(&["apply", "--validate=false", "-f", crds]).unwrap();
    until("the kind is served", SOON, || plane.kubectl(&["-n", "shop", "get", "myc,myo"]).is_ok());
    plane.apply(&json!({ "apiVersion": "holdfast.io/v1alpha1", "kind": "MysqlCluster",
        "metadata": { "name": "orders", "namespace": "shop" }, "spec": { "topology": "external" } }));
    let at = |ago_s: i64| Timestamp::from_second(Timestamp::now().as_second() - ago_s).unwrap().to_string();
    let change = |term: u64, from: &str, to: &str, ago_s, reason: &str| json!({ "term": term, "from": from, "to": to, "at": at(ago_s), "reason": reason, "tookMs": 412 });
    let mut given_up = change(2, "orders-mysql-0", "orders-mysql-2", 250, "orders-mysql-0 is lost");
    given_up.as_object_mut().unwrap().remove("tookMs");
    let history = [
        change(4, "orders-mysql-1", "orders-mysql-0", 70, "a switchover to orders-mysql-0 was asked for"),
        change(3, "orders-mysql-0", "orders-mysql-1", 250, "another member has more <b>"),
        given_up,
    ];
    let (primary, clusters) = ("orders-mysql-0", Api::<MysqlCluster>::namespaced(plane.client(), "shop"));
    let status = json!({ "status": { "term": 4, "primary": primary, "targetPrimary": primary, "history": history } });
    plane.run(clusters.patch_status("orders", &PatchParams::default(), &Patch::Merge(&status))).unwrap();

    let (reconciler, port) = (Daemon::new("reconciler"), Port::take());
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(["reconcile", "--namespace", "shop", "--identity", "test", "--kubeconfig"]).arg(plane.kubeconfig());
    command.arg(format!("--listen=127.0.0.1:{}", port.number()));
    reconciler.run(&command).unwrap();
    let page = format!("http://127.0.0.1:{}/", port.number());
    let mut text = String::new();
    until("it leads and has read", SOON, || {
        let there = std::net::TcpStream::connect(("127.0.0.1", port.number())).is_ok();
        text = if there { browser.text(&page) } else { String::new() };
        text.contains("term 4")
    });
    assert_all(
        &text,
        &[
            "The cluster has no primary that takes writes.",
            "primary orders-mysql-0",
            "external",
            "orders-mysql-1 → orders-mysql-0 after 412 ms term 4",
            "term 4 · the primary since, for",
            "why: a switchover to orders-mysql-0 was asked for",
            "orders-mysql-0 → orders-mysql-1 after 412 ms",
            "term 3 · the primary until",
            "for 3 min",
            "why: another member has more <b>",
            "orders-mysql-0 was to be replaced; given up for another change",
        ],
    );
    browser.picture(&page, "reconciler-light", "1200,1000", false);
    browser.picture(&page, "reconciler-narrow", "390,1500", true);
}

#[test]
fn what_servers_say_is_text_and_the_policy_forbids_the_rest() {
    let browser = Browser::new();
    // The server's version is what it wants it to be, and it goes through the greeting, the topology and the page.
    let evil = "10.11.14-MariaDB-<img/src=x/onerror=document.title=1>";
    let server = Server::start(ServerOptions::mariadb().named("evil").with(format!("version={evil}")));
    let proxy = Proxy::start(Options::servers([server.addr()]));
    let document = browser.document(&url(&proxy));
    assert!(status(&proxy).to_string().contains("<img/src=x"), "the server says so");
    assert!(document.contains("&lt;img/src=x") && !document.contains("<img"), "{document}");
    assert!(document.contains("<title>✔ Holdfast</title>"), "{document}");

    let head = proxy.head("/");
    let policy = head.lines().find(|line| line.starts_with("content-security-policy:")).unwrap();
    assert_all(policy, &["default-src 'none'", "script-src 'nonce-", "connect-src 'self'", "frame-ancestors 'none'"]);
    assert!(!policy.contains("unsafe"), "{policy}");
}

#[test]
fn a_page_without_its_proxy_says_so_and_a_bad_file_is_shown() {
    let browser = Browser::new();
    let set = ReplicaSet::start(SetOptions { replicas: 1, ..SetOptions::asynchronous() });
    let proxy = Proxy::start(Options::servers(set.servers().iter().map(Server::addr)));
    until("both serve", SOON, || status(&proxy)["verdict"]["state"] == "ok");
    proxy.write(&proxy.text().replace("mode = \"split\"", "mode = \"sideways\""));
    until("the file is refused", SOON, || status(&proxy)["configuration"]["state"] == "refused");
    let text = browser.text(&url(&proxy));
    assert_all(&text, &["something needs a look", "The file is not valid; the one before stays in effect", "sideways"]);
    assert_eq!(proxy.metric("holdfast_config_current", &[]), 0.0);
    proxy.write(&proxy.text());
    until("the file is good again", SOON, || status(&proxy)["configuration"]["state"] == "current");
    assert_eq!(proxy.metric("holdfast_config_current", &[]), 1.0);
    assert_eq!(proxy.metric("holdfast_has_primary", &["cluster=\"main\""]), 1.0);

    // The page as it was saved, opened where no proxy is.
    let (_, page) = proxy.http("/").unwrap();
    let file = browser.folder.join("saved.html");
    std::fs::write(&file, page).unwrap();
    let text = browser.text(&format!("file://{}", file.display()));
    assert_all(&text, &["This page cannot reach Holdfast.", "no answer"]);
}
