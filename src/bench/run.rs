//! One run: make the tables, start the clients, pull the trigger, wait, check the writes.

use super::args::Plan;
use super::error::BenchError;
use super::ledger::Ledger;
use super::record::{Outage, Recorder};
use super::report::{Class, Events, Run, ServerState};
use super::servers::{self, FirstRow, Log, Logs, Server, became};
use super::tables;
use super::trigger::{self, Frozen, Ready, Scene, Trigger};
use super::workload::{Driver, Phase, Shared};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Between two looks whether a run is over.
const LOOK: Duration = Duration::from_millis(20);
/// Limit for the user's commands.
const COMMAND: Duration = Duration::from_secs(300);

/// Does it once. Must run in a `LocalSet`. Cancelled, it leaves the database behind and no process frozen.
pub async fn once(plan: &Plan, servers: &[Server], number: u32) -> Result<Run, BenchError> {
    let writer = tables::create(plan).await?;
    let run = with_tables(plan, servers, writer).await;
    if run.is_err() && !plan.keep {
        // The first error says more than one of cleaning up.
        let _ = tables::drop_database(plan).await;
    }
    Ok(Run { number, ..run? })
}

async fn with_tables(plan: &Plan, servers: &[Server], writer: Option<u64>) -> Result<Run, BenchError> {
    tables::wait_copied(plan, servers).await?;
    let primary = servers.iter().position(|server| Some(server.id) == writer);
    if primary.is_none() && !servers.is_empty() {
        return Err(BenchError::NoPrimary(format!(
            "writes through {} are executed by the server whose server_id is {}, which is none of --server: name all \
             servers",
            plan.target.address,
            writer.unwrap_or(0)
        )));
    }
    let scene = Scene { servers, primary, limit: COMMAND };
    let ready = plan.trigger.prepare(&scene).await?;
    let mut stage = Stage::start(plan, servers, primary).await?;
    stage.play(ready).await?;
    let (ledgers, length_us) = stage.end().await?;
    if let Some(command) = &plan.restore {
        trigger::run(trigger::shell(command, &scene), COMMAND).await?;
    }

    let mut recorder = stage.shared.recorder.take();
    let mut written = recorder.take_written();
    let checked = tables::check(plan, servers, &ledgers, &mut written).await?;
    let mut notes = checked.notes;
    if ledgers.iter().any(Ledger::is_full) {
        notes.push("a client gave up writing after 100,000 failures".to_owned());
    }
    let logs = stage.logs.borrow();
    let outage = written.outage(writer, length_us);
    let events = stage.events(&logs, outage);
    let triggered = events.trigger_us;
    let new = became(&logs, primary, ServerState::Writable, triggered.unwrap_or(u64::MAX));
    let address = |index: usize| servers[index].address().to_string();
    let first_ok = |class| triggered.and_then(|_| written.first_of(class, writer, outage));
    Ok(Run {
        number: 0,
        length_us,
        primary_before: primary.map(address),
        primary_after: new.map(|(index, _)| address(index)),
        classes: recorder.finish(plan.clients, first_ok, length_us),
        servers: servers::reports(servers, &logs, &checked.agrees),
        verdict: checked.verdict,
        events,
        notes,
    })
}

/// Clients and watchers at work.
struct Stage<'a> {
    plan: &'a Plan,
    primary: Option<usize>,
    in_group: bool,
    shared: Rc<Shared>,
    phase: watch::Sender<Phase>,
    clients: JoinSet<Ledger>,
    watchers: JoinSet<()>,
    logs: Logs,
    direct: FirstRow,
    /// True once the trigger is about to be pulled.
    trigger: watch::Sender<bool>,
    pulled: Events,
}

