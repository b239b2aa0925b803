//! One mysqld or mariadbd: options, start, SQL through the real client, restart.

use super::{Daemon, Port, StartError, Testbed, TlsFiles, here};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Rows of a result as the command line client prints them; NULL is the text `NULL`.
pub type Rows = Vec<Vec<String>>;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// Oracle's MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// How a server is to be run; options not named here are in `mysqld.cnf` and `mariadbd.cnf`.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    pub flavor: Flavor,
    /// Appears in messages and in the folder's name.
    pub name: String,
    pub max_connections: u32,
    pub local_infile: bool,
    /// TLS with the certificates that mysqld made for itself (no subject alternative names) instead of the testbed's.
    pub auto_tls: bool,
    /// Further lines of the option file, `name=value`; they win over all others.
    pub options: Vec<String>,
}

impl ServerOptions {
    /// A MySQL server: 200 connections, LOCAL INFILE on.
    pub fn mysql() -> Self {
        ServerOptions {
            flavor: Flavor::MySql,
            name: "mysql".to_owned(),
            max_connections: 200,
            local_infile: true,
            auto_tls: false,
            options: Vec::new(),
        }
    }

    /// A MariaDB server, likewise.
    pub fn mariadb() -> Self {
        ServerOptions { flavor: Flavor::MariaDb, name: "mariadb".to_owned(), ..ServerOptions::mysql() }
    }

