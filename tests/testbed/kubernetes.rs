//! A real Kubernetes control plane for tests, and a node whose pods really run.
//!
//! [`ControlPlane`] is etcd, kube-apiserver and, if asked for, kube-controller-manager, as processes on 127.0.0.1 with
//! certificates and an etcd of their own: RBAC is on, ServiceAccount tokens work, and the API server can be killed and
//! started again with what it knew. There is no scheduler and no kubelet; [`Node`] plays both.
//!
//! Everything here blocks, as everywhere in the testbed; the client of [`ControlPlane::client`] is the exception: it may be
//! used from any runtime, its connections are served by a thread of the control plane's own.
//!
//! What version 1.20 does not have: policy/v1 and discovery.k8s.io/v1 (v1beta1 is there), streaming lists, CEL rules; and in
//! server-side apply it wants `protocol` named in every list of ports.
#![allow(dead_code, unused_imports, reason = "each test crate uses some of it")]

mod access;
mod certificates;
mod disks;
pub mod kubeblocks;
mod network;
mod node;
mod objects;
mod pod;
pub mod program;
pub mod specified;

use super::{Daemon, Port, StartError, Testbed, until};
pub use certificates::{Authority, Identity};
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

pub use access::Scope;
pub use disks::Disks;
pub use network::{Network, Place};
pub use node::{Node, NodeOptions};
pub use objects::{is_ready, pod_ip, pod_key};
pub use pod::RunningPod;
pub use program::{Program, Runner, Sandbox, mysqld};

/// How long anything of the control plane may take to get ready.
const SOON: Duration = Duration::from_secs(300);

/// What the control plane is to be.
#[derive(Debug, Clone, Default)]
pub struct ControlPlaneOptions {
    /// Controllers to run, by kube-controller-manager's names; none: no controller manager at all. Without `serviceaccount`
    /// and `serviceaccount-token` pods are admitted although their ServiceAccount has no token.
    pub controllers: Vec<&'static str>,
    /// Further arguments of kube-apiserver.
    pub api_arguments: Vec<String>,
}

impl ControlPlaneOptions {
    /// With the controllers that make StatefulSets, Deployments, Endpoints, namespaces and ServiceAccounts work.
    pub fn with_controllers() -> Self {
        let controllers = [
            "statefulset",
            "deployment",
            "replicaset",
            "endpoint",
            "endpointslice",
            "garbagecollector",
            "namespace",
            "serviceaccount",
            "serviceaccount-token",
            "root-ca-cert-publisher",
            "persistentvolume-binder",
            "pvc-protection",
            "disruption",
        ];
        ControlPlaneOptions { controllers: controllers.into(), ..ControlPlaneOptions::default() }
    }
}

/// A running control plane.
pub struct ControlPlane {
    // first: nobody talks to servers that are being ended
    runtime: Runtime,
    client: kube::Client,
    controllers: Option<Daemon>,
    api: Daemon,
    etcd: Daemon,
    authority: Authority,
    ports: Ports,
    options: ControlPlaneOptions,
}

struct Ports {
    api: Port,
    etcd: Port,
    peers: Port,
    controllers: Port,
}

impl ControlPlane {
    /// etcd and the API server, without controllers: what most tests need. Returns when it is ready, after some 4 s.
    pub fn start() -> ControlPlane {
        ControlPlane::start_with(ControlPlaneOptions::default())
    }

    /// The same with the test's own options.
    pub fn start_with(options: ControlPlaneOptions) -> ControlPlane {
        let (etcd, api) = (Daemon::new("etcd"), Daemon::new("kube-apiserver"));
        let controllers = (!options.controllers.is_empty()).then(|| Daemon::new("kube-controller-manager"));
        let ports = Ports { api: Port::take(), etcd: Port::take(), peers: Port::take(), controllers: Port::take() };
        let authority = Authority::new();
        authority.write_server(api.dir());
        let admin = access::kubeconfig(&authority, &ports.api, &authority.client("admin", &["system:masters"]));
        fs::write(api.dir().join("admin.kubeconfig"), admin.to_string()).expect("the folder is writable");
        let runtime = Runtime::start();
        let client = runtime.client(&admin);
        let plane = ControlPlane { runtime, client, controllers, api, etcd, authority, ports, options };
        plane.run_etcd().and_then(|()| plane.run_api()).unwrap_or_else(|e| panic!("{e}"));
        plane.wait_ready();
        plane.start_controllers();
        plane
    }

    /// Ends the API server at once (`kill -9`); etcd stays. Watches break, connections are refused.
    pub fn kill_api(&self) {
        self.api.kill9();
    }

    /// Starts the API server again, on its port and its data, and waits until it is ready.
    pub fn start_api(&self) {
        self.run_api().unwrap_or_else(|e| panic!("{e}"));
        self.wait_ready();
    }

    /// The API server's process, to freeze or look at.
    pub fn api_server(&self) -> &Daemon {
        &self.api
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        access::url(&self.ports.api)
    }

