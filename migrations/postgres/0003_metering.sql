-- Metering: prices, periods, grants, and the ledger. Same tables as in migrations/sqlite.
-- Credits are integers of micro-credits. What a settled call cost never changes: triggers refuse it.

create function weir_refuse() returns trigger language plpgsql as $$
begin
    raise exception '%', tg_argv[0] using errcode = 'restrict_violation';
end $$;

-- Prices of a plan from a moment on. Never changed, never deleted: another version takes the place of one.
create table price_versions (
    id text collate "C" primary key not null,
    plan text collate "C" not null,
    number bigint not null check (number > 0),
    effective_at bigint not null,
    published_at bigint not null,
    published_by text not null,
    terms text not null,
    -- SHA-256 of the terms.
    digest text not null,
    unique (plan, number)
);
create trigger price_versions_fixed before update on price_versions for each row
execute function weir_refuse('price versions are immutable');
create trigger price_versions_kept before delete on price_versions for each row
execute function weir_refuse('price versions are immutable');

-- One per tenant that ever was on a plan with prices. Who changes periods or grants holds its row.
create table accounts (
    tenant_id text collate "C" primary key not null references tenants (id),
    -- Months of the calendar (UTC), or months from anchor_at.
    cycle text not null check (cycle in ('calendar', 'anchored')),
    anchor_at bigint not null,
    -- What the tenant may owe per period, where that is less than its plan's cap.
    spend_cap bigint check (spend_cap >= 0),
    -- Counts what happened to the account.
    revision bigint not null default 0,
    created_at bigint not null,
    updated_at bigint not null
);

create table periods (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references accounts (tenant_id),
    plan text collate "C" not null,
    -- The terms at its beginning, which say what is included and where the caps are.
    price_version_id text collate "C" not null references price_versions (id),
    starts_at bigint not null,
    ends_at bigint not null,
    -- Most that may be owed (used and leased together); none: no cap.
    hard_cap bigint check (hard_cap >= 0),
    soft_cap bigint check (soft_cap >= 0),
    -- Used on top of all grants, by slabs that are closed; and what open slabs hold.
    overage_used bigint not null default 0 check (overage_used >= 0),
    overage_leased bigint not null default 0 check (overage_leased >= 0),
    -- When its numbers became final.
    closed_at bigint,
    unique (tenant_id, starts_at),
    check (starts_at < ends_at),
    check (hard_cap is null or overage_used + overage_leased <= hard_cap)
);
create index periods_open on periods (ends_at) where closed_at is null;
create function weir_periods_apart() returns trigger language plpgsql as $$
begin
    if exists (select 1 from periods where tenant_id = new.tenant_id and id <> new.id
               and starts_at < new.ends_at and ends_at > new.starts_at) then
        raise exception 'periods of a tenant do not overlap' using errcode = 'exclusion_violation';
    end if;
    return new;
end $$;
create trigger periods_apart before insert or update of tenant_id, starts_at, ends_at on periods for each row
execute function weir_periods_apart();
create trigger periods_fixed before update on periods for each row
when (old.closed_at is not null)
execute function weir_refuse('a closed period is final');
create trigger periods_kept before delete on periods for each row
execute function weir_refuse('periods are kept');

create table grants (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references accounts (tenant_id),
    kind text not null check (kind in ('included', 'promotional', 'prepaid')),
    -- What it was given for; for one source there is one grant.
    source text collate "C" not null,
    note text not null default '',
    granted bigint not null check (granted > 0),
    -- By slabs that are closed; and what open slabs hold.
    used bigint not null default 0 check (used >= 0),
    leased bigint not null default 0 check (leased >= 0),
    expired bigint not null default 0 check (expired >= 0),
    voided bigint not null default 0 check (voided >= 0),
    granted_at bigint not null,
    expires_at bigint,
    voided_at bigint,
    unique (tenant_id, source),
    check (used + leased + expired + voided <= granted)
);
create index grants_expiring on grants (expires_at) where expires_at is not null;
create trigger grants_fixed before update of id, tenant_id, kind, source, granted, granted_at on grants for each row
execute function weir_refuse('what was granted does not change');
create trigger grants_kept before delete on grants for each row
execute function weir_refuse('grants are kept');

-- One per process that settles calls. Who is not seen for a while is closed by another, and what it held is given back.
create table meters (
    id text collate "C" primary key not null,
    opened_at bigint not null,
    seen_at bigint not null,
    closed_at bigint
);
create index meters_open on meters (seen_at) where closed_at is null;

