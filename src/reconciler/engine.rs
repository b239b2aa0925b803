//! The loop of one cluster: look, decide, act; every second while all is well, at once when a server leaves or something is
//! heard, and again and again while there is something to do.
//!
//! It holds the only connections and the only memory there is, and both may be lost at any moment: what must survive is in the
//! record. A step that takes long (a clone, a join, leaving a group) runs beside the loop, and its member is left in peace meanwhile.

use super::act::{ActError, Actor};
use super::action::{Action, Plan, Step};
use super::death;
use super::decide::decide;
use super::observe::Observer;
use super::place::{Place, PlaceError, Site};
use super::resource::TopologyKind;
use super::server::Access;
use super::snapshot::{Answer, Member, MemberName, Record, Snapshot, learn};
use crate::topology::lag::LagRing;
use crate::types::{Address, Gtids, Role, Term};
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Between two looks while all is well.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks while something is wrong or under way.
const HASTE: Duration = Duration::from_millis(20);
/// Moments of which is remembered what the primary had, and the time between two of them at least, milliseconds.
const LAG_SAMPLES_MAX: usize = 256;
const LAG_GAP_MS: u64 = 1000;
/// Rounds without a change after which haste is over: what does not come soon takes its time. A group needs 21 s at most to miss
/// a member.
const HASTE_ROUNDS_MAX: u32 = 1000;
/// Between two times that the servers read their certificates again. Whoever renews them does so days before they end, and the
/// kubelet brings them to the pods within two minutes.
const CERTIFICATES: Duration = Duration::from_secs(600);

/// One cluster's loop.
pub struct Engine<P> {
    place: P,
    access: Access,
    observer: Observer,
    /// Steps that run beside the loop; they end with it.
    long: HashMap<MemberName, AbortOnDropHandle<()>>,
    record: Record,
    kept: Option<Instant>,
    lost_since: Option<Instant>,
    change_since: Option<Instant>,
    said: Option<Plan>,
    hasty: u32,
    began: Instant,
    /// What the primary had executed when, since this began.
    lag: LagRing,
    /// When the servers last read their certificates, and that reading itself: beside the loop, for a server that freezes in it
    /// is not to keep the others waiting.
    certificates: Option<(Instant, AbortOnDropHandle<()>)>,
}

impl<P: Place> Engine<P> {
    /// Nothing is known yet.
    pub fn new(place: P, access: Access) -> Self {
        Self {
            place,
            access,
            observer: Observer::default(),
            long: HashMap::new(),
            record: Record::default(),
            kept: None,
            lost_since: None,
            change_since: None,
            said: None,
            hasty: 0,
            began: Instant::now(),
            lag: LagRing::default(),
            certificates: None,
        }
    }

