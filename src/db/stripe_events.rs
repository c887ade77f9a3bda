//! The inbox of Stripe's events, who asks about which object, and the sweep: rows and SQL. What is done about an event is in
//! [`crate::billing::inbox`].

use sqlx::FromRow;

use super::{Db, Tx, done};
use crate::clock::Timestamp;
use crate::error::Result;

text_enum! {
    /// What an event is about, as far as that makes a difference.
    pub enum ObjectKind {
        /// A subscription.
        Subscription = "subscription",
        /// An invoice.
        Invoice = "invoice",
        /// A Checkout session.
        Checkout = "checkout",
        /// A charge.
        Charge = "charge",
        /// A customer.
        Customer = "customer",
        /// A meter, of which Stripe says that it could not count something.
        Meter = "meter",
        /// Something else.
        Other = "other",
    }
}

text_enum! {
    /// How far an event is.
    pub enum EventState {
        /// To be worked on.
        New = "new",
        /// What it is about was asked for, and the mirror says so.
        Done = "done",
        /// It is about nothing of ours.
        Ignored = "ignored",
        /// It was tried too often; somebody has to look.
        Failed = "failed",
    }
}

text_enum! {
    /// How an event came.
    pub enum Via {
        /// By webhook.
        Hook = "hook",
        /// The sweep found it.
        Sweep = "sweep",
    }
}

/// An event, without its body.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct EventRow {
    /// `evt_...`.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// `test` or `live`.
    pub mode: String,
    /// How it came.
    pub via: Via,
    /// What it is about.
    pub object_kind: ObjectKind,
    /// The id of that.
    pub object_id: String,
    /// When it happened, as Stripe says.
    pub created_at: Timestamp,
    /// When it came.
    pub received_at: Timestamp,
    /// How far it is.
    pub state: EventState,
    /// How often it was tried in vain.
    pub tries: i64,
    /// When it is due.
    pub due_at: Timestamp,
    /// What went wrong last, or why it was ignored.
    pub note: String,
}

/// Stores an event with its body. `false`: it is there already.
pub(crate) async fn insert(db: &Db, event: &EventRow, body: &[u8]) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "insert into stripe_events (id, kind, mode, via, object_kind, object_id, created_at, received_at, body,
                                        state, due_at, note)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             on conflict (id) do nothing"
        )
        .bind(event.id.as_str())
        .bind(event.kind.as_str())
        .bind(event.mode.as_str())
        .bind(event.via)
        .bind(event.object_kind)
        .bind(event.object_id.as_str())
        .bind(event.created_at)
        .bind(event.received_at)
        .bind(body)
        .bind(event.state)
        .bind(event.due_at)
        .bind(event.note.as_str())
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// Objects with events that are due, and that nobody is asking about; the longest due first.
pub(crate) async fn due(db: &Db, now: Timestamp, limit: i64) -> Result<Vec<(ObjectKind, String)>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select e.object_kind, e.object_id from stripe_events e
         where e.state = 'new' and e.due_at <= $1
               and not exists (select 1 from stripe_objects o where o.id = e.object_id and o.claimed_until > $1)
         group by e.object_kind, e.object_id
         order by min(e.due_at), e.object_id
         limit $2"
    )
    .bind(now)
    .bind(limit)
    .fetch_all(conn)
    })
}

/// Claims an object for this process until then; the number of the claim. Nothing, where another one has it.
pub(crate) async fn claim(
    db: &Db,
    id: &str,
    holder: &str,
    (now, until): (Timestamp, Timestamp),
) -> Result<Option<i64>> {
    on_writer!(db, |conn| {
        sqlx::query_scalar(
            "insert into stripe_objects (id, claims, claimed_by, claimed_until, claimed_at)
             values ($1, 1, $2, $4, $3)
             on conflict (id) do update
                 set claims = stripe_objects.claims + 1, claimed_by = $2, claimed_until = $4, claimed_at = $3
                 where stripe_objects.claimed_until <= $3
             returning claims",
        )
        .bind(id)
        .bind(holder)
        .bind(now)
        .bind(until)
        .fetch_optional(conn)
    })
}

/// Takes the events of an object that are waiting now under this claim; the most that one of them was tried, and how many there are.
/// What comes later waits for the next claim.
pub(crate) async fn take(db: &Db, id: &str, claim: i64) -> Result<Vec<i64>> {
    on_writer!(db, |conn| sqlx::query_scalar(
        "update stripe_events set claim = $2 where object_id = $1 and state = 'new' returning tries"
    )
    .bind(id)
    .bind(claim)
    .fetch_all(conn))
}

/// Holds the object's row to the end of the transaction. `false`: the claim is no longer the newest, and what was found
/// under it is of the past.
pub(crate) async fn hold(tx: &mut Tx, id: &str, holder: &str, claim: i64) -> Result<bool> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "update stripe_objects set claims = claims where id = $1 and claimed_by = $2 and claims = $3"
        )
        .bind(id)
        .bind(holder)
        .bind(claim)
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// Lets go of an object.
pub(crate) async fn release(tx: &mut Tx, id: &str, holder: &str, claim: i64) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "update stripe_objects set claimed_until = 0 where id = $1 and claimed_by = $2 and claims = $3"
        )
        .bind(id)
        .bind(holder)
        .bind(claim)
        .execute(conn)
    ))
    .map(|_| ())
}

/// What became of the events that were taken under a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) state: EventState,
    /// Whether this was a try in vain.
    pub(crate) in_vain: bool,
    /// When the next one is due, where there is one.
    pub(crate) due_at: Timestamp,
    pub(crate) note: String,
}

