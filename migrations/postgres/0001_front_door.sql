-- The front door: tenants, their credentials, and what was done by whom. Same tables as in migrations/sqlite.
-- Times are microseconds since 1970-01-01T00:00:00Z. Ids are text that sorts as the rows were made,
-- by byte whatever the collation of the database. JSON is text.

create table tenants (
    id text collate "C" primary key not null,
    name text not null,
    status text not null check (status in ('active', 'suspended', 'deleted')),
    plan text not null default 'default',
    created_at bigint not null,
    updated_at bigint not null
);
-- A deleted tenant gives its name free.
create unique index tenants_name on tenants (name) where status <> 'deleted';

create table api_keys (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references tenants (id),
    kind text not null check (kind in ('api_key', 'url_token')),
    name text not null,
    -- SHA-256 of the whole token; the token itself is nowhere.
    hash bytea not null unique,
    hint text not null,
    scopes text not null,
    created_at bigint not null,
    expires_at bigint,
    last_used_at bigint,
    revoked_at bigint
);
create index api_keys_tenant on api_keys (tenant_id, id);

create table operator_keys (
    id text collate "C" primary key not null,
    name text not null,
    hash bytea not null unique,
    hint text not null,
    created_at bigint not null,
    last_used_at bigint,
    revoked_at bigint
);

create table audit_entries (
    id text collate "C" primary key not null,
    at bigint not null,
    actor text not null,
    action text not null,
    subject_kind text not null,
    subject_id text not null,
    tenant_id text collate "C" references tenants (id),
    detail text not null
);
create index audit_entries_tenant on audit_entries (tenant_id, id);

create table session_history (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references tenants (id),
    principal text not null,
    transport text not null,
    revision text not null,
    client_name text not null,
    client_version text not null,
    opened_at bigint not null,
    closed_at bigint,
    close_reason text,
    requests bigint not null default 0,
    calls bigint not null default 0
);
create index session_history_tenant on session_history (tenant_id, id);

create table calls (
    id text collate "C" primary key not null,
    tenant_id text collate "C" not null references tenants (id),
    credential text not null,
    server text not null,
    tool text not null,
    outcome text not null,
    started_at bigint not null,
    duration_us bigint not null,
    request_bytes bigint not null,
    result_bytes bigint not null,
    correlation_id text not null
);
create index calls_tenant on calls (tenant_id, started_at, id);
create index calls_credential on calls (tenant_id, credential, started_at, id);

-- One row per deployment-wide value, such as the secret that all replicas share.
create table settings (
    name text primary key not null,
    value text not null
);

-- What every process has to forget: it polls for rows that it has not seen. Rows are kept for an hour.
create table invalidations (
    id bigint generated always as identity primary key,
    at bigint not null,
    kind text not null check (kind in ('credential', 'tenant')),
    subject text not null
);
create index invalidations_at on invalidations (at);
