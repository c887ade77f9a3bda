//! JWTs of configured issuers as bearer tokens (RFC 7519, RFC 9068; algorithms after RFC 8725).
//!
//! The issuer is picked by the token's own `iss`, which proves nothing until one of that issuer's keys has
//! verified the signature. Time is checked here, not by the library, which asks the system's clock.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use jsonwebtoken::{Algorithm, AlgorithmFamily, Validation};
use serde_json::{Map, Value};

use super::Refused;
use super::jwks::Jwks;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::policy::{Pattern, Risk, Scopes};

/// Longest accepted token, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// Longest accepted subject, in bytes.
pub(super) const MAX_SUBJECT: usize = 255;

type Claims = Map<String, Value>;

/// Verifies the JWTs of all configured issuers.
pub(super) struct Verifier {
    issuers: Vec<Issuer>,
    clock: Clock,
}

struct Issuer {
    issuer: String,
    algorithms: Vec<Algorithm>,
    audience: String,
    /// The public URL, without a path.
    base: String,
    tenant_claim: String,
    scope_claim: String,
    skew: Duration,
    keys: Jwks,
}

/// What a verified token says.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) tenant: TenantId,
    /// SHA-256 of issuer and subject, in hexadecimal.
    pub(super) digest: Arc<str>,
    pub(super) subject: String,
    pub(super) scopes: Scopes,
    /// The token's `exp` and the tolerated skew after it.
    pub(super) ends_at: Timestamp,
}

impl Verifier {
    /// Checks the configuration, and reads the key sets that are files.
    pub(super) fn new(
        issuers: &[config::Issuer],
        resource: &str,
        clock: &Clock,
        client: &reqwest::Client,
    ) -> Result<Self> {
        let mut names = HashSet::new();
        let mut built = Vec::with_capacity(issuers.len());
        for (place, issuer) in issuers.iter().enumerate() {
            let wrong =
                |key: &str, what: String| Error::Invalid(format!("auth.issuers[{place}].{key}: {what}"));
            if issuer.issuer.is_empty() || !names.insert(issuer.issuer.as_str()) {
                return Err(wrong("issuer", "expected a text that no other issuer has".to_owned()));
            }
            let algorithms = algorithms(&issuer.algorithms).map_err(|what| wrong("algorithms", what))?;
            let keys = match (&issuer.jwks_url, &issuer.jwks_file) {
                (Some(url), None) => {
                    let url = jwks_url(url).map_err(|what| wrong("jwks_url", what))?;
                    Jwks::from_url(url, clock, client)
                }
                (None, Some(path)) => Jwks::from_file(path.clone(), clock, client).map_err(|what| {
                    wrong("jwks_file", format!("cannot read the key set {}: {what}", path.display()))
                })?,
                _ => {
                    return Err(wrong(
                        "jwks_url",
                        "expected exactly one of jwks_url and jwks_file".to_owned(),
                    ));
                }
            };
            let audience = if issuer.audience.is_empty() { resource } else { &issuer.audience };
            built.push(Issuer {
                issuer: issuer.issuer.clone(),
                algorithms,
                audience: audience.to_owned(),
                base: resource.trim_end_matches("/mcp").to_owned(),
                tenant_claim: issuer.tenant_claim.clone(),
                scope_claim: issuer.scope_claim.clone(),
                skew: issuer.skew.get(),
                keys,
            });
        }
        Ok(Self { issuers: built, clock: clock.clone() })
    }

    /// Whether `token` could be a JWT that is accepted here; everything else is refused without work.
    pub(super) fn may_accept(&self, token: &str) -> bool {
        !self.issuers.is_empty()
            && token.len() <= MAX_TOKEN
            && token.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// What `token` says, if an issuer's key has signed it, for us, for now.
    ///
    /// # Errors
    /// [`Refused::Invalid`], or [`Refused::Unavailable`] where the issuer's keys cannot be read.
    pub(super) async fn verify(&self, token: &str) -> Result<Verified, Refused> {
        let invalid = |_| Refused::Invalid;
        let header = jsonwebtoken::decode_header(token).map_err(invalid)?;
        let unproven: Claims = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(invalid)?;
        let named = unproven.get("iss").and_then(Value::as_str).ok_or(Refused::Invalid)?;
        let issuer = self.issuers.iter().find(|i| i.issuer == named).ok_or(Refused::Invalid)?;

        // An extension that must be understood (RFC 7515, section 4.1.11): none is, here.
        if header.crit.is_some() || !issuer.algorithms.contains(&header.alg) {
            return Err(Refused::Invalid);
        }
        let kid = header.kid.as_deref().ok_or(Refused::Invalid)?;
        let key = issuer.keys.find(kid, header.alg).await?;

        let mut signature_only = Validation::new(header.alg);
        signature_only.required_spec_claims = HashSet::new();
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        let proven = jsonwebtoken::decode::<Claims>(token, &key, &signature_only).map_err(invalid)?;
        issuer.accept(&proven.claims, self.clock.now()).ok_or(Refused::Invalid)
    }
}

impl Issuer {
    /// What the claims of a verified token say, if they are for us and for now.
    fn accept(&self, claims: &Claims, now: Timestamp) -> Option<Verified> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let audiences: Vec<&str> = match claims.get("aud")? {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => return None,
        };
        let scopes = self.narrow(scopes(claims.get(&self.scope_claim))?, &audiences)?;
        let ends_at = date(claims.get("exp")?)?.plus(self.skew);
        let begins_at = match claims.get("nbf") {
            Some(value) => date(value)?.minus(self.skew),
            None => now,
        };
        if text("iss")? != self.issuer || ends_at <= now || begins_at > now {
            return None;
        }
        let subject = text("sub").filter(|sub| !sub.is_empty() && sub.len() <= MAX_SUBJECT)?;
        Some(Verified {
            tenant: text(&self.tenant_claim)?.parse().ok()?,
            digest: digest(&self.issuer, subject),
            subject: subject.to_owned(),
            scopes,
            ends_at,
        })
    }

