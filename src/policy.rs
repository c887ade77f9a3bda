//! Who may use what: the scopes of a credential, and the permit that a call must hold.
//!
//! A denied tool looks exactly like an unknown one, so this room only says yes or no; what the caller is told
//! is decided in `mcp`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::error::{Error, Result};

/// What a tool may do at worst, from its annotations (MCP schema, `ToolAnnotations`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// `readOnlyHint`: changes nothing.
    ReadOnly,
    /// Adds or changes, but destroys nothing (`destructiveHint: false`).
    Write,
    /// May destroy; also what a tool without annotations counts as, as the schema's defaults say.
    Destructive,
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read_only",
            Self::Write => "write",
            Self::Destructive => "destructive",
        })
    }
}

impl std::str::FromStr for Risk {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "read_only" => Ok(Self::ReadOnly),
            "write" => Ok(Self::Write),
            "destructive" => Ok(Self::Destructive),
            other => Err(Error::Invalid(format!(
                "max_risk: {other:?} is not one of \"read_only\", \"write\", \"destructive\""
            ))),
        }
    }
}

/// A name in which `*` stands for any run of characters, such as `dns_*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

impl Pattern {
    /// Longest accepted pattern, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Whether `name` fits.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or("");
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let mut last = None;
        for piece in pieces {
            if let Some(previous) = last.replace(piece) {
                let Some(at) = rest.find(previous) else { return false };
                rest = &rest[at + str::len(previous)..];
            }
        }
        last.map_or(rest.is_empty(), |end| rest.ends_with(end))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Pattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let good = |c: char| c.is_ascii_alphanumeric() || "*_-./".contains(c);
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.chars().all(good) {
            return Err(Error::Invalid(format!(
                "{text:?} is not a pattern: expected 1 to {} characters of A-Z a-z 0-9 _ - . / and *",
                Self::MAX_LEN
            )));
        }
        Ok(Self(text))
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

/// What a credential may reach. The default is everything that its tenant may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scopes {
    /// Servers, by pattern.
    pub servers: Vec<Pattern>,
    /// Tools, by pattern.
    pub tools: Vec<Pattern>,
    /// The highest risk of a tool that may be called.
    pub max_risk: Risk,
    /// Whether its holder may buy for the tenant: subscriptions and credits. Not by default, as most keys are held by agents.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub billing: bool,
}

impl Default for Scopes {
    fn default() -> Self {
        let all = || vec![Pattern("*".to_owned())];
        Self { servers: all(), tools: all(), max_risk: Risk::Destructive, billing: false }
    }
}

impl Scopes {
    /// Most patterns per list.
    pub const MAX_PATTERNS: usize = 64;

    /// Checks sizes; the patterns have checked themselves.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a list is empty or too long.
    pub fn validate(&self) -> Result<()> {
        for (name, list) in [("scopes.servers", &self.servers), ("scopes.tools", &self.tools)] {
            if list.is_empty() || list.len() > Self::MAX_PATTERNS {
                return Err(Error::Invalid(format!(
                    "{name}: expected 1 to {} patterns, found {}",
                    Self::MAX_PATTERNS,
                    list.len()
                )));
            }
        }
        Ok(())
    }

    /// Whether the server of this name may be used.
    #[must_use]
    pub fn allows_server(&self, server: &str) -> bool {
        self.servers.iter().any(|p| p.matches(server))
    }

    /// Whether a tool of this name and risk may be called (its server must be allowed, too).
    #[must_use]
    pub fn allows_tool(&self, tool: &str, risk: Risk) -> bool {
        risk <= self.max_risk && self.tools.iter().any(|p| p.matches(tool))
    }
}

/// Proof that this caller may call this tool. Only [`authorize`] makes one.
#[derive(Debug)]
pub struct Permit<'a, T> {
    caller: &'a Caller,
    tool: T,
}

impl<'a, T> Permit<'a, T> {
    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &'a Caller {
        self.caller
    }

    /// What is called.
    #[must_use]
    pub fn tool(&self) -> &T {
        &self.tool
    }
}

/// What [`authorize`] has to know of a tool.
pub trait Guarded {
    /// The server that the tool belongs to.
    fn server(&self) -> &str;
    /// The tool's name.
    fn name(&self) -> &str;
    /// What it may do at worst.
    fn risk(&self) -> Risk;
    /// Whether it costs nothing, whatever a plan says.
    fn is_free(&self) -> bool {
        false
    }
}

impl<T: Guarded> Guarded for &T {
    fn server(&self) -> &str {
        T::server(self)
    }
    fn name(&self) -> &str {
        T::name(self)
    }
    fn risk(&self) -> Risk {
        T::risk(self)
    }
    fn is_free(&self) -> bool {
        T::is_free(self)
    }
}

/// Whether the caller may see and use `tool`.
#[must_use]
pub fn allowed(caller: &Caller, tool: &impl Guarded) -> bool {
    let scopes = caller.scopes();
    scopes.allows_server(tool.server()) && scopes.allows_tool(tool.name(), tool.risk())
}

/// A permit where the caller's scopes allow the tool.
#[must_use]
pub fn authorize<T: Guarded>(caller: &Caller, tool: T) -> Option<Permit<'_, T>> {
    allowed(caller, &tool).then_some(Permit { caller, tool })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::try_from(text.to_owned()).expect("a pattern")
    }

    #[test]
    fn stars_stand_for_any_run() {
        for (text, yes, no) in [
            ("*", &["", "a", "dns_resolve"][..], &[][..]),
            ("dns_*", &["dns_", "dns_resolve"], &["dns", "xdns_resolve"]),
            ("*_get", &["a_get", "_get"], &["a_gets"]),
            ("a*b*c", &["abc", "a1b2c", "abbc"], &["ab", "acb", "abcd"]),
            ("ab*ba", &["abba", "abxba"], &["aba"]),
            ("exact", &["exact"], &["exac", "exactly", ""]),
        ] {
            for name in yes {
                assert!(pattern(text).matches(name), "{text} should match {name:?}");
            }
            for name in no {
                assert!(!pattern(text).matches(name), "{text} should not match {name:?}");
            }
        }
    }

    #[test]
    fn odd_patterns_are_refused() {
        assert!(Pattern::try_from(String::new()).is_err());
        assert!(Pattern::try_from("a b".to_owned()).is_err());
        assert!(Pattern::try_from("x".repeat(129)).is_err());
    }

    #[test]
    fn risk_is_ordered() {
        let scopes = Scopes { max_risk: Risk::Write, ..Scopes::default() };
        assert!(scopes.allows_tool("t", Risk::ReadOnly));
        assert!(scopes.allows_tool("t", Risk::Write));
        assert!(!scopes.allows_tool("t", Risk::Destructive));
    }
}
