//! Exports: what periods owe and the provider of invoices was told; customers, and canaries. Rows and SQL. What is to be done
//! about an export is in [`crate::billing::export`].

use sqlx::FromRow;

use super::{Db, Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{ExportId, PeriodId, TenantId};

/// Slots that are looked through for a free one.
pub(crate) const SLOTS: usize = 1024;

text_enum! {
    /// How far an export is.
    pub enum ExportState {
        /// Its event is to be sent, or sent again.
        Open = "open",
        /// Its event was accepted, or is not sent again for other reasons; what became of it is to be read back.
        Sent = "sent",
        /// The provider counts what it was told.
        Verified = "verified",
        /// The provider counts something else, and that is how it stays.
        Frozen = "frozen",
    }
}

/// Credits that a period owes, and how far the provider was told of them.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Export {
    /// Its id, of which the event's identifier is made.
    pub id: ExportId,
    /// Whose credits they are.
    pub tenant_id: TenantId,
    /// In which they are owed.
    pub period_id: PeriodId,
    /// The beginning of the event's minute. No other export of the tenant has it.
    pub slot: Timestamp,
    /// How many; negative: so many were told too much.
    pub credits: Credits,
    /// How often the event was made anew, from 1.
    pub generation: i64,
    /// How far it is.
    pub state: ExportState,
    /// When this generation's event was first sent.
    pub first_sent_at: Option<Timestamp>,
    /// When an event of it was last sent.
    pub last_sent_at: Option<Timestamp>,
    /// What the provider counts, once that is known.
    pub counted: Option<Credits>,
    /// When something is to be done about it.
    pub due_at: Timestamp,
    /// How often that was tried since it last went on.
    pub tries: i64,
    /// What went wrong last.
    pub note: String,
    /// Counts its changes.
    pub revision: i64,
    /// When the period ends that its slot is in.
    pub slot_ends_at: Option<Timestamp>,
}

/// A period that owes something else than was told.
#[derive(Debug, Clone, Copy, FromRow)]
pub(crate) struct Missing {
    pub(crate) id: PeriodId,
    pub(crate) starts_at: Timestamp,
    pub(crate) ends_at: Timestamp,
    /// So much is still to be told; negative: so much was told too much.
    pub(crate) missing: Credits,
}

/// Makes a customer of a tenant. `false`: it has one.
pub(crate) async fn insert_customer(
    db: &Db,
    tenant: TenantId,
    customer: &str,
    now: Timestamp,
) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "insert into billing_customers (tenant_id, customer, created_at) values ($1, $2, $3)
             on conflict (tenant_id) do nothing"
        )
        .bind(tenant)
        .bind(customer)
        .bind(now)
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// Tenants that owe something in a period that ends after `since`, and have no customer; in order, after this one. Those that are
/// deleted never get one.
pub(crate) async fn without_customer(
    db: &Db,
    since: Timestamp,
    after: Option<TenantId>,
    limit: i64,
) -> Result<Vec<TenantId>> {
    on_reader!(db, |conn| sqlx::query_scalar(
        "select distinct p.tenant_id from periods p join tenants t on t.id = p.tenant_id
         where t.status <> 'deleted' and p.ends_at > $1 and p.overage_used > 0 and p.tenant_id > $2
               and not exists (select 1 from billing_customers c where c.tenant_id = p.tenant_id)
         order by p.tenant_id
         limit $3"
    )
    .bind(since)
    .bind(after.map(|after| after.to_string()).unwrap_or_default())
    .bind(limit)
    .fetch_all(conn))
}

/// Whoever is billed for a tenant.
pub(crate) async fn customer(db: &Db, tenant: TenantId) -> Result<Option<String>> {
    on_reader!(db, |conn| sqlx::query_scalar("select customer from billing_customers where tenant_id = $1")
        .bind(tenant)
        .fetch_optional(conn))
}

/// Tenants with something to be told, or to be done about an export, after this one, in order.
pub(crate) async fn due(
    db: &Db,
    (since, now): (Timestamp, Timestamp),
    after: Option<TenantId>,
    limit: i64,
) -> Result<Vec<TenantId>> {
    on_reader!(db, |conn| {
        sqlx::query_scalar(
        "select c.tenant_id from billing_customers c
         where c.tenant_id > $3
               and (exists (select 1 from exports e
                            where e.tenant_id = c.tenant_id and e.state in ('open', 'sent') and e.due_at <= $2)
                    or exists (select 1 from period_books b
                               where b.tenant_id = c.tenant_id and b.ends_at > $1 and b.owed <> b.told))
         order by c.tenant_id
         limit $4"
    )
    .bind(since)
    .bind(now)
    .bind(after.map(|after| after.to_string()).unwrap_or_default())
    .bind(limit)
    .fetch_all(conn)
    })
}

/// Claims a tenant for this process until then; its customer. Nothing, where another process has it.
pub(crate) async fn claim(
    db: &Db,
    tenant: TenantId,
    holder: &str,
    (now, until): (Timestamp, Timestamp),
) -> Result<Option<String>> {
    on_writer!(db, |conn| sqlx::query_scalar(
        "update billing_customers set claimed_by = $2, claimed_until = $4
         where tenant_id = $1 and (claimed_until <= $3 or claimed_by = $2)
         returning customer"
    )
    .bind(tenant)
    .bind(holder)
    .bind(now)
    .bind(until)
    .fetch_optional(conn))
}

/// Lets go of a tenant.
pub(crate) async fn release(db: &Db, tenant: TenantId, holder: &str) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "update billing_customers set claimed_by = null, claimed_until = 0
             where tenant_id = $1 and claimed_by = $2"
        )
        .bind(tenant)
        .bind(holder)
        .execute(conn)
    ))
    .map(|_| ())
}

