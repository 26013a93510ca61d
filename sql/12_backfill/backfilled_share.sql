-- SECURITY DEFINER: it counts in tables that are not attached yet, and that nobody else may read.
create or replace function two_tower.backfilled_share(p_version text) returns numeric
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_model record;
    v_done bigint;
    v_all bigint;
begin
    select m.number, m.state, m.backfilled_at into v_model from two_tower.model_versions m where m.version = p_version;
    if v_model.state is null or v_model.state not in ('staged', 'active', 'standby') then
        return null;
    end if;
    if v_model.backfilled_at is not null then
        return 1;
    end if;
    execute format(
        'select (select count(*) from two_tower.video_embeddings_%1$s) + (select count(*) from two_tower.user_embeddings_%1$s)', v_model.number
    ) into v_done;
    select (select count(*) from public.videos) + (select count(*) from two_tower.liking_users())
        + two_tower.count_by_profile(p_version)
    into v_all;
    -- The last step, an index or a check, is still to come: not 1 before it is over.
    return least(round(v_done::numeric / greatest(v_all, 1), 3), 0.999);
end
$func$;

comment on function two_tower.backfilled_share(text) is
'Share of videos and users that a live version has vectors of: 1 when its backfill is over, null for one that has none';
