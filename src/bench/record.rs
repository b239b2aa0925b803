//! \[pure\] What clients see, as it happens, in memory that does not grow with their number of statements: histograms,
//! the longest stalls, a bucket for each 100 ms, the times of the first rows acknowledged after the trigger.

use super::fault::Fault;
use super::report::{BUCKET_US, Bucket, Class, ClassReport, ErrorKind, Stall};

/// The longest stalls that are kept, of each class.
const STALLS_MAX: usize = 20;
/// Kinds of errors that are told apart, of each class; further ones count with the last.
const KINDS_MAX: usize = 32;
/// Rows acknowledged after the trigger whose times are kept.
const WRITTEN_MAX: usize = 200_000;
/// Longest text of an error that is kept, characters.
const TEXT_MAX: usize = 300;
/// Buckets kept: two hours of them.
const BUCKETS_MAX: usize = 72_000;

/// When a statement began and when it was over, in µs since the start of the run.
pub type Span = (u64, u64);

/// What the clients of all classes saw.
pub struct Recorder {
    classes: [Seen; Class::ALL.len()],
    written: Written,
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
}

/// A row that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// When.
    pub at: u64,
    /// To which class of clients.
    pub class: Class,
    /// To which client.
    pub client: u32,
    /// Which of its rows.
    pub number: u64,
    /// Who wrote it (server_id), as the row itself says; known after the check.
    pub server: Option<u64>,
}

/// Rows that were acknowledged: the time of the last before the trigger, and those after it.
#[derive(Clone, Debug, Default)]
pub struct Written {
    triggered: bool,
    before: u64,
    /// In the order of their times.
    pub after: Vec<Write>,
}

/// The time without writes around a change of the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    /// The last write before.
    pub from: u64,
    /// The first write after; `None` if there was none.
    pub to: Option<u64>,
}

impl Written {
    fn note(&mut self, write: Write) {
        if !self.triggered {
            self.before = write.at;
        } else if self.after.len() < WRITTEN_MAX {
            self.after.push(write);
        }
    }

    /// From the last write of the `old` primary to the first of another server. Where no other has written (the old one
    /// came back, or servers are not told apart), it is the longest time without a write.
    pub fn outage(&self, old: Option<u64>, end: u64) -> Outage {
        let other = self.after.iter().find(|write| is_other(write, old));
        if let Some(first) = other {
            let by_old = self.after.iter().filter(|write| !is_other(write, old)).map(|write| write.at);
            return Outage {
                from: by_old.take_while(|at| *at <= first.at).last().unwrap_or(self.before),
                to: Some(first.at),
            };
        }
        let began = |at: usize| if at == 0 { self.before } else { self.after[at - 1].at };
        let ended = |at: usize| self.after.get(at).map(|write| write.at);
        let length = |at: &usize| ended(*at).unwrap_or(end).saturating_sub(began(*at));
        // Of equals the first.
        let longest = (0..=self.after.len()).rev().max_by_key(length).unwrap_or(0);
        Outage { from: began(longest), to: ended(longest) }
    }

    /// The first write of a class after an outage.
    pub fn first_of(&self, class: Class, old: Option<u64>, outage: Outage) -> Option<u64> {
        let to = outage.to?;
        let of_class = |write: &&Write| write.class == class && write.at >= to;
        let changed = self.after.iter().any(|write| is_other(write, old));
        self.after.iter().filter(of_class).find(|write| !changed || is_other(write, old)).map(|write| write.at)
    }
}

fn is_other(write: &Write, old: Option<u64>) -> bool {
    old.is_some() && write.server.is_some_and(|server| Some(server) != old)
}

