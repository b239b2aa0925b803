//! A group replication group in pods, as KubeBlocks makes and labels it, and that part of the operator that matters here:
//! the role probe, which moves the label `kubeblocks.io/role` after the group's own roles.
//!
//! Names and labels are those of a cluster `NAME` with one component `mysql`: pods `NAME-mysql-0..`, each with the claim
//! `data-NAME-mysql-0..`. The probe asks inside the pod, so it goes on when the pod's network is cut, and writes the role it
//! saw with `apps.kubeblocks.io/last-role-authoritative-version` (microseconds since 1970). A member that does not answer
//! keeps its label.
//!
//! It also lets a member that came back join the group again, unless told not to.

use super::pod::RunningPod;
use super::program::{Runner, mysqld};
use super::{ControlPlane, Node};
use crate::testbed::{ServerOptions, until};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// The label that names the role.
pub const ROLE: &str = "kubeblocks.io/role";
/// The annotation that orders the roles.
pub const VERSION: &str = "apps.kubeblocks.io/last-role-authoritative-version";
/// On pods of a group: the group's name (a UUID), for the [`runner`].
const GROUP: &str = "testbed/group";
const SOON: Duration = Duration::from_secs(120);
const JOIN: &str = "START GROUP_REPLICATION USER='repl', PASSWORD='repl'";
const MEMBERS: &str = "performance_schema.replication_group_members";

/// What a [`Node`] must run for groups: mysqld with group replication in pods of a group, mysqld alone in all others.
pub fn runner() -> Runner {
    mysqld(|pod, sandbox| {
        let options = ServerOptions::mysql();
        let Some(group) = pod.metadata.annotations.as_ref().and_then(|a| a.get(GROUP)) else { return options };
        [
            "plugin-load-add=group_replication.so".to_owned(),
            "plugin-load-add=mysql_clone.so".to_owned(),
            format!("loose-group_replication_group_name={group}"),
            format!("loose-group_replication_local_address={}:33061", sandbox.ip),
            "loose-group_replication_start_on_boot=OFF".to_owned(),
            "loose-group_replication_recovery_get_public_key=ON".to_owned(),
            "loose-group_replication_recovery_use_ssl=ON".to_owned(),
            "loose-group_replication_message_cache_size=128M".to_owned(),
            // with 0 a kill -9 of the primary has a new one after some 6 s
            "loose-group_replication_member_expel_timeout=0".to_owned(),
            "loose-group_replication_unreachable_majority_timeout=5".to_owned(),
        ]
        .into_iter()
        .fold(options, ServerOptions::with)
    })
}

/// A group that runs in pods. The operator's part ends when it is dropped; the pods stay until the node is.
pub struct PodGroup {
    inner: Arc<Inner>,
    operator: Option<JoinHandle<()>>,
}

struct Inner {
    plane: Arc<ControlPlane>,
    node: Arc<Node>,
    namespace: String,
    cluster: String,
    members: usize,
    group: String,
    /// The role probe writes labels.
    labels: AtomicBool,
    /// Members that came back are let in.
    heals: AtomicBool,
    ended: AtomicBool,
    period: Duration,
}

impl PodGroup {
    /// Three members of the cluster `cluster` in `namespace` (made if need be), all ONLINE and labelled, the first being the
    /// primary. The node must run [`runner`].
    pub fn start(plane: &Arc<ControlPlane>, node: &Arc<Node>, namespace: &str, cluster: &str) -> PodGroup {
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("Linux has /proc");
        let inner = Arc::new(Inner {
            plane: Arc::clone(plane),
            node: Arc::clone(node),
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
            members: 3,
            group: uuid.trim().to_owned(),
            labels: AtomicBool::new(true),
            heals: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            period: Duration::from_secs(1),
        });
        plane.namespace(namespace);
        (0..inner.members).for_each(|i| inner.create(i));
        (0..inner.members).for_each(|i| drop(plane.wait_pod_ready(namespace, &inner.pod_name(i))));
        inner.bootstrap(0);
        std::thread::scope(|scope| {
            for i in 1..inner.members {
                let inner = &inner;
                scope.spawn(move || inner.join(i).unwrap_or_else(|e| panic!("{e}")));
            }
        });
        let mut group = PodGroup { inner, operator: None };
        group.wait_online(group.inner.members);
        group.label_now();
        let inner = Arc::clone(&group.inner);
        group.operator = Some(std::thread::spawn(move || inner.operate()));
        group
    }

