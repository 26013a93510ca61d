create or replace function two_tower.check_neighbours(p_version text, p_videos jsonb) returns void
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_video_id uuid;
    v_fault text;
begin
    select l.video_id, coalesce(f.fault, 'one is there twice') into v_video_id, v_fault
    from two_tower.neighbour_lists l
    cross join lateral (
        select min(
            case
                when not coalesce(abs(n.weight) < 'infinity', false)
                    then format('the weight of %s is not finite', coalesce(n.id::text, 'null'))
                else format('%s is not in the vocabulary of videos', coalesce(n.id::text, 'null'))
            end
        ) as fault
        from unnest(l.video_id || l.neighbour_ids, 1::real || l.weights) as n (id, weight)
        -- Ids are in the vocabulary as text; a sub-select is hashed.
        where not coalesce(abs(n.weight) < 'infinity', false)
            or coalesce(n.id::text, '') not in (select v.key from jsonb_array_elements_text(p_videos) as v (key))
    ) as f
    where l.model_version = p_version and (
        f.fault is not null or cardinality(l.neighbour_ids) <> (select count(distinct n.id) from unnest(l.neighbour_ids) as n (id))
    )
    limit 1;
    if v_video_id is not null then
        raise exception 'the neighbours of video % in model % are not right: %', v_video_id, p_version, v_fault
            using errcode = '22023', hint = 'Train the model anew with two-tower.';
    end if;
end
$func$;

comment on function two_tower.check_neighbours(text, jsonb) is
'Raises 22023 unless the neighbours of a version that is about to be registered are videos of its vocabulary, each once, and their weights '
'finite';
