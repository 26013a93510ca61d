-- Lists that a replay can use: every row has a propensity, and some are below 1. Lists with unknown conditions, and those of
-- users who opted out, get a reason to be left out.
create or replace function two_tower.lists_by_chance(p_days int)
returns table (user_id uuid, list_id uuid, shown_at timestamptz, left_out text)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select i.user_id, i.list_id, i.shown_at,
        case
            when two_tower.was_filtered(i.list_id) then 'filtered'
            when not (c.personalised and c.trained_on) then 'opted_out'
            when c.updated_at > i.shown_at then 'chosen_since'
        end
    from two_tower.impressions i
    left join two_tower.user_choices c on c.user_id = i.user_id
    where i.shown_at >= now() - p_days * interval '1 day'
    group by i.user_id, i.list_id, i.shown_at, c.user_id
    having count(*) = count(i.propensity) and min(i.propensity) < 1 and bool_and(i.reason not in ('similar', 'trending'))
$func$;

comment on function two_tower.lists_by_chance(int) is
'Lists of the last days with propensities below 1, and why a list cannot be used for a replay: filtered, opted_out or '
'chosen_since';