    /// Whether the role probe writes labels; it does at first. What it writes may still arrive when this returns.
    pub fn operator_labels(&self, yes: bool) {
        self.inner.labels.store(yes, Ordering::SeqCst);
    }

    /// Whether members that came back are let into the group; they are at first.
    pub fn operator_heals(&self, yes: bool) {
        self.inner.heals.store(yes, Ordering::SeqCst);
    }

    /// The namespace of its pods.
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// Name of the pod of that index.
    pub fn pod_name(&self, index: usize) -> String {
        self.inner.pod_name(index)
    }

    /// The pod of that index; waits until it runs.
    pub fn member(&self, index: usize) -> Arc<RunningPod> {
        self.inner.node.pod(&self.inner.namespace, &self.pod_name(index))
    }

    /// Index of the primary, if a majority of the members names it and it answers.
    pub fn primary_index(&self) -> Option<usize> {
        self.inner.primary()
    }

    /// Waits for a writable primary other than `old`; its index.
    pub fn wait_primary(&self, old: Option<usize>) -> usize {
        let mut found = 0;
        until("the group has a writable primary", SOON, || {
            let Some(index) = self.primary_index().filter(|i| Some(*i) != old) else { return false };
            found = index;
            self.inner.ask(index, "SELECT @@super_read_only").as_deref() == Some("0")
        });
        found
    }

    /// Waits until a member sees exactly `count` members, all ONLINE, and as many see it so.
    pub fn wait_online(&self, count: usize) {
        let sql = format!("SELECT CONCAT(SUM(MEMBER_STATE='ONLINE'), '/', COUNT(*)) FROM {MEMBERS}");
        let want = format!("{count}/{count}");
        until("all members are ONLINE", SOON, || {
            (0..self.inner.members).filter(|i| self.inner.ask(*i, &sql).as_ref() == Some(&want)).count() >= count
        });
    }

    /// Planned switchover to the member `index`.
    pub fn set_as_primary(&self, index: usize) {
        let member = self.member(index);
        let uuid = member.one("SELECT @@server_uuid").expect("it answers");
        member.sql(&format!("SELECT group_replication_set_as_primary('{uuid}')"));
    }

    /// Index of the pod whose label says primary, if exactly one does.
    pub fn labelled_primary(&self) -> Option<usize> {
        let is = |i: &usize| self.role_label(*i).as_deref() == Some("primary");
        let mut labelled = (0..self.inner.members).filter(is);
        labelled.next().filter(|_| labelled.next().is_none())
    }

    /// The role label of a pod.
    pub fn role_label(&self, index: usize) -> Option<String> {
        let pod = self.inner.plane.pod(&self.inner.namespace, &self.pod_name(index))?;
        pod.metadata.labels?.remove(ROLE)
    }

    /// Moves or takes away a role label by hand; turn the operator's labels off first.
    pub fn set_role_label(&self, index: usize, role: Option<&str>) {
        self.inner.plane.relabel(&self.inner.namespace, &self.pod_name(index), &[(ROLE, role)]);
    }

    /// One round of the role probe, now.
    pub fn label_now(&self) {
        (0..self.inner.members).for_each(|i| self.inner.label(i));
    }

    /// Creates the pod of that index anew, after it was deleted: same name and claim, another address.
    pub fn create(&self, index: usize) {
        self.inner.create(index);
    }

    /// Lets a member into the group, founding it anew is [`PodGroup::bootstrap`].
    pub fn join(&self, index: usize) {
        self.inner.join(index).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Founds the group anew with that member, after all were down.
    pub fn bootstrap(&self, index: usize) {
        self.inner.bootstrap(index);
    }

    /// Deletes the pod with that grace period, waits until it is gone, and creates it again.
    pub fn recreate(&self, index: usize, grace_s: u32) {
        let name = self.pod_name(index);
        self.inner.plane.delete_pod(&self.inner.namespace, &name, Some(grace_s.max(1)));
        self.inner.plane.wait_pod_gone(&self.inner.namespace, &name);
        self.inner.create(index);
    }
}

impl Drop for PodGroup {
    fn drop(&mut self) {
        self.inner.ended.store(true, Ordering::SeqCst);
        if let Some(operator) = self.operator.take() {
            let _ = operator.join();
        }
    }
}

impl Inner {
    fn pod_name(&self, index: usize) -> String {
        format!("{}-mysql-{index}", self.cluster)
    }

