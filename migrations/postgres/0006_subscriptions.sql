-- Subscriptions: what an account may still do, what becomes of its plan, and what is sold. Same tables as in migrations/sqlite.

-- trial: uses what it was given, and owes nothing. grace: as open, and somebody has to pay. restricted: as trial, until somebody pays.
-- suspended: pays for nothing.
alter table accounts add column access text not null default 'open'
    check (access in ('open', 'trial', 'grace', 'restricted', 'suspended'));
-- The plan of periods that begin from then on.
alter table accounts add column next_plan text collate "C";
alter table accounts add column next_plan_at bigint;

-- Credits that a tenant wants to buy: what it was shown, and what it gets once that is paid.
create table top_ups (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references tenants (id),
    credits bigint not null check (credits > 0),
    -- In the smallest unit of the currency.
    amount bigint not null check (amount > 0),
    currency text not null,
    created_at bigint not null
);
