//! Asking again, although no event says that anything happened: one may have been lost, and the sweep comes once a day.

use crate::billing::mirror::Subject;
use crate::clock::Clock;
use crate::db::Db;
use crate::db::stripe_events as rows;
use crate::error::Result;

/// Has an object asked for again as soon as somebody works on the inbox. There is one row in the inbox for each object that was ever
/// asked for again; where it waits, nothing changes.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
pub async fn ask_again(db: &Db, clock: &Clock, subject: &Subject, is_live: bool) -> Result<()> {
    let mode = if is_live { "live" } else { "test" };
    rows::ask(db, (subject.kind, &subject.id), mode, clock.now()).await
}
