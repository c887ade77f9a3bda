//! Who may ask: secret and restricted keys (docs.stripe.com/keys).

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};

use super::refusal::Refusal;

/// Keys that may be known at once.
const MOST_KEYS: usize = 1_000;

/// The keys of the account, each with what it may do; `None` is everything.
pub struct Keys(BTreeMap<String, Option<BTreeSet<String>>>);

impl Keys {
    /// One secret key.
    pub fn new(secret: &str) -> Self {
        Self(BTreeMap::from([(secret.to_owned(), None)]))
    }

    /// Makes a restricted key known, with permissions such as `customer_write`. False where there are too many.
    pub fn restrict(&mut self, key: &str, permissions: impl IntoIterator<Item = String>) -> bool {
        let fits = self.0.len() < MOST_KEYS;
        if fits {
            self.0.insert(key.to_owned(), Some(permissions.into_iter().collect()));
        }
        fits
    }

    /// The key that a request carries, as bearer or as the user of basic authentication.
    ///
    /// # Errors
    /// 401 without a key, or with one that nobody made.
    pub fn of(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let unauthorized = |message: String| Refusal::plain(StatusCode::UNAUTHORIZED, message);
        let Some(key) = headers.get(AUTHORIZATION).and_then(|value| key_in(value.to_str().ok()?)) else {
            let message = "You did not provide an API key. Provide it in the Authorization header, as a bearer \
                           token or as the user of basic authentication.";
            return Err(unauthorized(message.to_owned()));
        };
        if self.0.contains_key(&key) {
            return Ok(key);
        }
        Err(unauthorized(format!("Invalid API Key provided: {}", masked(&key))))
    }

    /// Whether the key may do this with the resource: what may write may read.
    ///
    /// # Errors
    /// 403 that names the permission.
    pub fn permit(&self, key: &str, method: &Method, resource: &str) -> Result<(), Refusal> {
        let Some(Some(permissions)) = self.0.get(key) else { return Ok(()) };
        let (read, write) = (format!("{resource}_read"), format!("{resource}_write"));
        let is_read = method == Method::GET;
        if permissions.contains(&write) || (is_read && permissions.contains(&read)) {
            return Ok(());
        }
        // STANDIN-KEY-2
        let message = format!(
            "The provided key '{}' does not have the required permissions for this endpoint on account \
             'acct_standin'. Having the 'rak_{}' permission would allow this request to continue.",
            masked(key),
            if is_read { read } else { write },
        );
        Err(Refusal::plain(StatusCode::FORBIDDEN, message))
    }
}

fn key_in(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let plain =
        BASE64.decode(rest.trim().as_bytes()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let plain = String::from_utf8(plain).ok()?;
    Some(plain.split_once(':').map_or(plain.as_str(), |(user, _)| user).to_owned())
}

/// The key as it may stand in a message.
fn masked(key: &str) -> String {
    let letters: Vec<_> = key.chars().collect();
    let end: String = letters[letters.len().saturating_sub(4)..].iter().collect();
    let start: String = letters.iter().take(8).collect();
    if letters.len() < 16 { "***".to_owned() } else { format!("{start}***{end}") }
}
