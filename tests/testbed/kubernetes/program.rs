//! What runs in a pod: a command, how to tell whether it is ready, and mysqld in particular.

use super::disks::Disks;
use crate::testbed::ServerOptions;
use crate::testbed::server::{Site, copy_template, option_file, server_program};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Decides what a pod runs, each time its container is started.
pub type Runner = Arc<dyn Fn(&Pod, &Sandbox) -> Program + Send + Sync>;

/// What a container is given.
#[derive(Clone)]
pub struct Sandbox {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The pod's folder, for logs and option files; gone with the pod.
    pub folder: PathBuf,
    pub(super) volumes: PathBuf,
    pub(super) disks: Arc<Disks>,
}

impl Sandbox {
    /// The folder of the pod's volume of that name. A claim's outlives the pod: whoever claims it next finds it. Any other
    /// (an emptyDir, or none in the pod's spec) lives as long as the pod.
    pub fn volume(&self, pod: &Pod, name: &str) -> PathBuf {
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
        let volume = volumes.and_then(|all| all.iter().find(|v| v.name == name));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(claim) = volume.and_then(|v| v.persistent_volume_claim.as_ref()) {
            return self.disks.of(&format!("{namespace}/{}", claim.claim_name));
        }
        let folder = self.volumes.join(name);
        fs::create_dir_all(&folder).expect("the testbed's folder is writable");
        folder
    }

    /// The same command, run where the volumes are.
    pub fn inside(&self, command: Command) -> Command {
        self.disks.inside(command)
    }
}

/// A command and its readiness probe.
pub struct Program {
    pub command: Command,
    pub ready: Probe,
}

/// Tells whether the program with that process id is ready. Must answer within a second or so.
pub type Probe = Box<dyn Fn(u32) -> bool + Send>;

/// mysqld on port 3306 of the pod's address, its data in the volume `data`. The options may depend on the pod.
pub fn mysqld(options: impl Fn(&Pod, &Sandbox) -> ServerOptions + Send + Sync + 'static) -> Runner {
    Arc::new(move |pod, sandbox| {
        let options = options(pod, sandbox);
        let data = sandbox.volume(pod, "data").join("data");
        if !data.exists() {
            // copied aside first: a half copy must not be taken for a data directory
            let fresh = data.with_extension("fresh");
            let _ = fs::remove_dir_all(&fresh);
            assert!(copy_template(options.flavor, &fresh), "the data directory could not be copied");
            fs::rename(&fresh, &data).expect("the volume is writable");
        }
        let site = Site { dir: sandbox.folder.clone(), data, host: sandbox.ip.to_string(), port: 3306 };
        let [.., network, host] = sandbox.ip.octets();
        let server_id = u32::from(network) * 256 + u32::from(host);
        let file = sandbox.folder.join("my.cnf");
        let text = option_file(&options, &site) + &format!("bind-address=0.0.0.0\nserver-id={server_id}\n");
        fs::write(&file, text).expect("the pod's folder is writable");
        let mut command = Command::new(server_program(options.flavor));
        command.arg(format!("--defaults-file={}", file.display()));
        Program { command, ready: Box::new(greets) }
    })
}

/// The readinessProbe of the pod's first container: httpGet and tcpSocket, with ports by number or name; always ready if there
/// is none. Exec probes are the runner's to replace: there is no image whose programs they could be.
pub fn as_specified(pod: &Pod, ip: Ipv4Addr) -> Probe {
    let container = pod.spec.as_ref().and_then(|s| s.containers.first());
    let Some(probe) = container.and_then(|c| c.readiness_probe.as_ref()) else { return Box::new(|_| true) };
    let number = |port: &IntOrString| match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let ports = container.and_then(|c| c.ports.as_ref())?;
            let named = ports.iter().find(|p| p.name.as_ref() == Some(name))?;
            u16::try_from(named.container_port).ok()
        }
    };
    if let Some(get) = &probe.http_get {
        return http(ip, number(&get.port).expect("a port"), get.path.as_deref().unwrap_or("/"));
    }
    let socket = probe.tcp_socket.as_ref().expect("a readiness probe of kind httpGet or tcpSocket");
    tcp(ip, number(&socket.port).expect("a port"))
}

/// Ready when GET of that path is answered with 200 to 399, as the kubelet has it.
pub fn http(ip: Ipv4Addr, port: u16, path: &str) -> Probe {
    let (address, request) = (SocketAddr::from((ip, port)), format!("GET {path} HTTP/1.0\r\nHost: {ip}\r\n\r\n"));
    Box::new(move |_| {
        let patience = Some(Duration::from_secs(1));
        let status = || -> std::io::Result<[u8; 12]> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(patience)?;
            stream.write_all(request.as_bytes())?;
            let mut line = [0; 12];
            stream.read_exact(&mut line)?;
            Ok(line)
        };
        // "HTTP/1.1 200"
        status().is_ok_and(|line| line.starts_with(b"HTTP/1.") && matches!(line[9], b'2' | b'3'))
    })
}

/// Ready when the port of the pod takes connections, tried over the network.
pub fn tcp(ip: Ipv4Addr, port: u16) -> Probe {
    let address = SocketAddr::from((ip, port));
    Box::new(move |_| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
}

/// Whether the mysqld with that process id greets a client (packet of protocol version 10). Asked through its socket file,
/// which is reached however its network is: a kubelet shares the node with its pods.
pub fn greets(pid: u32) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket(pid)) else { return false };
    let mut start = [0; 5];
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.read_exact(&mut start).is_ok()
        && start[4] == 10
}

/// The socket file of the mysqld with that process id: the data directory is its working directory, and this path stays
/// below the 107 bytes that a socket's may have.
pub fn socket(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("cwd/mysqld.sock")
}
