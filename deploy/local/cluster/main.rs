//! The Kubernetes of `deploy/local/demo.sh --kubernetes`: a real API server, and a group of three MySQL servers in pods that
//! really run, each in a network namespace of its own. The testbed's code (tests/testbed) does all of it.
//!
//! What KubeBlocks does in a cluster is played here: the role probe, which moves the label `kubeblocks.io/role` after the
//! group's own roles, letting members that came back join again, and making a deleted pod anew.
//!
//! Writes into the folder it is given:
//!
//! | file | contents |
//! | --- | --- |
//! | `kubeconfig` | the administrator's |
//! | `proxy.kubeconfig` | of a ServiceAccount that may do what deploy/kubernetes lets the proxy do: list and watch pods |
//! | `pods` | one line for each pod that runs: its name, address, process id of its mysqld; there when all is ready |
//!
//! Ends, and all of it, at SIGTERM.

#[path = "../../../tests/testbed/mod.rs"]
mod testbed;

use anyhow::{Context, Result};
use clap::Parser;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::kubernetes::kubeblocks::{self, PodGroup, ROLE};
use testbed::kubernetes::{ControlPlane, Network, Node, NodeOptions, Scope};
use tokio::signal::unix::{SignalKind, signal};

const NAMESPACE: &str = "demo";
const CLUSTER: &str = "demo";
const MEMBERS: usize = 3;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// No question to the API server takes longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs a group of three MySQL servers in pods of a real Kubernetes API server.
#[derive(Parser)]
struct Args {
    /// Where the files go; must exist.
    folder: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    Network::possible().map_err(anyhow::Error::msg)?;
    let stop = told_to_stop()?;
    let plane = Arc::new(ControlPlane::start());
    println!("  the API server is ready at {}", plane.url());
    let node = Arc::new(Node::start(&plane, NodeOptions::running(kubeblocks::runner())));
    let group = PodGroup::start(&plane, &node, NAMESPACE, CLUSTER);
    // For exactly_once; the first member is the primary.
    group.member(0).sql("GRANT REPLICATION SLAVE ON *.* TO holdfast@'%'");
    let cluster = Cluster { plane, node, group };
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
    group: PodGroup,
    node: Arc<Node>,
    plane: Arc<ControlPlane>,
}

/// What was printed and written last.
#[derive(Default)]
struct Told {
    primary: String,
    pods: String,
}

impl Cluster {
    fn write_access(&self, folder: &Path) -> Result<()> {
        let account = self.plane.service_account(NAMESPACE, "holdfast");
        let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"] }]);
        self.plane.grant(&format!("system:serviceaccount:{NAMESPACE}:holdfast"), Scope::Namespace(NAMESPACE), &rules);
        for (name, file) in [("kubeconfig", self.plane.kubeconfig()), ("proxy.kubeconfig", account)] {
            std::fs::copy(&file, folder.join(name)).with_context(|| name.to_owned())?;
        }
        Ok(())
    }

    /// Tells of a label that has moved, makes pods that were deleted, and keeps the file `pods` true.
    fn look(&self, folder: &Path, told: &mut Told) -> Result<()> {
        let Some(pods) = self.list() else { return Ok(()) };
        let primaries: Vec<&str> = pods.iter().filter(|pod| role(pod) == Some("primary")).map(name).collect();
        let primary = primaries.join(" and ");
        if primary != told.primary {
            println!("  label {ROLE}=primary: {}", if primary.is_empty() { "on no pod" } else { &primary });
            told.primary = primary;
        }
        let mut lines = String::new();
        for index in 0..MEMBERS {
            let pod = self.group.pod_name(index);
            if !pods.iter().any(|known| name(known) == pod) {
                println!("  pod {pod} was deleted: making it anew");
                self.group.create(index);
            } else if let Some(running) = self.node.find(NAMESPACE, &pod)
                && let Some(pid) = running.pid()
            {
                lines += &format!("{pod} {} {pid}\n", running.ip());
            }
        }
        if lines != told.pods {
            let new = folder.join("pods.new");
            std::fs::write(&new, &lines).and_then(|()| std::fs::rename(&new, folder.join("pods"))).context("pods")?;
            told.pods = lines;
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
