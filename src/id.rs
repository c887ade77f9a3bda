//! Identifiers: a UUIDv7 behind a type and a prefix, such as `tn_01k9...`.
//!
//! The prefix says what the thing is, in a log line as well as in an API answer; the type keeps a tenant id
//! from standing where a key id is meant. The text form is the prefix, `_`, and 26 lower-case Crockford
//! base32 digits, which sort as the ids were made.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::clock::Timestamp;

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 26;

/// The text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id: expected `{0}_` and 26 base32 digits")]
pub struct InvalidId(pub &'static str);

fn encode(id: Uuid, out: &mut [u8; TEXT_LEN]) {
    let mut rest = id.as_u128();
    for slot in out.iter_mut().rev() {
        *slot = DIGITS[(rest & 31) as usize];
        rest >>= 5;
    }
}

fn decode(text: &str) -> Option<Uuid> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let mut value: u128 = 0;
    for (place, byte) in text.bytes().enumerate() {
        let digit = DIGITS.iter().position(|d| *d == byte)? as u128;
        if place == 0 && digit > 7 {
            return None;
        }
        value = (value << 5) | digit;
    }
    Some(Uuid::from_u128(value))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// What stands before the `_` in the text form.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; ids made later sort later.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "every call makes a different id")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// What no id is: it comes before every id that was made at this instant or later, and after all that were made
            /// before it, to the millisecond (RFC 9562 section 5.7).
            #[must_use]
            pub fn lowest_at(at: Timestamp) -> Self {
                Self(Uuid::from_u128(u128::from(u64::try_from(at.as_micros() / 1000).unwrap_or(0)) << 80))
            }

            /// The id as bytes.
            #[must_use]
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// The id of these bytes.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; TEXT_LEN];
                encode(self.0, &mut text);
                f.write_str(concat!($prefix, "_"))?;
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix(concat!($prefix, "_")).and_then(decode).map(Self).ok_or(InvalidId($prefix))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl<DB: sqlx::Database> sqlx::Type<DB> for $name where String: sqlx::Type<DB> {
            fn type_info() -> DB::TypeInfo {
                <String as sqlx::Type<DB>>::type_info()
            }
            fn compatible(ty: &DB::TypeInfo) -> bool {
                <String as sqlx::Type<DB>>::compatible(ty)
            }
        }

        impl<'q, DB: sqlx::Database> sqlx::Encode<'q, DB> for $name where String: sqlx::Encode<'q, DB> {
            fn encode_by_ref(
                &self,
                buf: &mut <DB as sqlx::Database>::ArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                sqlx::Encode::<DB>::encode(self.to_string(), buf)
            }
        }

        impl<'r, DB: sqlx::Database> sqlx::Decode<'r, DB> for $name where String: sqlx::Decode<'r, DB> {
            fn decode(value: <DB as sqlx::Database>::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                Ok(<String as sqlx::Decode<'r, DB>>::decode(value)?.parse::<Self>()?)
            }
        }
    )+};
}

ids! {
    /// A tenant: a customer organisation of the operator.
    TenantId = "tn";
    /// An API key or URL token (never the secret itself).
    KeyId = "key";
    /// An operator key (never the secret itself).
    OperatorKeyId = "opk";
    /// An audit entry.
    AuditId = "aud";
    /// One logical tool call.
    CallId = "call";
    /// A session's row in the history (not the session's secret id on the wire).
    SessionRowId = "ses";
    /// A question to a client that waits for its answer.
    QuestionId = "ask";
    /// One HTTP request, echoed as `X-Request-Id` and quoted in errors.
    RequestUid = "req";
    /// One run of one process of this deployment.
    ReplicaId = "rep";
    /// Prices of a plan from a moment on.
    PriceVersionId = "prv";
    /// A period of a tenant's account.
    PeriodId = "per";
    /// Credits that a tenant was given.
    GrantId = "grt";
    /// One process, as far as it settles calls.
    MeterId = "mtr";
    /// Credits that one meter holds to spend.
    SlabId = "slb";
    /// Something that was set right in the ledger.
    CorrectionId = "cor";
    /// Something that somebody should know about an account.
    AccountEventId = "evt";
    /// Credits that were told to the billing provider in one event.
    ExportId = "exp";
    /// Credits that a tenant wants to buy.
    TopUpId = "top";
}

impl ReplicaId {
    /// A number that stands for the replica where the id would be too long; below 2³¹, and never 0.
    #[must_use]
    pub fn number(self) -> u32 {
        let random = self.0.as_u128() & 0x7fff_ffff;
        u32::try_from(random).unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_sorts() {
        let first = TenantId::new();
        let second = TenantId::new();
        assert_eq!(first.to_string().parse::<TenantId>(), Ok(first));
        assert!(first.to_string() <= second.to_string());
    }

    #[test]
    fn the_lowest_of_an_instant_parts_earlier_from_later() {
        let call = CallId::new();
        let (seconds, nanos) = call.0.get_timestamp().expect("a time").to_unix();
        let micros = i64::try_from(seconds).expect("a time") * 1_000_000 + i64::from(nanos / 1000);
        let lowest = |later| CallId::lowest_at(Timestamp::from_micros(micros + later));
        assert!(lowest(0) < call && call < lowest(1000));
        assert!(lowest(0).to_string() < call.to_string() && call.to_string() < lowest(1000).to_string());
    }

    #[test]
    fn other_kinds_and_overlong_values_are_refused() {
        assert!(KeyId::new().to_string().parse::<TenantId>().is_err());
        assert!("tn_8zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<TenantId>().is_err());
        assert!("tn_".parse::<TenantId>().is_err());
    }
}