    /// A client that may do everything. Cheap to clone; usable from any runtime.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Runs a future to its end on the calling thread (which must not be a runtime's).
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.handle.block_on(future)
    }

    /// The administrator's kubeconfig.
    fn admin(&self) -> serde_json::Value {
        let text = fs::read_to_string(self.kubeconfig()).expect("written at start");
        serde_json::from_str(&text).expect("our own kubeconfig")
    }

    fn run_etcd(&self) -> Result<(), StartError> {
        let of = |port: &Port| format!("http://127.0.0.1:{}", port.number());
        let (clients, peers) = (of(&self.ports.etcd), of(&self.ports.peers));
        let mut etcd = Command::new(Testbed::get().path("kubernetes", "ETCD"));
        etcd.args(["--name", "test", "--log-level", "warn", "--data-dir"])
            .arg(self.etcd.dir().join("data"))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("test={peers}")]);
        self.etcd.run(&etcd)
    }

    fn run_api(&self) -> Result<(), StartError> {
        let mut api = Command::new(Testbed::get().path("kubernetes", "KUBE_APISERVER"));
        let file = |name: &str| self.api.dir().join(name).display().to_string();
        for (option, value) in [
            ("etcd-servers", format!("http://127.0.0.1:{}", self.ports.etcd.number())),
            ("bind-address", "127.0.0.1".to_owned()),
            ("advertise-address", "127.0.0.1".to_owned()),
            ("secure-port", self.ports.api.number().to_string()),
            ("endpoint-reconciler-type", "none".to_owned()),
            ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("allow-privileged", "true".to_owned()),
            ("profiling", "false".to_owned()),
            ("cert-dir", self.api.dir().display().to_string()),
            ("tls-cert-file", file("server.pem")),
            ("tls-private-key-file", file("server-key.pem")),
            ("client-ca-file", file("ca.pem")),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("service-account-key-file", file("accounts.pem")),
            ("service-account-signing-key-file", file("accounts-key.pem")),
        ] {
            api.arg(format!("--{option}={value}"));
        }
        if !self.options.controllers.contains(&"serviceaccount-token") {
            api.arg("--disable-admission-plugins=ServiceAccount");
        }
        api.args(&self.options.api_arguments);
        self.api.run(&api)
    }

    fn wait_ready(&self) {
        let begin = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports.api.number()));
        until("the API server is ready", SOON, || {
            for daemon in [&self.etcd, &self.api] {
                assert!(daemon.running(), "{}", daemon.failed("died at start; its log says:"));
            }
            std::net::TcpStream::connect(address).is_ok() && self.run(is_up(&self.client))
        });
        eprintln!("testbed: API server ready after {} ms", begin.elapsed().as_millis());
    }

    fn start_controllers(&self) {
        let Some(daemon) = &self.controllers else { return };
        let user = self.authority.client("system:kube-controller-manager", &[]);
        let config = daemon.dir().join("kubeconfig");
        let text = access::kubeconfig(&self.authority, &self.ports.api, &user).to_string();
        fs::write(&config, text).expect("the folder is writable");
        let mut command = Command::new(Testbed::get().path("kubernetes", "KUBE_CONTROLLER_MANAGER"));
        let file = |name: &str| self.api.dir().join(name).display().to_string();
        for (option, value) in [
            ("kubeconfig", config.display().to_string()),
            ("use-service-account-credentials", "true".to_owned()),
            ("leader-elect", "false".to_owned()),
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", self.ports.controllers.number().to_string()),
            ("port", "0".to_owned()),
            ("cert-dir", daemon.dir().display().to_string()),
            ("controllers", self.options.controllers.join(",")),
            ("service-account-private-key-file", file("accounts-key.pem")),
            ("root-ca-file", file("ca.pem")),
            ("pvclaimbinder-sync-period", "1s".to_owned()),
            ("profiling", "false".to_owned()),
        ] {
            command.arg(format!("--{option}={value}"));
        }
        daemon.run(&command).unwrap_or_else(|e| panic!("{e}"));
        if self.options.controllers.contains(&"serviceaccount-token") {
            // pods are refused until then
            until("the default ServiceAccount has a token", SOON, || {
                assert!(daemon.running(), "{}", daemon.failed("died at start; its log says:"));
                let name = ["-n", "default", "get", "serviceaccount", "default", "-o", "jsonpath={.secrets[0].name}"];
                self.kubectl(&name).is_ok_and(|name| !name.is_empty())
            });
        }
    }
}

/// It says so, and has made the namespace that is always there: on a busy machine that comes later.
async fn is_up(client: &kube::Client) -> bool {
    let ask = async |path: &str| {
        let request = hyper::Request::get(path).body(Vec::new()).expect("a plain request");
        client.request_text(request).await
    };
    ask("/readyz").await.is_ok_and(|answer| answer == "ok") && ask("/api/v1/namespaces/default").await.is_ok()
}

/// A thread that serves what the blocking calls of the test threads wait for; ended when dropped.
struct Runtime {
    handle: tokio::runtime::Handle,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Runtime {
    fn start() -> Runtime {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let serve = move || {
            let _ = runtime.block_on(ended);
        };
        let thread = std::thread::Builder::new().name("kubernetes".to_owned()).spawn(serve).expect("a thread");
        Runtime { handle, end: Some(end), thread: Some(thread) }
    }

    /// A client whose connections live here.
    fn client(&self, kubeconfig: &serde_json::Value) -> kube::Client {
        let kubeconfig = serde_json::from_value(kubeconfig.clone()).expect("our own kubeconfig");
        let options = kube::config::KubeConfigOptions::default();
        self.handle.block_on(async {
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("our own kubeconfig");
            kube::Client::try_from(config).expect("a client")
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
