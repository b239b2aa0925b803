//! A group replication group in single-primary mode.

use super::{Port, Server, ServerOptions, until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(180);
const JOIN: &str = "START GROUP_REPLICATION USER='repl', PASSWORD='repl'";
const MEMBERS: &str = "performance_schema.replication_group_members";

/// What the group is to be.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    pub members: usize,
    /// Seconds after which a silent member is expelled, beyond the 5 of the failure detector. MySQL's default is 5; with
    /// 0 a kill -9 of the primary has a new one after some 6 s.
    pub expel_timeout_s: u32,
    /// Seconds after which a member that has lost the majority gives up. MySQL's default is 0: never.
    pub unreachable_majority_timeout_s: u32,
    pub server: ServerOptions,
}

impl Default for GroupOptions {
    /// Three members, quick to expel.
    fn default() -> Self {
        GroupOptions {
            members: 3,
            expel_timeout_s: 0,
            unreachable_majority_timeout_s: 5,
            server: ServerOptions::mysql().named("group"),
        }
    }
}

/// A running group; members are told apart by index.
#[derive(Debug)]
pub struct Group {
    members: Vec<Server>,
    /// Where the members talk to each other; held so that nobody takes them.
    _group_ports: Vec<Port>,
}

impl Group {
    /// Starts the servers at once, bootstraps the first and lets the others join. All are ONLINE when it returns.
    pub fn start(options: GroupOptions) -> Group {
        let group_ports: Vec<Port> = (0..options.members).map(|_| Port::take()).collect();
        let name = group_name();
        let members = (0..options.members)
            .map(|i| Server::launch(server_options(&options, &name, &group_ports, i), Port::take()))
            .collect::<Result<Vec<_>, _>>()
            .unwrap_or_else(|e| panic!("{e}"));
        for member in &members {
            member.wait_ready().unwrap_or_else(|e| panic!("{e}"));
        }
        let group = Group { members, _group_ports: group_ports };
        group.bootstrap(0);
        std::thread::scope(|scope| {
            for member in &group.members[1..] {
                scope.spawn(move || member.sql(JOIN));
            }
        });
        group.wait_online(options.members);
        group
    }

    /// All members, in the order of their indices.
    pub fn members(&self) -> &[Server] {
        &self.members
    }

    /// The member of that index.
    pub fn member(&self, index: usize) -> &Server {
        &self.members[index]
    }

    /// Index of the primary, if a majority of all members names it and it is ONLINE.
    pub fn primary_index(&self) -> Option<usize> {
        let sql = format!("SELECT MEMBER_PORT FROM {MEMBERS} WHERE MEMBER_ROLE='PRIMARY' AND MEMBER_STATE='ONLINE'");
        let votes: Vec<String> = self.ask(&sql);
        let majority = |port: &String| votes.iter().filter(|v| *v == port).count() * 2 > self.members.len();
        self.members.iter().position(|m| majority(&m.port().to_string()))
    }

    /// The primary. Panics if there is none.
    pub fn primary(&self) -> &Server {
        self.member(self.primary_index().expect("the group has a primary"))
    }

    /// The members that are not the primary and run.
    pub fn secondaries(&self) -> Vec<&Server> {
        let primary = self.primary_index();
        let members = self.members.iter().enumerate();
        members.filter(|(i, m)| Some(*i) != primary && m.running()).map(|(_, m)| m).collect()
    }

    /// Waits up to 60 s for a primary other than `old` that is writable; its index.
    pub fn wait_new_primary(&self, old: usize) -> usize {
        self.wait_for_primary(Some(old))
    }

    /// Waits up to 60 s for a writable primary; its index.
    pub fn wait_primary(&self) -> usize {
        self.wait_for_primary(None)
    }

