create or replace function two_tower.history_of(p_user_id uuid, out decided uuid[], out liked uuid[], out weights real[])
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select coalesce(array_agg(d.video_id), '{}'), coalesce(array_agg(d.video_id) filter (where d.liked), '{}'), null::real[]
    from (
        select d.video_id, two_tower.decision_label(d.decision_type) = 1 as liked
        from public.user_video_decisions d where d.user_id = p_user_id
    ) as d
$func$;

comment on function two_tower.history_of(uuid) is
'What a list needs of a user''s decisions: all the videos, the liked ones, and what each of these counts in the user''s sum (null: 1)';
