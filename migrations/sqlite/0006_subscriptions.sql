-- Subscriptions: what an account may still do, what becomes of its plan, and what is sold. Same tables as in migrations/postgres.

-- trial: uses what it was given, and owes nothing. grace: as open, and somebody has to pay. restricted: as trial, until somebody pays.
-- suspended: pays for nothing.
alter table accounts add column access text not null default 'open'
    check (access in ('open', 'trial', 'grace', 'restricted', 'suspended'));
-- The provider's id of the subscription that it follows.
alter table accounts add column subscription text;
-- The plan of periods that begin from then on.
alter table accounts add column next_plan text;
alter table accounts add column next_plan_at integer;

-- What a period was given of what its plan includes: the share that it then was of this cycle, or, of the first one and of one whose whole
-- cycle is paid for by itself, all. Not known of periods that are older.
alter table periods add column cycle_starts_at integer;
alter table periods add column cycle_ends_at integer;
alter table periods add column has_all integer not null default 0;

-- Credits that a tenant wants to buy: what it was shown, and what it gets once that is paid.
create table top_ups (
    id text primary key not null,
    tenant_id text not null references tenants (id),
    credits integer not null check (credits > 0),
    -- In the smallest unit of the currency.
    amount integer not null check (amount > 0),
    currency text not null,
    created_at integer not null
) strict;

-- Set while a plan is to change: the plan until then, and when it does.
alter table billing_subscriptions add column plan_before text;
alter table billing_subscriptions add column plan_from integer;

-- Whoever must pay, for looking who is late.
create index billing_invoices_unpaid on billing_invoices (tenant_id, finalized_at)
    where status in ('open', 'uncollectible') and attempt_count > 0;

-- What an invoice bills for usage, compared with what the minutes of its span are worth. Final invoices are the last word: what one
-- does not bill of its minutes is no longer told, and what it bills beyond them is.
create table invoice_proofs (
    invoice text primary key not null,
    tenant_id text not null,
    starts_at integer not null,
    ends_at integer not null,
    billed integer not null,
    slots integer not null,
    verdict text not null check (verdict in ('equal', 'in_flight', 'carried', 'missing', 'extra', 'unreadable')),
    -- So much, of that period, counts as not told: it is told again in a later minute. Negative: more was billed than was told.
    period_id text references periods (id),
    carried integer not null default 0,
    at integer not null,
    check (carried = 0 or period_id is not null)
) strict;
create index invoice_proofs_tenant on invoice_proofs (tenant_id, ends_at);
create index invoice_proofs_period on invoice_proofs (period_id, carried) where period_id is not null;

-- What periods owe, as far as slabs are closed, and what was told of that.
create view period_books as
select p.id, p.tenant_id, p.starts_at, p.ends_at, p.overage_used as owed,
       cast(coalesce((select sum(case when e.state = 'frozen' then e.counted else e.credits end)
                      from exports e where e.period_id = p.id), 0)
            - coalesce((select sum(i.carried) from invoice_proofs i where i.period_id = p.id), 0) as bigint) as told
from periods p;
