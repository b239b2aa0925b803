//! Statements as applications' libraries send them. A read that is not recognised here costs a follower's help.

use super::*;

#[test]
fn reads_of_frameworks() {
    expect(
        Class::Read,
        MYSQL,
        &[
            // Hibernate
            "select this_.id as id1_0_0_, this_.name as name2_0_0_ from customer this_ where this_.name like ? order by this_.id asc limit ?",
            "select c1_0.id,c1_0.name,o1_0.customer_id,o1_0.id,o1_0.total from customer c1_0 left join orders o1_0 on c1_0.id=o1_0.customer_id where c1_0.id in (?,?,?)",
            "select count(c1_0.id) from customer c1_0 where upper(c1_0.name) like upper(?) escape '!'",
            "select coalesce(max(o1_0.id),0) from orders o1_0 where o1_0.created between ? and ?",
            // Rails
            "SELECT `users`.* FROM `users` WHERE `users`.`email` = 'a@b.c' ORDER BY `users`.`id` ASC LIMIT 1",
            "SELECT 1 AS one FROM `users` WHERE `users`.`name` = BINARY 'x' LIMIT 1",
            "SELECT COUNT(*) FROM `posts` INNER JOIN `users` ON `users`.`id` = `posts`.`user_id` WHERE (published_at < '2024-01-01 00:00:00')",
            "SELECT column_name FROM information_schema.statistics WHERE index_name = 'PRIMARY' AND table_schema = database() AND table_name = 'x' ORDER BY seq_in_index",
            "SHOW FULL FIELDS FROM `users`",
            "SELECT `users`.* FROM `users` WHERE `users`.`id` = 1 /*application:Blog,controller:posts,action:index*/",
            // Django
            "SELECT `auth_user`.`id`, `auth_user`.`password` FROM `auth_user` WHERE `auth_user`.`username` = 'x' LIMIT 21",
            "SELECT COUNT(*) AS `__count` FROM (SELECT DISTINCT `a`.`id` AS `col1` FROM `a`) subquery",
            "SELECT (1) AS `a` FROM `django_session` WHERE (`django_session`.`expire_date` > '2024-01-01' AND `django_session`.`session_key` = 'x') LIMIT 1",
            "SELECT CAST(DATE_FORMAT(CONVERT_TZ(`t`.`d`, 'UTC', 'Europe/Berlin'), '%Y-%m-01') AS DATE) AS `m`, COUNT(`t`.`id`) AS `c` FROM `t` GROUP BY 1 ORDER BY NULL",
            "SELECT VERSION(), @@sql_mode, @@default_storage_engine, @@sql_auto_is_null, @@lower_case_table_names, CONVERT_TZ('2001-01-01 01:00:00', 'UTC', 'UTC') IS NOT NULL",
            // Laravel
            "select * from `users` where `email` = ? and `users`.`deleted_at` is null limit 1",
            "select exists(select * from `users` where `id` = ?) as `exists`",
            "select `id`, (select count(*) from `comments` where `posts`.`id` = `comments`.`post_id`) as `comments_count` from `posts` where json_unquote(json_extract(`meta`, '$.\"a\"')) = ?",
            "select * from `jobs` where ((`queue` = ? and `reserved_at` is null) or (`reserved_at` <= ?)) order by `id` asc limit 1",
            // SQLAlchemy, Prisma, TypeORM, GORM
            "SELECT users.id AS users_id FROM users WHERE users.name IN (%s, %s)",
            "SELECT `main`.`User`.`id`, `main`.`User`.`email` FROM `main`.`User` WHERE (`main`.`User`.`id` = ? AND 1=1) LIMIT ? OFFSET ?",
            "SELECT DISTINCT `distinctAlias`.`User_id` AS `ids_User_id` FROM (SELECT `User`.`id` AS `User_id` FROM `user` `User`) `distinctAlias` ORDER BY `User_id` ASC LIMIT 1",
            "SELECT * FROM `users` WHERE name = 'jinzhu' AND `users`.`deleted_at` IS NULL ORDER BY `users`.`id` LIMIT 1",
            // drivers
            "/* mysql-connector-j-8.0.33 (Revision: 7d6b0800528b6b25c68b52dc10d6c1c8429c100c) */SELECT  @@session.auto_increment_increment AS auto_increment_increment, @@character_set_client AS character_set_client, @@init_connect AS init_connect, @@sql_mode AS sql_mode, @@time_zone AS time_zone, @@transaction_isolation AS transaction_isolation, @@wait_timeout AS wait_timeout",
            "select @@version_comment limit 1",
            "SELECT @@max_allowed_packet,@@wait_timeout",
            "SELECT /*!40001 SQL_NO_CACHE */ * FROM `t`",
            // WordPress
            "SELECT option_value FROM wp_options WHERE option_name = 'siteurl' LIMIT 1",
            "SELECT   wp_posts.ID FROM wp_posts  LEFT JOIN wp_term_relationships ON (wp_posts.ID = wp_term_relationships.object_id) WHERE 1=1  AND ( wp_term_relationships.term_taxonomy_id IN (1,2) ) GROUP BY wp_posts.ID ORDER BY wp_posts.post_date DESC LIMIT 0, 10",
            // sysbench
            "SELECT c FROM sbtest1 WHERE id=5027",
            "SELECT c FROM sbtest1 WHERE id BETWEEN 5023 AND 5122",
            "SELECT SUM(k) FROM sbtest1 WHERE id BETWEEN 4992 AND 5091",
            "SELECT DISTINCT c FROM sbtest1 WHERE id BETWEEN ? AND ? ORDER BY c",
            // reports
            "SELECT u.id, GROUP_CONCAT(DISTINCT r.name ORDER BY r.name SEPARATOR ', ') FROM u LEFT JOIN r USING (id) GROUP BY u.id HAVING COUNT(r.id) > 1",
            "SELECT d, SUM(x) OVER (ORDER BY d ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) FROM t",
            "SELECT CASE WHEN (a > 1) THEN (b) ELSE (c) END, IFNULL(d, 0), NULLIF(e, ''), CONCAT_WS(' ', f, g) FROM t WHERE d >= DATE_SUB(CURDATE(), INTERVAL 30 DAY)",
            "SELECT ST_Distance_Sphere(POINT(1.0, 2.0), p) AS m FROM places WHERE MBRContains(ST_MakeEnvelope(POINT(0, 0), POINT(3, 3)), p)",
        ],
    );
}

#[test]
fn writes_of_frameworks() {
    expect(
        Class::Write,
        MYSQL,
        &[
            "select c1_0.id from customer c1_0 where c1_0.id=? for update",
            "select next_val as id_val from hibernate_sequence for update",
            "update hibernate_sequence set next_val= ? where next_val=?",
            "SELECT `users`.* FROM `users` WHERE `users`.`id` = 1 LIMIT 1 FOR UPDATE",
            "select * from `jobs` where `queue` = ? order by `id` asc limit 1 FOR UPDATE SKIP LOCKED",
            "INSERT INTO `users` (`name`) VALUES ('x') ON DUPLICATE KEY UPDATE `name` = VALUES(`name`)",
            "INSERT IGNORE INTO t SELECT * FROM u",
            "DELETE FROM sbtest1 WHERE id=5000",
            "SELECT LAST_INSERT_ID()",
            "SELECT GET_LOCK('migrations', 10)",
            "CREATE TABLE IF NOT EXISTS `schema_migrations` (`version` varchar(255) NOT NULL PRIMARY KEY)",
        ],
    );
}
