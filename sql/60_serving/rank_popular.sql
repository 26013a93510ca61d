create or replace function two_tower.rank_popular(p_limit int, p_days int, p_filter two_tower.video_filter, p_excluded uuid[])
returns table (video_id uuid, score real, rank int, reason text)
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
#variable_conflict use_column
declare
    c_least constant int := two_tower.model_setting('least_likers');
    v_ids uuid[] := '{}';
begin
    if p_days is not null then
        v_ids := array(
            select t.video_id
            from two_tower.video_trends t
            where t.days = p_days and t.likers >= c_least
                and t.video_id not in (select unnest(p_excluded))
                and (select true from two_tower.visible_videos v where v.id = t.video_id)
                and (p_filter is null or (select p.passes from two_tower.passing(p_filter, t.video_id) as p (passes)))
            order by t.likers desc, t.video_id limit p_limit
        );
    end if;
    return query
    select a.video_id, (1.0 / a.rank)::real, a.rank, a.reason
    from (
        select t.id as video_id, t.n::int as rank, 'trending' as reason from unnest(v_ids) with ordinality as t (id, n)
        union all
        select p.video_id, cardinality(v_ids) + p.n::int, p.reason
        from rows from (two_tower.popular_videos(p_limit - cardinality(v_ids), p_excluded || v_ids, p_filter, c_least))
            with ordinality as p (video_id, score, reason, n)
    ) as a
    order by a.rank;
end
$func$;

comment on function two_tower.rank_popular(int, int, two_tower.video_filter, uuid[]) is
'Visible videos that most people liked within so many days, then by popularity, then the newest; likes of fewer people than the setting '
'least_likers do not change the order';
