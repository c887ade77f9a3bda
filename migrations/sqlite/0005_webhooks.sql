-- What the provider of invoices says: its events, and the mirror of what they are about. Same tables as in migrations/postgres.

-- Seen to be deleted at the provider.
alter table billing_customers add column deleted_at integer;

-- The inbox. An event says that something happened to an object; what it is like now is asked of the provider.
create table stripe_events (
    id text primary key not null,
    kind text not null,
    mode text not null check (mode in ('test', 'live')),
    -- How it came: 'hook', or 'sweep' where no webhook brought it.
    via text not null check (via in ('hook', 'sweep')),
    object_kind text not null,
    object_id text not null,
    created_at integer not null,
    received_at integer not null,
    -- As it came, byte for byte. Dropped after a while.
    body blob,
    state text not null check (state in ('new', 'done', 'ignored', 'failed')),
    tries integer not null default 0,
    due_at integer not null,
    -- The claim of its object under which it is worked on.
    claim integer not null default 0,
    -- What went wrong last, or why it was ignored.
    note text not null default ''
) strict;
create index stripe_events_due on stripe_events (due_at) where state = 'new';
create index stripe_events_object on stripe_events (object_id) where state = 'new';
create index stripe_events_failed on stripe_events (received_at) where state = 'failed';
create index stripe_events_received on stripe_events (received_at);
create index stripe_events_bodies on stripe_events (received_at) where body is not null;

-- Who asks the provider about an object. Each claim has the next number, and only the newest may write what it found: what was
-- asked earlier never comes after what was asked later.
create table stripe_objects (
    id text primary key not null,
    claims integer not null,
    claimed_by text not null,
    claimed_until integer not null,
    claimed_at integer not null
) strict;
create index stripe_objects_claimed on stripe_objects (claimed_at);

-- The one sweep over all processes.
create table stripe_sweep (
    one integer primary key not null check (one = 1),
    -- Events created before then have been listed. Nothing: none were yet.
    through integer,
    ended_at integer not null default 0,
    claimed_by text not null default '',
    claimed_until integer not null default 0
) strict;
insert into stripe_sweep (one) values (1);

create table billing_subscriptions (
    id text primary key not null,
    tenant_id text not null references billing_customers (tenant_id),
    customer text not null,
    status text not null,
    plan text,
    billing_cycle_anchor integer not null,
    current_period_start integer,
    current_period_end integer,
    trial_end integer,
    cancel_at integer,
    cancel_at_period_end integer not null check (cancel_at_period_end in (0, 1)),
    canceled_at integer,
    ended_at integer,
    base_price text,
    base_item text,
    base_amount integer,
    metered_item text,
    latest_invoice text,
    created_at integer not null,
    fetched_at integer not null,
    revision integer not null default 1
) strict;
create index billing_subscriptions_tenant on billing_subscriptions (tenant_id);

create table billing_invoices (
    id text primary key not null,
    tenant_id text not null references billing_customers (tenant_id),
    customer text not null,
    subscription text,
    status text not null,
    billing_reason text,
    number text,
    currency text not null,
    total integer not null,
    amount_due integer not null,
    amount_paid integer not null,
    amount_remaining integer not null,
    attempt_count integer not null,
    next_payment_attempt integer,
    due_at integer,
    finalized_at integer,
    paid_at integer,
    hosted_invoice_url text,
    -- Over all lines of metered usage; nothing where there are none.
    metered_from integer,
    metered_to integer,
    metered_quantity integer,
    metered_amount integer,
    created_at integer not null,
    fetched_at integer not null,
    revision integer not null default 1
) strict;
create index billing_invoices_tenant on billing_invoices (tenant_id);

create table billing_checkouts (
    id text primary key not null,
    tenant_id text not null references billing_customers (tenant_id),
    customer text not null,
    mode text not null,
    status text not null,
    payment_status text not null,
    subscription text,
    payment_intent text,
    invoice text,
    amount_total integer,
    currency text,
    topup text,
    created_at integer not null,
    fetched_at integer not null,
    revision integer not null default 1
) strict;
create index billing_checkouts_tenant on billing_checkouts (tenant_id);

create table billing_charges (
    id text primary key not null,
    tenant_id text not null references billing_customers (tenant_id),
    customer text not null,
    payment_intent text,
    status text not null,
    currency text not null,
    amount integer not null,
    amount_refunded integer not null,
    disputed integer not null check (disputed in (0, 1)),
    -- Of its newest dispute, in the provider's words.
    dispute_status text,
    created_at integer not null,
    fetched_at integer not null,
    revision integer not null default 1
) strict;
create index billing_charges_tenant on billing_charges (tenant_id);
create index billing_charges_intent on billing_charges (payment_intent);
