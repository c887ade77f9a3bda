//! What went wrong, and what is known of it.

use std::fmt;

use stripe_client::StripeClientErr;

use super::Operation;

/// What is known of an operation that did not bring what was asked for. Of several attempts the last of these counts: what one may
/// have done, a later one does not undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// Nothing happened: Stripe said no, or was never reached.
    Refused,
    /// It may have happened, or may yet.
    Unclear,
    /// It happened, and what Stripe said of it could not be read.
    Happened,
}

impl Fate {
    /// As metrics have it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unclear => "unclear",
            Self::Happened => "happened",
        }
    }
}

/// In which way it went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The request was not sent: its path has what no path of Stripe's has.
    Unsendable,
    /// No connection was made.
    Unreachable(String),
    /// No connection, no answer or no end of it within `billing.timeout_ms`.
    Timeout,
    /// The connection broke.
    Broken(String),
    /// An answer that is no success; [`StripeError::said`] has Stripe's words, unless somebody else answered.
    Status,
    /// A success larger than what is read.
    TooLarge,
    /// A success that is not what the API's types say.
    Unreadable(String),
}

/// An error in Stripe's words. <https://docs.stripe.com/api/errors>
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// Such as `invalid_request_error`.
    pub kind: String,
    /// Such as `resource_missing`; not every error has one.
    pub code: Option<String>,
    /// Why a card was declined, where it was.
    pub decline_code: Option<String>,
    /// The parameter that it is about.
    pub param: Option<String>,
    /// For people; its start, where it is long.
    pub message: String,
}

/// An operation that did not bring what was asked for. Holds neither keys nor ids other than those that Stripe's own words name.
#[derive(Debug, Clone)]
pub struct StripeError {
    /// What was asked.
    pub operation: Operation,
    /// What is known of it, over all attempts.
    pub fate: Fate,
    /// How the last attempt went wrong.
    pub trouble: Trouble,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// Stripe's words, where they were Stripe's.
    pub said: Option<Said>,
    /// Stripe's name of the request, by which its logs have it.
    pub request_id: Option<String>,
    /// Whether Stripe gave again what it had answered before to the same idempotency key.
    pub replayed: bool,
    /// How often it was tried.
    pub attempts: u32,
}

impl StripeError {
    /// Stripe's code of the error.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.said.as_ref()?.code.as_deref()
    }

    /// Whether the object is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.status == Some(404) && self.code().is_none_or(|code| code == "resource_missing")
    }

    /// Whether the key may not do this. <https://docs.stripe.com/keys/restricted-api-keys>
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.status == Some(403)
    }
}

impl std::error::Error for StripeError {}

impl fmt::Display for StripeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        match (&self.trouble, self.status.unwrap_or_default()) {
            (Trouble::Unsendable, _) => f.write_str("not sent, an id in it is malformed")?,
            (Trouble::Unreachable(why), _) => write!(f, "no connection: {why}")?,
            (Trouble::Timeout, _) => f.write_str("no complete answer in time")?,
            (Trouble::Broken(why), _) => write!(f, "the connection broke: {why}")?,
            (Trouble::TooLarge, status) => write!(f, "status {status}, and an answer that is too large")?,
            (Trouble::Unreadable(why), status) => {
                write!(f, "status {status}, and an answer that cannot be read: {why}")?;
            }
            (Trouble::Status, status) => write!(f, "status {status}")?,
        }
        match &self.said {
            Some(said) => {
                write!(f, ", {}", said.kind)?;
                for detail in [&said.code, &said.decline_code].into_iter().flatten() {
                    write!(f, ", {detail}")?;
                }
                if let Some(param) = &said.param {
                    write!(f, ", parameter {param}")?;
                }
                write!(f, ": {}", said.message)?;
            }
            None if self.trouble == Trouble::Status => f.write_str(", not in Stripe's words")?,
            None => {}
        }
        let what = match self.fate {
            Fate::Refused => "nothing happened",
            Fate::Unclear => "it may have happened",
            Fate::Happened => "it happened",
        };
        write!(f, " ({what}")?;
        if let Some(id) = &self.request_id {
            write!(f, "; request {id}")?;
        }
        if self.attempts > 1 {
            write!(f, "; {} attempts", self.attempts)?;
        }
        if self.replayed {
            f.write_str("; said again")?;
        }
        f.write_str(")")
    }
}

/// For what the crates parse by themselves; [`super::Stripe::send`] says more.
impl StripeClientErr for StripeError {
    fn deserialize_err(message: impl fmt::Display) -> Self {
        Self {
            operation: Operation::unnamed(),
            fate: Fate::Happened,
            trouble: Trouble::Unreadable(message.to_string()),
            status: Some(200),
            said: None,
            request_id: None,
            replayed: false,
            attempts: 1,
        }
    }
}
