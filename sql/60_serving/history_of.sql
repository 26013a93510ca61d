drop function if exists two_tower.history_of(uuid);
create or replace function two_tower.history_of(p_user_id uuid, p_version text, out decided uuid[], out liked uuid[], out weights real[])
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select coalesce(array_agg(d.video_id), '{}'), coalesce(array_agg(d.video_id) filter (where d.liked), '{}'),
        array_agg(d.weight) filter (where d.liked and d.weight is not null)
    from (
        select d.video_id, two_tower.decision_label(d.decision_type) = 1 as liked, w.weight
        from public.user_video_decisions d
        left join (
            select o.* from two_tower.weighted_decisions(p_user_id, (select two_tower.recency_of(p_version))) o
            where (select two_tower.recency_of(p_version)) > 0
        ) as w on w.video_id = d.video_id
        where d.user_id = p_user_id
    ) as d
$func$;

comment on function two_tower.history_of(uuid, text) is
'What a list by a version needs of a user''s decisions: all the videos, the liked ones, and what each of these counts in the user''s sum '
'(null: 1)';
