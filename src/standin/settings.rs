//! How the account is set up: what Stripe has in its Dashboard, and the API does not tell.

use serde::{Deserialize, Serialize};

/// Seconds for which an invoice may stay a draft at most: 72 hours (docs.stripe.com/invoicing/scheduled-finalization).
const LONGEST_GRACE: u64 = 72 * 3600;
/// The furthest that anything is put off, in seconds: ten years.
const FURTHEST: u64 = 10 * 366 * 24 * 3600;
/// Retries of one invoice at most, as Stripe's own.
const MOST_RETRIES: usize = 8;
/// All of an amount, in hundredths of a percent.
const WHOLE: i64 = 10_000;

/// What becomes of a subscription when the last retry of an invoice failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterRetries {
    /// It ends.
    Cancel,
    /// It is `unpaid`: later invoices stay drafts.
    Unpaid,
    /// It stays `past_due`.
    PastDue,
}

/// Which usage an invoice bills when it becomes final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Billed {
    /// All that was accepted by then. STANDIN-INVOICE-1
    Accepted,
    /// What summaries show by then: the rest is never billed, as nobody promises that it is.
    Shown,
}

/// The settings that there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Seconds for which usage that is accepted from now on stays out of summaries.
    pub summary_lag_seconds: u64,
    /// Seconds from the end of a period until its invoice is finalised. STANDIN-INVOICE-1
    pub finalization_grace_seconds: u64,
    /// Which usage an invoice bills.
    pub invoices_bill: Billed,
    /// Days after its first failure on which the payment of an invoice is tried again. STANDIN-DUNNING-1
    pub retry_days: Vec<u16>,
    /// What comes after the last retry.
    pub after_retries: AfterRetries,
    /// Tax on everything with `automatic_tax[enabled]`, in hundredths of a percent. STANDIN-TAX-1
    pub tax_basis_points: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            summary_lag_seconds: 0,
            finalization_grace_seconds: 3600,
            invoices_bill: Billed::Accepted,
            retry_days: vec![1, 3, 5, 7],
            after_retries: AfterRetries::Unpaid,
            tax_basis_points: 0,
        }
    }
}

/// Settings to change; what is not there stays.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// Seconds for which usage that is accepted from now on stays out of summaries; at most ten years.
    pub summary_lag_seconds: Option<u64>,
    /// Seconds from the end of a period until its invoice is finalised; at most 72 hours.
    pub finalization_grace_seconds: Option<u64>,
    /// Which usage an invoice bills.
    pub invoices_bill: Option<Billed>,
    /// Days after its first failure on which the payment of an invoice is tried again; at most 8, each later than the one
    /// before.
    pub retry_days: Option<Vec<u16>>,
    /// What comes after the last retry.
    pub after_retries: Option<AfterRetries>,
    /// Tax on everything with `automatic_tax[enabled]`, in hundredths of a percent; at most all of it.
    pub tax_basis_points: Option<i64>,
}

impl Settings {
    /// Changes them, all or none.
    ///
    /// # Errors
    /// A sentence where a setting is out of its bounds.
    pub fn change(&mut self, change: Change) -> Result<(), String> {
        let mut next = self.clone();
        if let Some(lag) = change.summary_lag_seconds {
            next.summary_lag_seconds = lag.min(FURTHEST);
        }
        if let Some(grace) = change.finalization_grace_seconds {
            if grace > LONGEST_GRACE {
                return Err(format!("finalization_grace_seconds: at most {LONGEST_GRACE}"));
            }
            next.finalization_grace_seconds = grace;
        }
        if let Some(days) = change.retry_days {
            if days.len() > MOST_RETRIES
                || !days.iter().zip(days.iter().skip(1)).all(|(one, other)| one < other)
            {
                return Err(format!(
                    "retry_days: at most {MOST_RETRIES} days, each later than the one before"
                ));
            }
            next.retry_days = days;
        }
        next.invoices_bill = change.invoices_bill.unwrap_or(next.invoices_bill);
        next.after_retries = change.after_retries.unwrap_or(next.after_retries);
        if let Some(tax) = change.tax_basis_points {
            if !(0..=WHOLE).contains(&tax) {
                return Err(format!("tax_basis_points: 0 to {WHOLE}"));
            }
            next.tax_basis_points = tax;
        }
        *self = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_bounds_and_change_together() {
        let mut settings = Settings::default();
        for wrong in [
            r#"{"finalization_grace_seconds": 259201}"#,
            r#"{"retry_days": [3, 3]}"#,
            r#"{"retry_days": [1, 2], "tax_basis_points": 10001}"#,
            r#"{"tax_basis_points": -1}"#,
        ] {
            let change: Change = serde_json::from_str(wrong).expect("a change");
            assert!(settings.change(change).is_err(), "{wrong}");
        }
        assert_eq!(settings, Settings::default());
        let change = r#"{"after_retries": "cancel", "retry_days": [], "finalization_grace_seconds": 259200}"#;
        settings.change(serde_json::from_str(change).expect("a change")).expect("taken");
        assert_eq!(
            (settings.after_retries, settings.finalization_grace_seconds),
            (AfterRetries::Cancel, 259_200)
        );
        assert!(serde_json::from_str::<Change>(r#"{"retries": 1}"#).is_err());
    }
}
