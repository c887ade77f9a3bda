//! Corrections of the ledger: rows and SQL. The database refuses to change or delete one.

use super::{Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{CorrectionId, GrantId};

use super::periods::Period;

/// Notes that a grant pays for credits that a period owed.
pub(crate) async fn true_up(
    tx: &mut Tx,
    period: &Period,
    grant: GrantId,
    credits: Credits,
    at: Timestamp,
) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into corrections (id, tenant_id, period_id, kind, grant_id, booked, credits, at, detail)
             values ($1, $2, $3, 'true_up', $4, 'source', $5, $6, '')"
        )
        .bind(CorrectionId::new())
        .bind(period.tenant_id)
        .bind(period.id)
        .bind(grant)
        .bind(credits)
        .bind(at)
        .execute(conn)
    ))
    .map(|_| ())
}
