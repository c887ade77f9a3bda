//! The one error of the nouns. The edges (`http`, `mcp`, the commands) turn it into an answer; what the
//! database or a library said goes to the log and never further.

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
    /// The database did not answer or refused.
    #[error("the database is not available")]
    Database(#[source] sqlx::Error),
    /// Something that should not happen; the text is for the log.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// The result of an operation on a noun.
pub type Result<T, E = Error> = std::result::Result<T, E>;
