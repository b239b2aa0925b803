//! \[pure\] The servers' option file from the spec: defaults that lose no commit, then the user's, never against what roles
//! depend on.

use crate::reconciler::resource::{MysqlCluster, MysqlClusterSpec, TopologyKind};

/// For every member. Those that a pod adds for itself (`holdfast init`): datadir, server-id, report-host, local_address.
const DEFAULTS: &str = "[mysqld]
socket=mysqld.sock
mysqlx=OFF
secure-file-priv=NULL
skip-name-resolve=ON
character-set-server=utf8mb4
log-bin=binlog
sync-binlog=1
innodb-flush-log-at-trx-commit=1
";

/// Behind the user's own: the roles depend on them. relay-log-recovery would throw away what a commit was acknowledged for.
const ROLES: &str = "port=3306
gtid-mode=ON
enforce-gtid-consistency=ON
log-replica-updates=ON
super-read-only=ON
skip-replica-start=ON
relay-log-recovery=OFF
performance-schema=ON
plugin-load-add=mysql_clone.so
";

const SEMISYNC: &str = "plugin-load-add=semisync_source.so
plugin-load-add=semisync_replica.so
";

/// Restarted members join only once they are told to, with the seeds that they are told.
const GROUP: &str = "plugin-load-add=group_replication.so
loose-group_replication_start_on_boot=OFF
loose-group_replication_bootstrap_group=OFF
loose-group_replication_single_primary_mode=ON
loose-group_replication_autorejoin_tries=0
loose-group_replication_recovery_get_public_key=ON
loose-group_replication_recovery_use_ssl=ON
";

/// What users can't set, beside all of `rpl_semi_sync_` and what GROUP names.
const OURS: &[&str] = &[
    "datadir",
    "socket",
    "port",
    "bind_address",
    "server_id",
    "report_host",
    "report_port",
    "gtid_mode",
    "log_bin",
    "skip_log_bin",
    "disable_log_bin",
    "enforce_gtid_consistency",
    "log_replica_updates",
    "log_slave_updates",
    "read_only",
    "super_read_only",
    "skip_replica_start",
    "skip_slave_start",
    "relay_log_recovery",
    "offline_mode",
    "init_file",
    "initialize",
    "initialize_insecure",
    "validate_config",
    "performance_schema",
    "plugin_load",
    "plugin_load_add",
    "user",
    "skip_networking",
    "skip_grant_tables",
    "group_replication_group_name",
    "group_replication_local_address",
    "group_replication_group_seeds",
    "group_replication_start_on_boot",
    "group_replication_bootstrap_group",
    "group_replication_single_primary_mode",
    "group_replication_force_members",
    "group_replication_ssl_mode",
];

/// The option file of all members.
pub fn my_cnf(cluster: &MysqlCluster) -> String {
    let spec = &cluster.spec;
    let mut text = DEFAULTS.to_owned();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name}={value}\n"));
    if let Some(bytes) = buffer_pool(spec) {
        line("innodb-buffer-pool-size", &bytes.to_string());
    }
    if spec.tls.secret_name.is_some() {
        // What a member is to others as a server; with mtls also what it is to them as a client, when it copies their data.
        let prefixes: &[&str] =
            if spec.tls.mtls { &["", "loose-clone_", "loose-group_replication_recovery_"] } else { &[""] };
        for prefix in prefixes {
            for (option, file) in [("ssl_ca", "ca.crt"), ("ssl_cert", "tls.crt"), ("ssl_key", "tls.key")] {
                line(&format!("{prefix}{option}"), &format!("/etc/holdfast/tls/{file}"));
            }
        }
    }
    if spec.tls.mtls {
        // Between the members of a group both ends show the server's certificate.
        line("loose-group_replication_ssl_mode", "VERIFY_CA");
    }
    if spec.topology == TopologyKind::Group {
        line("loose-group_replication_member_expel_timeout", "0");
        line("loose-group_replication_consistency", "BEFORE_ON_PRIMARY_FAILOVER");
        line("loose-group_replication_group_name", cluster.metadata.uid.as_deref().unwrap_or_default());
    }
    spec.mysql_conf.iter().for_each(|(name, value)| line(name, value));
    text.push_str(ROLES);
    match spec.topology {
        TopologyKind::Standalone | TopologyKind::Semisync => text.push_str(SEMISYNC),
        TopologyKind::Group => text.push_str(GROUP),
        TopologyKind::External => {}
    }
    text
}

