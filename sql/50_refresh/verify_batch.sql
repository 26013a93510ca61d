-- SECURITY DEFINER: service_role compares what nobody but the owner may compute.
--
-- STABLE, so that all of it is of one snapshot. What waits in the log, or is set aside, may differ.
create or replace function two_tower.verify_batch(
    p_kind text, p_after uuid default null, p_limit int default 500, p_ids uuid[] default null,
    out last_id uuid, out seen int, out features uuid[], out vectors uuid[], out tastes uuid[]
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    -- What the log says for everybody.
    c_everybody constant uuid := '00000000-0000-0000-0000-000000000000';
    v_versions text[] := array(
        select m.version from two_tower.model_versions m
        where m.version = any (two_tower.live_versions()) and (m.backfilled_at is not null or m.state <> 'staged')
    );
    v_sums text[] := array(
        select m.version from two_tower.model_versions m where m.version = any (v_versions) and m.user_engine = 'sql'
    );
    v_ids uuid[] := p_ids;
    -- Not "p_after is null or", as two_tower.rebuild_batch().
    v_after uuid := coalesce(p_after, c_everybody);
begin
    if p_kind not in ('user', 'video') then
        raise exception 'there is nothing called % to verify', p_kind using errcode = '22023', hint = 'user or video.';
    end if;
    features := '{}';
    vectors := '{}';
    tastes := '{}';
    -- Of each table the next few, since all of a table would be read for every batch.
    if p_kind = 'user' and v_ids is null then
        v_ids := array(
            (select distinct d.user_id from public.user_video_decisions d where d.user_id > v_after order by d.user_id limit p_limit)
            union
            (select f.user_id from two_tower.user_features f where f.user_id > v_after order by f.user_id limit p_limit)
            union
            select e.user_id
            from unnest(v_versions) as v (version)
            cross join lateral (
                select e.user_id from two_tower.user_embeddings e
                where e.model_version = v.version and e.user_id > v_after order by e.user_id limit p_limit
            ) as e
            union
            select u.id
            from unnest(v_versions) as v (version)
            cross join lateral two_tower.users_by_profile(v.version, p_after, p_limit) as u (id)
            order by user_id limit p_limit
        );
    elsif v_ids is null then
        v_ids := array(
            (select i.id from public.videos i where i.id > v_after order by i.id limit p_limit)
            union
            select e.video_id
            from unnest(v_versions) as v (version)
            cross join lateral (
                select e.video_id from two_tower.video_embeddings e
                where e.model_version = v.version and e.video_id > v_after order by e.video_id limit p_limit
            ) as e
            union
            select t.video_id
            from unnest(v_sums) as v (version)
            cross join lateral (
                select t.video_id from two_tower.video_tastes t
                where t.model_version = v.version and t.video_id > v_after order by t.video_id limit p_limit
            ) as t
            order by id limit p_limit
        );
    end if;
    last_id := v_ids[cardinality(v_ids)];
    if p_kind = 'user' then
        v_ids := array(
            select i.id from unnest(v_ids) as i (id)
            where not exists (select from two_tower.pending_users c where c.user_id in (i.id, c_everybody))
                and not exists (select from two_tower.change_failures f where f.kind = 'user' and f.id = i.id)
                and two_tower.changed_videos_of(array[i.id]) = '{}'
        );
        features := array(
            select coalesce(c.user_id, f.user_id)
            from two_tower.count_user_features(v_ids) c
            full join (select s.* from two_tower.user_features s where s.user_id = any (v_ids)) as f on f.user_id = c.user_id
            where to_jsonb(c) is distinct from to_jsonb(f) - 'updated_at'
        );
        vectors := array(
            select distinct coalesce(c.user_id, s.user_id)
            from unnest(v_versions) as v (version)
            cross join lateral (
                select c.user_id, c.embedding, c.length from two_tower.compute_users(v_ids, v.version) c
            ) as c
            full join (
                select e.model_version, e.user_id, e.embedding, e.length from two_tower.user_embeddings e
                where e.model_version = any (v_versions) and e.user_id = any (v_ids)
            ) as s on s.model_version = v.version and s.user_id = c.user_id
            where c.embedding is null or s.embedding is null or c.embedding OPERATOR(extensions.<>) s.embedding
                or c.length is distinct from s.length
        );
    else
        v_ids := array(
            select i.id from unnest(v_ids) as i (id)
            where not exists (select from two_tower.video_changes c where c.video_id in (i.id, c_everybody))
                and not exists (select from two_tower.change_failures f where f.kind = 'video' and f.id = i.id)
        );
        vectors := array(
            with asked as materialized (
                select v.version, two_tower.place_of_the_unknown(v.version) as nowhere from unnest(v_versions) as v (version)
            )
            select distinct coalesce(c.video_id, s.video_id)
            from asked v
            cross join lateral (
                select c.video_id, c.embedding, c.embedding OPERATOR(extensions.<>) v.nowhere as placed
                from two_tower.compute_videos(v_ids, v.version) c
            ) as c
            full join (
                select e.model_version, e.video_id, e.embedding, e.placed from two_tower.video_embeddings e
                where e.model_version = any (v_versions) and e.video_id = any (v_ids)
            ) as s on s.model_version = v.version and s.video_id = c.video_id
            where c.embedding is null or s.embedding is null or c.embedding OPERATOR(extensions.<>) s.embedding or c.placed <> s.placed
        );
        tastes := array(
            select distinct coalesce(c.video_id, s.video_id)
            from unnest(v_sums) as v (version)
            cross join lateral (
                select c.* from two_tower.compute_tastes(v_ids, v.version) c
            ) as c
            full join (
                select t.* from two_tower.video_tastes t where t.model_version = any (v_sums) and t.video_id = any (v_ids)
            ) as s on s.model_version = v.version and s.video_id = c.video_id
            where c.video_id is null or s.video_id is null
                or (c.liked is null) <> (s.liked is null) or (c.noped is null) <> (s.noped is null)
                or c.liked OPERATOR(extensions.<>) s.liked or c.noped OPERATOR(extensions.<>) s.noped
        );
    end if;
    seen := cardinality(v_ids);
end
$func$;

comment on function two_tower.verify_batch(text, uuid, int, uuid[]) is
'Compares stored values of the next users or videos after p_after, or of p_ids, with those computed from their rows now: who differs in '
'features, in the vector of a version, in tastes; the last one compared (null at the end), and how many were compared';
