-- The accounts of every MariaDB server of the testbed; see users-mysql.sql. MariaDB's own default plugin is
-- mysql_native_password.
CREATE USER root@'%';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
CREATE USER app@'%' IDENTIFIED BY 'app';
GRANT ALL ON *.* TO app@'%';
CREATE USER repl@'%' IDENTIFIED BY 'repl';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO repl@'%';
CREATE USER holdfast@'%' IDENTIFIED BY 'holdfast';
GRANT REPLICATION CLIENT, SLAVE MONITOR ON *.* TO holdfast@'%';
GRANT SELECT ON performance_schema.* TO holdfast@'%';
CREATE USER accounts@'%' IDENTIFIED BY 'accounts';
GRANT REPLICATION CLIENT, SLAVE MONITOR ON *.* TO accounts@'%';
GRANT SELECT ON mysql.* TO accounts@'%';
CREATE DATABASE sbt;
CREATE DATABASE app;
CREATE USER native@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('native');
CREATE USER ed25519@'%' IDENTIFIED VIA ed25519 USING PASSWORD('ed25519');
CREATE USER expired@'%' IDENTIFIED BY 'expired' PASSWORD EXPIRE;
CREATE USER locked@'%' IDENTIFIED BY 'locked' ACCOUNT LOCK;
CREATE USER 'empty'@'%' IDENTIFIED BY '';
CREATE USER tlsonly@'%' IDENTIFIED BY 'tlsonly' REQUIRE SSL;
CREATE USER x509@'%' IDENTIFIED BY 'x509' REQUIRE X509;
CREATE USER two@'%' IDENTIFIED BY 'two' WITH MAX_USER_CONNECTIONS 2;
CREATE USER elsewhere@'192.0.2.1' IDENTIFIED BY 'elsewhere';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP ON app.* TO native@'%', ed25519@'%', expired@'%', locked@'%', 'empty'@'%', tlsonly@'%', x509@'%', two@'%';
