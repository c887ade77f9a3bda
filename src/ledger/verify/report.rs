//! What a verification found: how much of each kind of thing was looked at, and how much of it is wrong.

use serde::Serialize;

/// Examples that a report keeps of each check.
const EXAMPLES: usize = 5;

macro_rules! checks {
    ($($(#[$doc:meta])* $check:ident = $name:literal: $text:literal,)+) => {
        /// One thing that has to hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Check { $($(#[$doc])* $check,)+ }

        impl Check {
            /// Every check.
            pub const ALL: &'static [Self] = &[$(Self::$check),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$check => $name,)+ }
            }

            /// What it says.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$check => $text,)+ }
            }
        }
    };
}

checks! {
    /// Price versions are as published.
    Versions = "price_versions": "terms fit their digests and are valid; numbers have no holes",
    /// Calls were charged by the right prices.
    Rates = "rates": "charges follow from the price version that was in force",
    /// Calls that are never charged were not.
    Uncharged = "uncharged": "calls without a result cost nothing",
    /// A charge is whole.
    Parts = "parts": "parts add up to the charge; what was charged was settled, in a period, by a meter",
    /// A charge came from slabs.
    Draws = "draws": "draws add up to the charge, from slabs of the same tenant, period, meter and kind",
    /// Calls lie in their periods.
    InPeriod = "calls_in_periods": "calls began in the period that they name, which is their tenant's",
    /// A key is charged once.
    Keys = "idempotency": "calls with the same key were settled once",
    /// Slabs were used by calls.
    Slabs = "slabs": "what was used of a slab is what calls drew, and no more than it held",
    /// Grants were used by slabs.
    Grants = "grants": "what was used and is held of a grant is what its slabs say; nothing is left after its end",
    /// Included credits are those of the period.
    Included = "included_credits": "every period was given what its prices include, once",
    /// Periods owe what slabs used.
    Periods = "periods": "what is owed is what slabs say, and no more than the cap; periods do not overlap",
    /// Corrections take back what was charged.
    Corrections = "corrections": "what was taken back of a call is what it drew, once",
    /// Sums are those of the calls.
    Sums = "daily_sums": "daily sums are those of the calls",
    /// Exports are whole.
    Exports = "exports": "exports have what goes with their state",
    /// Exports have minutes of their own.
    Minutes = "export_minutes": "every export has a minute of its own, which it could use when it was begun",
    /// What is owed was told.
    Told = "told": "what periods owe was told to the provider of invoices or still can be, and no more without a reason",
    /// Nothing refers to another tenant's things.
    Tenants = "tenants": "nothing refers to what is another tenant's",
}

/// What one check found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// What it says.
    pub text: &'static str,
    /// How many things were looked at.
    pub looked: u64,
    /// How many of them are wrong.
    pub wrong: u64,
    /// The first of them, with their ids.
    pub examples: Vec<String>,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// In the order of [`Check::ALL`].
    pub checks: Vec<Finding>,
    /// What could not be checked, and why.
    pub notes: Vec<String>,
}

impl Default for Report {
    fn default() -> Self {
        let fresh = |check: &Check| Finding {
            check: check.name(),
            text: check.text(),
            looked: 0,
            wrong: 0,
            examples: Vec::new(),
        };
        Self { checks: Check::ALL.iter().map(fresh).collect(), notes: Vec::new() }
    }
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.checks.iter().all(|finding| finding.wrong == 0)
    }

    /// What a check found.
    #[must_use]
    pub fn of(&self, check: Check) -> &Finding {
        &self.checks[check as usize]
    }

    /// One more thing was looked at: right, or wrong like this.
    pub(super) fn add(&mut self, check: Check, verdict: Result<(), String>) {
        let finding = &mut self.checks[check as usize];
        finding.looked += 1;
        if let Err(text) = verdict {
            finding.wrong += 1;
            if finding.examples.len() < EXAMPLES {
                finding.examples.push(text);
            }
        }
    }

    /// The same for many, of which some are known.
    pub(super) fn add_all(&mut self, check: Check, (looked, wrong): (i64, i64), examples: Vec<String>) {
        let finding = &mut self.checks[check as usize];
        finding.looked += u64::try_from(looked).unwrap_or(0);
        finding.wrong += u64::try_from(wrong).unwrap_or(0);
        let room = EXAMPLES.saturating_sub(finding.examples.len());
        finding.examples.extend(examples.into_iter().take(room));
    }
}

/// `Ok` where this holds, else what is wrong.
pub(super) fn holds(good: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(wrong()) }
}