/// What is wrong with the user's own options.
pub fn problems(spec: &MysqlClusterSpec) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in &spec.mysql_conf {
        let plain = name.replace('-', "_").to_ascii_lowercase();
        let plain = plain.strip_prefix("loose_").unwrap_or(&plain);
        if OURS.contains(&plain) || plain.starts_with("rpl_semi_sync_") {
            all.push(format!("mysqlConf.{name} is Holdfast's own"));
        } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
            || value.contains(['\n', '\r'])
        {
            all.push(format!("mysqlConf.{name} is not one option"));
        }
    }
    if quantity(&spec.storage.size).is_none_or(|bytes| bytes == 0) {
        all.push("storage.size is no size".to_owned());
    }
    all
}

/// Half of the memory that the container may have, if it says.
fn buffer_pool(spec: &MysqlClusterSpec) -> Option<u64> {
    let memory = spec.resources.as_ref()?.pointer("/limits/memory")?.as_str()?;
    quantity(memory).map(|bytes| bytes / 2)
}

/// Bytes of a quantity as Kubernetes writes it, rounded up (apimachinery's resource.Quantity, without exponents).
pub fn quantity(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit: u64 = match &text[digits..] {
        "" => 1,
        "k" => 1000,
        "Ki" => 1 << 10,
        "M" => 1_000_000,
        "Mi" => 1 << 20,
        "G" => 1_000_000_000,
        "Gi" => 1 << 30,
        "T" => 1_000_000_000_000,
        "Ti" => 1 << 40,
        "P" => 1_000_000_000_000_000,
        "Pi" => 1 << 50,
        _ => return None,
    };
    let (whole, part) = text[..digits].split_once('.').unwrap_or((&text[..digits], ""));
    let bytes = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(unit)? };
    // Nine digits are more than anybody writes.
    let part = part.get(..part.len().min(9))?;
    let more = if part.is_empty() { 0 } else { u128::from(part.parse::<u64>().ok()?) * u128::from(unit) };
    let more = more.div_ceil(10_u128.pow(part.len() as u32));
    (digits > 0).then(|| bytes.checked_add(u64::try_from(more).ok()?)).flatten()
}

/// The first of 16 server ids, which no other cluster is likely to have: from the cluster's uid.
pub fn server_ids(uid: &str) -> u32 {
    u32::from_str_radix(uid.get(..7).unwrap_or("1"), 16).unwrap_or(1).max(1) << 4
}

/// FNV-1a: names what a text is, the same on every machine and in every version.
pub fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cluster(spec: serde_json::Value) -> MysqlCluster {
        MysqlCluster::new("db", serde_json::from_value(spec).expect("a spec"))
    }

    #[test]
    fn what_roles_depend_on_is_never_the_users() {
        let spec = json!({ "image": "mysql", "mysqlConf": { "max-connections": "500", "gtid-mode": "OFF",
            "loose-rpl_semi_sync_source_timeout": "1", "general-log": "1\nuser=root" } });
        let cluster = cluster(spec);
        let words = problems(&cluster.spec).join("; ");
        for name in ["general-log is not one option", "gtid-mode is Holdfast's own", "source_timeout is Holdfast's own"]
        {
            assert!(words.contains(name), "{words}");
        }
        let text = my_cnf(&cluster);
        assert!(text.rfind("gtid-mode=ON") > text.rfind("gtid-mode=OFF"), "ours is last:\n{text}");
    }

    #[test]
    fn sizes_and_ids() {
        let limits = |memory: &str| json!({ "image": "mysql", "resources": { "limits": { "memory": memory } } });
        for (memory, pool) in
            [("2Gi", Some(1 << 30)), ("1500M", Some(750_000_000)), ("2.5Gi", Some(5 << 28)), ("2e9", None)]
        {
            assert_eq!(buffer_pool(&cluster(limits(memory)).spec), pool, "{memory}");
        }
        assert_eq!(server_ids("00000010-e613-11f1-8632-02fc00000001"), 16);
        assert_eq!(hash(""), 0x811c_9dc5);
    }
}
