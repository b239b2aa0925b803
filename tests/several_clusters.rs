//! Several clusters behind one port: which login leads to which, that they share nothing, and that they come and go.
#![allow(clippy::unwrap_used, reason = "a test")]

mod proxy;
mod testbed;

use holdfast::backend::ConnectError;
use mysql_async::prelude::Queryable;
use mysql_async::{ChangeUserOpts, Conn, OptsBuilder};
use proxy::{Client, Options, Proxy, SOON, cluster};
use testbed::{Flavor, Server, ServerOptions, cli, until};

const TLS: &str = "--ssl-mode=REQUIRED";
const PLAIN: &str = "--ssl-mode=DISABLED";
const KEY: &str = "--get-server-public-key";

/// What the mysql program prints, or its error.
fn mysql(port: u16, user: &str, password: &str, options: &[&str], sql: &str) -> Result<String, String> {
    cli(Flavor::MySql, port, (user, password), options, sql)
}

/// A server with a schema for each name that tests route by.
fn server(name: &str) -> Server {
    let server = Server::start(ServerOptions::mysql().named(name));
    server.sql("CREATE DATABASE main; CREATE DATABASE billing; CREATE DATABASE invoices");
    server
}

fn refused(login: Result<Client, ConnectError>) -> String {
    match login {
        Err(ConnectError::Refused(payload)) => String::from_utf8_lossy(&payload).into_owned(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("let in"),
    }
}

#[test]
fn a_login_leads_where_it_says() {
    let (main, billing) = (server("routed-main"), server("routed-billing"));
    billing.sql("CREATE USER 'joe@example.com'@'%' IDENTIFIED BY 'joe'");
    let maps = "\nsni = { \"Money.Example.net\" = \"billing\" }\nschema = { invoices = \"billing\" }";
    let options = Options::servers([main.addr()]).and_cluster("billing", billing.addr()).tls("preferred");
    let proxy = Proxy::start(options.route(&format!("route = [\"sni\", \"user\", \"schema\"]{maps}")));
    let port = proxy.port();
    let (at_main, at_billing) = (main.port().to_string(), billing.port().to_string());

    let sni = |name: &str| format!("--tls-sni-servername={name}");
    let table: [(&str, Vec<String>, &str); 11] = [
        ("app@main", vec![], &at_main),
        ("app@billing", vec![], &at_billing),
        ("app", vec![TLS.into(), sni("main.db.example.net")], &at_main),
        ("app", vec![TLS.into(), sni("billing")], &at_billing),
        ("app", vec![TLS.into(), sni("money.example.net")], &at_billing),
        ("app@main", vec![TLS.into(), sni("main.db.example.net")], &at_main),
        ("app@main", vec![TLS.into(), sni("unknown.example.net")], &at_main),
        ("app", vec!["--database=main".into()], &at_main),
        ("app", vec!["--database=billing".into()], &at_billing),
        ("app", vec!["--database=invoices".into()], &at_billing),
        ("app@main", vec!["--database=invoices".into()], &at_main),
    ];
    for (user, options, expected) in table {
        let options: Vec<&str> = options.iter().map(String::as_str).chain([KEY]).collect();
        let went = mysql(port, user, "app", &options, "SELECT @@port, CURRENT_USER(), SUBSTRING_INDEX(USER(), '@', 1)");
        assert_eq!(went, Ok(format!("{expected}\tapp@%\tapp")), "{user} {options:?}");
    }

    // What leads nowhere is told apart from what is refused, and says nothing of users.
    let missing = |user: &str| refused(Client::login(port, user, "app"));
    let unknown = missing("app@ordres");
    assert!(unknown.contains("#42000holdfast: cluster 'ordres' is not served here"), "{unknown}");
    assert!(unknown.contains("user@cluster"), "{unknown}");
    assert_eq!(missing("nobody@ordres"), unknown);
    let unnamed = missing("app");
    assert!(unnamed.contains("names no cluster") && unnamed == missing("nobody"), "{unnamed}");
    let both = mysql(port, "app@billing", "app", &[TLS, &sni("main.x")], "SELECT 1").expect_err("two clusters");
    assert!(both.contains("1049") && both.contains("'main' and 'billing'"), "{both}");
    let wrong = mysql(port, "app@billing", "wrong", &[TLS], "SELECT 1").expect_err("a wrong password");
    assert!(wrong.contains("ERROR 1045 (28000): Access denied for user 'app'@"), "{wrong}");

    // Numbers and roles by cluster.
    for (name, server) in [("main", &main), ("billing", &billing)] {
        let label = format!("cluster=\"{name}\"");
        assert!(proxy.metric("holdfast_logins_total", &[&label, "result=\"ok\""]) >= 4.0);
        until("queries are counted", SOON, || proxy.metric("holdfast_queries_total", &[&label]) >= 4.0);
        let (_, topology) = proxy.http("/topology").unwrap();
        let topology: serde_json::Value = serde_json::from_str(&topology).unwrap();
        let clusters = topology["clusters"].as_array().unwrap();
        let found = clusters.iter().find(|cluster| cluster["cluster"] == name).unwrap();
        assert_eq!(found["primary"], server.addr().to_string());
    }
    assert!(proxy.metric("holdfast_logins_total", &["cluster=\"\"", "result=\"failed\""]) >= 5.0);

    // With a default cluster an account's name may have an @ of its own.
    proxy.write(&proxy.text().replace("route = [", "default_cluster = \"billing\"\nroute = ["));
    proxy.wait_log("configuration reloaded");
    let joe = |user: &str, options: &[&str]| mysql(port, user, "joe", options, "SELECT CURRENT_USER()");
    assert_eq!(joe("joe@example.com", &[KEY]), Ok("joe@example.com@%".to_owned()));
    assert_eq!(joe("joe@example.com@billing", &[KEY]), Ok("joe@example.com@%".to_owned()));
    assert!(joe("joe@example.com@main", &[KEY]).expect_err("no such account").contains("1045"));
    assert_eq!(Client::login(port, "app", "app").unwrap().one("SELECT @@port"), at_billing);
}

#[test]
fn a_password_is_good_for_one_cluster_only() {
    let (main, billing) = (server("password-main"), server("password-billing"));
    main.sql("CREATE USER twin@'%' IDENTIFIED BY 'one'; CREATE USER alone@'%' IDENTIFIED BY 'alone'");
    billing.sql("CREATE USER twin@'%' IDENTIFIED BY 'two'");
    let options = Options::servers([main.addr()]).and_cluster("billing", billing.addr()).route("route = [\"user\"]");
    let proxy = Proxy::start(options);
    let login = |user: &str, password: &str, options: &[&str]| {
        mysql(proxy.port(), user, password, &[options, &[PLAIN]].concat(), "SELECT @@port")
    };
    let (at_main, at_billing) = (Ok(main.port().to_string()), Ok(billing.port().to_string()));

    // The first login shows its password, the second is recognized without it.
    assert_eq!(login("twin@main", "one", &[KEY]), at_main);
    assert_eq!(login("twin@main", "one", &[]), at_main);
    assert!(login("twin@billing", "two", &[]).is_err(), "what main knows is not known of billing");
    for (user, password) in [("twin@billing", "one"), ("twin@main", "two"), ("alone@billing", "alone")] {
        assert!(login(user, password, &[KEY]).expect_err(user).contains("ERROR 1045"), "{user}");
    }
    assert_eq!(login("twin@billing", "two", &[KEY]), at_billing);
    // A refusal at one cluster makes nobody forget what was proven at the other.
    assert!(login("twin@billing", "one", &[]).is_err());
    assert_eq!(login("twin@main", "one", &[]), at_main);
    assert_eq!(login("twin@billing", "two", &[]), at_billing);
    assert_eq!(login("alone@main", "alone", &[KEY]), at_main);
}

#[test]
fn a_changed_user_and_a_kill_stay_in_their_cluster() {
    let (main, billing) = (server("change-main"), server("change-billing"));
    billing.sql("CREATE USER other@'%' IDENTIFIED BY 'other'; GRANT CREATE ON app.* TO other@'%'");
    let options = Options::servers([main.addr()]).and_cluster("billing", billing.addr()).route("route = [\"user\"]");
    let proxy = Proxy::start(options);
    let port = proxy.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port).prefer_socket(false);
        let mut conn = Conn::new(options.user(Some("app@main")).pass(Some("app"))).await.unwrap();
        let change = |user: &str, password: &str| {
            ChangeUserOpts::new().with_user(Some(user.to_owned())).with_pass(Some(password.to_owned()))
        };
        conn.query_drop("SET @mine = 1").await.unwrap();
        for (user, password, server) in [
            ("app@billing", "app", &billing),
            ("other", "other", &billing),
            ("app@main", "app", &main),
            ("app", "app", &main),
        ] {
            conn.change_user(change(user, password)).await.unwrap_or_else(|e| panic!("{user}: {e}"));
            let row: (u16, Option<i64>) = conn.query_first("SELECT @@port, @mine").await.unwrap().unwrap();
            assert_eq!(row, (server.port(), None), "{user}");
            conn.query_drop("CREATE TABLE IF NOT EXISTS app.t(n INT)").await.unwrap();
        }
        let error = conn.change_user(change("app@nowhere", "app")).await.unwrap_err().to_string();
        assert!(error.contains("'nowhere' is not served here"), "{error}");
    });
    assert_eq!(billing.sql("SHOW TABLES IN app").len(), 1);

    // The ids of one cluster's sessions mean nothing in the other, nor do those of its servers' connections.
    let mut victim = Client::login(port, "app@main", "app").unwrap();
    let mut killer = Client::login(port, "app@billing", "app").unwrap();
    let thread = victim.one("SELECT CONNECTION_ID()");
    for id in [victim.id.to_string(), thread] {
        let own = killer.one("SELECT CONNECTION_ID()");
        if id != own {
            assert_eq!(killer.query(&format!("KILL {id}")).unwrap_err().code(), 1094, "unknown thread");
        }
    }
    assert_eq!(victim.one("SELECT 1"), "1");
    assert_eq!(killer.one("SELECT 1"), "1");
}

