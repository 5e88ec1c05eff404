//! Where does this month end?
//!
//! Daily costs in, the rest of the month out: a level of the recent days, the pattern of the week, a damped trend, and a
//! range that held 80 of 100 times. How wide that is, the history itself says: the same forecast is made from each day in
//! the past, and its range is set to what its errors were. With little history it is wide, and says so.
//!
//! Statistics, so in floating point: nothing here is ever billed.

mod fit;

use fit::{Fit, sum_of};

/// The pattern of a week is taken from so many days.
pub const PATTERN_DAYS: usize = 56;
/// More than that is not looked at: the days before are there to try the forecast on.
pub const HISTORY_DAYS: usize = 84;
/// How often of 100 times the end is to be in the range.
pub const RANGE_PERCENT: u8 = 80;

/// From here on weekdays are told apart: two of each were seen.
const WEEKS: usize = 14;
/// A back-test begins with so many days at least.
const FIRST_ORIGIN: usize = 7;
/// As many deviations of a normal distribution hold 80 %, and a little more, for what is only estimated.
const USUAL_WIDTH: f64 = 1.35;
/// That assumption counts as much as so many windows of the past that do not overlap.
const ASSUMED_WINDOWS: f64 = 4.0;
/// However lucky or unlucky the past was.
const WIDTHS: (f64, f64) = (0.8, 4.0);
/// An hour: less of a day says nothing of its rest.
const LEAST_OF_A_DAY: f64 = 1.0 / 24.0;

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// Of each day that is over, the oldest first, from the first on which anything was used. No day is left out.
    pub days: &'a [f64],
    /// Of today, so far.
    pub today: f64,
    /// How much of today is over, from 0 to 1.
    pub elapsed: f64,
    /// Days since Monday.
    pub weekday: usize,
}

/// What is to come.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// Of the rest of today, then of each day that follows.
    pub days: Vec<f64>,
    /// So much more or less, 80 of 100 times.
    pub spread: f64,
    pub basis: Basis,
    pub backtest: Backtest,
}

/// What the forecast is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Nothing was ever used: nothing is foreseen.
    Nothing,
    /// Today alone.
    Today,
    /// Less than two weeks: weekdays are not told apart.
    Days,
    /// The pattern of the weekdays, and a trend from three weeks on.
    Weekdays,
}

impl Basis {
    /// What it is called in a report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Today => "today",
            Self::Days => "days",
            Self::Weekdays => "weekdays",
        }
    }
}

/// How the range did in the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backtest {
    /// Each forecast was of so many days.
    pub horizon_days: usize,
    /// How many were made. They overlap.
    pub windows: usize,
    /// How many of them held what came.
    pub covered: usize,
}

/// What the rest of today and so many days after it will bring.
pub fn outlook(past: &Past<'_>, days_after_today: usize) -> Outlook {
    let horizon = days_after_today + 1;
    let of_today = [past.today / past.elapsed.max(LEAST_OF_A_DAY)];
    let (days, next, basis) = match past.days {
        [] if past.today <= 0.0 => {
            let days = vec![0.0; horizon];
            return Outlook { days, spread: 0.0, basis: Basis::Nothing, backtest: Backtest::default() };
        }
        [] => (&of_today[..], past.weekday + 1, Basis::Today),
        days if days.len() < WEEKS => (days, past.weekday, Basis::Days),
        days => (&days[days.len().saturating_sub(HISTORY_DAYS)..], past.weekday, Basis::Weekdays),
    };
    // The range is of whole days; what is over of today is certain.
    let certain = past.elapsed.clamp(0.0, 1.0);
    let fit = Fit::of(days, next);
    let mut expected = fit.days(past.weekday, horizon);
    expected[0] *= 1.0 - certain;
    let deviation = fit.deviation(sum_of(horizon) - certain);
    let (width, backtest) = if basis == Basis::Today {
        (USUAL_WIDTH, Backtest::default())
    } else {
        back_test(days, next, horizon)
    };
    Outlook { days: expected, spread: deviation * width, basis, backtest }
}

/// How many deviations wide the range must be, by what the same forecast would have missed in the past.
fn back_test(days: &[f64], next: usize, horizon: usize) -> (f64, Backtest) {
    let horizon = horizon.min((days.len() / 3).max(1));
    let mut misses = Vec::new();
    for origin in FIRST_ORIGIN..=days.len().saturating_sub(horizon) {
        // Days until `next`, from the origin on: the weekday that it begins with.
        let weekday = (next + 7 * days.len() - (days.len() - origin)) % 7;
        let fit = Fit::of(&days[..origin], weekday);
        let expected: f64 = fit.days(weekday, horizon).iter().sum();
        let came: f64 = days[origin..origin + horizon].iter().sum();
        let deviation = fit.deviation(sum_of(horizon));
        if deviation > 0.0 {
            misses.push((came - expected).abs() / deviation);
        }
    }
    misses.sort_by(f64::total_cmp);
    let windows = misses.len();
    let place = ((windows + 1) * usize::from(RANGE_PERCENT)).div_ceil(100).saturating_sub(1);
    let width = match misses.get(place.min(windows.saturating_sub(1))) {
        None => USUAL_WIDTH,
        Some(seen) => {
            let apart = sum_of(windows) / sum_of(horizon);
            let blended = (apart * seen + ASSUMED_WINDOWS * USUAL_WIDTH) / (apart + ASSUMED_WINDOWS);
            blended.clamp(WIDTHS.0, WIDTHS.1)
        }
    };
    let covered = misses.iter().filter(|miss| **miss <= width).count();
    (width, Backtest { horizon_days: horizon, windows, covered })
}

#[cfg(test)]
mod tests;
