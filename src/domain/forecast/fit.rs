//! Days → level, pattern of the week, trend, and how far from them days are.

use super::PATTERN_DAYS;

const WEEK: usize = 7;
/// A day counts half as much for the level as one a week later.
const LEVEL_HALF_LIFE: f64 = 7.0;
/// The same, for the trend.
const TREND_HALF_LIFE: f64 = 14.0;
/// A trend is looked for in three weeks or more.
const TREND_DAYS: usize = 21;
/// So many errors of its estimate a trend must have to be believed in part; with more, more of it is.
const TREND_ERRORS: f64 = 1.5;
/// What is left of a trend after each day: none goes on for ever.
const DAMPING: f64 = 0.98;
/// However steep a trend is, a day brings at most so many times the level.
const MOST: f64 = 3.0;
/// How far days are from their level where nothing is known: by half of it.
const USUAL_NOISE: f64 = 0.5;
/// How far a mean of some days may be from that of whole weeks.
const UNSEEN_WEEKDAYS: f64 = 0.35;
/// The level's own way in a day, in parts of it, where it cannot be seen yet.
const USUAL_DRIFT: f64 = 0.02;
const NOISE_DAYS: usize = 28;

/// What was found in days.
pub(super) struct Fit {
    /// Each weekday's part of the mean, Monday first.
    factors: [f64; WEEK],
    /// Of the last day, without the pattern.
    level: f64,
    /// A day's.
    slope: f64,
    /// The squared deviations: of a day, of the level's own way in a day, and of the slope.
    noise: f64,
    drift: f64,
    slope_error: f64,
    /// How many equal days the level is made of.
    level_days: f64,
    seen_days: f64,
}

/// A number of days as one to reckon with.
#[expect(clippy::cast_precision_loss, reason = "there are some hundreds at the most")]
pub(super) fn sum_of(days: usize) -> f64 {
    days as f64
}

/// Days as they are looked at: from the first to the last, with the weekday of each.
struct Seen<'a> {
    days: &'a [f64],
    /// The weekday behind the last.
    next: usize,
}

impl Seen<'_> {
    fn weekday(&self, index: usize) -> usize {
        (self.next + WEEK * PATTERN_DAYS - (self.days.len() - index)) % WEEK
    }

    /// Days before the last.
    fn age(&self, index: usize) -> f64 {
        sum_of(self.days.len() - 1 - index)
    }

    fn weight(&self, index: usize, half_life: f64) -> f64 {
        0.5_f64.powf(self.age(index) / half_life)
    }

    /// Each weekday's part of its week's mean, of whole weeks; a week's worth of no pattern goes in as well.
    fn factors(&self) -> [f64; WEEK] {
        let mut sums = [1.0; WEEK];
        let mut weeks = 1.0;
        if self.days.len() >= 2 * WEEK {
            for end in (WEEK..=self.days.len()).rev().step_by(WEEK) {
                let mean = self.days[end - WEEK..end].iter().sum::<f64>() / sum_of(WEEK);
                if mean > 0.0 {
                    for index in end - WEEK..end {
                        sums[self.weekday(index)] += self.days[index] / mean;
                    }
                    weeks += 1.0;
                }
            }
        }
        let mean = sums.iter().sum::<f64>() / weeks / sum_of(WEEK);
        sums.map(|sum| sum / weeks / mean)
    }
}

impl Fit {
    /// Of days that are followed by one of the weekday `next`. The last of them count most.
    pub(super) fn of(days: &[f64], next: usize) -> Self {
        let seen = Seen { days: &days[days.len().saturating_sub(PATTERN_DAYS)..], next };
        let factors = seen.factors();
        let [mut used, mut factor_sum, mut weights, mut squares] = [0.0; 4];
        for (index, day) in seen.days.iter().enumerate() {
            let weight = seen.weight(index, LEVEL_HALF_LIFE);
            used += weight * day;
            factor_sum += weight * factors[seen.weekday(index)];
            weights += weight;
            squares += weight * weight;
        }
        let mut fit = Self {
            factors,
            level: if factor_sum > 0.0 { used / factor_sum } else { 0.0 },
            slope: 0.0,
            noise: 0.0,
            drift: 0.0,
            slope_error: 0.0,
            level_days: if squares > 0.0 { weights * weights / squares } else { 1.0 },
            seen_days: sum_of(seen.days.len()),
        };
        fit.find_trend(&seen);
        fit.find_noise(&seen);
        fit
    }

