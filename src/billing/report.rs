//! What `weir billing setup` and `weir billing doctor` found, line by line.

use std::fmt;

use super::stripe::StripeError;

/// What is to be said of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was not there and is now.
    Made,
    /// It is as it should be.
    There,
    /// It was different and is now as it should be.
    Changed,
    /// It cannot be found out from here; somebody has to look.
    Look,
    /// It is not as it should be; the text says what to do.
    Wrong,
}

impl Verdict {
    /// As it is printed.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::There => "there",
            Self::Changed => "changed",
            Self::Look => "look",
            Self::Wrong => "wrong",
        }
    }
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is to be said of it.
    pub verdict: Verdict,
    /// Which thing.
    pub what: &'static str,
    /// More about it.
    pub detail: String,
}

impl Line {
    /// A line.
    pub(super) fn new(verdict: Verdict, what: &'static str, detail: impl Into<String>) -> Self {
        Self { verdict, what, detail: detail.into() }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {}: {}", format!("{}:", self.verdict.text()), self.what, self.detail)
    }
}

/// Why a thing is not as it should be, and what to do about it.
#[derive(Debug)]
pub(super) struct Problem(pub(super) String);

impl From<StripeError> for Problem {
    fn from(error: StripeError) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self(text)
    }
}
