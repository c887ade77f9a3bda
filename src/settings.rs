//! Deployment-wide values that make themselves: the same for every replica, for as long as the database lives.

use data_encoding::HEXLOWER;

use crate::db::{self, Db};
use crate::error::{Error, Result};

const SECRET: &str = "deployment_secret";

/// The secret that all replicas of this deployment share, for sealing session ids and cursors. Made at the first
/// call, by whichever replica comes first.
///
/// # Errors
/// [`Error::Database`]; [`Error::Internal`] where the stored value was damaged.
pub async fn deployment_secret(db: &Db) -> Result<[u8; 32]> {
    let stored = match db::settings::get(db, SECRET).await? {
        Some(stored) => stored,
        None => {
            let mut fresh = [0; 32];
            aws_lc_rs::rand::fill(&mut fresh)
                .map_err(|_| Error::Internal("the system gave no randomness".to_owned()))?;
            db::settings::get_or_insert(db, SECRET, &HEXLOWER.encode(&fresh)).await?
        }
    };
    HEXLOWER
        .decode(stored.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Error::Internal(format!("settings.{SECRET} is not 64 hexadecimal digits")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::on_every_engine;

    #[tokio::test]
    async fn all_replicas_get_the_same_secret() {
        on_every_engine(async |db| {
            let (a, b, c) =
                tokio::join!(deployment_secret(&db), deployment_secret(&db), deployment_secret(&db));
            let a = a.expect("a secret");
            assert_eq!((a, a), (b.expect("a secret"), c.expect("a secret")));
            assert_ne!(a, [0; 32]);
        })
        .await;
    }
}
