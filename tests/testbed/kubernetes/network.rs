//! Addresses for pods: each pod has a network namespace of its own, and a bridge joins those of one node to the test.
//!
//! ```text
//! the test's namespace        the node's          the pod's
//!   10.213.N.1  uplink ─────── bridge ─┬───────── eth0 10.213.N.2
//!                                      └───────── eth0 10.213.N.3
//! ```
//!
//! A namespace lives as long as the process that holds it (Kubernetes calls it the pause container). The kernel ends that
//! process with the test's own, and the namespaces, the bridge and all links go with it: nothing is left to clean up, however
//! the test ended. What does stay is one route that makes 10.213.0.0/16 unreachable: traffic for a pod that is gone must
//! never look for it outside this machine.
//!
//! Needs the right to make namespaces: root's, or what `in-namespace.sh` gives. See [`Network::possible`].

use crate::testbed::{daemon::spawn, until};
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// The network of one node. Pods hold on to their part of it themselves.
pub struct Network {
    number: u8,
    bridge: Holder,
    next: AtomicU8,
}

/// One pod's namespace, with its address; gone when dropped.
pub struct Place {
    ip: Ipv4Addr,
    /// Name of the bridge's end of the pod's link.
    link: String,
    /// Names of the test's side: the uplink, where the pod's address is known.
    uplink: String,
    bridge: u32,
    holder: Holder,
}

impl Network {
    /// Whether this process may make network namespaces, and why not.
    pub fn possible() -> Result<(), String> {
        let tried = Command::new("unshare").args(["-n", "true"]).output().map_err(|e| format!("unshare: {e}"))?;
        if !tried.status.success() {
            return Err(format!(
                "no network namespaces for pods: {} (run the tests as root, or as tests/run.sh does)",
                String::from_utf8_lossy(&tried.stderr).trim()
            ));
        }
        let ip = Command::new("ip").arg("-V").output();
        ip.map(drop).map_err(|e| format!("no network for pods: the program `ip` (iproute2): {e}"))
    }

    /// A new network with an address range of its own. Panics with the reason if there can be none.
    pub fn start() -> Network {
        Network::possible().unwrap_or_else(|e| panic!("{e}"));
        let bridge = Holder::start(None);
        // the name of the link is what keeps two processes from taking the same number
        let number = (1..=250)
            .find(|n| {
                match ip(None, &[format!("link add {} type veth peer name uplink netns {}", uplink(*n), bridge.pid())])
                {
                    Ok(()) => true,
                    Err(e) if e.contains("exists") => false,
                    Err(e) => panic!("no network for pods: {e}"),
                }
            })
            .expect("fewer than 250 nodes at a time");
        let network = Network { number, bridge, next: AtomicU8::new(2) };
        network.join_test().unwrap_or_else(|e| panic!("no network for pods: {e}"));
        network
    }

    fn join_test(&self) -> Result<(), String> {
        let (name, number) = (uplink(self.number), self.number);
        let guard = "route replace unreachable 10.213.0.0/16 metric 4000000000".to_owned();
        ip(None, &[guard, format!("addr add 10.213.{number}.1/24 dev {name}"), format!("link set {name} up")])?;
        let inside = ["link add bridge0 type bridge", "link set bridge0 up", "link set uplink master bridge0 up"];
        ip(Some(self.bridge.pid()), &inside.map(str::to_owned))
    }

    /// The node's own address, which is the test's in this network.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 1)
    }

    /// Name of the link on the test's side.
    pub fn uplink(&self) -> String {
        uplink(self.number)
    }

    /// A namespace for one more pod; addresses are never given twice.
    pub fn place(&self, hostname: &str) -> Place {
        let host = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(host < 255, "a node has addresses for 253 pods in its life");
        let place = Place {
            ip: Ipv4Addr::new(10, 213, self.number, host),
            link: format!("pod{host}"),
            uplink: uplink(self.number),
            bridge: self.bridge.pid(),
            holder: Holder::start(Some(hostname)),
        };
        place.connect().unwrap_or_else(|e| panic!("no network for {hostname}: {e}"));
        place
    }
}

