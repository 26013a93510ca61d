-- SECURITY DEFINER: service_role asks on everybody's behalf, without owning the tables.
create or replace function two_tower.recommend_batch(user_ids uuid[], "limit" int default 20)
returns table (user_id uuid, video_id uuid, score real, rank int)
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_user_id uuid;
begin
    perform two_tower.require_page("limit", 0, 1000);
    perform two_tower.require_visible_when();
    foreach v_user_id in array coalesce(user_ids, '{}') loop
        return query
        select v_user_id, r.video_id, r.score, r.rank from two_tower.rank_videos(v_user_id, "limit", two_tower.compile_filter(null, v_user_id)) r order by r.rank;
    end loop;
end
$func$;

comment on function two_tower.recommend_batch(uuid[], int) is
'recommend_videos for many users at once, for mailings and evaluation';
