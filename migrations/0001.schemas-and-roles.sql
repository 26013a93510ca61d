-- Our schema and roles, and those parts of Supabase that are missing. On Supabase they exist and stay as they are.
--
-- Row level security and grants are beside the statement that creates a table. Supabase grants new tables to everybody by default, so a
-- migration that stopped in between would leave a table open.
--
-- Migrations contain no percent signs: yoyo passes them to psycopg, which would take one for a parameter.
-- depends: 0000.preflight

create schema if not exists two_tower;

comment on schema two_tower is 'pg-two-tower: model registry, embeddings, change log and operators'' routines';

-- What we created, as opposed to found: going back drops these, restores the names of renamed ones, and touches nothing else.
create table two_tower.created_objects (
    kind text not null check (kind in (
        'schema', 'extension', 'table', 'view', 'function', 'routine', 'renamed relation', 'renamed routine'
    )),
    name text not null,
    primary key (kind, name)
);

comment on table two_tower.created_objects is
'What the migrations created or renamed, as opposed to found; going back undoes these and no others';

alter table two_tower.created_objects enable row level security;

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
                begin
                    execute 'create role ' || v_role || ' ' || v_options;
                exception when insufficient_privilege then
                    -- Before PostgreSQL 16, only a superuser may grant bypassrls. 90_privileges.sql has policies for a role without it.
                    execute 'create role ' || v_role || ' ' || replace(v_options, ' bypassrls', '');
                end;
                -- The limits that Supabase sets; PostgREST applies a role's settings when it switches to the role.
                case v_role
                    when 'anon' then alter role anon set statement_timeout = '3s';
                    when 'authenticated' then alter role authenticated set statement_timeout = '8s';
                    when 'authenticator' then
                        alter role authenticator set statement_timeout = '8s';
                        grant anon, authenticated, service_role to authenticator;
                    else null;
                end case;
            exception
                -- A concurrent create causes a duplicate object, or a conflict in the catalogue's index.
                when duplicate_object or unique_violation then null;
            end;
        end if;
    end loop;
end
$roles$;

-- The role as which `two-tower ui` reads; it cannot write. It sees everybody's rows in what 90_privileges.sql lets it read: in our tables
-- by a policy; in the application's, where we add no policies, by bypassrls. Only a superuser, and from PostgreSQL 16 on a role that has
-- it, may grant that attribute; without it, the page reads as the connecting role.
--
-- Another database's migration may create the role at the same moment, and another's rollback may drop it; the grant prevents that once
-- this is committed.
do $viewer$
begin
    for v_attempt in 1 .. 10 loop
        begin
            if not exists (select from pg_catalog.pg_roles where rolname = 'two_tower_viewer') then
                create role two_tower_viewer nologin noinherit;
            end if;
            grant usage on schema two_tower to two_tower_viewer;
            exit;
        exception
            when duplicate_object or unique_violation or undefined_object then
                if v_attempt = 10 then
                    raise;
                end if;
        end;
    end loop;
    if not (select rolbypassrls from pg_catalog.pg_roles where rolname = 'two_tower_viewer') then
        begin
            alter role two_tower_viewer bypassrls;
        exception when insufficient_privilege then
            raise notice using message = current_user || ' may not let the role two_tower_viewer see all rows; two-tower ui reads as whoever connects',
                hint = 'As a superuser run: alter role two_tower_viewer bypassrls';
        end;
    end if;
    -- The role that migrates may switch to this role; a superuser may switch to any.
    if not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
        begin
            execute 'grant two_tower_viewer to ' || quote_ident(current_user);
        exception when insufficient_privilege then
            raise notice using message = current_user || ' may not take the role two_tower_viewer, which two-tower ui reads as',
                hint = 'As a superuser run: grant two_tower_viewer to ' || quote_ident(current_user);
        end;
    end if;
end
$viewer$;

-- If yoyo runs by itself, its tables are where PostgREST shows them. Those with other migrations than ours are the application's. Only
-- tables are read, since a view would run as the role that migrates.
do $yoyo$
declare
    v_table regclass;
    v_ours boolean := false;
begin
    if exists (
        select from pg_catalog.pg_class c
        where c.oid = to_regclass('public._yoyo_migration') and c.relkind = 'r' and pg_has_role(c.relowner, 'usage')
    ) then
        select coalesce(bool_and(m.migration_id in (
            '0000.preflight', '0001.schemas-and-roles', '0002.extensions', '0003.catalogue', '0004.decisions-and-features',
            '0005.models', '0006.embeddings', '0007.change-log', '0008.lists', '0009.experiments', '0010.rights'
        )), false) into v_ours
        from public._yoyo_migration m;
    end if;
    if v_ours then
        for v_table in
            select c.oid from pg_catalog.pg_class c
            where c.relnamespace = 'public'::regnamespace and c.relname in ('_yoyo_migration', '_yoyo_log', '_yoyo_version', 'yoyo_lock')
                and c.relkind = 'r' and pg_has_role(c.relowner, 'usage')
        loop
            execute 'alter table ' || v_table || ' enable row level security';
            execute 'revoke all on ' || v_table || ' from public, anon, authenticated, service_role';
        end loop;
    end if;
end
$yoyo$;

revoke all on all tables in schema two_tower from public, anon, authenticated, service_role;

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
        revoke all on auth.users from public, anon, authenticated, service_role;
        insert into two_tower.created_objects values ('table', 'auth.users');
    end if;
    if to_regprocedure('auth.uid()') is null then
        create function auth.uid() returns uuid
        language sql stable parallel safe security invoker
        -- Not a string, so that it is expanded where it is called.
        return coalesce(
            nullif(current_setting('request.jwt.claim.sub', true), ''),
            nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
        )::uuid;
        insert into two_tower.created_objects values ('function', 'auth.uid()');
    end if;
end
$auth$;
