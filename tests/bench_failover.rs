//! `holdfast bench failover` in front of a real group behind the proxy: what it measures, and that it does not lie.
mod proxy;
mod testbed;

#[path = "bench_failover/figures.rs"]
mod figures;
#[path = "bench_failover/measurement.rs"]
mod measurement;

use holdfast::bench::report::{Agreement, Class, Run};
use measurement::Bench;
use proxy::{EXACTLY_ONCE, Options, Proxy, SOON};
use std::path::Path;
use testbed::{Group, GroupOptions, Router, Server, ServerOptions, until};

fn of(run: &Run, class: Class) -> &holdfast::bench::report::ClassReport {
    run.classes.iter().find(|c| c.class == class).expect("there are clients of that class")
}

/// What holds after every change of a primary.
fn honest(bench: &mut Bench) -> Run {
    let (code, said) = bench.end();
    println!("{said}");
    assert_eq!(code, 0, "{said}");
    let mut report = bench.report();
    let run = report.runs.remove(0);
    assert!(run.verdict.is_clean(), "{:?}", run.verdict);
    assert!(run.verdict.acknowledged > 20, "{:?}", run.verdict);
    assert!(run.primary_before.is_some() && run.primary_after.is_some(), "{said}");
    assert_ne!(run.primary_before, run.primary_after);
    let (e, some) = (&run.events, "all of them happen");
    let (trigger, writable) = (e.trigger_us.expect(some), e.writable_us.expect(some));
    assert!(trigger < writable && e.elected_us.expect(some) <= writable, "{e:?}");
    assert!(e.first_write_us.expect(some) > e.not_writable_us.expect(some), "{e:?}");
    assert_eq!(run.classes.len(), Class::ALL.len());
    for class in &run.classes {
        // A client has one statement in flight, and only that may fail.
        assert!(class.errors <= u64::from(class.clients), "{class:?}");
        assert_eq!(class.reconnects, 0, "{class:?}");
        for kind in &class.error_kinds {
            assert!(matches!((kind.code, kind.state.as_str()), (1105, "08007") | (1159, "08S01")), "{kind:?}");
            assert!(kind.last_began_us < writable, "{kind:?}");
        }
    }
    let (idle, read) = (of(&run, Class::Idle), of(&run, Class::Read));
    assert_eq!((idle.errors, read.errors, idle.ok), (0, 0, 4), "a read and a write of each idle client");
    assert!(of(&run, Class::Write).first_ok_us.is_some() && of(&run, Class::Write).longest_us() > 0);
    assert!(said.contains("0 lost, 0 applied twice"), "{said}");
    let page = bench.text("report.html");
    for part in ["<svg class=\"lane\"", "<svg class=\"strip\"", "moment trigger", "moment writable", "moment first"] {
        assert!(page.contains(part), "{part}");
    }
    run
}

/// Between the load and its check somebody deletes a row that was acknowledged, and counts once too often.
fn a_lie_is_found(group: &Group, port: u16) {
    let folder = testbed::Testbed::get().new_folder("lie");
    let (ready, done) = (folder.join("ready"), folder.join("done"));
    let quoted = |path: &Path| format!("'{}'", path.display());
    let wait = format!("touch {}; until [ -e {} ]; do sleep 0.05; done", quoted(&ready), quoted(&done));
    let more = ["--trigger", "none", "--duration", "3s", "--restore-command", &wait, "--keep"];
    let mut bench = Bench::start("bench-lie", port, group.members(), &more);
    until("the clients have stopped", SOON, || ready.exists());
    let primary = group.primary();
    let rows =
        primary.sql("SELECT client, MIN(seq) FROM holdfast_bench.writes WHERE client > 0 GROUP BY client LIMIT 1");
    let [client, number] = rows[0].as_slice() else { panic!("{rows:?}") };
    primary.sql(&format!("DELETE FROM holdfast_bench.writes WHERE client = {client} AND seq = {number}"));
    primary.sql("UPDATE holdfast_bench.counters SET n = n + 1 LIMIT 1");
    std::fs::write(done, "").expect("the folder is writable");

    let (code, said) = bench.end();
    assert_eq!(code, 3, "{said}");
    let verdict = &bench.report().runs[0].verdict;
    assert_eq!((verdict.lost, verdict.duplicated), (1, 1), "{verdict:?}");
    let lost: Vec<String> = verdict.lost_rows.iter().map(|(client, number)| format!("{client}/{number}")).collect();
    assert_eq!(lost, [format!("{client}/{number}")]);
    assert!(said.contains("1 lost, 1 applied twice") && said.contains(&format!("{client}/{number}")), "{said}");
    let agree = |run: &Run| run.servers.iter().all(|server| server.agrees == Agreement::Same);
    assert!(agree(&bench.report().runs[0]), "all servers have what the primary has");
    assert_eq!(primary.sql("SHOW DATABASES LIKE 'holdfast_bench'").len(), 1, "it was to be kept");
}

