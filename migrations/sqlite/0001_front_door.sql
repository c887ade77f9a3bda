-- The front door: tenants, their credentials, and what was done by whom. Same tables as in migrations/postgres.
-- Times are microseconds since 1970-01-01T00:00:00Z. Ids are text that sorts as the rows were made. JSON is text.

create table tenants (
    id text primary key not null,
    name text not null,
    status text not null check (status in ('active', 'suspended', 'deleted')),
    plan text not null default 'default',
    created_at integer not null,
    updated_at integer not null
) strict;
-- A deleted tenant gives its name free.
create unique index tenants_name on tenants (name) where status <> 'deleted';

create table api_keys (
    id text primary key not null,
    tenant_id text not null references tenants (id),
    kind text not null check (kind in ('api_key', 'url_token')),
    name text not null,
    -- SHA-256 of the whole token; the token itself is nowhere.
    hash blob not null unique,
    hint text not null,
    scopes text not null,
    created_at integer not null,
    expires_at integer,
    last_used_at integer,
    revoked_at integer
) strict;
create index api_keys_tenant on api_keys (tenant_id, id);

create table operator_keys (
    id text primary key not null,
    name text not null,
    hash blob not null unique,
    hint text not null,
    created_at integer not null,
    last_used_at integer,
    revoked_at integer
) strict;

create table audit_entries (
    id text primary key not null,
    at integer not null,
    actor text not null,
    action text not null,
    subject_kind text not null,
    subject_id text not null,
    tenant_id text references tenants (id),
    detail text not null
) strict;
create index audit_entries_tenant on audit_entries (tenant_id, id);

create table session_history (
    id text primary key not null,
    tenant_id text not null references tenants (id),
    principal text not null,
    transport text not null,
    revision text not null,
    client_name text not null,
    client_version text not null,
    opened_at integer not null,
    closed_at integer,
    close_reason text,
    requests integer not null default 0,
    calls integer not null default 0
) strict;
create index session_history_tenant on session_history (tenant_id, id);

create table calls (
    id text primary key not null,
    tenant_id text not null references tenants (id),
    credential text not null,
    server text not null,
    tool text not null,
    outcome text not null,
    started_at integer not null,
    duration_us integer not null,
    request_bytes integer not null,
    result_bytes integer not null,
    correlation_id text not null
) strict;
create index calls_tenant on calls (tenant_id, started_at, id);
create index calls_credential on calls (tenant_id, credential, started_at, id);

-- One row per deployment-wide value, such as the secret that all replicas share.
create table settings (
    name text primary key not null,
    value text not null
) strict;

-- What every process has to forget: it polls for rows that it has not seen. Rows are kept for an hour.
create table invalidations (
    id integer primary key autoincrement,
    at integer not null,
    kind text not null check (kind in ('credential', 'tenant')),
    subject text not null
) strict;
create index invalidations_at on invalidations (at);
