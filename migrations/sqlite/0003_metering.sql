-- Metering: prices, periods, grants, and the ledger. Same tables as in migrations/postgres.
-- Credits are integers of micro-credits. What a settled call cost never changes: triggers refuse it.

-- Prices of a plan from a moment on. Never changed, never deleted: another version takes the place of one.
create table price_versions (
    id text primary key not null,
    plan text not null,
    number integer not null check (number > 0),
    effective_at integer not null,
    published_at integer not null,
    published_by text not null,
    terms text not null,
    -- SHA-256 of the terms.
    digest text not null,
    unique (plan, number)
) strict;
create trigger price_versions_fixed before update on price_versions
begin select raise(abort, 'price versions are immutable'); end;
create trigger price_versions_kept before delete on price_versions
begin select raise(abort, 'price versions are immutable'); end;

-- One per tenant that ever was on a plan with prices. Who changes periods or grants holds its row.
create table accounts (
    tenant_id text primary key not null references tenants (id),
    -- Months of the calendar (UTC), or months from anchor_at.
    cycle text not null check (cycle in ('calendar', 'anchored')),
    anchor_at integer not null,
    -- What the tenant may owe per period, where that is less than its plan's cap.
    spend_cap integer check (spend_cap >= 0),
    -- Counts what happened to the account.
    revision integer not null default 0,
    created_at integer not null,
    updated_at integer not null
) strict;

create table periods (
    id text primary key not null,
    tenant_id text not null references accounts (tenant_id),
    plan text not null,
    -- The terms at its beginning, which say what is included and where the caps are.
    price_version_id text not null references price_versions (id),
    starts_at integer not null,
    ends_at integer not null,
    -- Most that may be owed (used and leased together); none: no cap.
    hard_cap integer check (hard_cap >= 0),
    soft_cap integer check (soft_cap >= 0),
    -- Used on top of all grants, by slabs that are closed; and what open slabs hold.
    overage_used integer not null default 0 check (overage_used >= 0),
    overage_leased integer not null default 0 check (overage_leased >= 0),
    -- When its numbers became final.
    closed_at integer,
    unique (tenant_id, starts_at),
    check (starts_at < ends_at),
    check (hard_cap is null or overage_used + overage_leased <= hard_cap)
) strict;
create index periods_open on periods (ends_at) where closed_at is null;
create trigger periods_apart_insert before insert on periods
when exists (select 1 from periods where tenant_id = new.tenant_id and starts_at < new.ends_at and ends_at > new.starts_at)
begin select raise(abort, 'periods of a tenant do not overlap'); end;
create trigger periods_apart_update before update of tenant_id, starts_at, ends_at on periods
when exists (select 1 from periods where tenant_id = new.tenant_id and id <> new.id
             and starts_at < new.ends_at and ends_at > new.starts_at)
begin select raise(abort, 'periods of a tenant do not overlap'); end;
create trigger periods_fixed before update on periods when old.closed_at is not null
begin select raise(abort, 'a closed period is final'); end;
create trigger periods_kept before delete on periods
begin select raise(abort, 'periods are kept'); end;

create table grants (
    id text primary key not null,
    tenant_id text not null references accounts (tenant_id),
    kind text not null check (kind in ('included', 'promotional', 'prepaid')),
    -- What it was given for; for one source there is one grant.
    source text not null,
    note text not null default '',
    granted integer not null check (granted > 0),
    -- By slabs that are closed; and what open slabs hold.
    used integer not null default 0 check (used >= 0),
    leased integer not null default 0 check (leased >= 0),
    expired integer not null default 0 check (expired >= 0),
    voided integer not null default 0 check (voided >= 0),
    granted_at integer not null,
    expires_at integer,
    voided_at integer,
    unique (tenant_id, source),
    check (used + leased + expired + voided <= granted)
) strict;
create index grants_expiring on grants (expires_at) where expires_at is not null;
create trigger grants_fixed before update of id, tenant_id, kind, source, granted, granted_at on grants
begin select raise(abort, 'what was granted does not change'); end;
create trigger grants_kept before delete on grants
begin select raise(abort, 'grants are kept'); end;

-- One per process that settles calls. Who is not seen for a while is closed by another, and what it held is given back.
create table meters (
    id text primary key not null,
    opened_at integer not null,
    seen_at integer not null,
    closed_at integer
) strict;
create index meters_open on meters (seen_at) where closed_at is null;

-- Credits of one source that one meter holds to spend.
create table slabs (
    id text primary key not null,
    tenant_id text not null references accounts (tenant_id),
    period_id text not null references periods (id),
    -- None: they will be owed.
    grant_id text references grants (id),
    meter_id text not null references meters (id),
    amount integer not null check (amount > 0),
    used integer not null default 0,
    leased_at integer not null,
    closed_at integer,
    check (0 <= used and used <= amount)
) strict;
create index slabs_open_meter on slabs (meter_id) where closed_at is null;
create index slabs_open_tenant on slabs (tenant_id) where closed_at is null;
create index slabs_grant on slabs (grant_id);
create index slabs_period on slabs (period_id, id);
create trigger slabs_fixed before update on slabs when old.closed_at is not null
begin select raise(abort, 'a closed slab is final'); end;
create trigger slabs_source before update of id, tenant_id, period_id, grant_id, meter_id on slabs
begin select raise(abort, 'a slab stays what it is'); end;
create trigger slabs_amount before update of amount on slabs when new.amount > old.amount
begin select raise(abort, 'a slab does not grow'); end;

