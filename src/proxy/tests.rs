//! Clusters that are discovered come and go, within their bounds. Nothing is asked of any server here.

use super::discovery::{Found, wanted};
use super::running::Running;
use crate::config::{Config, Source, parse};
use crate::frontend::route::Asked;
use metrics_exporter_prometheus::PrometheusBuilder;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const TEXT: &str = r#"
[[listener]]
name = "all"
listen = "127.0.0.1:6446"
route = ["user"]
[[cluster]]
name = "fixed"
source = "static"
servers = [{ address = "127.0.0.1:1" }]
required = false
account = { user = "holdfast", password = "secret" }
[[discovery]]
name = "first"
preset = "moco"
clusters_max = 2
hold_ms_max = 7
account = { user = "first", password = "secret" }
[[discovery]]
name = "second"
preset = "moco"
account = { user = "second", password = "secret" }
"#;

fn config(text: &str) -> Config {
    parse(text, "holdfast.toml", std::iter::empty()).unwrap()
}

fn found(names: &[&str]) -> Found {
    let source = || Source::Members { seeds: vec!["127.0.0.1:1".parse().unwrap()] };
    Some(Arc::new(names.iter().map(|name| ((*name).into(), source())).collect()))
}

#[test]
fn names_are_taken_once_and_no_discovery_adds_more_than_it_may() {
    let config = config(TEXT);
    let names = |all: &[Found]| -> Vec<String> {
        wanted(&config, all, |_| false).iter().map(|c| format!("{}:{}", c.name, c.account.user)).collect()
    };
    assert_eq!(names(&[None, None]), ["fixed:holdfast"]);
    assert_eq!(names(&[found(&[]), found(&["b"])]), ["fixed:holdfast", "b:second"]);
    let all = [found(&["a", "b", "fixed", "z"]), found(&["a", "z"])];
    assert_eq!(names(&all), ["fixed:holdfast", "a:first", "b:first", "z:second"]);
    // One that is served stays when another comes that would stand before it.
    let served = wanted(&config, &all, |name| &*name.0 == "z");
    let served: Vec<_> = served.iter().map(|c| (c.name.as_str(), c.account.user.as_str())).collect();
    assert_eq!(served, [("fixed", "holdfast"), ("z", "first"), ("a", "first")]);
    let a = &wanted(&config, &all, |_| false)[1];
    assert_eq!((a.hold_max.as_millis(), a.required), (7, false));
}

#[tokio::test]
async fn what_is_found_is_served_until_it_is_found_no_more() {
    let (text, control) = (config(TEXT), CancellationToken::new());
    let running = Running::start(&text, &Arc::default(), &control).await.unwrap();
    let reasons = |running: &Running| running.readiness(true).reasons.join("\n");
    assert!(reasons(&running).contains("no discovery has said yet"), "{}", reasons(&running));

    running.apply(&text, &[found(&["a", "b"]), found(&[])]).await.unwrap();
    let (a, b) = (running.clusters.find("a").unwrap(), running.clusters.find("b").unwrap());
    // At the start also what is not required is waited for.
    assert!(reasons(&running).contains("cluster a has no proven primary"), "{}", reasons(&running));
    let listener = running.listeners[0].load_full();
    let asked = Asked { user: b"app@a", ..Asked::default() };
    let (cluster, user) = listener.find(asked, None).unwrap();
    assert_eq!((cluster.id, user), (a.id, &b"app"[..]));
    let accounts = listener.gate(cluster).accounts;
    assert!(Arc::ptr_eq(&accounts, &listener.gate(Arc::clone(&a)).accounts));
    assert!(!Arc::ptr_eq(&accounts, &listener.gate(Arc::clone(&b)).accounts));

    // Seen again, nothing changes; another limit changes the same cluster; gone, it ends.
    running.apply(&text, &[found(&["a", "b"]), found(&[])]).await.unwrap();
    assert!(Arc::ptr_eq(&running.clusters.find("a").unwrap(), &a));
    let other = config(&TEXT.replace("hold_ms_max = 7", "hold_ms_max = 8"));
    running.apply(&other, &[found(&["a"]), found(&[])]).await.unwrap();
    let changed = running.clusters.find("a").unwrap();
    assert_eq!((changed.id, changed.config.hold_max.as_millis()), (a.id, 8));
    assert!(b.gone.is_cancelled() && !a.gone.is_cancelled());
    assert!(running.clusters.find("b").is_none());

    running.apply(&other, &[found(&[]), found(&[])]).await.unwrap();
    assert!(a.gone.is_cancelled());
    running.apply(&other, &[found(&["a"]), found(&[])]).await.unwrap();
    let again = running.clusters.find("a").unwrap();
    assert_ne!(again.id, a.id);
    assert!(!Arc::ptr_eq(&accounts, &listener.gate(again).accounts), "nothing is known of another's accounts");
    control.cancel();
}

/// Clusters that say the same of TLS share one certificate; when it ends is a fact of each of them.
#[tokio::test]
async fn each_cluster_says_when_its_certificate_ends() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["proxy".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    let pem = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
    let file = std::env::temp_dir().join(format!("holdfast-shared-certificate-{}.pem", std::process::id()));
    std::fs::write(&file, pem).unwrap();
    let cluster = |name: &str| {
        let file = file.display();
        format!(
            "[[cluster]]\nname = \"{name}\"\nsource = \"static\"\nservers = [{{ address = \"127.0.0.1:1\" }}]\n\
             account = {{ user = \"holdfast\", password = \"secret\" }}\n\
             tls = {{ mode = \"required\", cert = \"{file}\", key = \"{file}\" }}\n"
        )
    };
    let listener = "[[listener]]\nname = \"all\"\nlisten = \"127.0.0.1:6446\"\nroute = [\"user\"]\n";
    let of =
        |names: &[&str]| config(&(listener.to_owned() + &names.iter().map(|name| cluster(name)).collect::<String>()));
    let control = CancellationToken::new();
    let running = Running::start(&of(&["one", "other"]), &Arc::default(), &control).await.unwrap();
    let recorder = PrometheusBuilder::new().build_recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    running.reread_files();
    let text = recorder.handle().render();
    for name in ["one", "other"] {
        let series = format!("name=\"{name}\"}} 4070908800");
        assert!(text.contains(&series), "{name}: {text}");
    }
    // One that is gone warns of nothing.
    running.apply(&of(&["one"]), &[]).await.unwrap();
    let text = recorder.handle().render();
    assert!(text.contains("name=\"other\"} NaN") && text.contains("name=\"one\"} 4070908800"), "{text}");
    std::fs::remove_file(&file).unwrap();
    control.cancel();
}

/// The alert "no primary" is about clusters that are there.
#[tokio::test]
async fn a_cluster_that_is_gone_raises_no_alarm() {
    let (text, control) = (config(TEXT), CancellationToken::new());
    let recorder = PrometheusBuilder::new().build_recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    let says = async |series: &str| {
        let seen = async {
            while !recorder.handle().render().contains(series) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap_or_else(|_| panic!("never {series}"));
    };
    let running = Running::start(&text, &Arc::default(), &control).await.unwrap();
    running.apply(&text, &[found(&["a"]), found(&[])]).await.unwrap();
    says("holdfast_has_primary{cluster=\"a\"} 0").await;
    running.apply(&text, &[found(&[]), found(&[])]).await.unwrap();
    says("holdfast_has_primary{cluster=\"a\"} NaN").await;
    assert!(recorder.handle().render().contains("holdfast_has_primary{cluster=\"fixed\"} 0"));
    control.cancel();
}