    /// With one more line in the option file.
    pub fn with(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// With another name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// With room for so many connections.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// With the certificates that mysqld makes for itself.
    pub fn auto_tls(mut self) -> Self {
        self.auto_tls = true;
        self
    }
}

/// A running server on 127.0.0.1. Signals and logs: see [`Daemon`].
#[derive(Debug)]
pub struct Server {
    daemon: Daemon,
    port: Port,
    options: ServerOptions,
}

impl Deref for Server {
    type Target = Daemon;
    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl Server {
    /// Starts a server and waits until it answers. Panics with its reasons if it does not.
    pub fn start(options: ServerOptions) -> Server {
        Server::try_start(options).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same, with the reasons as an error.
    pub fn try_start(options: ServerOptions) -> Result<Server, StartError> {
        let server = Server::launch(options, Port::take())?;
        server.wait_ready()?;
        Ok(server)
    }

    /// Starts a server without waiting for it: several start at once. Follow with [`Server::wait_ready`].
    pub(super) fn launch(options: ServerOptions, port: Port) -> Result<Server, StartError> {
        let server = Server { daemon: Daemon::new(&options.name), port, options };
        if !copy_template(server.options.flavor, &server.datadir()) {
            return Err(server.failed("has no data directory: the copy failed"));
        }
        server.write_options();
        server.run_server()?;
        Ok(server)
    }

    /// Waits until this very server answers, up to 60 s.
    pub(super) fn wait_ready(&self) -> Result<(), StartError> {
        let begin = Instant::now();
        let pid_file = self.pid_file().display().to_string();
        while begin.elapsed() < Duration::from_secs(60) {
            if !self.running() {
                return Err(self.failed("died at start; its log says:"));
            }
            if TcpStream::connect(self.addr()).is_ok()
                && let Ok(rows) = self.try_sql("SELECT @@pid_file")
            {
                // an answer alone could come from somebody else's server
                return match rows[0][0] == pid_file {
                    true => Ok(()),
                    false => Err(self.failed(&format!("has its port taken by {}", rows[0][0]))),
                };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(self.failed("does not answer after 60 s"))
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()))
    }

    /// `mysql://user:password@127.0.0.1:port/schema`
    pub fn url(&self, user: &str, password: &str, schema: &str) -> String {
        format!("mysql://{user}:{password}@{}/{schema}", self.addr())
    }

    /// Which server it is.
    pub fn flavor(&self) -> Flavor {
        self.options.flavor
    }

    /// Its data directory.
    pub fn datadir(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// Its error log.
    pub fn error_log(&self) -> PathBuf {
        self.dir().join("err.log")
    }

    /// The certificates it uses.
    pub fn tls(&self) -> TlsFiles {
        let mut files = Testbed::get().tls();
        if self.options.auto_tls {
            files.ca = self.datadir().join("ca.pem");
            files.server_cert = self.datadir().join("server-cert.pem");
            files.server_key = self.datadir().join("server-key.pem");
            files.client_cert = self.datadir().join("client-cert.pem");
            files.client_key = self.datadir().join("client-key.pem");
        }
        files
    }

    /// Its `@@server_uuid`.
    pub fn uuid(&self) -> String {
        self.one("SELECT @@server_uuid")
    }

    /// Rows of all results of `sql`, run as root. Panics with the server's error.
    pub fn sql(&self, sql: &str) -> Rows {
        self.try_sql(sql).unwrap_or_else(|e| panic!("{}: {e}\nin: {sql}", self.name()))
    }

    /// The first value of the first row. Panics if there is none.
    pub fn one(&self, sql: &str) -> String {
        let mut rows = self.sql(sql);
        assert!(!rows.is_empty(), "{}: no row from {sql}", self.name());
        rows.swap_remove(0).swap_remove(0)
    }

    /// Rows, or the client's message (`ERROR 1045 (28000): ...`).
    pub fn try_sql(&self, sql: &str) -> Result<Rows, String> {
        self.sql_as("root", "", sql)
    }

    /// The same as another user.
    pub fn sql_as(&self, user: &str, password: &str, sql: &str) -> Result<Rows, String> {
        query(self.flavor(), self.port(), user, password, sql)
    }

    /// Starts the server again on its port and its data, after it was ended by whatever means. Waits until it answers.
    pub fn start_again(&self) {
        self.run_server().and_then(|()| self.wait_ready()).unwrap_or_else(|e| panic!("{e}"));
    }

    /// SIGTERM if it runs, then [`Server::start_again`].
    pub fn restart(&self) {
        if self.running() {
            self.term();
        }
        self.start_again();
    }

    fn pid_file(&self) -> PathBuf {
        self.dir().join("mysqld.pid")
    }

    fn run_server(&self) -> Result<(), StartError> {
        let mut command = Command::new(server_program(self.flavor()));
        command.arg(format!("--defaults-file={}", self.dir().join("my.cnf").display()));
        self.run(&command)
    }

    fn write_options(&self) {
        let site =
            Site { dir: self.dir().to_owned(), data: self.datadir(), host: "127.0.0.1".to_owned(), port: self.port() };
        fs::write(self.dir().join("my.cnf"), option_file(&self.options, &site))
            .expect("the server's folder is writable");
    }
}

/// Where a server lives and under which address the others find it.
pub(super) struct Site {
    /// Its logs, pid file and option file.
    pub dir: PathBuf,
    pub data: PathBuf,
    pub host: String,
    /// Also its server id, unless the options say otherwise.
    pub port: u16,
}

/// A fresh data directory from the template; false if that failed. Obtains the part first if need be.
pub(super) fn copy_template(flavor: Flavor, data: &Path) -> bool {
    let bed = Testbed::get();
    let name = match flavor {
        Flavor::MySql => "mysql",
        Flavor::MariaDb => "mariadb",
    };
    server_program(flavor);
    let template = bed.root().join("template").join(name).join("data");
    let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(template).arg(data).status();
    copied.is_ok_and(|s| s.success())
}

/// Path of the flavor's server.
pub(super) fn server_program(flavor: Flavor) -> PathBuf {
    match flavor {
        Flavor::MySql => Testbed::get().path("mysql", "MYSQLD"),
        Flavor::MariaDb => Testbed::get().path("mariadb", "MARIADBD"),
    }
}

/// my.cnf: the common file, then where the server lives, then the test's own options.
pub(super) fn option_file(o: &ServerOptions, site: &Site) -> String {
    let common = match o.flavor {
        Flavor::MySql => "mysqld.cnf",
        Flavor::MariaDb => "mariadbd.cnf",
    };
    let mut text = fs::read_to_string(here().join(common)).expect("the option file is there");
    let mut line = |l: String| {
        text.push_str(&l);
        text.push('\n');
    };
    let (dir, data, port) = (site.dir.display(), site.data.display(), site.port);
    line(format!("datadir={data}\ntmpdir={data}\nlog-error={dir}/err.log\npid-file={dir}/mysqld.pid"));
    line(format!("port={port}\nserver-id={port}\nreport-host={}\nreport-port={port}", site.host));
    line(format!("max-connections={}", o.max_connections));
    line(format!("local-infile={}", u8::from(o.local_infile)));
    if !o.auto_tls {
        let tls = Testbed::get().tls();
        let (ca, cert, key) = (tls.ca.display(), tls.server_cert.display(), tls.server_key.display());
        line(format!("ssl-ca={ca}\nssl-cert={cert}\nssl-key={key}"));
    }
    if o.flavor == Flavor::MariaDb {
        let base = Testbed::get().path("mariadb", "MARIADB_PREFIX").join("usr");
        line(format!("basedir={0}\nplugin-dir={0}/lib/mysql/plugin", base.display()));
    }
    // mysqld refuses to run as root unless told to
    if fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0) {
        line("user=root".to_owned());
    }
    o.options.iter().for_each(|own| line(own.clone()));
    text
}

/// Runs SQL through the flavor's own command line client against any port of 127.0.0.1 (a proxy's, say), with a limit of
/// 60 s. Rows of all results, or the client's message.
pub fn query(flavor: Flavor, port: u16, user: &str, password: &str, sql: &str) -> Result<Rows, String> {
    query_at(flavor, &["-h127.0.0.1".to_owned(), format!("-P{port}")], (user, password), sql)
}

/// The same wherever the client's options `at` lead.
pub(super) fn query_at(flavor: Flavor, at: &[String], login: (&str, &str), sql: &str) -> Result<Rows, String> {
    let (user, password) = login;
    let bed = Testbed::get();
    let mut client = Command::new("timeout");
    client.arg("60");
    // an unpacked client looks for its login plugins in the wrong place
    let plugins = match flavor {
        Flavor::MySql => {
            client.arg(bed.path("mysql", "MYSQL")).args(["--no-defaults", "--connect-expired-password"]);
            // without it the first login through a proxy without TLS ends with error 2061, before any statement
            client.arg("--get-server-public-key");
            bed.path("mysql", "MYSQL_PLUGINS")
        }
        Flavor::MariaDb => {
            client.arg(bed.path("mariadb", "MARIADB")).arg("--no-defaults");
            bed.path("mariadb", "MARIADB_PLUGINS")
        }
    };
    if plugins.is_dir() {
        client.arg(format!("--plugin-dir={}", plugins.display()));
    }
    let out = client
        .arg("--connect-timeout=5")
        .args(at)
        .args(["--skip-column-names", "--batch", "--default-character-set=utf8mb4"])
        .args([format!("-u{user}"), format!("-e{sql}")])
        .env("MYSQL_PWD", password)
        .output()
        .map_err(|e| e.to_string())?;
    if out.status.success() {
        let text = String::from_utf8_lossy(&out.stdout);
        return Ok(text.lines().map(|l| l.split('\t').map(unescape).collect()).collect());
    }
    let message = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(match out.status.code() {
        Some(124) => format!("no answer within 60 s {message}"),
        _ => message,
    })
}

/// Undoes what the client's batch mode does to tab, newline, NUL and backslash.
fn unescape(field: &str) -> String {
    let mut plain = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        plain.push(match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => '\n',
            ('\\', Some('t')) => '\t',
            ('\\', Some('0')) => '\0',
            ('\\', Some(other)) => other,
            (c, _) => c,
        });
    }
    plain
}