impl Place {
    /// The pod's address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The same command, run in the pod's namespaces (network and host name).
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["-t", &self.holder.pid().to_string(), "-n", "-u", "--"]);
        inside.arg(command.get_program()).args(command.get_args());
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }

    /// Takes the pod off the network: what is sent to it or by it is lost without a word.
    pub fn cut_off(&self) {
        self.set_link("down");
    }

    /// Puts it back.
    pub fn join(&self) {
        self.set_link("up");
    }

    /// Takes the pod's address off the network for good: who asks for it is told that there is no such host.
    pub fn leave(&self) {
        // Either may have gone with the network. The link first: while it is there, an address that is asked for is found
        // again, and then lost in silence.
        let _ = ip(Some(self.bridge), &[format!("link del {}", self.link)]);
        let _ = ip(None, &[format!("neigh del {} dev {}", self.ip, self.uplink)]);
    }

    /// Loses what these two pods send each other, and nothing else; [`Place::join_with`] mends it.
    pub fn cut_from(&self, other: &Place) {
        self.route_to(other, "replace");
    }

    /// Undoes [`Place::cut_from`].
    pub fn join_with(&self, other: &Place) {
        self.route_to(other, "del");
    }

    /// Loses what the pod sends to its node, where the test and what it runs are; other pods reach it.
    pub fn cut_from_node(&self) {
        self.route_to_node("replace");
    }

    /// Undoes [`Place::cut_from_node`].
    pub fn join_node(&self) {
        self.route_to_node("del");
    }

    fn route_to_node(&self, verb: &str) {
        let [a, b, c, _] = self.ip.octets();
        let route = format!("route {verb} blackhole {}/32", Ipv4Addr::new(a, b, c, 1));
        ip(Some(self.holder.pid()), &[route]).unwrap_or_else(|e| panic!("{e}"));
    }

    fn route_to(&self, other: &Place, verb: &str) {
        for (from, to) in [(self, other), (other, self)] {
            let route = format!("route {verb} blackhole {}/32", to.ip);
            ip(Some(from.holder.pid()), &[route]).unwrap_or_else(|e| panic!("{e}"));
        }
    }

    fn set_link(&self, state: &str) {
        ip(Some(self.bridge), &[format!("link set {} {state}", self.link)]).unwrap_or_else(|e| panic!("{e}"));
    }

    fn connect(&self) -> Result<(), String> {
        let [_, _, number, host] = self.ip.octets();
        let (ip_, link, pid) = (self.ip, &self.link, self.holder.pid());
        let hardware = format!("02:00:0a:d5:{number:02x}:{host:02x}");
        let at_bridge = [
            format!("link add {link} type veth peer name eth0 netns {pid}"),
            format!("link set {link} master bridge0 up"),
        ];
        ip(Some(self.bridge), &at_bridge)?;
        let in_pod = [
            "link set lo up".to_owned(),
            format!("link set eth0 address {hardware}"),
            format!("addr add {ip_}/24 dev eth0"),
            "link set eth0 up".to_owned(),
        ];
        ip(Some(pid), &in_pod)?;
        // A router between nodes would not know that a pod is cut off; without this the test's kernel would, by ARP, and
        // report "no route to host" after 3 s.
        ip(None, &[format!("neigh replace {ip_} lladdr {hardware} nud permanent dev {}", self.uplink)])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(None, &[format!("link del {}", uplink(self.number))]);
    }
}

fn uplink(number: u8) -> String {
    format!("hfpods{number}")
}

/// Runs commands of ip(8) in the namespace of a process, or in our own.
fn ip(namespace: Option<u32>, commands: &[String]) -> Result<(), String> {
    let mut command = match namespace {
        None => Command::new("ip"),
        Some(pid) => {
            let mut inside = Command::new("nsenter");
            inside.args(["-t", &pid.to_string(), "-n", "ip"]);
            inside
        }
    };
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("ip: {e}"))?;
    let written = child.stdin.take().expect("piped").write_all((commands.join("\n") + "\n").as_bytes());
    let out = child.wait_with_output().map_err(|e| format!("ip: {e}"))?;
    match (out.status.success(), written) {
        (true, Ok(())) => Ok(()),
        _ => Err(format!("ip {}: {}", commands.join("; "), String::from_utf8_lossy(&out.stderr).trim())),
    }
}

/// A process that does nothing but hold namespaces.
pub(super) struct Holder {
    child: Child,
}

impl Holder {
    /// Of a network, and with a host name one for that too.
    fn start(hostname: Option<&str>) -> Holder {
        let script = "hostname \"$0\" || echo \"$0\" > /proc/sys/kernel/hostname; exec sleep infinity";
        match hostname {
            None => Holder::holding(&["-n", "sleep", "infinity"]),
            Some(name) => Holder::holding(&["-n", "-u", "sh", "-c", script, name]),
        }
    }

    /// Of mounts.
    pub(super) fn mounts() -> Holder {
        Holder::holding(&["-m", "sleep", "infinity"])
    }

    fn holding(unshare: &[&str]) -> Holder {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "unshare"]).args(unshare);
        let child = spawn({
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        });
        let holder = Holder { child: child.expect("setpriv and unshare (util-linux) are there") };
        let command_name = format!("/proc/{}/comm", holder.pid());
        until("the namespace is there", Duration::from_secs(10), || {
            fs::read_to_string(&command_name).is_ok_and(|name| name.trim() == "sleep")
        });
        holder
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
