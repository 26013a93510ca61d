drop function if exists public.recommend_videos(int, uuid[]);

-- SECURITY DEFINER: it reads vectors and popularity, which clients may not; for the caller alone.
create or replace function public.recommend_videos("limit" int default 20, tag_ids uuid[] default null, diversity real default 0)
returns table (
    video_id uuid, score real, rank int, title text, thumbnail_url text, product_url text, reason text, model_version text
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_user_id uuid := auth.uid();
    v_version text := two_tower.active_version();
begin
    if v_user_id is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    perform two_tower.require_page("limit", 0, 200);
    if cardinality(tag_ids) > 100 then
        raise exception 'at most 100 tags can be asked for at once' using errcode = '22023';
    end if;
    perform two_tower.require_diversity(diversity);
    return query
    select r.video_id, r.score, r.rank, v.title::text, v.thumbnail_url::text, v.product_url::text, r.reason, v_version
    from two_tower.rank_videos(v_user_id, "limit", tag_ids, diversity) r
    join public.videos v on v.id = r.video_id
    order by r.rank;
end
$func$;

comment on function public.recommend_videos(int, uuid[], real) is
'What next for the caller: published videos not decided on, optionally with one of some tags. diversity above 0 trades score for variety';
