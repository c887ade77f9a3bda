//! A transaction: what is changed and the audit entry about it become visible together, or not at all.

use std::time::Duration;

use sqlx::{Postgres, Sqlite, Transaction};

use super::{Db, Pools, bounded};
use crate::error::Result;

/// An open transaction. Dropped without [`Tx::commit`], it is rolled back.
pub struct Tx {
    engine: Engine,
    limit: Duration,
}

pub(super) enum Engine {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Db {
    /// Begins a transaction that will write.
    ///
    /// Do not use the database otherwise before its end: on SQLite it holds the one connection that writes.
    ///
    /// # Errors
    /// [`Error::Database`](crate::error::Error::Database).
    pub async fn begin(&self) -> Result<Tx> {
        let limit = self.limit();
        let engine = match self.pools() {
            // Takes the write lock at once; a transaction that begins as a reader may be refused half-way.
            Pools::Sqlite { write, .. } => {
                Engine::Sqlite(bounded(limit, write.begin_with("BEGIN IMMEDIATE")).await?)
            }
            Pools::Postgres(pool) => Engine::Postgres(bounded(limit, pool.begin()).await?),
        };
        Ok(Tx { engine, limit })
    }
}

impl Tx {
    /// Makes the changes durable and visible.
    ///
    /// # Errors
    /// [`Error::Database`](crate::error::Error::Database); what then became of the changes is not known.
    pub async fn commit(self) -> Result<()> {
        match self.engine {
            Engine::Sqlite(open) => bounded(self.limit, open.commit()).await,
            Engine::Postgres(open) => bounded(self.limit, open.commit()).await,
        }
    }

    pub(super) fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }
}
