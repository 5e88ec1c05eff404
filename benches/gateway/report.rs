//! Figures of each way and run, and the one table that is made of them.
//!
//! It must never judge a figure: what is good enough depends on the machine, so no time is asserted.

use serde_json::{Value, json};

use crate::ways::Way;

/// What was measured, in the order in which it first came.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

struct Row {
    group: String,
    name: &'static str,
    unit: &'static str,
    /// For each way, a value for each run.
    values: [Vec<f64>; 3],
}

impl Report {
    /// Takes note of one figure of one run.
    pub(crate) fn add(&mut self, group: &str, name: &'static str, unit: &'static str, of: (Way, f64)) {
        let (way, value) = of;
        let same_group = |row: &Row| row.group == group;
        let known = self.rows.iter().position(|row| same_group(row) && row.name == name);
        let at = known.unwrap_or_else(|| {
            // A group stays together, even if some of it is measured later.
            let last = self.rows.iter().rposition(same_group);
            let at = last.map_or(self.rows.len(), |last| last + 1);
            self.rows.insert(at, Row::new(group, name, unit));
            at
        });
        self.rows[at].values[way as usize].push(value);
    }

    /// Takes note of some quantiles (in thousandths) of one run's microseconds.
    pub(crate) fn spread(
        &mut self,
        group: &str,
        way: Way,
        mut micros: Vec<f64>,
        quantiles: &[(&'static str, usize)],
    ) {
        micros.sort_by(f64::total_cmp);
        for (name, per_mille) in quantiles {
            let rank = (micros.len() * per_mille).div_ceil(1000);
            if let Some(value) = micros.get(rank.saturating_sub(1)) {
                self.add(group, name, "µs", (way, *value));
            }
        }
    }

    /// The table: medians of the runs, and Tollgate's ratio to nginx with its range.
    pub(crate) fn print(&self) {
        let [direct, nginx, tollgate] = ["direct", "nginx", "tollgate"];
        println!("\n{:44}{direct:>10}{nginx:>10}{tollgate:>10}{:>9}", "", "/ nginx");
        let mut group = "";
        for row in &self.rows {
            if row.group != group {
                group = &row.group;
                println!("{group}");
            }
            let label = format!("  {} ({})", row.name, row.unit);
            let [direct, nginx, tollgate] =
                row.values.each_ref().map(|values| median(values).map_or_else(|| "-".to_owned(), figure));
            let ratio = row.ratio_and_range();
            println!("{label:44}{direct:>10}{nginx:>10}{tollgate:>10}{ratio}");
        }
    }

    /// Every figure of every run, for a program.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let [direct, nginx, tollgate] = &row.values;
            json!({
                "group": row.group, "name": row.name, "unit": row.unit,
                "runs": {"direct": direct, "nginx": nginx, "tollgate": tollgate},
                "median": {"direct": median(direct), "nginx": median(nginx), "tollgate": median(tollgate)},
                "ratio_to_nginx": median(&row.ratios()),
            })
        });
        rows.collect()
    }
}

impl Row {
    fn new(group: &str, name: &'static str, unit: &'static str) -> Self {
        Self { group: group.to_owned(), name, unit, values: <[Vec<f64>; 3]>::default() }
    }

    /// Of each run by itself: the two were measured right after each other, so that a machine whose
    /// speed drifts from run to run does not enter. A ratio to what is shown as 0.0 would say nothing.
    fn ratios(&self) -> Vec<f64> {
        let [_, nginx, tollgate] = &self.values;
        let pairs = nginx.iter().zip(tollgate).filter(|(nginx, _)| **nginx >= 0.05);
        pairs.map(|(nginx, ours)| ours / nginx).collect()
    }

    fn ratio_and_range(&self) -> String {
        let ratios = self.ratios();
        let Some(middle) = median(&ratios) else {
            return format!("{:>9}", "-");
        };
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if ratios.len() == 1 {
            format!("{middle:>9.2}")
        } else {
            format!("{middle:>9.2}  ({least:.2} to {most:.2})")
        }
    }
}

fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// The middle of `values`.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        Some(sorted[middle])
    } else {
        let below = sorted.get(middle.checked_sub(1)?)?;
        Some(f64::midpoint(*below, sorted[middle]))
    }
}