/// Writes it down; how many events they were.
pub(crate) async fn finish(tx: &mut Tx, id: &str, claim: i64, outcome: &Outcome) -> Result<u64> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "update stripe_events set state = $3, tries = tries + $4, due_at = $5, note = $6
             where object_id = $1 and claim = $2 and state = 'new'"
        )
        .bind(id)
        .bind(claim)
        .bind(outcome.state)
        .bind(i64::from(outcome.in_vain))
        .bind(outcome.due_at)
        .bind(outcome.note.as_str())
        .execute(conn)
    ))
}

/// When the oldest event came that waits, and how many failed.
pub(crate) async fn backlog(db: &Db) -> Result<(Option<Timestamp>, i64)> {
    on_reader!(db, |conn| sqlx::query_as(
        "select (select min(received_at) from stripe_events where state = 'new'),
                (select count(*) from stripe_events where state = 'failed')"
    )
    .fetch_one(conn))
}

/// The newest events, or of the failed ones, newest first.
pub(crate) async fn list(db: &Db, state: Option<EventState>, limit: i64) -> Result<Vec<EventRow>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select id, kind, mode, via, object_kind, object_id, created_at, received_at, state, tries, due_at, note
         from stripe_events
         where $1 = '' or state = $1
         order by received_at desc, id desc
         limit $2"
    )
    .bind(state.map_or("", EventState::as_str))
    .bind(limit)
    .fetch_all(conn)
    })
}

/// Puts an event back that is not waiting. `false`: there is none of this id, or it waits.
pub(crate) async fn again(db: &Db, id: &str, now: Timestamp) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "update stripe_events set state = 'new', tries = 0, due_at = $2, note = '', claim = 0
             where id = $1 and state <> 'new'"
        )
        .bind(id)
        .bind(now)
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// Puts an event into the inbox that nobody sent, so that its object is asked for; puts it back where it is there and does not wait.
pub(crate) async fn ask(
    db: &Db,
    (object_kind, object_id): (ObjectKind, &str),
    mode: &str,
    now: Timestamp,
) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "insert into stripe_events (id, kind, mode, via, object_kind, object_id, created_at, received_at, state,
                                        due_at)
             values ($1, 'weir.asked_again', $2, $3, $4, $5, $6, $6, 'new', $6)
             on conflict (id) do update set state = 'new', tries = 0, created_at = $6, received_at = $6, due_at = $6,
                                            note = '', claim = 0
                 where stripe_events.state <> 'new'"
        )
        .bind(format!("again_{object_id}"))
        .bind(mode)
        .bind(Via::Sweep)
        .bind(object_kind)
        .bind(object_id)
        .bind(now)
        .execute(conn)
    ))
    .map(|_| ())
}

/// Drops bodies of events that came before this and are not to be looked at any more; how many.
pub(crate) async fn drop_bodies(db: &Db, before: Timestamp, limit: i64) -> Result<u64> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "update stripe_events set body = null
             where id in (select id from stripe_events
                          where received_at < $1 and body is not null and state in ('done', 'ignored')
                          order by received_at limit $2)"
        )
        .bind(before)
        .bind(limit)
        .execute(conn)
    ))
}

/// Forgets events that came before this and are not to be looked at any more; how many.
pub(crate) async fn forget(db: &Db, before: Timestamp, limit: i64) -> Result<u64> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "delete from stripe_events
             where id in (select id from stripe_events
                          where received_at < $1 and state in ('done', 'ignored')
                          order by received_at limit $2)"
        )
        .bind(before)
        .bind(limit)
        .execute(conn)
    ))
}

/// Forgets who asked about objects, where the last claim was before this and is over; how many.
pub(crate) async fn forget_objects(db: &Db, before: Timestamp, limit: i64) -> Result<u64> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "delete from stripe_objects
             where id in (select id from stripe_objects where claimed_at < $1 and claimed_until < $1
                          order by claimed_at limit $2)"
        )
        .bind(before)
        .bind(limit)
        .execute(conn)
    ))
}

/// Where a sweep begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct SweepRow {
    /// Events from before then have been listed.
    pub(crate) through: Option<Timestamp>,
    /// When the first customer was made.
    pub(crate) first: Option<Timestamp>,
}

/// Claims the sweep, where none ended after `before`. Nothing, where one did or another process is at it.
pub(crate) async fn claim_sweep(
    db: &Db,
    holder: &str,
    before: Timestamp,
    (now, until): (Timestamp, Timestamp),
) -> Result<Option<SweepRow>> {
    on_writer!(db, |conn| sqlx::query_as(
        "update stripe_sweep set claimed_by = $1, claimed_until = $4
         where one = 1 and ended_at <= $2 and (claimed_until <= $3 or claimed_by = $1)
         returning through, (select min(created_at) from billing_customers) as first"
    )
    .bind(holder)
    .bind(before)
    .bind(now)
    .bind(until)
    .fetch_optional(conn))
}

/// Writes down how far the sweep is, as long as it is this process's, and keeps it that until then.
pub(crate) async fn swept(db: &Db, holder: &str, through: Timestamp, until: Timestamp) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "update stripe_sweep set through = $2, claimed_until = $3 where one = 1 and claimed_by = $1"
        )
        .bind(holder)
        .bind(through)
        .bind(until)
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// Ends the sweep: whole, so that the next one is due a day later, or broken off.
pub(crate) async fn end_sweep(db: &Db, holder: &str, ended_at: Option<Timestamp>) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "update stripe_sweep set ended_at = coalesce($2, ended_at), claimed_by = '', claimed_until = 0
             where one = 1 and claimed_by = $1"
        )
        .bind(holder)
        .bind(ended_at)
        .execute(conn)
    ))
    .map(|_| ())
}
