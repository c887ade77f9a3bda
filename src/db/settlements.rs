//! Settlements: what makes calls part of the ledger. SQL.
//!
//! A batch is one transaction: rows of `calls`, what they use of their slabs, and the answers that are kept for calls with a
//! key. Only rows that were not there yet use something, so that a batch whose fate is unknown may be settled again; and
//! nothing is done in the name of a meter that was closed.

use std::borrow::Cow;

use serde::Serialize;

use super::calls::NewCall;
use super::idempotency::{self, KeyName};
use super::{Db, JsonText, Pools, Tx, done, usage_days};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::{Error, Result};
use crate::id::{CallId, CorrectionId, GrantId, MeterId, PeriodId, SlabId, TenantId};

/// A call on its way into the ledger; the names are those of the columns.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SettledCall {
    #[serde(flatten)]
    pub(crate) made: NewCall,
    pub(crate) credits: i64,
    pub(crate) included: i64,
    pub(crate) promotional: i64,
    pub(crate) prepaid: i64,
    pub(crate) overage: i64,
    /// From which slabs, as JSON; each slab once.
    pub(crate) draws: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

/// What is kept for whoever comes again with the key of a call.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Answer {
    pub(crate) tenant_id: TenantId,
    pub(crate) credential: String,
    pub(crate) key_hash: String,
    pub(crate) call: CallId,
    pub(crate) credits: i64,
    pub(crate) result: Option<String>,
}

/// One transaction's worth.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    /// Days before today on which calls of it began, each once and in order: their sums are no longer right.
    pub(crate) days: Vec<String>,
    pub(crate) calls: Vec<Cow<'a, SettledCall>>,
    pub(crate) answers: Vec<&'a Answer>,
    /// An earlier try may have done it.
    pub(crate) again: bool,
}

impl Batch<'_> {
    /// The calls as JSON, in one piece of memory.
    fn calls(&self) -> Result<String> {
        /// What a call takes, and some more.
        const CALL: usize = 640;
        let mut json = Vec::with_capacity(self.calls.len() * CALL);
        serde_json::to_writer(&mut json, &self.calls).map_err(|error| Error::Internal(error.to_string()))?;
        String::from_utf8(json).map_err(|error| Error::Internal(error.to_string()))
    }
}

/// Settles a batch in the name of a meter; the calls that are now in the ledger and were not before. None are, where the
/// meter is closed.
pub(crate) async fn settle(
    db: &Db,
    meter: MeterId,
    batch: &Batch<'_>,
    now: Timestamp,
) -> Result<Vec<CallId>> {
    match db.pools() {
        Pools::Sqlite { .. } => settle_sqlite(db, meter, batch, now).await,
        Pools::Postgres(_) => settle_postgres(db, meter, batch, now).await,
    }
}

/// What PostgreSQL does with a batch; how calls that are there already are met is up to the caller.
macro_rules! settle_postgres_sql {
    ($already:literal) => {
        concat!(
            "with meter as (
                 select id from meters where id = $1 and closed_at is null for share
             ), fresh as (
                 insert into calls (id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes,
                                    result_bytes, correlation_id, period_id, price_version_id, meter_id, settled_at,
                                    credits, included, promotional, prepaid, overage, draws, idempotency_key)
                 select r.id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes,
                        result_bytes, r.id, period_id, price_version_id, $1, $2,
                        credits, included, promotional, prepaid, overage, draws, idempotency_key
                 from json_to_recordset(cast($3 as json)) as r
                      (id text, tenant_id text, credential text, server text, tool text, outcome text,
                       started_at bigint, duration_us bigint, request_bytes bigint, result_bytes bigint,
                       period_id text, price_version_id text, credits bigint, included bigint,
                       promotional bigint, prepaid bigint, overage bigint, draws text, idempotency_key text)
                 where exists (select 1 from meter) ",
            $already,
            " returning id, draws
             ), drawn as (
                 select draw ->> 0 as slab, cast(sum(cast(draw ->> 1 as bigint)) as bigint) as credits
                 from fresh, json_array_elements(cast(fresh.draws as json)) as draw
                 group by 1
             ), booked as (
                 update slabs set used = slabs.used + locked.credits
                 from (select s.id, drawn.credits from drawn join slabs s on s.id = drawn.slab
                       order by s.id for no key update of s) as locked
                 where slabs.id = locked.id
             ), answered as (
                 update idempotency_keys as k set settled_at = $2, credits = a.credits, result = a.result
                 from json_to_recordset(cast($4 as json)) as a
                      (tenant_id text, credential text, key_hash text, call text, credits bigint, result text)
                      join fresh on fresh.id = a.call
                 where k.tenant_id = a.tenant_id and k.credential = a.credential and k.key_hash = a.key_hash
                       and k.call_id = a.call
             ), stale as (
                 insert into usage_stale (day) select json_array_elements_text(cast($5 as json))
                 on conflict (day) do update set day = excluded.day
             )
             select id from fresh"
        )
    };
}

