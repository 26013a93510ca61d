-- A table of columns cannot become one of others in place.
drop function if exists two_tower.weighted_decisions(uuid, double precision);
-- The likes and nopes of a user, and what each counts. A place is how many are strictly newer, so what came at the same time has the same
-- one, and without times all have place 0. An unknown time is taken for 1970, as the trainer has it. Of the rows alone, never of the
-- clock; a decision on a video that is gone has its place among the others.
--
-- An adopted table may have no weight: the row called absent has it then. A body of text without a set clause, which the planner puts in
-- place of the call. Where places do not matter (p_recency 0), given_decisions() says the same for less.
create or replace function two_tower.weighted_decisions(p_user_id uuid, p_recency double precision)
returns table (video_id uuid, liked boolean, place int, given real, weight real)
language sql stable parallel safe security invoker
as $func$
    select o.video_id, o.liked, o.place::pg_catalog.int4, o.given, two_tower.decision_weight(o.place, p_recency, o.given)
    from (
        select c.video_id, c.liked, c.given,
            pg_catalog.rank() over (order by c.at desc) operator(pg_catalog.-) 1 as place
        from (select 1::pg_catalog.float4 as weight) as absent
        cross join lateral (
            select d.video_id, two_tower.decision_label(d.decision_type) operator(pg_catalog.=) 1 as liked,
                coalesce(two_tower.time_of(d.created_at), '1970-01-01 00:00+00'::pg_catalog.timestamptz) as at,
                two_tower.weight_of(weight) as given
            from public.user_video_decisions d
            where d.user_id operator(pg_catalog.=) p_user_id and two_tower.decision_label(d.decision_type) operator(pg_catalog.<>) -1
        ) as c
    ) as o
$func$;

comment on function two_tower.weighted_decisions(uuid, double precision) is
'The likes and nopes of a user, with the place of each from the newest, its own weight, and its weight with a version''s exponent';
