//! Amounts, in the smallest unit of their currency, rounded as late as can be.

/// Decimals that a price per unit has at most (docs.stripe.com/api/prices/object).
const DECIMALS: usize = 12;
/// The smallest amount that is charged; a smaller one is kept on the customer's balance. STANDIN-INVOICE-5
pub const SMALLEST: i64 = 50;

/// What a quantity costs at a price per unit such as `0.25`; half a unit and more counts as one. STANDIN-INVOICE-2
pub fn total(quantity: i64, unit_amount: &str) -> i64 {
    let (whole, part) = unit_amount.split_once('.').unwrap_or((unit_amount, ""));
    let scaled: i128 = format!("{whole}{part:0<DECIMALS$}").parse().unwrap_or_default();
    round(i128::from(quantity).saturating_mul(scaled), 10_i128.pow(12))
}

/// The share of an amount that falls on `part` of `whole` seconds. STANDIN-PRORATE-1
pub fn share(amount: i64, part: i64, whole: i64) -> i64 {
    round(i128::from(amount) * i128::from(part), i128::from(whole.max(1)))
}

/// Half and more goes away from zero.
fn round(amount: i128, by: i128) -> i64 {
    let rounded = (amount.abs().saturating_mul(2).saturating_add(by)) / by.saturating_mul(2);
    i64::try_from(rounded * amount.signum()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_unit_counts_as_one() {
        for (quantity, unit, amount) in [
            (0, "1000", 0),
            (3, "1000", 3000),
            (49, "0.01", 0),
            (50, "0.01", 1),
            (149, "0.01", 1),
            (1_000_001, "0.000000000001", 0),
            (i64::MAX, "1", i64::MAX),
        ] {
            assert_eq!(total(quantity, unit), amount, "{quantity} at {unit}");
        }
        assert_eq!(
            (share(1000, 1, 3), share(-1000, 2, 3), share(1, 1, 2), share(-1, 1, 2)),
            (333, -667, 1, -1)
        );
    }
}
