-- Plans: what tenants may use. Same tables as in migrations/sqlite.

create table plans (
    name text collate "C" primary key not null,
    -- What differs from the configuration.
    limits text not null,
    created_at bigint not null,
    updated_at bigint not null
);

-- What differs from the tenant's plan.
alter table api_keys add column limits text not null default '{}';

-- A changed plan is something to forget, too.
alter table invalidations drop constraint invalidations_kind_check;
alter table invalidations add constraint invalidations_kind_check check (kind in ('credential', 'tenant', 'plan'));
