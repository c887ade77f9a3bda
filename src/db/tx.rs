//! A transaction: what is changed and the audit entry about it become visible together, or not at all.

use sqlx::{Postgres, Sqlite, Transaction};

use super::held::Held;
use super::{Db, Pools};
use crate::error::Result;

/// An open transaction. Dropped without [`Tx::commit`], it is rolled back.
pub struct Tx {
    db: Db,
    engine: Engine,
}

pub(super) enum Engine {
    Sqlite(Transaction<'static, Sqlite>),
    /// Not sqlx's transaction, which hands its connection back in a way that has no time limit. Rolled back by closing the
    /// connection.
    Postgres(Held<Postgres>),
}

impl Db {
    /// Begins a transaction that will write.
    ///
    /// Do not use the database otherwise before its end: on SQLite it holds the one connection that writes.
    ///
    /// # Errors
    /// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
    pub async fn begin(&self) -> Result<Tx> {
        let engine = match self.pools() {
            // Takes the write lock at once; a transaction that begins as a reader may be refused half-way.
            Pools::Sqlite { write, .. } => {
                Engine::Sqlite(self.guarded(write.pool().begin_with("BEGIN IMMEDIATE")).await?)
            }
            Pools::Postgres(server) => {
                let begun = self.guarded(Box::pin(async {
                    let mut held = server.acquire().await?;
                    sqlx::raw_sql("begin").execute(&mut *held).await?;
                    Ok(held)
                }));
                Engine::Postgres(begun.await?)
            }
        };
        Ok(Tx { db: self.clone(), engine })
    }

    /// Begins a transaction that only reads, and sees the database as it is at its first query, whatever happens meanwhile.
    ///
    /// # Errors
    /// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
    pub(crate) async fn begin_reading(&self) -> Result<Tx> {
        let engine = match self.pools() {
            // A reader of the WAL keeps to the state that it found.
            Pools::Sqlite { read, .. } => {
                Engine::Sqlite(self.guarded(read.pool().begin_with("BEGIN DEFERRED")).await?)
            }
            Pools::Postgres(server) => {
                let begun = self.guarded(Box::pin(async {
                    let mut held = server.acquire().await?;
                    sqlx::raw_sql("begin isolation level repeatable read read only")
                        .execute(&mut *held)
                        .await?;
                    Ok(held)
                }));
                Engine::Postgres(begun.await?)
            }
        };
        Ok(Tx { db: self.clone(), engine })
    }
}

impl Tx {
    /// Makes the changes durable and visible.
    ///
    /// # Errors
    /// [`Error::Database`](crate::error::Error::Database); what then became of the changes is not known.
    /// [`Error::Away`](crate::error::Error::Away), where nothing was changed.
    pub async fn commit(self) -> Result<()> {
        match self.engine {
            Engine::Sqlite(open) => self.db.guarded(open.commit()).await,
            Engine::Postgres(mut held) => {
                let committed = Box::pin(async {
                    sqlx::raw_sql("commit").execute(&mut *held).await?;
                    held.finished();
                    Ok(())
                });
                self.db.guarded(committed).await
            }
        }
    }

    pub(super) fn parts(&mut self) -> (&Db, &mut Engine) {
        (&self.db, &mut self.engine)
    }
}
