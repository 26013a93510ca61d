-- A list for likes without a user: what they would add is summed as in sum_users(), each with weight 1, since arrays have no
-- times. If the towers are not sums, the mean of the places is used instead.
-- Of a video with fewer likers than the setting least_likers, only its content counts, since everything else was learnt from those people.
create or replace function two_tower.rank_session(
    p_liked uuid[], p_noped uuid[], p_limit int, p_filter two_tower.video_filter, p_diversity real, p_excluded uuid[]
) returns table (video_id uuid, score real, rank int, reason text)
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    v_version text := two_tower.served_version(auth.uid());
    v_liked uuid[] := array(select v.id from two_tower.visible_videos v where v.id = any (p_liked));
    v_noped uuid[] := array(select v.id from two_tower.visible_videos v where v.id = any (p_noped) and v.id <> all (v_liked));
    v_few uuid[] := two_tower.with_few_likers(v_liked || v_noped);
    v_bias extensions.vector;
    v_sum extensions.vector;
    v_vector extensions.halfvec;
    v_length real;
begin
    if v_version is not null and v_liked <> '{}' then
        if (select m.user_engine from two_tower.model_versions m where m.version = v_version) = 'sql' then
            select r.weight into v_bias from two_tower.model_rows(v_version, 'user', 'bias') r;
            begin
                select v_bias OPERATOR(extensions.+) coalesce(extensions.sum(t.term order by t.video_id), v_bias OPERATOR(extensions.-) v_bias)
                into v_sum
                from (
                    select t.video_id, case when t.video_id = any (v_liked) then t.liked else t.noped end as term
                    from two_tower.video_tastes t
                    where t.model_version = v_version and t.video_id = any (v_liked || v_noped) and t.video_id <> all (v_few)
                    union all
                    select t.video_id, case when t.video_id = any (v_liked) then t.liked else t.noped end
                    from two_tower.compute_tastes(v_few, v_version, true) t
                    where v_few <> '{}'
                ) as t;
            exception
                -- As place_of_content().
                when undefined_column then v_sum := null;
            end;
            v_vector := case when v_sum is not null then two_tower.user_vector(v_sum) end;
            v_length := extensions.vector_norm(v_sum);
        else
            -- Users have zero in the norm dimension, where there is one.
            select extensions.l2_normalize(
                case when (
                    select (d.feature_schema ->> 'norm_dimension')::int from two_tower.model_documents d where d.model_version = v_version
                ) = 128
                    then extensions.subvector(extensions.avg(e.embedding), 1, 127) OPERATOR(extensions.||) '[0]'
                    else extensions.avg(e.embedding) end
            ) into v_vector
            from (
                select e.embedding from two_tower.video_embeddings e
                where e.model_version = v_version and e.video_id = any (v_liked) and e.video_id <> all (v_few) and e.placed
                union all
                select c.embedding from two_tower.place_of_content(v_few, v_version) c where v_few <> '{}' and c.video_id = any (v_liked)
            ) as e;
        end if;
    end if;
    return query
    select r.*
    from two_tower.rank_by_vector(
        v_version, case when extensions.l2_norm(v_vector) > 0 then v_vector end, 'taste', p_limit, p_liked || p_noped || p_excluded, p_filter,
        p_diversity, array(select l.id from unnest(v_liked) as l (id) where l.id <> all (v_few)), null, v_length,
        two_tower.model_setting('least_likers')::int
    ) r;
end
$func$;

comment on function two_tower.rank_session(uuid[], uuid[], int, two_tower.video_filter, real, uuid[]) is
'The best visible videos for somebody known only by these likes and nopes, without these and the excluded, with the reason of '
'each: taste, popular or newest';
