drop function if exists two_tower.compile_filter(two_tower.video_filter);
-- Done once for a list: bounds, empty arrays, and what the viewer never wants to see or may not.
create or replace function two_tower.compile_filter(p_filter two_tower.video_filter, p_viewer_id uuid) returns two_tower.video_filter
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    c_most constant int := 100;
    v_filter two_tower.video_filter;
    v_choices two_tower.user_choices;
    v_by_viewer boolean := (select true from two_tower.catalogue_rule r where r.eligible_when is not null);
    v_name text;
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
    return v_filter;
end
$func$;

comment on function two_tower.compile_filter(two_tower.video_filter, uuid) is
'A filter prepared for lists of a viewer (null: a visitor): without empty arrays, with what the viewer chose never to see and with the '
'owner''s condition; null for none. 22023 if it is too large';
