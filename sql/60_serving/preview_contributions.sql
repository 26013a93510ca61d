-- SECURITY DEFINER: the page's role asks, which may read neither tastes nor places; it sees what anybody decided all the same.
--
-- A score is the cosine of a user's sum with a place, whose last entry meets a zero, plus what neighbours add: each a sum over decisions,
-- divided by the length of the user's sum. So every decision has its share, and the rest is the bias. From the present decisions and
-- tastes, like sum_users().
create or replace function two_tower.preview_contributions(p_user_id uuid, p_video_id uuid, p_version text)
returns table (kind text, because_video_id uuid, value double precision)
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp
as $func$
#variable_conflict use_column
begin
    -- If the towers are not sums, there is nothing to split up; nor for a user who opted out of personal lists.
    if two_tower.personalised(array[p_user_id]) = '{}' or not exists (
        select from two_tower.model_versions m
        where m.version = p_version and m.user_engine = 'sql' and m.attached_at is not null
    ) then
        return;
    end if;
    return query
    with place as materialized (
        select extensions.subvector(e.embedding, 1, 127)::extensions.vector as place
        from two_tower.video_embeddings e
        where e.model_version = p_version and e.video_id = p_video_id and e.placed
    ),
    terms as materialized (
        select d.video_id, d.liked, d.weight, two_tower.times(case when d.liked then t.liked else t.noped end, d.weight) as term
        from two_tower.weighted_decisions(p_user_id, two_tower.recency_of(p_version)) d
        join two_tower.video_tastes t on t.model_version = p_version and t.video_id = d.video_id
    ),
    bias as materialized (
        select r.weight as term from two_tower.model_rows(p_version, 'user', 'bias') r
    ),
    profile as materialized (
        -- An input whose row is zero has none; the user is known by it all the same.
        select extensions.sum(w.weight) as term, count(*) > 0 as known
        from two_tower.profile_positions(array[p_user_id], p_version) k
        left join two_tower.model_rows(p_version, 'user', 'row') w on w.at = k.place
    ),
    whole as materialized (
        select extensions.vector_norm(
            b.term OPERATOR(extensions.+) coalesce(s.term, b.term OPERATOR(extensions.-) b.term)
            OPERATOR(extensions.+) coalesce(f.term, b.term OPERATOR(extensions.-) b.term)
        ) as length
        from bias b
        cross join profile f
        cross join (select extensions.sum(t.term) as term, bool_or(t.liked) as liked from terms t) as s
        where s.liked or f.known
    )
    select case when t.liked then 'like' else 'nope' end, t.video_id,
        (
            -- <#> is the inner product, less than zero.
            -(t.term OPERATOR(extensions.<#>) p.place)
            + case
                when t.liked then coalesce(n.weights[array_position(n.neighbour_ids, p_video_id)] * t.weight, 0)
                else 0
            end
        ) / w.length
    from terms t
    cross join place p
    join whole w on w.length > 1e-12
    left join two_tower.neighbour_lists n on n.model_version = p_version and n.video_id = t.video_id
    union all
    select 'profile', null, -(f.term OPERATOR(extensions.<#>) p.place) / w.length
    from profile f
    cross join place p
    join whole w on w.length > 1e-12
    where f.term is not null
    union all
    select 'everybody', null, -(b.term OPERATOR(extensions.<#>) p.place) / w.length
    from bias b
    cross join place p
    join whole w on w.length > 1e-12;
end
$func$;

comment on function two_tower.preview_contributions(uuid, uuid, text) is
'What each like and nope of a user and the profile add to the score of a video by a version, and what is the same for everybody; their sum '
'is the score of preview_recommendations(). No row if the towers of the version are not sums';
