drop function if exists two_tower.popular_videos(int, uuid[], uuid[]);
create or replace function two_tower.popular_videos(
    p_limit int, p_excluded uuid[], p_tag_ids uuid[] default null, p_least_likers int default 1
)
returns table (video_id uuid, score real, reason text)
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
#variable_conflict use_column
declare
    v_found int;
begin
    return query
    select p.video_id, p.score::real, 'popular'
    from two_tower.video_popularity p
    where p.likers >= p_least_likers
        and p.video_id not in (select unnest(p_excluded))
        and (select true from two_tower.visible_videos v where v.id = p.video_id)
        and (p_tag_ids is null or exists (
            select from public.video_tags t where t.video_id = p.video_id and t.tag_id = any (p_tag_ids)
        ))
    order by p.score desc, p.video_id limit p_limit;
    get diagnostics v_found = row_count;
    if v_found >= p_limit then
        return;
    end if;
    -- What nobody has liked yet, or too few, the newest first.
    return query
    select v.id, 0::real, 'newest'
    from public.videos v
    where (select true from two_tower.visible_videos s where s.id = v.id)
        and v.id not in (select unnest(p_excluded))
        and not exists (select from two_tower.video_popularity p where p.video_id = v.id and p.likers >= p_least_likers)
        and (p_tag_ids is null or exists (
            select from public.video_tags t where t.video_id = v.id and t.tag_id = any (p_tag_ids)
        ))
    order by v.published_at desc, v.id limit p_limit - v_found;
end
$func$;

comment on function two_tower.popular_videos(int, uuid[], uuid[], int) is
'Visible videos by popularity, where at least so many people like them, then by date of publication, less the excluded and those '
'without any of the tags';
