-- SECURITY DEFINER: users may not write impressions; these are the caller's own.
--
-- Whatever a client says is kept of a row is bounded here. A list that is logged again, by a client that tries again, is logged once.
create or replace function public.log_shown(shown jsonb) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_most_rows constant int := 200;
    c_reasons constant text[] := array[
        'taste', 'similar', 'trending', 'popular', 'newest', 'boosted', 'buried', 'fresh', 'pinned', 'explored'
    ];
    v_most int := two_tower.model_setting('shown_per_day')::int;
    -- A page that comes again when the setting says so is shown again.
    c_again constant interval := least(
        coalesce(nullif(two_tower.model_setting('shown_again_after_hours'), 0), 24) * interval '1 hour', interval '1 day'
    );
    -- Not where it is compared, which is done for every row.
    v_versions text[] := two_tower.live_versions() || two_tower.given_versions();
    v_rows two_tower.impressions[];
    v_bad int;
    v_field text;
    v_lately int;
    v_kept int;
begin
    perform two_tower.require_primary('log_shown()');
    if auth.uid() is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    if jsonb_typeof(shown) is distinct from 'array' then
        raise exception 'shown must be an array of rows, as a list gives them' using errcode = '22023';
    end if;
    if jsonb_array_length(shown) > c_most_rows then
        raise exception 'at most % rows can be logged at once, not %', c_most_rows, jsonb_array_length(shown) using errcode = '22023';
    end if;
    begin
        select array_agg(
                row(auth.uid(), now(), r.list_id, r.video_id, r.rank, r.model_version, r.reason, r.propensity)::two_tower.impressions
            ),
            min(r.n) filter (where r.field is not null), (array_agg(r.field order by r.n) filter (where r.field is not null))[1]
        into v_rows, v_bad, v_field
        from (
            select s.*, case
                when s.video_id is null then 'video_id'
                when s.list_id is null then 'list_id'
                when s.rank is null or s.rank not between 1 and c_most_rows then 'rank'
                when s.reason is null or s.reason <> all (c_reasons) then 'reason'
                when s.propensity not between 1e-6 and 1 then 'propensity'
            end as field
            from rows from (
                jsonb_to_recordset(shown)
                as (video_id uuid, list_id uuid, rank int, reason text, model_version text, propensity double precision)
            ) with ordinality as s (video_id, list_id, rank, reason, model_version, propensity, n)
        ) as r;
    exception when data_exception then
        raise exception 'a row of shown has a value that none in a list has: %', sqlerrm using errcode = '22023',
            hint = 'A row has video_id, list_id, rank, reason, model_version and propensity, as the list gave them.';
    end;
    if v_bad is not null then
        raise exception 'row % of shown has no good %', v_bad, v_field using errcode = '22023',
            hint = 'A row has video_id, list_id, rank, reason, model_version and propensity, as the list gave them.';
    end if;
    perform two_tower.hold_viewer(auth.uid());
    perform two_tower.make_impression_day((now() at time zone 'UTC')::date);
    -- What the user was shown of late is read once, for the limit and for what is logged already.
    with lately as materialized (
        select i.list_id, i.video_id, i.shown_at from two_tower.impressions i
        where i.user_id = auth.uid() and i.shown_at > now() - interval '1 day' limit v_most
    ),
    kept as (
        insert into two_tower.impressions
        select r.* from unnest(v_rows) as r
        where exists (select from two_tower.visible_videos v where v.id = r.video_id)
            -- A version that was retired since the list was made is nothing that anybody compares.
            and (r.model_version is null or r.model_version = any (v_versions))
            and (r.list_id, r.video_id) not in (select l.list_id, l.video_id from lately l where l.shown_at > now() - c_again)
        on conflict do nothing
        returning 1
    )
    select (select count(*) from lately), (select count(*) from kept) into v_lately, v_kept;
    if jsonb_array_length(shown) + v_lately > v_most then
        raise exception 'at most % videos can be logged within a day', v_most using errcode = '54000';
    end if;
    return v_kept;
end
$func$;

comment on function public.log_shown(jsonb) is
'Records what the caller was shown: rows as a list returned them. How many were kept: not those of deleted videos, of versions that '
'are no longer live, or logged within the last day; 22023 for an invalid row, 54000 for more than the setting shown_per_day';
