use super::*;

fn greeting(flavor: Flavor) -> Arc<ServerGreeting> {
    let (version, plugin) = ("9.7.4".into(), "caching_sha2_password".into());
    Arc::new(ServerGreeting { version, flavor, capabilities: 0, collation: 45, plugin })
}

fn rows(lines: &[&str]) -> Rows {
    let value = |v: &str| (v != "NULL").then(|| Bytes::copy_from_slice(v.as_bytes()));
    lines.iter().map(|line| line.split('|').map(value).collect()).collect()
}

#[test]
fn a_member_is_read() {
    let answer = rows(&[
        "v|AA|13601|000|aaaaaaaa-aaaa-4aaa-8aaa-000000013600:1-2|NULL",
        "m|aa|127.0.0.1|ONLINE|PRIMARY|13601",
        "m|bb|127.0.0.1|UNREACHABLE|SECONDARY|13602",
    ]);
    let report = read_mysql(&answer, &greeting(Flavor::MySql), false).unwrap();
    assert_eq!(report.server_uuid.as_deref(), Some("aa"));
    assert!(!report.read_only && !report.offline && report.gtids.is_some());
    let view = report.group.unwrap();
    assert_eq!(view.members.len(), 2);
    assert_eq!(view.primaries().count(), 1);
    assert_eq!(view.member("bb").unwrap().state, MemberState::Unreachable);
    assert_eq!(view.members[1].address.as_ref().unwrap().to_string(), "127.0.0.1:13602");
    assert!(!view.has_quorum());
}

#[test]
fn a_replica_and_its_flags_are_read() {
    for (flags, read_only, offline) in
        [("000", false, false), ("100", true, false), ("010", true, false), ("001", false, true)]
    {
        let answer = rows(&[&format!("v|AA|2|{flags}|NULL|NULL"), "c|BB|db-0|CONNECTING||3306", "c||<NULL>|OFF|x|0"]);
        let report = read_mysql(&answer, &greeting(Flavor::MySql), false).unwrap();
        assert_eq!((report.read_only, report.offline), (read_only, offline));
        assert_eq!(report.channels[0].source_uuid.as_deref(), Some("bb"));
        assert_eq!(report.channels[0].source.as_ref().unwrap().to_string(), "db-0:3306");
        assert_eq!((report.channels[1].source.clone(), report.channels[1].receiver), (None, Receiver::Off));
        assert!(report.group.is_none() && report.gtids.is_none());
    }
}

#[test]
fn a_member_outside_its_group_is_a_group_server_if_it_is_set_up_for_one() {
    let answer = rows(&["v|aa|1|000||NULL", "m|||OFFLINE||NULL"]);
    assert!(read_mysql(&answer, &greeting(Flavor::MySql), false).unwrap().group.is_none());
    assert!(read_mysql(&answer, &greeting(Flavor::MySql), true).unwrap().group.is_some());
}

#[test]
fn what_is_not_understood_is_no_report() {
    for answer in [
        &[][..],
        &["v|aa|1|00||NULL"],
        &["v|aa|x|000||NULL"],
        &["v||1|000||NULL"],
        &["v|aa|1|000|nonsense|NULL"],
        &["m|aa|h|ONLINE|PRIMARY|1"],
        &["v|aa|1|000||NULL", "m|aa|h|DANCING|PRIMARY|1"],
        &["v|aa|1|000||NULL", "c|aa|h|MAYBE||1"],
        &["v|aa|1|000||NULL", "x"],
        &["v"],
    ] {
        assert!(read_mysql(&rows(answer), &greeting(Flavor::MySql), false).is_none(), "{answer:?}");
    }
}

#[test]
fn mariadb_is_read() {
    let mut slave = vec!["x"; 60];
    (slave[3], slave[5], slave[12], slave[41]) = ("127.0.0.1", "13801", "Yes", "13801");
    let slave = slave.join("|");
    let answer = rows(&["13802|1|0-13801-8"]);
    let report = read_mariadb(&answer, &rows(&[&slave]), &greeting(Flavor::MariaDb)).unwrap();
    assert!(report.read_only && report.gtids.is_some());
    assert_eq!(report.channels[0].source_server_id, Some(13801));
    assert_eq!(report.channels[0].receiver, Receiver::On);
    assert!(read_mariadb(&answer, &rows(&["too|short"]), &greeting(Flavor::MariaDb)).is_none());
    assert!(read_mariadb(&rows(&[]), &rows(&[]), &greeting(Flavor::MariaDb)).is_none());
}

#[test]
fn errors_mean_what_they_mean() {
    let refused = |code: u16| {
        let mut packet = vec![0xFF];
        packet.extend(code.to_le_bytes());
        packet.extend(b"#HY000text");
        connect_failure(&ConnectError::Refused(packet.into())).kind
    };
    for (code, kind) in [
        (1045, FailureKind::Barred),
        (1040, FailureKind::Silent),
        (1053, FailureKind::Gone),
        (3032, FailureKind::Barred),
    ] {
        assert_eq!(refused(code), kind, "{code}");
    }
    for (error, kind) in [
        (io::ErrorKind::ConnectionRefused, FailureKind::Gone),
        (io::ErrorKind::ConnectionReset, FailureKind::Gone),
        (io::ErrorKind::TimedOut, FailureKind::Silent),
        (io::ErrorKind::HostUnreachable, FailureKind::Silent),
        (io::ErrorKind::Other, FailureKind::Silent),
    ] {
        assert_eq!(connect_failure(&ConnectError::Unreachable(error.into())).kind, kind, "{error}");
    }
    let denied = QueryError::Server { code: 1142, state: "42000".into(), message: "SELECT command denied".into() };
    assert!(query_failure(&denied, Flavor::MySql).text.contains("performance_schema"));
}