#[test]
fn clusters_come_and_go_with_the_configuration() {
    let (main, billing) = (server("come-main"), server("come-billing"));
    billing.sql("CREATE TABLE app.t(n INT); CREATE USER short@'%' IDENTIFIED BY 'short'");
    let proxy = Proxy::start(Options::servers([main.addr()]).route("route = [\"user\"]"));
    let port = proxy.port();
    let login = || Client::login(port, "app@billing", "app");
    assert!(refused(login()).contains("'billing' is not served here"));
    let mut stays = Client::login(port, "app@main", "app").unwrap();

    let with = proxy.text() + &cluster("billing", billing.addr());
    proxy.write(&with);
    until("the cluster is there", SOON, || login().is_ok());
    assert_eq!(proxy.metric("holdfast_clusters", &["configured"]), 2.0);
    let (mut idle, mut open, mut busy) = (login().unwrap(), login().unwrap(), login().unwrap());
    assert_eq!(mysql(port, "short@billing", "short", &[PLAIN, KEY], "SELECT 1"), Ok("1".to_owned()));
    open.query("BEGIN").unwrap();
    open.query("INSERT INTO app.t VALUES (1)").unwrap();
    busy.send_query("SELECT SLEEP(3)");
    let runs = "SELECT id FROM performance_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
    until("the server runs it", SOON, || billing.sql(runs).len() == 1);

    proxy.write(&proxy.text());
    until("the cluster is gone", SOON, || login().is_err());
    let (probes, sessions) = ("user = 'holdfast'", "user = 'app'");
    let connections =
        |whose: &str| billing.sql(&format!("SELECT id FROM performance_schema.processlist WHERE {whose}")).len();
    until("nobody asks its servers any more", SOON, || connections(probes) == 0);
    until("those who wait have left its servers", SOON, || connections(sessions) <= 1);
    for client in [&mut idle, &mut open] {
        let fault = client.query("SELECT 1").unwrap_err();
        assert_eq!(fault.state(), (1053, "08S01"), "{fault:?}");
        client.wait_closed();
    }
    assert!(busy.drain().1.is_ok(), "what runs is answered");
    assert_eq!(busy.query("SELECT 1").unwrap_err().code(), 1053);
    assert_eq!(billing.sql("SELECT * FROM app.t").len(), 0, "rolled back");
    until("no session is left there", SOON, || proxy.metric("holdfast_cluster_sessions", &["\"billing\""]) == 0.0);
    let (_, topology) = proxy.http("/topology").unwrap();
    assert!(!topology.contains("billing"), "{topology}");
    assert_eq!(proxy.http("/readyz").unwrap().0, 200);
    assert_eq!(stays.one("SELECT @@port"), main.port().to_string());

    // Under an old name it is another cluster: nothing is known of its accounts.
    proxy.write(&with);
    until("the cluster is there again", SOON, || login().is_ok());
    assert!(mysql(port, "short@billing", "short", &[PLAIN], "SELECT 1").is_err());
    assert_eq!(mysql(port, "short@billing", "short", &[PLAIN, KEY], "SELECT 1"), Ok("1".to_owned()));

    // A statement that waits for a primary does not wait for one that never comes.
    let mut held = login().unwrap();
    billing.kill9();
    held.send_query("INSERT INTO app.t VALUES (2)");
    until("it waits", SOON, || proxy.metric("holdfast_holding", &["\"billing\""]) == 1.0);
    until("not ready", SOON, || proxy.http("/readyz").unwrap().0 == 503);
    proxy.write(&proxy.text());
    assert_eq!(held.read().unwrap_err().code(), 1053);
    until("ready", SOON, || proxy.http("/readyz").unwrap().0 == 200);
}

