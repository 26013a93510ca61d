-- Where the application's profiles are keyed by id, as in Supabase's template, or do not say since when they exist, they are read so. Of
-- somebody's several profiles the oldest says since when.
-- A body of text without a set clause, which the planner puts in place of the call; qualified throughout. A view would keep the
-- application from changing its columns.
do $accounts$
declare
    v_key name := two_tower.account_key();
    v_unique boolean := exists (
        select from pg_catalog.pg_attribute a
        join pg_catalog.pg_index i on i.indrelid = a.attrelid and i.indkey[0] = a.attnum
        where a.attrelid = 'public.profiles'::regclass and a.attname = v_key
            and i.indisunique and i.indisvalid and i.indpred is null and i.indnkeyatts = 1
    );
begin
    -- created_at may be absent, or of another type, now or later: as for triggers (sql/40_changes/log_user_changes.sql).
    execute format(
        'create or replace function two_tower.accounts() returns table (user_id uuid, created_at timestamptz) '
        'language sql stable parallel safe security invoker as $func$ '
        'select a.user_id, ' || case when v_unique then 'a.created_at' else 'pg_catalog.min(a.created_at)' end
        || ' from (select null::pg_catalog.timestamptz as created_at) as absent cross join lateral ('
        'select two_tower.id_of(p.%I) as user_id, two_tower.time_of(created_at) as created_at from public.profiles p) as a'
        || case when v_unique then '' else ' where a.user_id is not null group by a.user_id' end || ' $func$',
        v_key
    );
end
$accounts$;

comment on function two_tower.accounts() is 'The users with a profile, and since when, if the table says so';
