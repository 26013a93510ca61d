drop function if exists two_tower.compute_tastes(uuid[], text);
-- What a like and a nope of a video add to a user, unless decisions are weighed: the rows of the user tower at the positions that
-- encode_users() fills for somebody who has decided on this one video. Prices have a value, everything else counts one.
create or replace function two_tower.compute_tastes(p_video_ids uuid[], p_version text, p_by_content boolean default false)
returns table (video_id uuid, liked extensions.vector, noped extensions.vector)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    with videos as materialized (
        select n.video_id, n.price from two_tower.video_numbers(p_video_ids) n
    ),
    keyed as (
        select v.video_id, a.kind, a.key from videos v cross join lateral two_tower.attributes_of(v.video_id) as a
        union all
        select v.video_id, 'video', v.video_id::text from videos v where not p_by_content
    ),
    entries as (
        select k.video_id, s.segment = 'noped_video_ids' as noped, i.position, 1::real as value
        from keyed k
        join two_tower.input_segments() s on s.tower = 'user' and s.kind = k.kind
        -- By the key, one after the other, here and below: before an analyze the planner would read the whole model for each.
        cross join lateral (
            select m.position from two_tower.model_inputs m
            where m.model_version = p_version and m.tower = 'user' and m.segment = s.segment and m.key = k.key limit 1
        ) as i
        union all
        select v.video_id, n.name = 'nope_count', n.place,
            case when n.name = 'price_sum' then v.price::real when n.name <> 'priced_count' or v.price > 0 then 1::real end
        from videos v
        join two_tower.input_numbers() n on n.tower = 'user'
    )
    select v.video_id,
        extensions.sum(two_tower.times(w.weight, e.value) order by e.position) filter (where not e.noped),
        extensions.sum(two_tower.times(w.weight, e.value) order by e.position) filter (where e.noped)
    from videos v
    left join (
        entries e
        cross join lateral (
            select r.weight from two_tower.model_weights r
            where r.model_version = p_version and r.tower = 'user' and r.part = 'row' and r.position = e.position limit 1
        ) as w
    ) on e.video_id = v.video_id and e.value > 0
    group by v.video_id
$func$;

comment on function two_tower.compute_tastes(uuid[], text, boolean) is
'What a like and a nope of each of these videos add to a user, from the present rows; null if that is nothing, and no row for a '
'video that does not exist. With p_by_content as if no video had been in the vocabulary';