-- Credits of one source that one meter holds to spend.
create table slabs (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references accounts (tenant_id),
    period_id text collate "C" not null references periods (id),
    -- None: they will be owed.
    grant_id text collate "C" references grants (id),
    meter_id text collate "C" not null references meters (id),
    amount bigint not null check (amount > 0),
    used bigint not null default 0,
    leased_at bigint not null,
    closed_at bigint,
    check (0 <= used and used <= amount)
);
create index slabs_open_meter on slabs (meter_id) where closed_at is null;
create index slabs_open_tenant on slabs (tenant_id) where closed_at is null;
create index slabs_grant on slabs (grant_id);
create index slabs_period on slabs (period_id, id);
create trigger slabs_fixed before update on slabs for each row
when (old.closed_at is not null)
execute function weir_refuse('a closed slab is final');
create trigger slabs_source before update of id, tenant_id, period_id, grant_id, meter_id on slabs for each row
execute function weir_refuse('a slab stays what it is');
create trigger slabs_amount before update of amount on slabs for each row
when (new.amount > old.amount)
execute function weir_refuse('a slab does not grow');

-- The ledger: one row per call, which says what it cost. Parts by month, so that old months can go at once: an id begins
-- with the milliseconds of its making in base32, so parts are ranges of ids, and an id is there once over all parts.
-- What a row refers to is not checked here but by `weir ledger verify`: this is the one table that grows with every call.
create function weir_call_bound(moment timestamp) returns text language sql immutable strict as $$
    select 'call_' || string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz',
        cast(((cast(extract(epoch from moment) as bigint) * 1000) >> (45 - 5 * place)) & 31 as integer) + 1, 1), '' order by place)
    from generate_series(0, 9) as place
$$;

alter table calls rename to calls_before;
alter table calls_before rename constraint calls_pkey to calls_before_pkey;
alter index calls_tenant rename to calls_before_tenant;
alter index calls_credential rename to calls_before_credential;

create table calls (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null,
    credential text not null,
    server text not null,
    tool text not null,
    outcome text not null,
    started_at bigint not null,
    duration_us bigint not null,
    request_bytes bigint not null,
    result_bytes bigint not null,
    correlation_id text not null,
    period_id text collate "C",
    price_version_id text collate "C",
    meter_id text collate "C",
    settled_at bigint,
    credits bigint not null default 0 check (credits >= 0),
    included bigint not null default 0 check (included >= 0),
    promotional bigint not null default 0 check (promotional >= 0),
    prepaid bigint not null default 0 check (prepaid >= 0),
    overage bigint not null default 0 check (overage >= 0),
    -- From which slabs, as JSON: [["slb_...", credits], ...].
    draws text,
    -- SHA-256 of the caller's idempotency key.
    idempotency_key text,
    check (credits = included + promotional + prepaid + overage)
) partition by range (id);
-- One index for all lists of calls. Another, by credential, would cost each call a fifth of what settling it takes; calls of one
-- credential are looked for within this one.
create index calls_tenant on calls (tenant_id, started_at, id, credential);

-- Ids of a clock that was wrong.
create table calls_other partition of calls default;

-- Makes the part for the month of this moment, where it is not there.
create function weir_add_calls_month(moment timestamp) returns void language plpgsql as $$
declare
    first timestamp := date_trunc('month', moment);
    part text := 'calls_' || to_char(first, 'YYYY_MM');
begin
    if to_regclass(quote_ident(part)) is not null then
        return;
    end if;
    -- Rows that came before their part was there stay where they are.
    if exists (select 1 from calls_other where id >= weir_call_bound(first)
               and id < weir_call_bound(first + interval '1 month')) then
        return;
    end if;
    execute format('create table %I (like calls including defaults including constraints including indexes)', part);
    -- Attaching takes a lesser lock than making a part at once.
    execute format('alter table calls attach partition %I for values from (%L) to (%L)', part,
        weir_call_bound(first), weir_call_bound(first + interval '1 month'));
exception when duplicate_table then
    return;
end $$;

do $$
declare
    now_utc timestamp := statement_timestamp() at time zone 'UTC';
    oldest timestamp := coalesce(to_timestamp((select min(started_at) from calls_before) / 1000000) at time zone 'UTC', now_utc);
    month timestamp;
begin
    for month in select generate_series(date_trunc('month', greatest(oldest, now_utc - interval '5 years')),
                                        now_utc + interval '3 months', interval '1 month') loop
        perform weir_add_calls_month(month);
    end loop;
end $$;

insert into calls (id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes,
                   result_bytes, correlation_id)
select id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes, result_bytes,
       correlation_id
from calls_before;
drop table calls_before;

