create or replace function two_tower.few_passing(p_filter two_tower.video_filter) returns uuid[]
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
-- A search by the index has it off.
set enable_seqscan = on
as $func$
declare
    c_few constant int := two_tower.few_videos();
    v_ids uuid[] := coalesce((p_filter).among, two_tower.few_by_index(p_filter));
begin
    if v_ids is null and not (p_filter is null) then
        -- Ends as soon as there are too many.
        v_ids := array(
            select v.id from public.videos v
            where (select p.passes from two_tower.passing(p_filter, v.id) as p (passes)) limit c_few + 1
        );
    end if;
    return case when cardinality(v_ids) <= c_few then v_ids end;
end
$func$;

comment on function two_tower.few_passing(two_tower.video_filter) is
'All videos that pass a filter, if they are so few that comparing each is cheapest; otherwise null';
