//! \[pure\] What is known of one server: its last answer, what went wrong since, and how much of that still counts.

use super::kubernetes::pod::called;
use super::kubernetes::{PodFacts, PodState};
use super::report::{Failure, FailureKind, Observation, Report};
use super::settings::RoleHint;
use crate::types::{Address, BackendId};
use std::sync::Arc;

/// One server as the writer remembers it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its id.
    pub id: BackendId,
    /// Where it listens.
    pub address: Address,
    /// Share of the reads.
    pub weight: u32,
    /// What the configuration calls it.
    pub role_hint: Option<RoleHint>,
    /// Its pod, as it was last seen.
    pub pod: Option<Arc<PodFacts>>,
    /// Why it should have less traffic, and since when.
    pub drain: Option<Drain>,
    /// Its last answer.
    pub report: Option<(u64, Report)>,
    /// The last question without an answer, if it is younger than the report.
    pub failure: Option<(u64, Failure)>,
    /// The last moment something spoke against it: a hint, or a question without an answer. Only what was asked after it
    /// proves anything about this server.
    pub suspected_ms: Option<u64>,
    /// It has given no answer of any kind since then.
    pub silent_ms: Option<u64>,
    /// It was the primary of an earlier term and has not been seen read-only since: if it comes back writable, that is
    /// left over from then.
    pub former_primary: bool,
    /// How far behind it was when it last answered.
    pub lag_ms: Option<u64>,
}

/// What speaks against traffic on a server that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Since when, milliseconds.
    pub since_ms: u64,
    /// What.
    pub why: DrainReason,
}

/// Why a server is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainReason {
    /// It was taken out of the configuration, or left its group.
    Unlisted,
    /// What its pod says; never [`PodState::Ready`].
    Pod(PodState),
}

impl DrainReason {
    /// The words for evidence and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unlisted => "taken out of the configuration",
            Self::Pod(state) => state.as_str(),
        }
    }
}

impl Server {
    /// A server nobody has asked yet.
    pub fn new(id: BackendId, address: Address, weight: u32, role_hint: Option<RoleHint>) -> Self {
        Self {
            id,
            address,
            weight,
            role_hint,
            pod: None,
            drain: None,
            report: None,
            failure: None,
            suspected_ms: None,
            silent_ms: None,
            former_primary: false,
            lag_ms: None,
        }
    }

    /// What a person calls it.
    pub fn called(&self) -> String {
        called(&self.address, self.pod.as_deref())
    }

    /// Takes in one answer or failure; answers to older questions than the last one are ignored.
    pub fn observe(&mut self, observation: Observation) {
        let asked_ms = observation.asked_ms;
        let newest = self.report.as_ref().map(|r| r.0).max(self.failure.as_ref().map(|f| f.0));
        if newest.is_some_and(|newest| asked_ms < newest) {
            return;
        }
        match observation.outcome {
            Ok(report) => {
                self.former_primary &= !(report.read_only || report.offline);
                self.report = Some((asked_ms, report));
                self.failure = None;
                self.silent_ms = None;
            }
            Err(failure) => {
                // The doubt begins when the silence was noticed at the latest, when it began at the earliest.
                self.suspected_ms = self.suspected_ms.max(Some(asked_ms));
                self.silent_ms = match failure.kind {
                    FailureKind::Gone | FailureKind::Silent => self.silent_ms.or(Some(asked_ms)),
                    FailureKind::Barred => None,
                };
                self.failure = Some((asked_ms, failure));
            }
        }
    }

    /// Is it no longer one of the cluster's servers?
    pub fn is_unlisted(&self) -> bool {
        self.drain.is_some_and(|drain| drain.why == DrainReason::Unlisted)
    }

    /// Notes that `why` speaks against it from `now_ms` on; the same again keeps its time.
    pub fn set_drain(&mut self, why: Option<DrainReason>, now_ms: u64) {
        if self.drain.map(|drain| drain.why) != why {
            self.drain = why.map(|why| Drain { since_ms: now_ms, why });
        }
    }

    /// Has it answered, or failed to, at least once?
    pub fn was_asked(&self) -> bool {
        self.report.is_some() || self.failure.is_some()
    }

    /// Its last answer, if that still counts: not too old, and nothing worse than silence since.
    pub fn usable(&self, now_ms: u64, answer_ms_max: u64) -> Option<(u64, &Report)> {
        let (asked_ms, report) = self.report.as_ref()?;
        let ended = matches!(&self.failure, Some((_, f)) if f.kind != FailureKind::Silent);
        let old = now_ms.saturating_sub(*asked_ms) > answer_ms_max;
        (!ended && !old).then_some((*asked_ms, report))
    }

    /// Was `asked_ms` asked after everything that speaks against this server?
    pub fn beyond_doubt(&self, asked_ms: u64) -> bool {
        self.suspected_ms.is_none_or(|suspected| asked_ms > suspected)
    }

    /// Why its last answer does not count, for evidence.
    pub fn silence(&self) -> String {
        match (&self.failure, &self.report) {
            (Some((_, failure)), _) => failure.text.to_string(),
            (None, Some(_)) => "its last answer is too old".to_owned(),
            (None, None) => "not asked yet".to_owned(),
        }
    }

    /// `server_uuid` of the last answer, or empty.
    pub fn uuid(&self) -> &str {
        self.report.as_ref().and_then(|(_, report)| report.server_uuid.as_deref()).unwrap_or_default()
    }
}
