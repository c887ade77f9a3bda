//! What went wrong, and what to check.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

/// Why a probe failed: at which step, what happened, and what to check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {problem}{}{check}", if check.is_empty() { "" } else { "; " })]
pub struct ProbeError {
    /// The step, by its name in the table.
    pub step: Cow<'static, str>,
    /// What happened.
    pub problem: String,
    /// What to check, where that is known.
    pub check: Cow<'static, str>,
}

impl ProbeError {
    /// An argument that cannot be used.
    pub(super) fn argument(problem: &str) -> Self {
        Self { step: "arguments".into(), problem: problem.to_owned(), check: "".into() }
    }
}

/// What went wrong inside of a step.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) problem: String,
    pub(super) check: Cow<'static, str>,
}

impl Trouble {
    pub(super) fn new(problem: impl Into<String>, check: impl Into<Cow<'static, str>>) -> Self {
        Self { problem: problem.into(), check: check.into() }
    }

    /// The server answered in a way that the protocol does not have.
    pub(super) fn protocol(problem: impl Into<String>) -> Self {
        Self::new(problem, "is this the URL of an MCP server?")
    }

    /// The time of the whole run is over.
    pub(super) fn late(limit: Duration) -> Self {
        let seconds = limit.as_secs();
        Self::new(
            format!("no answer within the {seconds} s of the run"),
            "is the server overloaded or stuck? --timeout gives it longer",
        )
    }

    /// No answer came, or it broke off.
    pub(super) fn transport(error: reqwest::Error, limit: Duration) -> Self {
        if error.is_timeout() {
            return Self::late(limit);
        }
        let check = if error.is_connect() {
            "is the server running, and are host, port and certificate right?"
        } else {
            "the connection broke; what do the server's or its proxy's logs say?"
        };
        // The error's own text would quote the URL, and with it perhaps a token.
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::new(text, check)
    }

    /// An HTTP status other than success, and what the body said.
    pub(super) fn status(status: StatusCode, said: &str, sent_credential: bool) -> Self {
        let check = match status {
            StatusCode::UNAUTHORIZED if sent_credential => {
                "the credential is not accepted: is it of this server, not expired and not revoked?"
            }
            StatusCode::UNAUTHORIZED => {
                "the server wants a credential: pass --key-file, or ?token= in the URL"
            }
            StatusCode::FORBIDDEN => {
                "may this credential come in, and is this host name one that the server serves?"
            }
            StatusCode::TOO_MANY_REQUESTS => "a limit is reached: probe less often or raise it",
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "is this the path of an MCP endpoint?",
            status if status.is_redirection() => "redirects are not followed: probe the URL that it leads to",
            status if status.is_server_error() => "what do the server's or its proxy's logs say?",
            _ => "is this the URL of an MCP server?",
        };
        let colon = if said.is_empty() { "" } else { ": " };
        Self::new(format!("HTTP {}{colon}{said}", status.as_u16()), check)
    }

    pub(super) fn at(self, step: &'static str, clean: impl Fn(&str) -> String) -> ProbeError {
        ProbeError { step: step.into(), problem: clean(&self.problem), check: self.check }
    }
}