-- The ledger: one row per call, which says what it cost. What it refers to is not checked here but by `weir ledger verify`,
-- because this is the one table that grows with every call.
alter table calls add column period_id text;
alter table calls add column price_version_id text;
alter table calls add column meter_id text;
alter table calls add column settled_at integer;
alter table calls add column credits integer not null default 0 check (credits >= 0);
alter table calls add column included integer not null default 0 check (included >= 0);
alter table calls add column promotional integer not null default 0 check (promotional >= 0);
alter table calls add column prepaid integer not null default 0 check (prepaid >= 0);
alter table calls add column overage integer not null default 0
    check (overage >= 0 and credits = included + promotional + prepaid + overage);
-- From which slabs, as JSON: [["slb_...", credits], ...].
alter table calls add column draws text;
-- SHA-256 of the caller's idempotency key.
alter table calls add column idempotency_key text;

-- One index for all lists of calls. Every tenant's calls touch another page of it, and the WAL takes whole pages; another index,
-- by credential, would touch as many again. Calls of one credential are looked for within this one.
drop index calls_tenant;
drop index calls_credential;
create index calls_tenant on calls (tenant_id, started_at, id, credential);

-- Calls with smaller ids may be deleted; one row at most.
create table ledger_floor (
    one integer primary key not null check (one = 1),
    call_id text not null,
    at integer not null
) strict;
create trigger calls_fixed before update on calls
begin select raise(abort, 'the ledger is append-only'); end;
create trigger calls_kept before delete on calls
when old.id >= coalesce((select call_id from ledger_floor), '')
begin select raise(abort, 'the ledger is append-only'); end;

-- What a call draws is used of its slabs when the call is there: both or neither, in one statement.
create trigger calls_drawn after insert on calls when new.draws is not null
begin
    update slabs set used = used + draw.credits
    from (select value ->> 0 as slab, value ->> 1 as credits from json_each(new.draws)) as draw
    where slabs.id = draw.slab;
end;

-- What was set right after it was settled. Signed: what is given back is negative.
create table corrections (
    id text primary key not null,
    tenant_id text not null references accounts (tenant_id),
    period_id text not null references periods (id),
    kind text not null check (kind in ('not_released', 'true_up')),
    -- The call that is not charged after all, and the slab that it was drawn from.
    call_id text,
    slab_id text,
    -- The grant; none: they were owed.
    grant_id text references grants (id),
    -- Taken back from the slab, which was still open, or from what the grant or the period has used.
    booked text not null check (booked in ('slab', 'source')),
    credits integer not null,
    at integer not null,
    detail text not null,
    unique (call_id, slab_id)
) strict;
create index corrections_period on corrections (period_id);
create index corrections_grant on corrections (grant_id);
create trigger corrections_fixed before update on corrections
begin select raise(abort, 'the ledger is append-only'); end;
create trigger corrections_kept before delete on corrections
begin select raise(abort, 'the ledger is append-only'); end;

-- Calls that may come again: what they were answered.
create table idempotency_keys (
    tenant_id text not null references tenants (id),
    credential text not null,
    -- SHA-256 of the key.
    key_hash text not null,
    -- SHA-256 of tool and arguments.
    fingerprint text not null,
    call_id text not null,
    -- Who runs the call.
    meter_id text not null,
    created_at integer not null,
    expires_at integer not null,
    settled_at integer,
    credits integer not null default 0,
    -- Sealed; none: it was too large to keep.
    result text,
    -- When its answer was first given again; from then on its charge is not taken back.
    given_at integer,
    primary key (tenant_id, credential, key_hash)
) strict, without rowid;
create index idempotency_keys_expiring on idempotency_keys (expires_at);
create index idempotency_keys_running on idempotency_keys (meter_id) where settled_at is null;

-- What somebody should know about an account; each once per period.
create table account_events (
    id text primary key not null,
    tenant_id text not null references accounts (tenant_id),
    period_id text not null references periods (id),
    kind text not null,
    at integer not null,
    detail text not null,
    unique (period_id, kind)
) strict;
create index account_events_tenant on account_events (tenant_id, id);

-- Daily sums of the ledger, which can be made anew from it. A day is YYYY-MM-DD in UTC, by the beginning of the call.
create table usage_days (
    tenant_id text not null references tenants (id),
    day text not null,
    credential text not null,
    server text not null,
    tool text not null,
    calls integer not null,
    charged integer not null,
    failed integer not null,
    credits integer not null,
    included integer not null,
    promotional integer not null,
    prepaid integer not null,
    overage integer not null,
    request_bytes integer not null,
    result_bytes integer not null,
    duration_us integer not null,
    primary key (tenant_id, day, credential, server, tool)
) strict, without rowid;
-- Days that were summed, and days that got calls after that.
create table usage_rolled (
    day text primary key not null,
    at integer not null
) strict;
create table usage_stale (
    day text primary key not null
) strict;

-- Accounts are something to forget, too.
create table new_invalidations (
    id integer primary key autoincrement,
    at integer not null,
    kind text not null check (kind in ('credential', 'tenant', 'plan', 'account')),
    subject text not null
) strict;
insert into sqlite_sequence (name, seq) select 'new_invalidations', seq from sqlite_sequence where name = 'invalidations';
insert into new_invalidations (id, at, kind, subject) select id, at, kind, subject from invalidations;
drop table invalidations;
alter table new_invalidations rename to invalidations;
create index invalidations_at on invalidations (at);
