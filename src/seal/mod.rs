//! Opaque values that go out and come back: list cursors and `requestState`; and answers that are kept in the database.
//!
//! Both are attacker-controlled when they return, so they are sealed with AES-256-GCM under keys derived from the
//! deployment's secret, and bound to whoever they were made for by the associated data. Every replica of a
//! deployment has the same secret, so any of them can open what another sealed.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use data_encoding::BASE64URL_NOPAD;

use crate::error::{Error, Result};
use crate::id::{SessionRowId, TenantId};

/// What a sealed value is for; a value sealed for one purpose does not open for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `nextCursor` of a list.
    Cursor,
    /// `requestState` of a multi-round call.
    State,
    /// The answer of a call that may come again; at rest in the database.
    Answer,
}

/// Seals and opens.
pub struct Sealer {
    cursor: LessSafeKey,
    state: LessSafeKey,
    answer: LessSafeKey,
    session: hmac::Key,
}

impl Sealer {
    /// Derives the keys from the deployment's secret (HMAC-SHA-256 with a label per purpose).
    ///
    /// # Errors
    /// Where the cryptographic library refuses the key, which it does not for 32 bytes.
    pub fn new(secret: &[u8; 32]) -> Result<Self> {
        let master = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = |label: &[u8]| {
            UnboundKey::new(&AES_256_GCM, hmac::sign(&master, label).as_ref())
                .map(LessSafeKey::new)
                .map_err(|_| Error::Internal("cannot derive a sealing key".to_owned()))
        };
        let session = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, b"weir session id 1").as_ref());
        Ok(Self {
            cursor: key(b"weir list cursor 1")?,
            state: key(b"weir request state 1")?,
            answer: key(b"weir kept answer 1")?,
            session,
        })
    }

    /// The id of a session on the wire: which session it is, and 256 bits that nobody else can make. Every replica makes
    /// the same, so that none has to keep it.
    #[must_use]
    pub fn session_id(&self, tenant: TenantId, row: SessionRowId) -> String {
        let mut bytes = [0; 64];
        bytes[..16].copy_from_slice(&tenant.to_bytes());
        bytes[16..32].copy_from_slice(&row.to_bytes());
        let tag = hmac::sign(&self.session, &bytes[..32]);
        bytes[32..].copy_from_slice(tag.as_ref());
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// The session that a text from the wire names, if this deployment made it. Compared in constant time.
    #[must_use]
    pub fn session_of(&self, text: &str) -> Option<(TenantId, SessionRowId)> {
        let bytes: [u8; 64] = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()?;
        hmac::verify(&self.session, &bytes[..32], &bytes[32..]).ok()?;
        let part = |at: usize| bytes[at..at + 16].try_into().ok();
        Some((TenantId::from_bytes(part(0)?), SessionRowId::from_bytes(part(16)?)))
    }

    fn key(&self, purpose: Purpose) -> &LessSafeKey {
        match purpose {
            Purpose::Cursor => &self.cursor,
            Purpose::State => &self.state,
            Purpose::Answer => &self.answer,
        }
    }

    /// Seals `plain` for whoever can name `bound` again; the text is URL-safe base64.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn seal(&self, purpose: Purpose, bound: &[u8], plain: &[u8]) -> Result<String> {
        let failed = |_| Error::Internal("cannot seal".to_owned());
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(failed)?;
        let mut sealed = plain.to_vec();
        self.key(purpose)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut sealed)
            .map_err(failed)?;
        let mut out = Vec::with_capacity(NONCE_LEN + sealed.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(BASE64URL_NOPAD.encode(&out))
    }

    /// What was sealed, if nobody touched it and `bound` is the same.
    #[must_use]
    pub fn open(&self, purpose: Purpose, bound: &[u8], text: &str) -> Option<Vec<u8>> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        self.key(purpose).open_in_place(nonce, Aad::from(bound), &mut sealed).ok().map(|plain| plain.to_vec())
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_for_the_same_purpose_and_binding_and_untouched() {
        let sealer = Sealer::new(&[7; 32]).expect("a sealer");
        let text = sealer.seal(Purpose::Cursor, b"tenant a", b"after this").expect("sealed");
        assert_eq!(sealer.open(Purpose::Cursor, b"tenant a", &text).as_deref(), Some(&b"after this"[..]));
        assert!(sealer.open(Purpose::Cursor, b"tenant b", &text).is_none());
        assert!(sealer.open(Purpose::State, b"tenant a", &text).is_none());
        assert!(Sealer::new(&[8; 32]).expect("a sealer").open(Purpose::Cursor, b"tenant a", &text).is_none());
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ascii");
            let opened = sealer.open(Purpose::Cursor, b"tenant a", &changed);
            assert!(changed == text || opened.is_none(), "byte {at}");
        }
        assert!(sealer.open(Purpose::Cursor, b"tenant a", "").is_none());
    }

    #[test]
    fn a_session_id_is_known_to_its_deployment_alone() {
        let sealer = Sealer::new(&[7; 32]).expect("a sealer");
        let (tenant, row) = (TenantId::new(), SessionRowId::new());
        let id = sealer.session_id(tenant, row);
        assert_eq!(sealer.session_of(&id), Some((tenant, row)));
        assert_eq!(Sealer::new(&[8; 32]).expect("a sealer").session_of(&id), None);
        for at in 0..id.len() {
            let mut bytes = id.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ascii");
            assert!(changed == id || sealer.session_of(&changed).is_none(), "byte {at}");
        }
        assert_eq!(sealer.session_of(""), None);
        assert_eq!(sealer.session_of(&format!("{id}A")), None);
    }
}
