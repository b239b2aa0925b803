//! The Kubernetes of `deploy/local/demo.sh --kubernetes`: a real API server with its controllers, and a node whose pods really
//! run, each in a network namespace of its own. The testbed's code (tests/testbed) does all of it.
//!
//! What is not real: the kubelet and the scheduler are played by that node, and a pod's programs are those of this machine, not
//! of its image. MysqlClusters and what keeps them are the demo's own business; nothing here knows of them.
//!
//! Writes into the folder it is given:
//!
//! | file | contents |
//! | --- | --- |
//! | `kubeconfig` | the administrator's |
//! | `proxy.kubeconfig`, `reconciler.kubeconfig` | of the ServiceAccounts `holdfast` and `holdfast-reconciler`, who may do nothing until granted |
//! | `pods` | one line for each pod that runs: its name, address, process id; the file comes last |
//!
//! Ends, and all of it, at SIGTERM.

#[path = "../../../tests/testbed/mod.rs"]
mod testbed;

use anyhow::{Context, Result};
use clap::Parser;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::kubernetes::{ControlPlane, ControlPlaneOptions, Network, Node, NodeOptions, specified};
use tokio::signal::unix::{SignalKind, signal};

const NAMESPACE: &str = "demo";
const ROLE: &str = "holdfast.io/role";
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// No question to the API server takes longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs a Kubernetes API server, its controllers, and pods as they are specified.
#[derive(Parser)]
struct Args {
    /// Where the files go; must exist.
    folder: PathBuf,
    /// The program of containers whose image is called holdfast.
    #[arg(long)]
    holdfast: String,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    Network::possible().map_err(anyhow::Error::msg)?;
    let stop = told_to_stop()?;
    let plane = Arc::new(ControlPlane::start_with(ControlPlaneOptions::with_controllers()));
    println!("  the API server is ready at {}", plane.url());
    // It lives as long as this process.
    let holdfast: &'static str = Box::leak(args.holdfast.into_boxed_str());
    let node = Node::start(&plane, NodeOptions::running(specified::runner(&plane, holdfast)));
    let cluster = Cluster { node, plane };
    cluster.write_access(&args.folder)?;
    let mut told = Told::default();
    while !stop.load(Ordering::Relaxed) {
        cluster.look(&args.folder, &mut told)?;
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// True from SIGTERM on.
fn told_to_stop() -> Result<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let mut terminate = {
        let _inside = runtime.enter();
        signal(SignalKind::terminate()).context("SIGTERM")?
    };
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        runtime.block_on(terminate.recv());
        told.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

struct Cluster {
    // ended in this order
    node: Node,
    plane: Arc<ControlPlane>,
}

/// What was printed and written last.
#[derive(Default)]
struct Told {
    primary: String,
    /// `None`: the file is not there yet.
    pods: Option<String>,
}

impl Cluster {
    fn write_access(&self, folder: &Path) -> Result<()> {
        self.plane.namespace(NAMESPACE);
        let proxy = self.plane.service_account(NAMESPACE, "holdfast");
        let reconciler = self.plane.service_account(NAMESPACE, "holdfast-reconciler");
        let files = [("kubeconfig", self.plane.kubeconfig()), ("proxy.kubeconfig", proxy)];
        for (name, file) in files.into_iter().chain([("reconciler.kubeconfig", reconciler)]) {
            std::fs::copy(&file, folder.join(name)).with_context(|| name.to_owned())?;
        }
        Ok(())
    }

    /// Tells of a label that has moved, and keeps the file `pods` true.
    fn look(&self, folder: &Path, told: &mut Told) -> Result<()> {
        let Some(mut pods) = self.list() else { return Ok(()) };
        pods.sort_by(|a, b| name(a).cmp(name(b)));
        let primaries: Vec<&str> = pods.iter().filter(|pod| role(pod) == Some("primary")).map(name).collect();
        let primary = primaries.join(" and ");
        if primary != told.primary {
            println!("  label {ROLE}=primary: {}", if primary.is_empty() { "on no pod" } else { &primary });
            told.primary = primary;
        }
        let mut lines = String::new();
        for pod in pods.iter().map(name) {
            if let Some(running) = self.node.find(NAMESPACE, pod)
                && let Some(pid) = running.pid()
            {
                lines += &format!("{pod} {} {pid}\n", running.ip());
            }
        }
        if told.pods.as_ref() != Some(&lines) {
            let new = folder.join("pods.new");
            std::fs::write(&new, &lines).and_then(|()| std::fs::rename(&new, folder.join("pods"))).context("pods")?;
            told.pods = Some(lines);
        }
        Ok(())
    }

    /// The pods as the API server has them; `None` while it is away.
    fn list(&self) -> Option<Vec<Pod>> {
        let pods = self.plane.pods(NAMESPACE);
        let list = async { tokio::time::timeout(PATIENCE, pods.list(&ListParams::default())).await };
        Some(self.plane.run(list).ok()?.ok()?.items)
    }
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn role(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(ROLE).map(String::as_str)
}
