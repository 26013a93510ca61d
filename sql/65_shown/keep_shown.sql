-- SECURITY DEFINER: users may not write impressions; these are the caller's own, whoever and whenever a row says.
--
-- Whatever a client says is kept of a row is bounded here. A list that is logged again, by a client that tries again, is logged once.
create or replace function two_tower.keep_shown(p_rows two_tower.impressions[]) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_reasons constant text[] := array[
        'taste', 'similar', 'trending', 'popular', 'newest', 'boosted', 'buried', 'fresh', 'pinned', 'explored'
    ];
    c_user_id constant uuid := auth.uid();
    v_most int := two_tower.model_setting('shown_per_day')::int;
    -- A page that comes again when the setting says so is shown again.
    c_again constant interval := least(
        coalesce(nullif(two_tower.model_setting('shown_again_after_hours'), 0), 24) * interval '1 hour', interval '1 day'
    );
    -- Not where it is compared, which is done for every row.
    v_versions text[] := two_tower.live_versions() || two_tower.given_versions();
    v_bad int;
    v_field text;
    v_list_ids uuid[];
    v_lately int;
    v_again_lists uuid[];
    v_again_videos uuid[];
    v_kept int;
begin
    perform two_tower.hold_viewer(c_user_id);
    select min(r.n) filter (where r.field is not null), (array_agg(r.field order by r.n) filter (where r.field is not null))[1],
        array_agg(distinct r.list_id)
    into v_bad, v_field, v_list_ids
    from (
        select s.n, s.list_id, case
            when s.video_id is null then 'video_id'
            when s.list_id is null then 'list_id'
            when s.rank is null or s.rank not between 1 and 200 then 'rank'
            when s.reason is null or s.reason <> all (c_reasons) then 'reason'
            when s.propensity not between 1e-6::real and 1 then 'propensity'
        end as field
        from unnest(p_rows) with ordinality as s (user_id, shown_at, list_id, video_id, rank, model_version, reason, propensity, n)
    ) as r;
    if v_bad is not null then
        raise exception 'row % of shown has no good %', v_bad, v_field using errcode = '22023',
            hint = 'A row has video_id, list_id, rank, reason, model_version and propensity, as the list gave them.';
    end if;
    -- What the user was shown of late is read once, for the limit and for what is logged already.
    select count(*),
        array_agg(i.list_id) filter (where i.shown_at > now() - c_again and i.list_id = any (v_list_ids)),
        array_agg(i.video_id) filter (where i.shown_at > now() - c_again and i.list_id = any (v_list_ids))
    into v_lately, v_again_lists, v_again_videos
    from (
        select s.list_id, s.video_id, s.shown_at from two_tower.impressions s
        where s.user_id = c_user_id and s.shown_at > now() - interval '1 day' limit v_most
    ) as i;
    if cardinality(p_rows) + v_lately > v_most then
        raise exception 'at most % videos can be logged within a day', v_most using errcode = '54000';
    end if;
    perform two_tower.make_impression_day((now() at time zone 'UTC')::date);
    insert into two_tower.impressions (user_id, shown_at, list_id, video_id, rank, model_version, reason, propensity)
    select c_user_id, now(), r.list_id, r.video_id, r.rank, r.model_version, r.reason, r.propensity
    from unnest(p_rows) as r
    where exists (select from two_tower.visible_videos v where v.id = r.video_id)
        -- A version that was retired since the list was made is nothing that anybody compares.
        and (r.model_version is null or r.model_version = any (v_versions))
        and (r.list_id, r.video_id) not in (select l.list_id, l.video_id from unnest(v_again_lists, v_again_videos) as l (list_id, video_id))
    on conflict do nothing;
    get diagnostics v_kept = row_count;
    return v_kept;
end
$func$;

comment on function two_tower.keep_shown(two_tower.impressions[]) is
'Records what the caller was shown, now. How many were kept: not those of deleted videos, of versions that are no longer live, or logged '
'within the last day; 28000 if nobody is signed in, 22023 for an invalid row, 54000 for more than the setting shown_per_day';
