//! \[pure\] What clients see, as it happens, in memory that does not grow with their number of statements: histograms,
//! the longest stalls, a bucket for each 100 ms, the times of the first acknowledgements after the trigger.

use super::fault::Fault;
use super::report::{BUCKET_US, Bucket, Class, ClassReport, ErrorKind, Events, Stall};

/// The longest stalls that are kept, of each class.
const STALLS_MAX: usize = 20;
/// Kinds of errors that are told apart, of each class; further ones count with the last.
const KINDS_MAX: usize = 32;
/// Acknowledgements after the trigger whose times are kept, of each class.
const ACKNOWLEDGED_MAX: usize = 100_000;
/// Longest text of an error that is kept, characters.
const TEXT_MAX: usize = 300;
/// Buckets kept: two hours of them.
const BUCKETS_MAX: usize = 72_000;

/// When a statement began and when it was over, in µs since the start of the run.
pub type Span = (u64, u64);

/// What the clients of all classes saw.
pub struct Recorder {
    classes: [Seen; Class::ALL.len()],
}

struct Seen {
    ok: u64,
    errors: u64,
    kinds: Vec<ErrorKind>,
    reconnects: u64,
    retried: u64,
    stale: u64,
    latencies: Histogram,
    /// Longest first.
    stalls: Vec<Stall>,
    buckets: Vec<Bucket>,
    acknowledged: Acknowledged,
}

/// Times at which writes were acknowledged: the last before the trigger, and those after it.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    triggered: bool,
    before: u64,
    after: Vec<u64>,
}

/// What a search for the first write after a change finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    /// The last write before.
    pub from: u64,
    /// The first write after; `None` if there was none.
    pub to: Option<u64>,
}

impl Acknowledged {
    fn note(&mut self, at: u64) {
        if !self.triggered {
            self.before = at;
        } else if self.after.len() < ACKNOWLEDGED_MAX {
            self.after.push(at);
        }
    }

    /// The time without writes around a change of the primary. The new primary was not yet writable at `not_writable`;
    /// where that is not known, the longest time without a write is taken for it.
    pub fn outage(&self, not_writable: Option<u64>, end: u64) -> Outage {
        let at = match not_writable {
            Some(not_writable) => self.after.partition_point(|ack| *ack <= not_writable),
            None => {
                let began = |at: usize| if at == 0 { self.before } else { self.after[at - 1] };
                let length = |at: usize| self.after.get(at).unwrap_or(&end).saturating_sub(began(at));
                // Of equals the first.
                (0..=self.after.len()).rev().max_by_key(|at| length(*at)).unwrap_or(0)
            }
        };
        let from = if at == 0 { self.before } else { self.after[at - 1] };
        Outage { from, to: self.after.get(at).copied() }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self { classes: Class::ALL.map(|_| Seen::new()) }
    }
}

impl Recorder {
    fn seen(&mut self, class: Class) -> &mut Seen {
        &mut self.classes[class as usize]
    }

    /// A statement (transaction) was answered with OK. `since` is when its client last could go on: the begin of the
    /// statement, or of the first failed attempt before it.
    pub fn ok(&mut self, class: Class, client: u32, span: Span, since: u64) {
        let seen = self.seen(class);
        seen.ok += 1;
        seen.latencies.add(span.1 - span.0);
        if let Some(bucket) = seen.bucket(span.1) {
            bucket.ok += 1;
        }
        seen.acknowledged.note(span.1);
        seen.stalled(Stall { client, from_us: since, to_us: span.1, failed: since < span.0 });
    }

    /// A statement, or the attempt to connect, failed.
    pub fn error(&mut self, class: Class, span: Span, fault: &Fault) {
        let seen = self.seen(class);
        seen.errors += 1;
        if let Some(bucket) = seen.bucket(span.1) {
            bucket.errors += 1;
        }
        let full = seen.kinds.len() >= KINDS_MAX;
        let same = |kind: &ErrorKind| kind.code == fault.code && kind.state == fault.state;
        let at = seen.kinds.iter().position(same).or(full.then_some(KINDS_MAX - 1));
        match at {
            Some(at) => {
                let kind = &mut seen.kinds[at];
                kind.count += 1;
                (kind.last_began_us, kind.last_us) = (kind.last_began_us.max(span.0), kind.last_us.max(span.1));
                kind.first_began_us = kind.first_began_us.min(span.0);
            }
            None => seen.kinds.push(ErrorKind {
                code: fault.code,
                state: fault.state.clone(),
                count: 1,
                text: fault.text.chars().take(TEXT_MAX).collect(),
                first_began_us: span.0,
                last_began_us: span.0,
                first_us: span.1,
                last_us: span.1,
            }),
        }
    }

