-- SECURITY DEFINER: as refresh_batch.
create or replace function two_tower.update_popularity() returns int
language plpgsql volatile security definer set search_path = ''
as $func$
declare
    v_half_life double precision := (select (value #>> '{}')::double precision * 86400 from two_tower.settings where name = 'popularity_half_life_days');
    v_rows int;
begin
    -- Ages are relative to the newest decision, not to the clock: the same rows give the same order at any time.
    with newest as (
        select max(created_at) as at from public.user_video_decisions
    ),
    scored as (
        select d.video_id, sum(0.5 ^ (extract(epoch from n.at - d.created_at)::double precision / v_half_life)) as score
        from public.user_video_decisions d cross join newest n
        where d.decision_type = 'like'
        group by d.video_id
    ),
    gone as (
        delete from two_tower.video_popularity p where not exists (select from scored s where s.video_id = p.video_id)
    )
    insert into two_tower.video_popularity as p (video_id, score)
    select s.video_id, s.score from scored s
    on conflict (video_id) do update set score = excluded.score where p.score <> excluded.score;
    get diagnostics v_rows = row_count;
    return v_rows;
end
$func$;

comment on function two_tower.update_popularity() is 'Counts likes per video, each halved per half-life of age relative to the newest decision; rows changed';
