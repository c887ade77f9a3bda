//! The one error of the nouns. The edges (`http`, `mcp`, the commands) turn it into an answer; what the
//! database or a library said goes to the log and never further.

use crate::id::TenantId;

/// The dependency without which only money waits.
pub(crate) const STRIPE: &str = "Stripe";

/// Why an operation on a noun did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such thing, or one of another tenant.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The request contradicts what is there; the text says what to do.
    #[error("{0}")]
    Conflict(String),
    /// The request is wrong in itself; the text names the field and what was expected.
    #[error("{0}")]
    Invalid(String),
    /// The database did not answer or refused; what became of a change is not known.
    #[error("the database is not available")]
    Database(#[source] sqlx::Error),
    /// This dependency is known to be away, so nothing was tried.
    #[error("the {0} is not available, so nothing was done; try again")]
    Away(&'static str),
    /// Something that should not happen; the text is for the log.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Whether it has nothing to do with what was asked: the database does not answer, and would not answer the next question
    /// either.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Database(error) => !matches!(error, sqlx::Error::Database(_)),
            // Stripe answers some questions and not others.
            Self::Away(what) => *what != STRIPE,
            _ => false,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// The result of an operation on a noun.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was done for one tenant of many. An error stays with that tenant and goes to the log, unless it is an
/// [outage](Error::is_outage).
pub(crate) fn bearable<T>(done: Result<T>, tenant: TenantId, what: &'static str) -> Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.is_outage() => Err(error),
        Err(error) => {
            tracing::error!(%tenant, ?error, "{what}");
            Ok(None)
        }
    }
}