/// One statement, so that a reply waits for one round trip. The meter's row is shared by all settlements in its name, and
/// whoever closes it waits for them.
async fn settle_postgres(db: &Db, meter: MeterId, batch: &Batch<'_>, now: Timestamp) -> Result<Vec<CallId>> {
    let Pools::Postgres(server) = db.pools() else { return Ok(Vec::new()) };
    let settling = server.settling();
    // Looking for a call before it is inserted costs as much as another index, and ids are new.
    let sql = if batch.again {
        settle_postgres_sql!("on conflict (id) do nothing")
    } else {
        settle_postgres_sql!("")
    };
    let calls = batch.calls()?;
    on_pool!(db, settling, |conn| {
        sqlx::query_scalar(sql)
            .bind(meter)
            .bind(now)
            .bind(calls)
            .bind(JsonText(&batch.answers))
            .bind(JsonText(&batch.days))
            .fetch_all(conn)
    })
}

/// One statement as well, where there is nothing but calls: a trigger, `calls_drawn`, books what they draw.
async fn settle_sqlite(db: &Db, meter: MeterId, batch: &Batch<'_>, now: Timestamp) -> Result<Vec<CallId>> {
    const CALLS: &str =
        "insert into calls (id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes,
                            result_bytes, correlation_id, period_id, price_version_id, meter_id, settled_at,
                            credits, included, promotional, prepaid, overage, draws, idempotency_key)
         select value ->> 'id', value ->> 'tenant_id', value ->> 'credential', value ->> 'server',
                value ->> 'tool', value ->> 'outcome', value ->> 'started_at', value ->> 'duration_us',
                value ->> 'request_bytes', value ->> 'result_bytes', value ->> 'id', value ->> 'period_id',
                value ->> 'price_version_id', $1, $2, value ->> 'credits', value ->> 'included',
                value ->> 'promotional', value ->> 'prepaid', value ->> 'overage', value ->> 'draws',
                value ->> 'idempotency_key'
         from jsonb_each($3)
         where exists (select 1 from meters where id = $1 and closed_at is null)
         on conflict (id) do nothing
         returning id";
    let Pools::Sqlite { write, .. } = db.pools() else { return Ok(Vec::new()) };
    let calls = batch.calls()?;
    if batch.answers.is_empty() && batch.days.is_empty() {
        return on_pool!(db, write, |conn| {
            sqlx::query_scalar(CALLS).bind(meter).bind(now).bind(calls).fetch_all(conn)
        });
    }
    let mut tx = db.begin().await?;
    let fresh: Vec<CallId> = in_tx!(&mut tx, |conn| {
        sqlx::query_scalar(CALLS).bind(meter).bind(now).bind(calls).fetch_all(conn)
    })?;
    let answers: Vec<_> = batch.answers.iter().filter(|answer| fresh.contains(&answer.call)).collect();
    if !answers.is_empty() {
        in_tx!(&mut tx, |conn| done(
            sqlx::query(
                "update idempotency_keys set settled_at = $2, credits = a.credits, result = a.result
                 from (select value ->> 'tenant_id' as tenant_id, value ->> 'credential' as credential,
                              value ->> 'key_hash' as key_hash, value ->> 'call' as call,
                              value ->> 'credits' as credits, value ->> 'result' as result
                       from jsonb_each($1)) as a
                 where idempotency_keys.tenant_id = a.tenant_id and idempotency_keys.credential = a.credential
                       and idempotency_keys.key_hash = a.key_hash and idempotency_keys.call_id = a.call"
            )
            .bind(JsonText(&answers))
            .bind(now)
            .execute(conn)
        ))?;
    }
    for day in &batch.days {
        usage_days::mark_stale(&mut tx, day).await?;
    }
    tx.commit().await?;
    Ok(fresh)
}

/// Which of these calls are in the ledger, and how they ended.
pub(crate) async fn there(db: &Db, calls: &[CallId]) -> Result<Vec<(CallId, String)>> {
    match db.pools() {
        Pools::Sqlite { read, .. } => on_pool!(db, read, |conn| {
            sqlx::query_as("select id, outcome from calls where id in (select value from json_each($1))")
                .bind(JsonText(calls))
                .fetch_all(conn)
        }),
        Pools::Postgres(pool) => on_pool!(db, pool, |conn| {
            sqlx::query_as("select id, outcome from calls where id in (select json_array_elements_text(cast($1 as json)))")
                .bind(JsonText(calls))
                .fetch_all(conn)
        }),
    }
}

