-- The accounts of every MySQL server of the testbed. All may log in from anywhere; servers listen on loopback only.
CREATE USER root@'%' IDENTIFIED BY '';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
CREATE USER app@'%' IDENTIFIED BY 'app';
GRANT ALL ON *.* TO app@'%';
CREATE USER repl@'%' IDENTIFIED BY 'repl';
GRANT REPLICATION SLAVE, REPLICATION CLIENT, CONNECTION_ADMIN, BACKUP_ADMIN, CLONE_ADMIN, GROUP_REPLICATION_STREAM ON *.* TO repl@'%';
CREATE USER router@'%' IDENTIFIED BY 'router';
GRANT SELECT, EXECUTE ON *.* TO router@'%';
-- The proxy's probing account, with no more than it needs.
CREATE USER holdfast@'%' IDENTIFIED BY 'holdfast';
GRANT REPLICATION CLIENT ON *.* TO holdfast@'%';
GRANT SELECT ON performance_schema.* TO holdfast@'%';
-- The same for the account source "server", which reads the accounts table.
CREATE USER accounts@'%' IDENTIFIED BY 'accounts';
GRANT REPLICATION CLIENT ON *.* TO accounts@'%';
GRANT SELECT ON performance_schema.* TO accounts@'%';
GRANT SELECT ON mysql.user TO accounts@'%';
-- Logins that succeed or are refused for one reason each.
CREATE DATABASE sbt;
CREATE DATABASE app;
CREATE USER expired@'%' IDENTIFIED BY 'expired' PASSWORD EXPIRE;
CREATE USER locked@'%' IDENTIFIED BY 'locked' ACCOUNT LOCK;
CREATE USER 'empty'@'%' IDENTIFIED BY '';
CREATE USER tlsonly@'%' IDENTIFIED BY 'tlsonly' REQUIRE SSL;
CREATE USER x509@'%' IDENTIFIED BY 'x509' REQUIRE X509;
CREATE USER two@'%' IDENTIFIED BY 'two' WITH MAX_USER_CONNECTIONS 2;
CREATE USER elsewhere@'192.0.2.1' IDENTIFIED BY 'elsewhere';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP ON app.* TO expired@'%', locked@'%', 'empty'@'%', tlsonly@'%', x509@'%', two@'%';
