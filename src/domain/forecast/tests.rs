use super::*;
use crate::domain::dice::Dice;

const MONDAY: usize = 0;
const OFFICE: [f64; 7] = [1.0, 1.05, 1.1, 1.05, 0.95, 0.3, 0.2];

fn past(days: &[f64], weekday: usize) -> Past<'_> {
    Past { days, today: 0.0, elapsed: 0.0, weekday }
}

fn total(outlook: &Outlook) -> f64 {
    outlook.days.iter().sum()
}

fn about(seen: f64, expected: f64, parts: f64) {
    assert!((seen - expected).abs() <= expected * parts, "{seen} is not about {expected}");
}

#[test]
fn no_history_foresees_nothing_and_says_so() {
    let outlook = outlook(&past(&[], MONDAY), 9);
    assert_eq!((outlook.basis, outlook.spread, outlook.days), (Basis::Nothing, 0.0, vec![0.0; 10]));
}

#[test]
fn a_single_day_is_a_wide_guess() {
    let today = Past { days: &[], today: 6.0, elapsed: 0.25, weekday: 2 };
    let guess = outlook(&today, 9);
    assert_eq!((guess.basis, guess.backtest), (Basis::Today, Backtest::default()));
    about(guess.days[0], 18.0, 0.01);
    about(total(&guess), 18.0 + 9.0 * 24.0, 0.01);
    assert!(guess.spread > 0.3 * total(&guess), "{guess:?}");
    let moment = Past { elapsed: 0.000_01, ..today };
    assert!(total(&outlook(&moment, 9)) < 10.0 * 24.0 * 6.0 * 1.01, "the first minute is no day");
}

#[test]
fn a_few_days_are_a_level_with_a_range() {
    for days in [&[10.0][..], &[10.0, 12.0, 8.0], &[10.0; 13]] {
        let outlook = outlook(&past(days, MONDAY), 9);
        assert_eq!(outlook.basis, Basis::Days);
        about(total(&outlook), 100.0, 0.1);
        assert!(outlook.spread > 0.0, "{outlook:?}");
    }
}

#[test]
fn weekends_are_foreseen_from_two_weeks_on() {
    let days: Vec<f64> = OFFICE.iter().cycle().take(28).map(|part| part * 100.0).collect();
    let outlook = outlook(&past(&days, MONDAY), 6);
    assert_eq!(outlook.basis, Basis::Weekdays);
    about(outlook.days[2], 110.0, 0.1);
    assert!(outlook.days[6] < 45.0, "{outlook:?}");
    about(total(&outlook), 565.0, 0.05);
    assert!(outlook.backtest.windows > 5 && outlook.backtest.covered <= outlook.backtest.windows);
}

#[test]
fn growth_goes_on_and_an_end_is_one() {
    let growing: Vec<f64> = (0..56).map(|day| 100.0 + 3.0 * f64::from(day)).collect();
    let foreseen = total(&outlook(&past(&growing, MONDAY), 9));
    assert!(foreseen > 2_650.0 && foreseen < 2_900.0, "{foreseen}");
    let ended: Vec<f64> = (0..56).map(|day| if day < 28 { 100.0 } else { 0.0 }).collect();
    let outlook = outlook(&past(&ended, MONDAY), 9);
    assert!(total(&outlook) < 100.0, "{outlook:?}");
    assert!(outlook.days.iter().all(|day| *day >= 0.0));
}

#[test]
fn nothing_but_zeros_stays_nothing() {
    let outlook = outlook(&past(&[0.0; 40], MONDAY), 9);
    assert_eq!((total(&outlook), outlook.spread), (0.0, 0.0));
}

/// A subscription's days: a level that wanders, a pattern of the week, and noise, with days of nothing in some.
fn series(dice: &mut Dice, count: usize) -> Vec<f64> {
    let flat = dice.below(3) == 0;
    let noise = if dice.below(2) == 0 { 0.2 } else { 0.4 };
    let wander = if dice.below(3) == 0 { 0.02 } else { 0.0 };
    let gaps = dice.below(5) == 0;
    let mut level: f64 = 100.0;
    (0..count)
        .map(|day| {
            level *= (wander * dice.normal()).exp();
            let part = if flat { 1.0 } else { OFFICE[day % 7] };
            let nothing = gaps && dice.below(10) < 3;
            if nothing { 0.0 } else { level * part * (noise * dice.normal() - noise * noise / 2.0).exp() }
        })
        .collect()
}

#[test]
fn the_range_holds_about_eighty_of_a_hundred_ends_of_months() {
    let mut dice = Dice(80);
    let mut all = (0_u32, 0_u32);
    for history in [10, 21, 40, 84] {
        for left in [25, 10, 3] {
            let mut held = 0;
            for _ in 0..100 {
                let days = series(&mut dice, history + left + 1);
                let (before, rest) = days.split_at(history);
                let outlook = outlook(&past(before, history % 7), left);
                held += u32::from((rest.iter().sum::<f64>() - total(&outlook)).abs() <= outlook.spread);
            }
            all = (all.0 + held, all.1 + 100);
            assert!((58..=99).contains(&held), "{history} days of history, {left} left: {held} of 100");
        }
    }
    let percent = 100 * all.0 / all.1;
    assert!((70..=90).contains(&percent), "{percent} %");
}
