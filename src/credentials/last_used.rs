//! When keys were last used: noted in memory, written now and then, never in a request's way.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::db::Db;
use crate::db::api_keys::{self, Use};
use crate::error::Result;
use crate::id::KeyId;

/// Keys noted between two writes; further ones are dropped, for the time of a last use is worth no memory.
const MAX_NOTED: usize = 10_000;

/// Keys written in one statement.
const BATCH: usize = 1000;

/// The notes that are not written yet.
#[derive(Default)]
pub(super) struct LastUsed(Mutex<HashMap<KeyId, Timestamp>>);

impl LastUsed {
    /// Notes that a key was used.
    pub(super) fn note(&self, key: KeyId, at: Timestamp) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < MAX_NOTED || notes.contains_key(&key) {
            notes.insert(key, at);
        }
    }

    /// Writes the notes. What cannot be written is lost.
    pub(super) async fn flush(&self, db: &Db) -> Result<()> {
        let notes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let uses: Vec<Use> = notes.into_iter().map(|(id, at)| Use { id, at: at.as_micros() }).collect();
        for batch in uses.chunks(BATCH) {
            api_keys::record_uses(db, batch).await?;
        }
        Ok(())
    }
}
