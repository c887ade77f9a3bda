//! Idempotency keys: the answer to the first request with a key is the answer to all of them
//! (docs.stripe.com/api/idempotent_requests).

use http::StatusCode;

use super::answer::Answer;
use super::refusal::Refusal;
use super::world::World;
use crate::clock::Timestamp;

/// How long a key is remembered, by the stand-in's clock. STANDIN-IDEM-2
const KEPT_FOR: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// Keys at once.
const MOST_KEYS: usize = 500_000;
/// The longest key.
const LONGEST: usize = 255;

/// A key in use.
pub struct Kept {
    at: Timestamp,
    path: String,
    params: String,
    /// None while the first request runs.
    answer: Option<Answer>,
}

/// Takes the key for a request, or finds the answer that was given for it.
///
/// # Errors
/// 400 where the key was used for another request, 409 where the first one still runs.
pub fn claim(world: &mut World, key: &str, path: &str, params: &str) -> Result<Option<Answer>, Refusal> {
    let refuse = |status, code, message: String| Err(Refusal::idempotency(status, code, message));
    if key.len() > LONGEST {
        return refuse(
            StatusCode::BAD_REQUEST,
            None,
            format!("Idempotency keys have at most {LONGEST} characters."),
        );
    }
    let now = world.time();
    if world.kept.len() >= MOST_KEYS {
        world.kept.retain(|_, kept| now < kept.at.plus(KEPT_FOR));
    }
    if let Some(kept) = world.kept.get(key).filter(|kept| now < kept.at.plus(KEPT_FOR)) {
        if kept.path != path {
            let message = format!(
                "Keys for idempotent requests can only be used for the same endpoint they were first used for \
                 ('{path}' vs '{}'). Try using a key other than '{key}' if you meant to execute a different request.",
                kept.path
            );
            return refuse(StatusCode::BAD_REQUEST, None, message);
        }
        if kept.params != params {
            let message = format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. \
                 Try using a key other than '{key}' if you meant to execute a different request."
            );
            return refuse(StatusCode::BAD_REQUEST, None, message);
        }
        let Some(answer) = &kept.answer else {
            let message =
                format!("There is currently another in-progress request using this Idempotent Key: {key}");
            return refuse(StatusCode::CONFLICT, Some("idempotency_key_in_use"), message); // STANDIN-IDEM-3
        };
        return Ok(Some(answer.replayed()));
    }
    let kept = Kept { at: now, path: path.to_owned(), params: params.to_owned(), answer: None };
    world.kept.insert(key.to_owned(), kept);
    Ok(None)
}

/// Keeps the answer for the key, or gives the key free where the endpoint had not begun. STANDIN-IDEM-1
pub fn settle(world: &mut World, key: &str, answer: &Answer, begun: bool) {
    if !begun {
        world.kept.remove(key);
    } else if let Some(kept) = world.kept.get_mut(key) {
        kept.answer = Some(answer.clone());
    }
}
