//! Ids with Stripe's prefixes. Never the same in two runs, so that what Weir keeps from one run names nothing in the next;
//! always the same for the same seed, so that a test can be told again.

use aws_lc_rs::hmac;

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Makes ids, one after the other.
pub struct Ids {
    key: hmac::Key,
    made: u64,
}

impl Ids {
    /// A series of ids that depends on the seed only.
    pub fn new(seed: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, seed), made: 0 }
    }

    /// The next id, such as `cus_Jd2vnUSK2qbJzE`.
    pub fn next(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}_{}", self.letters(&self.made.to_be_bytes(), 16))
    }

    /// A secret that a webhook endpoint signs with.
    pub fn secret(&mut self) -> String {
        self.made += 1;
        format!("whsec_{}", self.letters(&self.made.to_be_bytes(), 32))
    }

    /// The id of something that is not kept, always the same for the same thing.
    pub fn of(&self, prefix: &str, thing: &str) -> String {
        format!("{prefix}_{}", self.letters(thing.as_bytes(), 24))
    }

    fn letters(&self, of: &[u8], count: usize) -> String {
        let tag = hmac::sign(&self.key, of);
        tag.as_ref()
            .iter()
            .take(count)
            .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
            .collect()
    }
}
