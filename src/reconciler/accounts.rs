//! \[pure\] The accounts that every server of a MysqlCluster has: their names, their rights, and the key of each password in the
//! Secret `{cluster}-accounts`.

use super::server::quoted;

/// One account.
pub struct Account {
    /// Key in the Secret.
    pub key: &'static str,
    /// Its name on the servers.
    pub user: &'static str,
    /// Global rights; those on performance_schema are given beside.
    rights: &'static str,
}

const fn account(key: &'static str, user: &'static str, rights: &'static str) -> Account {
    Account { key, user, rights }
}

/// The reconciler's own.
pub const ADMIN: &str = "admin";
/// The one by which members log in to each other.
pub const REPLICATION: &str = "replication";

/// All of them.
pub const ACCOUNTS: &[Account] = &[
    account("root", "root", "ALL"),
    // RELOAD: RESET REPLICA. SYSTEM_USER: to cut off whoever has it, too.
    account(
        ADMIN,
        "holdfast_admin",
        "SYSTEM_VARIABLES_ADMIN, REPLICATION_SLAVE_ADMIN, GROUP_REPLICATION_ADMIN, CONNECTION_ADMIN, CLONE_ADMIN, SYSTEM_USER, \
         SHUTDOWN, RELOAD, PROCESS, REPLICATION CLIENT",
    ),
    account("probe", "holdfast_probe", "REPLICATION CLIENT"),
    // CONNECTION_ADMIN, or offline_mode cuts replication.
    account(
        REPLICATION,
        "holdfast_replication",
        "REPLICATION SLAVE, BACKUP_ADMIN, CONNECTION_ADMIN, GROUP_REPLICATION_STREAM",
    ),
    account("monitoring", "holdfast_monitoring", "PROCESS, REPLICATION CLIENT"),
    account(
        "backup",
        "holdfast_backup",
        "SELECT, RELOAD, PROCESS, LOCK TABLES, SHOW VIEW, EVENT, TRIGGER, REPLICATION CLIENT, REPLICATION SLAVE, BACKUP_ADMIN",
    ),
    // The proxy's. REPLICATION SLAVE: exactly_once.
    account("proxy", "holdfast", "REPLICATION CLIENT, REPLICATION SLAVE"),
];

/// The account of that key.
pub fn user(key: &str) -> &'static str {
    ACCOUNTS.iter().find(|account| account.key == key).map_or("", |account| account.user)
}

impl Account {
    /// The statements that make it, each on a line of its own. `mtls`: members show each other a certificate.
    pub fn sql(&self, password: &str, mtls: bool) -> String {
        let (user, password, rights) = (self.user, quoted(password), self.rights);
        let option = if self.key == "root" { " WITH GRANT OPTION" } else { "" };
        let local = if self.key == "root" {
            format!("ALTER USER root@localhost IDENTIFIED BY {password};\n")
        } else {
            String::new()
        };
        let require = if mtls && self.key == REPLICATION { " REQUIRE X509" } else { "" };
        format!(
            "{local}CREATE USER {user}@'%' IDENTIFIED BY {password}{require};\nGRANT {rights} ON *.* TO {user}@'%'{option};\n\
             GRANT SELECT ON performance_schema.* TO {user}@'%';\n"
        )
    }
}