    /// The run ends and a client has been waiting since.
    pub fn unfinished(&mut self, class: Class, client: u32, span: Span) {
        self.seen(class).stalled(Stall { client, from_us: span.0, to_us: span.1, failed: true });
    }

    /// A client opened another connection.
    pub fn reconnected(&mut self, class: Class) {
        self.seen(class).reconnects += 1;
    }

    /// A transaction was rolled back with an error that asks for another try.
    pub fn retried(&mut self, class: Class) {
        self.seen(class).retried += 1;
    }

    /// A read did not show what must be there.
    pub fn stale(&mut self, class: Class) {
        self.seen(class).stale += 1;
    }

    /// The trigger is about to be pulled.
    pub fn triggered(&mut self) {
        self.classes.iter_mut().for_each(|seen| seen.acknowledged.triggered = true);
    }

    /// True once a write was acknowledged after `not_writable`.
    pub fn has_written_after(&self, not_writable: u64) -> bool {
        let last = |seen: &Seen| seen.acknowledged.after.last().copied().unwrap_or(0);
        let writing = Class::ALL.iter().zip(&self.classes).filter(|(class, _)| class.writes());
        writing.map(|(_, seen)| last(seen)).max().unwrap_or(0) > not_writable
    }

    /// Writes of all classes together.
    pub fn acknowledged(&self) -> Acknowledged {
        let mut all = Acknowledged::default();
        for (_, seen) in Class::ALL.iter().zip(&self.classes).filter(|(class, _)| class.writes()) {
            all.triggered |= seen.acknowledged.triggered;
            all.before = all.before.max(seen.acknowledged.before);
            all.after.extend(&seen.acknowledged.after);
        }
        all.after.sort_unstable();
        all
    }

    /// Reports of the classes that have clients; `clients` in the order of [`Class::ALL`].
    pub fn finish(self, clients: [u32; Class::ALL.len()], events: &Events, end: u64) -> Vec<ClassReport> {
        let all = Class::ALL.into_iter().zip(self.classes).zip(clients);
        let with_clients = all.filter(|(_, clients)| *clients > 0);
        with_clients.map(|((class, seen), clients)| seen.report(class, clients, events, end)).collect()
    }
}

impl Seen {
    fn new() -> Self {
        Self {
            ok: 0,
            errors: 0,
            kinds: Vec::new(),
            reconnects: 0,
            retried: 0,
            stale: 0,
            latencies: Histogram::default(),
            stalls: Vec::new(),
            buckets: Vec::new(),
            acknowledged: Acknowledged::default(),
        }
    }

    fn bucket(&mut self, at: u64) -> Option<&mut Bucket> {
        let at = usize::try_from(at / BUCKET_US).ok().filter(|at| *at < BUCKETS_MAX)?;
        if self.buckets.len() <= at {
            self.buckets.resize(at + 1, Bucket::default());
        }
        self.buckets.get_mut(at)
    }

    fn stalled(&mut self, stall: Stall) {
        // Whoever waited over the beginning of a bucket was waiting then.
        for at in stall.from_us / BUCKET_US + 1..=stall.to_us / BUCKET_US {
            if let Some(bucket) = self.bucket(at * BUCKET_US) {
                bucket.waiting += 1;
            }
        }
        let length = |stall: &Stall| stall.to_us - stall.from_us;
        if self.stalls.len() == STALLS_MAX && self.stalls.last().is_some_and(|least| length(least) >= length(&stall)) {
            return;
        }
        let at = self.stalls.partition_point(|longer| length(longer) >= length(&stall));
        self.stalls.insert(at, stall);
        self.stalls.truncate(STALLS_MAX);
    }

