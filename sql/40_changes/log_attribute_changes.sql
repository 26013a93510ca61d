-- Tags and performers of videos share these. SECURITY DEFINER: whoever may write them may not write the log.
create or replace function two_tower.log_inserted_attributes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.video_changes (video_id) select distinct n.video_id from new_rows n;
    return null;
end
$func$;

create or replace function two_tower.log_deleted_attributes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.video_changes (video_id) select distinct o.video_id from old_rows o;
    return null;
end
$func$;

create or replace function two_tower.log_updated_attributes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.video_changes (video_id)
    select c.video_id
    from ((table old_rows except table new_rows) union all (table new_rows except table old_rows)) as c
    group by c.video_id;
    return null;
end
$func$;

comment on function two_tower.log_inserted_attributes() is 'Trigger: logs videos that got a tag or performer';
comment on function two_tower.log_deleted_attributes() is 'Trigger: logs videos that lost a tag or performer';
comment on function two_tower.log_updated_attributes() is 'Trigger: logs videos of which a tag or performer changed';