#[test]
fn a_cluster_that_is_not_required_makes_nobody_unready() {
    let main = server("optional-main");
    let nobody = testbed::Port::take();
    let address = format!("127.0.0.1:{}", nobody.number()).parse().unwrap();
    let mut options = Options::servers([main.addr()]).route("route = [\"user\"]");
    options.more = cluster("dead", address).replace("source", "required = false\nhold_ms_max = 500\nsource");
    let proxy = Proxy::launch(options);
    until("ready", SOON, || proxy.http("/readyz").is_ok_and(|(status, _)| status == 200));
    let error = refused(Client::login(proxy.port(), "app@dead", "app"));
    assert!(error.contains("no server of cluster dead has been reached yet"), "{error}");
    proxy.write(&proxy.text().replace("required = false", "required = true"));
    until("not ready", SOON, || {
        let (status, why) = proxy.http("/readyz").unwrap();
        status == 503 && why.contains("cluster dead has no proven primary")
    });
}

#[test]
fn mysql_and_mariadb_are_not_greeted_for_together() {
    let main = server("family-mysql");
    let maria = Server::start(ServerOptions::mariadb().named("family-mariadb"));
    let options = Options::servers([main.addr()]).and_cluster("maria", maria.addr()).route("route = [\"user\"]");
    let proxy = Proxy::start(options);
    until("main is greeted for", SOON, || Client::login(proxy.port(), "app@main", "app").is_ok());
    let error = refused(Client::login(proxy.port(), "app@maria", "app"));
    assert!(error.contains("the servers of cluster 'maria' are MariaDB, and this port greets as MySQL"), "{error}");
    proxy.write(&proxy.text().replace("route = [", "default_cluster = \"maria\"\nroute = ["));
    until("maria is greeted for", SOON, || Client::login(proxy.port(), "app@maria", "app").is_ok());
    let error = refused(Client::login(proxy.port(), "app@main", "app"));
    assert!(error.contains("are MySQL, and this port greets as MariaDB"), "{error}");
}
