//! Whether a webhook is Stripe's: `Stripe-Signature` over the raw body. <https://docs.stripe.com/webhooks#verify-manually>

use std::fmt;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use data_encoding::HEXLOWER;
use secrecy::{ExposeSecret, SecretString};

use crate::clock::Timestamp;

/// How far the time of a signature may be from now, in both directions.
pub const TOLERANCE: Duration = Duration::from_secs(300);
/// Signatures of one header that are looked at. Stripe sends one per secret that is in use.
const MOST: usize = 8;

/// Why a webhook is not taken for Stripe's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no signature, or it is not of the form `t=..,v1=..`.
    Malformed,
    /// None of the signatures was made with one of the secrets, or the body is another one.
    Wrong,
    /// It was right, but not at this time.
    Stale,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "there is no Stripe-Signature of the form t=..,v1=..",
            Self::Wrong => {
                "the signature does not fit the body; billing.webhook_secrets has to hold the signing secret of this \
                 endpoint"
            }
            Self::Stale => "the signature is of another time; the clocks may differ, or somebody sent it again",
        })
    }
}

/// Checks that one of `secrets` signed `body`, no longer than [`TOLERANCE`] from `now`.
///
/// # Errors
/// [`Refusal`].
pub fn verify(header: &str, body: &[u8], secrets: &[SecretString], now: Timestamp) -> Result<(), Refusal> {
    let (seconds, time, signatures) = parse(header).ok_or(Refusal::Malformed)?;
    let mut is_right = false;
    for secret in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(time.as_bytes());
        context.update(b".");
        context.update(body);
        let tag = context.sign();
        for signature in &signatures {
            is_right |= constant_time::verify_slices_are_equal(tag.as_ref(), signature).is_ok();
        }
    }
    if !is_right {
        return Err(Refusal::Wrong);
    }
    is_of_now(seconds, now)
}

/// Whether a header may be right, before there is a body: it has the form of one, and is of this time.
///
/// # Errors
/// [`Refusal`].
pub fn is_likely(header: &str, now: Timestamp) -> Result<(), Refusal> {
    let (seconds, ..) = parse(header).ok_or(Refusal::Malformed)?;
    is_of_now(seconds, now)
}

fn is_of_now(seconds: i64, now: Timestamp) -> Result<(), Refusal> {
    let tolerance = i64::try_from(TOLERANCE.as_secs()).unwrap_or(i64::MAX);
    match now.as_seconds().checked_sub(seconds) {
        Some(apart) if (-tolerance..=tolerance).contains(&apart) => Ok(()),
        _ => Err(Refusal::Stale),
    }
}

