//! What a caller may use: the configuration, changed by the tenant's plan, changed by the credential.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{self, Rate};
use crate::error::{Error, Result};
use crate::policy::Pattern;

/// Largest rate and burst of requests.
const MOST_REQUESTS: u32 = 1_000_000;
/// Most rules for servers, and for tools, that a plan has.
const MAX_RULES: usize = 64;

/// A bucket of its own for every server or tool of a tenant whose name fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The name, with `*` for any run of characters.
    pub name: Pattern,
    /// Calls per second.
    pub per_second: u32,
    /// Calls at once.
    pub burst: u32,
}

impl Rule {
    fn rate(&self) -> Rate {
        Rate { per_second: self.per_second, burst: self.burst }
    }
}

/// The limits of a plan; what is left out is as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanLimits {
    /// Requests of the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Rate>,
    /// Requests of one credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Rate>,
    /// Calls of the tools of one server; the first rule that fits counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Rule>,
    /// Calls of one tool; the first rule that fits counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Rule>,
    /// Bytes of request bodies and answers; 0 and 0: as many as it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Rate>,
    /// What runs at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Legacy sessions open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Event streams open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<u32>,
    /// Calls at once that wait for an answer of their clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<u32>,
}

/// The limits of one credential; what is left out is as the plan says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyLimits {
    /// Requests per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// Requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

fn requests(field: &str, value: u32) -> Result<()> {
    if (1..=MOST_REQUESTS).contains(&value) {
        return Ok(());
    }
    Err(Error::Invalid(format!("{field}: expected 1 to {MOST_REQUESTS}, found {value}")))
}

fn rate(field: &str, rate: Rate) -> Result<()> {
    requests(&format!("{field}.per_second"), rate.per_second)?;
    requests(&format!("{field}.burst"), rate.burst)
}

impl PlanLimits {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the field.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [("limits.tenant", self.tenant), ("limits.key", self.key)] {
            value.map_or(Ok(()), |value| rate(field, value))?;
        }
        for (field, rules) in [("limits.servers", &self.servers), ("limits.tools", &self.tools)] {
            if rules.len() > MAX_RULES {
                let found = rules.len();
                return Err(Error::Invalid(format!(
                    "{field}: expected at most {MAX_RULES} rules, found {found}"
                )));
            }
            for (at, rule) in rules.iter().enumerate() {
                rate(&format!("{field}[{at}]"), rule.rate())?;
            }
        }
        if self.bytes.is_some_and(|bytes| (bytes.per_second > 0) != (bytes.burst > 0)) {
            let text = "limits.bytes: expected 0 in both per_second and burst, or more than 0 in both";
            return Err(Error::Invalid(text.to_owned()));
        }
        let counts = [
            ("concurrency", self.concurrency),
            ("sessions", self.sessions),
            ("streams", self.streams),
            ("questions", self.questions),
        ];
        match counts.into_iter().find(|(_, count)| *count == Some(0)) {
            Some((field, _)) => Err(Error::Invalid(format!("limits.{field}: expected at least 1, found 0"))),
            None => Ok(()),
        }
    }
}

impl KeyLimits {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the field.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [("limits.per_second", self.per_second), ("limits.burst", self.burst)] {
            value.map_or(Ok(()), |value| requests(field, value))?;
        }
        Ok(())
    }
}

/// What one caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveLimits {
    /// Requests of the tenant.
    pub tenant: Rate,
    /// Requests of the credential.
    pub key: Rate,
    /// Bytes of the tenant's request bodies and answers, where they are limited.
    pub bytes: Option<Rate>,
    /// What the tenant runs at once.
    pub concurrency: u32,
    /// Legacy sessions of the tenant open at once.
    pub sessions: u32,
    /// Event streams of the tenant open at once.
    pub streams: u32,
    /// Calls of the tenant at once that wait for an answer of their clients.
    pub questions: u32,
    pub(super) servers: Vec<Rule>,
    pub(super) tools: Vec<Rule>,
}

impl Default for EffectiveLimits {
    /// The least: of a caller of whom nothing is known but who it is. Nobody is let in with these.
    fn default() -> Self {
        let least = Rate { per_second: 1, burst: 1 };
        Self {
            tenant: least,
            key: least,
            bytes: None,
            concurrency: 1,
            sessions: 1,
            streams: 1,
            questions: 1,
            servers: Vec::new(),
            tools: Vec::new(),
        }
    }
}

