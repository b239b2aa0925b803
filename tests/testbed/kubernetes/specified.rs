//! Pods run as they are specified: volumes as folders, init containers to their end, then the first container, each with the
//! programs that its image would have.
//!
//! What is not as in a container: all share one file system, so that a word that begins with a mount path is given the folder
//! of that volume instead, in arguments and in the options of a ConfigMap.

use super::ControlPlane;
use super::program::{Program, Runner, Sandbox, as_specified};
use crate::testbed::Flavor;
use crate::testbed::server::server_program;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Volume};
use kube::api::Api;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Runs pods of these images: `holdfast` is the program under test, everything else has mysqld.
pub fn runner(plane: &Arc<ControlPlane>, holdfast: &'static str) -> Runner {
    let plane = Arc::clone(plane);
    Arc::new(move |pod, sandbox| {
        let spec = pod.spec.as_ref().expect("a pod has a spec");
        let begun = sandbox.folder.join("initialised");
        if !begun.exists() {
            let mounts = mounts(pod, sandbox, &spec.containers[0]);
            spec.volumes.iter().flatten().for_each(|volume| fill(&plane, (pod, sandbox), volume, &mounts));
            for container in spec.init_containers.iter().flatten() {
                let out = sandbox
                    .inside(command(pod, sandbox, container, holdfast))
                    .output()
                    .expect("an init container's program");
                fs::write(sandbox.folder.join(format!("{}.log", container.name)), &out.stderr).expect("a log");
                assert!(out.status.success(), "{}: {}", container.name, String::from_utf8_lossy(&out.stderr));
            }
            fs::write(begun, "").expect("the pod's folder is writable");
        }
        let command = sandbox.inside(command(pod, sandbox, &spec.containers[0], holdfast));
        Program { command, ready: as_specified(pod, sandbox.ip) }
    })
}

/// The files of a ConfigMap's or Secret's volume.
fn fill(plane: &ControlPlane, (pod, sandbox): (&Pod, &Sandbox), volume: &Volume, mounts: &Mounts) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    if let Some(source) = &volume.config_map {
        let api: Api<ConfigMap> = Api::namespaced(plane.client(), namespace);
        let data = plane.run(api.get(&source.name)).expect("the ConfigMap is there").data.unwrap_or_default();
        let placed = |text: String| text.lines().map(|line| placed(line, mounts) + "\n").collect::<String>();
        files.extend(data.into_iter().map(|(name, text)| (name, placed(text).into_bytes())));
    } else if let Some(source) = &volume.secret {
        let api: Api<Secret> = Api::namespaced(plane.client(), namespace);
        let name = source.secret_name.as_deref().expect("a name");
        let data = plane.run(api.get(name)).expect("the Secret is there").data.unwrap_or_default();
        files.extend(data.into_iter().map(|(name, bytes)| (name, bytes.0)));
    }
    let folder = sandbox.volume(pod, &volume.name);
    files.into_iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).expect("a file"));
}

/// Where a container finds a volume, and where it is.
type Mounts = Vec<(String, PathBuf)>;

fn mounts(pod: &Pod, sandbox: &Sandbox, container: &Container) -> Mounts {
    let all = container.volume_mounts.iter().flatten();
    all.map(|mount| (mount.mount_path.clone(), sandbox.volume(pod, &mount.name))).collect()
}

fn command(pod: &Pod, sandbox: &Sandbox, container: &Container, holdfast: &str) -> Command {
    let mounts = mounts(pod, sandbox, container);
    let words: Vec<String> =
        container.command.iter().chain(&container.args).flatten().map(|w| placed(w, &mounts)).collect();
    let image = container.image.as_deref().unwrap_or_default();
    let mut command = if image.starts_with("holdfast") {
        let mut command = Command::new(holdfast);
        command.args(words);
        command
    } else {
        assert_eq!(words[0], "mysqld", "the only program of that image");
        let mut command = Command::new(server_program(Flavor::MySql));
        command.args(&words[1..]);
        // mysqld refuses to run as root unless told to; a dozen of them exhaust fs.aio-max-nr
        command.args(["--user=root", "--innodb-use-native-aio=OFF"]);
        command
    };
    for variable in container.env.iter().flatten() {
        let field =
            variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref()).map(|f| f.field_path.as_str());
        let value = match field {
            None => variable.value.clone().unwrap_or_default(),
            Some("metadata.name") => pod.metadata.name.clone().unwrap_or_default(),
            Some("status.podIP") => sandbox.ip.to_string(),
            Some(other) => panic!("the testbed does not know {other}"),
        };
        command.env(&variable.name, value);
    }
    command
}

/// The word with the volume's folder in place of its mount path.
fn placed(word: &str, mounts: &Mounts) -> String {
    let (option, path) = word.split_once('=').map_or(("", word), |(option, path)| (option, path));
    let found = mounts.iter().find_map(|(mount, folder)| Some(folder.join(inside(path, mount)?)));
    match (found, option) {
        (None, _) => word.to_owned(),
        (Some(path), "") => path.display().to_string(),
        (Some(path), option) => format!("{option}={}", path.display()),
    }
}

fn inside<'a>(path: &'a str, mount: &str) -> Option<&'a Path> {
    Path::new(path).strip_prefix(mount).ok()
}
