//! The way to Stripe: one client, which knows how its API wants to be spoken to.
//!
//! Requests and objects are the types of the `async-stripe` crates; how they travel is decided here. One operation is one or
//! more attempts: each has a time limit, and between them it waits, longer each time, or as long as Stripe says. What is
//! known of an operation that failed stands in its [`StripeError`].
//!
//! Facts: <https://docs.stripe.com/api/errors>, <https://docs.stripe.com/error-low-level>,
//! <https://docs.stripe.com/api/idempotent_requests>, <https://docs.stripe.com/rate-limits>.

mod answer;
mod attempt;
mod error;
mod key;
mod operation;
#[cfg(test)]
mod tests;

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use miniserde::Deserialize;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use stripe_client::{CustomizedStripeRequest, RequestBuilder, RequestStrategy, StripeClient, StripeRequest};
use stripe_types::{AsCursorOpt, List, Object};
use uuid::Uuid;

use crate::clock::Clock;
use crate::config;
use crate::egress::{self, EgressError};
use crate::telemetry::billing::Billing as Metrics;

pub use error::{Fate, Said, StripeError, Trouble};
pub use key::Key;
pub(super) use key::digest;
pub use operation::Operation;

use attempt::{Attempt, Ready};

/// The version of the API that the types were made from; every request asks for it.
/// <https://docs.stripe.com/api/versioning>
pub const VERSION: stripe_shared::ApiVersion = stripe_shared::version::VERSION;

/// Most pages of a list that [`Stripe::all`] reads.
const MAX_PAGES: usize = 100;

/// How long to wait between the attempts of an operation.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Before the second attempt; doubles from there. Up to as much comes on top by chance.
    pub first: Duration,
    /// The longest wait without jitter; also where `Retry-After` asks for more.
    pub most: Duration,
    /// What chance begins with; another one for each operation, where there is none.
    pub seed: Option<u64>,
}

impl Pace {
    /// Half a second to half a minute.
    pub const USUAL: Self =
        Self { first: Duration::from_millis(500), most: Duration::from_secs(30), seed: None };

    fn waits(self) -> impl Iterator<Item = Duration> + Send {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.most)
            .without_max_times()
            .with_jitter();
        match self.seed {
            Some(seed) => backoff.with_jitter_seed(seed).build(),
            None => backoff.build(),
        }
    }
}

/// No client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// `billing.stripe_key` is empty.
    #[error("no Stripe is configured: billing.stripe_key is empty")]
    NotConfigured,
    /// There is no outgoing HTTPS.
    #[error(transparent)]
    Egress(#[from] EgressError),
}

/// A connection to one Stripe account. Make one and keep it: it holds the pool. Clones share it.
#[derive(Clone)]
pub struct Stripe {
    client: reqwest::Client,
    /// Where the API is, without a trailing slash and without `/v1`.
    url: String,
    key: SecretString,
    is_live: bool,
    attempts: u32,
    pace: Pace,
    clock: Clock,
    metrics: Metrics,
}

impl std::fmt::Debug for Stripe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stripe").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What is to be done.
struct Call<'a> {
    request: RequestBuilder,
    key: Key<'a>,
    attempts: u32,
    timeout: Option<Duration>,
    account: Option<String>,
}

