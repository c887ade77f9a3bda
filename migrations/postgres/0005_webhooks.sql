-- What the provider of invoices says: its events, and the mirror of what they are about. Same tables as in migrations/sqlite.

-- Seen to be deleted at the provider.
alter table billing_customers add column deleted_at bigint;

-- The inbox. An event says that something happened to an object; what it is like now is asked of the provider.
create table stripe_events (
    id text collate "C" primary key not null,
    kind text collate "C" not null,
    mode text not null check (mode in ('test', 'live')),
    -- How it came: 'hook', or 'sweep' where no webhook brought it.
    via text not null check (via in ('hook', 'sweep')),
    object_kind text not null,
    object_id text collate "C" not null,
    created_at bigint not null,
    received_at bigint not null,
    -- As it came, byte for byte. Dropped after a while.
    body bytea,
    state text not null check (state in ('new', 'done', 'ignored', 'failed')),
    tries bigint not null default 0,
    due_at bigint not null,
    -- The claim of its object under which it is worked on.
    claim bigint not null default 0,
    -- What went wrong last, or why it was ignored.
    note text not null default ''
);
create index stripe_events_due on stripe_events (due_at) where state = 'new';
create index stripe_events_object on stripe_events (object_id) where state = 'new';
create index stripe_events_failed on stripe_events (received_at) where state = 'failed';
create index stripe_events_received on stripe_events (received_at);
create index stripe_events_bodies on stripe_events (received_at) where body is not null;

-- Who asks the provider about an object. Each claim has the next number, and only the newest may write what it found: what was
-- asked earlier never comes after what was asked later.
create table stripe_objects (
    id text collate "C" primary key not null,
    claims bigint not null,
    claimed_by text collate "C" not null,
    claimed_until bigint not null,
    claimed_at bigint not null
);
create index stripe_objects_claimed on stripe_objects (claimed_at);

-- The one sweep over all processes.
create table stripe_sweep (
    one bigint primary key not null check (one = 1),
    -- Events created before then have been listed. Nothing: none were yet.
    through bigint,
    ended_at bigint not null default 0,
    claimed_by text collate "C" not null default '',
    claimed_until bigint not null default 0
);
insert into stripe_sweep (one) values (1);

create table billing_subscriptions (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references billing_customers (tenant_id),
    customer text collate "C" not null,
    status text not null,
    plan text,
    billing_cycle_anchor bigint not null,
    current_period_start bigint,
    current_period_end bigint,
    trial_end bigint,
    cancel_at bigint,
    cancel_at_period_end boolean not null,
    canceled_at bigint,
    ended_at bigint,
    base_price text collate "C",
    base_item text collate "C",
    base_amount bigint,
    metered_item text collate "C",
    latest_invoice text collate "C",
    created_at bigint not null,
    fetched_at bigint not null,
    revision bigint not null default 1
);
create index billing_subscriptions_tenant on billing_subscriptions (tenant_id);

create table billing_invoices (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references billing_customers (tenant_id),
    customer text collate "C" not null,
    subscription text collate "C",
    status text not null,
    billing_reason text,
    number text,
    currency text not null,
    total bigint not null,
    amount_due bigint not null,
    amount_paid bigint not null,
    amount_remaining bigint not null,
    attempt_count bigint not null,
    next_payment_attempt bigint,
    due_at bigint,
    finalized_at bigint,
    paid_at bigint,
    hosted_invoice_url text,
    -- Over all lines of metered usage; nothing where there are none.
    metered_from bigint,
    metered_to bigint,
    metered_quantity bigint,
    metered_amount bigint,
    created_at bigint not null,
    fetched_at bigint not null,
    revision bigint not null default 1
);
create index billing_invoices_tenant on billing_invoices (tenant_id);

create table billing_checkouts (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references billing_customers (tenant_id),
    customer text collate "C" not null,
    mode text not null,
    status text not null,
    payment_status text not null,
    subscription text collate "C",
    payment_intent text collate "C",
    invoice text collate "C",
    amount_total bigint,
    currency text,
    topup text collate "C",
    created_at bigint not null,
    fetched_at bigint not null,
    revision bigint not null default 1
);
create index billing_checkouts_tenant on billing_checkouts (tenant_id);

create table billing_charges (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references billing_customers (tenant_id),
    customer text collate "C" not null,
    payment_intent text collate "C",
    status text not null,
    currency text not null,
    amount bigint not null,
    amount_refunded bigint not null,
    disputed boolean not null,
    -- Of its newest dispute, in the provider's words.
    dispute_status text,
    created_at bigint not null,
    fetched_at bigint not null,
    revision bigint not null default 1
);
create index billing_charges_tenant on billing_charges (tenant_id);
create index billing_charges_intent on billing_charges (payment_intent);
