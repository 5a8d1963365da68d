//! What a cart costs: pure functions, from input to output and to nothing else.
//!
//! Everything that decides the price is a parameter, the day too. So the same input gives the same
//! price on every machine, today and in ten years, and a test needs no server and no clock.
//!
//! A discount is rounded down to a whole cent, each where its rule says, never twice: the cents
//! are integers all the way.

use crate::{
    contract::{Line, Quote},
    moment::Moment,
};

/// A line of so many pieces is a bulk line.
const BULK_FROM: i64 = 10;
const BULK_PERCENT: i64 = 10;
const WEEKEND_PERCENT: i64 = 5;

/// The price of these lines at that moment.
pub fn quote(lines: &[Line], at: &Moment) -> Quote {
    priced(lines, at.weekday().is_weekend())
}

/// The price of these lines, on a weekend or not: all that the moment decides.
pub fn priced(lines: &[Line], is_weekend: bool) -> Quote {
    let subtotal_cents = lines.iter().map(gross).sum();
    let bulk = bulk(lines);
    let weekend = is_weekend.then(|| weekend(subtotal_cents - bulk.unwrap_or_default()));

    let discounts = [("bulk", bulk), ("weekend", weekend)];
    let applying = discounts
        .iter()
        .filter_map(|(name, cents)| Some((*name, (*cents)?)));
    let (rules, cents): (Vec<_>, Vec<_>) = applying.unzip();
    let discount_cents = cents.iter().sum();
    Quote {
        subtotal_cents,
        discount_cents,
        total_cents: subtotal_cents - discount_cents,
        rules,
    }
}

/// A tenth off each line of ten pieces or more; `None` if there is none. Each line is rounded for
/// itself: ten lines that lose a fraction of a cent each do not lose a cent together.
fn bulk(lines: &[Line]) -> Option<i64> {
    let bulk_lines = lines.iter().filter(|line| line.quantity >= BULK_FROM);
    let discounts = bulk_lines.map(|line| percent(gross(line), BULK_PERCENT));
    discounts.reduce(|sum, cents| sum + cents)
}

/// On Saturdays and Sundays, a twentieth off what the bulk rule has left.
fn weekend(left_cents: i64) -> i64 {
    percent(left_cents, WEEKEND_PERCENT)
}

/// At most 10^13, and 10^15 over a hundred lines: far from the end of the integers.
fn gross(line: &Line) -> i64 {
    line.quantity * line.unit_price_cents
}

/// Rounded down; what it is of is never negative.
fn percent(of_cents: i64, percent: i64) -> i64 {
    of_cents * percent / 100
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn line(quantity: i64, unit_price_cents: i64) -> Line {
        Line {
            sku: "tea".to_owned(),
            quantity,
            unit_price_cents,
        }
    }

    fn lines() -> impl Strategy<Value = Vec<Line>> {
        let line = (1..=1_000_000_i64, 0..=10_000_000_i64);
        // Around the border of the bulk rule, most of them.
        let near = (5..=15_i64, 0..=1_000_i64);
        let any =
            prop_oneof![near, line].prop_map(|(pieces, cents)| super::tests::line(pieces, cents));
        vec(any, 1..=100)
    }

    #[test]
    fn examples_to_calculate_by_hand() {
        for (cart, is_weekend, expected) in [
            (vec![line(9, 100)], false, (900, 0, &[][..])),
            (vec![line(10, 100)], false, (1_000, 100, &["bulk"])),
            (
                vec![line(10, 100)],
                true,
                (1_000, 145, &["bulk", "weekend"]),
            ),
            (vec![line(1, 999)], true, (999, 49, &["weekend"])),
            // Both apply, and both give nothing.
            (vec![line(10, 0)], true, (0, 0, &["bulk", "weekend"])),
            // 11 × 0.09 = 0.99, a tenth of it is 9.9 cents: 9 for each line, and not 19 for both.
            (vec![line(11, 9), line(11, 9)], false, (198, 18, &["bulk"])),
            // Two lines of five are not a line of ten.
            (vec![line(5, 100), line(5, 100)], false, (1_000, 0, &[])),
        ] {
            let quote = priced(&cart, is_weekend);
            let saw = (quote.subtotal_cents, quote.discount_cents, &quote.rules[..]);
            assert_eq!(saw, expected, "{cart:?}");
        }
    }

    #[test]
    fn the_largest_cart_has_a_price() {
        let quote = priced(&vec![line(1_000_000, 10_000_000); 100], true);
        assert_eq!(quote.subtotal_cents, 1_000_000_000_000_000);
        assert_eq!(quote.total_cents, 855_000_000_000_000);
    }

    proptest! {
        #[test]
        fn the_same_cart_has_the_same_price(cart in lines(), is_weekend: bool) {
            prop_assert_eq!(priced(&cart, is_weekend), priced(&cart, is_weekend));
        }

        #[test]
        fn nothing_is_lost_between_subtotal_discount_and_total(cart in lines(), is_weekend: bool) {
            let quote = priced(&cart, is_weekend);
            prop_assert_eq!(quote.subtotal_cents - quote.discount_cents, quote.total_cents);
            prop_assert!((0..=quote.subtotal_cents).contains(&quote.total_cents));
        }

        #[test]
        fn the_order_of_the_lines_does_not_matter(cart in lines(), is_weekend: bool) {
            let mut reversed = cart.clone();
            reversed.reverse();
            prop_assert_eq!(priced(&cart, is_weekend), priced(&reversed, is_weekend));
        }

        #[test]
        fn a_weekend_is_never_dearer(cart in lines()) {
            prop_assert!(priced(&cart, true).total_cents <= priced(&cart, false).total_cents);
        }

        #[test]
        fn without_the_weekend_a_cart_costs_what_its_lines_cost_alone(cart in lines()) {
            let alone = |line: &Line| priced(std::slice::from_ref(line), false).total_cents;
            let sum: i64 = cart.iter().map(alone).sum();
            prop_assert_eq!(priced(&cart, false).total_cents, sum);
        }

        #[test]
        fn discounts_are_within_a_cent_for_each_rounding(cart in lines(), is_weekend: bool) {
            let quote = priced(&cart, is_weekend);
            let bulk: f64 = cart
                .iter()
                .filter(|line| line.quantity >= 10)
                .map(|line| gross(line) as f64 * 0.1)
                .sum();
            let weekend = if is_weekend { (quote.subtotal_cents as f64 - bulk) * 0.05 } else { 0.0 };
            let exact = bulk + weekend;
            let roundings = cart.len() as f64 + 1.0;
            prop_assert!((exact - quote.discount_cents as f64).abs() <= roundings);
        }

        #[test]
        fn rules_are_named_when_they_apply(cart in lines(), is_weekend: bool) {
            let quote = priced(&cart, is_weekend);
            let has_bulk = cart.iter().any(|line| line.quantity >= 10);
            prop_assert_eq!(quote.rules.contains(&"bulk"), has_bulk);
            prop_assert_eq!(quote.rules.contains(&"weekend"), is_weekend);
        }
    }
}
