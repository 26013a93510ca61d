-- Where the application's profiles are keyed by id, as in Supabase's template, or do not say since when they exist, they are read so. Of
-- somebody's several profiles the oldest says since when.
-- A body of text without a set clause, which the planner puts in place of the call; qualified throughout. A view would keep the
-- application from changing its columns.
do $accounts$
declare
    v_created text;
    v_key text;
    v_unique boolean;
begin
    -- Beside an id of type uuid, a user_id may be anything.
    select a.attname, exists (
        select from pg_catalog.pg_index i
        where i.indrelid = a.attrelid and i.indisunique and i.indisvalid and i.indpred is null and i.indnkeyatts = 1 and i.indkey[0] = a.attnum
    ) into v_key, v_unique
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
    where a.attrelid = 'public.profiles'::regclass and not a.attisdropped and a.attname in ('user_id', 'id')
        and 'uuid'::regtype in (t.oid, t.typbasetype)
    order by a.attname desc limit 1;
    select case when count(*) = 0 then 'null::pg_catalog.timestamptz' else 'two_tower.time_of(p.created_at)' end into v_created
    from pg_catalog.pg_attribute a
    where a.attrelid = 'public.profiles'::regclass and not a.attisdropped and a.attname = 'created_at';
    execute format(
        'create or replace function two_tower.accounts() returns table (user_id uuid, created_at timestamptz) '
        'language sql stable parallel safe security invoker as $func$ '
        || case when v_unique then 'select p.%1$I::pg_catalog.uuid, %2$s from public.profiles p'
        else 'select p.%1$I::pg_catalog.uuid, pg_catalog.min(%2$s) from public.profiles p where p.%1$I is not null group by p.%1$I' end
        || ' $func$',
        v_key, v_created
    );
end
$accounts$;

comment on function two_tower.accounts() is 'Whose profiles there are, and since when where the table says so';
