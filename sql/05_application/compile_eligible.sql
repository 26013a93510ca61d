-- The body is parsed here and now, so names in the condition are bound, and whoever drops a column that it names is told. Without a set
-- clause, so that the planner puts it in place of its call. Without a condition it depends on nothing.
create or replace function two_tower.compile_eligible(p_condition text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    execute format(
        'create or replace function two_tower.eligible(p_viewer_id uuid, p_video_id uuid) returns setof boolean '
        'language sql stable parallel safe security invoker begin atomic select true%s; end',
        case when p_condition is not null then format(
            ' from (select p_viewer_id as viewer_id) as viewer cross join public.videos v where v.id = p_video_id and (%s)', p_condition
        ) else '' end
    );
end
$func$;

comment on function two_tower.compile_eligible(text) is 'Creates two_tower.eligible() from a condition; null for none';
