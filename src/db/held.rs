//! A connection of a pool while somebody uses it.

use std::ops::{Deref, DerefMut};

use sqlx::Database;
use sqlx::pool::PoolConnection;

/// A connection that goes back to its pool when it is dropped. Where what was done on it did not come to its end, and it
/// was taken with [`fragile`](Self::fragile), it is closed instead: to hand it back, sqlx would wait for that end.
pub(crate) struct Held<DB: Database> {
    connection: PoolConnection<DB>,
    closes: bool,
}

impl<DB: Database> Held<DB> {
    /// One that is closed when it is dropped before it is [finished](Self::finished) with.
    pub(super) fn fragile(connection: PoolConnection<DB>) -> Self {
        Self { connection, closes: true }
    }

    /// One that always goes back. For SQLite, whose one writing connection has to stay.
    pub(super) fn robust(connection: PoolConnection<DB>) -> Self {
        Self { connection, closes: false }
    }

    /// What was done on it has ended.
    pub(crate) fn finished(&mut self) {
        self.closes = false;
    }
}

impl<DB: Database> Deref for Held<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.connection
    }
}

impl<DB: Database> DerefMut for Held<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }
}

impl<DB: Database> Drop for Held<DB> {
    fn drop(&mut self) {
        if self.closes {
            self.connection.close_on_drop();
        }
    }
}
