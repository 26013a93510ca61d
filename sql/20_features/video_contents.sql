-- In plpgsql and packed, as user_decisions().
create or replace function two_tower.video_contents(
    p_video_ids uuid[],
    out video_ids bytea, out prices bytea, out makers text[], out labels text[], out series text[], out sources text[],
    out tag_videos bytea, out tag_ids bytea, out performer_videos bytea, out performer_ids bytea
)
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    with videos as materialized (
        select v.id, row_number() over ()::int - 1 as n,
            v.maker::text as maker, v.label::text as label, v.series::text as series, v.source::text as source,
            coalesce(two_tower.price_of(v.price), 0) as price
        from unnest(p_video_ids) as u (id)
        join public.videos v on v.id = u.id
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
    select c.video_ids, c.prices, c.makers, c.labels, c.series, c.sources,
        t.tag_videos, t.tag_ids, p.performer_videos, p.performer_ids
    into video_ids, prices, makers, labels, series, sources, tag_videos, tag_ids, performer_videos, performer_ids
    from catalogue c, tags t, performers p;
end
$func$;

comment on function two_tower.video_contents(uuid[]) is
'What likes of these videos count, packed for compute_users(); videos that do not exist are left out';
