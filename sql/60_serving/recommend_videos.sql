create or replace function public.recommend_videos("limit" int default 20, tag_ids uuid[] default null, diversity real default 0)
returns table (
    video_id uuid, score real, rank int, title text, thumbnail_url text, product_url text, reason text, model_version text
)
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if auth.uid() is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    return query select l.* from two_tower.list_for_caller('own', null, "limit", tag_ids, diversity) l order by l.rank;
end
$func$;

comment on function public.recommend_videos(int, uuid[], real) is
'What next for the caller: videos that the caller may see and has not decided on, optionally with one of some tags. '
'diversity above 0 trades score for variety';
