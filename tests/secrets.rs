//! Secrets as a kubelet mounts them, swapped while the proxy runs: passwords, accounts and certificates are taken over
//! without a restart, and nothing is lost meanwhile that need not be.
#![allow(clippy::unwrap_used, reason = "a test that panics says why")]

mod proxy;
mod testbed;

use holdfast::backend::ConnectError;
use holdfast::tls::TlsFiles;
use proxy::{Client, Options, Proxy, SOON};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use testbed::{Server, ServerOptions, Testbed, until};

/// A mounted Secret: each file is a link into `..data`, itself a link to a folder with a date for a name. A new version is
/// a new folder and a rename of `..data`.
struct Secret {
    folder: PathBuf,
    version: u32,
}

impl Secret {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut secret = Self { folder: Testbed::get().new_folder("secret"), version: 0 };
        secret.swap(files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), secret.file(name)).unwrap();
        }
        secret
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// All files at once have other contents; the old version is removed.
    fn swap(&mut self, files: &[(&str, &str)]) {
        let of = |version: u32| format!("..2026_11_21_16_30_00.{version:09}");
        let old = self.folder.join(of(self.version));
        self.version += 1;
        let new = self.folder.join(of(self.version));
        std::fs::create_dir(&new).unwrap();
        for (name, text) in files {
            std::fs::write(new.join(name), text).unwrap();
        }
        symlink(of(self.version), self.folder.join("..data_tmp")).unwrap();
        std::fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
        if old.exists() {
            std::fs::remove_dir_all(old).unwrap();
        }
    }
}

/// A certificate authority, as an issuer of cert-manager is one.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key of a peer, good until that year.
    fn sign(&self, until: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A client of this authority in front of a listener of that one.
    fn client(&self, trusting: &Authority) -> TlsFiles {
        let (cert, key) = self.sign(2100);
        let secret = Secret::new(&[("tls.crt", &cert), ("tls.key", &key), ("ca.crt", &trusting.pem)]);
        let file = |name| Some(secret.file(name));
        TlsFiles { cert: file("tls.crt"), key: file("tls.key"), ca: file("ca.crt") }
    }
}

fn server(name: &str) -> Server {
    Server::start(ServerOptions::mysql().named(name))
}

/// Connections of the probing account.
fn probes(server: &Server) -> Vec<String> {
    let rows = server.sql("SELECT id FROM performance_schema.processlist WHERE user='holdfast'");
    rows.into_iter().map(|mut row| row.swap_remove(0)).collect()
}

/// Kills the connections of the probing account, and waits until the proxy has noticed: it asks over another one, or is
/// refused.
fn cut_probes(server: &Server) {
    for id in probes(server) {
        server.sql(&format!("KILL {id}"));
        until("the connection is gone", SOON, || !probes(server).contains(&id));
    }
}

fn has_primary(proxy: &Proxy) -> bool {
    let (_, body) = proxy.http("/topology").unwrap();
    let topology: Value = serde_json::from_str(&body).unwrap();
    topology["clusters"][0]["primary"].is_string()
}

/// How often the log has these words.
fn count(proxy: &Proxy, words: &str) -> usize {
    proxy.log().matches(words).count()
}

fn rotate(server: &Server, password: &str) {
    server.sql(&format!("ALTER USER holdfast@'%' IDENTIFIED BY '{password}'"));
}

#[test]
fn the_probing_password_is_changed_at_the_server_first() {
    let server = server("server-first");
    let mut secret = Secret::new(&[("username", "holdfast"), ("password", "holdfast")]);
    let account = format!("user = \"holdfast\"\npassword_file = \"{}\"", secret.file("password").display());
    let proxy = Proxy::start(Options::servers([server.addr()]).account(&account));
    let mut client = proxy.client();

    rotate(&server, "second");
    // The open connection goes on proving; a new one is refused.
    assert!(has_primary(&proxy));
    cut_probes(&server);
    until("nothing is proven", SOON, || !has_primary(&proxy));
    proxy.wait_log("Access denied for user 'holdfast'");

    secret.swap(&[("username", "holdfast"), ("password", "second\n")]);
    until("the primary is proven again", SOON, || has_primary(&proxy));
    assert_eq!(client.one("SELECT 1"), "1", "who is in stays in");
    proxy.client();
    assert_eq!(count(&proxy, "cluster.main.account.password"), 1, "{}", proxy.log());
}

#[test]
fn the_probing_password_is_changed_in_the_secret_first() {
    let server = server("secret-first");
    let mut secret = Secret::new(&[("password", "holdfast")]);
    let account = format!("user = \"holdfast\"\npassword_file = \"{}\"", secret.file("password").display());
    let proxy = Proxy::start(Options::servers([server.addr()]).account(&account));
    let mut client = proxy.client();
    let (before, lost) = (probes(&server), count(&proxy, "no primary"));

    for (n, password) in [(1, "second"), (2, "third")] {
        secret.swap(&[("password", password)]);
        until("the new password is read", SOON, || count(&proxy, "cluster.main.account.password") == n);
        // The server wants the old one still.
        until("the proxy asks over another connection", SOON, || {
            let now = probes(&server);
            !now.is_empty() && now.iter().all(|id| !before.contains(id))
        });
        cut_probes(&server);
        until("and over yet another", SOON, || !probes(&server).is_empty());
        // A change of something else does not forget it.
        proxy.write(&proxy.text().replace("name = \"main\"", &format!("name = \"main\"\nprobe_interval_ms = {n}00")));
        until("the setting is read", SOON, || count(&proxy, "cluster.main.probe_interval") == n);

        rotate(&server, password);
        cut_probes(&server);
        until("the proxy asks with the new password", SOON, || !probes(&server).is_empty());
        assert!(has_primary(&proxy));
    }
    assert_eq!(count(&proxy, "no primary"), lost, "{}", proxy.log());
    assert_eq!(client.one("SELECT 1"), "1");
}

