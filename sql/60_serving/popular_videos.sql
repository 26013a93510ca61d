drop function if exists two_tower.popular_videos(int, uuid[], uuid[]);
create or replace function two_tower.popular_videos(
    p_limit int, p_excluded uuid[], p_filter two_tower.video_filter default null, p_least_likers int default 1
)
returns table (video_id uuid, score real, reason text)
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
#variable_conflict use_column
declare
    c_first constant int := 1000;
    v_found int;
    v_among uuid[] := (p_filter).among;
    v_ids uuid[];
    v_scores real[];
begin
    if p_limit <= 0 then
        return;
    end if;
    -- Most filters leave enough of the most popular; whether they leave few at all is looked for where they do not.
    if v_among is null and not (p_filter is null) then
        select array_agg(f.video_id order by f.score desc, f.video_id), array_agg(f.score order by f.score desc, f.video_id)
        into v_ids, v_scores
        from (
            select t.video_id, t.score::real as score
            from (
                select p.video_id, p.score from two_tower.video_popularity p
                where p.likers >= p_least_likers order by p.score desc, p.video_id limit c_first
            ) as t
            where t.video_id not in (select unnest(p_excluded))
                and (select true from two_tower.visible_videos v where v.id = t.video_id)
                and (select f.passes from two_tower.passing(p_filter, t.video_id) as f (passes))
            order by t.score desc, t.video_id limit p_limit
        ) as f;
        if cardinality(v_ids) >= p_limit then
            return query select i.video_id, i.score, 'popular' from unnest(v_ids, v_scores) as i (video_id, score);
            return;
        end if;
        v_among := two_tower.few_passing(p_filter);
    end if;
    if v_among is not null then
        return query
        select v.id, coalesce(p.score, 0)::real, case when p.video_id is null then 'newest' else 'popular' end
        from unnest(v_among) as a (id)
        join public.videos v on v.id = a.id
        left join two_tower.video_popularity p on p.video_id = a.id and p.likers >= p_least_likers
        where (select true from two_tower.visible_videos s where s.id = v.id)
            and v.id not in (select unnest(p_excluded))
        order by p.score desc nulls last, case when p.video_id is null then v.published_at end desc, v.id limit p_limit;
        return;
    end if;
    return query
    select p.video_id, p.score::real, 'popular'
    from two_tower.video_popularity p
    where p.likers >= p_least_likers
        and p.video_id not in (select unnest(p_excluded))
        and (select true from two_tower.visible_videos v where v.id = p.video_id)
        and (p_filter is null or (select f.passes from two_tower.passing(p_filter, p.video_id) as f (passes)))
    order by p.score desc, p.video_id limit p_limit;
    get diagnostics v_found = row_count;
    if v_found >= p_limit then
        return;
    end if;
    -- Videos that nobody has liked yet, or too few, the newest first.
    return query
    select v.id, 0::real, 'newest'
    from public.videos v
    where (select true from two_tower.visible_videos s where s.id = v.id)
        and v.id not in (select unnest(p_excluded))
        and not exists (select from two_tower.video_popularity p where p.video_id = v.id and p.likers >= p_least_likers)
        and (p_filter is null or (select p.passes from two_tower.passing(p_filter, v.id) as p (passes)))
    order by v.published_at desc, v.id limit p_limit - v_found;
end
$func$;

comment on function two_tower.popular_videos(int, uuid[], two_tower.video_filter, int) is
'Visible videos by popularity, if at least so many people like them, then by date of publication, without the excluded and those '
'that do not pass the filter';