    fn report(mut self, class: Class, clients: u32, events: &Events, end: u64) -> ClassReport {
        self.bucket(end);
        let outage = class.writes().then(|| self.acknowledged.outage(events.not_writable_us, end));
        ClassReport {
            class,
            clients,
            ok: self.ok,
            errors: self.errors,
            error_kinds: self.kinds,
            reconnects: self.reconnects,
            retried: self.retried,
            stale: self.stale,
            p50_us: self.latencies.quantile(0.5),
            p99_us: self.latencies.quantile(0.99),
            first_ok_us: events.trigger_us.and(outage).and_then(|outage| outage.to),
            stalls: self.stalls,
            buckets: self.buckets,
        }
    }
}

/// Latencies in µs, eight buckets to each power of two: a quantile is at most 12.5 % too high.
struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; Self::index(u64::MAX) + 1], total: 0 }
    }
}

impl Histogram {
    fn index(us: u64) -> usize {
        let octave = us.max(1).ilog2();
        if octave < 3 { us as usize } else { (octave as usize - 2) * 8 + (us >> (octave - 3)) as usize % 8 }
    }

    /// The largest value of a bucket.
    fn bound(index: usize) -> u64 {
        let (octave, eighth) = (index / 8, (index % 8) as u64);
        if octave == 0 { eighth } else { ((8 + eighth + 1) << (octave - 1)).wrapping_sub(1) }
    }

    fn add(&mut self, us: u64) {
        self.counts[Self::index(us)] += 1;
        self.total += 1;
    }

    fn quantile(&self, q: f64) -> u64 {
        let rank = (q * self.total as f64).ceil() as u64;
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count;
            below >= rank.max(1)
        });
        found.map_or(0, Self::bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_the_truth_and_never_below_it() {
        for us in (0..10_000).chain([1 << 20, (1 << 20) + 1, u64::MAX >> 1]) {
            let bound = Histogram::bound(Histogram::index(us));
            assert!(bound >= us && bound - us <= us / 8, "{us}: {bound}");
        }
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), 0);
        (1..=100).for_each(|ms| histogram.add(ms * 1000));
        assert!((50_000..57_000).contains(&histogram.quantile(0.5)), "{}", histogram.quantile(0.5));
        assert!((99_000..112_000).contains(&histogram.quantile(0.99)));
    }

    #[test]
    fn the_outage_is_around_the_election_or_else_the_longest() {
        let acks = |after: &[u64]| Acknowledged { triggered: true, before: 90, after: after.to_vec() };
        // acknowledgements after the trigger, when not writable yet, end of the run → outage
        for (after, not_writable, outage) in [
            (&[100, 110, 700, 710][..], None, (110, Some(700))),
            (&[100, 110, 700, 710], Some(600), (110, Some(700))),
            // A hiccup later that is longer than the change itself.
            (&[100, 120, 125, 900], Some(110), (100, Some(120))),
            (&[100, 110], None, (110, None)),
            (&[100, 110], Some(600), (110, None)),
            (&[700], None, (90, Some(700))),
            (&[], None, (90, None)),
            (&[], Some(600), (90, None)),
        ] {
            let (from, to) = outage;
            assert_eq!(acks(after).outage(not_writable, 1000), Outage { from, to }, "{after:?} {not_writable:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_longest_stays() {
        let mut recorder = Recorder::default();
        for n in 0..1000 {
            let fault = Fault { code: n as u16, state: String::new(), text: "x".repeat(1000), lost: false };
            recorder.error(Class::Write, (n, n + 1), &fault);
            recorder.ok(Class::Write, 1, (n * 10, n * 10 + n % 100), n * 10);
        }
        recorder.ok(Class::Write, 2, (700_000, 750_000), 250_000);
        let report = recorder.finish([1, 0, 0, 0, 0, 0], &Events::default(), 1_000_000);
        let [class] = report.as_slice() else { panic!("{report:?}") };
        assert_eq!((class.ok, class.errors), (1001, 1000));
        assert_eq!((class.stalls.len(), class.error_kinds.len()), (STALLS_MAX, KINDS_MAX));
        assert_eq!(class.error_kinds.iter().map(|kind| kind.count).sum::<u64>(), 1000);
        assert_eq!(class.error_kinds[0].text.len(), TEXT_MAX);
        assert_eq!(class.longest_us(), 500_000);
        assert!(class.stalls[0].failed, "an attempt failed before");
        assert_eq!(class.buckets.len(), 11);
        let waiting: Vec<u32> = class.buckets.iter().map(|bucket| bucket.waiting).collect();
        assert_eq!(waiting, [0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0]);
    }
}