    /// Runs until told to stop. A step under way is left as it is: the next reconciler finds out.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.run_for_ever()).await;
    }

    async fn run_for_ever(&mut self) {
        loop {
            let pause = match self.round().await {
                Ok(pause) => pause,
                // Read again: what follows from it may be something else.
                Err(PlaceError::Overtaken) => HASTE,
                Err(error) => {
                    tracing::warn!(%error, "the record can't be read or written: roles stay as they are");
                    TICK
                }
            };
            // Not more often, whoever calls: a server that closes whatever is opened, or proxies without end.
            tokio::time::sleep(HASTE).await;
            if pause > HASTE {
                tokio::select! {
                    () = tokio::time::sleep(pause - HASTE) => {}
                    () = self.observer.somebody_left() => {}
                    () = self.place.changed() => {}
                }
            }
        }
    }

    /// One look and what follows from it; how long to wait for the next.
    async fn round(&mut self) -> Result<Duration, PlaceError> {
        self.long.retain(|_, step| !step.is_finished());
        let busy: Vec<MemberName> = self.long.keys().cloned().collect();
        let mut site = self.place.read(&busy).await?;
        if self.kept.is_some() {
            // What was seen since is newer than what was written down; nobody else looks.
            site.record.known = std::mem::take(&mut self.record.known);
        }
        self.record = site.record.clone();
        let renewed_certificates = site.renewed_certificates;
        let snapshot = self.look(site).await;
        self.record.known = snapshot.record.known.clone();
        let plan = decide(&snapshot);
        self.say(&plan);
        let is_news = self.place.tell(&snapshot, &plan);
        let is_due = is_news || self.kept.is_none_or(|kept| kept.elapsed() >= P::KEEP);
        if is_due && plan.steps.is_empty() {
            self.keep().await?;
        }
        let changed = self.act(&snapshot, &plan).await?;
        let labels_primary = |step: &Step| matches!(step.action, Action::Label { role: Role::Primary, .. });
        if plan.steps.iter().any(labels_primary) {
            // How long the change took is known only behind the label.
            self.keep().await?;
        }
        // Another operator's has nobody who leads by our record.
        let external = snapshot.wishes.topology == TopologyKind::External;
        let answers = external || snapshot.lead().is_some_and(|lead| lead.answer().is_some());
        let calm = plan.steps.is_empty() && answers;
        let is_time = self.certificates.as_ref().is_none_or(|(begun, _)| begun.elapsed() >= CERTIFICATES);
        if calm && renewed_certificates && is_time {
            self.certificates = Some((Instant::now(), self.read_certificates(&snapshot)));
        }
        self.hasty = if calm || changed { 0 } else { self.hasty.saturating_add(1) };
        Ok(if calm || self.hasty > HASTE_ROUNDS_MAX { TICK } else { HASTE })
    }

    /// All servers at once; one that can't goes on with those it has.
    fn read_certificates(&self, s: &Snapshot) -> AbortOnDropHandle<()> {
        let there = s.members.iter().filter(|member| member.answer().is_some() && !member.busy);
        let there: Vec<MemberName> = there.map(|member| member.name.clone()).collect();
        let (access, addresses) = (self.access.clone(), addresses(&s.members));
        let read = async move {
            let actor = Actor { access: &access, members: &addresses };
            let read = there.iter().map(async |member| match actor.read_certificates(member).await {
                Ok(()) => tracing::debug!(%member, "has read its certificates again"),
                Err(error) => tracing::warn!(%member, %error, "its certificates are the old ones"),
            });
            join_all(read).await;
        };
        AbortOnDropHandle::new(tokio::spawn(read))
    }

    async fn keep(&mut self) -> Result<(), PlaceError> {
        self.kept = Some(Instant::now());
        self.place.write(&self.record).await
    }

    async fn look(&mut self, site: Site) -> Snapshot {
        let Site { wishes, record, mut members, .. } = site;
        let addresses = addresses(&members);
        let sights = self.observer.look(&self.access, &addresses).await;
        for (member, sight) in members.iter_mut().zip(sights) {
            member.sight = sight;
            member.busy |= self.long.contains_key(&member.name);
        }
        let mut s = Snapshot { wishes, record, members, lost_ms: 0, change_ms: 0 };
        let lost = s.lead().is_none_or(|lead| lead.answer().is_none());
        s.lost_ms = since(&mut self.lost_since, lost);
        s.change_ms = since(&mut self.change_since, s.is_changing());
        s.record.known = learn(&s);
        self.measure_lag(&mut s);
        s
    }

    fn measure_lag(&mut self, s: &mut Snapshot) {
        let now_ms = self.began.elapsed().as_millis() as u64;
        let executed = |answer: &Answer| Gtids::MySql(answer.executed.clone());
        if let Some(lead) = s.lead().and_then(Member::answer).filter(|answer| !answer.is_fenced()) {
            // Twice the limit can be seen.
            let gap_ms = (2 * s.wishes.max_lag_ms / LAG_SAMPLES_MAX as u64).max(LAG_GAP_MS);
            self.lag.push(now_ms, &Arc::new(executed(lead)), gap_ms, LAG_SAMPLES_MAX);
        }
        for member in &mut s.members {
            member.lag_ms = member.answer().and_then(|answer| self.lag.lag_ms(now_ms, &executed(answer)));
        }
    }

    /// Does the steps in their order, neighbours that go with each other at once; true if there were any and all were done.
    async fn act(&mut self, s: &Snapshot, plan: &Plan) -> Result<bool, PlaceError> {
        let addresses = addresses(&s.members);
        let mut all = !plan.steps.is_empty();
        for steps in plan.steps.chunk_by(|a, b| a.action.goes_with(&b.action)) {
            let (long, short): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(|step| is_long(&step.action));
            for step in long {
                // What it had is written down before it is done away with.
                self.keep().await?;
                if let Action::Clone { member, .. } = &step.action
                    && s.member(member).and_then(Member::answer).is_none_or(|answer| !answer.has().is_empty())
                {
                    // Not one that is empty: it has given out no numbers yet.
                    self.place.renew(member).await?;
                }
                self.begin(step, &addresses);
            }
            // A step has one part or the other.
            let access = self.access.clone();
            let actor = Actor { access: &access, members: &addresses };
            let on_servers = join_all(short.iter().map(|step| actor.act(&step.action)));
            let (on_servers, written) = tokio::join!(on_servers, self.write_all_down(&short));
            for (step, (done, written)) in short.iter().zip(on_servers.into_iter().zip(written)) {
                let done = match done {
                    Ok(()) => written.map_err(|error| error.to_string()),
                    Err(error) => Err(self.failed(step, &error)),
                };
                log(self.record.term, step, &done);
                if done.is_ok() {
                    death::behind(&step.action);
                }
                all &= done.is_ok();
                if done.is_err() && !step.action.is_alone() {
                    return Ok(false);
                }
            }
        }
        Ok(all)
    }

    fn failed(&mut self, step: &Step, error: &ActError) -> String {
        if let Some(member) = step.action.member() {
            self.observer.forget(member);
        }
        error.to_string()
    }

    /// Begins a step that runs beside the loop.
    fn begin(&mut self, step: &Step, addresses: &[(MemberName, Address)]) {
        let Some(member) = step.action.member().cloned() else { return };
        let (access, addresses, step) = (self.access.clone(), Arc::<[_]>::from(addresses), step.clone());
        tracing::info!(step = %step.action, why = step.why, "begins");
        let begun = step.action.to_string();
        let work = async move {
            let done = Actor { access: &access, members: &addresses }.act(&step.action).await;
            match done {
                Ok(()) => {
                    tracing::info!(step = %step.action, "done");
                    death::behind(&step.action);
                }
                Err(error) => tracing::warn!(step = %step.action, %error, "failed"),
            }
        };
        self.long.insert(member, AbortOnDropHandle::new(tokio::spawn(work)));
        death::behind(format_args!("begin {}", begun));
    }

    async fn write_all_down(&mut self, steps: &[&Step]) -> Vec<Result<(), PlaceError>> {
        let mut written = Vec::with_capacity(steps.len());
        for step in steps {
            written.push(self.write_down(&step.action).await);
        }
        written
    }

    /// The part of a step that is not a server's.
    async fn write_down(&mut self, action: &Action) -> Result<(), PlaceError> {
        match action {
            Action::Claim { member, term } => {
                (self.record.target, self.record.term) = (Some(member.clone()), *term);
                self.place.write(&self.record).await
            }
            Action::Settle { member } => {
                self.record.primary = Some(member.clone());
                self.place.write(&self.record).await
            }
            Action::RecordAcks { acks } => {
                self.record.acks = Some(*acks);
                self.place.write(&self.record).await
            }
            Action::Announce { member, term } => self.place.announce(member, *term).await,
            Action::Label { member, role } => self.place.label(member, Some(*role)).await,
            Action::Unlabel { member } => self.place.label(member, None).await,
            _ => Ok(()),
        }
    }

    fn say(&mut self, plan: &Plan) {
        if self.said.as_ref().is_none_or(|said| said.phase != plan.phase || said.why != plan.why) {
            tracing::info!(phase = plan.phase.as_str(), why = plan.why, "the cluster");
            self.said = Some(Plan { steps: Vec::new(), ..plan.clone() });
        }
    }
}

fn addresses(members: &[Member]) -> Vec<(MemberName, Address)> {
    members.iter().map(|member| (member.name.clone(), member.address.clone())).collect()
}

fn is_long(action: &Action) -> bool {
    matches!(action, Action::Clone { .. } | Action::Join { .. } | Action::Leave { .. })
}

fn since(begin: &mut Option<Instant>, is: bool) -> u64 {
    *begin = if is { begin.or_else(|| Some(Instant::now())) } else { None };
    begin.map_or(0, |begin| begin.elapsed().as_millis() as u64)
}

fn log(term: Term, step: &Step, done: &Result<(), String>) {
    let term = term.0;
    match (&step.action, done) {
        (Action::Label { member, role: Role::Primary }, Ok(())) => {
            tracing::info!(primary = %member, term, why = step.why, "takes writes");
        }
        (_, Ok(())) => tracing::info!(step = %step.action, why = step.why, "done"),
        (_, Err(error)) => tracing::warn!(step = %step.action, why = step.why, error, "failed"),
    }
}
