drop function if exists two_tower.compile_filter(two_tower.video_filter);
-- Done once for a list: bounds, empty arrays, what the viewer never wants to see or may not, and whether one of the conditions that have an
-- index is met by so few videos that looking at each is cheapest (among). What the other conditions leave is found by whoever searches
-- (few_passing()).
create or replace function two_tower.compile_filter(p_filter two_tower.video_filter, p_viewer_id uuid) returns two_tower.video_filter
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    c_most constant int := 100;
    v_few int;
    v_filter two_tower.video_filter;
    v_choices two_tower.user_choices;
    v_by_viewer boolean := (select true from two_tower.catalogue_rule r where r.eligible_when is not null);
    v_name text;
    -- The conditions that there are, those that have been looked up, and what meets them.
    v_given text[];
    v_met text[];
    v_ids uuid[];
    -- Bounds of a price, a little outside and a little inside of what is asked for.
    v_outer numeric[];
    v_inner numeric[];
begin
    if p_viewer_id is not null then
        select c.* into v_choices from two_tower.user_choices c
        where c.user_id = p_viewer_id and (c.never_makers <> '{}' or c.never_tag_ids <> '{}' or c.never_performer_ids <> '{}');
    end if;
    if p_filter is null and v_choices is null and v_by_viewer is null then
        return null;
    end if;
    select f.name into v_name
    from (values
        ('tags', cardinality((p_filter).tag_ids)), ('tags', cardinality((p_filter).all_tag_ids)), ('tags', cardinality((p_filter).no_tag_ids)),
        ('performers', cardinality((p_filter).performer_ids)), ('performers', cardinality((p_filter).all_performer_ids)),
        ('performers', cardinality((p_filter).no_performer_ids)),
        ('makers', cardinality((p_filter).makers)), ('makers', cardinality((p_filter).no_makers)),
        ('series', cardinality((p_filter).series)), ('series', cardinality((p_filter).no_series)), ('filters', cardinality((p_filter).filters))
    ) as f (name, given)
    where f.given > c_most limit 1;
    if found then
        raise exception 'at most % % can be asked for at once', c_most, v_name using errcode = '22023';
    end if;
    -- An empty array, which is what a form without a choice sends, is no filter.
    v_filter := row(
        nullif((p_filter).tag_ids, '{}'), nullif((p_filter).all_tag_ids, '{}'), nullif((p_filter).no_tag_ids || v_choices.never_tag_ids, '{}'),
        nullif((p_filter).performer_ids, '{}'), nullif((p_filter).all_performer_ids, '{}'),
        nullif((p_filter).no_performer_ids || v_choices.never_performer_ids, '{}'),
        nullif((p_filter).makers, '{}'), nullif((p_filter).no_makers || v_choices.never_makers, '{}'),
        nullif((p_filter).series, '{}'), nullif((p_filter).no_series, '{}'),
        (p_filter).price_min, (p_filter).price_max, (p_filter).duration_min, (p_filter).duration_max, (p_filter).released_after,
        nullif((p_filter).filters, '{}'), null,
        v_by_viewer, case when v_by_viewer then p_viewer_id end
    )::two_tower.video_filter;
    if v_filter.filters is not null then
        select f.name into v_name
        from unnest(v_filter.filters) as f (name)
        where not exists (select from two_tower.named_filters n where n.name = f.name) limit 1;
        if found then
            raise exception 'there is no filter %', coalesce(quote_literal(v_name), 'null')
                using errcode = '22023', hint = 'The owner defines filters: select two_tower.set_filter(name, condition).';
        end if;
    end if;
    v_few := two_tower.few_videos();
    v_given := array(select g.key from jsonb_each(jsonb_strip_nulls(to_jsonb(v_filter))) as g);
    for v_ids, v_met in
        select array(select t.video_id from public.video_tags t where t.tag_id = any (v_filter.tag_ids) limit v_few + 1), '{tag_ids}'::text[]
        where v_filter.tag_ids is not null
        union all
        select array(select t.video_id from public.video_tags t where t.tag_id = a.id limit v_few + 1),
            case when cardinality(v_filter.all_tag_ids) = 1 then '{all_tag_ids}' else '{}' end::text[]
        from unnest(v_filter.all_tag_ids) as a (id)
        union all
        select array(select t.video_id from public.video_performers t where t.performer_id = any (v_filter.performer_ids) limit v_few + 1),
            '{performer_ids}'
        where v_filter.performer_ids is not null
        union all
        select array(select t.video_id from public.video_performers t where t.performer_id = a.id limit v_few + 1),
            case when cardinality(v_filter.all_performer_ids) = 1 then '{all_performer_ids}' else '{}' end::text[]
        from unnest(v_filter.all_performer_ids) as a (id)
        union all
        -- Columns that the application may have dropped, or made another type: as passing(). Without an index, whoever searches looks.
        select array(
            select v.id
            from (select null::text as maker) as absent
            cross join lateral (select id, two_tower.text_of(maker) as maker from public.videos) as v
            where v.maker = any (v_filter.makers) limit v_few + 1
        ), '{makers}'
        where v_filter.makers is not null and two_tower.is_indexed('maker')
        union all
        select array(
            select v.id
            from (select null::text as series) as absent
            cross join lateral (select id, two_tower.text_of(series) as series from public.videos) as v
            where v.series = any (v_filter.series) limit v_few + 1
        ), '{series}'
        where v_filter.series is not null and two_tower.is_indexed('series')
    loop
        exit when cardinality(v_ids) <= v_few;
    end loop;
    -- Ranges, where the column has an index, the application's or ours, and the type that we give it. A statement is planned when it is first
    -- executed, and so never for a column of another type. An index finds a little more than price_of() and time_of() have in the range; away
    -- from its ends, a price is in it without asking.
    if (cardinality(v_ids) <= v_few) is not true and coalesce(v_filter.price_min, v_filter.price_max) is not null
        and two_tower.is_indexed('price', 'numeric') then
        -- The bounds are computed here: in the statements they would be for every row. Most ranges are met by many, which the index alone says.
        v_outer := array[coalesce(v_filter.price_min, 0) * 0.999999, coalesce(v_filter.price_max, 1e12) * 1.000001];
        v_inner := array[greatest(v_filter.price_min, 1e-30) * 1.000001, least(v_filter.price_max, 9e11) * 0.999999];
        v_ids := null;
        if not exists (select from public.videos v where v.price between v_inner[1] and v_inner[2] offset v_few) then
            v_ids := array(
                select v.id from public.videos v
                where v.price between v_outer[1] and v_outer[2]
                    and (
                        v.price between v_inner[1] and v_inner[2]
                        or two_tower.price_of(v.price) >= coalesce(v_filter.price_min, 0)
                        and two_tower.price_of(v.price) <= coalesce(v_filter.price_max, 1e12)
                    )
                limit v_few + 1
            );
        end if;
        v_met := '{price_min,price_max}';
    end if;
    if (cardinality(v_ids) <= v_few) is not true and coalesce(v_filter.duration_min, v_filter.duration_max) is not null
        and two_tower.is_indexed('duration_seconds', 'integer') then
        v_ids := array(
            select v.id from public.videos v
            where v.duration_seconds between greatest(v_filter.duration_min, 0) and coalesce(v_filter.duration_max, 2147483647)
            limit v_few + 1
        );
        v_met := '{duration_min,duration_max}';
    end if;
    if (cardinality(v_ids) <= v_few) is not true and (v_filter.released_after >= timestamptz '1900-01-01 00:00+00') is true
        and two_tower.is_indexed('product_released_at', 'timestamp with time zone')
        and two_tower.is_indexed('distribution_started_at', 'timestamp with time zone') then
        v_ids := array(
            select v.id from public.videos v
            where (v.product_released_at > v_filter.released_after or v.distribution_started_at > v_filter.released_after)
                and coalesce(two_tower.time_of(v.product_released_at), two_tower.time_of(v.distribution_started_at)) > v_filter.released_after
            limit v_few + 1
        );
        v_met := '{released_after}';
    end if;
    if cardinality(v_ids) <= v_few then
        v_filter.among := array(
            select distinct i.id from unnest(v_ids) as i (id)
            where v_given <@ v_met or (select p.passes from two_tower.passing(v_filter, i.id) as p (passes))
        );
    end if;
    return v_filter;
end
$func$;

comment on function two_tower.compile_filter(two_tower.video_filter, uuid) is
'A filter prepared for lists of a viewer (null: a visitor): without empty arrays, with what the viewer chose never to see, with the '
'owner''s condition, and with all videos that pass it (among) if its tags, performers, makers or series are rare; null for '
'none. '
'22023 if it is too large';
