-- What compute_users() counts, in one row and from one snapshot. In plpgsql, which keeps its plan, where an SQL function is
-- planned at every call. Arrays go out in binary, which numpy reads in place; videos are numbered in id order.
create or replace function two_tower.user_histories(
    p_user_ids uuid[],
    out users bytea, out seen bytea, out likes bytea, out times bytea,
    out video_ids bytea, out prices bytea, out makers text[], out labels text[], out series text[], out sources text[],
    out tag_videos bytea, out tag_ids bytea, out performer_videos bytea, out performer_ids bytea
)
language plpgsql stable parallel safe security invoker set search_path = ''
as $func$
begin
    with decided as materialized (
        select u.n::int - 1 as n, d.video_id, d.decision_type = 'like' as liked, coalesce(d.created_at, 'infinity') as created_at
        from unnest(p_user_ids) with ordinality as u (id, n)
        join public.user_video_decisions d on d.user_id = u.id
        where d.decision_type in ('like', 'nope')
    ),
    videos as materialized (
        select v.id, row_number() over (order by v.id)::int - 1 as n,
            v.maker, v.label, v.series, v.source, coalesce(v.price, 0)::real::double precision as price
        from (select distinct d.video_id from decided d) as s
        join public.videos v on v.id = s.video_id
    ),
    history as (
        select array_send(array_agg(d.n)) as users, array_send(array_agg(v.n)) as seen, array_send(array_agg(d.liked)) as likes,
            array_send(array_agg(d.created_at)) as times
        from decided d join videos v on v.id = d.video_id
    ),
    catalogue as (
        select array_send(array_agg(v.id)) as video_ids, array_send(array_agg(v.price)) as prices,
            array_agg(v.maker) as makers, array_agg(v.label) as labels, array_agg(v.series) as series, array_agg(v.source) as sources
        from (select * from videos order by n) as v
    ),
    tags as (
        select array_send(array_agg(v.n)) as tag_videos, array_send(array_agg(t.tag_id)) as tag_ids
        from videos v join public.video_tags t on t.video_id = v.id
    ),
    performers as (
        select array_send(array_agg(v.n)) as performer_videos, array_send(array_agg(p.performer_id)) as performer_ids
        from videos v join public.video_performers p on p.video_id = v.id
    )
    select h.users, h.seen, h.likes, h.times, c.video_ids, c.prices, c.makers, c.labels, c.series, c.sources,
        t.tag_videos, t.tag_ids, p.performer_videos, p.performer_ids
    into users, seen, likes, times, video_ids, prices, makers, labels, series, sources,
        tag_videos, tag_ids, performer_videos, performer_ids
    from history h, catalogue c, tags t, performers p;
end
$func$;

comment on function two_tower.user_histories(uuid[]) is
'Likes and nopes of these users and what the videos carry, packed for compute_users(); users count from 0 in the order given';