    /// A straight line through the days without their pattern, by least squares; believed as far as it stands out.
    fn find_trend(&mut self, seen: &Seen<'_>) {
        if seen.days.len() < TREND_DAYS || self.level <= 0.0 {
            return;
        }
        let weight = |index| seen.weight(index, TREND_HALF_LIFE);
        let [mut ff, mut ft, mut tt, mut fy, mut ty, mut all, mut squares] = [0.0; 7];
        for (index, day) in seen.days.iter().enumerate() {
            let (weight, factor) = (weight(index), self.factors[seen.weekday(index)]);
            let at = -seen.age(index) * factor;
            ff += weight * factor * factor;
            ft += weight * factor * at;
            tt += weight * at * at;
            fy += weight * factor * day;
            ty += weight * at * day;
            all += weight;
            squares += weight * weight;
        }
        let determinant = ff * tt - ft * ft;
        if determinant <= 0.0 {
            return;
        }
        let (level, slope) = ((tt * fy - ft * ty) / determinant, (ff * ty - ft * fy) / determinant);
        let missed: f64 = (0..seen.days.len())
            .map(|index| {
                let line = self.factors[seen.weekday(index)] * (level - slope * seen.age(index));
                weight(index) * (seen.days[index] - line).powi(2)
            })
            .sum();
        let effective_days = all * all / squares;
        let noise = missed / all * effective_days / (effective_days - 2.0).max(1.0);
        // Three quarters: days count less the older they are, and their errors twice so.
        self.slope_error = (noise * ff / determinant * 0.75).sqrt();
        if slope != 0.0 {
            let believed = (1.0 - (TREND_ERRORS * self.slope_error / slope.abs()).powi(2)).max(0.0);
            self.slope = slope * believed;
            self.level = (self.level * (1.0 - believed) + level * believed).max(0.0);
        }
    }

    fn find_noise(&mut self, seen: &Seen<'_>) {
        let count = seen.days.len();
        let from = count.saturating_sub(NOISE_DAYS);
        let missed: f64 = (from..count)
            .map(|index| {
                let line = (self.level - self.slope * seen.age(index)).max(0.0);
                (seen.days[index] - self.factors[seen.weekday(index)] * line).powi(2)
            })
            .sum();
        let assumed = 2.0 * (-sum_of(count) / sum_of(WEEK)).exp();
        let usual = (USUAL_NOISE * self.level).powi(2);
        let freedom = (sum_of(count - from) - 1.0).max(0.001);
        self.noise = (assumed * usual + missed) / (assumed + freedom);
        let weeks: Vec<f64> =
            seen.days.rchunks_exact(WEEK).map(|week| week.iter().sum::<f64>() / sum_of(WEEK)).collect();
        self.drift = if count < NOISE_DAYS {
            (USUAL_DRIFT * self.level).powi(2)
        } else {
            let changes =
                weeks.windows(2).map(|pair| (pair[0] - pair[1] - self.slope * sum_of(WEEK)).powi(2));
            let seen_changes = changes.sum::<f64>() / sum_of(weeks.len() - 1);
            (seen_changes - 2.0 * self.noise / sum_of(WEEK)).max(0.0) / sum_of(WEEK)
        };
    }

    /// What days bring that begin with a weekday.
    pub(super) fn days(&self, weekday: usize, count: usize) -> Vec<f64> {
        let (mut way, mut step) = (0.0, 1.0);
        (0..count)
            .map(|index| {
                step *= DAMPING;
                way += step;
                let level = (self.level + self.slope * way).clamp(0.0, MOST * self.level);
                level * self.factors[(weekday + index) % WEEK]
            })
            .collect()
    }

    /// How far their sum is from that, for so many days.
    pub(super) fn deviation(&self, days: f64) -> f64 {
        let days = days.max(0.0);
        let of_level = self.noise * days * days / self.level_days;
        let of_drift = self.drift * (days.powi(3) / 3.0 + 5.0 * days * days);
        let of_slope = (0.4 * self.slope_error * days * days / 2.0).powi(2);
        let unseen = UNSEEN_WEEKDAYS * (1.0 - self.seen_days / sum_of(2 * WEEK)).max(0.0);
        let of_pattern = (self.level * days * unseen).powi(2);
        (self.noise * days + of_level + of_drift + of_slope + of_pattern).sqrt()
    }
}