    fn create(&self, index: usize) {
        let name = self.pod_name(index);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": self.namespace,
                "labels": {
                    "app.kubernetes.io/managed-by": "kubeblocks",
                    "app.kubernetes.io/instance": self.cluster,
                    "apps.kubeblocks.io/component-name": "mysql",
                    "apps.kubeblocks.io/pod-name": name,
                },
                "annotations": {GROUP: self.group},
            },
            "spec": {
                "containers": [{"name": "mysql", "image": "mysql", "ports": [{"name": "mysql", "containerPort": 3306}]}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{name}")}}],
            },
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let created = self.plane.run(self.plane.pods(&self.namespace).create(&PostParams::default(), &pod));
        created.unwrap_or_else(|e| panic!("pod {name}: {e}"));
    }

    fn find(&self, index: usize) -> Option<Arc<RunningPod>> {
        self.node.find(&self.namespace, &self.pod_name(index))
    }

    fn ask(&self, index: usize, sql: &str) -> Option<String> {
        // a frozen one would keep us for the client's whole patience
        self.find(index).filter(|pod| pod.ready())?.one(sql)
    }

    fn primary(&self) -> Option<usize> {
        let sql = format!("SELECT MEMBER_HOST FROM {MEMBERS} WHERE MEMBER_ROLE='PRIMARY' AND MEMBER_STATE='ONLINE'");
        let votes: Vec<String> = (0..self.members).filter_map(|i| self.ask(i, &sql)).collect();
        (0..self.members).find(|i| {
            let ip = self.find(*i).map(|pod| pod.ip().to_string());
            votes.iter().filter(|vote| Some(*vote) == ip.as_ref()).count() * 2 > self.members
        })
    }

    fn bootstrap(&self, index: usize) {
        let pod = self.node.pod(&self.namespace, &self.pod_name(index));
        pod.sql(&format!(
            "SET GLOBAL group_replication_bootstrap_group=ON; {JOIN}; SET GLOBAL group_replication_bootstrap_group=OFF"
        ));
    }

    /// Addresses change with every pod, so the seeds are named at the moment of joining.
    fn join(&self, index: usize) -> Result<(), String> {
        let pod = self.find(index).ok_or_else(|| format!("{} does not run", self.pod_name(index)))?;
        let others = (0..self.members).filter(|i| *i != index).filter_map(|i| self.find(i));
        let seeds: Vec<String> = others.map(|other| format!("{}:33061", other.ip())).collect();
        let seeds = seeds.join(",");
        pod.try_sql(&format!("STOP GROUP_REPLICATION; SET GLOBAL group_replication_group_seeds='{seeds}'; {JOIN}"))
            .map(drop)
    }

    /// The operator's loop.
    fn operate(&self) {
        while !self.ended.load(Ordering::SeqCst) {
            let next = Instant::now() + self.period;
            if self.labels.load(Ordering::SeqCst) {
                (0..self.members).for_each(|i| self.label(i));
            }
            if self.heals.load(Ordering::SeqCst) {
                (0..self.members).for_each(|i| self.heal(i));
            }
            while Instant::now() < next && !self.ended.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// The role probe of one pod: the member's own view of itself.
    fn label(&self, index: usize) {
        let sql = format!("SELECT MEMBER_ROLE FROM {MEMBERS} WHERE MEMBER_ID=@@server_uuid AND MEMBER_STATE='ONLINE'");
        let role = match self.ask(index, &sql).as_deref() {
            Some("PRIMARY") => "primary",
            Some("SECONDARY") => "secondary",
            _ => return,
        };
        let name = self.pod_name(index);
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        let api = self.plane.pods(&self.namespace);
        let current = self.plane.run(async { tokio::time::timeout(Duration::from_secs(3), api.get_opt(&name)).await });
        let Ok(Ok(Some(pod))) = current else { return };
        if pod.metadata.labels.as_ref().and_then(|l| l.get(ROLE)).map(String::as_str) == Some(role) {
            return;
        }
        let patch = json!({"metadata": {"labels": {ROLE: role}, "annotations": {VERSION: at.to_string()}}});
        // the API server may be away: the next round tries again
        let _ = self.plane.try_patch(&self.namespace, &name, &patch);
    }

    /// Lets a member in that runs but belongs to no group, if there is a group to join.
    fn heal(&self, index: usize) {
        let sql = format!("SELECT MEMBER_STATE FROM {MEMBERS} WHERE MEMBER_ID=@@server_uuid OR MEMBER_ID=''");
        let outside = self.ask(index, &sql).is_some_and(|state| ["OFFLINE", "ERROR"].contains(&state.as_str()));
        if outside && self.primary().is_some_and(|primary| primary != index) {
            let _ = self.join(index);
        }
    }
}
