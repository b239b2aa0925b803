//! What is compared: the backend itself, HAProxy, MySQL Router and Holdfast, each as its own process with one thread for
//! the data path.

use crate::load;
use crate::process::Process;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Something that speaks MySQL on a port.
pub struct Contender {
    /// Name in the results.
    pub name: &'static str,
    /// Version, as it tells it.
    pub version: String,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its process; none for the backend itself.
    pub process: Option<Process>,
}

/// Names, in the order of the tables.
pub const DIRECT: &str = "direct";
/// HAProxy in TCP mode.
pub const HAPROXY: &str = "HAProxy (tcp)";
/// MySQL Router, static routing.
pub const ROUTER: &str = "MySQL Router (static)";
/// Holdfast, everything to the primary.
pub const PRIMARY: &str = "Holdfast (primary)";
/// Holdfast, reads on two followers.
pub const SPLIT: &str = "Holdfast (split)";

/// Where the programs are, and where their files go.
pub struct Setting {
    /// Configurations and logs.
    pub dir: PathBuf,
    /// First of the ports used.
    pub port_base: u16,
    /// The core of all proxies; only one of them works at a time.
    pub proxy_core: usize,
    /// Ports of the backend: source, then replicas.
    pub backend: Vec<u16>,
    /// Account that Holdfast asks servers about their roles with.
    pub prober: (&'static str, &'static str),
}

impl Setting {
    fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.dir.join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn start(&self, name: &str, program: &str, arguments: &[&str]) -> anyhow::Result<Process> {
        Process::start(self.proxy_core, &self.dir.join(format!("{name}.log")), program, arguments)
    }
}

/// Starts all of them and waits until each lets a client in. Programs that are not there are left out.
pub async fn start(setting: &Setting) -> anyhow::Result<Vec<Contender>> {
    let mut all = vec![Contender { name: DIRECT, version: String::new(), port: setting.backend[0], process: None }];
    match std::env::var("HAPROXY") {
        Ok(program) => all.push(haproxy(setting, &program)?),
        Err(_) => println!("no HAProxy: set HAPROXY to its path"),
    }
    match std::env::var("MYSQLROUTER") {
        Ok(program) => all.push(router(setting, &program)?),
        Err(_) => println!("no MySQL Router: set MYSQLROUTER to its path"),
    }
    all.push(holdfast(setting, PRIMARY, "primary", &setting.backend[..1], 3)?);
    if setting.backend.len() > 1 {
        all.push(holdfast(setting, SPLIT, "split", &setting.backend, 4)?);
    }
    for contender in &mut all {
        answers(contender, &setting.dir).await?;
    }
    Ok(all)
}

async fn answers(contender: &mut Contender, dir: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if contender.process.as_mut().is_some_and(Process::has_ended) {
            bail!("{} ended at its start: see {}", contender.name, dir.display());
        }
        match load::clients(contender.port, 1).await {
            Ok(mut clients) => return clients.remove(0).once().await.context(contender.name),
            Err(error) if Instant::now() > deadline => return Err(error.context(contender.name)),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The first line of what a program says of its version.
pub fn version(program: &str, argument: &str) -> String {
    let said = std::process::Command::new(program).arg(argument).output();
    let text = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    let words: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    let number = |word: &&&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    words.iter().find(number).map_or_else(|| words.join(" "), |word| (*word).to_owned())
}

fn haproxy(setting: &Setting, program: &str) -> anyhow::Result<Contender> {
    let (port, backend) = (setting.port_base + 1, setting.backend[0]);
    let config = setting.write(
        "haproxy.cfg",
        &format!(
            "global\n  maxconn 4000\n  nbthread 1\n\
             defaults\n  mode tcp\n  maxconn 4000\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             listen mysql\n  bind 127.0.0.1:{port}\n  server backend 127.0.0.1:{backend}\n"
        ),
    )?;
    let process = setting.start("haproxy", program, &["-db", "-f", &config])?;
    Ok(Contender { name: HAPROXY, version: version(program, "-v"), port, process: Some(process) })
}

fn router(setting: &Setting, program: &str) -> anyhow::Result<Contender> {
    let (port, backend) = (setting.port_base + 2, setting.backend[0]);
    let dir = setting.dir.join("router");
    std::fs::create_dir_all(&dir)?;
    let dir = dir.to_string_lossy();
    let plugins = match std::env::var("MYSQLROUTER_PLUGINS") {
        Ok(folder) => format!("plugin_folder={folder}\n"),
        Err(_) => String::new(),
    };
    let config = setting.write(
        "router.conf",
        &format!(
            "[DEFAULT]\n{plugins}logging_folder=\nruntime_folder={dir}\ndata_folder={dir}\n\
             max_total_connections=4000\nclient_ssl_mode=DISABLED\nserver_ssl_mode=DISABLED\n\
             [logger]\nlevel=WARNING\n[io]\nthreads=1\n\
             [routing:bench]\nbind_address=127.0.0.1\nbind_port={port}\ndestinations=127.0.0.1:{backend}\n\
             routing_strategy=first-available\nprotocol=classic\n"
        ),
    )?;
    let process = setting.start("router", program, &[&format!("--config={config}")])?;
    Ok(Contender { name: ROUTER, version: version(program, "--version"), port, process: Some(process) })
}

fn holdfast(
    setting: &Setting,
    name: &'static str,
    mode: &str,
    servers: &[u16],
    offset: u16,
) -> anyhow::Result<Contender> {
    let program = std::env::var("HOLDFAST").unwrap_or_else(|_| "target/release/holdfast".to_owned());
    let port = setting.port_base + offset;
    let servers: Vec<String> = servers.iter().map(|port| format!("{{ address = \"127.0.0.1:{port}\" }}")).collect();
    let (servers, (user, password)) = (servers.join(", "), setting.prober);
    let config = setting.write(
        &format!("holdfast-{mode}.toml"),
        &format!(
            "[proxy]\nworkers = 1\nmax_connections = 4000\n[log]\nlevel = \"warn\"\n\
             [[listener]]\nname = \"app\"\nlisten = \"127.0.0.1:{port}\"\ncluster = \"main\"\nmode = \"{mode}\"\n\
             max_connections = 4000\n\
             [[cluster]]\nname = \"main\"\nsource = \"static\"\nservers = [{servers}]\n\
             [cluster.account]\nuser = \"{user}\"\npassword = \"{password}\"\n[cluster.tls]\nmode = \"DISABLED\"\n"
        ),
    )?;
    let process = setting.start(&format!("holdfast-{mode}"), &program, &["proxy", "-c", &config])?;
    Ok(Contender { name, version: version(&program, "--version"), port, process: Some(process) })
}
