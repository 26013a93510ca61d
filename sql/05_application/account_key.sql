-- Beside an id of type uuid, a user_id may be anything.
create or replace function two_tower.account_key() returns name
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select a.attname
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
    where a.attrelid = 'public.profiles'::regclass and not a.attisdropped and a.attname in ('user_id', 'id')
        and 'uuid'::regtype in (t.oid, t.typbasetype)
    order by a.attname desc limit 1
$func$;

comment on function two_tower.account_key() is 'The column of public.profiles with the user''s id: user_id, or id';
