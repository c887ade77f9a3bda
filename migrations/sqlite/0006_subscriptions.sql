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

-- What an invoice bills for usage, compared with what the minutes of its span are worth.
create table invoice_proofs (
    invoice text primary key not null,
    tenant_id text not null,
    starts_at integer not null,
    ends_at integer not null,
    billed integer not null,
    slots integer not null,
    verdict text not null check (verdict in ('equal', 'in_flight', 'missing', 'extra', 'unreadable')),
    at integer not null
) strict;
create index invoice_proofs_at on invoice_proofs (at);
