//! Who may come in: the caller of an MCP route, the operator of an admin route.
//!
//! A handler's signature is its access rule: one that takes [`Authenticated`] or [`Operator`] is reached by nobody else.
//! A missing, malformed, unknown, expired or revoked credential gets one and the same answer after one and the same
//! time.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::client_ip::ClientIp;
use super::problem::Problem;
use crate::app::App;
use crate::audit::Actor;
use crate::caller::{Caller, Credential};
use crate::credentials::{CredentialRef, Place, Refused};
use crate::id::TenantId;
use crate::limits::Asked;
use crate::mcp::error::{RpcError, code};
use crate::mcp::transport::refusal;
use crate::operator_keys;
use crate::telemetry::labels::Refusal;

/// The caller of an MCP route.
pub struct Authenticated {
    /// Who it is.
    pub caller: Caller,
    /// How to check the credential again later.
    pub credential: CredentialRef,
}

/// The value of `?token=`, percent-decoded; `Err` where it is there twice.
fn query_token(query: &str) -> Result<Option<Cow<'_, str>>, ()> {
    let mut tokens = query.split('&').filter_map(|pair| pair.strip_prefix("token="));
    match (tokens.next(), tokens.next()) {
        (_, Some(_)) => Err(()),
        (None, None) => Ok(None),
        (Some(raw), None) => {
            percent_encoding::percent_decode_str(raw).decode_utf8().map(Some).map_err(|_| ())
        }
    }
}

/// The token of `Authorization: Bearer`; `Err` where the header is there twice or is something else.
fn bearer(parts: &Parts) -> Result<Option<&str>, ()> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    let text = value.to_str().map_err(|_| ())?;
    let (scheme, token) = text.trim().split_once(' ').ok_or(())?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(token.trim())) } else { Err(()) }
}

impl FromRequestParts<Arc<App>> for Authenticated {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let started = tokio::time::Instant::now();
        let refused = match resolve(parts, app).await {
            Ok(found) => return Ok(found),
            Err(refused) => refused,
        };
        if let Some(seconds) = refused.flooded {
            app.metrics.auth_refusals.inc(Refusal::LimitedIp);
            return Err(too_many(&parts.headers, seconds));
        }
        tokio::time::sleep_until(started + app.credentials.failure_floor()).await;
        Err(match refused.why {
            Refused::Invalid => {
                app.metrics.auth_refusals.inc(Refusal::Refused);
                unauthorized(app, parts)
            }
            Refused::Suspended { .. } => {
                app.metrics.auth_refusals.inc(Refusal::Suspended);
                let text = "this tenant is suspended; ask the operator of this gateway to resume it";
                refusal(&parts.headers, &RpcError::new(code::SUSPENDED, 403, text))
            }
            Refused::Unavailable => refusal(&parts.headers, &RpcError::unavailable()),
        })
    }
}

struct NotIn {
    why: Refused,
    flooded: Option<u32>,
}

impl From<Refused> for NotIn {
    fn from(why: Refused) -> Self {
        Self { why, flooded: None }
    }
}

/// Finds the credential and the caller behind it. Whoever comes with none that is known in memory counts towards the
/// limit of its address before anything is looked up.
async fn resolve(parts: &Parts, app: &App) -> Result<Authenticated, NotIn> {
    let header = bearer(parts);
    let query = query_token(parts.uri.query().unwrap_or(""));
    // More than one way of sending a credential is none (RFC 6750 section 2).
    let (token, place) = match (&header, &query) {
        (Ok(Some(token)), Ok(None)) => (*token, Place::Header),
        (Ok(None), Ok(Some(token))) => (token.as_ref(), Place::Query),
        _ => ("", Place::Header),
    };
    let ip = parts.extensions.get::<ClientIp>().copied();
    let stranger = || match ip.map(|ip| app.flood.check(ip)) {
        Some(Err(seconds)) => Err(NotIn { why: Refused::Invalid, flooded: Some(seconds) }),
        _ => Ok(()),
    };
    let caller = match app.credentials.known(token, place) {
        Some(known) => {
            app.metrics.credential_hits.inc();
            known?
        }
        None => {
            stranger()?;
            app.metrics.credential_misses.inc();
            app.credentials.resolve(token, place).await?
        }
    };
    let credential = app.credentials.reference(token, &caller);
    tracing::Span::current().record("tenant", tracing::field::display(caller.tenant()));
    Ok(Authenticated { caller, credential })
}

/// Who sent the credential of a request that needs none: `None` where it brings none, `Some(None)` where what it brings
/// is not good.
pub(super) async fn beside(parts: &Parts, app: &App) -> Option<Option<Caller>> {
    let query = query_token(parts.uri.query().unwrap_or(""));
    if matches!((bearer(parts), query), (Ok(None), Ok(None))) {
        return None;
    }
    Some(resolve(parts, app).await.ok().map(|found| found.caller))
}