-- Calls with smaller ids may be deleted; one row at most.
create table ledger_floor (
    one bigint primary key not null check (one = 1),
    call_id text collate "C" not null,
    at bigint not null
);
create function weir_calls_kept() returns trigger language plpgsql as $$
begin
    if old.id >= coalesce((select call_id from ledger_floor), '') then
        raise exception 'the ledger is append-only' using errcode = 'restrict_violation';
    end if;
    return old;
end $$;
-- Drops the part for the month of this moment, if all of it is below the floor. Whether it was there.
create function weir_drop_calls_month(moment timestamp) returns boolean language plpgsql as $$
declare
    first timestamp := date_trunc('month', moment);
    part text := 'calls_' || to_char(first, 'YYYY_MM');
begin
    if to_regclass(quote_ident(part)) is null then
        return false;
    end if;
    if weir_call_bound(first + interval '1 month') > coalesce((select call_id from ledger_floor), '') then
        raise exception 'the ledger is append-only' using errcode = 'restrict_violation';
    end if;
    -- Whoever waits for the lock holds up every call.
    perform set_config('lock_timeout', '1000', true);
    execute format('drop table %I', part);
    return true;
end $$;
create trigger calls_fixed before update on calls for each row execute function weir_refuse('the ledger is append-only');
create trigger calls_kept before delete on calls for each row execute function weir_calls_kept();
create trigger calls_whole before truncate on calls for each statement
execute function weir_refuse('the ledger is append-only');

-- What was set right after it was settled. Signed: what is given back is negative.
create table corrections (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references accounts (tenant_id),
    period_id text collate "C" not null references periods (id),
    kind text not null check (kind in ('not_released', 'true_up')),
    -- The call that is not charged after all, and the slab that it was drawn from.
    call_id text collate "C",
    slab_id text collate "C",
    -- The grant; none: they were owed.
    grant_id text collate "C" references grants (id),
    -- Taken back from the slab, which was still open, or from what the grant or the period has used.
    booked text not null check (booked in ('slab', 'source')),
    credits bigint not null,
    at bigint not null,
    detail text not null,
    unique (call_id, slab_id)
);
create index corrections_period on corrections (period_id);
create index corrections_grant on corrections (grant_id);
create trigger corrections_fixed before update on corrections for each row
execute function weir_refuse('the ledger is append-only');
create trigger corrections_kept before delete on corrections for each row
execute function weir_refuse('the ledger is append-only');

-- Calls that may come again: what they were answered.
create table idempotency_keys (
    tenant_id text collate "C" not null references tenants (id),
    credential text collate "C" not null,
    -- SHA-256 of the key.
    key_hash text collate "C" not null,
    -- SHA-256 of tool and arguments.
    fingerprint text not null,
    call_id text collate "C" not null,
    -- Who runs the call.
    meter_id text collate "C" not null,
    created_at bigint not null,
    expires_at bigint not null,
    settled_at bigint,
    credits bigint not null default 0,
    -- Sealed; none: it was too large to keep.
    result text,
    -- When its answer was first given again; from then on its charge is not taken back.
    given_at bigint,
    primary key (tenant_id, credential, key_hash)
);
create index idempotency_keys_expiring on idempotency_keys (expires_at);
create index idempotency_keys_running on idempotency_keys (meter_id) where settled_at is null;

-- What somebody should know about an account; each once per period.
create table account_events (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references accounts (tenant_id),
    period_id text collate "C" not null references periods (id),
    kind text not null,
    at bigint not null,
    detail text not null,
    unique (period_id, kind)
);
create index account_events_tenant on account_events (tenant_id, id);

-- Daily sums of the ledger, which can be made anew from it. A day is YYYY-MM-DD in UTC, by the beginning of the call.
create table usage_days (
    tenant_id text collate "C" not null references tenants (id),
    day text collate "C" not null,
    credential text collate "C" not null,
    server text collate "C" not null,
    tool text collate "C" not null,
    calls bigint not null,
    charged bigint not null,
    failed bigint not null,
    credits bigint not null,
    included bigint not null,
    promotional bigint not null,
    prepaid bigint not null,
    overage bigint not null,
    request_bytes bigint not null,
    result_bytes bigint not null,
    duration_us bigint not null,
    primary key (tenant_id, day, credential, server, tool)
);
-- Days that were summed, and days that got calls after that.
create table usage_rolled (
    day text collate "C" primary key not null,
    at bigint not null
);
create table usage_stale (
    day text collate "C" primary key not null
);

-- Accounts are something to forget, too.
alter table invalidations drop constraint invalidations_kind_check;
alter table invalidations add constraint invalidations_kind_check
    check (kind in ('credential', 'tenant', 'plan', 'account'));
