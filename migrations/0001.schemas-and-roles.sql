-- Schemas, and the parts of Supabase that are missing. On Supabase all of it exists and nothing here does anything.
-- Migrations contain no percent signs: yoyo hands them to psycopg, which would take one for a parameter.
-- depends:

create schema if not exists two_tower;

comment on schema two_tower is 'pg-two-tower: model registry, embeddings, change log and operators'' routines';

-- What a migration created, as opposed to found: rolling back removes these and leaves the application's own objects alone.
create table two_tower.created_objects (
    kind text not null check (kind in ('schema', 'table', 'column', 'function', 'row level security')),
    name text not null,
    primary key (kind, name)
);

comment on table two_tower.created_objects is 'What the migrations created, as opposed to found; going back removes these and no others';

-- Roles belong to the cluster, so another database's migration may create one at the same moment.
do $roles$
declare
    v_role text;
    v_options text;
begin
    for v_role, v_options in
        values ('anon', 'nologin noinherit'),
            ('authenticated', 'nologin noinherit'),
            ('service_role', 'nologin noinherit bypassrls'),
            ('authenticator', 'login noinherit')
    loop
        if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
            begin
                execute 'create role ' || v_role || ' ' || v_options;
                -- The limits that Supabase sets; PostgREST applies a role's settings when it takes the role.
                case v_role
                    when 'anon' then alter role anon set statement_timeout = '3s';
                    when 'authenticated' then alter role authenticated set statement_timeout = '8s';
                    when 'authenticator' then
                        alter role authenticator set statement_timeout = '8s';
                        grant anon, authenticated, service_role to authenticator;
                    else null;
                end case;
            exception
                -- A concurrent create shows as a duplicate object, or as a clash in the catalogue's index.
                when duplicate_object or unique_violation then null;
            end;
        end if;
    end loop;
end
$roles$;

do $auth$
begin
    if to_regnamespace('auth') is null then
        create schema auth;
        insert into two_tower.created_objects values ('schema', 'auth');
        grant usage on schema auth to anon, authenticated, service_role;
    end if;
    if to_regclass('auth.users') is null then
        create table auth.users (
            id uuid primary key default gen_random_uuid(),
            created_at timestamptz not null default now()
        );
        alter table auth.users enable row level security;
        insert into two_tower.created_objects values ('table', 'auth.users');
    end if;
    if to_regprocedure('auth.uid()') is null then
        create function auth.uid() returns uuid
        language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
        as $func$
            select coalesce(
                nullif(current_setting('request.jwt.claim.sub', true), ''),
                nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
            )::uuid
        $func$;
        insert into two_tower.created_objects values ('function', 'auth.uid()');
    end if;
end
$auth$;
