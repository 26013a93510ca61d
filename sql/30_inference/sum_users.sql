drop function if exists two_tower.sum_users(uuid[], text);
-- A user is the bias, plus what each decision adds, times its weight, plus what the profile adds where the version reads it, scaled to length 1. Terms are added in the order of the videos' ids, so
-- that a refresh and a rebuild give the same bits; in a sub-select, where the index has them in this order, and not in the aggregate, which
-- would sort them.
--
-- A stored taste is from the last refresh of its video. If a change of the video is pending, the taste is computed from the rows; for a
-- version that is not attached yet, always. So the result always agrees with the rows.
create or replace function two_tower.sum_users(p_user_ids uuid[], p_version text)
returns table (user_id uuid, embedding extensions.halfvec, length real)
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
-- A generic plan goes by the keys, one user after the other.
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    v_bias extensions.vector;
    v_kept boolean;
    v_recency double precision;
    -- Products by what recent places weigh, made once where there are many users.
    v_factors extensions.vector[];
    v_asked uuid[];
begin
    select (select r.weight from two_tower.model_rows(p_version, 'user', 'bias') r), m.attached_at is not null,
        two_tower.recency_of(p_version)
    into v_bias, v_kept, v_recency
    from two_tower.model_versions m where m.version = p_version;
    v_asked := case when v_kept then two_tower.changed_videos_of(p_user_ids) else array(
        select distinct d.video_id
        from public.user_video_decisions d
        where d.user_id = any (p_user_ids) and two_tower.decision_label(d.decision_type) <> -1
    ) end;
    if two_tower.reads_profiles(p_version) then
        return query
        with asked as materialized (
            select a.* from two_tower.compute_tastes(v_asked, p_version) a
        ),
        histories as (
            select u.id as user_id, bool_or(d.liked) as liked,
                extensions.sum(two_tower.times(case when d.liked then t.liked else t.noped end, d.weight) order by d.video_id) as taste
            from (select distinct i.id from unnest(p_user_ids) as i (id)) as u
            cross join lateral two_tower.weighted_decisions(u.id, v_recency) d
            cross join lateral (
                select a.liked, a.noped from asked a where a.video_id = d.video_id
                union all
                select t.liked, t.noped from two_tower.video_tastes t
                where t.model_version = p_version and t.video_id = d.video_id and v_kept and d.video_id <> all (v_asked)
            ) as t
            group by u.id
        ),
        profiles as (
            -- An input whose row is zero has none.
            select k.user_id, extensions.sum(w.weight order by k.place) as taste
            from two_tower.profile_positions(p_user_ids, p_version) k
            left join two_tower.model_weights w
                on w.model_version = p_version and w.tower = 'user' and w.part = 'row' and w.position = k.place
            group by k.user_id
        )
        select v.user_id, two_tower.user_vector(v.taste), extensions.vector_norm(v.taste)::real
        from (
            select coalesce(h.user_id, p.user_id) as user_id,
                v_bias OPERATOR(extensions.+) coalesce(h.taste, v_bias OPERATOR(extensions.-) v_bias)
                OPERATOR(extensions.+) coalesce(p.taste, v_bias OPERATOR(extensions.-) v_bias) as taste
            from histories h full join profiles p on p.user_id = h.user_id
            where h.liked or p.user_id is not null
            offset 0
        ) as v;
        return;
    end if;
    if v_asked = '{}' and v_recency > 0 then
        if cardinality(p_user_ids) > 10 then
            v_factors := array(
                select array_fill(two_tower.decision_weight(n.place, v_recency, 1), array[127])::extensions.vector
                from generate_series(0, 255) as n (place) order by n.place
            );
        end if;
        return query
        select u.id, two_tower.user_vector(v.taste), extensions.vector_norm(v.taste)::real
        from unnest(p_user_ids) as u (id)
        cross join lateral (
            select extensions.sum(
                coalesce(
                    case when d.given = 1 then d.term OPERATOR(extensions.*) v_factors[d.place + 1] end, two_tower.times(d.term, d.weight)
                )
            ) as taste, bool_or(d.liked) as liked
            from (
                select o.liked, o.place, o.given, o.weight, case when o.liked then t.liked else t.noped end as term
                from two_tower.weighted_decisions(u.id, v_recency) o
                join two_tower.video_tastes t on t.model_version = p_version and t.video_id = o.video_id
                order by o.video_id
            ) as d
        ) as s
        cross join lateral (
            select v_bias OPERATOR(extensions.+) coalesce(s.taste, v_bias OPERATOR(extensions.-) v_bias) as taste offset 0
        ) as v
        where s.liked;
        return;
    end if;
    if v_asked = '{}' then
        return query
        select u.id, two_tower.user_vector(v.taste), extensions.vector_norm(v.taste)::real
        from unnest(p_user_ids) as u (id)
        cross join lateral (
            select extensions.sum(two_tower.times(d.term, d.weight)) as taste, bool_or(d.liked) as liked
            from (
                select o.label = 1 as liked, o.weight, case when o.label = 1 then t.liked else t.noped end as term
                from two_tower.given_decisions(u.id) o
                join two_tower.video_tastes t on t.model_version = p_version and t.video_id = o.video_id
                where o.label <> -1
                order by o.video_id
            ) as d
        ) as s
        cross join lateral (
            select v_bias OPERATOR(extensions.+) coalesce(s.taste, v_bias OPERATOR(extensions.-) v_bias) as taste offset 0
        ) as v
        where s.liked;
        return;
    end if;
    return query
    with asked as materialized (
        select a.* from two_tower.compute_tastes(v_asked, p_version) a
    ),
    terms as (
        select u.id as user_id, d.video_id, d.liked, two_tower.times(case when d.liked then t.liked else t.noped end, d.weight) as term
        from (select distinct i.id from unnest(p_user_ids) as i (id)) as u
        cross join lateral two_tower.weighted_decisions(u.id, v_recency) d
        cross join lateral (
            select a.liked, a.noped from asked a where a.video_id = d.video_id
            union all
            select t.liked, t.noped from two_tower.video_tastes t
            where t.model_version = p_version and t.video_id = d.video_id and v_kept and d.video_id <> all (v_asked)
        ) as t
    )
    select v.user_id, two_tower.user_vector(v.taste), extensions.vector_norm(v.taste)::real
    from (
        select t.user_id,
            v_bias OPERATOR(extensions.+) coalesce(extensions.sum(t.term order by t.video_id), v_bias OPERATOR(extensions.-) v_bias) as taste
        from terms t
        group by t.user_id
        having bool_or(t.liked)
        offset 0
    ) as v;
end
$func$;

comment on function two_tower.sum_users(uuid[], text) is
'Vectors of these users from the present rows, and the lengths of their sums before they are scaled to 1, for a version whose user tower '
'is stored as rows; no row for a user without likes, unless the version knows a key of the profile';
