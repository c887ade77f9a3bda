//! One query, two engines: each macro expands the query once per pool, so that its SQL is written once.
//!
//! The futures are boxed: sqlx's are kilobytes large, and every caller would carry them on its stack.

/// Runs a query that only reads: `on_reader!(db, |conn| sqlx::query_as("...").fetch_all(conn))`.
macro_rules! on_reader {
    ($db:expr, |$conn:ident| $query:expr) => {{
        let db: &$crate::db::Db = $db;
        match db.pools() {
            $crate::db::Pools::Sqlite { read: pool, .. } => {
                on_pool!(db, pool, |$conn| $query)
            }
            $crate::db::Pools::Postgres(pool) => on_pool!(db, pool, |$conn| $query),
        }
    }};
}

/// Runs one statement that writes, in a transaction of its own.
macro_rules! on_writer {
    ($db:expr, |$conn:ident| $query:expr) => {{
        let db: &$crate::db::Db = $db;
        match db.pools() {
            $crate::db::Pools::Sqlite { write: pool, .. } => {
                on_pool!(db, pool, |$conn| $query)
            }
            $crate::db::Pools::Postgres(pool) => on_pool!(db, pool, |$conn| $query),
        }
    }};
}

/// Runs a query on a connection of one pool, within the time that a query may take.
macro_rules! on_pool {
    ($db:expr, $pool:expr, |$conn:ident| $query:expr) => {
        $db.guarded(Box::pin(async {
            let mut held = $pool.acquire().await?;
            let answer = {
                let $conn = &mut *held;
                $query.await
            };
            held.finished();
            answer
        }))
        .await
    };
}

/// Runs a query in an open transaction.
macro_rules! in_tx {
    ($tx:expr, |$conn:ident| $query:expr) => {{
        let tx: &mut $crate::db::Tx = $tx;
        let (db, engine) = tx.parts();
        match engine {
            $crate::db::tx::Engine::Sqlite(open) => {
                let $conn = &mut **open;
                db.guarded(Box::pin($query)).await
            }
            $crate::db::tx::Engine::Postgres(open) => {
                let $conn = &mut **open;
                db.guarded(Box::pin($query)).await
            }
        }
    }};
}