    fn wait_for_primary(&self, not: Option<usize>) -> usize {
        let mut found = 0;
        until("the group has a writable primary", SOON, || {
            let Some(index) = self.primary_index().filter(|i| Some(*i) != not) else {
                return false;
            };
            found = index;
            let writable = self.member(index).try_sql("SELECT @@super_read_only");
            writable.is_ok_and(|rows| rows[0][0] == "0")
        });
        found
    }

    /// Waits up to 60 s until every member that runs sees exactly `count` members, all ONLINE.
    pub fn wait_online(&self, count: usize) {
        let sql = format!("SELECT SUM(MEMBER_STATE='ONLINE'), COUNT(*) FROM {MEMBERS}");
        until("all members are ONLINE", SOON, || {
            let awake: Vec<&Server> = self.awake().collect();
            let agrees = |m: &&Server| {
                let want = [count.to_string(), count.to_string()];
                m.try_sql(&sql).is_ok_and(|rows| rows[0] == want)
            };
            awake.len() >= count && awake.iter().filter(|m| agrees(m)).count() >= count
        });
    }

    /// Planned switchover to the member `index`; returns when the group has done it.
    pub fn set_as_primary(&self, index: usize) {
        let uuid = self.member(index).uuid();
        self.member(index).sql(&format!("SELECT group_replication_set_as_primary('{uuid}')"));
    }

    /// Brings a member back: starts it if it does not run, continues it if frozen, and lets it join again.
    pub fn rejoin(&self, index: usize) {
        let member = self.member(index);
        if member.frozen() {
            member.thaw();
        }
        if !member.running() {
            member.start_again();
        }
        member.sql("STOP GROUP_REPLICATION");
        member.sql(JOIN);
        let state = format!("SELECT MEMBER_STATE FROM {MEMBERS} WHERE MEMBER_ID=@@server_uuid");
        until("the member is ONLINE again", SOON, || member.one(&state) == "ONLINE");
    }

    /// Founds the group anew with the member `index` (after all were down); the others [`Group::rejoin`].
    pub fn bootstrap(&self, index: usize) {
        self.member(index).sql(&format!(
            "SET GLOBAL group_replication_bootstrap_group=ON; {JOIN}; SET GLOBAL group_replication_bootstrap_group=OFF"
        ));
    }

    /// The members that run and are not frozen.
    fn awake(&self) -> impl Iterator<Item = &Server> {
        self.members.iter().filter(|m| m.running() && !m.frozen())
    }

    /// The first value that each member which answers gives.
    fn ask(&self, sql: &str) -> Vec<String> {
        self.awake().filter_map(|m| m.try_sql(sql).ok()?.first()?.first().cloned()).collect()
    }
}

/// A name (a UUID) of its own for each group, so that members of two never mix.
fn group_name() -> String {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
    uuid.expect("Linux has /proc").trim().to_owned()
}

fn server_options(group: &GroupOptions, name: &str, ports: &[Port], index: usize) -> ServerOptions {
    let address = |p: &Port| format!("127.0.0.1:{}", p.number());
    let seeds: Vec<String> = ports.iter().map(address).collect();
    let mut options = group.server.clone();
    options.name = format!("{}-{index}", group.server.name);
    options.options = [
        "plugin-load-add=group_replication.so".to_owned(),
        "plugin-load-add=mysql_clone.so".to_owned(),
        format!("loose-group_replication_group_name={name}"),
        format!("loose-group_replication_local_address={}", seeds[index]),
        format!("loose-group_replication_group_seeds={}", seeds.join(",")),
        "loose-group_replication_start_on_boot=OFF".to_owned(),
        "loose-group_replication_recovery_get_public_key=ON".to_owned(),
        "loose-group_replication_recovery_use_ssl=ON".to_owned(),
        "loose-group_replication_message_cache_size=128M".to_owned(),
        format!("loose-group_replication_member_expel_timeout={}", group.expel_timeout_s),
        format!("loose-group_replication_unreachable_majority_timeout={}", group.unreachable_majority_timeout_s),
    ]
    .into();
    options.options.extend(group.server.options.iter().cloned());
    options
}