impl<'a> Stage<'a> {
    /// Connects all clients, then lets them go at once.
    async fn start(plan: &'a Plan, servers: &[Server], primary: Option<usize>) -> Result<Self, BenchError> {
        let (phase, phases) = watch::channel(Phase::Before);
        let shared = Rc::new(Shared {
            target: plan.target.clone(),
            database: plan.database.clone(),
            period: Duration::from_secs_f64(1.0 / plan.rate),
            recorder: RefCell::new(Recorder::default()),
            origin: Cell::new(Instant::now()),
            phase: phases,
        });
        let mut drivers = Vec::new();
        let mut number = 0;
        for (class, count) in Class::ALL.into_iter().zip(plan.clients) {
            // Those that read back are the writing ones.
            for _ in (0..count).filter(|_| class != Class::ReadBack) {
                number += 1;
                let driver = Driver::start(Rc::clone(&shared), class, number).await;
                drivers.push(driver.map_err(|fault| BenchError::Target {
                    address: plan.target.address.clone(),
                    what: "starting a client",
                    fault,
                })?);
            }
        }
        shared.origin.set(Instant::now());
        let logs: Logs = Rc::new(RefCell::new(vec![Log::default(); servers.len()]));
        let mut watchers = JoinSet::new();
        for (index, server) in servers.iter().enumerate() {
            watchers.spawn_local(servers::follow(server.clone(), Rc::clone(&logs), index, shared.origin.get()));
        }
        let direct = FirstRow::default();
        let (trigger, triggers) = watch::channel(false);
        let others = servers.iter().enumerate().filter(|(index, _)| plan.writes_directly && Some(*index) != primary);
        for (_, server) in others {
            let (target, database) = (plan.target.at(server.address().clone()), plan.database.clone());
            let origin = shared.origin.get();
            watchers.spawn_local(servers::write_first(target, database, triggers.clone(), Rc::clone(&direct), origin));
        }
        let mut clients = JoinSet::new();
        let total = drivers.len() as f64;
        for (at, driver) in drivers.into_iter().enumerate() {
            clients.spawn_local(driver.run(at as f64 / total));
        }
        let in_group = servers.iter().any(|server| server.in_group);
        let pulled = Events::default();
        Ok(Self { plan, primary, in_group, shared, phase, clients, watchers, logs, direct, trigger, pulled })
    }

    /// Waits, pulls the trigger, waits until there is nothing more to see.
    async fn play(&mut self, ready: Ready) -> Result<(), BenchError> {
        tokio::time::sleep(self.plan.times.before).await;
        let mut frozen = None;
        if self.plan.trigger != Trigger::Nothing {
            self.shared.recorder.borrow_mut().triggered();
            self.pulled.trigger_us = Some(self.shared.now());
            self.trigger.send_replace(true);
            frozen = ready.pull().await?;
            self.pulled.trigger_done_us = Some(self.shared.now());
        }
        self.phase.send_replace(Phase::Triggered);
        let pulled = Instant::now();
        let end = self.shared.origin.get() + self.plan.times.duration;
        let mut recovered = None;
        while Instant::now() < end && recovered.is_none_or(|at: Instant| at.elapsed() < self.plan.times.after) {
            tokio::time::sleep(LOOK).await;
            if frozen.as_ref().is_some_and(|(_, time)| pulled.elapsed() >= *time) {
                self.thaw(frozen.take());
            }
            if frozen.is_none() && recovered.is_none() && self.has_recovered() {
                recovered = Some(Instant::now());
            }
        }
        self.thaw(frozen);
        Ok(())
    }

    fn thaw(&mut self, frozen: Option<(Frozen, Duration)>) {
        if let Some(frozen) = frozen {
            self.pulled.thaw_us = Some(self.shared.now());
            drop(frozen);
        }
    }

    /// The new primary is writable and has written.
    fn has_recovered(&self) -> bool {
        let Some(trigger) = self.pulled.trigger_us else { return false };
        let writable = became(&self.logs.borrow(), self.primary, ServerState::Writable, trigger);
        writable.is_some_and(|(_, change)| self.shared.recorder.borrow().has_written_after(change.not_before_us))
    }

    /// Lets the clients finish what they do; what they know of their writes, and the length of the run.
    async fn end(&mut self) -> Result<(Vec<Ledger>, u64), BenchError> {
        self.phase.send_replace(Phase::Done);
        let mut ledgers = Vec::new();
        while let Some(ended) = self.clients.join_next().await {
            // Without what this client knows its writes can't be judged.
            ledgers.push(ended.map_err(|error| BenchError::Client(error.to_string()))?);
        }
        self.watchers.abort_all();
        ledgers.sort_by_key(|ledger| ledger.client);
        Ok((ledgers, self.shared.now()))
    }

    /// All that has happened, from the trigger, the servers' and the clients' words.
    fn events(&self, logs: &[Log], outage: Outage) -> Events {
        let Some(trigger) = self.pulled.trigger_us else { return Events::default() };
        let since = |state| became(logs, self.primary, state, trigger).map(|(_, change)| change);
        let writable = since(ServerState::Writable);
        Events {
            elected_us: since(ServerState::Elected).filter(|_| self.in_group).map(|change| change.at_us),
            writable_us: writable.map(|change| change.at_us),
            not_writable_us: writable.map(|change| change.not_before_us),
            direct_write_us: self.direct.get(),
            outage_from_us: Some(outage.from),
            first_write_us: outage.to,
            ..self.pulled.clone()
        }
    }
}