/// The periods of a tenant that end after `since` and owe something else than was told, oldest first.
pub(crate) async fn missing(tx: &mut Tx, tenant: TenantId, since: Timestamp) -> Result<Vec<Missing>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, starts_at, ends_at, owed - told as missing
         from period_books
         where tenant_id = $1 and ends_at > $2 and owed <> told
         order by starts_at"
    )
    .bind(tenant)
    .bind(since)
    .fetch_all(conn))
}

/// The slots of a tenant before this instant, newest first.
pub(crate) async fn slots(tx: &mut Tx, tenant: TenantId, before: Timestamp) -> Result<Vec<Timestamp>> {
    in_tx!(tx, |conn| {
        sqlx::query_scalar(
            "select slot from exports where tenant_id = $1 and slot < $2 order by slot desc limit $3",
        )
        .bind(tenant)
        .bind(before)
        .bind(SLOTS as i64)
        .fetch_all(conn)
    })
}

/// Adds an export that nobody was told of yet.
pub(crate) async fn insert(tx: &mut Tx, export: &Export, now: Timestamp) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into exports (id, tenant_id, period_id, slot, credits, state, due_at, created_at)
             values ($1, $2, $3, $4, $5, $6, $7, $7)"
        )
        .bind(export.id)
        .bind(export.tenant_id)
        .bind(export.period_id)
        .bind(export.slot)
        .bind(export.credits)
        .bind(export.state)
        .bind(now)
        .execute(conn)
    ))
    .map(|_| ())
}

/// What is to be done about a tenant's exports by now, oldest slot first.
pub(crate) async fn of_tenant(db: &Db, tenant: TenantId, now: Timestamp, limit: i64) -> Result<Vec<Export>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select id, tenant_id, period_id, slot, credits, generation, state, first_sent_at, last_sent_at, counted,
                due_at, tries, note, revision,
                (select p.ends_at from periods p
                 where p.tenant_id = exports.tenant_id and p.starts_at <= exports.slot and p.ends_at > exports.slot)
                as slot_ends_at
         from exports
         where tenant_id = $1 and state in ('open', 'sent') and due_at <= $2
         order by slot
         limit $3"
    )
    .bind(tenant)
    .bind(now)
    .bind(limit)
    .fetch_all(conn)
    })
}

/// Writes down how far an export is, unless somebody else did since it was read.
pub(crate) async fn update(db: &Db, export: &mut Export) -> Result<bool> {
    let changed = on_writer!(db, |conn| {
        done(
        sqlx::query(
            "update exports set generation = $3, state = $4, first_sent_at = $5, last_sent_at = $6, counted = $7,
                                due_at = $8, tries = $9, note = $10, revision = revision + 1
             where id = $1 and revision = $2"
        )
        .bind(export.id)
        .bind(export.revision)
        .bind(export.generation)
        .bind(export.state)
        .bind(export.first_sent_at)
        .bind(export.last_sent_at)
        .bind(export.counted)
        .bind(export.due_at)
        .bind(export.tries)
        .bind(export.note.as_str())
        .execute(conn)
    )
    })? > 0;
    export.revision += i64::from(changed);
    Ok(changed)
}

/// A minute in which an event is sent to the account of our own; the newest that is not used. `false`: it is.
pub(crate) async fn insert_canary(db: &Db, slot: Timestamp) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query("insert into canaries (slot) values ($1) on conflict (slot) do nothing")
            .bind(slot)
            .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// A canary was accepted.
pub(crate) async fn canary_accepted(db: &Db, slot: Timestamp, at: Timestamp) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query("update canaries set accepted_at = $2 where slot = $1 and accepted_at is null")
            .bind(slot)
            .bind(at)
            .execute(conn)
    ))
    .map(|_| ())
}

/// A canary is counted.
pub(crate) async fn canary_seen(db: &Db, slot: Timestamp, at: Timestamp) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query("update canaries set seen_at = $2 where slot = $1 and seen_at is null")
            .bind(slot)
            .bind(at)
            .execute(conn)
    ))
    .map(|_| ())
}

/// When the newest canary was accepted that is counted.
pub(crate) async fn newest_seen_canary(db: &Db) -> Result<Option<Timestamp>> {
    on_reader!(db, |conn| sqlx::query_scalar(
        "select accepted_at from canaries where seen_at is not null and accepted_at is not null
         order by accepted_at desc limit 1"
    )
    .fetch_optional(conn))
}

/// Canaries that were accepted and are not counted yet, and are newer than all that are; oldest first, because those are counted
/// first.
pub(crate) async fn waiting_canaries(db: &Db, limit: i64) -> Result<Vec<Timestamp>> {
    on_reader!(db, |conn| {
        sqlx::query_scalar(
            "select slot from canaries
         where seen_at is null and accepted_at is not null
               and slot > coalesce((select max(slot) from canaries where seen_at is not null), 0)
         order by slot
         limit $1",
        )
        .bind(limit)
        .fetch_all(conn)
    })
}

/// The newest canary.
pub(crate) async fn newest_canary(db: &Db) -> Result<Option<Timestamp>> {
    on_reader!(db, |conn| sqlx::query_scalar("select slot from canaries order by slot desc limit 1")
        .fetch_optional(conn))
}

/// Whether an export waits for proof that was last sent before this instant.
pub(crate) async fn is_proof_missing(db: &Db, before: Timestamp) -> Result<bool> {
    on_reader!(db, |conn| sqlx::query_scalar::<_, i64>(
        "select count(*) from (select 1 from exports
                               where state in ('open', 'sent') and last_sent_at < $1 limit 1) as one"
    )
    .bind(before)
    .fetch_one(conn))
    .map(|rows| rows > 0)
}
