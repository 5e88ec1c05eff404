//! Which backend next? Smooth weighted round robin: no dice, so that any run of as many requests as
//! the weights' sum gives each backend exactly its share.

/// Whose turn it is among backends of one priority.
///
/// Each choice raises everyone who may be chosen by its weight, takes the highest, and lowers that one
/// by what all were raised together. The algorithm is nginx's; it spreads a heavy backend's turns
/// instead of giving them in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn(Vec<i64>);

impl Turn {
    pub fn among(backends: usize) -> Self {
        Self(vec![0; backends])
    }

    /// The next one of those that `may` be chosen: the index of its weight. Those that may not give
    /// their share to the rest, and have no claim to more when they are back.
    pub fn next(&mut self, weights: &[u32], may: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut highest: Option<usize> = None;
        for (index, weight) in weights.iter().enumerate().filter(|(index, _)| may(*index)) {
            let weight = i64::from(*weight);
            total += weight;
            self.0[index] += weight;
            if highest.is_none_or(|highest| self.0[index] > self.0[highest]) {
                highest = Some(index);
            }
        }
        let chosen = highest?;
        self.0[chosen] -= total;
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let mut turn = Turn::among(weights.len());
        (0..count).map(|_| turn.next(weights, |_| true).unwrap()).collect()
    }

    #[test]
    fn any_run_as_long_as_the_weights_sum_is_exact() {
        for weights in [&[5, 1, 1][..], &[1, 1], &[3, 2], &[7], &[4, 1, 2, 9]] {
            let sum: u32 = weights.iter().sum();
            let sum = usize::try_from(sum).unwrap();
            let turns = turns(weights, 3 * sum);
            for run in turns.windows(sum) {
                for (index, weight) in weights.iter().enumerate() {
                    let got = run.iter().filter(|chosen| **chosen == index).count();
                    assert_eq!(got, usize::try_from(*weight).unwrap(), "{weights:?}: {run:?}");
                }
            }
        }
    }

    #[test]
    fn a_heavy_backends_turns_are_spread() {
        assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn those_that_rest_give_their_share_to_the_others() {
        let mut turn = Turn::among(3);
        let run: Vec<_> = (0..6).map(|_| turn.next(&[1, 2, 3], |index| index != 2).unwrap()).collect();
        assert_eq!(run.iter().filter(|chosen| **chosen == 1).count(), 4, "{run:?}");
        assert_eq!(turn.next(&[1, 2, 3], |_| false), None);
        // Back again, it has its own share and not what it missed.
        let run: Vec<_> = (0..6).map(|_| turn.next(&[1, 2, 3], |_| true).unwrap()).collect();
        assert_eq!(run.iter().filter(|chosen| **chosen == 2).count(), 3, "{run:?}");
    }
}