/// 401 with a JSON-RPC body. `WWW-Authenticate` points to the resource metadata where issuers are configured (RFC 9728
/// section 5.1), and is a bare challenge otherwise (RFC 9110 section 11.6.1 asks for one).
fn unauthorized(app: &App, parts: &Parts) -> Response {
    let text =
        "no valid credential; send `Authorization: Bearer <API key>`, or `?token=<URL token>` in the URL";
    let mut response = refusal(&parts.headers, &RpcError::new(code::UNAUTHENTICATED, 401, text));
    let challenge = if app.config.auth.issuers.is_empty() {
        Ok(HeaderValue::from_static("Bearer"))
    } else {
        let base = app.config.public_url();
        let path = super::metadata::resource_path(parts.uri.path());
        HeaderValue::from_str(&format!(
            "Bearer resource_metadata=\"{base}/.well-known/oauth-protected-resource{path}\""
        ))
    };
    if let Ok(value) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

pub(super) fn too_many(headers: &HeaderMap, seconds: u32) -> Response {
    let text =
        format!("too many requests without a valid credential from this address; try again in {seconds} s");
    let mut response = refusal(headers, &RpcError::new(code::LIMITED, 429, text));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Somebody who may buy for a tenant: the holder of an API key with the scope `billing`, in the header. Also where the tenant's
/// account is suspended for an invoice: it is here that it is paid.
pub struct Buyer {
    /// For whom.
    pub tenant: TenantId,
    /// As whom.
    pub actor: Actor,
}

impl FromRequestParts<Arc<App>> for Buyer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let started = tokio::time::Instant::now();
        let found = match resolve(parts, app).await {
            Ok(found) => found,
            Err(NotIn { flooded: Some(seconds), .. }) => {
                app.metrics.auth_refusals.inc(Refusal::LimitedIp);
                return Err(Problem::too_many(seconds));
            }
            Err(NotIn { why, .. }) => {
                tokio::time::sleep_until(started + app.credentials.failure_floor()).await;
                return Err(not_in(app, &why));
            }
        };
        let Credential::ApiKey(key) = found.caller.principal().credential else {
            return Err(may_not("buying takes an API key, wk_..., with the scope billing"));
        };
        if !found.caller.scopes().billing {
            return Err(may_not(
                "this key may not buy; the operator makes one that may: `weir key create --billing`, or `\"billing\": true` in scopes",
            ));
        }
        let asked = Asked::default();
        app.limits.admit(&found.caller, asked).await.map_err(|limited| {
            Problem::too_many(u32::try_from(limited.retry_after.as_secs()).unwrap_or(u32::MAX).max(1))
        })?;
        Ok(Self { tenant: found.caller.tenant(), actor: Actor::Customer(key) })
    }
}

fn may_not(text: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", text)
}

fn not_in(app: &App, why: &Refused) -> Problem {
    match why {
        Refused::Invalid => {
            app.metrics.auth_refusals.inc(Refusal::Refused);
            let text = "no valid credential; send `Authorization: Bearer <API key>`";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", text)
        }
        Refused::Suspended { .. } => {
            app.metrics.auth_refusals.inc(Refusal::Suspended);
            may_not("this tenant is suspended; ask the operator of this gateway to resume it")
        }
        Refused::Unavailable => Problem::unavailable("credentials cannot be checked now; try again"),
    }
}

/// The operator behind an admin request.
pub struct Operator(pub Actor);

impl FromRequestParts<Arc<App>> for Operator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let started = tokio::time::Instant::now();
        let token = bearer(parts).ok().flatten().unwrap_or("");
        match operator_keys::verify(&app.db, &app.clock, token).await {
            Ok(Some(id)) => Ok(Self(Actor::Operator(id))),
            Ok(None) => {
                if let Some(ip) = parts.extensions.get::<ClientIp>()
                    && let Err(seconds) = app.flood.check(*ip)
                {
                    app.metrics.auth_refusals.inc(Refusal::LimitedIp);
                    return Err(Problem::too_many(seconds).into_response());
                }
                app.metrics.auth_refusals.inc(Refusal::Refused);
                tokio::time::sleep_until(started + app.credentials.failure_floor()).await;
                let text = "no valid operator key; send `Authorization: Bearer wo_...`";
                Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", text).into_response())
            }
            Err(error) => Err(Problem::from(error).into_response()),
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_tokens_are_found_once_and_decoded() {
        assert_eq!(query_token("a=b&token=wu_x"), Ok(Some("wu_x".into())));
        assert_eq!(query_token("token=wu%5Fx"), Ok(Some("wu_x".into())));
        assert_eq!(query_token("tokens=1"), Ok(None));
        assert_eq!(query_token("token=1&token=2"), Err(()));
        assert_eq!(query_token("token=%ff"), Err(()));
    }
}
