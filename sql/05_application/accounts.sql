-- Where the application's profiles are keyed by id, as in Supabase's template, or do not say since when they exist, they are read so.
-- A body of text without a set clause, which the planner puts in place of the call; qualified throughout. A view would keep the
-- application from changing its columns.
do $accounts$
declare
    v_key text;
    v_created text;
begin
    select max(a.attname) filter (where a.attname = 'user_id'), max(a.attname) filter (where a.attname = 'created_at')
    into v_key, v_created
    from pg_catalog.pg_attribute a
    where a.attrelid = 'public.profiles'::regclass and a.attname in ('user_id', 'created_at') and not a.attisdropped;
    execute format(
        'create or replace function two_tower.accounts() returns table (user_id uuid, created_at timestamptz) '
        'language sql stable parallel safe security invoker as '
        '$func$ select p.%I, %s from public.profiles p $func$',
        coalesce(v_key, 'id'),
        case when v_created is null then 'null::pg_catalog.timestamptz' else 'two_tower.time_of(p.created_at)' end
    );
end
$accounts$;

comment on function two_tower.accounts() is 'Whose profiles there are, and since when where the table says so';
