create or replace function public.log_shown(shown jsonb) returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_most_rows constant int := 200;
    v_rows two_tower.impressions[];
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
        v_rows := array(
            select row(null, null, r.list_id, r.video_id, r.rank, r.model_version, r.reason, r.propensity)::two_tower.impressions
            from rows from (
                jsonb_to_recordset(shown)
                as (video_id uuid, list_id uuid, rank int, reason text, model_version text, propensity real)
            ) with ordinality as r (video_id, list_id, rank, reason, model_version, propensity, n)
            order by r.n
        );
    exception when data_exception then
        raise exception 'a row of shown has a value that none in a list has: %', sqlerrm using errcode = '22023',
            hint = 'A row has video_id, list_id, rank, reason, model_version and propensity, as the list gave them.';
    end;
    return two_tower.keep_shown(v_rows);
end
$func$;

comment on function public.log_shown(jsonb) is
'Records what the caller was shown: rows as a list returned them. How many were kept: not those of deleted videos, of versions that '
'are no longer live, or logged within the last day; 22023 for an invalid row, 54000 for more than the setting shown_per_day';