impl Stripe {
    /// A client for the account of `billing.stripe_key`.
    ///
    /// # Errors
    /// [`ConnectError::NotConfigured`] without a key; [`ConnectError::Egress`] where the system has no certificate authorities.
    pub fn new(config: &config::Billing, clock: &Clock, metrics: &Metrics) -> Result<Self, ConnectError> {
        if !config.is_configured() {
            return Err(ConnectError::NotConfigured);
        }
        Ok(Self {
            client: egress::client(config.timeout.get())?,
            url: config.stripe_url.trim_end_matches('/').to_owned(),
            key: config.stripe_key.clone(),
            is_live: config.is_live(),
            attempts: config.attempts,
            pace: Pace::USUAL,
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    }

    /// The same with other waits between attempts.
    #[must_use]
    pub fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// The same with another number of attempts, for whoever tries again by itself.
    #[must_use]
    pub fn with_attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// Whether money is real: the key is one of live mode. <https://docs.stripe.com/keys>
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Does what `request` says and returns what Stripe made of it.
    ///
    /// # Errors
    /// [`StripeError`]; its `fate` says what is known.
    pub async fn send<R>(&self, request: &R, key: Key<'_>) -> Result<R::Output, StripeError>
    where
        R: StripeRequest,
        R::Output: Deserialize,
    {
        self.perform(self.call(request.build(), key), Ready::parsed).await
    }

    /// Reads; changes nothing at Stripe.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn read<R>(&self, request: &R) -> Result<R::Output, StripeError>
    where
        R: StripeRequest,
        R::Output: Deserialize,
    {
        self.send(request, Key::Fresh).await
    }

    /// All objects of a list, over its pages; at most 100 of them. `page` makes the request for what comes after an id.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn all<T, R>(&self, page: impl Fn(Option<&str>) -> R) -> Result<Vec<T>, StripeError>
    where
        T: Object,
        List<T>: Deserialize,
        R: StripeRequest<Output = List<T>>,
    {
        let mut found: Vec<T> = Vec::new();
        for _ in 0..MAX_PAGES {
            let after = found.last().and_then(|last| last.id().as_cursor_opt());
            let request = page(after);
            let list = self.read(&request).await?;
            found.extend(list.data);
            if !list.has_more {
                break;
            }
        }
        Ok(found)
    }

    /// Does what `request` says; for requests and answers that the crates have no types for.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn send_raw<T: Deserialize>(
        &self,
        request: RequestBuilder,
        key: Key<'_>,
    ) -> Result<T, StripeError> {
        self.perform(self.call(request, key), Ready::parsed).await
    }

    /// Reads what `request` asks for as a type of our own, which has only what is needed of it.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn read_json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, StripeError> {
        self.perform(self.call(request, Key::Fresh), Ready::parsed_json).await
    }

    fn call<'a>(&self, request: RequestBuilder, key: Key<'a>) -> Call<'a> {
        Call { request, key, attempts: self.attempts, timeout: None, account: None }
    }

    /// Tries, as often as it may, takes from the answer what is wanted, and keeps the books.
    async fn perform<T>(
        &self,
        call: Call<'_>,
        take: impl FnOnce(Ready) -> Result<T, StripeError>,
    ) -> Result<T, StripeError> {
        let operation = Operation::of(&call.request);
        let started = self.clock.monotonic_micros();
        let answer = self.attempts(&call, &operation).await;
        let elapsed = self.clock.elapsed_since(started);
        let request_id = answer.as_ref().ok().and_then(|ready| ready.request_id.clone()).unwrap_or_default();
        let result = answer.and_then(take);
        let outcome = result.as_ref().map_or_else(|error| error.fate.text(), |_| "ok");
        self.metrics.requests.with_label_values(&[operation.as_str(), outcome]).inc();
        self.metrics.duration.with_label_values(&[operation.as_str()]).observe(elapsed.as_secs_f64());
        let elapsed_ms = elapsed.as_millis();
        match &result {
            Ok(_) => tracing::debug!(%operation, request_id, elapsed_ms, "asked Stripe"),
            Err(error) => tracing::debug!(%error, elapsed_ms, "asked Stripe in vain"),
        }
        result
    }

    async fn attempts(&self, call: &Call<'_>, operation: &Operation) -> Result<Ready, StripeError> {
        let mut waits = self.pace.waits();
        let shared = Uuid::now_v7().to_string();
        let mut fate = Fate::Refused;
        let mut attempt = 1;
        loop {
            let fresh;
            let key = match call.key {
                Key::Fresh => &shared,
                Key::Named(key) => key,
                Key::PerAttempt => {
                    fresh = Uuid::now_v7().to_string();
                    &fresh
                }
            };
            let Attempt { result, retry, wait } = self.attempt(call, operation, key).await;
            let mut error = match result {
                Ok(ready) => return Ok(Ready { attempts: attempt, ..ready }),
                Err(error) => error,
            };
            fate = fate.max(error.fate);
            error.fate = fate;
            error.attempts = attempt;
            if !retry || attempt >= call.attempts {
                return Err(error);
            }
            let pause =
                waits.next().unwrap_or(self.pace.most).max(wait.unwrap_or_default().min(self.pace.most));
            tracing::info!(%error, attempt, pause_ms = pause.as_millis(), "asking Stripe again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}

/// For what the crates do with a client by themselves. [`RequestStrategy::Once`] is one attempt, an idempotent one has its key;
/// everything else is as often as configured, with a key of its own.
impl StripeClient for Stripe {
    type Err = StripeError;

    async fn execute(&self, request: CustomizedStripeRequest) -> Result<Bytes, StripeError> {
        let (request, wanted) = request.into_pieces();
        let mut call = self.call(request, Key::Fresh);
        call.timeout = wanted.timeout;
        call.account = wanted.account_id.map(|account| account.as_str().to_owned());
        match &wanted.request_strategy {
            Some(RequestStrategy::Once) => call.attempts = 1,
            Some(RequestStrategy::Idempotent(key)) => call.key = Key::Named(key.as_str()),
            _ => {}
        }
        self.perform(call, |ready| Ok(ready.body)).await
    }
}
