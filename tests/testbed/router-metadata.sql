-- The least of mysql_innodb_cluster_metadata that MySQL Router 9.7 needs for [metadata_cache] over one group: a hand-made
-- schema of version 2.0.0 for tests, which MySQL Shell will not manage. Router::start_metadata fills clusters (one row)
-- and instances (one row per member).
CREATE DATABASE IF NOT EXISTS mysql_innodb_cluster_metadata DEFAULT CHARACTER SET utf8mb4;
USE mysql_innodb_cluster_metadata;
CREATE OR REPLACE SQL SECURITY INVOKER VIEW schema_version (major, minor, patch) AS SELECT 2, 0, 0;
CREATE TABLE IF NOT EXISTS clusters (
  cluster_id CHAR(36) CHARACTER SET ascii PRIMARY KEY, cluster_name VARCHAR(63) NOT NULL UNIQUE,
  group_name CHAR(36) NOT NULL, attributes JSON, router_options JSON);
CREATE TABLE IF NOT EXISTS instances (
  instance_id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, cluster_id CHAR(36) CHARACTER SET ascii NOT NULL,
  address VARCHAR(265) NOT NULL, uuid CHAR(36) CHARACTER SET ascii NOT NULL UNIQUE, attributes JSON);
CREATE TABLE IF NOT EXISTS routers (
  router_id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, router_name VARCHAR(265) NOT NULL, product_name VARCHAR(128) NOT NULL,
  address VARCHAR(256) CHARACTER SET ascii, version VARCHAR(12), last_check_in TIMESTAMP NULL, attributes JSON,
  cluster_id CHAR(36) CHARACTER SET ascii, options JSON, UNIQUE KEY (address, router_name));
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v2_gr_clusters AS
  SELECT 'gr' AS cluster_type, 'pm' AS primary_mode, cluster_id, cluster_name, group_name, attributes,
         JSON_OBJECT() AS options, router_options, '' AS description FROM clusters;
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v2_clusters AS
  SELECT cluster_type, primary_mode, cluster_id, cluster_name, router_options FROM v2_gr_clusters;
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v2_instances AS
  SELECT instance_id, cluster_id, address AS label, uuid AS mysql_server_uuid, address,
         address AS endpoint, NULL AS xendpoint, attributes FROM instances;
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v2_this_instance AS
  SELECT i.cluster_id, i.instance_id, c.cluster_name, 'gr' AS cluster_type
  FROM instances i JOIN clusters c USING (cluster_id)
  WHERE i.uuid = (SELECT variable_value FROM performance_schema.global_variables WHERE variable_name = 'server_uuid');
CREATE OR REPLACE SQL SECURITY INVOKER VIEW v2_routers AS SELECT * FROM routers;
GRANT SELECT, EXECUTE ON mysql_innodb_cluster_metadata.* TO router@'%';
GRANT INSERT, UPDATE, DELETE ON mysql_innodb_cluster_metadata.routers TO router@'%';
GRANT INSERT, UPDATE, DELETE ON mysql_innodb_cluster_metadata.v2_routers TO router@'%';
