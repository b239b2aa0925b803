//! \[pure\] Transaction numbers as sorted ranges with gaps between them.

use std::fmt;

/// Inclusive ranges, ascending, neither overlapping nor touching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals {
    ranges: Vec<(u64, u64)>,
}

impl Intervals {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn pieces(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).fold(0, u64::saturating_add)
    }

    /// Adds `first..=last` (`first <= last < 2^63`), joining what it overlaps or touches.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        let from = self.ranges.partition_point(|(_, l)| l + 1 < first);
        let to = self.ranges.partition_point(|(f, _)| *f <= last + 1);
        if from == to {
            self.ranges.insert(from, (first, last));
            return;
        }
        let joined = (first.min(self.ranges[from].0), last.max(self.ranges[to - 1].1));
        self.ranges.splice(from..to, [joined]);
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        for (first, last) in &other.ranges {
            self.add(*first, *last);
        }
    }

    /// Is every number of `other` here?
    pub(super) fn contains(&self, other: &Self) -> bool {
        other.ranges.iter().all(|(first, last)| {
            // The only range that can hold it is the last one that starts at or before it.
            let after = self.ranges.partition_point(|(f, _)| f <= first);
            after > 0 && self.ranges[after - 1].1 >= *last
        })
    }

    /// The numbers here that are not in `other`.
    pub(super) fn subtract(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for (first, last) in &self.ranges {
            let mut next = *first;
            let start = other.ranges.partition_point(|(_, l)| l < first);
            for (f, l) in other.ranges[start..].iter().take_while(|(f, _)| f <= last) {
                if next < *f {
                    left.push((next, f - 1));
                }
                next = l + 1;
            }
            if next <= *last {
                left.push((next, *last));
            }
        }
        Self { ranges: left }
    }
}

impl fmt::Display for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (first, last) in &self.ranges {
            if first == last {
                write!(f, ":{first}")?;
            } else {
                write!(f, ":{first}-{last}")?;
            }
        }
        Ok(())
    }
}
