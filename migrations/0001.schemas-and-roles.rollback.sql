-- Roles stay: they belong to the cluster, and other databases may use them. The viewer's role, which is ours, is dropped with the last
-- database. Only what we granted is revoked from it: an operator, or another database, may have granted it more.
do $viewer$
declare
    v_table regclass;
begin
    for v_table in
        select to_regclass('public.' || t) from unnest(array[
            'videos', 'tags', 'performers', 'video_tags', 'video_performers', 'profiles', 'user_video_decisions'
        ]) as t
        where to_regclass('public.' || t) is not null
    loop
        execute 'revoke select on ' || v_table || ' from two_tower_viewer';
    end loop;
    revoke all on schema two_tower from two_tower_viewer;
    -- In a block of its own, since an exception rolls back its block. An internal error means that a database with grants to the role is
    -- being dropped at this moment.
    for v_attempt in 1 .. 10 loop
        begin
            drop role two_tower_viewer;
            exit;
        exception
            when dependent_objects_still_exist or insufficient_privilege then exit;
            when internal_error then perform pg_sleep(0.1);
        end;
    end loop;
end
$viewer$;

do $auth$
begin
    if exists (select from two_tower.created_objects where kind = 'function' and name = 'auth.uid()') then
        drop function auth.uid();
    end if;
    if exists (select from two_tower.created_objects where kind = 'table' and name = 'auth.users') then
        drop table auth.users;
    end if;
    if exists (select from two_tower.created_objects where kind = 'schema' and name = 'auth') then
        drop schema auth;
    end if;
end
$auth$;

drop table two_tower.created_objects;

-- The schema is dropped with the last table in it; `two-tower migrate` keeps yoyo's tables there, and drops both.
do $schema$
begin
    if not exists (select from pg_catalog.pg_class where relnamespace = 'two_tower'::regnamespace) then
        drop schema two_tower;
    else
        comment on schema two_tower is null;
    end if;
end
$schema$;
