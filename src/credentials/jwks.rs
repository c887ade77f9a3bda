//! An issuer's public keys (RFC 7517), from a file or a URL, kept and read again when there is reason to.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use tokio::sync::Mutex;

use super::Refused;
use crate::clock::Clock;

/// Largest accepted key set, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// How long an issuer has to answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Age at which a set is read again.
const FRESH_MICROS: i64 = 600 * 1_000_000;

/// Age up to which a set is used while it cannot be read again.
const KEPT_MICROS: i64 = 24 * 3600 * 1_000_000;

/// Shortest time between two attempts to read: with a set in hand, and with none.
const SPACING_MICROS: i64 = 30 * 1_000_000;
const FIRST_SPACING_MICROS: i64 = 2 * 1_000_000;

/// Where the keys are.
pub(super) enum Source {
    File(PathBuf),
    Url(reqwest::Url),
}

/// The keys of one issuer.
pub(super) struct Jwks {
    source: Source,
    client: reqwest::Client,
    clock: Clock,
    held: RwLock<Option<Arc<Held>>>,
    /// When reading was last attempted, on the monotonic clock; locked while it is, so that one reads at a time.
    attempt: Mutex<Option<i64>>,
}

struct Held {
    keys: Vec<VerifyingKey>,
    read_at: i64,
}

/// A public key and what it may verify.
struct VerifyingKey {
    kid: String,
    algorithms: Vec<Algorithm>,
    key: Arc<DecodingKey>,
}

impl Jwks {
    /// Keys at a URL; they are fetched when first needed.
    pub(super) fn from_url(url: reqwest::Url, clock: &Clock, client: &reqwest::Client) -> Self {
        Self::new(Source::Url(url), None, clock, client)
    }

    /// Keys in a file, which is read here for the first time.
    pub(super) fn from_file(path: PathBuf, clock: &Clock, client: &reqwest::Client) -> Result<Self, String> {
        let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
        let held = Held { keys: parse(&bytes)?, read_at: clock.monotonic_micros() };
        Ok(Self::new(Source::File(path), Some(held), clock, client))
    }

    fn new(source: Source, held: Option<Held>, clock: &Clock, client: &reqwest::Client) -> Self {
        Self {
            source,
            client: client.clone(),
            clock: clock.clone(),
            held: RwLock::new(held.map(Arc::new)),
            attempt: Mutex::new(None),
        }
    }

    /// The key of this id, for this algorithm.
    ///
    /// # Errors
    /// [`Refused::Invalid`] where the issuer has none, [`Refused::Unavailable`] where its keys cannot be read.
    pub(super) async fn find(&self, kid: &str, algorithm: Algorithm) -> Result<Arc<DecodingKey>, Refused> {
        let before = self.usable();
        let known = before.as_ref().and_then(|held| held.find(kid, algorithm));
        match known {
            Some(key) if self.age(before.as_deref()) < FRESH_MICROS => return Ok(key),
            // Old, but good: one request reads the set again, the others go on.
            Some(key) => match self.attempt.try_lock() {
                Ok(mut last) => self.read_again(&mut last).await,
                Err(_) => return Ok(key),
            },
            None => {
                // Whoever waits longer than an attempt takes is not helped by another one.
                let waited = tokio::time::timeout(FETCH_TIMEOUT, self.attempt.lock()).await;
                let mut last = waited.map_err(|_| Refused::Unavailable)?;
                let after = self.usable().and_then(|held| held.find(kid, algorithm));
                match after {
                    Some(key) => return Ok(key),
                    None => self.read_again(&mut last).await,
                }
            }
        }
        let held = self.usable().ok_or(Refused::Unavailable)?;
        held.find(kid, algorithm).ok_or(Refused::Invalid)
    }

    /// The keys in hand, unless they are too old to be trusted.
    fn usable(&self) -> Option<Arc<Held>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner).clone();
        held.filter(|held| self.age(Some(held)) < KEPT_MICROS)
    }

    fn age(&self, held: Option<&Held>) -> i64 {
        held.map_or(i64::MAX, |held| self.clock.monotonic_micros().saturating_sub(held.read_at))
    }

    /// Reads the keys, unless that was attempted just now. A failure leaves what is in hand.
    async fn read_again(&self, last: &mut Option<i64>) {
        let now = self.clock.monotonic_micros();
        let spacing = if self.usable().is_some() { SPACING_MICROS } else { FIRST_SPACING_MICROS };
        if last.is_some_and(|last| now.saturating_sub(last) < spacing) {
            return;
        }
        let read = match tokio::time::timeout(FETCH_TIMEOUT, self.read()).await {
            Ok(read) => read.and_then(|bytes| parse(&bytes)),
            Err(_) => Err(format!("no answer within {} s", FETCH_TIMEOUT.as_secs())),
        };
        // Counted from the end: those who waited meanwhile must not each try in turn.
        *last = Some(self.clock.monotonic_micros());
        match read {
            Ok(keys) => {
                let held = Some(Arc::new(Held { keys, read_at: now }));
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
            }
            Err(reason) => {
                tracing::warn!(source = %self.source, reason, "the keys of a JWT issuer could not be read");
            }
        }
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        let url = match &self.source {
            Source::File(path) => return tokio::fs::read(path).await.map_err(|error| error.to_string()),
            Source::Url(url) => url.clone(),
        };
        let plain = |error: reqwest::Error| error.without_url().to_string();
        let mut answer = self.client.get(url).send().await.map_err(plain)?;
        if !answer.status().is_success() {
            return Err(format!("HTTP status {}", answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(plain)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(format!("more than {MAX_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl Held {
    fn find(&self, kid: &str, algorithm: Algorithm) -> Option<Arc<DecodingKey>> {
        let fits = |key: &&VerifyingKey| key.kid == kid && key.algorithms.contains(&algorithm);
        self.keys.iter().find(fits).map(|key| key.key.clone())
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            // Without a query, which could hold a secret.
            Self::Url(url) => write!(f, "{}{}", url.origin().ascii_serialization(), url.path()),
        }
    }
}

/// The usable keys of a set. One that this build cannot use must not take the others with it.
fn parse(bytes: &[u8]) -> Result<Vec<VerifyingKey>, String> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    if bytes.len() > MAX_BYTES {
        return Err(format!("more than {MAX_BYTES} bytes"));
    }
    let set: Set = serde_json::from_slice(bytes)
        .map_err(|error| format!("not a JSON Web Key Set, an object with `keys`: {error}"))?;
    Ok(set.keys.into_iter().filter_map(|key| verifying_key(&serde_json::from_value(key).ok()?)).collect())
}

/// The key, if it has an id and is meant to verify signatures (RFC 7517, sections 4.2 to 4.5).
fn verifying_key(jwk: &Jwk) -> Option<VerifyingKey> {
    let kid = jwk.common.key_id.clone()?;
    let for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature);
    let operations = jwk.common.key_operations.as_ref();
    let may_verify = operations.is_none_or(|list| list.contains(&KeyOperations::Verify));
    if !for_signatures || !may_verify {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        // Symmetric keys above all: a published secret is none.
        _ => return None,
    };
    if let Some(only) = jwk.common.key_algorithm {
        let only = Algorithm::try_from(only).ok()?;
        algorithms.retain(|algorithm| *algorithm == only);
    }
    let key = Arc::new(DecodingKey::from_jwk(jwk).ok()?);
    (!algorithms.is_empty()).then_some(VerifyingKey { kid, algorithms, key })
}
