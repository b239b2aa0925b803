//! What is measured, and the arithmetic of medians and ratios.

use crate::load::Kindling;
use crate::process::Memory;
use std::time::Duration;

/// One kind of load.
pub struct Case {
    /// Name in the results.
    pub name: &'static str,
    /// What is sent.
    pub kindling: Kindling,
    /// On how many connections.
    pub connections: usize,
}

const fn case(name: &'static str, kindling: Kindling, connections: usize) -> Case {
    Case { name, kindling, connections }
}

/// All cases, in the order of the tables.
pub const CASES: [Case; 7] = [
    case("point-1", Kindling::Point, 1),
    case("point-16", Kindling::Point, 16),
    case("point-64", Kindling::Point, 64),
    case("point-256", Kindling::Point, 256),
    case("prepared-64", Kindling::Prepared, 64),
    case("mix-64", Kindling::Mix, 64),
    case("big-1", Kindling::Big, 1),
];

/// One contender in one case of one round.
#[derive(Clone, Default)]
pub struct Sample {
    /// Counted from 0.
    pub round: usize,
    /// [`Case::name`].
    pub case: &'static str,
    /// Its name.
    pub contender: &'static str,
    /// Statements answered.
    pub statements: u64,
    /// Statements per second.
    pub per_second: f64,
    /// Received by the clients.
    pub megabytes_per_second: f64,
    /// Median time of a statement.
    pub p50_us: f64,
    /// The 99th percentile.
    pub p99_us: f64,
    /// CPU time of the proxy per statement.
    pub cpu_us: f64,
    /// Clock ticks of that in user space and in the kernel: too coarse for one sample, good for all of them together.
    pub ticks: [u64; 2],
    /// Memory of the proxy at the end, and its peak during the case.
    pub memory: Memory,
}

/// What idle sessions cost.
pub struct Idle {
    /// Its name.
    pub contender: &'static str,
    /// How many.
    pub sessions: usize,
    /// Resident before.
    pub before_kib: u64,
    /// Resident memory per session.
    pub bytes_each: f64,
}

/// All of a run.
pub struct Results {
    /// Every sample.
    pub samples: Vec<Sample>,
    /// Idle sessions.
    pub idle: Vec<Idle>,
    /// Contenders with their versions, in the order of the tables.
    pub versions: Vec<(&'static str, String)>,
    /// Cores of the machine.
    pub cores: usize,
    /// Rounds.
    pub rounds: usize,
    /// Measured time of each case.
    pub time: Duration,
}

impl Results {
    fn of<'a>(&'a self, case: &'a str, contender: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.case == case && sample.contender == contender)
    }

    /// Median over the rounds.
    pub fn median(&self, case: &str, contender: &str, value: fn(&Sample) -> f64) -> Option<f64> {
        median(self.of(case, contender).map(value).collect())
    }

    /// CPU time in user space per statement, over all rounds together, microseconds.
    pub fn user_us(&self, case: &str, contender: &str) -> Option<f64> {
        let (mut cpu, mut statements, mut ticks) = (0.0, 0.0, [0.0, 0.0]);
        for sample in self.of(case, contender) {
            cpu += sample.cpu_us * sample.statements as f64;
            statements += sample.statements as f64;
            ticks = [ticks[0] + sample.ticks[0] as f64, ticks[1] + sample.ticks[1] as f64];
        }
        let all = ticks[0] + ticks[1];
        (all > 0.0).then(|| cpu / statements * ticks[0] / all)
    }

    /// Median over the rounds of the ratio of two contenders in the same round.
    pub fn ratio(&self, case: &str, of: &str, to: &str, value: fn(&Sample) -> f64) -> Option<f64> {
        self.paired(case, of, to, |a, b| value(a) / value(b))
    }

    /// Median over the rounds of how much more one contender has than another in the same round.
    pub fn difference(&self, case: &str, of: &str, to: &str, value: fn(&Sample) -> f64) -> Option<f64> {
        self.paired(case, of, to, |a, b| value(a) - value(b))
    }

    fn paired(&self, case: &str, of: &str, to: &str, make: impl Fn(&Sample, &Sample) -> f64) -> Option<f64> {
        let pairs = self.of(case, of).filter_map(|a| {
            let b = self.of(case, to).find(|b| b.round == a.round)?;
            Some(make(a, b))
        });
        median(pairs.filter(|value| value.is_finite()).collect())
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => None,
        n if n % 2 == 1 => Some(values[n / 2]),
        n => Some((values[n / 2 - 1] + values[n / 2]) / 2.0),
    }
}
