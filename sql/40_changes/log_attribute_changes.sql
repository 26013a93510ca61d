-- Tags and performers of videos share these. SECURITY DEFINER: whoever may write them may not write the log. Columns that may be absent, or
-- of another type: as for decisions.
create or replace function two_tower.log_inserted_attributes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.video_changes (video_id)
    select c.video_id
    from (select '00000000-0000-0000-0000-000000000000'::uuid as video_id) as absent
    cross join lateral (select distinct two_tower.id_of(video_id) as video_id from new_rows) as c
    where c.video_id is not null;
    return null;
end
$func$;

create or replace function two_tower.log_deleted_attributes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.video_changes (video_id)
    select c.video_id
    from (select '00000000-0000-0000-0000-000000000000'::uuid as video_id) as absent
    cross join lateral (select distinct two_tower.id_of(video_id) as video_id from old_rows) as c
    where c.video_id is not null;
    return null;
end
$func$;

create or replace function two_tower.log_updated_attributes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    -- A table has one of the two ids.
    insert into two_tower.video_changes (video_id)
    select distinct d.video_id
    from (
        select c.video_id
        from (
            select 1 as n, c.*
            from (select '00000000-0000-0000-0000-000000000000'::uuid as video_id, null::uuid as tag_id, null::uuid as performer_id) as absent
            cross join lateral (
                select two_tower.id_of(video_id) as video_id, coalesce(nullif(concat(tag_id, performer_id), ''), 'old') as attribute_id from old_rows
            ) as c
            union all
            select -1, c.*
            from (select '00000000-0000-0000-0000-000000000001'::uuid as video_id, null::uuid as tag_id, null::uuid as performer_id) as absent
            cross join lateral (
                select two_tower.id_of(video_id) as video_id, coalesce(nullif(concat(tag_id, performer_id), ''), 'new') as attribute_id from new_rows
            ) as c
        ) as c
        where c.video_id is not null
        group by c.video_id, c.attribute_id
        having sum(c.n) <> 0
    ) as d;
    return null;
end
$func$;

comment on function two_tower.log_inserted_attributes() is 'Trigger: logs videos that got a tag or performer';
comment on function two_tower.log_deleted_attributes() is 'Trigger: logs videos that lost a tag or performer';
comment on function two_tower.log_updated_attributes() is 'Trigger: logs videos of which a tag or performer changed';
