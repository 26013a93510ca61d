drop function if exists two_tower.define_users(uuid[], text, text);
-- The way that the towers are defined and exported: all that is counted becomes one raw input, which the tower turns into a vector.
create or replace function two_tower.define_users(p_user_ids uuid[], p_version text, p_engine text default null)
returns table (user_id uuid, embedding extensions.halfvec, length real)
language sql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select v.user_id, v.embedding,
        -- Nothing but neighbours needs it.
        case when exists (select from two_tower.model_versions m where m.version = p_version and m.with_neighbours > 0)
            then extensions.vector_norm(two_tower.sum_input(p_version, v.input))::real
        end
    from (
        select array_agg(e.user_id order by e.user_id) as ids, array_agg(e.input order by e.user_id) as inputs
        from two_tower.encode_users(
            array(
                select distinct d.user_id
                from public.user_video_decisions d
                where d.user_id = any (p_user_ids) and two_tower.decision_label(d.decision_type) = 1
                    and exists (select from public.videos v where v.id = d.video_id)
                union
                select k.user_id from two_tower.profile_positions(p_user_ids, p_version) k
            ),
            p_version
        ) e
    ) as b
    cross join lateral unnest(b.ids, two_tower.infer(p_version, 'user', b.inputs, p_engine), b.inputs)
        as v (user_id, embedding, input)
    where b.ids is not null
$func$;

comment on function two_tower.define_users(uuid[], text, text) is
'Vectors of these users by the plain definition, encode_users() and infer(), by the engine of the version or the one named; and, for '
'versions with neighbours whose user tower is there as rows, the lengths of their sums';