#[test]
fn clients_are_measured_while_the_primary_moves_and_dies() {
    let group = Group::start(GroupOptions::default());
    let proxy = Proxy::start(Options::group([group.member(0).addr()]));
    until("the proxy knows all members", SOON, || {
        proxy.http("/topology").unwrap().1.matches("\"follower\"").count() >= 2
    });

    a_lie_is_found(&group, proxy.port());

    let mut bench = Bench::start("bench-switch", proxy.port(), group.members(), &["--trigger", "switch"]);
    let run = honest(&mut bench);
    assert_eq!(run.errors(|_| true), 0, "{:?}", run.classes);
    assert!(group.primary().sql("SHOW DATABASES LIKE 'holdfast_bench'").is_empty(), "it was dropped");

    let old = group.primary_index().expect("a primary");
    let mut bench = Bench::start("bench-kill", proxy.port(), group.members(), &["--trigger", "kill"]);
    let run = honest(&mut bench);
    assert_eq!(run.primary_before, Some(group.member(old).addr().to_string()));
    assert!(!group.member(old).running(), "it was killed");
    assert_eq!(run.servers[old].agrees, Agreement::Away);
}

/// What can't be measured is said, with exit code 1, before anything happens.
#[test]
fn what_cannot_be_measured_is_said() {
    let server = Server::start(ServerOptions::mysql());
    let (port, servers) = (server.port(), std::slice::from_ref(&server));
    let free = testbed::Port::take();
    for (port, servers, more, words) in [
        (free.number(), &[][..], &[][..], "is it running"),
        (port, servers, &["--user", "nobody"], "1045"),
        (port, servers, &["--trigger", "switch"], "group replication"),
        (port, &[], &["--trigger", "kill"], "--server"),
        (port, servers, &["--database", "mysql"], "choose another"),
    ] {
        let mut bench = Bench::start("bench-refused", port, servers, more);
        let (code, said) = bench.end();
        assert!(code == 1 && said.contains(words), "{more:?}: {code} {said}");
    }
    assert!(server.running());

    // Through no proxy at all: a server's own port, frozen for a while.
    let more = ["--trigger", "freeze", "--freeze-for", "3s", "--duration", "30s"];
    let mut bench = Bench::start("bench-freeze", port, servers, &more);
    let (code, said) = bench.end();
    assert_eq!(code, 0, "{said}");
    let run = bench.report().runs.remove(0);
    assert!(run.events.thaw_us.is_some() && !server.frozen(), "it was continued");
    assert_eq!((run.primary_before.clone(), run.errors(|_| true)), (run.primary_after.clone(), 0), "{said}");
    assert!(run.longest_us() > 500_000, "clients waited: {said}");
}

/// MariaDB has no server_uuid, no groups, and other words.
#[test]
fn a_mariadb_server_is_measured_too() {
    let server = Server::start(ServerOptions::mariadb());
    let more = ["--trigger", "none", "--duration", "3s"];
    let mut bench = Bench::start("bench-mariadb", server.port(), std::slice::from_ref(&server), &more);
    let (code, said) = bench.end();
    assert_eq!(code, 0, "{said}");
    let run = bench.report().runs.remove(0);
    assert_eq!((run.errors(|_| true), run.stale()), (0, 0), "{said}");
    assert!(run.classes.iter().all(|class| class.ok > 0), "{said}");
    assert_eq!(run.primary_before, Some(server.addr().to_string()));
}

/// Holdfast beside MySQL Router (metadata, read/write splitting): both tables, and a page with both in `target`.
#[test]
#[ignore = "a comparison, to be looked at: takes two minutes and asserts little"]
fn beside_mysql_router() {
    let group = Group::start(GroupOptions::default());
    let router = Router::start_metadata(&group);
    group.primary().sql(EXACTLY_ONCE);
    let proxy = Proxy::start(Options::group([group.member(0).addr()]).listener("exactly_once = true"));
    proxy.wait_witnesses(3);
    let mut last = String::new();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for trigger in ["switch", "kill"] {
        let mut compare = None;
        for (label, port) in [("MySQL Router", router.third_port()), ("Holdfast", proxy.port())] {
            let mut more = vec!["--trigger", trigger, "--label", label, "--user", "app", "--statement-timeout", "20s"];
            more.push("--direct-write");
            more.extend(compare.iter().flat_map(|file: &String| ["--compare", file.as_str()]));
            let old = group.wait_primary();
            let mut bench = Bench::start(&format!("bench-{trigger}-{port}"), port, group.members(), &more);
            let (code, said) = bench.end();
            println!("{label}\n{said}");
            assert!(code == 0 || label != "Holdfast", "{said}");
            if trigger == "kill" {
                group.rejoin(old);
                group.wait_online(3);
            }
            let page = target.join(format!("failover-{trigger}.html"));
            std::fs::copy(bench.file("report.html"), &page).expect("the folder is writable");
            compare = Some(bench.file("report.json").display().to_string());
            last = said;
        }
    }
    assert!(last.contains("MySQL Router"), "the second has the first beside it: {last}");
}
