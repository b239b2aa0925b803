//! \[pure\] Where a server's binary log stood, and when: from which place on what a statement has committed must be looked for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Marks younger than this are all kept.
const CLOSE: Duration = Duration::from_secs(60);
/// Of the older ones, one in so much time.
const WIDE: Duration = Duration::from_secs(60);
/// Marks kept at most; the oldest go.
const MAX: usize = 2048;

/// A place in a binary log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The log's file.
    pub file: Box<str>,
    /// Bytes into it.
    pub position: u64,
}

/// The places of one server's log.
#[derive(Debug, Default)]
pub struct Marks {
    list: VecDeque<(Instant, Mark)>,
}

impl Marks {
    /// The log's end was not behind `mark` at `at`.
    pub fn note(&mut self, at: Instant, mark: Mark) {
        if self.list.back().is_some_and(|(_, last)| *last == mark) {
            return;
        }
        self.list.push_back((at, mark));
        self.thin(at);
    }

    /// The latest place before which nothing stands that was committed from `began` on.
    pub fn before(&self, began: Instant) -> Option<&Mark> {
        self.list.iter().rev().find(|(at, _)| *at <= began).map(|(_, mark)| mark)
    }

    /// Forgets all: it is another log.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// No place is known?
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn thin(&mut self, now: Instant) {
        let old = self.list.partition_point(|(at, _)| now.saturating_duration_since(*at) > CLOSE);
        // The last of the old ones is too close to the one before it: nobody will miss it.
        if old >= 2 && self.list[old - 1].0.saturating_duration_since(self.list[old - 2].0) < WIDE {
            self.list.remove(old - 1);
        }
        if self.list.len() > MAX {
            self.list.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(position: u64) -> Mark {
        Mark { file: "binlog.000001".into(), position }
    }

    #[test]
    fn the_latest_place_that_is_not_too_late_is_taken() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut marks = Marks::default();
        assert_eq!(marks.before(at(9)), None);
        for second in 1..5 {
            marks.note(at(second), mark(second * 100));
        }
        assert_eq!(marks.before(at(0)), None);
        assert_eq!(marks.before(at(3)), Some(&mark(300)));
        assert_eq!(marks.before(at(3) + Duration::from_millis(999)), Some(&mark(300)));
        assert_eq!(marks.before(at(99)), Some(&mark(400)));
    }

    #[test]
    fn a_log_that_stands_still_keeps_its_first_time_and_old_places_get_fewer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut marks = Marks::default();
        for second in 0..100 {
            marks.note(at(second), mark(7));
        }
        assert_eq!((marks.before(at(0)), marks.list.len()), (Some(&mark(7)), 1));
        marks.clear();
        for second in 0..86_400 {
            marks.note(at(second), mark(second));
        }
        assert!(marks.list.len() < 1600, "{}", marks.list.len());
        for second in [0, 3, 59, 60, 61, 1000, 80_000, 86_300, 86_398] {
            let found = marks.before(at(second)).expect("one").position;
            assert!(found <= second && second - found <= 121, "{second}: {found}");
        }
        assert_eq!(marks.before(at(86_390)), Some(&mark(86_390)));
        for second in 86_400..260_000 {
            marks.note(at(second), mark(second));
        }
        assert_eq!((marks.list.len(), marks.before(at(3))), (MAX, None), "the oldest have gone");
    }
}
