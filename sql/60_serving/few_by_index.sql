create or replace function two_tower.few_by_index(p_filter two_tower.video_filter) returns uuid[]
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    c_few constant int := two_tower.few_videos();
    -- The conditions that there are, those that have been looked up, and what meets them.
    v_given text[] := array(select g.key from jsonb_each(jsonb_strip_nulls(to_jsonb(p_filter))) as g);
    v_met text[];
    v_ids uuid[];
    -- Bounds of a price, a little outside and a little inside of what is asked for.
    v_outer numeric[];
    v_inner numeric[];
begin
    for v_ids, v_met in
        select array(select t.video_id from public.video_tags t where t.tag_id = any ((p_filter).tag_ids) limit c_few + 1), '{tag_ids}'::text[]
        where (p_filter).tag_ids is not null
        union all
        select array(select t.video_id from public.video_tags t where t.tag_id = a.id limit c_few + 1),
            case when cardinality((p_filter).all_tag_ids) = 1 then '{all_tag_ids}' else '{}' end::text[]
        from unnest((p_filter).all_tag_ids) as a (id)
        union all
        select array(select t.video_id from public.video_performers t where t.performer_id = any ((p_filter).performer_ids) limit c_few + 1),
            '{performer_ids}'
        where (p_filter).performer_ids is not null
        union all
        select array(select t.video_id from public.video_performers t where t.performer_id = a.id limit c_few + 1),
            case when cardinality((p_filter).all_performer_ids) = 1 then '{all_performer_ids}' else '{}' end::text[]
        from unnest((p_filter).all_performer_ids) as a (id)
        union all
        -- Columns that the application may have dropped, or made another type: as passing(). Without an index, whoever searches looks.
        select array(
            select v.id
            from (select null::text as maker) as absent
            cross join lateral (select id, two_tower.text_of(maker) as maker from public.videos) as v
            where v.maker = any ((p_filter).makers) limit c_few + 1
        ), '{makers}'
        where (p_filter).makers is not null and two_tower.is_indexed('maker')
        union all
        select array(
            select v.id
            from (select null::text as series) as absent
            cross join lateral (select id, two_tower.text_of(series) as series from public.videos) as v
            where v.series = any ((p_filter).series) limit c_few + 1
        ), '{series}'
        where (p_filter).series is not null and two_tower.is_indexed('series')
    loop
        exit when cardinality(v_ids) <= c_few;
    end loop;
    -- Ranges, where the column has an index, the application's or ours, and the type that we give it. A statement is planned when it is first
    -- executed, and so never for a column of another type. An index finds a little more than price_of() and time_of() have in the range; away
    -- from its ends, a price is in it without asking.
    if (cardinality(v_ids) <= c_few) is not true and coalesce((p_filter).price_min, (p_filter).price_max) is not null
        and two_tower.is_indexed('price', 'numeric') then
        -- The bounds are computed here: in the statements they would be for every row. Most ranges are met by many, which the index alone says.
        v_outer := array[coalesce((p_filter).price_min, 0) * 0.999999, coalesce((p_filter).price_max, 1e12) * 1.000001];
        v_inner := array[greatest((p_filter).price_min, 1e-30) * 1.000001, least((p_filter).price_max, 9e11) * 0.999999];
        v_ids := null;
        if not exists (select from public.videos v where v.price between v_inner[1] and v_inner[2] offset c_few) then
            v_ids := array(
                select v.id from public.videos v
                where v.price between v_outer[1] and v_outer[2]
                    and (
                        v.price between v_inner[1] and v_inner[2]
                        or two_tower.price_of(v.price) >= coalesce((p_filter).price_min, 0)
                        and two_tower.price_of(v.price) <= coalesce((p_filter).price_max, 1e12)
                    )
                limit c_few + 1
            );
        end if;
        v_met := '{price_min,price_max}';
    end if;
    if (cardinality(v_ids) <= c_few) is not true and coalesce((p_filter).duration_min, (p_filter).duration_max) is not null
        and two_tower.is_indexed('duration_seconds', 'integer') then
        v_ids := array(
            select v.id from public.videos v
            where v.duration_seconds between greatest((p_filter).duration_min, 0) and coalesce((p_filter).duration_max, 2147483647)
            limit c_few + 1
        );
        v_met := '{duration_min,duration_max}';
    end if;
    if (cardinality(v_ids) <= c_few) is not true and ((p_filter).released_after >= timestamptz '1900-01-01 00:00+00') is true
        and two_tower.is_indexed('product_released_at', 'timestamp with time zone')
        and two_tower.is_indexed('distribution_started_at', 'timestamp with time zone') then
        v_ids := array(
            select v.id from public.videos v
            where (v.product_released_at > (p_filter).released_after or v.distribution_started_at > (p_filter).released_after)
                and coalesce(two_tower.time_of(v.product_released_at), two_tower.time_of(v.distribution_started_at))
                > (p_filter).released_after
            limit c_few + 1
        );
        v_met := '{released_after}';
    end if;
    if cardinality(v_ids) <= c_few then
        return array(
            select distinct i.id from unnest(v_ids) as i (id)
            where v_given <@ v_met or (select p.passes from two_tower.passing(p_filter, i.id) as p (passes))
        );
    end if;
    return null;
end
$func$;

comment on function two_tower.few_by_index(two_tower.video_filter) is
'All videos that pass a filter, if one of its conditions has an index and is met by so few that looking at each is cheapest; otherwise '
'null';
