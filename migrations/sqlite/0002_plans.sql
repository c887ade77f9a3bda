-- Plans: what tenants may use. Same tables as in migrations/postgres.

create table plans (
    name text primary key not null,
    -- What differs from the configuration.
    limits text not null,
    created_at integer not null,
    updated_at integer not null
) strict;

-- What differs from the tenant's plan.
alter table api_keys add column limits text not null default '{}';

-- A changed plan is something to forget, too. SQLite changes no constraint, so the table is made anew, and goes on
-- counting where the old one was: processes remember up to which row they have read.
create table new_invalidations (
    id integer primary key autoincrement,
    at integer not null,
    kind text not null check (kind in ('credential', 'tenant', 'plan')),
    subject text not null
) strict;
insert into sqlite_sequence (name, seq) select 'new_invalidations', seq from sqlite_sequence where name = 'invalidations';
insert into new_invalidations (id, at, kind, subject) select id, at, kind, subject from invalidations;
drop table invalidations;
alter table new_invalidations rename to invalidations;
create index invalidations_at on invalidations (at);
