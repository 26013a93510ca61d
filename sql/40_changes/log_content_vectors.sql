-- SECURITY DEFINER: whoever may write vectors may not write the log. They place a video, and no user is made of them. What a refresh takes away
-- of a video that is gone needs no other.
create or replace function two_tower.log_content_vector() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    if tg_op = 'UPDATE' and new is not distinct from old then
        return null;
    end if;
    insert into two_tower.video_changes (video_id, reaches_users)
    select distinct c.id, false
    from unnest(array[case when tg_op <> 'INSERT' then old.video_id end, case when tg_op <> 'DELETE' then new.video_id end]) as c (id)
    where exists (select from public.videos v where v.id = c.id);
    return null;
end
$func$;

comment on function two_tower.log_content_vector() is 'Trigger: logs the video of a vector that came, went or changed';

create or replace function two_tower.scale_content_vector() returns trigger
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    new.vector := two_tower.unit_vector(new.vector);
    return new;
end
$func$;

comment on function two_tower.scale_content_vector() is 'Trigger: scales a vector to length 1';