/// A charge that is taken back.
#[derive(Debug, Clone)]
pub(crate) struct GiveBack {
    pub(crate) tenant: TenantId,
    pub(crate) period: PeriodId,
    pub(crate) call: CallId,
    /// In microseconds since 1970.
    pub(crate) started_at: i64,
    pub(crate) draws: Vec<(SlabId, Credits)>,
    /// The key that the call came with.
    pub(crate) key: Option<KeyName>,
}

/// Takes back what a call was charged, because its result was not released. Once, however often it is asked; not at
/// all, where the result was released to somebody who came again with the call's key.
///
/// The caller holds the account's row, and marks the day of the call as stale.
pub(crate) async fn give_back(tx: &mut Tx, what: &GiveBack, now: Timestamp) -> Result<()> {
    let there: i64 =
        in_tx!(tx, |conn| sqlx::query_scalar("select count(*) from corrections where call_id = $1")
            .bind(what.call)
            .fetch_one(conn))?;
    if there > 0 {
        return Ok(());
    }
    if let Some(key) = &what.key
        && !idempotency::take_back(tx, key, what.call).await?
    {
        return Ok(());
    }
    for (slab, credits) in &what.draws {
        take_from(tx, what, (*slab, *credits), now).await?;
    }
    Ok(())
}

/// Takes credits out of what a slab, or the source that it went back to, has used.
async fn take_from(
    tx: &mut Tx,
    what: &GiveBack,
    (slab, credits): (SlabId, Credits),
    now: Timestamp,
) -> Result<()> {
    let grant: Option<Option<GrantId>> =
        in_tx!(tx, |conn| sqlx::query_scalar("select grant_id from slabs where id = $1")
            .bind(slab)
            .fetch_optional(conn))?;
    let grant = grant.flatten();
    let open = in_tx!(tx, |conn| done(
        sqlx::query("update slabs set used = used - $2 where id = $1 and closed_at is null")
            .bind(slab)
            .bind(credits)
            .execute(conn)
    ))? > 0;
    if !open && unbook(tx, what.period, (grant, credits), now).await? == 0 {
        // What is owed for a closed period is final; what was too much comes back as a gift.
        return make_good(tx, what, (slab, credits), now).await;
    }
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into corrections (id, tenant_id, period_id, kind, call_id, slab_id, grant_id, booked, credits,
                                      at, detail)
             values ($1, $2, $3, 'not_released', $4, $5, $6, $7, $8, $9, '')"
        )
        .bind(CorrectionId::new())
        .bind(what.tenant)
        .bind(what.period)
        .bind(what.call)
        .bind(slab)
        .bind(grant)
        .bind(if open { "slab" } else { "source" })
        .bind(-credits)
        .bind(now)
        .execute(conn)
    ))
    .map(|_| ())
}

/// Reduces what a source has used; what comes back to a grant that has ended is lost with it. How many rows that changed.
async fn unbook(
    tx: &mut Tx,
    period: PeriodId,
    (grant, credits): (Option<GrantId>, Credits),
    now: Timestamp,
) -> Result<u64> {
    match grant {
        Some(grant) => in_tx!(tx, |conn| {
            done(
            sqlx::query(
                "update grants set used = used - $2,
                        voided = voided + case when voided_at is not null then $2 else 0 end,
                        expired = expired + case when voided_at is null and expires_at <= $3 then $2 else 0 end
                 where id = $1"
            )
            .bind(grant)
            .bind(credits)
            .bind(now)
            .execute(conn)
        )
        }),
        None => in_tx!(tx, |conn| done(
            sqlx::query(
                "update periods set overage_used = overage_used - $2 where id = $1 and closed_at is null"
            )
            .bind(period)
            .bind(credits)
            .execute(conn)
        )),
    }
}

/// Gives the tenant what it was charged too much.
async fn make_good(
    tx: &mut Tx,
    what: &GiveBack,
    (slab, credits): (SlabId, Credits),
    now: Timestamp,
) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into grants (id, tenant_id, kind, source, note, granted, granted_at)
             values ($1, $2, 'promotional', $3, 'charged for a result that was not released', $4, $5)
             on conflict (tenant_id, source) do nothing"
        )
        .bind(GrantId::new())
        .bind(what.tenant)
        .bind(format!("not_released:{}:{slab}", what.call))
        .bind(credits)
        .bind(now)
        .execute(conn)
    ))
    .map(|_| ())
}
