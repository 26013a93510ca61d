-- In plpgsql, which keeps the plans.
create or replace function two_tower.personalised(p_user_ids uuid[]) returns uuid[]
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
begin
    if not exists (select from two_tower.user_choices c where c.user_id = any (p_user_ids) and not c.personalised) then
        return p_user_ids;
    end if;
    return array(
        select u.id from unnest(p_user_ids) with ordinality as u (id, n)
        where not exists (select from two_tower.user_choices c where c.user_id = u.id and not c.personalised)
        order by u.n
    );
end
$func$;

comment on function two_tower.personalised(uuid[]) is 'Those of these users who have not opted out of personal lists';
