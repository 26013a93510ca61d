-- A body of text without a set clause, which the planner puts in place of the call; qualified throughout. A column that the application drops
-- says nothing any more: its name is found beside the table then, as for triggers (sql/40_changes/log_user_changes.sql).
create or replace function two_tower.compile_profile_keys() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_names text[] := array(select i.name from two_tower.profile_inputs i order by i.name);
    v_body text;
begin
    select format(
        'select distinct c.kind, k.key from (select %s) as absent cross join lateral ('
        'select %s from public.profiles p where two_tower.id_of(p.%I) operator(pg_catalog.=) $1) as p '
        'cross join lateral (values %s) as c (kind, value) '
        'cross join lateral two_tower.keys_of(c.value) as k',
        string_agg(format('null::pg_catalog.text as %I', n.name), ', ' order by n.at),
        string_agg(format('pg_catalog.to_jsonb(%I) as v%s', n.name, n.at), ', ' order by n.at),
        two_tower.account_key(),
        string_agg(format('(%L, p.v%s)', 'profile_' || n.name, n.at), ', ' order by n.at)
    ) into v_body
    from unnest(v_names) with ordinality as n (name, at);
    execute format(
        'create or replace function two_tower.profile_keys(p_user_id uuid) returns table (kind text, key text) '
        'language sql stable parallel safe security invoker as $keys$ %s $keys$',
        case when v_names = '{}' then 'select null::pg_catalog.text, null::pg_catalog.text where false' else v_body end
    );
end
$func$;

comment on function two_tower.compile_profile_keys() is 'Creates two_tower.profile_keys() from two_tower.profile_inputs';
