//! The text of a credential that Weir issues.
//!
//! A token is a prefix (`wk_`, `wu_`, `wo_`), 52 digits of lower-case Crockford base32, each drawn at random (260
//! bits), and 7 digits of checksum: CRC-32 over all that stands before. The prefix is for secret scanners and for
//! people; the checksum refuses a typo, a cut-off paste or a foreign string without a look-up. It is no secret
//! and proves nothing.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Result};

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const PREFIX_LEN: usize = 3;
const BODY_LEN: usize = 52;
const CHECK_LEN: usize = 7;

/// Length of every token, in bytes, all of them ASCII.
pub const TOKEN_LEN: usize = PREFIX_LEN + BODY_LEN + CHECK_LEN;

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `wk_`: an API key of a tenant, for the `Authorization` header.
    ApiKey,
    /// `wu_`: a URL token of a tenant, which may stand in `?token=`, too.
    UrlToken,
    /// `wo_`: an operator key, for the admin API.
    Operator,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "wk_",
            Self::UrlToken => "wu_",
            Self::Operator => "wo_",
        }
    }
}

/// A token that was just made. It prints as `[REDACTED]`; [`Secret::expose`] is the one way to its text.
pub struct Secret(SecretString);

impl Secret {
    /// A new token.
    ///
    /// # Errors
    /// [`Error::Internal`] where the system gives no randomness.
    pub fn generate(kind: Kind) -> Result<Self> {
        let mut random = [0; BODY_LEN];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| Error::Internal("the system gave no randomness".to_owned()))?;
        let mut text = String::with_capacity(TOKEN_LEN);
        text.push_str(kind.prefix());
        // 32 digits divide 256 values evenly, so no digit is likelier than another.
        text.extend(random.iter().map(|byte| char::from(DIGITS[usize::from(byte & 31)])));
        let check = checksum(text.as_bytes());
        text.extend(check.iter().map(|digit| char::from(*digit)));
        Ok(Self(text.into()))
    }

    /// The token itself, to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash(self.expose())
    }

    /// The last four characters, which belong to the checksum and tell one key from another in a list.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.expose()[TOKEN_LEN - 4..]
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// The kind of a well-formed token; `None` for every other text.
#[must_use]
pub fn kind_of(token: &str) -> Option<Kind> {
    let bytes: &[u8; TOKEN_LEN] = token.as_bytes().try_into().ok()?;
    let (signed, check) = bytes.split_at(PREFIX_LEN + BODY_LEN);
    let (prefix, body) = signed.split_at(PREFIX_LEN);
    let kind = match prefix {
        b"wk_" => Kind::ApiKey,
        b"wu_" => Kind::UrlToken,
        b"wo_" => Kind::Operator,
        _ => return None,
    };
    let good = body.iter().all(|byte| DIGITS.contains(byte)) && check == checksum(signed);
    good.then_some(kind)
}

/// SHA-256 of the token: what is stored, and the key of every cache.
///
/// A slow, salted hash protects what people choose. A token has 260 random bits: it cannot be guessed from its
/// hash at any speed, and two tokens do not share one, so a plain hash suffices and can be looked up by index.
#[must_use]
pub fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

fn checksum(signed: &[u8]) -> [u8; CHECK_LEN] {
    let mut rest = crc32fast::hash(signed);
    let mut digits = [0; CHECK_LEN];
    for slot in digits.iter_mut().rev() {
        *slot = DIGITS[(rest & 31) as usize];
        rest >>= 5;
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::ApiKey), Just(Kind::UrlToken), Just(Kind::Operator)]
    }

    proptest! {
        #![proptest_config(crate::fuzz::config(256))]

        #[test]
        fn every_token_is_recognised(kind in any_kind()) {
            let secret = Secret::generate(kind).expect("a secret");
            prop_assert_eq!(secret.expose().len(), TOKEN_LEN);
            prop_assert_eq!(kind_of(secret.expose()), Some(kind));
            prop_assert!(secret.expose().ends_with(secret.hint()));
        }

        #[test]
        fn a_wrong_character_is_noticed(kind in any_kind(), place in 0..TOKEN_LEN, wrong in any::<char>()) {
            let secret = Secret::generate(kind).expect("a secret");
            let mut typo: Vec<char> = secret.expose().chars().collect();
            prop_assume!(typo[place] != wrong);
            typo[place] = wrong;
            prop_assert_eq!(kind_of(&typo.into_iter().collect::<String>()), None);
        }

        #[test]
        fn swapped_neighbours_are_noticed(kind in any_kind(), place in 0..TOKEN_LEN - 1) {
            let secret = Secret::generate(kind).expect("a secret");
            let mut typo = secret.expose().as_bytes().to_vec();
            prop_assume!(typo[place] != typo[place + 1]);
            typo.swap(place, place + 1);
            prop_assert_eq!(kind_of(std::str::from_utf8(&typo).expect("ASCII")), None);
        }

        #[test]
        fn a_cut_or_longer_text_is_refused(keep in 0..TOKEN_LEN, tail in ".{1,10}") {
            let secret = Secret::generate(Kind::ApiKey).expect("a secret");
            prop_assert_eq!(kind_of(&secret.expose()[..keep]), None);
            let longer = format!("{}{tail}", secret.expose());
            prop_assert_eq!(kind_of(&longer), None);
        }

        #[test]
        fn other_texts_are_refused(text in ".*") {
            prop_assert_eq!(kind_of(&text), None);
        }
    }

    #[test]
    fn two_secrets_differ_and_do_not_print() {
        let (a, b) = (Secret::generate(Kind::ApiKey), Secret::generate(Kind::ApiKey));
        let (a, b) = (a.expect("a secret"), b.expect("a secret"));
        assert_ne!(a.hash(), b.hash());
        assert_eq!(format!("{a:?}"), "[REDACTED]");
    }

    #[test]
    fn the_format_stays() {
        // Issued tokens live for years: a change of the format must not go unnoticed.
        let body = "wk_0123456789abcdefghjkmnpqrstvwxyz0123456789abcdefghjk";
        let token = format!("{body}{}", std::str::from_utf8(&checksum(body.as_bytes())).expect("ASCII"));
        assert_eq!(kind_of(&token), Some(Kind::ApiKey));
        insta::assert_snapshot!(token, @"wk_0123456789abcdefghjkmnpqrstvwxyz0123456789abcdefghjk1vfq364");
    }
}
