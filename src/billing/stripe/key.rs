//! Idempotency keys. <https://docs.stripe.com/api/idempotent_requests>

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;

/// What makes a POST one and the same for Stripe, however often it is sent: the answer to the first one with a key is kept for at
/// least 24 hours, be it an error of Stripe's own, and given again. Reads need none, and get none.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    /// A new one, which all attempts of this operation share.
    Fresh,
    /// This one, at most 255 characters: whoever does the same with the same key gets the same answer.
    Named(&'a str),
    /// A new one for each attempt. Only for what names itself, as meter events do by their `identifier`: a stored error would be
    /// given again otherwise.
    PerAttempt,
}

/// The same 64 characters for the same parts, in the same order.
pub(in crate::billing) fn digest(parts: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    HEXLOWER.encode(context.finish().as_ref())
}