impl Default for Recorder {
    fn default() -> Self {
        Self { classes: Class::ALL.map(|_| Seen::new()), written: Written::default() }
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

    /// A row was acknowledged.
    pub fn wrote(&mut self, class: Class, client: u32, number: u64, at: u64) {
        self.written.note(Write { at, class, client, number, server: None });
    }

    /// The trigger is about to be pulled.
    pub fn triggered(&mut self) {
        self.written.triggered = true;
    }

    /// True once a row was acknowledged after `at`.
    pub fn has_written_after(&self, at: u64) -> bool {
        self.written.after.last().is_some_and(|last| last.at > at)
    }

    /// The rows that were acknowledged, to be kept elsewhere.
    pub fn take_written(&mut self) -> Written {
        std::mem::take(&mut self.written)
    }

    /// Reports of the classes that have clients; `clients` in the order of [`Class::ALL`], `first_ok` tells each class's
    /// first write after the change.
    pub fn finish(
        self,
        clients: [u32; Class::ALL.len()],
        first_ok: impl Fn(Class) -> Option<u64>,
        end: u64,
    ) -> Vec<ClassReport> {
        let all = Class::ALL.into_iter().zip(self.classes).zip(clients);
        let with_clients = all.filter(|(_, clients)| *clients > 0);
        let report = |((class, seen), clients): ((Class, Seen), u32)| ClassReport {
            first_ok_us: first_ok(class),
            ..seen.report(class, clients, end)
        };
        with_clients.map(report).collect()
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

    fn report(mut self, class: Class, clients: u32, end: u64) -> ClassReport {
        self.bucket(end);
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
            first_ok_us: None,
            stalls: self.stalls,
            buckets: self.buckets,
        }
    }
}

/// Latencies in µs, eight buckets to each power of two: a quantile is at most 12.5 % too high.
struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; Self::index(u64::MAX) + 1], total: 0, most: 0 }
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
        self.most = self.most.max(us);
    }

    fn quantile(&self, q: f64) -> u64 {
        let rank = (q * self.total as f64).ceil() as u64;
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count;
            below >= rank.max(1)
        });
        found.map_or(0, Self::bound).min(self.most)
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
        assert_eq!(histogram.quantile(0.99), 100_000, "no more than the most");
    }

    #[test]
    fn the_outage_ends_with_the_first_write_of_another_server() {
        let written = |after: &[(u64, u64)]| {
            let write = |(at, server): &(u64, u64)| Write {
                at: *at,
                class: Class::Write,
                client: 1,
                number: *at,
                server: Some(*server),
            };
            Written { triggered: true, before: 90, after: after.iter().map(write).collect() }
        };
        // rows acknowledged after the trigger with their writers, the old primary → outage
        type Case = (&'static [(u64, u64)], Option<u64>, (u64, Option<u64>));
        let cases: [Case; 8] = [
            (&[(100, 1), (110, 1), (700, 2), (710, 2)], Some(1), (110, Some(700))),
            // A hiccup later that is longer than the change itself.
            (&[(100, 1), (120, 2), (125, 2), (900, 2)], Some(1), (100, Some(120))),
            (&[(700, 2)], Some(1), (90, Some(700))),
            // The old one came back, or nobody knows who it was: the longest.
            (&[(100, 1), (700, 1), (710, 1)], Some(1), (100, Some(700))),
            (&[(100, 1), (120, 2), (700, 2)], None, (120, Some(700))),
            // No write after that.
            (&[(100, 1), (110, 1)], Some(1), (110, None)),
            (&[(100, 1), (110, 1)], None, (110, None)),
            (&[], Some(1), (90, None)),
        ];
        for (after, old, (from, to)) in cases {
            let written = written(after);
            let outage = written.outage(old, 1000);
            assert_eq!(outage, Outage { from, to }, "{after:?} {old:?}");
            assert_eq!(written.first_of(Class::Write, old, outage), to);
            assert_eq!(written.first_of(Class::Prepared, old, outage), None);
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
        let report = recorder.finish([1, 0, 0, 0, 0, 0], |_| Some(7), 1_000_000);
        let [class] = report.as_slice() else { panic!("{report:?}") };
        assert_eq!((class.ok, class.errors), (1001, 1000));
        assert_eq!((class.stalls.len(), class.error_kinds.len()), (STALLS_MAX, KINDS_MAX));
        assert_eq!(class.error_kinds.iter().map(|kind| kind.count).sum::<u64>(), 1000);
        assert_eq!(class.error_kinds[0].text.len(), TEXT_MAX);
        assert_eq!((class.longest_us(), class.first_ok_us), (500_000, Some(7)));
        assert!(class.stalls[0].failed, "an attempt failed before");
        assert_eq!(class.buckets.len(), 11);
        let waiting: Vec<u32> = class.buckets.iter().map(|bucket| bucket.waiting).collect();
        assert_eq!(waiting, [0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0]);
    }
}
