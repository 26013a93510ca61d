-- A table of columns cannot become one of others in place.
drop function if exists two_tower.training_set(real, real);
-- Explicit feedback only: a like is 1, a nope 0, a skip -1 (known, but no label). A decision overrides a review of the same
-- pair, since it is the later and the plainer word. A decision in any other word is known, and no label either. A review counts 1, however many stars; what a decision counts, it says itself.
create or replace function two_tower.training_set(p_min_stars real default 4, p_max_negative_stars real default 2)
returns table (user_id uuid, video_id uuid, label smallint, created_at timestamptz, weight real)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    -- As weighted_decisions(), where a table has no weight.
    select c.*
    from (select 1::real as weight) as absent
    cross join lateral (
        select d.user_id, d.video_id,
            coalesce(two_tower.decision_label(d.decision_type), -1)::smallint,
            two_tower.time_of(d.created_at), two_tower.weight_of(weight)
        from public.user_video_decisions d
    ) as c
    union all
    select r.reviewer_id, r.video_id,
        case when r.stars >= p_min_stars then 1 when r.stars <= p_max_negative_stars then 0 else -1 end::smallint,
        two_tower.time_of(r.created_at), 1
    from two_tower.reviews r
    where not exists (
        select from public.user_video_decisions d where d.user_id = r.reviewer_id and d.video_id = r.video_id
    )
$func$;

comment on function two_tower.training_set(real, real) is
'Labelled pairs to train on, from decisions and star reviews: 1 liked, 0 disliked, -1 known and neither; and what '
'each counts';
