use std::sync::Arc;

use super::*;
use crate::domain::dice::Dice;
use crate::domain::price::{Counts, Rate, Terms};

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn rate(currency: &str, input: Decimal, output: Option<Decimal>) -> Arc<Rate> {
    Arc::new(Rate::new(Terms {
        currency: currency.to_owned(),
        input_per_million: Some(input),
        output_per_million: output,
        ..Terms::default()
    }))
}

fn sums(group: &[&str], tokens: [u64; 2], rate: Option<Arc<Rate>>) -> Sums {
    Sums {
        group: group.iter().map(|text| (!text.is_empty()).then(|| (*text).to_owned())).collect(),
        is_provisioned: false,
        rate,
        requests: 2,
        used_requests: u64::from(tokens != [0, 0]),
        estimated_requests: 0,
        counts: Counts { input_tokens: tokens[0], output_tokens: tokens[1], ..Counts::default() },
    }
}

fn provisioned(group: &[&str], tokens: [u64; 2]) -> Sums {
    Sums { is_provisioned: true, ..sums(group, tokens, None) }
}

fn books(used: Vec<Sums>, by_hour: Vec<Sums>) -> Books {
    let capacity = Capacity { units: 5, hourly_cost: dec("5"), tokens_per_minute: None };
    let month = Month::parse("2026-11").unwrap();
    Books {
        month,
        to: month.end(),
        currency: "USD".to_owned(),
        capacities: BTreeMap::from([("ptu".to_owned(), capacity)]),
        hours: 10,
        used,
        by_hour,
    }
}

fn told(chargeback: &Chargeback) -> Vec<String> {
    let line = |line: &Line| {
        let Key { kind, payer, deployment, backend, .. } = &line.key;
        let payer = payer.as_ref().map_or("-", |payer| payer.subscription.as_str());
        let place = format!("{}/{}", deployment.as_deref().unwrap_or("-"), backend.as_deref().unwrap_or("-"));
        let Sum { usage_cost, provisioned_cost, requests, unpriced_requests, .. } = &line.sum;
        format!(
            "{} {payer} {place} {usage_cost}+{provisioned_cost}={} {requests} {unpriced_requests}",
            kind.word(),
            line.cost_rounded
        )
    };
    chargeback.lines.iter().map(line).collect()
}

