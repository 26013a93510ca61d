-- SECURITY DEFINER: service_role counts without being able to read every decision.
create or replace function two_tower.own_popularity()
returns table (days int, video_id uuid, score double precision, likers int, as_of timestamptz, counted_at timestamptz)
language sql stable parallel safe security definer set search_path = pg_catalog, pg_temp
as $func$
    -- Ages are relative to the newest like, not to the clock: the same rows give the same order at any time. A like of the future is as
    -- good as one of now, and nothing is relative to it. A review without a time counts in full.
    with likes as materialized (
        select t.user_id, t.video_id, t.created_at from two_tower.training_set() t where t.label = 1
    ),
    newest as materialized (
        select coalesce(max(l.created_at) filter (where l.created_at <= now()), now()) as at,
            two_tower.model_setting('popularity_half_life_days') * 86400 as half_life,
            -- Half-lives beyond which a like counts as if it were no older: the rest of its weight must have a value in single precision.
            120::double precision as most
        from likes l
    )
    select 0, l.video_id,
        sum(0.5 ^ coalesce(least(greatest(extract(epoch from n.at - l.created_at)::double precision / n.half_life, 0), n.most), 0)),
        count(distinct l.user_id)::int, n.at, now()
    from likes l cross join newest n
    group by l.video_id, n.at
    union all
    -- Windows end now. A like of the future is in none: it would be in all of them until then.
    select d.days, l.video_id, 0, count(distinct l.user_id)::int, n.at, now()
    from (values (1), (7), (30)) as d (days)
    join likes l on l.created_at > now() - d.days * interval '1 day' and l.created_at <= now()
    cross join newest n
    group by d.days, l.video_id, n.at
$func$;

comment on function two_tower.own_popularity() is
'Likes per video of the users of this database, each halved per half-life of age relative to the newest (as_of), and by how many people: '
'of all time (days 0), and within the last so many days, without a score';
