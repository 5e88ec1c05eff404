//! Which of a time's sums are read from hourly totals, and which from rows.

use crate::domain::units::UnixMillis;

/// In an hour, and in what `usage_hours.hour` counts.
pub(super) const HOUR_MILLIS: i64 = 3_600_000;

/// A time, cut at its full hours. Every moment of it is in exactly one of the parts; each may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spans {
    /// Hours since 1970: inclusive, and exclusive.
    pub(super) hours: (i64, i64),
    /// Milliseconds since 1970, before the first full hour and behind the last.
    pub(super) head: (i64, i64),
    pub(super) tail: (i64, i64),
}

impl Spans {
    pub(super) fn of(from: UnixMillis, to: UnixMillis) -> Self {
        let first = from.0.div_euclid(HOUR_MILLIS) + i64::from(from.0.rem_euclid(HOUR_MILLIS) != 0);
        let last = to.0.div_euclid(HOUR_MILLIS);
        if first >= last {
            // Less than a full hour.
            return Self { hours: (0, 0), head: (from.0, to.0), tail: (0, 0) };
        }
        Self { hours: (first, last), head: (from.0, first * HOUR_MILLIS), tail: (last * HOUR_MILLIS, to.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_is_in_one_part() {
        let hour = HOUR_MILLIS;
        for (from, to) in [
            (0, 3 * hour),
            (1, 3 * hour),
            (hour - 1, hour + 1),
            (1, hour - 1),
            (5, 5),
            (1, 2 * hour + 7),
            (hour / 2, hour),
            (hour / 2, hour * 3 / 2),
        ] {
            let spans = Spans::of(UnixMillis(from), UnixMillis(to));
            let parts = [spans.head, (spans.hours.0 * hour, spans.hours.1 * hour), spans.tail];
            let mut at = from;
            for (start, end) in parts.into_iter().filter(|(start, end)| start < end) {
                assert_eq!(start, at, "{from}..{to}: {spans:?}");
                at = end;
            }
            assert_eq!(at, to, "{from}..{to}: {spans:?}");
        }
    }
}