    /// What is left of the scopes for these audiences. A token for the configured audience, or for an endpoint that
    /// offers everything, keeps all of them; one for the endpoints of a single server (RFC 8707: clients ask for the
    /// resource that its metadata names) reaches that server only; any other is not for us.
    fn narrow(&self, scopes: Scopes, audiences: &[&str]) -> Option<Scopes> {
        let path = |one: &&str| one.strip_prefix(self.base.as_str()).map(str::to_owned);
        let paths: Vec<String> = audiences.iter().filter_map(path).collect();
        if audiences.contains(&self.audience.as_str()) || paths.iter().any(|p| p == "/mcp" || p == "/sse") {
            return Some(scopes);
        }
        let server = |path: &String| {
            let rest = path.strip_prefix("/s/")?;
            let name = rest.strip_suffix("/mcp").or_else(|| rest.strip_suffix("/sse"))?;
            Pattern::try_from(name.to_owned()).ok().filter(|_| !name.contains(['*', '/']))
        };
        let servers: Vec<Pattern> =
            paths.iter().filter_map(server).filter(|s| scopes.allows_server(s.as_str())).collect();
        (!servers.is_empty()).then_some(Scopes { servers, ..scopes })
    }
}

/// A NumericDate (RFC 7519, section 2): seconds, possibly with a fraction, from 1970 on.
fn date(value: &Value) -> Option<Timestamp> {
    let since = match value.as_u64() {
        Some(whole) => Duration::from_secs(whole),
        None => Duration::try_from_secs_f64(value.as_f64()?).ok()?,
    };
    Some(Timestamp::from_micros(0).plus(since))
}

fn digest(issuer: &str, subject: &str) -> Arc<str> {
    let mut context = Context::new(&SHA256);
    context.update(issuer.as_bytes());
    // No issuer is spelled with a NUL, so no two pairs run together.
    context.update(&[0]);
    context.update(subject.as_bytes());
    HEXLOWER.encode(context.finish().as_ref()).into()
}

/// The scopes in a claim: a text of words with blanks between them (RFC 8693, section 4.2), or a list of words.
///
/// `server:PATTERN` and `tool:PATTERN` name what may be reached, `risk:read_only`, `risk:write` or
/// `risk:destructive` the highest risk; the highest one named counts. What no word restricts is not restricted: a
/// token without any of these words may do everything that its tenant may. Other words, such as `openid`, mean
/// nothing here. A word of ours that is wrong makes the token invalid, lest a typo widen it.
fn scopes(claim: Option<&Value>) -> Option<Scopes> {
    let words: Vec<&str> = match claim {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect::<Option<_>>()?,
        Some(_) => return None,
    };
    let (mut servers, mut tools, mut risk) = (Vec::new(), Vec::new(), None);
    for word in words {
        let pattern = |text: &str| Pattern::try_from(text.to_owned()).ok();
        match word.split_once(':') {
            Some(("server", text)) => servers.push(pattern(text)?),
            Some(("tool", text)) => tools.push(pattern(text)?),
            Some(("risk", text)) => risk = risk.max(Some(text.parse::<Risk>().ok()?)),
            _ => {}
        }
    }
    let everything = Scopes::default();
    let or_all = |named: Vec<Pattern>, all| if named.is_empty() { all } else { named };
    let scopes = Scopes {
        servers: or_all(servers, everything.servers),
        tools: or_all(tools, everything.tools),
        max_risk: risk.unwrap_or(everything.max_risk),
        billing: false,
    };
    scopes.validate().is_ok().then_some(scopes)
}

/// The allow-list. A symmetric algorithm would make the issuer's published key a secret.
fn algorithms(names: &[String]) -> Result<Vec<Algorithm>, String> {
    const EXPECTED: &str = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA";
    if names.is_empty() {
        return Err(format!("expected at least one of {EXPECTED}"));
    }
    let asymmetric = |name: &String| {
        let algorithm = name.parse::<Algorithm>().ok().filter(|a| a.family() != AlgorithmFamily::Hmac);
        algorithm.ok_or_else(|| format!("{name:?} is not one of {EXPECTED}"))
    };
    names.iter().map(asymmetric).collect()
}

/// Keys that came over an open network would be anybody's.
fn jwks_url(text: &str) -> Result<reqwest::Url, String> {
    let expected = || "expected an https:// URL, or http:// with a loopback host".to_owned();
    let url = reqwest::Url::parse(text).map_err(|_| expected())?;
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let good = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    if good { Ok(url) } else { Err(expected()) }
}

#[cfg(test)]
mod tests;
