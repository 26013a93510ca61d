-- A table of columns cannot become one of others in place.
drop function if exists two_tower.training_set(real, real);
-- Explicit feedback only: a like is 1, a nope 0, a skip -1 (known, but no label). A decision overrides a review of the same
-- pair, since it is newer and clearer. A decision in any other word is known, but no label either. A review weighs 1, however
-- many stars it has; a decision has its own weight.
--
-- Users who opted out of training are left out. Of an account with more rows than the setting most_decisions only the latest count, so that no
-- account weighs more, in case a program decides a hundred thousand times. Few accounts have that many; the others are not sorted for it.
create or replace function two_tower.training_set(p_min_stars real default 4, p_max_negative_stars real default 2)
returns table (user_id uuid, video_id uuid, label smallint, created_at timestamptz, weight real)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    with labelled as not materialized (
        -- As weighted_decisions(), where a table has no weight.
        select c.*
        from (select 1::real as weight) as absent
        cross join lateral (
            select d.user_id, d.video_id,
                coalesce(two_tower.decision_label(d.decision_type), -1)::smallint as label,
                two_tower.time_of(d.created_at) as created_at, two_tower.weight_of(weight) as weight
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
    ),
    bound as materialized (
        select nullif(two_tower.model_setting('most_decisions'), 0)::bigint as most
    ),
    heavy as materialized (
        select l.user_id from labelled l
        where l.user_id is not null and (select b.most from bound b) is not null
        group by l.user_id having count(*) > (select b.most from bound b)
    )
    select l.user_id, l.video_id, l.label, l.created_at, l.weight
    from labelled l
    where l.user_id not in (select h.user_id from heavy h)
        and l.user_id not in (select c.user_id from two_tower.user_choices c where not c.trained_on)
    union all
    select k.*
    from heavy h
    cross join lateral (
        select l.user_id, l.video_id, l.label, l.created_at, l.weight
        from labelled l
        where l.user_id = h.user_id
        order by l.created_at desc nulls last, l.video_id limit (select b.most from bound b)
    ) as k
    where h.user_id not in (select c.user_id from two_tower.user_choices c where not c.trained_on)
$func$;

comment on function two_tower.training_set(real, real) is
'Labelled pairs to train on, from decisions and star reviews: 1 liked, 0 disliked, -1 known and neither; with their weights; without '
'users who opted out of training, and of each account no more than the setting most_decisions';
