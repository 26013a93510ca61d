-- SECURITY DEFINER: it reads places and tastes, which clients may not; of the likes that the caller gives, for videos that may be shown.
create or replace function two_tower.session_reasons(p_video_ids uuid[], p_liked uuid[])
returns table (video_id uuid, because_video_id uuid)
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_version constant text := two_tower.served_version(auth.uid());
    v_liked uuid[];
    v_few uuid[];
begin
    perform two_tower.require_session(p_liked, null);
    if cardinality(p_video_ids) > 200 then
        raise exception 'at most 200 videos can be asked for at once' using errcode = '22023';
    end if;
    if (select m.user_engine from two_tower.model_versions m where m.version = c_version) is distinct from 'sql' then
        return;
    end if;
    v_liked := array(select v.id from two_tower.visible_videos v where v.id = any (p_liked));
    -- As rank_session() has it.
    v_few := two_tower.with_few_likers(v_liked);
    return query
    select r.* from two_tower.like_reasons(
        c_version, p_video_ids, array(select l.id from unnest(v_liked) as l (id) where l.id <> all (v_few)), null, v_few
    ) r;
exception
    -- As place_of_content().
    when undefined_column then return;
end
$func$;

comment on function two_tower.session_reasons(uuid[], uuid[]) is
'For each of these videos, the one of these likes that adds most to its score in a list of recommend_from(); no row if none adds, or '
'if the towers are not sums. At most 200 videos';
