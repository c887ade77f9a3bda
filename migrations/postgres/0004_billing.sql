-- Billing: who is billed for a tenant, and what was told to the provider of invoices. Same tables as in migrations/sqlite.

create table billing_customers (
    tenant_id text collate "C" primary key not null references accounts (tenant_id),
    -- The provider's id of whoever is billed.
    customer text collate "C" not null unique,
    created_at bigint not null,
    -- Which process tells the provider about it, and until when.
    claimed_by text collate "C",
    claimed_until bigint not null default 0,
    -- When its periods were last compared with what the provider counts.
    reconciled_at bigint not null default 0
);
create index billing_customers_reconciled on billing_customers (reconciled_at);

-- What a period owes, told in one event per account and minute.
create table exports (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references billing_customers (tenant_id),
    -- In which they are owed.
    period_id text collate "C" not null references periods (id),
    -- The minute of the event: its beginning. Of a later period, where invoices of the other one are final.
    slot bigint not null check (slot % 60000000 = 0),
    -- Signed: what was told too much is taken back.
    credits bigint not null check (credits <> 0),
    -- How often the event was made anew, under another identifier.
    generation bigint not null default 1 check (generation > 0),
    state text not null check (state in ('open', 'sent', 'verified', 'frozen')),
    -- Of this generation.
    first_sent_at bigint,
    last_sent_at bigint,
    -- What the provider counted in the slot. Nothing, as long as that is not known for good.
    counted bigint,
    -- When something is to be done about it next, and how often something was.
    due_at bigint not null,
    tries bigint not null default 0,
    -- What went wrong last.
    note text not null default '',
    revision bigint not null default 0,
    created_at bigint not null,
    unique (tenant_id, slot),
    check ((state in ('verified', 'frozen')) = (counted is not null)),
    check (state <> 'verified' or counted = credits)
);
-- Sums of a period are read from it alone.
create index exports_period on exports (period_id, state, credits, counted);
create index exports_due on exports (tenant_id, due_at) where state in ('open', 'sent');
create trigger exports_fixed before update of id, tenant_id, period_id, slot, credits, created_at on exports for each row
execute function weir_refuse('what is told to the provider of invoices does not change');
create trigger exports_kept before delete on exports for each row
execute function weir_refuse('exports are kept');

-- Events of an account of our own, by which it is seen how far the provider has counted.
create table canaries (
    slot bigint primary key not null check (slot % 60000000 = 0),
    accepted_at bigint,
    seen_at bigint
);

-- The last comparison of what a period owes with what the provider counts.
create table proofs (
    period_id text collate "C" primary key not null references periods (id),
    tenant_id text collate "C" not null,
    owed bigint not null,
    -- Of that, in whichever minutes.
    told bigint not null,
    -- Minutes before this instant were compared: what they are worth, and what the provider counts there.
    until bigint not null,
    slots bigint not null,
    counted bigint,
    verdict text not null check (verdict in ('equal', 'in_flight', 'missing', 'extra', 'unreadable')),
    at bigint not null
);
create index periods_ended on periods (ends_at);