impl EffectiveLimits {
    /// The configuration, as the plan and then the credential change it.
    #[must_use]
    pub fn new(config: &config::Limits, plan: Option<&PlanLimits>, key: Option<&KeyLimits>) -> Self {
        let none = PlanLimits::default();
        let plan = plan.unwrap_or(&none);
        let tenant = &config.tenant;
        let of_key = plan.key.unwrap_or(config.key);
        let key = key.copied().unwrap_or_default();
        Self {
            tenant: plan.tenant.unwrap_or(tenant.rate()),
            key: Rate {
                per_second: key.per_second.unwrap_or(of_key.per_second),
                burst: key.burst.unwrap_or(of_key.burst),
            },
            bytes: plan.bytes.or(tenant.bytes()).filter(|bytes| bytes.per_second > 0),
            concurrency: plan.concurrency.unwrap_or(tenant.concurrency),
            sessions: plan.sessions.unwrap_or(tenant.sessions),
            streams: plan.streams.unwrap_or(tenant.streams),
            questions: plan.questions.unwrap_or(tenant.questions),
            servers: plan.servers.clone(),
            tools: plan.tools.clone(),
        }
    }

    /// The rate of calls of this server's tools, where it has one of its own.
    #[must_use]
    pub fn of_server(&self, server: &str) -> Option<Rate> {
        self.servers.iter().find(|rule| rule.name.matches(server)).map(Rule::rate)
    }

    /// The rate of calls of this tool, where it has one of its own.
    #[must_use]
    pub fn of_tool(&self, tool: &str) -> Option<Rate> {
        self.tools.iter().find(|rule| rule.name.matches(tool)).map(Rule::rate)
    }

    /// Whether there are rates of servers or tools at all.
    #[must_use]
    pub fn has_rules(&self) -> bool {
        !self.servers.is_empty() || !self.tools.is_empty()
    }
}

/// How long to wait before a place may be free again: nobody knows, so a moment.
pub(super) const MOMENT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn plan(text: &str) -> PlanLimits {
        serde_json::from_str(text).expect("limits")
    }

    #[test]
    fn a_plan_changes_the_configuration_and_a_key_changes_the_plan() {
        let config = Layers::default().load().expect("the defaults").limits;
        let plain = EffectiveLimits::new(&config, None, None);
        assert_eq!((plain.tenant, plain.key, plain.bytes), (config.tenant.rate(), config.key, None));
        assert!(!plain.has_rules());

        let plan = plan(
            r#"{ "tenant": { "per_second": 7, "burst": 8 }, "bytes": { "per_second": 9, "burst": 10 }, "streams": 3,
                 "tools": [{ "name": "dns_resolve", "per_second": 1, "burst": 1 },
                           { "name": "dns_*", "per_second": 2, "burst": 2 }] }"#,
        );
        let key = KeyLimits { burst: Some(4), ..KeyLimits::default() };
        let both = EffectiveLimits::new(&config, Some(&plan), Some(&key));
        assert_eq!(both.tenant, Rate { per_second: 7, burst: 8 });
        assert_eq!(both.key, Rate { per_second: config.key.per_second, burst: 4 });
        assert_eq!((both.streams, both.sessions), (3, config.tenant.sessions));
        assert_eq!(both.bytes, Some(Rate { per_second: 9, burst: 10 }));
        let of_tool = |tool| both.of_tool(tool).map(|rate| rate.per_second);
        assert_eq!((of_tool("dns_resolve"), of_tool("dns_x"), of_tool("echo")), (Some(1), Some(2), None));
        assert_eq!(both.of_server("core"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            (
                r#"{ "tenant": { "per_second": 0, "burst": 1 } }"#,
                "limits.tenant.per_second: expected 1 to 1000000",
            ),
            (r#"{ "key": { "per_second": 1, "burst": 2000000 } }"#, "limits.key.burst"),
            (r#"{ "tools": [{ "name": "*", "per_second": 1, "burst": 0 }] }"#, "limits.tools[0].burst"),
            (r#"{ "bytes": { "per_second": 1, "burst": 0 } }"#, "limits.bytes"),
            (r#"{ "questions": 0 }"#, "limits.questions: expected at least 1"),
        ] {
            let error = plan(text).validate().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(plan("{}").validate().is_ok());
        assert!(KeyLimits { per_second: Some(0), burst: None }.validate().is_err());
        for unknown in [r#"{ "tennant": {} }"#, r#"{ "tenant": { "per_second": 1 } }"#] {
            assert!(serde_json::from_str::<PlanLimits>(unknown).is_err(), "{unknown}");
        }
    }
}