#[test]
fn usage_capacity_idle_hours_and_what_has_no_price_each_have_their_line() {
    let dollar = rate("USD", dec("1"), Some(dec("4")));
    let million = 1_000_000;
    let used = vec![
        sums(&["4711", "s1", "p", "d", "m", "payg"], [million, 0], Some(dollar)),
        sums(&["4711", "s1", "p", "d", "m", "payg"], [million, 0], Some(rate("USD", dec("2"), None))),
        sums(&["4711", "s1", "p", "d", "m", "payg"], [million, 0], Some(rate("EUR", dec("2"), None))),
        sums(&["", "s2", "p", "d", "m", "payg"], [million, 1], Some(rate("USD", dec("2"), None))),
        sums(&["", "s2", "p", "new", "", "payg"], [5, 5], None),
        sums(&["", "s2", "p", "new", "", "payg"], [0, 0], None),
        provisioned(&["4711", "s1", "p", "d", "m", "ptu"], [300, 0]),
        provisioned(&["", "s2", "p", "e", "m", "ptu"], [100, 0]),
        provisioned(&["", "s2", "p", "e", "m", "gone"], [100, 0]),
    ];
    let by_hour = vec![
        provisioned(&["4711", "s1", "p", "ptu", "2026-11-01T00:00:00Z"], [300, 0]),
        provisioned(&["", "s2", "p", "ptu", "2026-11-01T00:00:00Z"], [100, 0]),
        provisioned(&["", "s2", "p", "gone", "2026-11-01T00:00:00Z"], [100, 0]),
    ];
    let chargeback = books(used, by_hour).chargeback();
    let expected = [
        "usage s2 -/- 0+1.25=1.25 4 0",
        "usage s1 -/- 3+3.75=6.75 6 0",
        "unpriced s2 new/payg 0+0=0.00 2 1",
        "unpriced s1 d/payg 0+0=0.00 2 1",
        "unpriced s2 d/payg 0+0=0.00 2 1",
        "unpriced s2 e/gone 0+0=0.00 2 1",
        "idle - -/ptu 0+45=45.00 0 0",
    ];
    assert_eq!(told(&chargeback), expected);
    let reasons: Vec<_> = chargeback
        .lines
        .iter()
        .filter_map(|line| match line.key.kind {
            Kind::Unpriced(reason) => Some(reason.word()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, ["no_price", "other_currency", "incomplete_price", "capacity_not_configured"]);
    assert_eq!((chargeback.total.cost(), chargeback.idle_cost), (dec("53"), dec("45")));
    assert_eq!(chargeback.total.requests, 18);
    let centers: Vec<_> =
        chargeback.cost_centers.iter().map(|center| (center.name.as_deref(), center.sum.cost())).collect();
    assert_eq!(centers, [(None, dec("1.25")), (Some("4711"), dec("6.75"))]);
}

/// A ledger of any sort.
fn random(dice: &mut Dice) -> Books {
    let mut of = |words: &[&'static str]| words[usize::try_from(dice.below(words.len() as u64)).unwrap()];
    let mut groups = Vec::new();
    for _ in 0..of(&["1", "7", "40"]).parse().unwrap() {
        groups.push([
            of(&["", "1", "2"]),
            of(&["a", "b", "c", "d"]),
            of(&["p", "q"]),
            of(&["x", "y"]),
            of(&["", "m"]),
            of(&["payg", "ptu", "ptu2"]),
            of(&["2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z", "2026-11-30T23:00:00Z"]),
        ]);
    }
    let (mut used, mut by_hour) = (Vec::new(), Vec::new());
    for [center, subscription, product, deployment, model, backend, hour] in groups {
        let tokens = [dice.below(1 << 40), dice.below(3) * dice.below(1 << 33)];
        // Up to a million, with up to eight decimals.
        let decimals = u32::try_from(dice.below(9)).unwrap();
        let price = Decimal::new(i64::try_from(dice.below(10_u64.pow(6 + decimals))).unwrap(), decimals);
        let rate = match dice.below(5) {
            0 => None,
            1 => Some(rate("EUR", price, Some(price))),
            2 => Some(rate("USD", price, None)),
            _ => Some(rate("USD", price, Some(Decimal::from(3)))),
        };
        let group = [center, subscription, product, deployment, model, backend];
        let is_provisioned = backend != "payg";
        used.push(Sums { is_provisioned, ..sums(&group, tokens, rate.clone()) });
        if is_provisioned {
            let group = [center, subscription, product, backend, hour];
            by_hour.push(Sums { is_provisioned, ..sums(&group, tokens, rate) });
        }
    }
    let mut books = books(used, by_hour);
    for (name, at) in [("ptu", 0), ("ptu2", 1)] {
        let hourly_cost =
            Decimal::new(i64::try_from(dice.below(1 << 30)).unwrap(), u32::try_from(dice.below(10)).unwrap());
        let tokens_per_minute = (dice.below(2) == at).then(|| 1 + dice.below(1 << 36));
        if dice.below(4) > 0 {
            books.capacities.insert(name.to_owned(), Capacity { units: 1, hourly_cost, tokens_per_minute });
        } else {
            books.capacities.remove(name);
        }
    }
    books.currency = ["USD", "USD", "JPY"][usize::try_from(dice.below(3)).unwrap()].to_owned();
    books
}

#[test]
fn lines_add_up_to_the_total_exactly_in_any_grouping_and_so_do_their_coins() {
    let mut dice = Dice(2_026);
    for _ in 0..1_500 {
        let books = random(&mut dice);
        let requests: u64 = books.used.iter().map(|sums| sums.requests).sum();
        let input: u64 = books.used.iter().map(|sums| sums.counts.input_tokens).sum();
        let hourly: Decimal = books.capacities.values().map(|capacity| capacity.hourly_cost).sum();
        let by_token: Decimal =
            books.used.iter().filter_map(|sums| report::cost(&books.currency, sums).ok()).sum();
        let (hours, decimals) = (Decimal::from(books.hours), apportion::decimals_of(&books.currency));
        let result = books.chargeback();
        let total = result.total.cost();
        assert_eq!(total, by_token + hourly * hours, "nothing is lost and nothing is added");
        assert_eq!((result.total.requests, result.total.counts.input_tokens), (requests, input));
        // By every member there is, and by pairs of them.
        let members: [fn(&Key) -> Option<&str>; 6] = [
            |key| Some(key.kind.word()),
            |key| key.payer.as_ref().and_then(|payer| payer.cost_center.as_deref()),
            |key| key.payer.as_ref().map(|payer| payer.subscription.as_str()),
            |key| key.payer.as_ref().map(|payer| payer.product.as_str()),
            |key| key.deployment.as_deref(),
            |key| key.backend.as_deref(),
        ];
        for one in members {
            for other in members {
                let mut groups: BTreeMap<_, (Decimal, u64)> = BTreeMap::new();
                for Charge { key, sum } in &result.charges {
                    let group = groups.entry((one(key), other(key))).or_default();
                    *group = (group.0 + sum.cost(), group.1 + sum.requests);
                }
                assert_eq!(groups.values().map(|(cost, _)| cost).sum::<Decimal>(), total);
                assert_eq!(groups.values().map(|(_, requests)| requests).sum::<u64>(), requests);
            }
        }
        let coins: Decimal = result.lines.iter().map(|line| line.cost_rounded).sum();
        assert_eq!((coins, coins), (result.cost_rounded, apportion::to_money(total, decimals)));
        let centers: Decimal = result.cost_centers.iter().map(|center| center.sum.cost()).sum();
        assert_eq!(centers + result.idle_cost, total);
        assert!(result.charges.iter().all(|charge| charge.sum.cost() >= Decimal::ZERO));
    }
}
