//! Clusters found by their pods' labels: they come, go, stay while they may come back, and are bounded.
//!
//! Pods are objects only; each points at a server of the testbed.
#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod proxy;
mod testbed;

use holdfast::backend::ConnectError;
use proxy::{Client, Options, Proxy, SOON};
use serde_json::json;
use testbed::kubernetes::ControlPlane;
use testbed::{Server, ServerOptions, until};

const NAMESPACE: &str = "shops";

/// The only pod of a cluster: ready, its server on that port.
fn create(plane: &ControlPlane, cluster: &str, port: u16) {
    let name = format!("{cluster}-0");
    plane.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "holdfast.io/cluster": cluster } },
        "spec": { "containers": [{ "name": "mysql", "image": "mysql", "ports": [
            { "name": "mysql", "containerPort": port },
        ] }] },
    }));
    plane.set_status(NAMESPACE, &name, "127.0.0.1", true);
}

fn delete(plane: &ControlPlane, cluster: &str) {
    plane.delete_pod(NAMESPACE, &format!("{cluster}-0"), Some(0));
}

/// A proxy of one fixed cluster that looks for others.
fn options(main: &Server, plane: &ControlPlane, lines: &str) -> Options {
    let mut options = Options::servers([main.addr()]).route("route = [\"user\"]");
    let file = plane.kubeconfig();
    options.more = format!(
        "[[discovery]]\nname = \"shops\"\npreset = \"holdfast\"\nkubeconfig = \"{}\"\nnamespace = \"{NAMESPACE}\"\n{lines}\n\
         account = {{ user = \"holdfast\", password = \"holdfast\" }}\n",
        file.display()
    );
    options
}

fn login(proxy: &Proxy, cluster: &str) -> Result<Client, ConnectError> {
    Client::login(proxy.port(), &format!("app@{cluster}"), "app")
}

/// Logs in, as soon as the cluster is there and proven.
fn client(proxy: &Proxy, cluster: &str) -> Client {
    let mut client = None;
    until(&format!("{cluster} is served"), SOON, || {
        client = login(proxy, cluster).ok();
        client.is_some()
    });
    client.unwrap()
}

fn is_unknown(proxy: &Proxy, cluster: &str) -> bool {
    let words = format!("'{cluster}' is not served here");
    let says = |payload: &[u8]| String::from_utf8_lossy(payload).contains(&words);
    matches!(login(proxy, cluster), Err(ConnectError::Refused(payload)) if says(&payload))
}

fn watch_up(proxy: &Proxy) -> bool {
    proxy.metric("holdfast_kubernetes_watch_up", &[]) == 1.0
}

#[test]
fn clusters_come_and_go_with_their_pods() {
    let main = Server::start(ServerOptions::mysql().named("found-main"));
    let server = Server::start(ServerOptions::mysql().named("found-orders"));
    server.sql("CREATE TABLE app.w(n INT)");
    let plane = ControlPlane::start();
    plane.namespace(NAMESPACE);
    // One that forgets soon and takes two, and one that waits.
    let quick = Proxy::start(options(&main, &plane, "clusters_max = 2\nhold_ms_max = 500"));
    let patient = Proxy::start(options(&main, &plane, "hold_ms_max = 60000"));
    assert!(is_unknown(&quick, "orders"));
    assert_eq!(quick.metric("holdfast_clusters", &["discovered"]), 0.0);

    create(&plane, "orders", server.port());
    let (mut told, mut held) = (client(&quick, "orders"), client(&patient, "orders"));
    let at = server.port().to_string();
    assert_eq!((told.one("SELECT @@port"), held.one("SELECT @@port")), (at.clone(), at));
    create(&plane, "billing", main.port());
    let mut stays = client(&quick, "billing");
    // One too many: also the one that would stand before them by its name ends no other.
    create(&plane, "accounts", main.port());
    client(&patient, "accounts");
    quick.wait_log("more clusters than clusters_max");
    assert!(is_unknown(&quick, "accounts"));
    assert_eq!(quick.metric("holdfast_clusters", &["discovered"]), 2.0);
    for client in [&mut told, &mut stays, &mut held] {
        assert_eq!(client.one("SELECT 1"), "1");
    }
    // A server that is not there makes nobody unready who is ready.
    let nobody = testbed::Port::take();
    create(&plane, "dead", nobody.number());
    until("dead is there", SOON, || patient.http("/topology").unwrap().1.contains("\"dead\""));
    assert_eq!(patient.http("/readyz").unwrap(), (200, "ready\n".to_owned()));
    delete(&plane, "dead");

    // While the API server is away nothing goes, and who starts now says what it waits for.
    plane.kill_api();
    until("nobody watches", SOON, || !watch_up(&quick) && !watch_up(&patient));
    let late = Proxy::launch(options(&main, &plane, ""));
    until("the reason is named", SOON, || {
        let (status, body) = late.http("/readyz").unwrap();
        status == 503 && body.contains("no discovery has said yet") && body.contains("have not been watched for")
    });
    for (proxy, session) in [(&quick, &mut told), (&patient, &mut held)] {
        let (status, body) = proxy.http("/readyz").unwrap();
        assert!(status == 200 && body.contains("what was known of them stays"), "{status} {body}");
        session.query("INSERT INTO app.w VALUES (1)").unwrap();
        assert_eq!(client(proxy, "orders").one("SELECT 1"), "1");
    }
    plane.start_api();
    until("all watch", SOON, || [&quick, &patient, &late].into_iter().all(watch_up));
    until("the late one is ready", SOON, || late.http("/readyz").unwrap().0 == 200);
    assert_eq!(client(&late, "orders").one("SELECT @@port"), server.port().to_string());
    assert_eq!((told.one("SELECT 1"), held.one("SELECT 1")), ("1".to_owned(), "1".to_owned()));

    // The only pod is replaced: whoever is patient notices nothing but a wait.
    delete(&plane, "orders");
    until("orders is gone", SOON, || is_unknown(&quick, "orders"));
    let fault = told.query("SELECT 1").unwrap_err();
    assert_eq!(fault.state(), (1053, "08S01"), "{fault:?}");
    told.wait_closed();
    assert!(!quick.http("/topology").unwrap().1.contains("\"orders\""));
    // Its place is free.
    client(&quick, "accounts");
    held.send_query("INSERT INTO app.w VALUES (2)");
    until("it waits", SOON, || patient.metric("holdfast_holding", &["\"orders\""]) == 1.0);
    create(&plane, "orders", server.port());
    held.read().unwrap();
    assert_eq!(server.one("SELECT GROUP_CONCAT(n ORDER BY n) FROM app.w"), "1,1,2");
    assert_eq!(stays.one("SELECT 1"), "1");
    assert_eq!(quick.http("/readyz").unwrap(), (200, "ready\n".to_owned()));
}