/// The time, also as it stands there, and the signatures of scheme `v1`. Other schemes are none of Stripe's in this mode.
fn parse(header: &str) -> Option<(i64, &str, Vec<Vec<u8>>)> {
    let (mut time, mut signatures) = (None, Vec::new());
    for part in header.split(',') {
        match part.trim().split_once('=')? {
            ("t", value) if time.is_none() && !value.is_empty() => {
                time = Some(value).filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
            }
            ("t", _) => return None,
            ("v1", value) if signatures.len() < MOST => {
                signatures.extend(HEXLOWER.decode(value.as_bytes()).ok());
            }
            _ => {}
        }
    }
    let time = time?;
    (!signatures.is_empty()).then_some((time.parse().ok()?, time, signatures))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::{config, damaged, damages};

    const NOW: i64 = 1_790_000_000;
    const SECRET: &str = "whsec_0123456789abcdef";

    fn sign(secret: &str, time: &str, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, &[time.as_bytes(), b".", body].concat());
        HEXLOWER.encode(tag.as_ref())
    }

    fn check(header: &str, body: &[u8], secrets: &[&str]) -> Result<(), Refusal> {
        let secrets: Vec<SecretString> = secrets.iter().map(|&secret| secret.into()).collect();
        verify(header, body, &secrets, Timestamp::from_micros(NOW * 1_000_000 + 999_999))
    }

    #[test]
    fn a_signature_of_any_known_secret_will_do() {
        let (old, new) = (sign("whsec_old", "1790000000", b"{}"), sign("whsec_new", "1790000000", b"{}"));
        for header in [
            format!("t=1790000000,v1={old}"),
            format!("t=1790000000,v1={new}"),
            format!("t=1790000000,v1={old},v1={new}"),
            format!("t=1790000000, v1={new}, v0=abc"),
            format!("v0=zz,v1=00,v1=nonsense,v1={new},t=1790000000"),
        ] {
            assert_eq!(check(&header, b"{}", &["whsec_old", "whsec_new"]), Ok(()), "{header}");
            assert_eq!(check(&header, b"{} ", &["whsec_old", "whsec_new"]), Err(Refusal::Wrong), "{header}");
            assert_eq!(check(&header, b"{}", &["whsec_other"]), Err(Refusal::Wrong), "{header}");
            assert_eq!(check(&header, b"{}", &[]), Err(Refusal::Wrong), "{header}");
        }
    }

    /// A vector of Stripe's scheme, computed with another implementation of HMAC-SHA256.
    #[test]
    fn the_scheme_is_the_one_of_others() {
        let header = "t=1790000000,v1=20558bba767b5242d7c20d0a504e86848aec306fb069625f7e88e646f251df6d";
        assert_eq!(check(header, b"{\"id\":\"evt_1\"}", &[SECRET]), Ok(()));
    }

    #[test]
    fn what_is_malformed_is_no_signature() {
        let good = sign(SECRET, "1790000000", b"{}");
        for header in [
            String::new(),
            "t=1790000000".to_owned(),
            format!("v1={good}"),
            format!("t=,v1={good}"),
            format!("t=-1790000000,v1={good}"),
            format!("t=+1790000000,v1={good}"),
            format!("t=1790000000x,v1={good}"),
            format!("t=1790000000,t=1790000000,v1={good}"),
            format!("t=99999999999999999999,v1={good}"),
            format!("t=1790000000;v1={good}"),
            format!("t=1790000000,v0={good}"),
            format!("t=1790000000,v1={}", good.to_uppercase()),
            format!("t=1790000000,v1={good},"),
        ] {
            assert_eq!(check(&header, b"{}", &[SECRET]), Err(Refusal::Malformed), "{header}");
        }
        // Later ones than Stripe would send are not looked at.
        let many = format!("t=1790000000{},v1={good}", ",v1=00".repeat(MOST));
        assert_eq!(check(&many, b"{}", &[SECRET]), Err(Refusal::Wrong));
    }

    #[test]
    fn time_counts_in_both_directions() {
        for (time, expected) in [
            (NOW - 301, Err(Refusal::Stale)),
            (NOW - 300, Ok(())),
            (NOW + 300, Ok(())),
            (NOW + 301, Err(Refusal::Stale)),
            (0, Err(Refusal::Stale)),
            (i64::MAX, Err(Refusal::Stale)),
        ] {
            let header = format!("t={time},v1={}", sign(SECRET, &time.to_string(), b"{}"));
            assert_eq!(check(&header, b"{}", &[SECRET]), expected, "{time}");
        }
    }

    proptest! {
        #![proptest_config(config(512))]

        /// Whatever is changed in a body, or a header, it is refused; and nothing panics.
        #[test]
        fn fuzz_no_damage_is_overlooked(body_damage in damages(3), header_damage in damages(3)) {
            let body = br#"{"id":"evt_1","object":"event","type":"invoice.paid"}"#;
            let header = format!("t=1790000000,v1={}", sign(SECRET, "1790000000", body));
            let changed = damaged(body, &body_damage);
            prop_assert_eq!(check(&header, &changed, &[SECRET]).is_ok(), changed == body);
            let other = String::from_utf8_lossy(&damaged(header.as_bytes(), &header_damage)).into_owned();
            if check(&other, body, &[SECRET]).is_ok() {
                let (_, time, _) = parse(&other).expect("parsed");
                prop_assert_eq!(time, "1790000000");
            }
        }
    }
}
