drop function if exists two_tower.user_histories(uuid[]);
drop function if exists two_tower.user_decisions(uuid[]);
-- In one row and from one snapshot, in plpgsql, which keeps its plan, where an SQL function is planned at every call. Arrays go
-- out in binary, which numpy reads in place.
create or replace function two_tower.user_decisions(
    p_user_ids uuid[], out sides bytea, out videos bytea, out times bytea, out generation uuid
)
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    select array_send(array_agg(2 * u.n::int - 1 - two_tower.decision_label(d.decision_type))), array_send(array_agg(d.video_id)),
        array_send(array_agg(coalesce(two_tower.time_of(d.created_at), 'infinity'))),
        (select s.generation from two_tower.catalogue_state s where not exists (select from two_tower.video_changes))
    into sides, videos, times, generation
    from unnest(p_user_ids) with ordinality as u (id, n)
    join public.user_video_decisions d on d.user_id = u.id
    where two_tower.decision_label(d.decision_type) <> -1;
end
$func$;

comment on function two_tower.user_decisions(uuid[]) is
'Likes and nopes of these users, packed for compute_users(); users count from 0 in the order given, and a '
'side is twice that number, plus one for a nope. The generation is that of the catalogue, or null while changes of videos are in the log';