#[test]
fn an_account_file_is_swapped() {
    let server = server("accounts");
    let mut secret = Secret::new(&[("accounts", "two:two\n")]);
    let listener = format!("account_source = [\"file\"]\naccount_file = \"{}\"", secret.file("accounts").display());
    let proxy = Proxy::start(Options::servers([server.addr()]).listener(&listener));
    let login = |user: &str, password: &str| Client::login(proxy.port(), user, password);
    assert!(matches!(login("app", "app"), Err(ConnectError::Refused(_))), "not in the file");
    let mut two = login("two", "two").unwrap();

    secret.swap(&[("accounts", "app:app\n")]);
    until("the new account gets in", SOON, || login("app", "app").is_ok());
    assert!(matches!(login("two", "two"), Err(ConnectError::Refused(_))), "no longer in the file");
    assert_eq!(two.one("SELECT 1"), "1", "who is in stays in");

    // A version that is not one: the last good one stays.
    secret.swap(&[("accounts", "nonsense\n")]);
    proxy.wait_log("account file not taken over");
    login("app", "app").unwrap();

    server.sql("ALTER USER app@'%' IDENTIFIED BY 'fresh'");
    secret.swap(&[("accounts", "app:fresh\n")]);
    until("the new password gets in", SOON, || login("app", "fresh").is_ok());
    assert!(matches!(login("app", "app"), Err(ConnectError::Refused(_))), "the old one does not");
}

#[test]
fn certificates_of_cert_manager_are_swapped() {
    let server = server("certificates");
    let (old, new) = (Authority::new(), Authority::new());
    let (cert, key) = old.sign(2098);
    let mut secret = Secret::new(&[("tls.crt", &cert), ("tls.key", &key), ("ca.crt", &old.pem)]);
    let path = |name| secret.file(name).display().to_string();
    let files = [("cert", path("tls.crt")), ("key", path("tls.key")), ("client_ca", path("ca.crt"))];
    let files = files.map(|(key, path)| format!("{key} = \"{path}\"")).join(", ");
    let options = Options::servers([server.addr()]).listener(&format!("tls = {{ mode = \"verify_ca\", {files} }}"));
    let proxy = Proxy::start(options);
    let port = proxy.port();
    let mut before = Client::login_showing(port, old.client(&old)).unwrap();
    assert!(Client::login_showing(port, new.client(&old)).is_err(), "a client of another authority");
    assert!(Client::login_trusting(port, &secret.file("ca.crt")).is_err(), "a client without certificate");
    let end = || proxy.metric("holdfast_certificate_expiry_timestamp_seconds", &["listener"]);
    let first = end();

    // The same authority, another certificate, as a renewal is one.
    let (renewed, key) = old.sign(2099);
    secret.swap(&[("tls.crt", &renewed), ("tls.key", &key), ("ca.crt", &old.pem)]);
    proxy.wait_log("certificates reloaded");
    Client::login_showing(port, old.client(&old)).unwrap();
    until("the metric names the new end", SOON, || end() > first);

    // Another authority.
    let (cert, key) = new.sign(2100);
    secret.swap(&[("tls.crt", &cert), ("tls.key", &key), ("ca.crt", &new.pem)]);
    until("listener and clients are the new authority's", SOON, || {
        Client::login_showing(port, new.client(&new)).is_ok()
    });
    assert!(Client::login_showing(port, old.client(&new)).is_err(), "a client of the old authority");
    assert!(Client::login_showing(port, new.client(&old)).is_err(), "the old authority's certificate is not shown");
    assert_eq!(before.one("SELECT 1"), "1", "who is in stays in");
    assert!(!proxy.log().contains("not taken over") && !proxy.log().contains("not reloaded"), "{}", proxy.log());
}

#[test]
fn the_ca_of_the_servers_is_swapped() {
    let server = server("server-ca");
    let other = Authority::new();
    let right = std::fs::read_to_string(Testbed::get().tls().ca).unwrap();
    let mut secret = Secret::new(&[("ca.crt", &other.pem)]);
    let tls = format!("tls = {{ mode = \"VERIFY_CA\", ca = \"{}\" }}", secret.file("ca.crt").display());
    let proxy = Proxy::launch(Options::servers([server.addr()]).cluster(&tls));
    until("the server is not trusted", SOON, || proxy.http("/topology").unwrap().1.contains("UnknownIssuer"));

    secret.swap(&[("ca.crt", &right)]);
    until("the primary is proven", SOON, || has_primary(&proxy));
    assert_eq!(proxy.client().one("SELECT 1"), "1");
}
